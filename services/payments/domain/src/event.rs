//! What can have happened to a payment. Its state is the fold of these; each carries the time it happened.

use std::sync::Arc;

use holdfast_core::Timestamp;
use holdfast_money::{FxRate, Money};

use crate::{
    Cause, Contradiction,
    effect::{CAPTURE, CHARGE, Call, EffectChange, VOID, refund_name},
};

/// Something that happened to a payment. `at` is when, by the owning node's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A payment began.
    PaymentRequested {
        /// When.
        at: Timestamp,
        /// What the order costs.
        amount: Money,
        /// Token of the payment method, if the order has one.
        payment_method: Option<Arc<str>>,
        /// Whether to authorize first.
        authorize_first: bool,
    },
    /// The provider holds the amount.
    PaymentAuthorized {
        /// When.
        at: Timestamp,
        /// The provider's reference.
        reference: Arc<str>,
        /// How much.
        amount: Money,
        /// What is done about it.
        then: Then,
    },
    /// The money moved.
    PaymentCaptured {
        /// When.
        at: Timestamp,
        /// The provider's reference.
        reference: Arc<str>,
        /// How much.
        amount: Money,
        /// The rate at that moment, from now on pinned.
        rate: FxRate,
        /// The amount in the books' currency.
        settled: Money,
    },
    /// No money moved, and none will.
    PaymentDeclined {
        /// When.
        at: Timestamp,
        /// Why.
        code: Arc<str>,
    },
    /// The payment learned that its order was cancelled.
    PaymentCancellationNoted {
        /// When.
        at: Timestamp,
        /// The provider's reference of an authorization that is to be let go, if there is one.
        voids: Option<Arc<str>>,
    },
    /// No money moved, and none will, because the order was cancelled.
    PaymentVoided {
        /// When.
        at: Timestamp,
    },
    /// Money is to be given back.
    RefundRequested {
        /// When.
        at: Timestamp,
        /// Which refund, from 1.
        number: u32,
        /// How much.
        amount: Money,
        /// What it was asked for by.
        cause: Cause,
        /// The provider's reference of the payment.
        reference: Arc<str>,
    },
    /// Money was given back.
    PaymentRefunded {
        /// When.
        at: Timestamp,
        /// Which refund.
        number: u32,
        /// How much.
        amount: Money,
        /// How much in all, this refund included.
        refunded_total: Money,
        /// This refund in the books' currency, at the pinned rate.
        settled: Money,
        /// The provider's reference of the refund; `None` if the provider reported only how much was given
        /// back in all.
        reference: Option<Arc<str>>,
    },
    /// A refund was refused for good.
    RefundFailed {
        /// When.
        at: Timestamp,
        /// Which refund.
        number: u32,
        /// How much was to be given back.
        amount: Money,
        /// Why.
        code: Arc<str>,
    },
    /// The provider contradicted what was asked of it. Nothing is called or moved for the payment from now
    /// on.
    PaymentContradicted {
        /// When.
        at: Timestamp,
        /// What differs.
        contradiction: Contradiction,
        /// The refunds that were being asked for, whose calls end.
        refunds: Vec<u32>,
    },
}

/// What is done about an amount that the provider holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Capture it.
    Capture,
    /// Let it go: the order was cancelled meanwhile.
    Void,
}

impl Event {
    /// When it happened, by the owning node's clock.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::PaymentRequested { at, .. }
            | Self::PaymentAuthorized { at, .. }
            | Self::PaymentCaptured { at, .. }
            | Self::PaymentDeclined { at, .. }
            | Self::PaymentCancellationNoted { at, .. }
            | Self::PaymentVoided { at }
            | Self::RefundRequested { at, .. }
            | Self::PaymentRefunded { at, .. }
            | Self::RefundFailed { at, .. }
            | Self::PaymentContradicted { at, .. } => *at,
        }
    }

    /// Which calls to the provider begin and end with it, in order. The one place that says so.
    pub fn effects(&self) -> Vec<EffectChange> {
        let end = |names: &[&'static str]| -> Vec<_> { names.iter().map(|name| EffectChange::end(*name)).collect() };
        match self {
            Self::PaymentRequested { amount, payment_method: Some(payment_method), authorize_first, .. }
                if !amount.is_zero() =>
            {
                let (amount, payment_method) = (*amount, payment_method.clone());
                let call = Call::Charge { amount, payment_method, authorize_first: *authorize_first };
                vec![EffectChange::begin(CHARGE, call)]
            }
            Self::PaymentAuthorized { reference, then, .. } => {
                let reference = reference.clone();
                let next = match then {
                    Then::Capture => EffectChange::begin(CAPTURE, Call::Capture { reference }),
                    Then::Void => EffectChange::begin(VOID, Call::Void { reference }),
                };
                vec![EffectChange::end(CHARGE), next]
            }
            Self::PaymentCaptured { .. } | Self::PaymentDeclined { .. } | Self::PaymentVoided { .. } => {
                end(&[CHARGE, CAPTURE, VOID])
            }
            Self::PaymentCancellationNoted { voids: Some(reference), .. } => {
                let call = Call::Void { reference: reference.clone() };
                vec![EffectChange::end(CAPTURE), EffectChange::begin(VOID, call)]
            }
            Self::PaymentRequested { .. } | Self::PaymentCancellationNoted { voids: None, .. } => Vec::new(),
            Self::RefundRequested { number, amount, reference, .. } => {
                let call = Call::Refund { reference: reference.clone(), number: *number, amount: *amount };
                vec![EffectChange::begin(refund_name(*number), call)]
            }
            Self::PaymentRefunded { number, .. } | Self::RefundFailed { number, .. } => {
                vec![EffectChange::end(refund_name(*number))]
            }
            Self::PaymentContradicted { refunds, .. } => {
                let refunds = refunds.iter().map(|number| EffectChange::end(refund_name(*number)));
                end(&[CHARGE, CAPTURE, VOID]).into_iter().chain(refunds).collect()
            }
        }
    }
}
