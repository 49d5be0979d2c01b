//! The rules of a shipment's life, one test each.

mod given;

use given::{
    CUSTOMER, NOW, address, cancel, dispatch, given, paid, paid_to, parcel, status, track, tracking, way, when,
};
use holdfast_fulfillment_domain::{
    Booking, Cancellation, CancellationCause, Command, Event, Line, Lookup, Rejection, Shipment, TrackingStatus,
    shipment_id,
};
use uuid::Uuid;

fn cancelled(cause: CancellationCause) -> Event {
    Event::ShipmentCancelled { at: NOW, cancellation: Cancellation { cause, reason: cause.words().into() } }
}

/// Shipments on their way, as far as they can still be cancelled, then those that can't.
fn open_and_gone() -> ([Shipment; 4], [Shipment; 2]) {
    let way = way();
    let open = [1, 2, 3, 4].map(|steps| given(&way[..steps]));
    let delivered = [&way[..], &[track("1", TrackingStatus::Delivered)]].concat();
    (open, [given(&way), given(&delivered)])
}

#[test]
fn paid_order_requests_a_shipment_to_the_found_address() {
    let lines = [Line { sku: "A".into(), quantity: 2 }].into();
    let requested = Event::ShipmentRequested {
        at: NOW,
        customer: CUSTOMER,
        address_id: "home".into(),
        lines,
        address: Some(address()),
    };
    assert_eq!(when(&Shipment::default(), &paid()), Ok(vec![requested]));
}

#[test]
fn shipment_without_an_address_is_undeliverable_from_its_start() {
    for before in [vec![], vec![Command::ReservationConfirmed]] {
        let outcome = when(&given(&before), &paid_to(Lookup::Missing));
        assert_eq!(outcome, Ok(vec![cancelled(CancellationCause::Undeliverable)]));
    }
}

#[test]
fn picking_starts_only_once_paid_and_confirmed_in_either_order() {
    let confirmed = || Command::ReservationConfirmed;
    assert_eq!(when(&Shipment::default(), &Command::StartPicking), Err(Rejection::ShipmentNotFound));
    for half in [paid(), confirmed()] {
        assert_eq!(when(&given(&[half]), &Command::StartPicking), Err(Rejection::NotPickable));
    }
    for both in [[paid(), confirmed()], [confirmed(), paid()]] {
        assert_eq!(when(&given(&both), &Command::StartPicking), Ok(vec![Event::PickingStarted { at: NOW }]));
    }
}

#[test]
fn a_shipment_goes_through_its_states_in_their_order_alone() {
    let way = way();
    let names = ["PENDING", "PENDING", "PICKING", "PACKED", "SHIPPED"];
    for (steps, name) in (1..).zip(names) {
        let shipment = given(&way[..steps]);
        assert_eq!(status(&shipment), name);
        for (at, command) in way.iter().enumerate().skip(2).filter(|(at, _)| *at != steps) {
            let outcome = when(&shipment, command);
            let expected = if steps == 1 && at == 2 {
                Rejection::NotPickable
            } else {
                Rejection::WrongState { command: command.name(), status: name }
            };
            assert_eq!(outcome, Err(expected), "{command:?} in {name}");
        }
    }
}

#[test]
fn shipment_not_handed_over_is_cancelled_on_any_request() {
    let (open, gone) = open_and_gone();
    let news = [
        (Command::CancellationRequested, CancellationCause::CancellationRequested),
        (Command::OrderCancelled, CancellationCause::OrderCancelled),
    ];
    for (command, cause) in news {
        for shipment in open.iter().chain([&Shipment::default()]) {
            assert_eq!(when(shipment, &command), Ok(vec![cancelled(cause)]));
        }
        for shipment in &gone {
            assert_eq!(when(shipment, &command), Ok(vec![]), "{} is too late, and no error", status(shipment));
        }
    }
    let cancellation = Cancellation { cause: CancellationCause::Warehouse, reason: "broken".into() };
    for shipment in &open {
        let expected = Event::ShipmentCancelled { at: NOW, cancellation: cancellation.clone() };
        assert_eq!(when(shipment, &cancel()), Ok(vec![expected]));
    }
    for shipment in &gone {
        let status = status(shipment);
        assert_eq!(when(shipment, &cancel()), Err(Rejection::WrongState { command: "CancelShipment", status }));
    }
}

#[test]
fn a_cancellation_that_comes_first_forestalls_the_shipment() {
    for first in [Command::CancellationRequested, Command::OrderCancelled] {
        let shipment = given(&[first]);
        for news in [paid(), Command::ReservationConfirmed, Command::OrderCancelled] {
            assert_eq!(when(&shipment, &news), Ok(vec![]));
        }
        let wrong = Rejection::WrongState { command: "StartPicking", status: "CANCELLED" };
        assert_eq!(when(&shipment, &Command::StartPicking), Err(wrong));
    }
}

#[test]
fn a_cancelled_shipment_keeps_no_address() {
    assert_eq!(given(&[paid(), Command::OrderCancelled]).details().unwrap().address, None);
}

