//! given (commands) / when (command) / then (events or rejection), for shipments.
#![allow(dead_code, reason = "each test binary uses a part")]

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use holdfast_fulfillment_domain::{
    Address, Booking, Command, Event, Line, Lookup, Parcel, Rejection, Shipment, Tracking, TrackingStatus,
};
use uuid::Uuid;

pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_795_305_600_000);
pub(crate) const CUSTOMER: Uuid = Uuid::from_u128(7);

pub(crate) fn address() -> Address {
    Address {
        recipient: "Jane".into(),
        lines: ["Main Street 1".into()].into(),
        city: "Kiel".into(),
        postal_code: "24103".into(),
        country: "DE".into(),
    }
}

pub(crate) fn paid_to(address: Lookup) -> Command {
    let lines = [Line { sku: "A".into(), quantity: 2 }].into();
    Command::OrderPaid { customer: CUSTOMER, address_id: "home".into(), lines, address }
}

pub(crate) fn paid() -> Command {
    paid_to(Lookup::Found(address()))
}

pub(crate) fn parcel(number: &str) -> Parcel {
    Parcel { carrier: "Post".into(), tracking_number: number.into() }
}

pub(crate) fn dispatch(number: &str) -> Command {
    Command::DispatchShipment { booking: Booking::Booked(parcel(number)) }
}

pub(crate) fn cancel() -> Command {
    Command::CancelShipment { reason: "broken".into() }
}

pub(crate) fn tracking(number: &str, status: TrackingStatus) -> Tracking {
    Tracking { tracking_number: number.into(), status, occurred_at: NOW }
}

pub(crate) fn track(number: &str, status: TrackingStatus) -> Command {
    Command::RecordTracking { tracking: tracking(number, status) }
}

/// What leads to a shipment that is PENDING and can be picked, and then on.
pub(crate) fn way() -> [Command; 5] {
    [paid(), Command::ReservationConfirmed, Command::StartPicking, Command::PackShipment, dispatch("1")]
}

/// What happens on `command`; the events are applied to `aggregate`.
pub(crate) fn apply<A: Aggregate>(aggregate: &mut A, command: &A::Command) -> Result<Vec<A::Event>, A::Rejection> {
    match aggregate.decide(command, &Context { key: "key", version: 0, now: NOW })? {
        Decision::Done(effects) => {
            assert_eq!(effects.timers, [], "no timers are set");
            effects.events.iter().for_each(|event| aggregate.evolve(event));
            Ok(effects.events)
        }
        Decision::Conditional { .. } => panic!("no shared quantity is wanted"),
        Decision::Unprepared(lacking) => panic!("{lacking}"),
    }
}

/// The shipment after these commands, each of which must be accepted.
pub(crate) fn given(commands: &[Command]) -> Shipment {
    let mut shipment = Shipment::default();
    for command in commands {
        apply(&mut shipment, command).unwrap_or_else(|rejection| panic!("{command:?}: {rejection}"));
    }
    shipment
}

/// What a command leads to.
pub(crate) fn when(shipment: &Shipment, command: &Command) -> Result<Vec<Event>, Rejection> {
    apply(&mut shipment.clone(), command)
}

/// The status of a shipment.
pub(crate) fn status(shipment: &Shipment) -> &'static str {
    shipment.details().map_or("NONE", |details| details.status.name())
}
