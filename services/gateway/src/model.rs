//! What the edge shows and takes: JSON with the field's own words, made of the contexts' messages.
//!
//! Invariant: money is whole minor units with a currency's code, times are RFC 3339, and a value that a later
//! build of a context invented becomes `UNKNOWN`, never a failure. Deliberately absent: a payment method's
//! token, which is of no use to who reads an order.

use holdfast_proto::{
    Timestamp, fulfillment::v1 as fulfillment, money::v1 as money, orders::v1 as orders, payments::v1 as payments,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An amount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Money {
    /// Whole units of the currency's smallest: cents of EUR, yen of JPY, fils of BHD.
    #[schema(example = 1250)]
    pub minor: i64,
    /// ISO 4217 alphabetic code.
    #[schema(example = "EUR", pattern = "^[A-Z]{3}$")]
    pub currency: String,
}

impl From<money::Money> for Money {
    fn from(money: money::Money) -> Self {
        Self { minor: money.minor, currency: money.currency }
    }
}

/// As a person reads it: `12.50 EUR`.
impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match holdfast_money::Currency::from_code(&self.currency) {
            Ok(currency) => holdfast_money::Money::new(self.minor, currency).fmt(f),
            Err(_) => write!(f, "{} minor units of {}", self.minor, self.currency),
        }
    }
}

/// A word of the wire's enumeration, as one of ours.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident of $wire:ty, $prefix:literal { $($(#[$what:meta])* $word:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum $name {
            $($(#[$what])* $word,)+
            /// Of a later version than this description.
            Unknown,
        }

        impl From<$wire> for $name {
            fn from(wire: $wire) -> Self {
                let word = wire.as_str_name().strip_prefix($prefix).unwrap_or_default();
                serde_json::from_value(word.into()).unwrap_or(Self::Unknown)
            }
        }
    };
}

words! {
    /// Where an order is in its life.
    OrderStatus of orders::OrderStatus, "ORDER_STATUS_" {
        /// Open for items.
        Draft,
        /// Placed; stock and payment are being seen to.
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
}

impl OrderStatus {
    /// As the wire has it.
    pub const fn wire(self) -> orders::OrderStatus {
        match self {
            Self::Draft => orders::OrderStatus::Draft,
            Self::Placed => orders::OrderStatus::Placed,
            Self::Paid => orders::OrderStatus::Paid,
            Self::Shipped => orders::OrderStatus::Shipped,
            Self::Delivered => orders::OrderStatus::Delivered,
            Self::Cancelled => orders::OrderStatus::Cancelled,
            Self::Unknown => orders::OrderStatus::Unspecified,
        }
    }

    /// Whether nothing happens to the order any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Cancelled)
    }
}

words! {
    /// What ended a cancelled order.
    CancellationCause of orders::CancellationCause, "CANCELLATION_CAUSE_" {
        /// Its customer.
        Requested,
        /// There was not enough of something.
        OutOfStock,
        /// It was not paid in time.
        ReservationExpired,
        /// The payment was declined.
        PaymentDeclined,
        /// There was no address to ship to.
        Undeliverable,
        /// The warehouse could not ship it.
        Warehouse,
    }
}

words! {
    /// Where a payment is in its life.
    PaymentStatus of payments::PaymentStatus, "PAYMENT_STATUS_" {
        /// The provider is being asked.
        Requested,
        /// The amount is held.
        Authorized,
        /// The amount was taken.
        Captured,
        /// A part was given back.
        PartiallyRefunded,
        /// All was given back.
        Refunded,
        /// The provider refused.
        Declined,
        /// Ended before anything was taken.
        Voided,
    }
}

words! {
    /// Where a shipment is in its life.
    ShipmentStatus of fulfillment::ShipmentStatus, "SHIPMENT_STATUS_" {
        /// Waits to be picked.
        Pending,
        /// Is being picked.
        Picking,
        /// Is packed.
        Packed,
        /// Is with the carrier.
        Shipped,
        /// Has arrived.
        Delivered,
        /// Ended before shipping.
        Cancelled,
    }
}

/// One sku of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Line {
    /// What.
    #[schema(example = "lamp")]
    pub sku: String,
    /// How many.
    #[schema(minimum = 1)]
    pub quantity: i64,
    /// Of one.
    pub unit_price: Money,
    /// Of all.
    pub subtotal: Money,
}

/// Why an order was cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Cancellation {
    /// What ended it.
    pub cause: CancellationCause,
    /// In a few words.
    pub reason: String,
}

/// A parcel, as the order knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Parcel {
    /// Who carries it.
    pub carrier: String,
    /// The carrier's name for it.
    pub tracking_number: String,
}

/// An order.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Order {
    /// Its id, a UUID.
    #[schema(format = Uuid)]
    pub order_id: String,
    /// Whose it is.
    #[schema(format = Uuid)]
    pub customer_id: String,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// ISO 4217 alphabetic code of all its amounts.
    pub currency: String,
    /// In the order in which they were first added.
    pub lines: Vec<Line>,
    /// Sum of the subtotals.
    pub total: Money,
    /// Where it is to be sent, once it was placed.
    #[schema(format = Uuid)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_id: Option<String>,
    /// Until when stock is held for it, while it is PLACED and stock is.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_until: Option<Timestamp>,
    /// What was paid, once it was; stays when it is cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid: Option<Money>,
    /// What is on its way or has arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parcel: Option<Parcel>,
    /// Set while its customer wants it cancelled and the warehouse has not said whether it is in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancellation_requested: Option<String>,
    /// Set if it is CANCELLED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancellation: Option<Cancellation>,
    /// When it was created.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// When something last happened to it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub updated_at: Option<Timestamp>,
    /// Grows by one with everything that happens to it.
    #[schema(minimum = 1)]
    pub version: u64,
}

