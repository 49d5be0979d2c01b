//! Commands to an order: requests of a customer, and news of inventory, payments and fulfillment.

use std::sync::Arc;

use holdfast_core::Timestamp;
use holdfast_money::{Currency, FxRate, Money};
use uuid::Uuid;

use crate::Sku;

/// A command from a customer, or news from inventory, payments or fulfillment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open an empty draft.
    CreateOrder {
        /// The order's id.
        order: Uuid,
        /// Whose order, as the customers context names them.
        customer: Uuid,
        /// The currency of every amount of the order.
        currency: Currency,
        /// Customers' answer, filled in before the decision.
        account: Option<Account>,
    },
    /// Add units of a sku to a draft.
    AddItem {
        /// Of what.
        sku: Sku,
        /// How many units, at least 1.
        quantity: i64,
        /// What one unit costs, filled in before the decision.
        quote: Quote,
    },
    /// Remove a sku's line from a draft.
    RemoveItem {
        /// Which.
        sku: Sku,
    },
    /// Place a draft that has lines.
    PlaceOrder {
        /// The order's id.
        order: Uuid,
        /// Token of the payment method, as it was given; empty if none was.
        payment_method: Arc<str>,
        /// Id of the customer's address, as it was given; empty if none was.
        address_id: Arc<str>,
        /// Customers' answer, filled in before the decision.
        standing: Option<Standing>,
    },
    /// Cancel before shipping.
    CancelOrder {
        /// Why, in the caller's words. Holds no personal data.
        reason: Arc<str>,
    },
    /// Inventory holds every line.
    StockReserved {
        /// Until when.
        until: Timestamp,
    },
    /// Inventory can't hold every line, and holds none.
    ReservationRefused,
    /// Inventory held every line, but no longer.
    ReservationExpired,
    /// Payments has the money.
    PaymentCaptured(Payment),
    /// Payments will not get it.
    PaymentDeclined,
    /// Fulfillment has handed the goods to a carrier.
    ShipmentDispatched(Shipment),
    /// They have arrived.
    ShipmentDelivered,
    /// Fulfillment will not ship.
    ShipmentCancelled {
        /// Why not.
        cause: ShipmentCause,
    },
}

/// A payment that was captured. The rate is pinned with it: what is refunded is refunded at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// As payments names it.
    pub id: Arc<str>,
    /// In the order's currency.
    pub amount: Money,
    /// From the order's currency to that of the books, at the moment of capture.
    pub rate: FxRate,
    /// The amount in the currency of the books.
    pub settled: Money,
}

/// A shipment on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipment {
    /// As fulfillment names it.
    pub id: Arc<str>,
    /// Who carries it.
    pub carrier: Arc<str>,
    /// The carrier's name for it.
    pub tracking_number: Arc<str>,
}

/// Why fulfillment will not ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShipmentCause {
    /// The order had asked it to stop.
    CancellationRequested,
    /// There is no address to ship to.
    Undeliverable,
    /// The warehouse can't.
    Warehouse,
}

impl Command {
    /// Its name, for rejections and telemetry.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateOrder { .. } => "CreateOrder",
            Self::AddItem { .. } => "AddItem",
            Self::RemoveItem { .. } => "RemoveItem",
            Self::PlaceOrder { .. } => "PlaceOrder",
            Self::CancelOrder { .. } => "CancelOrder",
            Self::StockReserved { .. } => "StockReserved",
            Self::ReservationRefused => "ReservationRefused",
            Self::ReservationExpired => "ReservationExpired",
            Self::PaymentCaptured(_) => "PaymentCaptured",
            Self::PaymentDeclined => "PaymentDeclined",
            Self::ShipmentDispatched(_) => "ShipmentDispatched",
            Self::ShipmentDelivered => "ShipmentDelivered",
            Self::ShipmentCancelled { .. } => "ShipmentCancelled",
        }
    }
}

/// Customers' answer to "may this customer place an order that goes to this address?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The customer that was asked for. It is compared with the order's.
    pub customer: Uuid,
    /// Where the account is.
    pub account: Account,
    /// Whether the address is one of the customer's.
    pub has_address: bool,
}

/// Where a customer's account is, as customers answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// There is no such customer.
    Unknown,
    /// It is suspended or erased.
    NotActive,
    /// It may order.
    Active,
}

/// Whether `text` can be a token of a payment provider's: 1-255 characters of visible ASCII.
pub(crate) fn is_token(text: &str) -> bool {
    (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Longest token of a payment method, in bytes.
pub const TOKEN_BYTES_MAX: usize = 255;

/// Inventory's answer to "what does one unit cost?".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quote {
    /// Not asked yet: as a command is decoded. Prepare replaces it.
    #[default]
    NotAsked,
    /// Inventory has no such sku, or no price for it.
    UnknownSku,
    /// The price of one unit.
    Price(Money),
}
