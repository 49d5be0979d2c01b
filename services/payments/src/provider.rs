//! The port to a payment provider.
//!
//! An adapter makes one call and says what came of it, no more. Invariant: [`Failure`] tells apart what is
//! final, what did not begin and what may have happened; the caller repeats a call by that (see
//! [`crate::perform`]), so that money moves once. `key` makes repeats of a call one call. Each answer says
//! which order, charge and amount it is about, so that it can be held against what was asked. Deliberately
//! absent: that comparison, trying again, rates, and anything that is one provider's alone.

use async_trait::async_trait;
use holdfast_core::Timestamp;
use holdfast_money::Money;

/// A charge that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCharge<'a> {
    /// The order, by which the charge can be found.
    pub order_id: &'a str,
    /// How much.
    pub amount: Money,
    /// Token of the payment method.
    pub payment_method: &'a str,
    /// Whether to authorize only.
    pub authorize_first: bool,
}

/// A refund that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRefund<'a> {
    /// The order.
    pub order_id: &'a str,
    /// The provider's reference of the payment.
    pub reference: &'a str,
    /// Which refund of the payment, by which it can be found.
    pub number: u32,
    /// How much.
    pub amount: Money,
}

/// A charge as the provider has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The provider's reference.
    pub reference: String,
    /// The order that it is for, if the provider says so.
    pub order_id: Option<String>,
    /// How much moved, is held, or was to move, by how far it got.
    pub amount: Money,
    /// How far it got.
    pub progress: Progress,
}

/// How far a charge got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The money moved.
    Captured,
    /// The amount is held.
    Authorized,
    /// It was refused.
    Declined {
        /// Why, in the provider's code.
        code: String,
    },
    /// It was called off, or the authorization lapsed.
    CalledOff,
    /// The provider does not know yet.
    Pending,
    /// It was begun and never tried; of itself it moves nothing.
    NotTried,
}

/// A refund as the provider has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// The provider's reference of the refund.
    pub reference: String,
    /// The order that it is for, if the provider says so.
    pub order_id: Option<String>,
    /// The provider's reference of the charge that is given back, if it says so.
    pub charge: Option<String>,
    /// Which refund of the payment, if the provider says so.
    pub number: Option<String>,
    /// How much.
    pub amount: Money,
    /// How far it got.
    pub progress: Refunded,
}

/// How far a refund got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refunded {
    /// It was taken.
    Taken,
    /// It failed for good.
    Failed {
        /// Why, in the provider's code.
        code: String,
    },
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The provider refused, and will: nothing happened.
    #[error("refused: {code}")]
    Refused {
        /// Why, in the provider's code.
        code: String,
        /// The charge that was refused, if the provider says which.
        charge: Option<Box<Charge>>,
    },
    /// The provider did not begin, and may later: too many requests, or another one with this key is under
    /// way.
    #[error("not now: {reason}")]
    Busy {
        /// `RATE_LIMITED` or `IN_PROGRESS`.
        reason: &'static str,
        /// When to ask again, if it said so.
        after: Option<std::time::Duration>,
    },
    /// Nothing usable came back. It may have happened.
    #[error("unknown: {reason}")]
    Unknown {
        /// `TIMEOUT`, `CONNECTION` or `MALFORMED`.
        reason: &'static str,
    },
    /// The provider failed. It may have happened.
    #[error("the provider failed")]
    Failed {
        /// Whether this is what the provider has stored for the key, so that the key will never give another
        /// answer.
        stored: bool,
    },
    /// The key was used before with other parameters: a defect of ours.
    #[error("the key was used with other parameters")]
    KeyReused,
    /// The provider does not know us, or not what we ask for: an operator has to look at it.
    #[error("misconfigured: {status}")]
    Misconfigured {
        /// The HTTP status.
        status: u16,
    },
}

/// A payment provider.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Whether this amount can be asked for at all, whatever else; else why not, in `UPPER_SNAKE_CASE`.
    fn accepts(&self, amount: Money) -> Result<(), &'static str>;

    /// Moves the money, or authorizes the amount.
    async fn charge(&self, charge: &NewCharge<'_>, key: &str) -> Result<Charge, Failure>;

    /// Captures all that was authorized.
    async fn capture(&self, reference: &str, key: &str) -> Result<Charge, Failure>;

    /// Lets an authorization go.
    async fn void(&self, reference: &str, key: &str) -> Result<Charge, Failure>;

    /// Gives money back.
    async fn refund(&self, refund: &NewRefund<'_>, key: &str) -> Result<Refund, Failure>;

    /// The order's charge, of those that were begun at or after `since`; the one that got furthest. `None`
    /// proves that there is none.
    async fn find(&self, order_id: &str, since: Timestamp) -> Result<Option<Charge>, Failure>;

    /// A charge by its reference.
    async fn look(&self, reference: &str) -> Result<Charge, Failure>;

    /// A refund of the charge `reference` by its number. `None` proves that there is none.
    async fn find_refund(&self, reference: &str, number: u32) -> Result<Option<Refund>, Failure>;
}
