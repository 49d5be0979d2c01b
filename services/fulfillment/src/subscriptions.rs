//! What the events of other contexts mean to a shipment, and to a recipient.
//!
//! Reads tolerantly: only what is needed is looked at, so that others may add to their events. `OrderPaid`,
//! `OrderCancellationRequested` and `ReservationConfirmed` are read by the few fields that matter here, since
//! the JSON of the contract's own messages refuses fields it does not know. Deliberately absent: events that
//! change nothing here; the runtime passes over types that nobody handles.

use std::sync::Arc;

use holdfast_adapter::{body, check};
use holdfast_core::{
    Message,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_fulfillment_domain::{Command, Line, Lookup, recipient};
use holdfast_proto::{customers::v1::CustomerErased, orders::v1 as orders};
use uuid::Uuid;

use crate::codec::{order_id, sku};

/// `ce_type` of `OrderPaid`.
const ORDER_PAID: &str = "holdfast.orders.v1.OrderPaid";
/// `ce_type` of `OrderCancellationRequested`.
const ORDER_CANCELLATION_REQUESTED: &str = "holdfast.orders.v1.OrderCancellationRequested";
/// `ce_type` of `OrderCancelled`.
const ORDER_CANCELLED: &str = "holdfast.orders.v1.OrderCancelled";
/// `ce_type` of `ReservationConfirmed`.
const RESERVATION_CONFIRMED: &str = "holdfast.inventory.v1.ReservationConfirmed";
/// `ce_type` of `CustomerErased`.
const CUSTOMER_ERASED: &str = "holdfast.customers.v1.CustomerErased";

const ORDERS: &[MessageOrigin] = &[MessageOrigin::Events { topic: "orders.events", sources: &["holdfast/orders/"] }];
const INVENTORY: &[MessageOrigin] =
    &[MessageOrigin::Events { topic: "inventory.events", sources: &["holdfast/inventory/"] }];
const CUSTOMERS: &[MessageOrigin] =
    &[MessageOrigin::Events { topic: "customers.events", sources: &["holdfast/customers/"] }];

/// The events that shipments follow, each from its context alone.
pub(crate) const OF_SHIPMENTS: &[Handled] = &[
    Handled::new(ORDER_PAID, ORDERS),
    Handled::new(ORDER_CANCELLATION_REQUESTED, ORDERS),
    Handled::new(ORDER_CANCELLED, ORDERS),
    Handled::new(RESERVATION_CONFIRMED, INVENTORY),
];
/// The events that recipients follow.
pub(crate) const OF_RECIPIENTS: &[Handled] = &[Handled::new(CUSTOMER_ERASED, CUSTOMERS)];

/// What a shipment needs of `holdfast.orders.v1.OrderPaid`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize, serde::Serialize)]
#[serde(default, rename_all = "camelCase")]
struct OrderPaid {
    #[prost(string, tag = "1")]
    #[serde(alias = "order_id")]
    order_id: String,
    #[prost(string, tag = "3")]
    #[serde(alias = "customer_id")]
    customer_id: String,
    #[prost(string, tag = "4")]
    #[serde(alias = "address_id")]
    address_id: String,
    #[prost(message, repeated, tag = "5")]
    lines: Vec<orders::OrderLine>,
}

/// What a shipment needs of `holdfast.orders.v1.OrderCancellationRequested`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize, serde::Serialize)]
#[serde(default, rename_all = "camelCase")]
struct OrderCancellationRequested {
    #[prost(string, tag = "1")]
    #[serde(alias = "order_id")]
    order_id: String,
}

/// What a shipment needs of `holdfast.inventory.v1.ReservationConfirmed`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize, serde::Serialize)]
#[serde(default, rename_all = "camelCase")]
struct ReservationConfirmed {
    #[prost(string, tag = "1")]
    #[serde(alias = "order_id")]
    order_id: String,
}

impl prost::Name for OrderPaid {
    const NAME: &'static str = "OrderPaid";
    const PACKAGE: &'static str = "holdfast.orders.v1";
}

impl prost::Name for OrderCancellationRequested {
    const NAME: &'static str = "OrderCancellationRequested";
    const PACKAGE: &'static str = "holdfast.orders.v1";
}

impl prost::Name for ReservationConfirmed {
    const NAME: &'static str = "ReservationConfirmed";
    const PACKAGE: &'static str = "holdfast.inventory.v1";
}

/// The command to a shipment that the event in `message` stands for; `None` if it is none of these types.
pub(crate) fn to_shipment(message: &Message) -> Option<Result<Command, Refused>> {
    Some(match &*message.r#type {
        ORDER_PAID => order_paid(message),
        ORDER_CANCELLATION_REQUESTED => body::decode::<OrderCancellationRequested>(message)
            .and_then(|event| order_id(&event.order_id, message))
            .map(|()| Command::CancellationRequested),
        ORDER_CANCELLED => body::decode::<orders::OrderCancelled>(message)
            .and_then(|event| order_id(&event.order_id, message))
            .map(|()| Command::OrderCancelled),
        RESERVATION_CONFIRMED => body::decode::<ReservationConfirmed>(message)
            .and_then(|event| order_id(&event.order_id, message))
            .map(|()| Command::ReservationConfirmed),
        _ => return None,
    })
}

/// The command to a recipient that the event in `message` stands for; `None` if it is of another type.
pub(crate) fn to_recipient(message: &Message) -> Option<Result<recipient::Command, Refused>> {
    (*message.r#type == *CUSTOMER_ERASED).then(|| {
        let event: CustomerErased = body::decode(message)?;
        check::canonical_uuid("customer_id", &event.customer_id)?;
        check::equals_key("customer_id", &event.customer_id, &message.key)?;
        Ok(recipient::Command::CustomerErased)
    })
}

fn order_paid(message: &Message) -> Result<Command, Refused> {
    let event: OrderPaid = body::decode(message)?;
    order_id(&event.order_id, message)?;
    let customer: Uuid = check::canonical_uuid("customer_id", &event.customer_id)?;
    if event.lines.is_empty() {
        return Err(check::missing("lines"));
    }
    let line = |line: &orders::OrderLine| {
        let sku = sku("lines.sku", &line.sku)?;
        Ok(Line { sku, quantity: check::positive("lines.quantity", line.quantity)? })
    };
    Ok(Command::OrderPaid {
        customer,
        address_id: event.address_id.as_str().into(),
        lines: event.lines.iter().map(line).collect::<Result<Arc<[Line]>, Refused>>()?,
        address: Lookup::NotAsked,
    })
}
