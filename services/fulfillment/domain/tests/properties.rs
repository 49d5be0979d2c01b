//! Laws of shipments over random news, commands and tracking, in any order, late, twice, or without what
//! should have come before.

mod given;

use given::{address, apply, cancel, dispatch, paid_to, status, track};
use holdfast_core::Aggregate;
use holdfast_fulfillment_domain::{Command, Event, Lookup, Shipment, Status, TrackingStatus};
use proptest::prelude::*;

fn news() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => any::<bool>().prop_map(|known| paid_to(if known { Lookup::Found(address()) } else { Lookup::Missing })),
        6 => Just(Command::ReservationConfirmed),
        1 => Just(Command::CancellationRequested),
        1 => Just(Command::OrderCancelled),
    ]
}

fn tracking() -> impl Strategy<Value = Command> {
    use TrackingStatus::{Accepted, Delivered, InTransit, OutForDelivery};
    let status = proptest::sample::select(&[Accepted, InTransit, OutForDelivery, Delivered][..]);
    (proptest::sample::select(&["1", "1", "1", "2"][..]), status).prop_map(|(number, status)| track(number, status))
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => news(),
        6 => Just(Command::StartPicking),
        6 => Just(Command::PackShipment),
        6 => Just(dispatch("1")),
        8 => tracking(),
        1 => Just(cancel()),
        1 => Just(Command::EraseAddress),
    ]
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    proptest::collection::vec(command(), 0..60)
}

fn is_legal(before: &str, after: &str) -> bool {
    const WAY: [&str; 6] = ["NONE", "PENDING", "PICKING", "PACKED", "SHIPPED", "DELIVERED"];
    let place = |name| WAY.iter().position(|state| *state == name);
    match (place(before), place(after)) {
        (Some(before), Some(after)) => before == after || after == before + 1 || (before, after) == (3, 5),
        (Some(before), None) => before < 4,
        (None, after) => after.is_none(),
    }
}

proptest! {
    #[test]
    fn a_shipment_only_moves_on_its_way_and_news_is_never_rejected(commands in commands()) {
        let mut shipment = Shipment::default();
        for command in &commands {
            let before = status(&shipment);
            let outcome = apply(&mut shipment, command);
            prop_assert!(is_legal(before, status(&shipment)), "{before} to {} by {command:?}", status(&shipment));
            let is_news = matches!(command.name(), "OrderPaid" | "ReservationConfirmed" | "CancellationRequested" | "OrderCancelled");
            prop_assert!(!is_news || outcome.is_ok());
            let Some(details) = shipment.details() else { continue };
            let begun = matches!(details.status, Status::Picking | Status::Packed | Status::Shipped | Status::Delivered);
            prop_assert!(!begun || details.ready_at().is_some(), "picked without leave");
            prop_assert_eq!(details.parcel.is_some(), matches!(details.status, Status::Shipped | Status::Delivered));
            prop_assert!(details.address.is_none() || details.address_erased_at.is_none());
            prop_assert!(!matches!(details.status, Status::Cancelled(_)) || details.address.is_none());
        }
    }

    #[test]
    fn news_and_tracking_delivered_twice_have_one_effect(commands in commands(), again in prop_oneof![news(), tracking()]) {
        let mut shipment = Shipment::default();
        for command in &commands {
            let _ = apply(&mut shipment, command);
        }
        let _ = apply(&mut shipment, &again);
        let once = shipment.clone();
        prop_assert!(apply(&mut shipment, &again).unwrap_or_default().is_empty());
        prop_assert_eq!(shipment, once);
    }

    #[test]
    fn a_parcels_news_leads_to_the_same_end_in_any_order(mut news in proptest::collection::vec(tracking(), 0..12), by in 0_usize..12) {
        let end = |news: &[Command]| {
            let mut shipment = given::given(&given::way());
            for command in news {
                let _ = apply(&mut shipment, command);
            }
            let details = shipment.details().cloned().unwrap();
            (details.status, details.tracking.map(|tracking| tracking.status))
        };
        let before = end(&news);
        let by = by.min(news.len());
        news.rotate_left(by);
        prop_assert_eq!(end(&news), before.clone());
        news.reverse();
        prop_assert_eq!(end(&news), before);
    }

    #[test]
    fn replay_equals_live_and_eventless_commands_leave_no_trace(commands in commands()) {
        let (mut live, mut replayed) = (Shipment::default(), Shipment::default());
        for command in &commands {
            let events: Vec<Event> = apply(&mut live, command).unwrap_or_default();
            for event in &events {
                replayed.evolve(event);
            }
            prop_assert_eq!(&replayed, &live);
        }
    }

    #[test]
    fn however_news_crosses_a_cancelled_order_never_ships(mut news in proptest::collection::vec(command(), 0..20), at in 0_usize..20) {
        news.insert(at.min(news.len()), Command::OrderCancelled);
        let mut shipment = Shipment::default();
        let mut shipped_before = false;
        for command in &news {
            if *command == Command::OrderCancelled && !shipped_before {
                shipped_before = matches!(status(&shipment), "SHIPPED" | "DELIVERED");
                let _ = apply(&mut shipment, command);
                if !shipped_before {
                    prop_assert_eq!(status(&shipment), "CANCELLED");
                }
            } else {
                let _ = apply(&mut shipment, command);
            }
        }
        prop_assert!(shipped_before || status(&shipment) == "CANCELLED");
    }
}
