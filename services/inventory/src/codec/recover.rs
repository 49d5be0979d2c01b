//! Events back from the wire, and the timers that go with them, for `holdfast recover`.
//!
//! Invariant: what the two codecs wrote comes back as it was. What an event did to the pools is the domain's
//! to say.

use std::{sync::Arc, time::Duration};

use holdfast_adapter::{body, check};
use holdfast_core::{Message, TimerChange, Timestamp, disposition::Refused};
use holdfast_inventory_domain::{
    Line,
    reservation::{self, EXPIRY_TIMER, ReleaseCause},
    stock_item as stock,
};
use holdfast_proto::inventory::v1;

use super::event_types::{
    PRICE_SET, REORDER_POINT_SET, REPLENISHMENT_ENDED, REPLENISHMENT_REQUESTED, RESERVATION_CONFIRMED,
    RESERVATION_EXPIRED, RESERVATION_REFUSED, RESERVATION_RELEASED, RESERVATION_SHIPPED, STOCK_ADJUSTED,
    STOCK_RECEIVED, STOCK_RESERVED,
};
use crate::sku::sku_or_refused;

/// The reservation's event in `message`.
pub(super) fn reservation(message: &Message) -> Result<reservation::Event, Refused> {
    use reservation::Event;
    let at = |time: Option<&_>| check::time("occurred_at", time);
    Ok(match &*message.r#type {
        STOCK_RESERVED => {
            let event: v1::StockReserved = body::decode(message)?;
            Event::StockReserved {
                at: at(event.occurred_at.as_ref())?,
                lines: lines(&event.lines)?,
                expires_at: check::time("expires_at", event.expires_at.as_ref())?,
            }
        }
        RESERVATION_CONFIRMED => {
            let event: v1::ReservationConfirmed = body::decode(message)?;
            Event::ReservationConfirmed { at: at(event.occurred_at.as_ref())?, lines: lines(&event.lines)? }
        }
        RESERVATION_SHIPPED => {
            let event: v1::ReservationShipped = body::decode(message)?;
            Event::ReservationShipped { at: at(event.occurred_at.as_ref())?, lines: lines(&event.lines)? }
        }
        RESERVATION_REFUSED => {
            let event: v1::ReservationRefused = body::decode(message)?;
            Event::ReservationRefused { at: at(event.occurred_at.as_ref())?, wanted: lines(&event.wanted)? }
        }
        RESERVATION_RELEASED => {
            let event: v1::ReservationReleased = body::decode(message)?;
            let cause = match event.cause() {
                v1::ReleaseCause::OrderCancelled => ReleaseCause::OrderCancelled,
                v1::ReleaseCause::Unspecified => return Err(Refused::invalid("cause", "cause is unknown")),
            };
            Event::ReservationReleased { at: at(event.occurred_at.as_ref())?, lines: lines(&event.lines)?, cause }
        }
        RESERVATION_EXPIRED => {
            let event: v1::ReservationExpired = body::decode(message)?;
            Event::ReservationExpired { at: at(event.occurred_at.as_ref())?, lines: lines(&event.lines)? }
        }
        _ => return Err(Refused::unknown_type()),
    })
}

/// The stock item's event in `message`.
pub(super) fn stock_item(message: &Message) -> Result<stock::Event, Refused> {
    use stock::Event;
    let at = |time: Option<&_>| check::time("occurred_at", time);
    Ok(match &*message.r#type {
        STOCK_RECEIVED => {
            let event: v1::StockReceived = body::decode(message)?;
            Event::StockReceived { at: at(event.occurred_at.as_ref())?, quantity: event.quantity }
        }
        STOCK_ADJUSTED => {
            let event: v1::StockAdjusted = body::decode(message)?;
            let reason = event.reason.as_str().into();
            Event::StockAdjusted { at: at(event.occurred_at.as_ref())?, delta: event.delta, reason }
        }
        PRICE_SET => {
            let event: v1::PriceSet = body::decode(message)?;
            let price = check::money("price", event.price.as_ref())?;
            Event::PriceSet { at: at(event.occurred_at.as_ref())?, price }
        }
        REORDER_POINT_SET => {
            let event: v1::ReorderPointSet = body::decode(message)?;
            Event::ReorderPointSet { at: at(event.occurred_at.as_ref())?, reorder_point: event.reorder_point }
        }
        REPLENISHMENT_REQUESTED => {
            let event: v1::ReplenishmentRequested = body::decode(message)?;
            let reorder_point = event.reorder_point;
            Event::ReplenishmentRequested { at: at(event.occurred_at.as_ref())?, reorder_point }
        }
        REPLENISHMENT_ENDED => {
            let event: v1::ReplenishmentEnded = body::decode(message)?;
            Event::ReplenishmentEnded { at: at(event.occurred_at.as_ref())? }
        }
        _ => return Err(Refused::unknown_type()),
    })
}

/// The timer of a stock item's event.
pub(super) fn stock_timers(event: &stock::Event) -> Option<TimerChange> {
    let stock::Event::ReorderPointSet { reorder_point, .. } = event else { return None };
    Some(match reorder_point {
        0 => TimerChange::Cancel { name: stock::REORDER_TIMER },
        _ => TimerChange::Set { name: stock::REORDER_TIMER, after: Duration::ZERO },
    })
}

/// A hold ends when it was to end; one that should have ended while the database was away ends at once.
pub(super) fn timers(event: &reservation::Event, now: Timestamp) -> Option<TimerChange> {
    use reservation::Event;
    match event {
        Event::StockReserved { expires_at, .. } => {
            let left_ms = u64::try_from(expires_at.unix_ms().saturating_sub(now.unix_ms())).unwrap_or(0);
            Some(TimerChange::Set { name: EXPIRY_TIMER, after: Duration::from_millis(left_ms) })
        }
        Event::ReservationConfirmed { .. }
        | Event::ReservationShipped { .. }
        | Event::ReservationReleased { .. }
        | Event::ReservationExpired { .. } => Some(TimerChange::Cancel { name: EXPIRY_TIMER }),
        Event::ReservationRefused { .. } => None,
    }
}

fn lines(lines: &[v1::ReservationLine]) -> Result<Arc<[Line]>, Refused> {
    let line =
        |line: &v1::ReservationLine| Ok(Line { sku: sku_or_refused("lines.sku", &line.sku)?, quantity: line.quantity });
    lines.iter().map(line).collect()
}
