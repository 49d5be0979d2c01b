//! The order as others see it.

use bytes::Bytes;
use holdfast_core::Context;
use holdfast_orders_domain::{Order, Status};
use holdfast_proto::orders::v1;
use prost::Message as _;

use super::{
    events,
    parts::{self, amount},
};

/// The order's public message; empty if it does not exist.
pub(super) fn encode(state: &Order, context: &Context<'_>) -> Bytes {
    order(state, context.key, context.version).map_or_else(Bytes::new, |order| order.encode_to_vec().into())
}

/// The order's public message; `None` if it does not exist.
pub fn order(state: &Order, key: &str, version: u64) -> Option<v1::Order> {
    let details = state.details()?;
    let (cancellation, reserved_until) = match &details.status {
        Status::Placed { reserved_until } => (None, reserved_until.map(events::stamp)),
        Status::Cancelled(cancellation) => (Some(parts::cancellation(cancellation)), None),
        Status::Draft | Status::Paid | Status::Shipped | Status::Delivered => (None, None),
    };
    Some(v1::Order {
        order_id: key.to_owned(),
        customer_id: details.customer.to_string(),
        currency: details.lines.currency().code().to_owned(),
        lines: details.lines.as_slice().iter().map(events::line).collect(),
        total: Some(amount(details.lines.total())),
        status: status(&details.status).into(),
        cancellation,
        reserved_until,
        created_at: Some(events::stamp(details.created_at)),
        updated_at: Some(events::stamp(details.updated_at)),
        version,
        payment_method: details.payment_method.as_deref().unwrap_or_default().to_owned(),
        address_id: details.address_id.as_deref().unwrap_or_default().to_owned(),
        payment: details.payment.as_ref().map(parts::payment),
        cancellation_requested: details.cancellation_requested.as_deref().unwrap_or_default().to_owned(),
        shipment: details.shipment.as_ref().map(parts::shipment),
        mismatched_payment: details.mismatched_payment.as_ref().map(parts::payment),
    })
}

pub(super) const fn status(status: &Status) -> v1::OrderStatus {
    match status {
        Status::Draft => v1::OrderStatus::Draft,
        Status::Placed { .. } => v1::OrderStatus::Placed,
        Status::Paid => v1::OrderStatus::Paid,
        Status::Shipped => v1::OrderStatus::Shipped,
        Status::Delivered => v1::OrderStatus::Delivered,
        Status::Cancelled(_) => v1::OrderStatus::Cancelled,
    }
}
