//! The parts that a payment's messages share: amount, rate, time, and text that may be missing.
//!
//! Invariant: what goes out comes back as it was. A part that no build could have written is refused, never
//! guessed. Deliberately absent: reading an amount or a time, which is [`check`]'s.

use std::sync::Arc;

use holdfast_adapter::check;
use holdfast_core::{Timestamp, disposition::Refused};
use holdfast_money::{FxRate, Money, Ratio};
use holdfast_proto::{money::v1 as money, payments::v1, time};

pub(super) fn amount(amount: Money) -> money::Money {
    money::Money { minor: amount.minor, currency: amount.currency.code().to_owned() }
}

pub(super) fn rate(rate: FxRate) -> v1::ExchangeRate {
    v1::ExchangeRate {
        from: rate.from().code().to_owned(),
        to: rate.to().code().to_owned(),
        numerator: rate.rate().numerator(),
        denominator: rate.rate().denominator(),
    }
}

pub(super) fn read_rate(field: &str, rate: Option<&v1::ExchangeRate>) -> Result<FxRate, Refused> {
    let rate = rate.ok_or_else(|| check::missing(field))?;
    let from = check::currency(&format!("{field}.from"), &rate.from)?;
    let to = check::currency(&format!("{field}.to"), &rate.to)?;
    Ratio::new(rate.numerator, rate.denominator)
        .and_then(|ratio| FxRate::new(from, to, ratio))
        .map_err(|_| Refused::invalid(field, format!("{field} is not a positive fraction")))
}

pub(super) fn stamp(at: Timestamp) -> holdfast_proto::Timestamp {
    time::from_unix_ms(at.unix_ms())
}

pub(super) fn text(text: Option<&Arc<str>>) -> String {
    text.map_or_else(String::new, |text| text.as_ref().to_owned())
}

pub(super) fn given(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}
