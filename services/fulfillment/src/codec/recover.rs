//! A shipment's events back from the wire, for `holdfast recover`.
//!
//! Invariant: what a published event says comes back as it was; the address, which it left out, is `None`. A
//! shipment folded from such events is whole but for its address: it is not picked any more, and the
//! warehouse has to cancel it (its order is then cancelled and paid back), while one that was picked before
//! goes on, with what is written on its parcel.

use holdfast_adapter::{body, check};
use holdfast_core::{Message, Timestamp, disposition::Refused};
use holdfast_fulfillment_domain::{Cancellation, Event, Line, Parcel, Tracking};
use holdfast_proto::fulfillment::v1;

use super::{
    events::{
        ADDRESS_ERASED, PICKING_STARTED, SHIPMENT_CANCELLED, SHIPMENT_CONFIRMED, SHIPMENT_DELIVERED,
        SHIPMENT_DISPATCHED, SHIPMENT_PACKED, SHIPMENT_REQUESTED, TRACKING_UPDATED, known_cause, known_status,
    },
    sku,
};

/// The event in `message`.
pub(super) fn decode(message: &Message) -> Result<Event, Refused> {
    Ok(match &*message.r#type {
        SHIPMENT_REQUESTED => {
            let event: v1::ShipmentRequested = body::decode(message)?;
            let line =
                |line: &v1::ShipmentLine| Ok(Line { sku: sku("lines.sku", &line.sku)?, quantity: line.quantity });
            Event::ShipmentRequested {
                at: at(event.occurred_at.as_ref())?,
                customer: check::canonical_uuid("customer_id", &event.customer_id)?,
                address_id: event.address_id.as_str().into(),
                lines: event.lines.iter().map(line).collect::<Result<_, Refused>>()?,
                address: None,
            }
        }
        SHIPMENT_CONFIRMED => {
            let event: v1::ShipmentConfirmed = body::decode(message)?;
            Event::ShipmentConfirmed { at: at(event.occurred_at.as_ref())? }
        }
        PICKING_STARTED => {
            let event: v1::PickingStarted = body::decode(message)?;
            Event::PickingStarted { at: at(event.occurred_at.as_ref())? }
        }
        SHIPMENT_PACKED => {
            let event: v1::ShipmentPacked = body::decode(message)?;
            Event::ShipmentPacked { at: at(event.occurred_at.as_ref())? }
        }
        SHIPMENT_DISPATCHED => {
            let event: v1::ShipmentDispatched = body::decode(message)?;
            let (carrier, tracking_number) = (event.carrier.as_str().into(), event.tracking_number.as_str().into());
            Event::ShipmentDispatched {
                at: at(event.occurred_at.as_ref())?,
                parcel: Parcel { carrier, tracking_number },
            }
        }
        TRACKING_UPDATED => {
            let event: v1::TrackingUpdated = body::decode(message)?;
            Event::TrackingUpdated { at: at(event.occurred_at.as_ref())?, tracking: tracking(event.tracking.as_ref())? }
        }
        SHIPMENT_DELIVERED => {
            let event: v1::ShipmentDelivered = body::decode(message)?;
            Event::ShipmentDelivered {
                at: at(event.occurred_at.as_ref())?,
                tracking: tracking(event.tracking.as_ref())?,
            }
        }
        SHIPMENT_CANCELLED => {
            let event: v1::ShipmentCancelled = body::decode(message)?;
            let why = event.cancellation.as_ref().ok_or_else(|| check::missing("cancellation"))?;
            let cause = known_cause(why.cause());
            let cause = cause.ok_or_else(|| Refused::invalid("cancellation.cause", "cancellation.cause is unknown"))?;
            let cancellation = Cancellation { cause, reason: why.reason.as_str().into() };
            Event::ShipmentCancelled { at: at(event.occurred_at.as_ref())?, cancellation }
        }
        ADDRESS_ERASED => {
            let event: v1::AddressErased = body::decode(message)?;
            Event::AddressErased { at: at(event.occurred_at.as_ref())? }
        }
        _ => return Err(Refused::unknown_type()),
    })
}

fn at(time: Option<&holdfast_proto::Timestamp>) -> Result<Timestamp, Refused> {
    check::time("occurred_at", time)
}

fn tracking(said: Option<&v1::Tracking>) -> Result<Tracking, Refused> {
    let said = said.ok_or_else(|| check::missing("tracking"))?;
    let status = known_status(said.status());
    Ok(Tracking {
        tracking_number: said.tracking_number.as_str().into(),
        status: status.ok_or_else(|| Refused::invalid("tracking.status", "tracking.status is unknown"))?,
        occurred_at: check::time("tracking.occurred_at", said.occurred_at.as_ref())?,
    })
}
