//! What an order can be asked, and what it can be told.

use std::sync::Arc;

use holdfast_core::Timestamp;
use holdfast_money::{Currency, Money};
use uuid::Uuid;

use crate::Sku;

/// A command from a customer, or news from inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open an empty draft.
    CreateOrder {
        /// Whose order, as the customers context names them.
        customer: Uuid,
        /// The currency of every amount of the order.
        currency: Currency,
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
        /// Token of the payment method, if one was given.
        payment_method: Option<Arc<str>>,
        /// Id of the customer's address, if one was given.
        address_id: Option<Arc<str>>,
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
        }
    }
}

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
