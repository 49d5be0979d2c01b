//! Events to the wire.

use holdfast_core::{Timestamp, codec::EncodedEvent};
use holdfast_orders_domain::{Event, Line};
use holdfast_proto::{orders::v1, time};
use prost::Message as _;

use super::parts::{self, amount};

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
/// `ce_type` of `OrderPaid`.
pub(super) const ORDER_PAID: &str = "holdfast.orders.v1.OrderPaid";
/// `ce_type` of `OrderPaymentMismatched`.
pub(super) const ORDER_PAYMENT_MISMATCHED: &str = "holdfast.orders.v1.OrderPaymentMismatched";
/// `ce_type` of `OrderCancellationRequested`.
pub(super) const ORDER_CANCELLATION_REQUESTED: &str = "holdfast.orders.v1.OrderCancellationRequested";
/// `ce_type` of `OrderShipped`.
pub(super) const ORDER_SHIPPED: &str = "holdfast.orders.v1.OrderShipped";
/// `ce_type` of `OrderDelivered`.
pub(super) const ORDER_DELIVERED: &str = "holdfast.orders.v1.OrderDelivered";
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
        Event::OrderReserved { until, customer, total, payment_method, .. } => {
            let body = v1::OrderReserved {
                order_id,
                occurred_at,
                reserved_until: Some(stamp(*until)),
                customer_id: customer.to_string(),
                total: Some(amount(*total)),
                payment_method: payment_method.as_deref().unwrap_or_default().to_owned(),
            };
            (ORDER_RESERVED, body.encode_to_vec())
        }
        Event::OrderPaid { payment, customer, address_id, lines, .. } => {
            let body = v1::OrderPaid {
                order_id,
                occurred_at,
                customer_id: customer.to_string(),
                address_id: address_id.as_deref().unwrap_or_default().to_owned(),
                lines: lines.iter().map(line).collect(),
                payment: Some(parts::payment(payment)),
            };
            (ORDER_PAID, body.encode_to_vec())
        }
        Event::OrderPaymentMismatched { payment, total, .. } => {
            let (total, payment) = (Some(amount(*total)), Some(parts::payment(payment)));
            let body = v1::OrderPaymentMismatched { order_id, occurred_at, total, payment };
            (ORDER_PAYMENT_MISMATCHED, body.encode_to_vec())
        }
        Event::OrderCancellationRequested { reason, .. } => {
            let reason = reason.as_ref().to_owned();
            let body = v1::OrderCancellationRequested { order_id, occurred_at, reason };
            (ORDER_CANCELLATION_REQUESTED, body.encode_to_vec())
        }
        Event::OrderShipped { shipment, .. } => {
            let shipment = Some(parts::shipment(shipment));
            (ORDER_SHIPPED, v1::OrderShipped { order_id, occurred_at, shipment }.encode_to_vec())
        }
        Event::OrderDelivered { .. } => (ORDER_DELIVERED, v1::OrderDelivered { order_id, occurred_at }.encode_to_vec()),
        Event::OrderCancelled { cancellation, .. } => {
            let v1::Cancellation { cause, reason } = parts::cancellation(cancellation);
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

pub(super) fn stamp(at: Timestamp) -> holdfast_proto::Timestamp {
    time::from_unix_ms(at.unix_ms())
}
