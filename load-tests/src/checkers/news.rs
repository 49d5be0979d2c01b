//! What an event says, as far as it is checked.
//!
//! Reads the published bodies, independently of the code that writes them. Deliberately absent: what no check
//! looks at.

use holdfast_proto::{
    fulfillment::v1 as fulfillment, inventory::v1 as inventory, money::v1::Money, orders::v1 as orders,
    payments::v1 as payments,
};
use prost::{DecodeError, Message as _};

/// A SKU and a number of units.
pub type Line = (String, i64);

/// What an event says, as far as it is checked. Amounts are in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// `OrderCreated`.
    Created,
    /// `ItemAdded`: the line as it then is.
    Added(Line),
    /// `ItemRemoved`.
    Removed(String),
    /// `OrderPlaced`: what it costs.
    Placed(i64),
    /// `OrderReserved`.
    Reserved,
    /// `OrderPaid`: what was paid.
    Paid(i64),
    /// `OrderCancellationRequested`.
    CancellationRequested,
    /// `OrderShipped`.
    Sent,
    /// `OrderDelivered`.
    Delivered,
    /// `OrderCancelled`, and its cause.
    Cancelled(String),
    /// `StockReceived`, or `StockAdjusted`: what it adds.
    Stock(Line),
    /// `PriceSet`, `ReorderPointSet`, or what follows from that: nothing that stock tells.
    Priced,
    /// `StockReserved`.
    Held(Vec<Line>),
    /// `ReservationRefused`.
    Refused(Vec<Line>),
    /// `ReservationConfirmed`.
    Confirmed(Vec<Line>),
    /// `ReservationShipped`: what left the shelves.
    Gone(Vec<Line>),
    /// `ReservationReleased`: what was given back.
    Released(Vec<Line>),
    /// `ReservationExpired`: what was given back.
    Expired(Vec<Line>),
    /// Of a payment.
    Payment(Till),
    /// Of a shipment: where it is from then on, if that changes.
    Parcel(Option<&'static str>),
    /// Of a recipient.
    Recipient,
    /// Of a customer.
    Customer,
    /// Some other.
    Other(String),
}

/// What an event of a payment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Till {
    /// `PaymentRequested`.
    Requested,
    /// `PaymentAuthorized`.
    Authorized,
    /// `PaymentCaptured`: the amount.
    Captured(i64),
    /// `PaymentDeclined`.
    Declined,
    /// `PaymentVoided`.
    Voided,
    /// `PaymentRefunded`: the amount.
    Refunded(i64),
    /// `PaymentCancellationNoted`, `RefundRequested` or `RefundFailed`: nothing has moved.
    Noted,
    /// `PaymentContradicted`: the provider said otherwise than it was asked.
    Contradicted,
}

fn minor(money: Option<&Money>) -> i64 {
    money.map_or(0, |money| money.minor)
}

impl News {
    /// Reads the body of an event of this type.
    pub(super) fn read(r#type: &str, body: &[u8]) -> Result<Self, DecodeError> {
        let known = match r#type.rsplit_once('.') {
            Some(("holdfast.orders.v1", name)) => Self::of_order(name, body)?,
            Some(("holdfast.inventory.v1", name)) => Self::of_inventory(name, body)?,
            Some(("holdfast.payments.v1", name)) => Self::of_payment(name, body)?,
            Some(("holdfast.fulfillment.v1", name)) => Self::of_fulfillment(name, body)?,
            Some(("holdfast.customers.v1", _)) => Some(Self::Customer),
            _ => None,
        };
        Ok(known.unwrap_or_else(|| Self::Other(r#type.to_owned())))
    }

    fn of_order(name: &str, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match name {
            "OrderCreated" => Self::Created,
            "ItemAdded" => {
                let event = orders::ItemAdded::decode(body)?;
                Self::Added((event.sku, event.line_quantity))
            }
            "ItemRemoved" => Self::Removed(orders::ItemRemoved::decode(body)?.sku),
            "OrderPlaced" => Self::Placed(minor(orders::OrderPlaced::decode(body)?.total.as_ref())),
            "OrderReserved" => Self::Reserved,
            "OrderPaid" => {
                let payment = orders::OrderPaid::decode(body)?.payment.unwrap_or_default();
                Self::Paid(minor(payment.amount.as_ref()))
            }
            "OrderCancellationRequested" => Self::CancellationRequested,
            "OrderShipped" => Self::Sent,
            "OrderDelivered" => Self::Delivered,
            "OrderCancelled" => {
                let cause = orders::OrderCancelled::decode(body)?.cause().as_str_name();
                Self::Cancelled(cause.trim_start_matches("CANCELLATION_CAUSE_").to_owned())
            }
            _ => return Ok(None),
        }))
    }

