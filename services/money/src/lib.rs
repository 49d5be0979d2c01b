//! Exact money: integers in a currency's smallest unit, and nothing else.
//!
//! No operation wraps, rounds in silence or mixes currencies: each gives the exact result, a result rounded
//! half-to-even where the name says so, or an [`Error`]. [`Money::allocate`] never loses a unit. Deliberately
//! absent: floating point (a lint and a test see to it), rates and where they come from, encodings.

#![deny(clippy::float_arithmetic)]

mod allocate;
mod currency;
mod fx;
mod money;
mod ratio;
mod text;

pub use currency::Currency;
pub use fx::FxRate;
pub use money::Money;
pub use ratio::Ratio;

/// Why an operation on money has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two amounts, or an amount and a rate, are of different currencies.
    #[error("{left} and {right} can't be mixed")]
    CurrencyMismatch {
        /// The currency that was expected.
        left: Currency,
        /// The one that came.
        right: Currency,
    },
    /// The result does not fit 64 bits of minor units.
    #[error("the amount is too large")]
    Overflow,
    /// Not the code of a currency in use.
    #[error("unknown currency")]
    UnknownCurrency,
    /// A code of ISO 4217 that has no minor unit, such as gold's, so that amounts of it can't be counted.
    #[error("the currency has no minor unit")]
    NoMinorUnit,
    /// A ratio's denominator is not positive, or a rate is not.
    #[error("not a valid ratio")]
    InvalidRatio,
    /// There is nobody to allocate to: no weights, or all of them zero.
    #[error("nothing to allocate by")]
    NoWeights,
    /// The text is no amount of this currency.
    #[error("not an amount")]
    InvalidAmount,
}
