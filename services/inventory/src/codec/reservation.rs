//! The Reservation's wire and storage form.
//!
//! It has no commands of its own: it follows the events of orders and its timer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_adapter::check;
use holdfast_core::{
    Aggregate, Context, Message,
    codec::{Adapter, Aftermath, EncodedEvent, StateError},
    dedup,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_inventory_domain::{
    Line, Reservation, Sku,
    reservation::{Command, Details, EXPIRY_TIMER, Event, Rejection, ReleaseCause, Status},
};
use holdfast_proto::inventory::v1;
use prost::Message as _;

use super::{
    broken,
    event_types::{
        RESERVATION_CONFIRMED, RESERVATION_EXPIRED, RESERVATION_REFUSED, RESERVATION_RELEASED, RESERVATION_SHIPPED,
        STOCK_RESERVED,
    },
    recover, stamp, stored_time,
};
use crate::subscriptions;

/// The adapter of [`Reservation`].
#[derive(Clone, Copy, Debug)]
pub struct ReservationAdapter {
    hold_for: Duration,
}

impl ReservationAdapter {
    /// Holds stock for so long.
    pub const fn new(hold_for: Duration) -> Self {
        Self { hold_for }
    }
}

impl Adapter for ReservationAdapter {
    type Aggregate = Reservation;

    fn handles(&self) -> Vec<Handled> {
        let timer = Handled::new(EXPIRY_TIMER, &[MessageOrigin::Timer(EXPIRY_TIMER)]);
        [subscriptions::HANDLED, &[timer]].concat()
    }

    fn check_key(&self, key: &str) -> Result<(), Refused> {
        check::canonical_uuid("order_id", key).map(drop)
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        subscriptions::decode(message, self.hold_for)
    }

    fn timer(&self, name: &str) -> Option<Command> {
        (name == EXPIRY_TIMER).then_some(Command::HoldElapsed)
    }

    fn encode_event(&self, event: &Event, context: &Context<'_>) -> EncodedEvent {
        encode_event(event, context.key.to_owned())
    }

    fn decode_event(&self, message: &Message) -> Result<Event, Refused> {
        recover::reservation(message)
    }

    fn aftermath(&self, event: &Event, context: &Context<'_>) -> Aftermath {
        Aftermath { pools: event.pool_changes(), timers: recover::timers(event, context.now).into_iter().collect() }
    }

    fn encode_state(&self, state: &Reservation) -> Bytes {
        let Some(details) = state.details() else { return Bytes::new() };
        v1::ReservationState {
            status: status(details.status).into(),
            lines: lines(&details.lines),
            expires_at: details.expires_at.map(stamp),
            created_at: Some(stamp(details.created_at)),
            updated_at: Some(stamp(details.updated_at)),
        }
        .encode_to_vec()
        .into()
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Reservation, StateError> {
        decode_state(schema, bytes)
    }

    fn encode_reply(&self, state: &Reservation, context: &Context<'_>) -> Bytes {
        let Some(details) = state.details() else { return Bytes::new() };
        v1::Reservation {
            order_id: context.key.to_owned(),
            status: status(details.status).into(),
            lines: lines(&details.lines),
            expires_at: details.expires_at.map(stamp),
            created_at: Some(stamp(details.created_at)),
            updated_at: Some(stamp(details.updated_at)),
            version: context.version,
        }
        .encode_to_vec()
        .into()
    }

    fn rejection(&self, rejection: &Rejection) -> dedup::Rejection {
        dedup::Rejection { code: rejection.code().to_owned(), message: rejection.to_string() }
    }
}

fn encode_event(event: &Event, order_id: String) -> EncodedEvent {
    let (r#type, payload) = match event {
        Event::StockReserved { at, lines: held, expires_at } => {
            let (occurred_at, expires_at) = (Some(stamp(*at)), Some(stamp(*expires_at)));
            let body = v1::StockReserved { order_id, occurred_at, lines: lines(held), expires_at };
            (STOCK_RESERVED, body.encode_to_vec())
        }
        Event::ReservationConfirmed { at, lines: held } => {
            let body = v1::ReservationConfirmed { order_id, occurred_at: Some(stamp(*at)), lines: lines(held) };
            (RESERVATION_CONFIRMED, body.encode_to_vec())
        }
        Event::ReservationShipped { at, lines: gone } => {
            let body = v1::ReservationShipped { order_id, occurred_at: Some(stamp(*at)), lines: lines(gone) };
            (RESERVATION_SHIPPED, body.encode_to_vec())
        }
        Event::ReservationRefused { at, wanted } => {
            let body = v1::ReservationRefused { order_id, occurred_at: Some(stamp(*at)), wanted: lines(wanted) };
            (RESERVATION_REFUSED, body.encode_to_vec())
        }
        Event::ReservationReleased { at, lines: released, cause: ReleaseCause::OrderCancelled } => {
            let (lines, cause) = (lines(released), v1::ReleaseCause::OrderCancelled.into());
            let body = v1::ReservationReleased { order_id, occurred_at: Some(stamp(*at)), lines, cause };
            (RESERVATION_RELEASED, body.encode_to_vec())
        }
        Event::ReservationExpired { at, lines: released } => {
            let body = v1::ReservationExpired { order_id, occurred_at: Some(stamp(*at)), lines: lines(released) };
            (RESERVATION_EXPIRED, body.encode_to_vec())
        }
    };
    EncodedEvent { r#type, payload: payload.into() }
}

fn lines(lines: &[Line]) -> Vec<v1::ReservationLine> {
    lines
        .iter()
        .map(|line| v1::ReservationLine { sku: line.sku.as_str().to_owned(), quantity: line.quantity })
        .collect()
}

const fn status(status: Status) -> v1::ReservationStatus {
    match status {
        Status::Held => v1::ReservationStatus::Held,
        Status::Confirmed => v1::ReservationStatus::Confirmed,
        Status::Shipped => v1::ReservationStatus::Shipped,
        Status::Refused => v1::ReservationStatus::Refused,
        Status::Released(ReleaseCause::OrderCancelled) => v1::ReservationStatus::Released,
        Status::Expired => v1::ReservationStatus::Expired,
    }
}

/// Reads a stored reservation of `schema`.
///
/// # Errors
/// [`StateError`] for a schema of a later build, and for bytes that none could have written.
pub fn decode_state(schema: u32, bytes: &[u8]) -> Result<Reservation, StateError> {
    if schema != Reservation::SCHEMA {
        return Err(broken(schema, "this build knows schema 1 only"));
    }
    if bytes.is_empty() {
        return Ok(Reservation::default());
    }
    let stored = v1::ReservationState::decode(bytes).map_err(|error| broken(schema, error.to_string()))?;
    rehydrate(&stored).map(Reservation::rehydrate).map_err(|reason| broken(schema, reason))
}

fn rehydrate(stored: &v1::ReservationState) -> Result<Details, &'static str> {
    let status = match stored.status() {
        v1::ReservationStatus::Held => Status::Held,
        v1::ReservationStatus::Confirmed => Status::Confirmed,
        v1::ReservationStatus::Shipped => Status::Shipped,
        v1::ReservationStatus::Refused => Status::Refused,
        v1::ReservationStatus::Released => Status::Released(ReleaseCause::OrderCancelled),
        v1::ReservationStatus::Expired => Status::Expired,
        v1::ReservationStatus::Unspecified => return Err("a status that this build does not know"),
    };
    let line = |line: &v1::ReservationLine| {
        let sku = Sku::new(&line.sku).map_err(|_| "a line's sku is none")?;
        Ok(Line { sku, quantity: line.quantity })
    };
    Ok(Details {
        status,
        lines: stored.lines.iter().map(line).collect::<Result<Arc<[Line]>, &'static str>>()?,
        expires_at: stored.expires_at.as_ref().map(|at| stored_time(Some(at))).transpose()?,
        created_at: stored_time(stored.created_at.as_ref())?,
        updated_at: stored_time(stored.updated_at.as_ref())?,
    })
}
