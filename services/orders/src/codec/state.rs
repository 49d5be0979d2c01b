//! The stored order.
//!
//! What is stored is trusted, but a state that no build could have written is an error, never a guess.
//! Deliberately absent: the total and the subtotals, which follow from the lines.

use bytes::Bytes;
use holdfast_core::{Aggregate, Timestamp, codec::StateError};
use holdfast_money::{Currency, Money};
use holdfast_orders_domain::{Cancellation, Details, Line, Lines, Order, Payment, Sku, Status};
use holdfast_proto::{orders::v1, time};
use prost::Message as _;
use uuid::Uuid;

use super::{events, parts, reply};

/// The form in which the order is stored; empty if it does not exist.
pub fn encode(state: &Order) -> Bytes {
    let Some(details) = state.details() else { return Bytes::new() };
    let (cancellation, reserved_until) = match &details.status {
        Status::Placed { reserved_until } => (None, *reserved_until),
        Status::Cancelled(cancellation) => (Some(cancellation), None),
        Status::Draft | Status::Paid | Status::Shipped | Status::Delivered => (None, None),
    };
    v1::OrderState {
        customer_id: details.customer.to_string(),
        currency: details.lines.currency().code().to_owned(),
        status: reply::status(&details.status).into(),
        lines: details.lines.as_slice().iter().map(line).collect(),
        cancellation: cancellation.map(parts::cancellation),
        reserved_until: reserved_until.map(events::stamp),
        payment_method: details.payment_method.as_deref().unwrap_or_default().to_owned(),
        address_id: details.address_id.as_deref().unwrap_or_default().to_owned(),
        created_at: Some(events::stamp(details.created_at)),
        updated_at: Some(events::stamp(details.updated_at)),
        payment: details.payment.as_ref().map(parts::payment),
        cancellation_requested: details.cancellation_requested.as_deref().unwrap_or_default().to_owned(),
        shipment: details.shipment.as_ref().map(parts::shipment),
        mismatched_payment: details.mismatched_payment.as_ref().map(parts::payment),
    }
    .encode_to_vec()
    .into()
}

fn line(line: &Line) -> v1::OrderLineState {
    v1::OrderLineState {
        sku: line.sku.as_str().to_owned(),
        quantity: line.quantity,
        unit_price_minor: line.unit_price.minor,
    }
}

/// Reads a stored order of `schema`.
///
/// # Errors
/// [`StateError`] for a schema of a later build, and for bytes that none could have written.
pub fn decode(schema: u32, bytes: &[u8]) -> Result<Order, StateError> {
    let broken = |reason: &str| StateError { schema, reason: reason.to_owned() };
    if schema != Order::SCHEMA {
        return Err(broken("this build knows schema 1 only"));
    }
    if bytes.is_empty() {
        return Ok(Order::default());
    }
    let stored = v1::OrderState::decode(bytes).map_err(|error| broken(&error.to_string()))?;
    rehydrate(stored).map(Order::rehydrate).map_err(broken)
}

fn rehydrate(stored: v1::OrderState) -> Result<Details, &'static str> {
    let currency = Currency::from_code(&stored.currency).map_err(|_| "unknown currency")?;
    let lines = stored.lines.iter().map(|line| rehydrated(line, currency)).collect::<Result<_, _>>()?;
    let text = |text: String| (!text.is_empty()).then(|| text.into());
    Ok(Details {
        customer: Uuid::try_parse(&stored.customer_id).map_err(|_| "customer_id is no UUID")?,
        lines: Lines::rehydrate(currency, lines).map_err(|_| "the lines do not add up")?,
        status: status(&stored)?,
        payment_method: text(stored.payment_method),
        address_id: text(stored.address_id),
        payment: payment(stored.payment.as_ref())?,
        mismatched_payment: payment(stored.mismatched_payment.as_ref())?,
        cancellation_requested: text(stored.cancellation_requested),
        shipment: stored
            .shipment
            .as_ref()
            .map(|wire| parts::shipment_back(Some(wire)))
            .transpose()
            .map_err(|_| "a shipment that is none")?,
        created_at: stamp(stored.created_at.as_ref())?,
        updated_at: stamp(stored.updated_at.as_ref())?,
    })
}

fn payment(stored: Option<&v1::OrderPayment>) -> Result<Option<Payment>, &'static str> {
    stored.map(|wire| parts::payment_back(Some(wire))).transpose().map_err(|_| "a payment that is none")
}

fn rehydrated(line: &v1::OrderLineState, currency: Currency) -> Result<Line, &'static str> {
    let sku = Sku::new(&line.sku).map_err(|_| "a line's sku is none")?;
    Line::new(sku, line.quantity, Money::new(line.unit_price_minor, currency)).map_err(|_| "a subtotal does not fit")
}

fn status(stored: &v1::OrderState) -> Result<Status, &'static str> {
    match stored.status() {
        v1::OrderStatus::Draft => Ok(Status::Draft),
        v1::OrderStatus::Placed => {
            let reserved_until = stored.reserved_until.as_ref().map(|at| stamp(Some(at))).transpose()?;
            Ok(Status::Placed { reserved_until })
        }
        v1::OrderStatus::Cancelled => {
            let cancellation = stored.cancellation.as_ref().ok_or("cancelled without a cause")?;
            let cause = parts::cause_back(cancellation.cause()).ok_or("unknown cause of cancellation")?;
            Ok(Status::Cancelled(Cancellation { cause, reason: cancellation.reason.as_str().into() }))
        }
        v1::OrderStatus::Paid => Ok(Status::Paid),
        v1::OrderStatus::Shipped => Ok(Status::Shipped),
        v1::OrderStatus::Delivered => Ok(Status::Delivered),
        v1::OrderStatus::Unspecified => Err("a status that this build does not know"),
    }
}

fn stamp(at: Option<&holdfast_proto::Timestamp>) -> Result<Timestamp, &'static str> {
    at.and_then(time::to_unix_ms).map(Timestamp::from_unix_ms).ok_or("a time is missing or none")
}
