//! What can have happened to an order. Its state is the fold of these; each carries the time it happened.

use std::sync::Arc;

use holdfast_core::Timestamp;
use holdfast_money::{Currency, Money};
use uuid::Uuid;

use crate::{Line, Payment, Shipment, Sku};

/// Something that happened to an order. `at` is when, by the owning node's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An empty draft was opened.
    OrderCreated {
        /// When.
        at: Timestamp,
        /// Whose order.
        customer: Uuid,
        /// Of all its amounts.
        currency: Currency,
    },
    /// Units of a sku were added.
    ItemAdded {
        /// When.
        at: Timestamp,
        /// Units added by this event.
        quantity: i64,
        /// The sku's whole line from now on.
        line: Line,
        /// Total of the order from now on.
        total: Money,
    },
    /// A sku's line was removed.
    ItemRemoved {
        /// When.
        at: Timestamp,
        /// Which.
        sku: Sku,
        /// Total of the order from now on.
        total: Money,
    },
    /// The customer placed the order.
    OrderPlaced {
        /// When.
        at: Timestamp,
        /// Whose order.
        customer: Uuid,
        /// What is ordered; each sku once.
        lines: Arc<[Line]>,
        /// Sum of the subtotals.
        total: Money,
        /// Token of the payment method, if one was given.
        payment_method: Option<Arc<str>>,
        /// Id of the customer's address, if one was given.
        address_id: Option<Arc<str>>,
    },
    /// The order learned that inventory holds its lines.
    OrderReserved {
        /// When it learned it.
        at: Timestamp,
        /// Until when they are held.
        until: Timestamp,
        /// Whose order.
        customer: Uuid,
        /// What is to be paid now.
        total: Money,
        /// With what, if anything was given.
        payment_method: Option<Arc<str>>,
    },
    /// The order learned that it is paid.
    OrderPaid {
        /// When it learned it.
        at: Timestamp,
        /// What was paid.
        payment: Payment,
        /// Whose order.
        customer: Uuid,
        /// Id of the customer's address, if one was given.
        address_id: Option<Arc<str>>,
        /// What is to be shipped.
        lines: Arc<[Line]>,
    },
    /// The order learned of a payment over another amount, or in another currency, than its total. It is not
    /// paid by it; an operator has to see to it.
    OrderPaymentMismatched {
        /// When it learned it.
        at: Timestamp,
        /// What was paid.
        payment: Payment,
        /// What was to be paid.
        total: Money,
    },
    /// The customer wants a paid order cancelled: fulfillment decides whether it is in time.
    OrderCancellationRequested {
        /// When.
        at: Timestamp,
        /// Why, in the caller's words.
        reason: Arc<str>,
    },
    /// The order learned that its goods are on their way. A cancellation that was requested came too late.
    OrderShipped {
        /// When it learned it.
        at: Timestamp,
        /// What is on its way.
        shipment: Shipment,
    },
    /// The order learned that its goods have arrived.
    OrderDelivered {
        /// When it learned it.
        at: Timestamp,
    },
    /// The order ended before shipping.
    OrderCancelled {
        /// When.
        at: Timestamp,
        /// Why.
        cancellation: Cancellation,
    },
}

impl Event {
    /// When it happened, by the owning node's clock.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::OrderCreated { at, .. }
            | Self::ItemAdded { at, .. }
            | Self::ItemRemoved { at, .. }
            | Self::OrderPlaced { at, .. }
            | Self::OrderReserved { at, .. }
            | Self::OrderPaid { at, .. }
            | Self::OrderPaymentMismatched { at, .. }
            | Self::OrderCancellationRequested { at, .. }
            | Self::OrderShipped { at, .. }
            | Self::OrderDelivered { at }
            | Self::OrderCancelled { at, .. } => *at,
        }
    }
}

/// Why an order was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// What ended it.
    pub cause: CancellationCause,
    /// In a few words: the caller's, or [`CancellationCause::words`].
    pub reason: Arc<str>,
}

/// What ended a cancelled order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancellationCause {
    /// `CancelOrder`.
    Requested,
    /// Inventory could not hold every line.
    OutOfStock,
    /// Inventory's hold ran out before inventory learned of the payment.
    ReservationExpired,
    /// The payment was declined.
    PaymentDeclined,
    /// There was no address to ship to.
    Undeliverable,
    /// The warehouse could not ship it.
    Warehouse,
}

impl CancellationCause {
    /// In a few words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Requested => "cancelled on request",
            Self::OutOfStock => "out of stock",
            Self::ReservationExpired => "reservation expired",
            Self::PaymentDeclined => "payment declined",
            Self::Undeliverable => "no address to ship to",
            Self::Warehouse => "the warehouse could not ship it",
        }
    }
}
