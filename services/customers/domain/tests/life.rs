//! The rules of a customer's life, one test each.

mod given;

use given::{NOW, add, address, change, create, given, prefers, profile, remove, suspend, when};
use holdfast_core::Aggregate as _;
use holdfast_customers_domain::{
    ADDRESSES_MAX, Command, Customer, Event, PreferenceField, Preferences, Profile, ProfileField, Rejection, Status,
};
use uuid::Uuid;

fn update(profile: Profile) -> Command {
    Command::UpdateProfile { profile }
}

fn set(preferences: Preferences) -> Command {
    Command::SetPreferences { preferences }
}

fn id(id: u128) -> Uuid {
    Uuid::from_u128(id)
}

#[test]
fn an_account_is_opened_once() {
    let opened =
        Event::CustomerCreated { at: NOW, profile: Some(profile("Jane")), preferences: Some(Preferences::default()) };
    assert_eq!(when(&Customer::default(), create()), Ok(vec![opened]));
    assert_eq!(when(&given(&[create()]), create()), Err(Rejection::CustomerAlreadyExists));
}

#[test]
fn nothing_can_be_asked_of_a_customer_that_does_not_exist() {
    let commands = [
        update(profile("Jane")),
        add(1, "Berlin"),
        change(1, "Berlin"),
        remove(1),
        set(prefers("de", true)),
        suspend(),
        Command::ReactivateCustomer,
        Command::EraseCustomer,
    ];
    for command in commands {
        assert_eq!(when(&Customer::default(), command), Err(Rejection::CustomerNotFound));
    }
}

#[test]
fn a_profile_says_which_of_its_parts_changed() {
    let customer = given(&[create()]);
    let renamed = profile("Joan");
    let event = Event::ProfileUpdated { at: NOW, fields: vec![ProfileField::Name], profile: Some(renamed.clone()) };
    assert_eq!(when(&customer, update(renamed)), Ok(vec![event]));
    let moved = Profile { email: "j@example.org".into(), phone: Some("+49 30 1".into()), ..profile("Jane") };
    let fields = vec![ProfileField::Email, ProfileField::Phone];
    let event = Event::ProfileUpdated { at: NOW, fields, profile: Some(moved.clone()) };
    assert_eq!(when(&customer, update(moved)), Ok(vec![event]));
}

#[test]
fn saying_again_what_is_known_changes_nothing() {
    let customer = given(&[create(), add(1, "Berlin"), set(prefers("de", true))]);
    for command in [update(profile("Jane")), change(1, "Berlin"), set(prefers("de", true))] {
        assert_eq!(when(&customer, command), Ok(vec![]));
    }
}

#[test]
fn preferences_say_which_of_them_changed() {
    let customer = given(&[create()]);
    let event = |fields, preferences: Preferences| {
        vec![Event::PreferencesSet { at: NOW, fields, preferences: Some(preferences) }]
    };
    let (both, one) = (prefers("de", true), Preferences { locale: None, marketing: true });
    let fields = vec![PreferenceField::Locale, PreferenceField::Marketing];
    assert_eq!(when(&customer, set(both.clone())), Ok(event(fields, both)));
    assert_eq!(when(&customer, set(one.clone())), Ok(event(vec![PreferenceField::Marketing], one)));
}

#[test]
fn addresses_are_added_changed_and_removed_by_id() {
    let customer = given(&[create(), add(1, "Berlin"), add(2, "Bonn"), change(1, "Kiel"), remove(2)]);
    let addresses: Vec<_> = customer.details().unwrap().addresses.clone().into_iter().collect();
    assert_eq!(addresses, [(id(1), Some(address("Kiel")))]);
    assert_eq!(when(&customer, add(1, "Ulm")), Err(Rejection::AddressAlreadyExists));
    assert_eq!(when(&customer, change(2, "Ulm")), Err(Rejection::AddressNotFound));
    assert_eq!(when(&customer, remove(2)), Err(Rejection::AddressNotFound));
    let full: Vec<Command> = std::iter::once(create()).chain((0..ADDRESSES_MAX as u128).map(|n| add(n, "X"))).collect();
    assert_eq!(when(&given(&full), add(99, "X")), Err(Rejection::TooManyAddresses));
}

