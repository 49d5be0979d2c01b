//! What the codec reads: every bad command that it decides, and both forms of every good one.

use std::fmt::Debug;

use holdfast_core::{
    Message,
    codec::Adapter as _,
    disposition::{DeadLetterReason, Refused},
    envelope::ContentType,
    origin::Arrival,
};
use holdfast_customers::codec::CustomerAdapter;
use holdfast_customers_domain::Command;
use holdfast_proto::customers::v1;
use holdfast_testkit::origins::assert_origins;
use prost::Name;
use serde::Serialize;
use uuid::Uuid;

use crate::shop::{address, profile};

pub const CUSTOMER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";
pub const OTHER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000b";

/// Stands in every value that is refused, and must stand in no refusal.
const CANARY: &str = "canary-7f3";

fn message<M: Name>(content_type: ContentType, payload: Vec<u8>) -> Message {
    let message = Message::new(Uuid::from_u128(1), "test", M::full_name(), CUSTOMER, payload.into());
    Message { content_type, ..message }
}

fn binary<M: Name>(body: &M) -> Message {
    message::<M>(ContentType::Protobuf, body.encode_to_vec())
}

fn decode(message: &Message) -> Result<Command, Refused> {
    CustomerAdapter.decode(message)
}

fn create(change: impl FnOnce(&mut v1::Profile)) -> Message {
    let mut profile = profile("Jane");
    change(&mut profile);
    binary(&v1::CreateCustomer { customer_id: CUSTOMER.into(), profile: Some(profile), preferences: None })
}

fn add(change: impl FnOnce(&mut v1::Address)) -> Message {
    let mut address = address("Berlin");
    change(&mut address);
    let (customer_id, address_id) = (CUSTOMER.into(), OTHER.into());
    binary(&v1::AddAddress { customer_id, address_id, address: Some(address) })
}

fn prefer(locale: &str) -> Message {
    let preferences = Some(v1::Preferences { locale: locale.into(), marketing: true });
    binary(&v1::SetPreferences { customer_id: CUSTOMER.into(), preferences })
}

fn suspend(reason: &str) -> Message {
    binary(&v1::SuspendCustomer { customer_id: CUSTOMER.into(), reason: reason.into() })
}

