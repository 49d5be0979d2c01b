//! What a customer says about itself.
//!
//! Invariant: `Debug` of these types holds nothing of what they hold, so that neither a log line nor a failed
//! assertion can. Deliberately absent: `Display`, and any check of what is said, which is made at the door.

use std::{fmt, sync::Arc};

/// The most addresses that a customer may have.
pub const ADDRESSES_MAX: usize = 50;

/// Who a customer is.
#[derive(Clone, PartialEq, Eq)]
pub struct Profile {
    /// As the person writes it.
    pub name: Arc<str>,
    /// An e-mail address.
    pub email: Arc<str>,
    /// A telephone number, if one was given.
    pub phone: Option<Arc<str>>,
}

/// Where something can be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Who receives it there.
    pub recipient: Arc<str>,
    /// Street, house, floor; at least one line.
    pub lines: Arc<[Arc<str>]>,
    /// City.
    pub city: Arc<str>,
    /// Empty where the country has none.
    pub postal_code: Arc<str>,
    /// Two capital letters, as in ISO 3166-1 alpha-2.
    pub country: Arc<str>,
}

/// How a customer wants to be treated. By default nothing was said, and nothing is advertised.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Preferences {
    /// A language tag, if one was said.
    pub locale: Option<Arc<str>>,
    /// Whether the shop may advertise to this customer.
    pub marketing: bool,
}

/// A part of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileField {
    /// [`Profile::name`].
    Name,
    /// [`Profile::email`].
    Email,
    /// [`Profile::phone`].
    Phone,
}

/// A part of the preferences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreferenceField {
    /// [`Preferences::locale`].
    Locale,
    /// [`Preferences::marketing`].
    Marketing,
}

impl Profile {
    /// The parts that are not as in `before`; all of them if that is not known any more.
    pub fn changes(&self, before: Option<&Self>) -> Vec<ProfileField> {
        let differs = |part: fn(&Self) -> Option<&Arc<str>>| before.is_none_or(|before| part(before) != part(self));
        [
            (ProfileField::Name, differs(|profile| Some(&profile.name))),
            (ProfileField::Email, differs(|profile| Some(&profile.email))),
            (ProfileField::Phone, differs(|profile| profile.phone.as_ref())),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect()
    }
}

impl Preferences {
    /// The parts that are not as in `before`; all of them if that is not known any more.
    pub fn changes(&self, before: Option<&Self>) -> Vec<PreferenceField> {
        let locale = before.is_none_or(|before| before.locale != self.locale);
        let marketing = before.is_none_or(|before| before.marketing != self.marketing);
        [(PreferenceField::Locale, locale), (PreferenceField::Marketing, marketing)]
            .into_iter()
            .filter_map(|(field, differs)| differs.then_some(field))
            .collect()
    }
}

/// Stands for what is not shown.
const HIDDEN: &str = "(personal)";

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Profile{HIDDEN}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address{HIDDEN}")
    }
}

impl fmt::Debug for Preferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Preferences{HIDDEN}")
    }
}
