//! The stored shipment, and the shipment as others see it.
//!
//! What is stored is trusted, but a state that no build could have written is an error, never a guess. Only
//! the stored form has the address.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::{Aggregate, Timestamp, codec::StateError};
use holdfast_fulfillment_domain::{Address, Cancellation, Details, Line, Parcel, Request, Shipment, Status, Tracking};
use holdfast_proto::{fulfillment::v1, time};
use prost::Message as _;
use uuid::Uuid;

use super::events::{self, id_of, known_cause, known_status, stamp};

/// The form in which the shipment is stored; empty if nothing was heard of it.
pub(super) fn encode(state: &Shipment) -> Bytes {
    let Some(details) = state.details() else { return Bytes::new() };
    let shown = shown(details);
    v1::ShipmentState {
        status: shown.status,
        customer_id: shown.customer_id,
        address_id: shown.address_id,
        lines: shown.lines,
        address: details.address.as_ref().map(wire),
        requested_at: details.request.as_ref().map(|request| stamp(request.at)),
        confirmed_at: shown.confirmed_at,
        carrier: shown.carrier,
        tracking_number: shown.tracking_number,
        tracking: shown.tracking,
        cancellation: shown.cancellation,
        address_erased_at: shown.address_erased_at,
        created_at: shown.created_at,
        updated_at: shown.updated_at,
    }
    .encode_to_vec()
    .into()
}

/// The shipment's public message, without its address; `None` if nothing was heard of it.
pub fn shipment(state: &Shipment, key: &str, version: u64) -> Option<v1::Shipment> {
    let details = state.details()?;
    Some(v1::Shipment { order_id: key.to_owned(), shipment_id: id_of(key), version, ..shown(details) })
}

/// Where the shipment goes, for the answer to a query.
pub fn address(state: &Shipment) -> Option<v1::DeliveryAddress> {
    state.details()?.address.as_ref().map(wire)
}

fn shown(details: &Details) -> v1::Shipment {
    let request = details.request.as_ref();
    let parcel = details.parcel.as_ref();
    let text = |text: Option<&Arc<str>>| text.map(|text| text.as_ref().to_owned()).unwrap_or_default();
    v1::Shipment {
        status: status(&details.status).into(),
        customer_id: request.map(|request| request.customer.to_string()).unwrap_or_default(),
        address_id: text(request.map(|request| &request.address_id)),
        lines: request.map(|request| request.lines.iter().map(events::line).collect()).unwrap_or_default(),
        confirmed_at: details.confirmed_at.map(stamp),
        carrier: text(parcel.map(|parcel| &parcel.carrier)),
        tracking_number: text(parcel.map(|parcel| &parcel.tracking_number)),
        tracking: details.tracking.as_ref().map(events::tracking),
        cancellation: match &details.status {
            Status::Cancelled(cancellation) => Some(events::cancellation(cancellation)),
            _ => None,
        },
        address_erased_at: details.address_erased_at.map(stamp),
        created_at: Some(stamp(details.created_at)),
        updated_at: Some(stamp(details.updated_at)),
        ..v1::Shipment::default()
    }
}

const fn status(status: &Status) -> v1::ShipmentStatus {
    match status {
        Status::Pending => v1::ShipmentStatus::Pending,
        Status::Picking => v1::ShipmentStatus::Picking,
        Status::Packed => v1::ShipmentStatus::Packed,
        Status::Shipped => v1::ShipmentStatus::Shipped,
        Status::Delivered => v1::ShipmentStatus::Delivered,
        Status::Cancelled(_) => v1::ShipmentStatus::Cancelled,
    }
}

fn wire(known: &Address) -> v1::DeliveryAddress {
    v1::DeliveryAddress {
        recipient: known.recipient.as_ref().to_owned(),
        lines: known.lines.iter().map(|line| line.as_ref().to_owned()).collect(),
        city: known.city.as_ref().to_owned(),
        postal_code: known.postal_code.as_ref().to_owned(),
        country: known.country.as_ref().to_owned(),
    }
}

