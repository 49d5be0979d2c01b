//! What has to be asked of the provider, and under which name.
//!
//! Invariant: a name stands for one call of one payment, for ever: `charge`, `capture` and `void` happen at
//! most once in a payment's life, refunds are numbered. So a name makes the key under which a provider keeps
//! a call from happening twice.

use std::{borrow::Cow, sync::Arc};

use holdfast_money::Money;

/// The effect that moves the money, or authorizes the amount.
pub const CHARGE: &str = "charge";
/// The effect that captures what was authorized.
pub const CAPTURE: &str = "capture";
/// The effect that lets an authorization go.
pub const VOID: &str = "void";

/// The effect that gives money back for the refund `number`.
pub fn refund_name(number: u32) -> Cow<'static, str> {
    format!("refund:{number}").into()
}

/// One call to the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Move the money, or authorize the amount.
    Charge {
        /// How much.
        amount: Money,
        /// Token of the payment method.
        payment_method: Arc<str>,
        /// Whether to authorize only.
        authorize_first: bool,
    },
    /// Capture what was authorized.
    Capture {
        /// The provider's reference.
        reference: Arc<str>,
    },
    /// Let an authorization go.
    Void {
        /// The provider's reference.
        reference: Arc<str>,
    },
    /// Give money back.
    Refund {
        /// The provider's reference of the payment.
        reference: Arc<str>,
        /// Which refund.
        number: u32,
        /// How much.
        amount: Money,
    },
}

/// What an event does to the calls that are under way. Changes take effect in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectChange {
    /// This call is to be made until its outcome is known.
    Begin {
        /// Unique within the payment.
        name: Cow<'static, str>,
        /// What to ask.
        call: Call,
    },
    /// The call of this name need not be made any more; none being under way is fine.
    End {
        /// Unique within the payment.
        name: Cow<'static, str>,
    },
}

impl EffectChange {
    pub(crate) fn begin(name: impl Into<Cow<'static, str>>, call: Call) -> Self {
        Self::Begin { name: name.into(), call }
    }

    pub(crate) fn end(name: impl Into<Cow<'static, str>>) -> Self {
        Self::End { name: name.into() }
    }
}
