//! Laws of customers over random commands, in any order.

mod given;

use given::{NOW, add, change, create, handle, prefers, profile, remove, suspend};
use holdfast_core::Aggregate;
use holdfast_customers_domain::{ADDRESSES_MAX, Command, Customer, Event, Status};
use proptest::prelude::*;

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => Just(create()),
        3 => "[ab]".prop_map(|name| Command::UpdateProfile { profile: profile(&name) }),
        4 => (0_u128..60, "[ab]").prop_map(|(id, city)| add(id, &city)),
        2 => (0_u128..60, "[ab]").prop_map(|(id, city)| change(id, &city)),
        2 => (0_u128..60).prop_map(remove),
        2 => any::<bool>().prop_map(|marketing| Command::SetPreferences { preferences: prefers("de", marketing) }),
        1 => Just(suspend()),
        1 => Just(Command::ReactivateCustomer),
        1 => Just(Command::EraseCustomer),
    ]
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    proptest::collection::vec(command(), 0..80)
}

proptest! {
    #[test]
    fn replay_equals_live(commands in commands()) {
        let mut live = Customer::default();
        let events: Vec<Event> = commands.iter().flat_map(|command| handle(&mut live, command).unwrap_or_default()).collect();
        let mut replayed = Customer::default();
        for event in &events {
            replayed.evolve(event);
        }
        prop_assert_eq!(replayed, live);
    }

    #[test]
    fn a_command_without_an_event_leaves_no_trace(commands in commands()) {
        let mut customer = Customer::default();
        for command in &commands {
            let before = customer.clone();
            if handle(&mut customer, command).unwrap_or_default().is_empty() {
                prop_assert_eq!(&customer, &before);
            }
        }
    }

    #[test]
    fn erased_is_for_good_and_holds_nothing_of_the_person(commands in commands()) {
        let mut customer = Customer::default();
        let mut erased = false;
        for command in &commands {
            let _ = handle(&mut customer, command);
            let Some(details) = customer.details() else { continue };
            prop_assert!(details.addresses.len() <= ADDRESSES_MAX);
            prop_assert!(!erased || details.status == Status::Erased);
            erased = details.status == Status::Erased;
            let personal = details.profile.is_some() || details.preferences.is_some() || !details.addresses.is_empty();
            prop_assert!(!(erased && personal));
            prop_assert_eq!(details.created_at, NOW);
        }
    }

    /// After a restore, events come back without the personal data that they brought.
    #[test]
    fn customer_with_lost_data_differs_in_personal_data_alone(commands in commands()) {
        let (mut live, mut recovered) = (Customer::default(), Customer::default());
        for command in &commands {
            for event in handle(&mut live, command).unwrap_or_default() {
                recovered.evolve(&blank(event));
            }
        }
        let bare = |customer: &Customer| customer.details().map(|details| {
            (details.status.clone(), details.addresses.keys().copied().collect::<Vec<_>>(), details.created_at, details.updated_at)
        });
        prop_assert_eq!(bare(&live), bare(&recovered));
    }
}

/// The event as it stands in its topic.
fn blank(event: Event) -> Event {
    match event {
        Event::CustomerCreated { at, .. } => Event::CustomerCreated { at, profile: None, preferences: None },
        Event::ProfileUpdated { at, fields, .. } => Event::ProfileUpdated { at, fields, profile: None },
        Event::AddressAdded { at, id, .. } => Event::AddressAdded { at, id, address: None },
        Event::AddressChanged { at, id, .. } => Event::AddressChanged { at, id, address: None },
        Event::PreferencesSet { at, fields, .. } => Event::PreferencesSet { at, fields, preferences: None },
        event => event,
    }
}