/// Reads a stored shipment of `schema`.
///
/// # Errors
/// [`StateError`] for a schema of a later build, and for bytes that none could have written.
pub fn decode(schema: u32, bytes: &[u8]) -> Result<Shipment, StateError> {
    let broken = |reason: &str| StateError { schema, reason: reason.to_owned() };
    if schema != Shipment::SCHEMA {
        return Err(broken("this build knows schema 1 only"));
    }
    if bytes.is_empty() {
        return Ok(Shipment::default());
    }
    // The parser's own words stay here: they could quote what they read.
    let stored = v1::ShipmentState::decode(bytes).map_err(|_| broken("the bytes are no stored shipment"))?;
    rehydrate(&stored).map(Shipment::rehydrate).map_err(broken)
}

fn rehydrate(stored: &v1::ShipmentState) -> Result<Details, &'static str> {
    let text = |text: &str| Arc::<str>::from(text);
    let parcel = || Parcel { carrier: text(&stored.carrier), tracking_number: text(&stored.tracking_number) };
    let status = rehydrated_status(stored)?;
    let has_parcel = matches!(status, Status::Shipped | Status::Delivered);
    if has_parcel == stored.tracking_number.is_empty() {
        return Err("a parcel is missing, or there is one too early");
    }
    Ok(Details {
        request: stored.requested_at.as_ref().map(|at| request(stored, at)).transpose()?,
        address: stored.address.as_ref().map(|known| Address {
            recipient: text(&known.recipient),
            lines: known.lines.iter().map(|line| text(line)).collect(),
            city: text(&known.city),
            postal_code: text(&known.postal_code),
            country: text(&known.country),
        }),
        address_erased_at: time_of(stored.address_erased_at.as_ref())?,
        confirmed_at: time_of(stored.confirmed_at.as_ref())?,
        parcel: has_parcel.then(parcel),
        tracking: stored.tracking.as_ref().map(tracking).transpose()?,
        created_at: time_of(stored.created_at.as_ref())?.ok_or("a time is missing")?,
        updated_at: time_of(stored.updated_at.as_ref())?.ok_or("a time is missing")?,
        status,
    })
}

fn rehydrated_status(stored: &v1::ShipmentState) -> Result<Status, &'static str> {
    match stored.status() {
        v1::ShipmentStatus::Pending => Ok(Status::Pending),
        v1::ShipmentStatus::Picking => Ok(Status::Picking),
        v1::ShipmentStatus::Packed => Ok(Status::Packed),
        v1::ShipmentStatus::Shipped => Ok(Status::Shipped),
        v1::ShipmentStatus::Delivered => Ok(Status::Delivered),
        v1::ShipmentStatus::Cancelled => {
            let why = stored.cancellation.as_ref().ok_or("cancelled without a cause")?;
            let cause = known_cause(why.cause()).ok_or("unknown cause of cancellation")?;
            Ok(Status::Cancelled(Cancellation { cause, reason: why.reason.as_str().into() }))
        }
        v1::ShipmentStatus::Unspecified => Err("a status that this build does not know"),
    }
}

fn request(stored: &v1::ShipmentState, at: &holdfast_proto::Timestamp) -> Result<Request, &'static str> {
    let line = |line: &v1::ShipmentLine| Line { sku: line.sku.as_str().into(), quantity: line.quantity };
    Ok(Request {
        at: time_of(Some(at))?.ok_or("a time is missing")?,
        customer: Uuid::try_parse(&stored.customer_id).map_err(|_| "customer_id is no UUID")?,
        address_id: stored.address_id.as_str().into(),
        lines: stored.lines.iter().map(line).collect(),
    })
}

fn tracking(stored: &v1::Tracking) -> Result<Tracking, &'static str> {
    Ok(Tracking {
        tracking_number: stored.tracking_number.as_str().into(),
        status: known_status(stored.status()).ok_or("unknown status of a parcel")?,
        occurred_at: time_of(stored.occurred_at.as_ref())?.ok_or("a time is missing")?,
    })
}

fn time_of(at: Option<&holdfast_proto::Timestamp>) -> Result<Option<Timestamp>, &'static str> {
    at.map(|at| time::to_unix_ms(at).map(Timestamp::from_unix_ms).ok_or("a time is none")).transpose()
}
