//! What the events of inventory, payments and fulfillment mean to an order.
//!
//! Reads tolerantly: only what the order needs is looked at, so that others may add to their events.
//! Deliberately absent: events that change nothing here; the runtime passes over types that nobody handles.

use holdfast_adapter::{body, check};
use holdfast_core::{
    Message,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_orders_domain::{Command, Payment, Shipment, ShipmentCause};
use holdfast_proto::{fulfillment::v1 as fulfillment, inventory::v1 as inventory, payments::v1 as payments};

use crate::codec::{order_id, pinned, settled};

/// `ce_type` of `StockReserved`.
const STOCK_RESERVED: &str = "holdfast.inventory.v1.StockReserved";
/// `ce_type` of `ReservationRefused`.
const RESERVATION_REFUSED: &str = "holdfast.inventory.v1.ReservationRefused";
/// `ce_type` of `ReservationExpired`.
const RESERVATION_EXPIRED: &str = "holdfast.inventory.v1.ReservationExpired";
/// `ce_type` of `PaymentCaptured`.
const PAYMENT_CAPTURED: &str = "holdfast.payments.v1.PaymentCaptured";
/// `ce_type` of `PaymentDeclined`.
const PAYMENT_DECLINED: &str = "holdfast.payments.v1.PaymentDeclined";
/// `ce_type` of `ShipmentDispatched`.
const SHIPMENT_DISPATCHED: &str = "holdfast.fulfillment.v1.ShipmentDispatched";
/// `ce_type` of `ShipmentDelivered`.
const SHIPMENT_DELIVERED: &str = "holdfast.fulfillment.v1.ShipmentDelivered";
/// `ce_type` of `ShipmentCancelled`.
const SHIPMENT_CANCELLED: &str = "holdfast.fulfillment.v1.ShipmentCancelled";

const INVENTORY: &[MessageOrigin] =
    &[MessageOrigin::Events { topic: "inventory.events", sources: &["holdfast/inventory/"] }];
const PAYMENTS: &[MessageOrigin] =
    &[MessageOrigin::Events { topic: "payments.events", sources: &["holdfast/payments/"] }];
const FULFILLMENT: &[MessageOrigin] =
    &[MessageOrigin::Events { topic: "fulfillment.events", sources: &["holdfast/fulfillment/"] }];

/// The events that orders react to, each from its context alone.
pub(crate) const HANDLED: &[Handled] = &[
    Handled::new(STOCK_RESERVED, INVENTORY),
    Handled::new(RESERVATION_REFUSED, INVENTORY),
    Handled::new(RESERVATION_EXPIRED, INVENTORY),
    Handled::new(PAYMENT_CAPTURED, PAYMENTS),
    Handled::new(PAYMENT_DECLINED, PAYMENTS),
    Handled::new(SHIPMENT_DISPATCHED, FULFILLMENT),
    Handled::new(SHIPMENT_DELIVERED, FULFILLMENT),
    Handled::new(SHIPMENT_CANCELLED, FULFILLMENT),
];

/// The command that the event in `message` stands for; `None` if it is none of these types.
pub(crate) fn decode(message: &Message) -> Option<Result<Command, Refused>> {
    Some(match &*message.r#type {
        STOCK_RESERVED => stock_reserved(message),
        RESERVATION_REFUSED => body::decode::<inventory::ReservationRefused>(message)
            .and_then(|event| order_id(&event.order_id, message))
            .map(|_| Command::ReservationRefused),
        RESERVATION_EXPIRED => body::decode::<inventory::ReservationExpired>(message)
            .and_then(|event| order_id(&event.order_id, message))
            .map(|_| Command::ReservationExpired),
        PAYMENT_CAPTURED => payment_captured(message),
        PAYMENT_DECLINED => body::decode::<payments::PaymentDeclined>(message)
            .and_then(|event| order_id(&event.order_id, message))
            .map(|_| Command::PaymentDeclined),
        SHIPMENT_DISPATCHED => shipment_dispatched(message),
        SHIPMENT_DELIVERED => body::decode::<fulfillment::ShipmentDelivered>(message)
            .and_then(|event| order_id(&event.order_id, message))
            .map(|_| Command::ShipmentDelivered),
        SHIPMENT_CANCELLED => shipment_cancelled(message),
        _ => return None,
    })
}

fn stock_reserved(message: &Message) -> Result<Command, Refused> {
    let event: inventory::StockReserved = body::decode(message)?;
    order_id(&event.order_id, message)?;
    Ok(Command::StockReserved { until: check::time("expires_at", event.expires_at.as_ref())? })
}

fn payment_captured(message: &Message) -> Result<Command, Refused> {
    let event: payments::PaymentCaptured = body::decode(message)?;
    order_id(&event.order_id, message)?;
    let rate = event.rate.as_ref().ok_or_else(|| check::missing("rate"))?;
    Ok(Command::PaymentCaptured(Payment {
        id: event.payment_id.as_str().into(),
        amount: check::money("amount", event.amount.as_ref())?,
        rate: pinned(&rate.from, &rate.to, rate.numerator, rate.denominator)?,
        settled: settled(event.settled.as_ref())?,
    }))
}

fn shipment_dispatched(message: &Message) -> Result<Command, Refused> {
    let event: fulfillment::ShipmentDispatched = body::decode(message)?;
    order_id(&event.order_id, message)?;
    Ok(Command::ShipmentDispatched(Shipment {
        id: event.shipment_id.as_str().into(),
        carrier: event.carrier.as_str().into(),
        tracking_number: event.tracking_number.as_str().into(),
    }))
}

fn shipment_cancelled(message: &Message) -> Result<Command, Refused> {
    let event: fulfillment::ShipmentCancelled = body::decode(message)?;
    order_id(&event.order_id, message)?;
    let cancellation = event.cancellation.as_ref().ok_or_else(|| check::missing("cancellation"))?;
    let cause = match cancellation.cause() {
        fulfillment::CancellationCause::CancellationRequested => ShipmentCause::CancellationRequested,
        fulfillment::CancellationCause::Undeliverable => ShipmentCause::Undeliverable,
        // An order that has cancelled itself takes no notice; of what a later build adds, the least that can
        // be said is that it won't ship.
        _ => ShipmentCause::Warehouse,
    };
    Ok(Command::ShipmentCancelled { cause })
}