#[test]
fn tracking_only_goes_forward() {
    use TrackingStatus::{Accepted, Delivered, InTransit, OutForDelivery};
    let mut commands = way().to_vec();
    commands.push(track("1", InTransit));
    let shipment = given(&commands);
    for stale in [Accepted, InTransit] {
        assert_eq!(when(&shipment, &track("1", stale)), Ok(vec![]));
    }
    let further = Event::TrackingUpdated { at: NOW, tracking: tracking("1", OutForDelivery) };
    assert_eq!(when(&shipment, &track("1", OutForDelivery)), Ok(vec![further]));
    let arrived = Event::ShipmentDelivered { at: NOW, tracking: tracking("1", Delivered) };
    assert_eq!(when(&shipment, &track("1", Delivered)), Ok(vec![arrived]));
    assert_eq!(when(&shipment, &track("2", Delivered)), Err(Rejection::TrackingNumberMismatch));
    commands.push(track("1", Delivered));
    for late in [Accepted, InTransit, OutForDelivery, Delivered] {
        assert_eq!(when(&given(&commands), &track("1", late)), Ok(vec![]));
    }
}

#[test]
fn a_carrier_may_be_quicker_than_the_warehouse() {
    let mut commands = way()[..4].to_vec();
    commands.push(track("1", TrackingStatus::Delivered));
    let shipment = given(&commands);
    assert_eq!(status(&shipment), "PACKED");
    let dispatched = |number: &str| Event::ShipmentDispatched { at: NOW, parcel: parcel(number) };
    let arrived = Event::ShipmentDelivered { at: NOW, tracking: tracking("1", TrackingStatus::Delivered) };
    assert_eq!(when(&shipment, &dispatch("1")), Ok(vec![dispatched("1"), arrived]));
    // What was said of another parcel was no news of this one.
    assert_eq!(when(&shipment, &dispatch("2")), Ok(vec![dispatched("2")]));
    commands.push(dispatch("2"));
    assert_eq!(given(&commands).details().unwrap().tracking, None);
    assert_eq!(when(&Shipment::default(), &track("1", TrackingStatus::Accepted)), Err(Rejection::ShipmentNotFound));
}

#[test]
fn erased_address_ends_unsent_shipments_and_is_erased_once() {
    let (open, gone) = open_and_gone();
    let erased = Event::AddressErased { at: NOW };
    for mut shipment in open {
        let undeliverable = cancelled(CancellationCause::Undeliverable);
        assert_eq!(given::apply(&mut shipment, &Command::EraseAddress), Ok(vec![erased.clone(), undeliverable]));
        assert_eq!(when(&shipment, &Command::EraseAddress), Ok(vec![]));
    }
    for mut shipment in gone {
        assert!(shipment.details().unwrap().address.is_some());
        assert_eq!(given::apply(&mut shipment, &Command::EraseAddress), Ok(vec![erased.clone()]));
        assert_eq!(when(&shipment, &Command::EraseAddress), Ok(vec![]));
        assert_eq!(shipment.details().unwrap().address, None);
    }
    assert_eq!(when(&Shipment::default(), &Command::EraseAddress), Err(Rejection::ShipmentNotFound));
}

#[test]
fn what_was_not_looked_up_or_booked_does_no_harm() {
    assert_eq!(when(&Shipment::default(), &paid_to(Lookup::NotAsked)), Err(Rejection::AddressNotAsked));
    let wanted = Command::DispatchShipment { booking: Booking::Wanted { shipment: CUSTOMER } };
    assert_eq!(when(&given(&way()[..4]), &wanted), Err(Rejection::ParcelNotBooked));
}

#[test]
fn a_shipment_whose_address_was_lost_is_not_picked() {
    let mut shipment = Shipment::default();
    for event in when(&Shipment::default(), &paid()).unwrap() {
        let Event::ShipmentRequested { at, customer, address_id, lines, .. } = event else { panic!("requested") };
        let lost = Event::ShipmentRequested { at, customer, address_id, lines, address: None };
        holdfast_core::Aggregate::evolve(&mut shipment, &lost);
    }
    given::apply(&mut shipment, &Command::ReservationConfirmed).unwrap();
    assert_eq!(when(&shipment, &Command::StartPicking), Err(Rejection::AddressMissing));
    assert!(when(&shipment, &cancel()).is_ok(), "the warehouse can end it");
}

#[test]
fn nothing_of_an_address_is_shown_by_debug() {
    let shown = format!("{:?} {:?}", given(&[paid()]), paid());
    assert!(["Jane", "Main", "Kiel", "24103"].iter().all(|word| !shown.contains(word)), "{shown}");
}

#[test]
fn a_shipments_id_is_made_of_its_orders_for_good() {
    // Golden: other contexts know shipments by it.
    assert_eq!(shipment_id(Uuid::from_u128(1)).to_string(), "2a0abbee-f92d-5ed2-8444-f491fd5f90dc");
    assert_ne!(shipment_id(Uuid::from_u128(1)), shipment_id(Uuid::from_u128(2)));
}
