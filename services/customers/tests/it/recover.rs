//! What `holdfast recover` makes of published events: all that they say, and blanks where they are silent.

use holdfast_core::{Aggregate as _, Context, Message, Timestamp, codec::Adapter as _};
use holdfast_customers::codec::{self, CustomerAdapter};
use holdfast_customers_domain::{Customer, Event, Preferences, ProfileField, Status};
use uuid::Uuid;

use crate::{
    codec::{CUSTOMER, OTHER},
    golden::{AT, LATER, address, profile},
};

/// The customer that published events make.
fn folded(backup: Customer, events: &[Event]) -> Customer {
    events.iter().fold(backup, |mut customer, event| {
        let encoded = CustomerAdapter.encode_event(event, &Context { key: CUSTOMER, version: 1, now: AT });
        let message = Message::new(Uuid::nil(), "test", encoded.r#type, CUSTOMER, encoded.payload);
        customer.evolve(&CustomerAdapter.decode_event(&message).unwrap());
        customer
    })
}

fn id() -> Uuid {
    Uuid::try_parse(OTHER).unwrap()
}

fn created() -> Event {
    Event::CustomerCreated { at: AT, profile: Some(profile()), preferences: Some(Preferences::default()) }
}

#[test]
fn data_after_the_backup_is_blank_and_data_before_it_stays() {
    let mut backup = Customer::default();
    backup.evolve(&created());
    let added = Event::AddressAdded { at: LATER, id: id(), address: Some(address()) };
    let details = folded(backup.clone(), std::slice::from_ref(&added)).details().cloned().unwrap();
    assert_eq!((details.profile, details.addresses.get(&id())), (Some(profile()), Some(&None)));

    let updated = Event::ProfileUpdated { at: LATER, fields: vec![ProfileField::Name], profile: Some(profile()) };
    let details = folded(backup, &[updated]).details().cloned().unwrap();
    assert_eq!((details.profile, details.updated_at), (None, LATER));
    // It is a state like any other, and shows what is missing.
    let customer = folded(Customer::default(), &[created(), added]);
    let bytes = CustomerAdapter.encode_state(&customer);
    assert_eq!(CustomerAdapter.decode_state(1, &bytes), Ok(customer.clone()));
    let shown = codec::customer(&customer, CUSTOMER, 2).unwrap();
    assert_eq!((shown.profile, shown.preferences, &shown.addresses[0].address), (None, None, &None));
    assert_eq!(shown.addresses[0].address_id, OTHER);
}

#[test]
fn an_erasure_after_the_backup_is_never_forgotten() {
    let mut backup = Customer::default();
    backup.evolve(&created());
    let details = folded(backup, &[Event::CustomerErased { at: LATER }]).details().cloned().unwrap();
    assert_eq!((details.status, details.profile), (Status::Erased, None));
}

#[test]
fn a_type_that_is_no_event_of_ours_is_refused() {
    let message = Message::new(Uuid::nil(), "test", "holdfast.customers.v1.EraseCustomer", CUSTOMER, "".into());
    assert!(CustomerAdapter.decode_event(&message).is_err());
    assert_eq!(Timestamp::default().unix_ms(), 0);
}
