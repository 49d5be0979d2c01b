//! Commands from the wire.
//!
//! Invariants: each promise that a comment of `customer.proto` or `commands.proto` makes about a field is
//! checked here; what may carry personal data is declared for calls alone: topics are kept, so none may be a
//! way to send such data.

use std::sync::Arc;

use holdfast_adapter::{body, check};
use holdfast_core::{
    Message,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_customers_domain::{Address, Command, Preferences, Profile};
use holdfast_proto::customers::v1;
use uuid::Uuid;

/// `ce_type` of `CreateCustomer`.
pub const CREATE_CUSTOMER: &str = "holdfast.customers.v1.CreateCustomer";
/// `ce_type` of `UpdateProfile`.
pub const UPDATE_PROFILE: &str = "holdfast.customers.v1.UpdateProfile";
/// `ce_type` of `AddAddress`.
pub const ADD_ADDRESS: &str = "holdfast.customers.v1.AddAddress";
/// `ce_type` of `ChangeAddress`.
pub const CHANGE_ADDRESS: &str = "holdfast.customers.v1.ChangeAddress";
/// `ce_type` of `RemoveAddress`.
pub const REMOVE_ADDRESS: &str = "holdfast.customers.v1.RemoveAddress";
/// `ce_type` of `SetPreferences`.
pub const SET_PREFERENCES: &str = "holdfast.customers.v1.SetPreferences";
/// `ce_type` of `SuspendCustomer`.
pub const SUSPEND_CUSTOMER: &str = "holdfast.customers.v1.SuspendCustomer";
/// `ce_type` of `ReactivateCustomer`.
pub const REACTIVATE_CUSTOMER: &str = "holdfast.customers.v1.ReactivateCustomer";
/// `ce_type` of `EraseCustomer`.
pub const ERASE_CUSTOMER: &str = "holdfast.customers.v1.EraseCustomer";

const PERSONAL: &[MessageOrigin] = &[MessageOrigin::Call];
const ANYWHERE: &[MessageOrigin] = &[MessageOrigin::Commands, MessageOrigin::Call];

/// The commands of the context.
pub(super) const HANDLED: &[Handled] = &[
    Handled::new(CREATE_CUSTOMER, PERSONAL),
    Handled::new(UPDATE_PROFILE, PERSONAL),
    Handled::new(ADD_ADDRESS, PERSONAL),
    Handled::new(CHANGE_ADDRESS, PERSONAL),
    Handled::new(REMOVE_ADDRESS, PERSONAL),
    Handled::new(SET_PREFERENCES, PERSONAL),
    Handled::new(SUSPEND_CUSTOMER, ANYWHERE),
    Handled::new(REACTIVATE_CUSTOMER, ANYWHERE),
    Handled::new(ERASE_CUSTOMER, ANYWHERE),
];

/// Longest name of a person, or line of an address, in bytes.
const LINE_BYTES_MAX: usize = 200;
/// Longest e-mail address, in bytes.
const EMAIL_BYTES_MAX: usize = 254;
/// Longest telephone number, in bytes.
const PHONE_BYTES_MAX: usize = 40;
/// Most lines of an address.
const LINES_MAX: usize = 4;
/// Longest name of a city, in bytes.
const CITY_BYTES_MAX: usize = 100;
/// Longest postal code, in bytes.
const POSTAL_CODE_BYTES_MAX: usize = 20;
/// Longest language tag, in bytes.
const LOCALE_BYTES_MAX: usize = 35;
/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// The command in `message`.
pub(super) fn decode(message: &Message) -> Result<Command, Refused> {
    match &*message.r#type {
        CREATE_CUSTOMER => {
            let body: v1::CreateCustomer = body::decode(message)?;
            customer_id(&body.customer_id, message)?;
            let preferences = body.preferences.as_ref().map(preferences).transpose()?.unwrap_or_default();
            Ok(Command::CreateCustomer { profile: profile(body.profile.as_ref())?, preferences })
        }
        UPDATE_PROFILE => {
            let body: v1::UpdateProfile = body::decode(message)?;
            customer_id(&body.customer_id, message)?;
            Ok(Command::UpdateProfile { profile: profile(body.profile.as_ref())? })
        }
        ADD_ADDRESS => {
            let body: v1::AddAddress = body::decode(message)?;
            customer_id(&body.customer_id, message)?;
            Ok(Command::AddAddress { id: address_id(&body.address_id)?, address: address(body.address.as_ref())? })
        }
        CHANGE_ADDRESS => {
            let body: v1::ChangeAddress = body::decode(message)?;
            customer_id(&body.customer_id, message)?;
            Ok(Command::ChangeAddress { id: address_id(&body.address_id)?, address: address(body.address.as_ref())? })
        }
        REMOVE_ADDRESS => {
            let body: v1::RemoveAddress = body::decode(message)?;
            customer_id(&body.customer_id, message)?;
            Ok(Command::RemoveAddress { id: address_id(&body.address_id)? })
        }
        SET_PREFERENCES => {
            let body: v1::SetPreferences = body::decode(message)?;
            customer_id(&body.customer_id, message)?;
            let said = body.preferences.as_ref().ok_or_else(|| check::missing("preferences"))?;
            Ok(Command::SetPreferences { preferences: preferences(said)? })
        }
        SUSPEND_CUSTOMER => {
            let body: v1::SuspendCustomer = body::decode(message)?;
            customer_id(&body.customer_id, message)?;
            Ok(Command::SuspendCustomer { reason: check::at_most("reason", &body.reason, REASON_BYTES_MAX)?.into() })
        }
        REACTIVATE_CUSTOMER => {
            let body: v1::ReactivateCustomer = body::decode(message)?;
            customer_id(&body.customer_id, message)?;
            Ok(Command::ReactivateCustomer)
        }
        ERASE_CUSTOMER => {
            let body: v1::EraseCustomer = body::decode(message)?;
            customer_id(&body.customer_id, message)?;
            Ok(Command::EraseCustomer)
        }
        _ => Err(Refused::unknown_type()),
    }
}

