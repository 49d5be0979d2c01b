//! A provider's word that is not about what was asked of it.
//!
//! A contradiction stops its payment: what the provider has is not what is known here, so that any further
//! call could move the money of another order. Deliberately absent: what sets a payment going again, since
//! only a person with the provider's books can tell.

use std::sync::Arc;

use holdfast_money::Money;

/// What a contradiction calls a report that the provider made without being asked.
pub const REPORT: &str = "report";

/// What a contradiction says was asked where no payment was.
pub const NOTHING: &str = "nothing";

/// An answer or a report of the provider that differs from what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The name of the call that was answered, or [`REPORT`].
    pub source: Arc<str>,
    /// Which part differs.
    pub subject: Subject,
    /// What was asked.
    pub asked: Arc<str>,
    /// What the provider said instead; empty if it said nothing.
    pub answered: Arc<str>,
}

/// Which part of an answer differs from what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The order.
    Order,
    /// The charge, by the provider's reference.
    Charge,
    /// The number of the refund.
    Refund,
    /// The amount, its currency included.
    Amount,
}

impl Subject {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Order => "ORDER",
            Self::Charge => "CHARGE",
            Self::Refund => "REFUND",
            Self::Amount => "AMOUNT",
        }
    }
}

impl Contradiction {
    /// A report about another charge.
    pub(crate) fn charge(asked: &Arc<str>, answered: &Arc<str>) -> Self {
        let (asked, answered) = (asked.clone(), answered.clone());
        Self { source: REPORT.into(), subject: Subject::Charge, asked, answered }
    }

    /// A report of another amount; `asked` is `None` where no payment was asked for.
    pub(crate) fn amount(asked: Option<Money>, answered: Money) -> Self {
        let asked = asked.map_or_else(|| NOTHING.to_owned(), |amount| amount.to_string());
        let answered = answered.to_string().into();
        Self { source: REPORT.into(), subject: Subject::Amount, asked: asked.into(), answered }
    }

    /// The same, about the answer to the call `name`.
    pub(crate) fn in_answer_to(self, name: &str) -> Self {
        Self { source: name.into(), ..self }
    }
}
