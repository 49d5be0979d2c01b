//! Events of a shipment to the wire. The address is left out, because topics are kept.

use holdfast_core::{Timestamp, codec::EncodedEvent};
use holdfast_fulfillment_domain::{
    Cancellation, CancellationCause, Event, Line, Tracking, TrackingStatus, shipment_id,
};
use holdfast_proto::{fulfillment::v1, time};
use prost::Message as _;
use uuid::Uuid;

/// `ce_type` of `ShipmentRequested`.
pub(super) const SHIPMENT_REQUESTED: &str = "holdfast.fulfillment.v1.ShipmentRequested";
/// `ce_type` of `ShipmentConfirmed`.
pub(super) const SHIPMENT_CONFIRMED: &str = "holdfast.fulfillment.v1.ShipmentConfirmed";
/// `ce_type` of `PickingStarted`.
pub(super) const PICKING_STARTED: &str = "holdfast.fulfillment.v1.PickingStarted";
/// `ce_type` of `ShipmentPacked`.
pub(super) const SHIPMENT_PACKED: &str = "holdfast.fulfillment.v1.ShipmentPacked";
/// `ce_type` of `ShipmentDispatched`.
pub(super) const SHIPMENT_DISPATCHED: &str = "holdfast.fulfillment.v1.ShipmentDispatched";
/// `ce_type` of `TrackingUpdated`.
pub(super) const TRACKING_UPDATED: &str = "holdfast.fulfillment.v1.TrackingUpdated";
/// `ce_type` of `ShipmentDelivered`.
pub(super) const SHIPMENT_DELIVERED: &str = "holdfast.fulfillment.v1.ShipmentDelivered";
/// `ce_type` of `ShipmentCancelled`.
pub(super) const SHIPMENT_CANCELLED: &str = "holdfast.fulfillment.v1.ShipmentCancelled";
/// `ce_type` of `AddressErased`.
pub(super) const ADDRESS_ERASED: &str = "holdfast.fulfillment.v1.AddressErased";