impl From<orders::Order> for Order {
    fn from(order: orders::Order) -> Self {
        let status = order.status().into();
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            order_id: order.order_id,
            customer_id: order.customer_id,
            status,
            currency: order.currency,
            lines: order.lines.into_iter().map(Line::from).collect(),
            total: order.total.map(Money::from).unwrap_or_default(),
            address_id: said(order.address_id),
            reserved_until: order.reserved_until,
            paid: order.payment.and_then(|payment| payment.amount).map(Money::from),
            parcel: order
                .shipment
                .map(|shipment| Parcel { carrier: shipment.carrier, tracking_number: shipment.tracking_number }),
            cancellation_requested: said(order.cancellation_requested),
            cancellation: order
                .cancellation
                .map(|cancellation| Cancellation { cause: cancellation.cause().into(), reason: cancellation.reason }),
            created_at: order.created_at,
            updated_at: order.updated_at,
            version: order.version,
        }
    }
}

impl From<orders::OrderLine> for Line {
    fn from(line: orders::OrderLine) -> Self {
        Self {
            sku: line.sku,
            quantity: line.quantity,
            unit_price: line.unit_price.map(Money::from).unwrap_or_default(),
            subtotal: line.subtotal.map(Money::from).unwrap_or_default(),
        }
    }
}

/// A page of orders.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Orders {
    /// Newest first.
    pub orders: Vec<Order>,
    /// For the next page; not there on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// What was paid for an order, and given back.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Payment {
    /// Whose payment it is.
    #[schema(format = Uuid)]
    pub order_id: String,
    /// Where it is in its life.
    pub status: PaymentStatus,
    /// What is or was to be paid; not there if the order ended before that was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Money>,
    /// What was given back so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refunded: Option<Money>,
    /// Why the provider refused, in its own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decline_code: Option<String>,
    /// Grows by one with everything that happens to it.
    pub version: u64,
}

impl From<payments::Payment> for Payment {
    fn from(payment: payments::Payment) -> Self {
        let status = payment.status().into();
        let amount = payment.amount.map(Money::from);
        let refunded = payment.refunded.map(Money::from);
        let nothing = amount.as_ref().map(|amount| Money { minor: 0, currency: amount.currency.clone() });
        Self {
            status,
            order_id: payment.order_id,
            amount,
            refunded: refunded.or(nothing),
            decline_code: Some(payment.decline_code).filter(|code| !code.is_empty()),
            version: payment.version,
        }
    }
}

/// What is sent for an order.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Shipment {
    /// Whose shipment it is.
    #[schema(format = Uuid)]
    pub order_id: String,
    /// Where it is in its life.
    pub status: ShipmentStatus,
    /// With its carrier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parcel: Option<Parcel>,
    /// When its carrier last said something.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracked_at: Option<Timestamp>,
    /// Grows by one with everything that happens to it.
    pub version: u64,
}

impl From<fulfillment::Shipment> for Shipment {
    fn from(shipment: fulfillment::Shipment) -> Self {
        let status = shipment.status().into();
        let parcel = Parcel { carrier: shipment.carrier, tracking_number: shipment.tracking_number };
        Self {
            order_id: shipment.order_id,
            status,
            parcel: Some(parcel).filter(|parcel| !parcel.tracking_number.is_empty()),
            tracked_at: shipment.tracking.and_then(|tracking| tracking.occurred_at),
            version: shipment.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word of the wire has one here.
    #[test]
    fn no_word_of_the_wire_is_unknown() {
        for number in 1..20 {
            if let Ok(wire) = orders::OrderStatus::try_from(number) {
                assert_ne!(OrderStatus::from(wire), OrderStatus::Unknown, "{wire:?}");
            }
            if let Ok(wire) = orders::CancellationCause::try_from(number) {
                assert_ne!(CancellationCause::from(wire), CancellationCause::Unknown, "{wire:?}");
            }
            if let Ok(wire) = payments::PaymentStatus::try_from(number) {
                assert_ne!(PaymentStatus::from(wire), PaymentStatus::Unknown, "{wire:?}");
            }
            if let Ok(wire) = fulfillment::ShipmentStatus::try_from(number) {
                assert_ne!(ShipmentStatus::from(wire), ShipmentStatus::Unknown, "{wire:?}");
            }
        }
        assert_eq!(OrderStatus::from(orders::OrderStatus::Unspecified), OrderStatus::Unknown);
    }

    #[test]
    fn money_is_read_by_its_exponent() {
        let of = |minor, currency: &str| Money { minor, currency: currency.into() }.to_string();
        assert_eq!([of(1250, "EUR"), of(-5, "JPY"), of(1, "BHD")], ["12.50 EUR", "-5 JPY", "0.001 BHD"]);
        assert_eq!(of(3, "???"), "3 minor units of ???");
    }
}
