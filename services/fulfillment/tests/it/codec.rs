//! What the codecs read: every bad record that they decide, and both forms of every good one.

use std::{fmt::Debug, sync::Arc};

use holdfast_core::{
    Message,
    codec::Adapter as _,
    disposition::{DeadLetterReason, Refused},
    envelope::ContentType,
    origin::Arrival,
};
use holdfast_fulfillment::{
    addresses::StaticAddresses,
    carrier::Simulated,
    codec::{RecipientAdapter, ShipmentAdapter},
};
use holdfast_fulfillment_domain::{Booking, Command, Line, Lookup, recipient};
use holdfast_proto::{customers::v1::CustomerErased, fulfillment::v1, orders::v1 as orders};
use holdfast_testkit::origins::assert_origins;
use prost::Name;
use serde::Serialize;
use uuid::Uuid;

pub const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";
pub const CUSTOMER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000b";

const ORDER_PAID: &str = "holdfast.orders.v1.OrderPaid";
const REQUESTED: &str = "holdfast.orders.v1.OrderCancellationRequested";
const CONFIRMED: &str = "holdfast.inventory.v1.ReservationConfirmed";

/// Stands in every value that is refused, and must stand in no refusal.
const CANARY: &str = "canary-7f3";

pub fn adapter() -> ShipmentAdapter {
    ShipmentAdapter::new(Arc::new(StaticAddresses::default()), Arc::new(Simulated))
}

