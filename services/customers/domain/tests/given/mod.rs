//! given (commands) / when (command) / then (events or rejection), for customers.
#![allow(dead_code, reason = "each test binary uses a part")]

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use holdfast_customers_domain::{Address, Command, Customer, Event, Preferences, Profile, Rejection};
use uuid::Uuid;

pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_795_305_600_000);

pub(crate) fn profile(name: &str) -> Profile {
    Profile { name: name.into(), email: "jane@example.org".into(), phone: None }
}

pub(crate) fn address(city: &str) -> Address {
    Address {
        recipient: "Jane".into(),
        lines: ["Main Street 1".into()].into(),
        city: city.into(),
        postal_code: "12345".into(),
        country: "DE".into(),
    }
}

pub(crate) fn prefers(locale: &str, marketing: bool) -> Preferences {
    Preferences { locale: Some(locale.into()), marketing }
}

pub(crate) fn create() -> Command {
    Command::CreateCustomer { profile: profile("Jane"), preferences: Preferences::default() }
}

pub(crate) fn add(id: u128, city: &str) -> Command {
    Command::AddAddress { id: Uuid::from_u128(id), address: address(city) }
}

pub(crate) fn change(id: u128, city: &str) -> Command {
    Command::ChangeAddress { id: Uuid::from_u128(id), address: address(city) }
}

pub(crate) fn remove(id: u128) -> Command {
    Command::RemoveAddress { id: Uuid::from_u128(id) }
}

pub(crate) fn suspend() -> Command {
    Command::SuspendCustomer { reason: "unpaid".into() }
}

/// What happens on `command`; the events are applied to `customer`.
pub(crate) fn handle(customer: &mut Customer, command: &Command) -> Result<Vec<Event>, Rejection> {
    let context = Context { key: "0192f0c1-7b1e-7cc3-8000-000000000001", version: 0, now: NOW };
    match customer.decide(command, &context)? {
        Decision::Done(effects) => {
            assert_eq!(effects.timers, [], "a customer sets no timers");
            effects.events.iter().for_each(|event| customer.evolve(event));
            Ok(effects.events)
        }
        Decision::Conditional { .. } => panic!("a customer wants no shared quantity"),
        Decision::Unprepared(lacking) => panic!("{lacking}"),
    }
}

/// The customer after these commands, each of which must be accepted.
pub(crate) fn given(commands: &[Command]) -> Customer {
    let mut customer = Customer::default();
    for command in commands {
        handle(&mut customer, command).unwrap_or_else(|rejection| panic!("{command:?}: {rejection}"));
    }
    customer
}

/// What a command leads to.
pub(crate) fn when(customer: &Customer, command: Command) -> Result<Vec<Event>, Rejection> {
    handle(&mut customer.clone(), &command)
}