#[test]
fn a_suspension_begins_and_ends() {
    let customer = given(&[create(), suspend()]);
    assert_eq!(customer.details().unwrap().status, Status::Suspended { reason: "unpaid".into() });
    let wrong = |command, status| Err(Rejection::WrongState { command, status });
    assert_eq!(when(&customer, suspend()), wrong("SuspendCustomer", "SUSPENDED"));
    assert_eq!(when(&customer, Command::ReactivateCustomer), Ok(vec![Event::CustomerReactivated { at: NOW }]));
    assert_eq!(when(&given(&[create()]), Command::ReactivateCustomer), wrong("ReactivateCustomer", "ACTIVE"));
    assert!(when(&customer, update(profile("Joan"))).is_ok(), "a suspended customer may correct what is known of it");
}

#[test]
fn erasure_leaves_nothing_of_the_person() {
    for commands in [
        vec![create(), add(1, "Berlin"), set(prefers("de", true))],
        vec![create(), add(1, "Berlin"), suspend()],
        vec![create()],
    ] {
        let mut customer = given(&commands);
        assert_eq!(given::handle(&mut customer, &Command::EraseCustomer), Ok(vec![Event::CustomerErased { at: NOW }]));
        let details = customer.details().unwrap();
        assert_eq!((&details.profile, &details.preferences, details.addresses.len()), (&None, &None, 0));
        assert_eq!((&details.status, details.created_at), (&Status::Erased, NOW));
    }
}

#[test]
fn an_erased_customer_says_no_to_everything_but_its_erasure() {
    let customer = given(&[create(), Command::EraseCustomer]);
    assert_eq!(when(&customer, Command::EraseCustomer), Ok(vec![]));
    let commands = [
        create(),
        update(profile("Jane")),
        add(1, "Berlin"),
        change(1, "Berlin"),
        remove(1),
        set(prefers("de", true)),
        suspend(),
        Command::ReactivateCustomer,
    ];
    for command in commands {
        assert_eq!(when(&customer, command), Err(Rejection::CustomerErased));
    }
}

#[test]
fn data_lost_with_a_database_is_blank_until_given_again() {
    let mut customer = given(&[create(), add(1, "Berlin"), set(prefers("de", true))]);
    customer.evolve(&Event::ProfileUpdated { at: NOW, fields: vec![ProfileField::Name], profile: None });
    customer.evolve(&Event::AddressChanged { at: NOW, id: id(1), address: None });
    customer.evolve(&Event::PreferencesSet { at: NOW, fields: vec![PreferenceField::Marketing], preferences: None });
    let details = customer.details().unwrap();
    assert_eq!((&details.profile, &details.preferences), (&None, &None), "what it was before is not true any more");
    assert_eq!(details.addresses[&id(1)], None);
    // Even as it was before the loss, it is news again.
    for command in [update(profile("Jane")), change(1, "Berlin"), set(prefers("de", true))] {
        assert_eq!(when(&customer, command).map(|events| events.len()), Ok(1));
    }
    assert!(when(&customer, remove(1)).is_ok());
}

#[test]
fn nothing_personal_is_shown_by_debug() {
    let canary = "canary-7f3";
    let profile = Profile { name: canary.into(), email: canary.into(), phone: Some(canary.into()) };
    let customer = given(&[Command::CreateCustomer { profile, preferences: prefers(canary, true) }, add(1, canary)]);
    assert!(!format!("{customer:?} {:?}", add(1, canary)).contains(canary));
}

#[test]
fn a_stored_customer_comes_back_the_same() {
    let customer = given(&[create(), add(1, "Berlin"), suspend()]);
    assert_eq!(customer.details().cloned().map(Customer::rehydrate), Some(customer));
}
