//! Commands to a payment: requests of an operator, news of orders, and answers and reports of the provider.

use std::sync::Arc;

use holdfast_money::{FxRate, Money};

use crate::Contradiction;

/// A command from an operator, news from orders, or an answer or a report of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The stock of an order is held: it is to be paid for.
    OrderReserved {
        /// What it costs; not negative.
        amount: Money,
        /// Token of the payment method, if the order has one.
        payment_method: Option<Arc<str>>,
        /// Whether to authorize the amount first and capture it by a call of its own.
        authorize_first: bool,
        /// What the books make of it, filled in before the decision.
        quote: Quote,
    },
    /// The order was cancelled: no money is to stay here.
    OrderCancelled,
    /// Give back some of what was captured.
    RefundPayment {
        /// The caller's id of this refund.
        id: Arc<str>,
        /// How much.
        amount: Money,
    },
    /// The provider made the charge.
    ChargeSucceeded {
        /// The provider's reference.
        reference: Arc<str>,
        /// How far it got.
        outcome: Outcome,
    },
    /// The provider made no charge, and will not.
    ChargeDeclined {
        /// Why.
        code: Arc<str>,
    },
    /// The provider captured what was authorized.
    CaptureSucceeded {
        /// How much moved.
        amount: Money,
        /// The rate at that moment.
        rate: FxRate,
    },
    /// The authorization ended without a capture: let go, or lapsed.
    AuthorizationEnded,
    /// The provider took a refund.
    RefundSucceeded {
        /// Which.
        number: u32,
        /// The provider's reference of the refund.
        reference: Arc<str>,
    },
    /// The provider refused a refund, and will.
    RefundRefused {
        /// Which.
        number: u32,
        /// Why.
        code: Arc<str>,
    },
    /// The provider answered a call with something other than what was asked.
    ProviderContradicted {
        /// What differs.
        contradiction: Contradiction,
    },
    /// The provider reported something by itself.
    ProviderReported {
        /// The provider's reference of the payment.
        reference: Arc<str>,
        /// What.
        news: News,
    },
}

/// How far a charge that was made got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider holds the amount; it has not moved.
    Authorized,
    /// The money moved.
    Captured {
        /// The rate at that moment.
        rate: FxRate,
    },
}

/// What a provider reports by itself. It may come twice, late and out of order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It holds the amount.
    Authorized {
        /// How much, if the report says so.
        amount: Option<Money>,
    },
    /// The money moved.
    Captured {
        /// How much.
        amount: Money,
        /// What the books make of it, filled in before the decision.
        quote: Quote,
    },
    /// An attempt to charge failed.
    Failed {
        /// Why.
        code: Arc<str>,
    },
    /// It was called off.
    Canceled,
    /// Money was given back.
    Refunded {
        /// How much in all, so far.
        total: Money,
    },
}

/// The rate source's answer to "what is this currency worth in the books?".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quote {
    /// Not asked yet: as a command is decoded. Prepare replaces it.
    #[default]
    NotAsked,
    /// There is no rate for this currency.
    NoRate,
    /// The rate.
    Rate(FxRate),
}