/// The event of the shipment `key`.
pub(super) fn encode(event: &Event, key: &str) -> EncodedEvent {
    let (order_id, shipment_id) = (key.to_owned(), id_of(key));
    let occurred_at = Some(stamp(event.at()));
    let (r#type, payload) = match event {
        Event::ShipmentRequested { customer, address_id, lines, .. } => {
            let (customer_id, address_id) = (customer.to_string(), address_id.as_ref().to_owned());
            let lines = lines.iter().map(line).collect();
            let body = v1::ShipmentRequested { order_id, occurred_at, shipment_id, customer_id, address_id, lines };
            (SHIPMENT_REQUESTED, body.encode_to_vec())
        }
        Event::ShipmentConfirmed { .. } => {
            (SHIPMENT_CONFIRMED, v1::ShipmentConfirmed { order_id, occurred_at, shipment_id }.encode_to_vec())
        }
        Event::PickingStarted { .. } => {
            (PICKING_STARTED, v1::PickingStarted { order_id, occurred_at, shipment_id }.encode_to_vec())
        }
        Event::ShipmentPacked { .. } => {
            (SHIPMENT_PACKED, v1::ShipmentPacked { order_id, occurred_at, shipment_id }.encode_to_vec())
        }
        Event::ShipmentDispatched { parcel, .. } => {
            let (carrier, tracking_number) =
                (parcel.carrier.as_ref().to_owned(), parcel.tracking_number.as_ref().to_owned());
            let body = v1::ShipmentDispatched { order_id, occurred_at, shipment_id, carrier, tracking_number };
            (SHIPMENT_DISPATCHED, body.encode_to_vec())
        }
        Event::TrackingUpdated { tracking: news, .. } => {
            let tracking = Some(tracking(news));
            (TRACKING_UPDATED, v1::TrackingUpdated { order_id, occurred_at, shipment_id, tracking }.encode_to_vec())
        }
        Event::ShipmentDelivered { tracking: news, .. } => {
            let tracking = Some(tracking(news));
            (SHIPMENT_DELIVERED, v1::ShipmentDelivered { order_id, occurred_at, shipment_id, tracking }.encode_to_vec())
        }
        Event::ShipmentCancelled { cancellation: why, .. } => {
            let cancellation = Some(cancellation(why));
            let body = v1::ShipmentCancelled { order_id, occurred_at, shipment_id, cancellation };
            (SHIPMENT_CANCELLED, body.encode_to_vec())
        }
        Event::AddressErased { .. } => {
            (ADDRESS_ERASED, v1::AddressErased { order_id, occurred_at, shipment_id }.encode_to_vec())
        }
    };
    EncodedEvent { r#type, payload: payload.into() }
}

/// The id of the shipment `key`. Keys were found to be orders' ids when they came; of one that is none,
/// nothing can be made.
pub(super) fn id_of(key: &str) -> String {
    Uuid::try_parse(key).map(|order| shipment_id(order).to_string()).unwrap_or_default()
}

pub(super) fn line(line: &Line) -> v1::ShipmentLine {
    v1::ShipmentLine { sku: line.sku.as_ref().to_owned(), quantity: line.quantity }
}

pub(super) fn tracking(news: &Tracking) -> v1::Tracking {
    v1::Tracking {
        tracking_number: news.tracking_number.as_ref().to_owned(),
        status: status(news.status).into(),
        occurred_at: Some(stamp(news.occurred_at)),
    }
}

pub(super) fn cancellation(why: &Cancellation) -> v1::ShipmentCancellation {
    v1::ShipmentCancellation { cause: cause(why.cause).into(), reason: why.reason.as_ref().to_owned() }
}

const fn cause(cause: CancellationCause) -> v1::CancellationCause {
    match cause {
        CancellationCause::CancellationRequested => v1::CancellationCause::CancellationRequested,
        CancellationCause::OrderCancelled => v1::CancellationCause::OrderCancelled,
        CancellationCause::Undeliverable => v1::CancellationCause::Undeliverable,
        CancellationCause::Warehouse => v1::CancellationCause::Warehouse,
    }
}

/// The cause of the wire, if it is one.
pub(super) const fn known_cause(cause: v1::CancellationCause) -> Option<CancellationCause> {
    match cause {
        v1::CancellationCause::CancellationRequested => Some(CancellationCause::CancellationRequested),
        v1::CancellationCause::OrderCancelled => Some(CancellationCause::OrderCancelled),
        v1::CancellationCause::Undeliverable => Some(CancellationCause::Undeliverable),
        v1::CancellationCause::Warehouse => Some(CancellationCause::Warehouse),
        v1::CancellationCause::Unspecified => None,
    }
}

const fn status(status: TrackingStatus) -> v1::TrackingStatus {
    match status {
        TrackingStatus::Accepted => v1::TrackingStatus::Accepted,
        TrackingStatus::InTransit => v1::TrackingStatus::InTransit,
        TrackingStatus::OutForDelivery => v1::TrackingStatus::OutForDelivery,
        TrackingStatus::Delivered => v1::TrackingStatus::Delivered,
    }
}

/// The parcel's status of the wire, if it is one.
pub(super) const fn known_status(status: v1::TrackingStatus) -> Option<TrackingStatus> {
    match status {
        v1::TrackingStatus::Accepted => Some(TrackingStatus::Accepted),
        v1::TrackingStatus::InTransit => Some(TrackingStatus::InTransit),
        v1::TrackingStatus::OutForDelivery => Some(TrackingStatus::OutForDelivery),
        v1::TrackingStatus::Delivered => Some(TrackingStatus::Delivered),
        v1::TrackingStatus::Unspecified => None,
    }
}

pub(super) fn stamp(at: Timestamp) -> holdfast_proto::Timestamp {
    time::from_unix_ms(at.unix_ms())
}