/// The customer's id is well-formed, and the record's key.
fn customer_id(id: &str, message: &Message) -> Result<(), Refused> {
    check::canonical_uuid("customer_id", id)?;
    check::equals_key("customer_id", id, &message.key)
}

fn address_id(id: &str) -> Result<Uuid, Refused> {
    check::canonical_uuid("address_id", id)
}

fn profile(said: Option<&v1::Profile>) -> Result<Profile, Refused> {
    let said = said.ok_or_else(|| check::missing("profile"))?;
    let email = check::at_most("profile.email", &said.email, EMAIL_BYTES_MAX)?;
    let parts = email.split_once('@').filter(|(user, host)| !user.is_empty() && !host.is_empty());
    if parts.is_none_or(|(_, host)| host.contains('@')) || email.contains(char::is_whitespace) {
        return Err(Refused::invalid("profile.email", "profile.email has not one @ with something on both sides"));
    }
    let phone = check::at_most("profile.phone", &said.phone, PHONE_BYTES_MAX)?;
    Ok(Profile {
        name: present("profile.name", &said.name, LINE_BYTES_MAX)?,
        email: email.into(),
        phone: (!phone.is_empty()).then(|| phone.into()),
    })
}

fn address(said: Option<&v1::Address>) -> Result<Address, Refused> {
    let said = said.ok_or_else(|| check::missing("address"))?;
    if !(1..=LINES_MAX).contains(&said.lines.len()) {
        return Err(Refused::invalid("address.lines", format!("address.lines holds not 1-{LINES_MAX} lines")));
    }
    let lines = said.lines.iter().map(|line| present("address.lines", line, LINE_BYTES_MAX));
    if said.country.len() != 2 || !said.country.bytes().all(|byte| byte.is_ascii_uppercase()) {
        let text = "address.country is not two capital letters, as in ISO 3166-1 alpha-2";
        return Err(Refused::invalid("address.country", text));
    }
    Ok(Address {
        recipient: present("address.recipient", &said.recipient, LINE_BYTES_MAX)?,
        lines: lines.collect::<Result<_, _>>()?,
        city: present("address.city", &said.city, CITY_BYTES_MAX)?,
        postal_code: check::at_most("address.postal_code", &said.postal_code, POSTAL_CODE_BYTES_MAX)?.into(),
        country: said.country.as_str().into(),
    })
}

fn preferences(said: &v1::Preferences) -> Result<Preferences, Refused> {
    let locale = check::at_most("preferences.locale", &said.locale, LOCALE_BYTES_MAX)?;
    if !locale.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(Refused::invalid("preferences.locale", "preferences.locale holds more than [A-Za-z0-9-]"));
    }
    Ok(Preferences { locale: (!locale.is_empty()).then(|| locale.into()), marketing: said.marketing })
}

/// A text that is there, of at most `bytes_max` bytes.
fn present(field: &str, text: &str, bytes_max: usize) -> Result<Arc<str>, Refused> {
    if text.trim().is_empty() { Err(check::missing(field)) } else { Ok(check::at_most(field, text, bytes_max)?.into()) }
}
