//! What the codec writes, byte for byte: events that others read, and states that later builds must read.
//!
//! A failure here means that what lies in topics and tables would be read differently: a new schema version,
//! never a new golden value.

use std::fmt::Write as _;

use holdfast_core::{Aggregate as _, Context, Message, Timestamp, codec::Adapter as _};
use holdfast_customers::codec::{CustomerAdapter, decode_state};
use holdfast_customers_domain::{
    Address, Customer, Details, Event, PreferenceField, Preferences, Profile, ProfileField, Status,
};
use holdfast_proto::customers::v1;
use prost::{Message as _, Name as _};
use uuid::Uuid;

use crate::codec::{CUSTOMER, OTHER};

pub const AT: Timestamp = Timestamp::from_unix_ms(1_767_225_600_123);
pub const LATER: Timestamp = Timestamp::from_unix_ms(1_767_226_500_123);

pub fn profile() -> Profile {
    Profile { name: "Jane".into(), email: "j@x".into(), phone: Some("1".into()) }
}

pub fn address() -> Address {
    Address {
        recipient: "Jane".into(),
        lines: ["Street 1".into(), "Floor 2".into()].into(),
        city: "Kiel".into(),
        postal_code: "24103".into(),
        country: "DE".into(),
    }
}

fn preferences() -> Preferences {
    Preferences { locale: Some("de".into()), marketing: true }
}

/// What every event begins with: fields 1, the customer's id, and 2, when.
const EVENT: &str =
    "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a";
/// What a stored customer ends with: fields 6 and 7, when.
const TIMES: &str = "320b0880f2d6ca0610c0a9d33a3a0b0884f9d6ca0610c0a9d33a";

/// Every kind of event, its type and its bytes after [`EVENT`].
fn events() -> [(Event, String, &'static str); 9] {
    let id = Uuid::try_parse(OTHER).unwrap();
    let address_id = "1a2430313932663063312d376231652d376363332d383030302d303030303030303030303062";
    let all = vec![ProfileField::Name, ProfileField::Email, ProfileField::Phone];
    let both = vec![PreferenceField::Locale, PreferenceField::Marketing];
    [
        (
            Event::CustomerCreated { at: AT, profile: Some(profile()), preferences: Some(preferences()) },
            v1::CustomerCreated::full_name(),
            "",
        ),
        (
            Event::ProfileUpdated { at: AT, fields: all, profile: Some(profile()) },
            v1::ProfileUpdated::full_name(),
            "1a03010203",
        ),
        (Event::AddressAdded { at: AT, id, address: Some(address()) }, v1::AddressAdded::full_name(), address_id),
        (Event::AddressChanged { at: AT, id, address: Some(address()) }, v1::AddressChanged::full_name(), address_id),
        (Event::AddressRemoved { at: AT, id }, v1::AddressRemoved::full_name(), address_id),
        (
            Event::PreferencesSet { at: AT, fields: both, preferences: Some(preferences()) },
            v1::PreferencesSet::full_name(),
            "1a020102",
        ),
        (
            Event::CustomerSuspended { at: AT, reason: "unpaid".into() },
            v1::CustomerSuspended::full_name(),
            "1a06756e70616964",
        ),
        (Event::CustomerReactivated { at: AT }, v1::CustomerReactivated::full_name(), ""),
        (Event::CustomerErased { at: AT }, v1::CustomerErased::full_name(), ""),
    ]
}

/// Customers, and their stored bytes before [`TIMES`].
fn states() -> [(Customer, &'static str); 3] {
    let full = Details {
        status: Status::Active,
        profile: Some(profile()),
        addresses: [(Uuid::try_parse(OTHER).unwrap(), Some(address()))].into(),
        preferences: Some(preferences()),
        created_at: AT,
        updated_at: LATER,
    };
    let bare = Details { profile: None, addresses: [].into(), preferences: None, ..full.clone() };
    let suspended = Details { status: Status::Suspended { reason: "unpaid".into() }, ..bare.clone() };
    let erased = Details { status: Status::Erased, ..bare };
    [
        (
            Customer::rehydrate(full),
            "0801120e0a044a616e6512036a40781a01311a520a2430313932663063312d376231652d376363332d383030302d303030303030303030303062122a0a044a616e65120853747265657420311207466c6f6f7220321a044b69656c220532343130332a02444522060a0264651001",
        ),
        (Customer::rehydrate(suspended), "08022a06756e70616964"),
        (Customer::rehydrate(erased), "0803"),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn events_keep_golden_bytes_and_read_back_without_omitted_data() {
    let context = Context { key: CUSTOMER, version: 1, now: AT };
    for (event, r#type, golden) in events() {
        let encoded = CustomerAdapter.encode_event(&event, &context);
        assert_eq!((encoded.r#type, hex(&encoded.payload)), (r#type.as_str(), format!("{EVENT}{golden}")));
        let message = Message::new(Uuid::nil(), "golden", encoded.r#type, CUSTOMER, encoded.payload.clone());
        let read = CustomerAdapter.decode_event(&message).unwrap();
        assert_eq!(CustomerAdapter.encode_event(&read, &context), encoded);
    }
}

#[test]
fn states_of_schema_1_are_written_as_ever_and_read_back() {
    assert_eq!(Customer::SCHEMA, 1, "a new schema needs its own golden bytes beside these");
    for (customer, golden) in states() {
        let golden = format!("{golden}{TIMES}");
        assert_eq!(hex(&CustomerAdapter.encode_state(&customer)), golden);
        assert_eq!(decode_state(1, &unhex(&golden)), Ok(customer));
    }
    assert_eq!(decode_state(1, &[]), Ok(Customer::default()));
}

#[test]
fn state_no_build_could_have_written_is_an_error() {
    let [(full, _), _, _] = states();
    let good = v1::CustomerState::decode(CustomerAdapter.encode_state(&full)).unwrap();
    assert!(decode_state(2, &good.encode_to_vec()).is_err() && decode_state(1, b"\xff").is_err());
    let broken: [fn(&mut v1::CustomerState); 5] = [
        |state| state.status = v1::CustomerStatus::Unspecified.into(),
        |state| state.status = 99,
        |state| state.status = v1::CustomerStatus::Erased.into(),
        |state| state.created_at = None,
        |state| state.addresses[0].address_id = "home".into(),
    ];
    for (at, breaks) in broken.into_iter().enumerate() {
        let mut state = good.clone();
        breaks(&mut state);
        assert!(decode_state(1, &state.encode_to_vec()).is_err(), "change {at} is overlooked");
    }
}
