//! What the codecs make of foreign bytes, and that good ones mean the same in both forms.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use holdfast_core::{
    Message,
    codec::Adapter,
    disposition::{DeadLetterReason, Refused},
    envelope::ContentType,
    origin::Arrival,
};
use holdfast_inventory::codec::{
    ADJUST_STOCK, RECEIVE_STOCK, ReservationAdapter, SET_PRICE, SET_REORDER_POINT, StockItemAdapter,
};
use holdfast_inventory_domain::{Line, Sku, reservation, stock_item};
use holdfast_money::{Currency, Money};
use holdfast_proto::{inventory::v1, money::v1::Money as WireMoney, orders::v1 as orders};
use holdfast_testkit::origins::assert_origins;
use uuid::Uuid;

const ORDER_PLACED: &str = "holdfast.orders.v1.OrderPlaced";
const ORDER_PAID: &str = "holdfast.orders.v1.OrderPaid";
const ORDER_SHIPPED: &str = "holdfast.orders.v1.OrderShipped";
const ORDER_CANCELLED: &str = "holdfast.orders.v1.OrderCancelled";
const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";
const OTHER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000b";
const HOLD: Duration = Duration::from_mins(15);

/// Stands in every value that is refused, and must stand in no refusal.
const CANARY: &str = "canary-7f3";

fn message(r#type: &str, key: &str, content_type: ContentType, payload: Vec<u8>) -> Message {
    Message {
        id: Uuid::from_u128(1),
        source: "producer".into(),
        r#type: r#type.into(),
        key: key.into(),
        content_type,
        sequence: None,
        correlation: None,
        causation: None,
        traceparent: None,
        tracestate: None,
        payload: payload.into(),
    }
}

