//! Events to the wire.

use holdfast_core::{Timestamp, codec::EncodedEvent};
use holdfast_orders_domain::{CancellationCause, Event, Line};
use holdfast_proto::{orders::v1, time};
use prost::Message as _;

use super::amount;

/// `ce_type` of `OrderCreated`.
pub(super) const ORDER_CREATED: &str = "holdfast.orders.v1.OrderCreated";
/// `ce_type` of `ItemAdded`.
pub(super) const ITEM_ADDED: &str = "holdfast.orders.v1.ItemAdded";
/// `ce_type` of `ItemRemoved`.
pub(super) const ITEM_REMOVED: &str = "holdfast.orders.v1.ItemRemoved";
/// `ce_type` of `OrderPlaced`.
pub(super) const ORDER_PLACED: &str = "holdfast.orders.v1.OrderPlaced";
/// `ce_type` of `OrderReserved`.
pub(super) const ORDER_RESERVED: &str = "holdfast.orders.v1.OrderReserved";
/// `ce_type` of `OrderCancelled`.
pub(super) const ORDER_CANCELLED: &str = "holdfast.orders.v1.OrderCancelled";

/// The event of the order `key`.
pub(super) fn encode(event: &Event, key: &str) -> EncodedEvent {
    let order_id = key.to_owned();
    let occurred_at = Some(stamp(event.at()));
    let (r#type, payload) = match event {
        Event::OrderCreated { customer, currency, .. } => {
            let (customer_id, currency) = (customer.to_string(), currency.code().to_owned());
            let body = v1::OrderCreated { order_id, occurred_at, customer_id, currency };
            (ORDER_CREATED, body.encode_to_vec())
        }
        Event::ItemAdded { quantity, line, total, .. } => {
            let body = v1::ItemAdded {
                order_id,
                occurred_at,
                sku: line.sku.as_str().to_owned(),
                quantity: *quantity,
                line_quantity: line.quantity,
                unit_price: Some(amount(line.unit_price)),
                subtotal: Some(amount(line.subtotal)),
                total: Some(amount(*total)),
            };
            (ITEM_ADDED, body.encode_to_vec())
        }
        Event::ItemRemoved { sku, total, .. } => {
            let (sku, total) = (sku.as_str().to_owned(), Some(amount(*total)));
            (ITEM_REMOVED, v1::ItemRemoved { order_id, occurred_at, sku, total }.encode_to_vec())
        }
        Event::OrderPlaced { customer, lines, total, payment_method, address_id, .. } => {
            let body = v1::OrderPlaced {
                order_id,
                occurred_at,
                customer_id: customer.to_string(),
                lines: lines.iter().map(line).collect(),
                total: Some(amount(*total)),
                payment_method: payment_method.as_deref().unwrap_or_default().to_owned(),
                address_id: address_id.as_deref().unwrap_or_default().to_owned(),
            };
            (ORDER_PLACED, body.encode_to_vec())
        }
        Event::OrderReserved { until, .. } => {
            let reserved_until = Some(stamp(*until));
            (ORDER_RESERVED, v1::OrderReserved { order_id, occurred_at, reserved_until }.encode_to_vec())
        }
        Event::OrderCancelled { cancellation, .. } => {
            let (cause, reason) = (cause(cancellation.cause).into(), cancellation.reason.as_ref().to_owned());
            (ORDER_CANCELLED, v1::OrderCancelled { order_id, occurred_at, cause, reason }.encode_to_vec())
        }
    };
    EncodedEvent { r#type, payload: payload.into() }
}

pub(super) fn line(line: &Line) -> v1::OrderLine {
    v1::OrderLine {
        sku: line.sku.as_str().to_owned(),
        quantity: line.quantity,
        unit_price: Some(amount(line.unit_price)),
        subtotal: Some(amount(line.subtotal)),
    }
}

pub(super) const fn cause(cause: CancellationCause) -> v1::CancellationCause {
    match cause {
        CancellationCause::Requested => v1::CancellationCause::Requested,
        CancellationCause::OutOfStock => v1::CancellationCause::OutOfStock,
        CancellationCause::ReservationExpired => v1::CancellationCause::ReservationExpired,
    }
}

pub(super) fn stamp(at: Timestamp) -> holdfast_proto::Timestamp {
    time::from_unix_ms(at.unix_ms())
}
