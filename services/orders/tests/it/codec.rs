//! What the codec reads: every bad record that it decides, and both forms of every good one.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use holdfast_core::{
    Message, PartitionId, Record, Timestamp,
    codec::Adapter as _,
    disposition::{DeadLetterReason, Refused},
    envelope::{EnvelopeOut, header},
    origin::Arrival,
};
use holdfast_money::{Currency, Money};
use holdfast_orders::{
    codec::OrderAdapter,
    customers::{Customers, StaticCustomers},
    prices::{Prices, StaticPrices},
};
use holdfast_orders_domain::Command;
use holdfast_proto::{
    Timestamp as WireTimestamp,
    inventory::v1::{ReservationExpired, ReservationRefused, StockReserved},
    orders::v1::{AddItem, CancelOrder, CreateOrder, PlaceOrder, RemoveItem},
};
use holdfast_testkit::origins::assert_origins;
use prost::Name;
use serde::Serialize;
use uuid::Uuid;

const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-000000000001";
const CUSTOMER: &str = "0192f0c1-7b1e-7cc3-8000-00000000c001";

pub fn adapter() -> OrderAdapter {
    let prices = StaticPrices::all(Money::new(1, Currency::EUR));
    OrderAdapter::new(Prices::new(Arc::new(prices)), Customers::new(Arc::new(StaticCustomers::all())))
}

