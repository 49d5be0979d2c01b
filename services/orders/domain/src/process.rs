//! What an order makes of the other contexts' news, as a table.
//!
//! Upholds what makes crossing events harmless: news that is not in the table for a stage changes nothing
//! there, even if it comes twice or late. A context that has to compensate learns of a cancellation from the
//! order's own event: inventory gives back, payments refunds, fulfillment stops. Deliberately absent: what
//! customers command, which may be refused (see [`crate::Order`]).

use crate::{CancellationCause, Command};

/// Where an order is in its life, without particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Open for items.
    Draft,
    /// Placed by the customer.
    Placed,
    /// Paid.
    Paid,
    /// On its way.
    Shipped,
    /// Arrived.
    Delivered,
    /// Ended before shipping.
    Cancelled,
}

/// News of another context, without particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Inventory holds every line.
    StockReserved,
    /// Inventory can't hold every line.
    ReservationRefused,
    /// Inventory's hold ran out.
    ReservationExpired,
    /// Payments has the money.
    PaymentCaptured,
    /// Payments will not get it.
    PaymentDeclined,
    /// Fulfillment has shipped.
    ShipmentDispatched,
    /// The shipment has arrived.
    ShipmentDelivered,
    /// Fulfillment will not ship.
    ShipmentCancelled,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// `OrderReserved`, once: now the customer is to pay.
    Reserve,
    /// `OrderPaid`, if the amount is the order's total: inventory keeps the stock for good, fulfillment
    /// prepares a shipment. Another amount is `OrderPaymentMismatched`, once, and the order stays where it
    /// is.
    Pay,
    /// `OrderShipped`: the stock leaves.
    Ship,
    /// `OrderDelivered`.
    Deliver,
    /// `OrderCancelled`: what is held is given back, what was paid is refunded, what is packed stays.
    Cancel(CancellationCause),
    /// The same, for the reason that fulfillment gives.
    CancelWithShipment,
}

/// Every edge of an order's life that news causes. What is not here changes nothing.
pub const TABLE: &[(News, Stage, Reaction)] = &[
    (News::StockReserved, Stage::Placed, Reaction::Reserve),
    (News::ReservationRefused, Stage::Placed, Reaction::Cancel(CancellationCause::OutOfStock)),
    (News::ReservationExpired, Stage::Placed, Reaction::Cancel(CancellationCause::ReservationExpired)),
    // Paid, and inventory had given up before it heard of that: money has moved, no goods can.
    (News::ReservationExpired, Stage::Paid, Reaction::Cancel(CancellationCause::ReservationExpired)),
    (News::PaymentCaptured, Stage::Placed, Reaction::Pay),
    (News::PaymentDeclined, Stage::Placed, Reaction::Cancel(CancellationCause::PaymentDeclined)),
    (News::ShipmentDispatched, Stage::Paid, Reaction::Ship),
    (News::ShipmentDelivered, Stage::Shipped, Reaction::Deliver),
    (News::ShipmentCancelled, Stage::Paid, Reaction::CancelWithShipment),
];

/// What an order that is at `stage` makes of `news`.
pub fn reaction(news: News, stage: Stage) -> Option<Reaction> {
    TABLE.iter().find(|(of, at, _)| (*of, *at) == (news, stage)).map(|(.., reaction)| *reaction)
}

impl News {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::StockReserved,
        Self::ReservationRefused,
        Self::ReservationExpired,
        Self::PaymentCaptured,
        Self::PaymentDeclined,
        Self::ShipmentDispatched,
        Self::ShipmentDelivered,
        Self::ShipmentCancelled,
    ];

    /// The news in `command`; `None` if it is a customer's.
    pub const fn of(command: &Command) -> Option<Self> {
        Some(match command {
            Command::StockReserved { .. } => Self::StockReserved,
            Command::ReservationRefused => Self::ReservationRefused,
            Command::ReservationExpired => Self::ReservationExpired,
            Command::PaymentCaptured(_) => Self::PaymentCaptured,
            Command::PaymentDeclined => Self::PaymentDeclined,
            Command::ShipmentDispatched(_) => Self::ShipmentDispatched,
            Command::ShipmentDelivered => Self::ShipmentDelivered,
            Command::ShipmentCancelled { .. } => Self::ShipmentCancelled,
            Command::CreateOrder { .. }
            | Command::AddItem { .. }
            | Command::RemoveItem { .. }
            | Command::PlaceOrder { .. }
            | Command::CancelOrder { .. } => return None,
        })
    }
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Draft, Self::Placed, Self::Paid, Self::Shipped, Self::Delivered, Self::Cancelled];
}