fn message(r#type: &str, key: &str, content_type: ContentType, payload: impl Into<Vec<u8>>) -> Message {
    Message { content_type, ..Message::new(Uuid::from_u128(1), "test", r#type, key, payload.into().into()) }
}

fn binary<M: Name>(body: &M) -> Message {
    message(&M::full_name(), ORDER, ContentType::Protobuf, body.encode_to_vec())
}

fn json(r#type: &str, text: &str) -> Message {
    message(r#type, ORDER, ContentType::Json, text)
}

fn decode(message: &Message) -> Result<Command, Refused> {
    adapter().decode(message)
}

fn dispatch(carrier: &str, tracking_number: &str) -> v1::DispatchShipment {
    let (carrier, tracking_number) = (carrier.into(), tracking_number.into());
    v1::DispatchShipment { order_id: ORDER.into(), carrier, tracking_number }
}

fn track(tracking_number: &str, status: i32) -> v1::RecordTracking {
    let occurred_at = Some(holdfast_proto::time::from_unix_ms(1));
    v1::RecordTracking { order_id: ORDER.into(), tracking_number: tracking_number.into(), status, occurred_at }
}

fn paid(order_id: &str, customer_id: &str, lines: &str) -> Message {
    let text =
        format!(r#"{{"orderId":"{order_id}","customerId":"{customer_id}","addressId":"home","lines":[{lines}]}}"#);
    json(ORDER_PAID, &text)
}

const LINE: &str = r#"{"sku":"A","quantity":"2"}"#;

#[test]
fn every_bad_record_is_refused_and_names_its_field_and_no_value() {
    use DeadLetterReason::{Invalid, Undecodable, UnknownType};
    let long = |bytes: usize| format!("{CANARY}{}", "x".repeat(bytes - CANARY.len()));
    let garbage = |r#type| message(r#type, ORDER, ContentType::Protobuf, CANARY);
    let rows = [
        (garbage(ORDER_PAID), Undecodable, None),
        (garbage("holdfast.fulfillment.v1.RecordTracking"), Undecodable, None),
        (json(CONFIRMED, &format!(r#"{{"orderId":"{CANARY}""#)), Undecodable, None),
        (garbage("holdfast.fulfillment.v1.NoteShipment"), UnknownType, None),
        (garbage("holdfast.fulfillment.v1.ShipmentRequested"), UnknownType, None),
        (binary(&v1::StartPicking { order_id: CANARY.into() }), Invalid, Some("order_id")),
        (binary(&v1::PackShipment { order_id: ORDER.to_uppercase() }), Invalid, Some("order_id")),
        (binary(&v1::EraseAddress { order_id: CUSTOMER.into() }), Invalid, Some("key")),
        (binary(&dispatch("Post", "")), Invalid, Some("tracking_number")),
        (binary(&dispatch("", "1")), Invalid, Some("carrier")),
        (binary(&dispatch(&long(65), "1")), Invalid, Some("carrier")),
        (binary(&dispatch("Post", &format!("{CANARY} "))), Invalid, Some("tracking_number")),
        (binary(&dispatch("Post", &long(65))), Invalid, Some("tracking_number")),
        (binary(&v1::CancelShipment { order_id: ORDER.into(), reason: long(201) }), Invalid, Some("reason")),
        (binary(&track("", 1)), Invalid, Some("tracking_number")),
        (binary(&track("1", 0)), Invalid, Some("status")),
        (binary(&track("1", 99)), Invalid, Some("status")),
        (binary(&v1::RecordTracking { occurred_at: None, ..track("1", 1) }), Invalid, Some("occurred_at")),
        (paid("", CUSTOMER, LINE), Invalid, Some("order_id")),
        (paid(CUSTOMER, CUSTOMER, LINE), Invalid, Some("key")),
        (paid(ORDER, CANARY, LINE), Invalid, Some("customer_id")),
        (paid(ORDER, CUSTOMER, ""), Invalid, Some("lines")),
        (paid(ORDER, CUSTOMER, r#"{"sku":"canary-7f3 ","quantity":"1"}"#), Invalid, Some("lines.sku")),
        (paid(ORDER, CUSTOMER, r#"{"sku":"A","quantity":"0"}"#), Invalid, Some("lines.quantity")),
        (json(REQUESTED, "{}"), Invalid, Some("order_id")),
        (binary(&orders::OrderCancelled::default()), Invalid, Some("order_id")),
    ];
    for (at, (message, reason, field)) in rows.into_iter().enumerate() {
        let refused = decode(&message).expect_err(&format!("row {at} ({}) must be refused", message.r#type));
        assert_eq!((refused.reason, refused.field.as_deref()), (reason, field), "row {at}: {refused}");
        assert!(!refused.error.contains("canary"), "row {at} quotes what it refuses: {refused}");
    }
}

#[test]
fn news_is_read_by_what_matters_here_whatever_else_it_says() {
    let lines = [Line { sku: "A".into(), quantity: 2 }].into();
    let meant = Command::OrderPaid {
        customer: CUSTOMER.parse().unwrap(),
        address_id: "home".into(),
        lines,
        address: Lookup::NotAsked,
    };
    let plain = paid(ORDER, CUSTOMER, LINE);
    assert_eq!(decode(&plain), Ok(meant.clone()));
    let text = String::from_utf8(plain.payload.to_vec()).unwrap();
    let more = text.replacen('{', r#"{"paymentId":"x","amount":{"minor":"5","currency":"EUR"},"later":1,"#, 1);
    assert_eq!(decode(&json(ORDER_PAID, &more)), Ok(meant));
    let by_hand = format!(r#"{{"order_id":"{ORDER}"}}"#);
    assert_eq!(decode(&json(REQUESTED, &by_hand)), Ok(Command::CancellationRequested));
    assert_eq!(decode(&json(CONFIRMED, &by_hand)), Ok(Command::ReservationConfirmed));
    let cancelled = orders::OrderCancelled { order_id: ORDER.into(), cause: 99, ..orders::OrderCancelled::default() };
    assert_eq!(decode(&binary(&cancelled)), Ok(Command::OrderCancelled), "a cause of a later build is no obstacle");
}

#[test]
fn json_and_protobuf_are_read_alike() {
    fn alike<M: Name + Serialize + Debug>(body: &M) {
        let text = json(&M::full_name(), &serde_json::to_string(body).unwrap());
        assert_eq!(decode(&text).unwrap(), decode(&binary(body)).unwrap(), "{body:?}");
    }
    alike(&v1::StartPicking { order_id: ORDER.into() });
    alike(&v1::PackShipment { order_id: ORDER.into() });
    alike(&v1::EraseAddress { order_id: ORDER.into() });
    alike(&v1::CancelShipment { order_id: ORDER.into(), reason: "x".repeat(200) });
    alike(&dispatch(&"x".repeat(64), &"x".repeat(64)));
    alike(&dispatch("", ""));
    alike(&track("1", 4));
}

#[tokio::test]
async fn parcel_is_booked_only_for_a_dispatch_without_a_carrier() {
    let mut wanted = decode(&binary(&dispatch("", ""))).unwrap();
    let mut named = decode(&binary(&dispatch("Post", "1"))).unwrap();
    let (mut other, before) = (Command::PackShipment, named.clone());
    let results = adapter().prepare(&mut [&mut named, &mut wanted, &mut other]).await;
    assert_eq!(results, vec![Ok(()); 3]);
    let shipment = holdfast_fulfillment_domain::shipment_id(ORDER.parse().unwrap());
    assert_eq!(wanted, Command::DispatchShipment { booking: Booking::Booked(Simulated::parcel(shipment)) });
    assert_eq!((named, other), (before, Command::PackShipment));
}

#[test]
fn a_recipient_hears_of_shipments_and_of_its_erasure() {
    let to = |message: &Message| RecipientAdapter.decode(&Message { key: CUSTOMER.into(), ..message.clone() });
    let note = |customer: &str, order: &str| {
        binary(&v1::NoteShipment { customer_id: customer.into(), order_id: order.into() })
    };
    let erased = |customer: &str| binary(&CustomerErased { customer_id: customer.into(), occurred_at: None });
    let order = ORDER.parse().unwrap();
    assert_eq!(to(&note(CUSTOMER, ORDER)), Ok(recipient::Command::NoteShipment { order }));
    assert_eq!(to(&erased(CUSTOMER)), Ok(recipient::Command::CustomerErased));
    for (message, field) in [
        (note(CANARY, ORDER), "customer_id"),
        (note(ORDER, ORDER), "key"),
        (note(CUSTOMER, CANARY), "order_id"),
        (erased(CANARY), "customer_id"),
        (erased(ORDER), "key"),
    ] {
        let refused = to(&message).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(field));
        assert!(!refused.error.contains("canary"), "{refused}");
    }
}

#[test]
fn each_handled_type_is_the_full_name_of_its_message() {
    let names = [
        v1::StartPicking::full_name(),
        v1::PackShipment::full_name(),
        v1::DispatchShipment::full_name(),
        v1::CancelShipment::full_name(),
        v1::RecordTracking::full_name(),
        v1::EraseAddress::full_name(),
        ORDER_PAID.to_owned(),
        REQUESTED.to_owned(),
        orders::OrderCancelled::full_name(),
        CONFIRMED.to_owned(),
    ];
    assert_eq!(adapter().handles().iter().map(|handled| handled.r#type).collect::<Vec<_>>(), names);
    let names = [v1::NoteShipment::full_name(), CustomerErased::full_name()];
    assert_eq!(RecipientAdapter.handles().iter().map(|handled| handled.r#type).collect::<Vec<_>>(), names);
}

#[test]
fn each_type_is_taken_from_its_own_origins_alone() {
    let (anyone, sent) = (&[Arrival::Commands, Arrival::Call][..], &[Arrival::Sent][..]);
    let orders = &[Arrival::Events { topic: "orders.events", source: "holdfast/orders/order" }][..];
    let inventory = &[Arrival::Events { topic: "inventory.events", source: "holdfast/inventory/reservation" }][..];
    let customers = &[Arrival::Events { topic: "customers.events", source: "holdfast/customers/customer" }][..];
    let handled = [adapter().handles(), RecipientAdapter.handles()].concat();
    assert_origins(
        &handled,
        &[
            ("holdfast.fulfillment.v1.StartPicking", anyone),
            ("holdfast.fulfillment.v1.PackShipment", anyone),
            ("holdfast.fulfillment.v1.DispatchShipment", anyone),
            ("holdfast.fulfillment.v1.CancelShipment", anyone),
            ("holdfast.fulfillment.v1.RecordTracking", anyone),
            ("holdfast.fulfillment.v1.EraseAddress", &[Arrival::Sent, Arrival::Call]),
            ("holdfast.fulfillment.v1.NoteShipment", sent),
            (ORDER_PAID, orders),
            (REQUESTED, orders),
            ("holdfast.orders.v1.OrderCancelled", orders),
            (CONFIRMED, inventory),
            ("holdfast.customers.v1.CustomerErased", customers),
        ],
    );
}

#[test]
fn keys_of_shipments_and_recipients_are_canonical_uuids() {
    assert_eq!((adapter().check_key(ORDER), RecipientAdapter.check_key(CUSTOMER)), (Ok(()), Ok(())));
    for key in ["", "x", "\0x"] {
        assert!(adapter().check_key(key).is_err() && RecipientAdapter.check_key(key).is_err(), "{key:?}");
    }
}