/// A record as a producer would send it, with `ORDER` as key.
fn record(r#type: &str, content_type: &str, body: impl Into<Bytes>) -> Record {
    let mut headers = EnvelopeOut::new(Uuid::now_v7(), "test", r#type, Timestamp::from_unix_ms(0), ORDER).headers();
    for (name, value) in &mut headers.0 {
        if name == header::CONTENT_TYPE {
            *value = Some(content_type.to_owned().into());
        }
    }
    Record {
        topic: "orders.commands".into(),
        partition: PartitionId(0),
        offset: 0,
        timestamp: None,
        key: Some(ORDER.into()),
        headers,
        value: Some(body.into()),
    }
}

/// As the loop does it: the envelope, then the codec.
fn read(record: &Record) -> Result<Command, Refused> {
    adapter().decode(&Message::decode(record)?)
}

fn protobuf<M: Name>(message: &M) -> Record {
    record(&M::full_name(), "application/protobuf", message.encode_to_vec())
}

fn json<M: Name>(text: impl Into<String>) -> Record {
    record(&M::full_name(), "application/json", text.into())
}

fn create() -> CreateOrder {
    CreateOrder { order_id: ORDER.into(), customer_id: CUSTOMER.into(), currency: "EUR".into() }
}

fn add() -> AddItem {
    AddItem { order_id: ORDER.into(), sku: "A".into(), quantity: 1 }
}

fn remove() -> RemoveItem {
    RemoveItem { order_id: ORDER.into(), sku: "A".into() }
}

fn place() -> PlaceOrder {
    PlaceOrder { order_id: ORDER.into(), payment_method: "pm_1".into(), address_id: "a_1".into() }
}

fn cancel() -> CancelOrder {
    CancelOrder { order_id: ORDER.into(), reason: "too late".into() }
}

fn reserved() -> StockReserved {
    let expires_at = Some(WireTimestamp { seconds: 1, nanos: 0 });
    StockReserved { order_id: ORDER.into(), expires_at, ..StockReserved::default() }
}

/// A bad record: what is wrong with it, the record, the reason, the field.
type Bad = (&'static str, Record, DeadLetterReason, Option<&'static str>);

#[test]
fn bad_record_is_refused_for_its_reason_and_names_its_field() {
    use DeadLetterReason::{Invalid, TooLarge, Undecodable, UnknownType};
    let rows: Vec<Bad> = vec![
        (
            "no protobuf",
            record("holdfast.orders.v1.AddItem", "application/protobuf", "\u{7}garbage"),
            Undecodable,
            None,
        ),
        ("no JSON", json::<AddItem>("{"), Undecodable, None),
        ("JSON of something else", json::<AddItem>(r#"{"orderId":"x","colour":"red"}"#), Undecodable, None),
        ("a fraction of a unit", json::<AddItem>(r#"{"quantity":1.5}"#), Undecodable, None),
        ("more than 64 bits", json::<AddItem>(r#"{"quantity":"9223372036854775808"}"#), Undecodable, None),
        ("another content type", record("holdfast.orders.v1.AddItem", "text/plain", "hello"), Undecodable, None),
        ("no value", Record { value: None, ..protobuf(&add()) }, Undecodable, None),
        (
            "too large",
            record("holdfast.orders.v1.AddItem", "application/protobuf", vec![0; 1024 * 1024 + 1]),
            TooLarge,
            None,
        ),
        ("a type of nobody's", record("holdfast.orders.v1.BurnOrder", "application/protobuf", ""), UnknownType, None),
        (
            "an event of ours, not a command",
            record("holdfast.orders.v1.OrderPlaced", "application/protobuf", ""),
            UnknownType,
            None,
        ),
        (
            "key not the subject",
            Record { key: Some(CUSTOMER.into()), ..protobuf(&add()) },
            Invalid,
            Some(header::SUBJECT),
        ),
        ("no key", Record { key: None, ..protobuf(&add()) }, Invalid, Some("key")),
        ("key not the order", protobuf(&AddItem { order_id: CUSTOMER.into(), ..add() }), Invalid, Some("key")),
        ("no order id", protobuf(&AddItem { order_id: String::new(), ..add() }), Invalid, Some("order_id")),
        (
            "order id in capitals",
            protobuf(&AddItem { order_id: ORDER.to_uppercase(), ..add() }),
            Invalid,
            Some("order_id"),
        ),
        (
            "order id without hyphens",
            protobuf(&CancelOrder { order_id: ORDER.replace('-', ""), ..cancel() }),
            Invalid,
            Some("order_id"),
        ),
        (
            "order id of the key, but no UUID",
            Record {
                key: Some("x".into()),
                headers: subject("x"),
                ..protobuf(&PlaceOrder { order_id: "x".into(), ..place() })
            },
            Invalid,
            Some("order_id"),
        ),
        (
            "no customer",
            protobuf(&CreateOrder { customer_id: String::new(), ..create() }),
            Invalid,
            Some("customer_id"),
        ),
        (
            "customer no UUID",
            protobuf(&CreateOrder { customer_id: "jane".into(), ..create() }),
            Invalid,
            Some("customer_id"),
        ),
        ("no currency", protobuf(&CreateOrder { currency: String::new(), ..create() }), Invalid, Some("currency")),
        ("unknown currency", protobuf(&CreateOrder { currency: "EUX".into(), ..create() }), Invalid, Some("currency")),
        (
            "currency in small letters",
            protobuf(&CreateOrder { currency: "eur".into(), ..create() }),
            Invalid,
            Some("currency"),
        ),
        ("a metal", protobuf(&CreateOrder { currency: "XAU".into(), ..create() }), Invalid, Some("currency")),
        ("no quantity", protobuf(&AddItem { quantity: 0, ..add() }), Invalid, Some("quantity")),
        ("negative quantity", protobuf(&AddItem { quantity: -1, ..add() }), Invalid, Some("quantity")),
        ("the least quantity", protobuf(&AddItem { quantity: i64::MIN, ..add() }), Invalid, Some("quantity")),
        ("no sku", protobuf(&AddItem { sku: String::new(), ..add() }), Invalid, Some("sku")),
        ("sku too long", protobuf(&AddItem { sku: "x".repeat(65), ..add() }), Invalid, Some("sku")),
        ("sku of other characters", protobuf(&RemoveItem { sku: "a b".into(), ..remove() }), Invalid, Some("sku")),
        (
            "payment method too long",
            protobuf(&PlaceOrder { payment_method: "x".repeat(256), ..place() }),
            Invalid,
            Some("payment_method"),
        ),
        (
            "address id too long",
            protobuf(&PlaceOrder { address_id: "x".repeat(256), ..place() }),
            Invalid,
            Some("address_id"),
        ),
        ("reason too long", protobuf(&CancelOrder { reason: "x".repeat(201), ..cancel() }), Invalid, Some("reason")),
        (
            "reserved until nowhen",
            protobuf(&StockReserved { expires_at: None, ..reserved() }),
            Invalid,
            Some("expires_at"),
        ),
        (
            "reserved until no time",
            protobuf(&StockReserved { expires_at: Some(WireTimestamp { seconds: 0, nanos: -1 }), ..reserved() }),
            Invalid,
            Some("expires_at"),
        ),
        (
            "an event of another order",
            protobuf(&ReservationRefused { order_id: CUSTOMER.into(), ..ReservationRefused::default() }),
            Invalid,
            Some("key"),
        ),
        ("an event of no order", protobuf(&ReservationExpired::default()), Invalid, Some("order_id")),
    ];
    for (what, record, reason, field) in rows {
        let refused = read(&record).expect_err(what);
        assert_eq!((refused.reason, refused.field.as_deref()), (reason, field), "{what}: {refused}");
    }
}

fn subject(key: &str) -> holdfast_core::Headers {
    let mut headers = protobuf(&place()).headers;
    for (name, value) in &mut headers.0 {
        if name == header::SUBJECT {
            *value = Some(key.to_owned().into());
        }
    }
    headers
}

#[test]
fn what_is_just_within_its_bounds_is_accepted() {
    for record in [
        protobuf(&AddItem { sku: "x".repeat(64), quantity: i64::MAX, ..add() }),
        protobuf(&PlaceOrder { payment_method: "x".repeat(255), address_id: "x".repeat(255), ..place() }),
        protobuf(&PlaceOrder { payment_method: String::new(), address_id: String::new(), ..place() }),
        protobuf(&CancelOrder { reason: "x".repeat(200), ..cancel() }),
        protobuf(&CreateOrder { currency: "JPY".into(), ..create() }),
    ] {
        assert!(read(&record).is_ok(), "{:?}", read(&record));
    }
}

#[test]
fn json_and_protobuf_are_read_alike() {
    fn alike<M: Name + Serialize + Debug>(message: &M) {
        let binary = read(&protobuf(message)).expect("reads the protobuf");
        let text = serde_json::to_string(message).expect("has a JSON form");
        assert_eq!(read(&json::<M>(text)).expect("reads the JSON"), binary, "{message:?}");
    }
    alike(&create());
    alike(&add());
    alike(&remove());
    alike(&place());
    alike(&cancel());
    alike(&reserved());
    alike(&ReservationRefused { order_id: ORDER.into(), ..ReservationRefused::default() });
    alike(&ReservationExpired { order_id: ORDER.into(), ..ReservationExpired::default() });
}

#[test]
fn a_person_may_write_names_and_numbers_either_way() {
    let by_hand = format!(r#"{{"order_id": "{ORDER}", "sku": "A", "quantity": 3}}"#);
    let canonical = format!(r#"{{"orderId":"{ORDER}","sku":"A","quantity":"3"}}"#);
    let read = [by_hand, canonical].map(|text| read(&json::<AddItem>(text)).unwrap());
    assert_eq!(read[0], read[1]);
}

#[test]
fn fields_that_inventory_adds_to_its_events_are_passed_over() {
    let mut body = prost::Message::encode_to_vec(&reserved());
    body.extend_from_slice(&[0xfa, 0x3f, 1, b'x']); // field 1023
    let record = record("holdfast.inventory.v1.StockReserved", "application/protobuf", body);
    assert_eq!(read(&record).unwrap(), read(&protobuf(&reserved())).unwrap());
}

#[test]
fn a_refusal_holds_no_value_of_the_payload() {
    let canary = "canary-jane-doe";
    for record in [
        protobuf(&CreateOrder { customer_id: canary.into(), ..create() }),
        protobuf(&CreateOrder { currency: canary.into(), ..create() }),
        protobuf(&AddItem { sku: format!("{canary} "), ..add() }),
        protobuf(&CancelOrder { reason: canary.repeat(20), ..cancel() }),
        json::<CancelOrder>(format!(r#"{{"reason":"x","{canary}":1}}"#)),
        json::<CancelOrder>(format!(r#"{{"reason":"{canary}"#)),
    ] {
        let refused = read(&record).unwrap_err();
        assert!(!refused.error.contains("canary"), "{refused}");
    }
}

#[test]
fn each_type_is_taken_from_its_own_origins_alone() {
    let anyone = &[Arrival::Commands, Arrival::Call][..];
    let inventory = &[Arrival::Events { topic: "inventory.events", source: "holdfast/inventory/reservation" }][..];
    let payments = &[Arrival::Events { topic: "payments.events", source: "holdfast/payments/payment" }][..];
    let fulfillment = &[Arrival::Events { topic: "fulfillment.events", source: "holdfast/fulfillment/shipment" }][..];
    assert_origins(
        &adapter().handles(),
        &[
            ("holdfast.orders.v1.CreateOrder", anyone),
            ("holdfast.orders.v1.AddItem", anyone),
            ("holdfast.orders.v1.RemoveItem", anyone),
            ("holdfast.orders.v1.PlaceOrder", anyone),
            ("holdfast.orders.v1.CancelOrder", anyone),
            ("holdfast.inventory.v1.StockReserved", inventory),
            ("holdfast.inventory.v1.ReservationRefused", inventory),
            ("holdfast.inventory.v1.ReservationExpired", inventory),
            ("holdfast.payments.v1.PaymentCaptured", payments),
            ("holdfast.payments.v1.PaymentDeclined", payments),
            ("holdfast.fulfillment.v1.ShipmentDispatched", fulfillment),
            ("holdfast.fulfillment.v1.ShipmentDelivered", fulfillment),
            ("holdfast.fulfillment.v1.ShipmentCancelled", fulfillment),
        ],
    );
}

#[test]
fn key_of_an_order_is_a_canonical_uuid() {
    assert_eq!(adapter().check_key(ORDER), Ok(()));
    for key in ["", "x", "\0x", "0192F0C1-7B1E-7CC3-8000-000000000001"] {
        assert!(adapter().check_key(key).is_err(), "{key:?}");
    }
}