#[test]
fn bad_command_is_refused_naming_its_field_and_no_value() {
    let long = |bytes: usize| format!("{CANARY}{}", "x".repeat(bytes - CANARY.len()));
    let rows = [
        (create(|profile| profile.name = " ".into()), "profile.name"),
        (create(|profile| profile.name = long(201)), "profile.name"),
        (create(|profile| profile.email = String::new()), "profile.email"),
        (create(|profile| profile.email = CANARY.into()), "profile.email"),
        (create(|profile| profile.email = format!("{CANARY}@")), "profile.email"),
        (create(|profile| profile.email = format!("@{CANARY}")), "profile.email"),
        (create(|profile| profile.email = format!("a@b@{CANARY}")), "profile.email"),
        (create(|profile| profile.email = format!("a b@{CANARY}")), "profile.email"),
        (create(|profile| profile.email = format!("a@{}", long(253))), "profile.email"),
        (create(|profile| profile.phone = long(41)), "profile.phone"),
        (add(|address| address.recipient = String::new()), "address.recipient"),
        (add(|address| address.recipient = long(201)), "address.recipient"),
        (add(|address| address.lines = vec![]), "address.lines"),
        (add(|address| address.lines = vec![CANARY.into(); 5]), "address.lines"),
        (add(|address| address.lines = vec![CANARY.into(), String::new()]), "address.lines"),
        (add(|address| address.lines = vec![long(201)]), "address.lines"),
        (add(|address| address.city = String::new()), "address.city"),
        (add(|address| address.city = long(101)), "address.city"),
        (add(|address| address.postal_code = long(21)), "address.postal_code"),
        (add(|address| address.country = "de".into()), "address.country"),
        (add(|address| address.country = CANARY.into()), "address.country"),
        (add(|address| address.country = "ß".into()), "address.country"),
        (prefer(&format!("{CANARY}_")), "preferences.locale"),
        (prefer(&"x".repeat(36)), "preferences.locale"),
        (suspend(&long(201)), "reason"),
        (binary(&v1::SuspendCustomer { customer_id: OTHER.into(), reason: String::new() }), "key"),
        (binary(&v1::ReactivateCustomer { customer_id: CANARY.into() }), "customer_id"),
        (binary(&v1::EraseCustomer { customer_id: CUSTOMER.to_uppercase() }), "customer_id"),
        (binary(&v1::RemoveAddress { customer_id: CUSTOMER.into(), address_id: CANARY.into() }), "address_id"),
        (binary(&v1::UpdateProfile { customer_id: CUSTOMER.into(), profile: None }), "profile"),
        (binary(&v1::SetPreferences { customer_id: CUSTOMER.into(), preferences: None }), "preferences"),
    ];
    for (at, (message, field)) in rows.into_iter().enumerate() {
        let refused = decode(&message).expect_err(&format!("row {at} ({}) must be refused", message.r#type));
        assert_eq!((refused.reason, refused.field.as_deref()), (DeadLetterReason::Invalid, Some(field)), "row {at}");
        assert!(!refused.error.contains("canary"), "row {at} quotes what it refuses: {refused}");
    }
    let garbage = message::<v1::CreateCustomer>(ContentType::Protobuf, CANARY.as_bytes().to_vec());
    let refused = decode(&garbage).unwrap_err();
    assert_eq!(refused.reason, DeadLetterReason::Undecodable);
    assert!(!refused.error.contains("canary"), "{refused}");
}

#[test]
fn what_is_just_within_its_bounds_is_accepted() {
    for message in [
        create(|profile| profile.name = "x".repeat(200)),
        create(|profile| profile.email = format!("a@{}", "x".repeat(252))),
        create(|profile| profile.phone = "1".repeat(40)),
        add(|address| address.lines = vec!["x".repeat(200); 4]),
        add(|address| address.postal_code = String::new()),
        prefer(""),
        prefer(&"x".repeat(35)),
        suspend(&"x".repeat(200)),
        suspend(""),
    ] {
        assert!(decode(&message).is_ok(), "{:?}", decode(&message));
    }
}

#[test]
fn personal_data_is_taken_from_calls_alone() {
    let (call, anyone) = (&[Arrival::Call][..], &[Arrival::Commands, Arrival::Call][..]);
    assert_origins(
        &CustomerAdapter.handles(),
        &[
            ("holdfast.customers.v1.CreateCustomer", call),
            ("holdfast.customers.v1.UpdateProfile", call),
            ("holdfast.customers.v1.AddAddress", call),
            ("holdfast.customers.v1.ChangeAddress", call),
            ("holdfast.customers.v1.RemoveAddress", call),
            ("holdfast.customers.v1.SetPreferences", call),
            ("holdfast.customers.v1.SuspendCustomer", anyone),
            ("holdfast.customers.v1.ReactivateCustomer", anyone),
            ("holdfast.customers.v1.EraseCustomer", anyone),
        ],
    );
}

#[test]
fn key_of_a_customer_is_a_canonical_uuid() {
    assert_eq!(CustomerAdapter.check_key(CUSTOMER), Ok(()));
    for key in ["", "x", "\0x", &CUSTOMER.to_uppercase()] {
        assert!(CustomerAdapter.check_key(key).is_err(), "{key:?}");
    }
}

#[test]
fn json_and_protobuf_are_read_alike() {
    fn alike<M: Name + Serialize + Debug>(body: &M) {
        let text = serde_json::to_string(body).unwrap();
        let json = message::<M>(ContentType::Json, text.into_bytes());
        assert_eq!(decode(&json).unwrap(), decode(&binary(body)).unwrap(), "{body:?}");
    }
    alike(&v1::SuspendCustomer { customer_id: CUSTOMER.into(), reason: "unpaid".into() });
    alike(&v1::ReactivateCustomer { customer_id: CUSTOMER.into() });
    alike(&v1::EraseCustomer { customer_id: CUSTOMER.into() });
    alike(&v1::UpdateProfile { customer_id: CUSTOMER.into(), profile: Some(profile("Jane")) });
}

#[test]
fn each_handled_type_is_the_full_name_of_its_message() {
    let names = [
        v1::CreateCustomer::full_name(),
        v1::UpdateProfile::full_name(),
        v1::AddAddress::full_name(),
        v1::ChangeAddress::full_name(),
        v1::RemoveAddress::full_name(),
        v1::SetPreferences::full_name(),
        v1::SuspendCustomer::full_name(),
        v1::ReactivateCustomer::full_name(),
        v1::EraseCustomer::full_name(),
    ];
    assert_eq!(CustomerAdapter.handles().iter().map(|handled| handled.r#type).collect::<Vec<_>>(), names);
}
