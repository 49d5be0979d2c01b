//! Commands to a shipment from the wire.
//!
//! Invariant: each promise that a comment of `commands.proto` makes about a field is checked here.
//! Deliberately absent: booking a parcel.

use std::sync::Arc;

use holdfast_adapter::{body, check};
use holdfast_core::{
    Message,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_fulfillment_domain::{Booking, Command, Parcel, Tracking, shipment_id};
use holdfast_proto::fulfillment::v1;
use uuid::Uuid;

use super::events::known_status;

/// `ce_type` of `StartPicking`.
pub const START_PICKING: &str = "holdfast.fulfillment.v1.StartPicking";
/// `ce_type` of `PackShipment`.
pub const PACK_SHIPMENT: &str = "holdfast.fulfillment.v1.PackShipment";
/// `ce_type` of `DispatchShipment`.
pub const DISPATCH_SHIPMENT: &str = "holdfast.fulfillment.v1.DispatchShipment";
/// `ce_type` of `CancelShipment`.
pub const CANCEL_SHIPMENT: &str = "holdfast.fulfillment.v1.CancelShipment";
/// `ce_type` of `RecordTracking`.
pub const RECORD_TRACKING: &str = "holdfast.fulfillment.v1.RecordTracking";
/// `ce_type` of `EraseAddress`.
pub const ERASE_ADDRESS: &str = "holdfast.fulfillment.v1.EraseAddress";

const COMMAND: &[MessageOrigin] = &[MessageOrigin::Commands, MessageOrigin::Call];

/// The commands to a shipment. An address is erased on the word of the context's own recipient, or of a
/// caller; by no stranger's record.
pub(super) const HANDLED: &[Handled] = &[
    Handled::new(START_PICKING, COMMAND),
    Handled::new(PACK_SHIPMENT, COMMAND),
    Handled::new(DISPATCH_SHIPMENT, COMMAND),
    Handled::new(CANCEL_SHIPMENT, COMMAND),
    Handled::new(RECORD_TRACKING, COMMAND),
    Handled::new(ERASE_ADDRESS, &[MessageOrigin::Sent, MessageOrigin::Call]),
];

/// Longest name of a carrier, in bytes.
const CARRIER_BYTES_MAX: usize = 64;
/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// The command in `message`; `None` if it is none of these types.
pub(super) fn decode(message: &Message) -> Option<Result<Command, Refused>> {
    Some(match &*message.r#type {
        START_PICKING => body::decode::<v1::StartPicking>(message)
            .and_then(|body| order_id(&body.order_id, message))
            .map(|()| Command::StartPicking),
        PACK_SHIPMENT => body::decode::<v1::PackShipment>(message)
            .and_then(|body| order_id(&body.order_id, message))
            .map(|()| Command::PackShipment),
        ERASE_ADDRESS => body::decode::<v1::EraseAddress>(message)
            .and_then(|body| order_id(&body.order_id, message))
            .map(|()| Command::EraseAddress),
        DISPATCH_SHIPMENT => dispatch(message),
        CANCEL_SHIPMENT => cancel(message),
        RECORD_TRACKING => record_tracking(message),
        _ => return None,
    })
}

fn dispatch(message: &Message) -> Result<Command, Refused> {
    let body: v1::DispatchShipment = body::decode(message)?;
    let order = checked_order(&body.order_id, message)?;
    let booking = match (&*body.carrier, &*body.tracking_number) {
        ("", "") => Booking::Wanted { shipment: shipment_id(order) },
        ("", _) => return Err(check::missing("carrier")),
        (_, "") => return Err(check::missing("tracking_number")),
        (carrier, number) => Booking::Booked(Parcel {
            carrier: check::at_most("carrier", carrier, CARRIER_BYTES_MAX)?.into(),
            tracking_number: token("tracking_number", number)?,
        }),
    };
    Ok(Command::DispatchShipment { booking })
}

fn cancel(message: &Message) -> Result<Command, Refused> {
    let body: v1::CancelShipment = body::decode(message)?;
    order_id(&body.order_id, message)?;
    Ok(Command::CancelShipment { reason: check::at_most("reason", &body.reason, REASON_BYTES_MAX)?.into() })
}

fn record_tracking(message: &Message) -> Result<Command, Refused> {
    let body: v1::RecordTracking = body::decode(message)?;
    order_id(&body.order_id, message)?;
    let status = known_status(body.status())
        .ok_or_else(|| Refused::invalid("status", "status is none that a parcel can have"))?;
    let tracking_number = token("tracking_number", &body.tracking_number)?;
    let occurred_at = check::time("occurred_at", body.occurred_at.as_ref())?;
    Ok(Command::RecordTracking { tracking: Tracking { tracking_number, status, occurred_at } })
}

/// The order's id is well-formed, and the record's key.
pub(crate) fn order_id(id: &str, message: &Message) -> Result<(), Refused> {
    checked_order(id, message).map(drop)
}

fn checked_order(id: &str, message: &Message) -> Result<Uuid, Refused> {
    let order = check::canonical_uuid("order_id", id)?;
    check::equals_key("order_id", id, &message.key)?;
    Ok(order)
}

/// A well-formed sku.
pub(crate) fn sku(field: &str, text: &str) -> Result<Arc<str>, Refused> {
    token(field, text)
}

/// 1-64 characters of `[A-Za-z0-9._-]`.
fn token(field: &str, text: &str) -> Result<Arc<str>, Refused> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.into())
    } else {
        Err(Refused::invalid(field, format!("{field} is not 1-64 characters of [A-Za-z0-9._-]")))
    }
}
