//! What was asked of the provider, against which each of its answers is held.
//!
//! Invariant: an answer that holds is about this order, this charge, this refund and this amount; one that
//! leaves out a part which is always sent along does not hold. Deliberately absent: what an answer means once
//! it holds.

use std::sync::Arc;

use holdfast_money::Money;
use holdfast_payments_domain::{Contradiction, Subject};

use crate::provider::{Charge, Refund};

/// Most bytes that are kept of what the provider said.
const ANSWERED_BYTES_MAX: usize = 255;

/// One call, as far as its answer repeats it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The effect's name.
    pub(super) source: &'a str,
    /// The order.
    pub(super) order_id: &'a str,
    /// The provider's reference of the charge; `None` where the answer gives it.
    pub(super) charge: Option<&'a str>,
    /// How much; `None` where the call does not say.
    pub(super) amount: Option<Money>,
}

impl Asked<'_> {
    /// Whether this charge is the one that was asked for.
    pub(super) fn holds_for_charge(&self, answer: &Charge) -> Result<(), Contradiction> {
        self.same(Subject::Order, Some(self.order_id), answer.order_id.as_deref())?;
        self.same(Subject::Charge, self.charge, Some(&answer.reference))?;
        self.same_amount(answer.amount)
    }

    /// Whether this refund is the one that was asked for.
    pub(super) fn holds_for_refund(&self, number: u32, answer: &Refund) -> Result<(), Contradiction> {
        self.same(Subject::Order, Some(self.order_id), answer.order_id.as_deref())?;
        self.same(Subject::Charge, self.charge, answer.charge.as_deref())?;
        self.same(Subject::Refund, Some(&number.to_string()), answer.number.as_deref())?;
        self.same_amount(answer.amount)
    }

    fn same_amount(&self, answered: Money) -> Result<(), Contradiction> {
        let asked = self.amount.map(|amount| amount.to_string());
        self.same(Subject::Amount, asked.as_deref(), Some(&answered.to_string()))
    }

    fn same(&self, subject: Subject, asked: Option<&str>, answered: Option<&str>) -> Result<(), Contradiction> {
        match asked {
            Some(asked) if answered != Some(asked) => Err(Contradiction {
                source: self.source.into(),
                subject,
                asked: asked.into(),
                answered: kept(answered.unwrap_or_default()),
            }),
            _ => Ok(()),
        }
    }
}

/// A stranger's text as it can be stored and shown: bounded, and without control characters.
fn kept(text: &str) -> Arc<str> {
    let shown = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    let mut kept = String::new();
    for c in shown {
        if kept.len() + c.len_utf8() > ANSWERED_BYTES_MAX {
            break;
        }
        kept.push(c);
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_answer_is_bounded_and_holds_no_control_character() {
        assert_eq!(&*kept("pi_1\0\n"), "pi_1\u{fffd}\u{fffd}");
        assert_eq!(kept(&"é".repeat(200)).len(), 254);
        assert_eq!(&*kept(""), "");
    }
}
