//! Why a payment says no. Each reason has its own name, which callers may rely on.

use holdfast_money::Currency;

use crate::REFUNDS_MAX;

/// A business rejection: an answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No payment was asked for under this order's id.
    #[error("there is no such payment")]
    PaymentNotFound,
    /// No money has moved that could be given back.
    #[error("there is nothing to give back of a payment that is {status}")]
    WrongState {
        /// Where the payment is: `REQUESTED`, `DECLINED`, ….
        status: &'static str,
    },
    /// Less than one unit. Adapters refuse this as malformed input before it comes here.
    #[error("the amount must be at least one unit")]
    AmountNotPositive,
    /// An amount or a rate of another currency than the payment's.
    #[error("the payment is in {payment}, not in {other}")]
    CurrencyMismatch {
        /// The payment's.
        payment: Currency,
        /// The one that came.
        other: Currency,
    },
    /// More than was captured and is neither given back nor on its way.
    #[error("more than what is left of the payment")]
    RefundExceedsCaptured,
    /// The refund id was used before with another amount.
    #[error("this refund id was used before with another amount")]
    RefundIdReused,
    /// One refund more than a payment may have.
    #[error("a payment has at most {REFUNDS_MAX} refunds")]
    TooManyRefunds,
    /// The payment is stopped, since the provider contradicted what was asked of it.
    #[error("the payment is stopped: the provider contradicts what was asked of it")]
    PaymentContradicted,
    /// The amount does not fit the books' currency.
    #[error("the amount in the books' currency would be too large")]
    SettlementTooLarge,
    /// There is no rate from the payment's currency to the books'.
    #[error("there is no rate for {currency}")]
    NoRate {
        /// The payment's.
        currency: Currency,
    },
    /// The rate was not looked up before the decision: a defect of the adapter, kept from doing harm.
    #[error("the rate was not asked for")]
    RateNotAsked,
}

impl Rejection {
    /// Its stable name, in `UPPER_SNAKE_CASE`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::PaymentNotFound => "PAYMENT_NOT_FOUND",
            Self::WrongState { .. } => "WRONG_STATE",
            Self::AmountNotPositive => "AMOUNT_NOT_POSITIVE",
            Self::CurrencyMismatch { .. } => "CURRENCY_MISMATCH",
            Self::RefundExceedsCaptured => "REFUND_EXCEEDS_CAPTURED",
            Self::RefundIdReused => "REFUND_ID_REUSED",
            Self::TooManyRefunds => "TOO_MANY_REFUNDS",
            Self::PaymentContradicted => "PAYMENT_CONTRADICTED",
            Self::SettlementTooLarge => "SETTLEMENT_TOO_LARGE",
            Self::NoRate { .. } => "NO_RATE",
            Self::RateNotAsked => "RATE_NOT_ASKED",
        }
    }
}
