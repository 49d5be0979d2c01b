//! Money on its way back, and how much of it there is.

use std::sync::Arc;

use holdfast_money::Money;

/// Refunds that one payment may be asked for by `RefundPayment`; what a cancellation brings about comes on
/// top.
pub const REFUNDS_MAX: usize = 100;

/// One refund of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Counts the payment's refunds from 1.
    pub number: u32,
    /// How much.
    pub amount: Money,
    /// What it was asked for by.
    pub cause: Cause,
    /// Where it is in its life.
    pub state: State,
}

/// What a refund was asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `RefundPayment`.
    Requested {
        /// The caller's id of it.
        id: Arc<str>,
    },
    /// The order was cancelled.
    OrderCancelled,
    /// The money moved after the payment had ended without any.
    LateCapture,
}

/// Where a refund is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The provider is being asked.
    Pending,
    /// The provider took it.
    Done {
        /// The amount in the books' currency.
        settled: Money,
        /// The provider's reference of the refund; `None` if the provider reported only how much was given
        /// back in all.
        reference: Option<Arc<str>>,
    },
    /// The provider refused it.
    Failed {
        /// Why.
        code: Arc<str>,
    },
}

impl Refund {
    /// Whether the provider is being asked.
    pub const fn is_pending(&self) -> bool {
        matches!(self.state, State::Pending)
    }

    /// Whether the provider took it.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }
}
