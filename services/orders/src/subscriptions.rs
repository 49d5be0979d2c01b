//! What inventory's events mean to an order.
//!
//! Reads tolerantly: only what the order needs is looked at, so that inventory may add to its events. Deliberately absent: events that
//! change nothing here; the runtime passes over types that nobody handles.

use holdfast_adapter::{body, check};
use holdfast_core::{Message, disposition::Refused};
use holdfast_orders_domain::Command;
use holdfast_proto::inventory::v1;

use crate::codec::order_id;

/// `ce_type` of `StockReserved`.
const STOCK_RESERVED: &str = "holdfast.inventory.v1.StockReserved";
/// `ce_type` of `ReservationRefused`.
const RESERVATION_REFUSED: &str = "holdfast.inventory.v1.ReservationRefused";
/// `ce_type` of `ReservationExpired`.
const RESERVATION_EXPIRED: &str = "holdfast.inventory.v1.ReservationExpired";

/// The events that orders react to.
pub(crate) const HANDLED: &[&str] = &[STOCK_RESERVED, RESERVATION_REFUSED, RESERVATION_EXPIRED];

/// The command that the event in `message` stands for; `None` if it is none of these types.
pub(crate) fn decode(message: &Message) -> Option<Result<Command, Refused>> {
    Some(match &*message.r#type {
        STOCK_RESERVED => stock_reserved(message),
        RESERVATION_REFUSED => body::decode::<v1::ReservationRefused>(message)
            .and_then(|event| order_id(&event.order_id, message))
            .map(|()| Command::ReservationRefused),
        RESERVATION_EXPIRED => body::decode::<v1::ReservationExpired>(message)
            .and_then(|event| order_id(&event.order_id, message))
            .map(|()| Command::ReservationExpired),
        _ => return None,
    })
}

fn stock_reserved(message: &Message) -> Result<Command, Refused> {
    let event: v1::StockReserved = body::decode(message)?;
    order_id(&event.order_id, message)?;
    Ok(Command::StockReserved { until: check::time("expires_at", event.expires_at.as_ref())? })
}