    fn of_inventory(name: &str, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        let lines = |lines: Vec<inventory::ReservationLine>| {
            lines.into_iter().map(|line| (line.sku, line.quantity)).collect::<Vec<Line>>()
        };
        Ok(Some(match name {
            "StockReceived" => {
                let event = inventory::StockReceived::decode(body)?;
                Self::Stock((event.sku, event.quantity))
            }
            "StockAdjusted" => {
                let event = inventory::StockAdjusted::decode(body)?;
                Self::Stock((event.sku, event.delta))
            }
            "PriceSet" | "ReorderPointSet" | "ReplenishmentRequested" | "ReplenishmentEnded" => Self::Priced,
            "StockReserved" => Self::Held(lines(inventory::StockReserved::decode(body)?.lines)),
            "ReservationRefused" => Self::Refused(lines(inventory::ReservationRefused::decode(body)?.wanted)),
            "ReservationConfirmed" => Self::Confirmed(lines(inventory::ReservationConfirmed::decode(body)?.lines)),
            "ReservationShipped" => Self::Gone(lines(inventory::ReservationShipped::decode(body)?.lines)),
            "ReservationReleased" => Self::Released(lines(inventory::ReservationReleased::decode(body)?.lines)),
            "ReservationExpired" => Self::Expired(lines(inventory::ReservationExpired::decode(body)?.lines)),
            _ => return Ok(None),
        }))
    }

    fn of_payment(name: &str, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        Ok(Some(Self::Payment(match name {
            "PaymentRequested" => Till::Requested,
            "PaymentAuthorized" => Till::Authorized,
            "PaymentCaptured" => Till::Captured(minor(payments::PaymentCaptured::decode(body)?.amount.as_ref())),
            "PaymentDeclined" => Till::Declined,
            "PaymentVoided" => Till::Voided,
            "PaymentRefunded" => Till::Refunded(minor(payments::PaymentRefunded::decode(body)?.amount.as_ref())),
            "PaymentCancellationNoted" | "RefundRequested" | "RefundFailed" => Till::Noted,
            "PaymentContradicted" => Till::Contradicted,
            _ => return Ok(None),
        })))
    }

    fn of_fulfillment(name: &str, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        Ok(Some(Self::Parcel(match name {
            "ShipmentRequested" | "ShipmentConfirmed" | "TrackingUpdated" | "AddressErased" => None,
            "PickingStarted" => Some("PICKING"),
            "ShipmentPacked" => Some("PACKED"),
            "ShipmentDispatched" => {
                fulfillment::ShipmentDispatched::decode(body)?;
                Some("SHIPPED")
            }
            "ShipmentDelivered" => Some("DELIVERED"),
            "ShipmentCancelled" => Some("CANCELLED"),
            "ShipmentNoted" | "RecipientErased" => return Ok(Some(Self::Recipient)),
            _ => return Ok(None),
        })))
    }

    /// The kind of aggregate that says so.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created
            | Self::Added(_)
            | Self::Removed(_)
            | Self::Placed(_)
            | Self::Reserved
            | Self::Paid(_)
            | Self::CancellationRequested
            | Self::Sent
            | Self::Delivered
            | Self::Cancelled(_) => "order",
            Self::Stock(_) | Self::Priced => "stock_item",
            Self::Held(_)
            | Self::Refused(_)
            | Self::Confirmed(_)
            | Self::Gone(_)
            | Self::Released(_)
            | Self::Expired(_) => "reservation",
            Self::Payment(_) => "payment",
            Self::Parcel(_) => "shipment",
            Self::Recipient => "recipient",
            Self::Customer => "customer",
            Self::Other(_) => "",
        }
    }
}
