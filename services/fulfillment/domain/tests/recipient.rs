//! The rules of a recipient: whatever is noted is named once the customer is erased.

mod given;

use given::{NOW, apply};
use holdfast_core::Aggregate as _;
use holdfast_fulfillment_domain::{
    Recipient,
    recipient::{Command, Event, ORDERS_MAX},
};
use proptest::prelude::*;
use uuid::Uuid;

fn note(order: u128) -> Command {
    Command::NoteShipment { order: Uuid::from_u128(order) }
}

fn erased(orders: &[u128]) -> Event {
    Event::RecipientErased { at: NOW, orders: orders.iter().map(|order| Uuid::from_u128(*order)).collect() }
}

fn given(commands: &[Command]) -> Recipient {
    let mut recipient = Recipient::default();
    for command in commands {
        apply(&mut recipient, command).unwrap();
    }
    recipient
}

#[test]
fn an_erased_customer_names_all_its_shipments_once() {
    let mut recipient = given(&[note(1), note(2), note(1)]);
    assert_eq!(apply(&mut recipient, &Command::CustomerErased), Ok(vec![erased(&[1, 2])]));
    assert_eq!(apply(&mut recipient, &Command::CustomerErased), Ok(vec![]));
}

#[test]
fn a_shipment_that_is_noted_after_the_erasure_is_named_too() {
    for commands in [vec![Command::CustomerErased], vec![note(1), Command::CustomerErased]] {
        let mut recipient = given(&commands);
        let noted = Event::ShipmentNoted { at: NOW, order: Uuid::from_u128(2) };
        assert_eq!(apply(&mut recipient, &note(2)), Ok(vec![noted, erased(&[2])]));
        assert_eq!(apply(&mut recipient, &note(2)), Ok(vec![]));
    }
}

#[test]
fn many_shipments_are_named_in_parts() {
    let commands: Vec<Command> = (0..=ORDERS_MAX as u128).map(note).collect();
    let events = apply(&mut given(&commands), &Command::CustomerErased).unwrap();
    assert_eq!(events.len(), 2);
}

proptest! {
    #[test]
    fn whatever_is_noted_is_named_exactly_once_after_an_erasure(orders in proptest::collection::vec(0_u128..20, 0..40), at in 0_usize..40) {
        let mut commands: Vec<Command> = orders.iter().copied().map(note).collect();
        commands.insert(at.min(commands.len()), Command::CustomerErased);
        let (mut live, mut replayed, mut named) = (Recipient::default(), Recipient::default(), Vec::new());
        for command in &commands {
            for event in apply(&mut live, command).unwrap() {
                replayed.evolve(&event);
                if let Event::RecipientErased { orders, .. } = event {
                    named.extend(orders.iter().map(Uuid::as_u128));
                }
            }
        }
        let mut noted = orders;
        noted.sort_unstable();
        noted.dedup();
        named.sort_unstable();
        prop_assert_eq!(named, noted);
        prop_assert_eq!(replayed, live);
    }
}