fn binary(r#type: &str, key: &str, body: &impl prost::Message) -> Message {
    message(r#type, key, ContentType::Protobuf, body.encode_to_vec())
}

fn json(r#type: &str, key: &str, body: &str) -> Message {
    message(r#type, key, ContentType::Json, body.as_bytes().to_vec())
}

fn receive(key: &str, sku: &str, quantity: i64) -> Message {
    binary(RECEIVE_STOCK, key, &v1::ReceiveStock { sku: sku.to_owned(), quantity })
}

fn adjust(key: &str, sku: &str, delta: i64, reason: &str) -> Message {
    binary(ADJUST_STOCK, key, &v1::AdjustStock { sku: sku.to_owned(), delta, reason: reason.to_owned() })
}

fn price(key: &str, sku: &str, price: Option<(i64, &str)>) -> Message {
    let price = price.map(|(minor, currency)| WireMoney { minor, currency: currency.to_owned() });
    binary(SET_PRICE, key, &v1::SetPrice { sku: sku.to_owned(), price })
}

fn reorder(key: &str, sku: &str, reorder_point: i64) -> Message {
    binary(SET_REORDER_POINT, key, &v1::SetReorderPoint { sku: sku.to_owned(), reorder_point })
}

fn placed(key: &str, order_id: &str, lines: &[(&str, i64)]) -> Message {
    let line = |(sku, quantity): &(&str, i64)| orders::OrderLine {
        sku: (*sku).to_owned(),
        quantity: *quantity,
        ..orders::OrderLine::default()
    };
    let lines = lines.iter().map(line).collect();
    binary(ORDER_PLACED, key, &orders::OrderPlaced { order_id: order_id.to_owned(), lines, ..Default::default() })
}

fn cancelled(key: &str, order_id: &str) -> Message {
    binary(ORDER_CANCELLED, key, &orders::OrderCancelled { order_id: order_id.to_owned(), ..Default::default() })
}

fn to_stock(message: &Message) -> Result<stock_item::Command, Refused> {
    StockItemAdapter.decode(message)
}

fn to_reservation(message: &Message) -> Result<reservation::Command, Refused> {
    ReservationAdapter::new(HOLD).decode(message)
}

/// Each row's message is refused for this reason, naming this field.
fn assert_refused<C: std::fmt::Debug>(
    decode: impl Fn(&Message) -> Result<C, Refused>,
    rows: &[(Message, DeadLetterReason, Option<&str>)],
) {
    for (at, (message, reason, field)) in rows.iter().enumerate() {
        let refused = decode(message).expect_err(&format!("row {at} ({}) must be refused", message.r#type));
        assert_eq!((refused.reason, refused.field.as_deref()), (*reason, *field), "row {at}: {refused}");
        assert!(!refused.error.contains(CANARY), "row {at} quotes what it refuses: {refused}");
        assert!(field.is_none_or(|field| field == "key" || refused.error.contains(field)), "row {at}: {refused}");
    }
}

#[test]
fn every_bad_command_to_a_sku_is_refused_by_reason_and_field() {
    use DeadLetterReason::{Invalid, Undecodable, UnknownType};
    let long = format!("{CANARY}{}", "x".repeat(191));
    assert_eq!(long.len(), 201);
    let canary_json = format!(r#"{{"sku":"A","{CANARY}":1}}"#);
    let garbage = |r#type| message(r#type, "A", ContentType::Protobuf, CANARY.as_bytes().to_vec());
    let rows = [
        // Bodies that are none.
        (garbage(RECEIVE_STOCK), Undecodable, None),
        (garbage(ADJUST_STOCK), Undecodable, None),
        (garbage(SET_PRICE), Undecodable, None),
        (garbage(SET_REORDER_POINT), Undecodable, None),
        (json(RECEIVE_STOCK, "A", "{"), Undecodable, None),
        (json(RECEIVE_STOCK, "A", &format!(r#"{{"sku":"A","quantity":"{CANARY}"}}"#)), Undecodable, None),
        (json(RECEIVE_STOCK, "A", r#"{"sku":"A","quantity":"1.5"}"#), Undecodable, None),
        (json(SET_PRICE, "A", r#"{"sku":"A","price":{"minor":1.5,"currency":"EUR"}}"#), Undecodable, None),
        (json(ADJUST_STOCK, "A", &canary_json), Undecodable, None),
        (json(SET_PRICE, "A", "[]"), Undecodable, None),
        // Types that nobody here handles.
        (receive("A", "A", 1).of_type("holdfast.inventory.v1.Nonsense"), UnknownType, None),
        (receive("A", "A", 1).of_type("holdfast.inventory.v1.StockReceived"), UnknownType, None),
        (receive("A", "A", 1).of_type(""), UnknownType, None),
        // The key.
        (receive("B", CANARY, 1), Invalid, Some("key")),
        (adjust("B", CANARY, 1, "count"), Invalid, Some("key")),
        (price("B", CANARY, Some((1, "EUR"))), Invalid, Some("key")),
        (reorder("B", CANARY, 1), Invalid, Some("key")),
        (receive("a", "A", 1), Invalid, Some("key")),
        // The sku.
        (receive("", "", 1), Invalid, Some("sku")),
        (receive("canary-7f3 ", "canary-7f3 ", 1), Invalid, Some("sku")),
        (adjust("ä", "ä", 1, "count"), Invalid, Some("sku")),
        (price(&"x".repeat(65), &"x".repeat(65), Some((1, "EUR"))), Invalid, Some("sku")),
        (receive("a\0", "a\0", 1), Invalid, Some("sku")),
        (reorder("", "", 1), Invalid, Some("sku")),
        // The quantity.
        (receive("A", "A", 0), Invalid, Some("quantity")),
        (receive("A", "A", -1), Invalid, Some("quantity")),
        (receive("A", "A", i64::MIN), Invalid, Some("quantity")),
        (json(RECEIVE_STOCK, "A", r#"{"sku":"A"}"#), Invalid, Some("quantity")),
        (adjust("A", "A", 0, "count"), Invalid, Some("delta")),
        (adjust("A", "A", 1, ""), Invalid, Some("reason")),
        (adjust("A", "A", 1, &long), Invalid, Some("reason")),
        // The reorder point.
        (reorder("A", "A", -1), Invalid, Some("reorder_point")),
        (reorder("A", "A", i64::MIN), Invalid, Some("reorder_point")),
        // The price.
        (price("A", "A", None), Invalid, Some("price")),
        (price("A", "A", Some((1, ""))), Invalid, Some("price.currency")),
        (price("A", "A", Some((1, CANARY))), Invalid, Some("price.currency")),
        (price("A", "A", Some((1, "eur"))), Invalid, Some("price.currency")),
        (price("A", "A", Some((1, "ZZZ"))), Invalid, Some("price.currency")),
        (price("A", "A", Some((1, "XAU"))), Invalid, Some("price.currency")),
        (price("A", "A", Some((-1, "EUR"))), Invalid, Some("price.minor")),
        (price("A", "A", Some((i64::MIN, "EUR"))), Invalid, Some("price.minor")),
    ];
    assert_refused(to_stock, &rows);
}

#[test]
fn every_bad_event_of_an_order_is_refused_by_reason_and_field() {
    use DeadLetterReason::{Invalid, Undecodable, UnknownType};
    let garbage = |r#type| message(r#type, ORDER, ContentType::Protobuf, CANARY.as_bytes().to_vec());
    let upper = ORDER.to_uppercase();
    let rows = [
        (garbage(ORDER_PLACED), Undecodable, None),
        (garbage(ORDER_CANCELLED), Undecodable, None),
        (json(ORDER_PLACED, ORDER, &format!(r#"{{"orderId":"{CANARY}""#)), Undecodable, None),
        (placed(ORDER, ORDER, &[("A", 1)]).of_type("holdfast.orders.v1.OrderDelivered"), UnknownType, None),
        (garbage(ORDER_PAID), Undecodable, None),
        (garbage(ORDER_SHIPPED), Undecodable, None),
        (cancelled(OTHER, ORDER).of_type(ORDER_PAID), Invalid, Some("key")),
        (cancelled(CANARY, CANARY).of_type(ORDER_SHIPPED), Invalid, Some("order_id")),
        (placed(CANARY, CANARY, &[("A", 1)]), Invalid, Some("order_id")),
        (placed(&upper, &upper, &[("A", 1)]), Invalid, Some("order_id")),
        (cancelled("", ""), Invalid, Some("order_id")),
        (placed(OTHER, ORDER, &[("A", 1)]), Invalid, Some("key")),
        (cancelled(OTHER, ORDER), Invalid, Some("key")),
        (placed(ORDER, ORDER, &[]), Invalid, Some("lines")),
        (placed(ORDER, ORDER, &[("A", 1), ("canary-7f3 ", 1)]), Invalid, Some("lines.sku")),
        (placed(ORDER, ORDER, &[("A", 1), ("B", 0)]), Invalid, Some("lines.quantity")),
        (placed(ORDER, ORDER, &[("A", -5)]), Invalid, Some("lines.quantity")),
    ];
    assert_refused(to_reservation, &rows);
}

#[test]
fn the_widest_good_values_are_taken() {
    let sku = "x".repeat(64);
    let reason = "r".repeat(200);
    assert_eq!(to_stock(&receive(&sku, &sku, i64::MAX)), Ok(stock_item::Command::ReceiveStock { quantity: i64::MAX }));
    let adjusted = stock_item::Command::AdjustStock { delta: i64::MIN, reason: reason.as_str().into() };
    assert_eq!(to_stock(&adjust(&sku, &sku, i64::MIN, &reason)), Ok(adjusted));
    let free = Money::new(0, Currency::from_code("JPY").unwrap());
    assert_eq!(to_stock(&price("A", "A", Some((0, "JPY")))), Ok(stock_item::Command::SetPrice { price: free }));
    for reorder_point in [0, i64::MAX] {
        let meant = stock_item::Command::SetReorderPoint { reorder_point };
        assert_eq!(to_stock(&reorder(&sku, &sku, reorder_point)), Ok(meant));
    }
}

#[test]
fn json_means_what_its_binary_twin_means() {
    let pairs = [
        (json(RECEIVE_STOCK, "A", r#"{"sku":"A","quantity":"7"}"#), receive("A", "A", 7)),
        (json(RECEIVE_STOCK, "A", r#"{"sku":"A","quantity":7}"#), receive("A", "A", 7)),
        (json(ADJUST_STOCK, "A", r#"{"sku":"A","delta":"-2","reason":"broken"}"#), adjust("A", "A", -2, "broken")),
        (
            json(SET_PRICE, "A", r#"{"sku":"A","price":{"minor":"1999","currency":"EUR"}}"#),
            price("A", "A", Some((1999, "EUR"))),
        ),
        (json(SET_REORDER_POINT, "A", r#"{"sku":"A","reorderPoint":"40"}"#), reorder("A", "A", 40)),
        (json(SET_REORDER_POINT, "A", r#"{"sku":"A"}"#), reorder("A", "A", 0)),
    ];
    for (text, bytes) in pairs {
        let meant = to_stock(&text);
        assert!(meant.is_ok(), "{meant:?}");
        assert_eq!(meant, to_stock(&bytes));
    }
}

#[test]
fn placed_order_decodes_to_its_lines_despite_unknown_fields() {
    let line = |sku: &str, quantity| Line { sku: Sku::new(sku).unwrap(), quantity };
    let meant = reservation::Command::OrderPlaced { lines: vec![line("B", 2), line("A", 1)], hold_for: HOLD };
    let mut message = placed(ORDER, ORDER, &[("B", 2), ("A", 1)]);
    assert_eq!(to_reservation(&message), Ok(meant.clone()));
    // A field of a later build: number 100, a varint.
    message.payload = [&message.payload[..], &[0xa0, 0x06, 0x01]].concat().into();
    assert_eq!(to_reservation(&message), Ok(meant));
    assert_eq!(to_reservation(&cancelled(ORDER, ORDER)), Ok(reservation::Command::OrderCancelled));
    let of = |r#type| to_reservation(&cancelled(ORDER, ORDER).of_type(r#type));
    assert_eq!(of(ORDER_PAID), Ok(reservation::Command::OrderPaid));
    assert_eq!(of(ORDER_SHIPPED), Ok(reservation::Command::OrderShipped));
}

#[test]
fn each_type_is_taken_from_its_own_origins_alone() {
    let (anyone, timer) = (&[Arrival::Commands, Arrival::Call][..], |name| [Arrival::Timer(name)]);
    let orders = &[Arrival::Events { topic: "orders.events", source: "holdfast/orders/order" }][..];
    let handled = [StockItemAdapter.handles(), ReservationAdapter::new(HOLD).handles()].concat();
    assert_origins(
        &handled,
        &[
            ("holdfast.inventory.v1.ReceiveStock", anyone),
            ("holdfast.inventory.v1.AdjustStock", anyone),
            ("holdfast.inventory.v1.SetPrice", anyone),
            ("holdfast.inventory.v1.SetReorderPoint", anyone),
            (ORDER_PLACED, orders),
            (ORDER_PAID, orders),
            (ORDER_SHIPPED, orders),
            (ORDER_CANCELLED, orders),
            (stock_item::REORDER_TIMER, &timer(stock_item::REORDER_TIMER)),
            (reservation::EXPIRY_TIMER, &timer(reservation::EXPIRY_TIMER)),
        ],
    );
}

#[test]
fn each_handled_type_is_the_full_name_of_its_message() {
    use prost::Name as _;
    let names = [
        v1::ReceiveStock::full_name(),
        v1::AdjustStock::full_name(),
        v1::SetPrice::full_name(),
        v1::SetReorderPoint::full_name(),
        orders::OrderPlaced::full_name(),
        orders::OrderPaid::full_name(),
        orders::OrderShipped::full_name(),
        orders::OrderCancelled::full_name(),
    ];
    let handled = [StockItemAdapter.handles(), ReservationAdapter::new(HOLD).handles()].concat();
    assert!(names.iter().all(|name| handled.iter().any(|handled| handled.r#type == name)));
}

#[test]
fn adapters_accept_only_well_formed_keys_of_their_kind() {
    let (item, reservation) = (StockItemAdapter, ReservationAdapter::new(HOLD));
    assert_eq!((item.check_key("A.b_c-1"), reservation.check_key(ORDER)), (Ok(()), Ok(())));
    for key in ["", "\0x", "a b", &"x".repeat(65)] {
        assert!(item.check_key(key).is_err() && reservation.check_key(key).is_err(), "{key:?}");
    }
    assert!(reservation.check_key("A").is_err());
}

trait OfType {
    fn of_type(self, r#type: &str) -> Self;
}

impl OfType for Message {
    fn of_type(self, r#type: &str) -> Self {
        Self { r#type: r#type.into(), ..self }
    }
}
