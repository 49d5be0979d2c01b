//! Bodies of records of orders' commands: protobuf and JSON, broken, deep, at their limits, and with the
//! extremes of each field.
//!
//! Deliberately absent: what `bad_records.rs` has: garbage, protobuf that is said to be JSON, quantity 0 and
//! below, and currencies.

use holdfast_load_tests::by_hand::Raw;
use holdfast_proto::orders::v1::{AddItem, CancelOrder, CreateOrder, PlaceOrder, RemoveItem};
use prost::{
    Message, Name,
    encoding::{WireType, encode_key, encode_varint},
};
use serde_json::json;

use super::{
    attack::{Attack, INVALID, Outcome, Row, TOO_LARGE, UNDECODABLE, tables},
    envelopes::{good, opening},
    stand::{CUSTOMER, id},
};
use crate::shop::record;

/// Largest body, in bytes.
const MIB: usize = 1024 * 1024;

pub fn attacks() -> Vec<Attack> {
    tables![
        body_that_is_broken_off_is_undecodable,
        body_that_nests_without_end_is_undecodable,
        body_at_a_mib_is_taken_and_over_it_too_large,
        body_that_is_empty_is_invalid,
        json_with_lone_surrogates_is_undecodable,
        json_that_is_none_is_undecodable,
        json_with_a_field_twice_is_undecodable,
        json_with_a_number_out_of_range_is_undecodable,
        json_that_nests_without_end_is_undecodable,
        nul_in_a_text_of_protobuf_is_invalid,
        nul_in_a_text_of_json_is_invalid,
        text_over_its_limit_is_invalid,
        sku_that_is_none_is_invalid,
        quantity_at_an_extreme_has_its_answer,
        message_id_reused_with_another_body_is_invalid,
    ]
}

fn with(raw: Raw, value: Vec<u8>) -> Raw {
    Raw { value: Some(value), ..raw }
}

/// A JSON body, sent to an order.
fn spelled<M: Message + Name + Default>(order_id: &str, text: &str) -> Raw {
    let raw = record(order_id, &M::default()).with("content-type", Some("application/json"));
    with(raw, text.as_bytes().to_vec())
}

/// The row after one that opens its order, so that only the body can be at fault.
fn with_its_order(order_id: &str, row: Row) -> [Row; 2] {
    [Row::new("its order", record(order_id, &opening(order_id)), Outcome::Caused(1)), row]
}

fn body_that_is_broken_off_is_undecodable() -> Vec<Row> {
    let whole = good();
    let value = whole.value.clone().unwrap_or_default();
    let cut = |at: usize| Row::new(format!("after {at} bytes"), with(whole.clone(), value[..at].to_vec()), UNDECODABLE);
    vec![
        cut(1),
        cut(20),
        cut(value.len() - 1),
        Row::new("a length past the end", with(good(), b"\x0a\xff\xff\xff\xff\x0f".to_vec()), UNDECODABLE),
        Row::new("a varint without end", with(good(), vec![0x80; 64]), UNDECODABLE),
        Row::new("field number 0", with(good(), b"\x00\x01".to_vec()), UNDECODABLE),
        Row::new("a text that is no UTF-8", with(good(), b"\x0a\x02\xff\xfe".to_vec()), UNDECODABLE),
        Row::new("a number where a text is", with(good(), b"\x08\x01".to_vec()), UNDECODABLE),
    ]
}

fn body_that_nests_without_end_is_undecodable() -> Vec<Row> {
    let groups = |open: usize, close: usize| [vec![0x7b; open], vec![0x7c; close]].concat();
    vec![
        Row::new("100,000 groups", with(good(), groups(100_000, 100_000)), UNDECODABLE),
        Row::new("500,000 groups that never end", with(good(), groups(500_000, 0)), UNDECODABLE),
    ]
}

/// A good body of this size; a field that the message does not declare fills it.
fn padded(bytes: usize) -> Raw {
    let raw = good();
    let mut value = raw.value.clone().unwrap_or_default();
    // A tag of two bytes (field 100, length-delimited) and a length of three.
    let padding = bytes - value.len() - 5;
    encode_key(100, WireType::LengthDelimited, &mut value);
    encode_varint(padding as u64, &mut value);
    value.resize(bytes, b'x');
    with(raw, value)
}

fn body_at_a_mib_is_taken_and_over_it_too_large() -> Vec<Row> {
    vec![
        Row::new("a MiB less one byte", padded(MIB - 1), Outcome::Caused(1)),
        Row::new("a MiB", padded(MIB), Outcome::Caused(1)),
        Row::new("a MiB and one byte", padded(MIB + 1), TOO_LARGE),
        Row::new("close to two MiB", padded(7 * MIB / 4), TOO_LARGE),
    ]
}

fn body_that_is_empty_is_invalid() -> Vec<Row> {
    vec![
        Row::new("protobuf", with(good(), Vec::new()), INVALID),
        Row::new("JSON of nothing", spelled::<CreateOrder>(&id(), "{}"), INVALID),
        Row::new("no JSON", spelled::<CreateOrder>(&id(), ""), UNDECODABLE),
    ]
}

fn reason(order_id: &str, spelling: &str) -> Raw {
    spelled::<CancelOrder>(order_id, &format!(r#"{{"orderId":"{order_id}","reason":{spelling}}}"#))
}

fn json_with_lone_surrogates_is_undecodable() -> Vec<Row> {
    let of = |what: &str, spelling: &str| Row::new(what, reason(&id(), spelling), UNDECODABLE);
    let mut rows = vec![
        of("a high one", r#""\ud800""#),
        of("a low one", r#""\udc00""#),
        of("two high ones", r#""\ud800\ud800""#),
        of("in the wrong order", r#""\udc00\ud800""#),
        of("broken off", r#""\ud8""#),
    ];
    let bytes = [br#"{"reason":""#.as_slice(), b"\xed\xa0\x80", br#""}"#].concat();
    rows.push(Row::new("as bytes", with(reason(&id(), "0"), bytes), UNDECODABLE));
    rows
}

fn json_that_is_none_is_undecodable() -> Vec<Row> {
    let of = |what: &str, text: &str| Row::new(what, spelled::<CreateOrder>(&id(), text), UNDECODABLE);
    vec![
        of("null", "null"),
        of("a text", r#""CreateOrder""#),
        of("an array", "[]"),
        of("NaN", r#"{"currency":NaN}"#),
        of("a byte order mark", "\u{feff}{}"),
        of("two objects", "{}{}"),
        of("a comment", "{/* */}"),
        of("a control character", "{\"currency\":\"\u{1}\"}"),
        of("an undeclared field", r#"{"price":1}"#),
        of("an object for a text", r#"{"currency":{"$ne":null}}"#),
    ]
}

fn json_with_a_field_twice_is_undecodable() -> Vec<Row> {
    let id = id();
    let good = json!({ "orderId": id, "customerId": CUSTOMER, "currency": "EUR" }).to_string();
    let twice = |more: &str| good.replacen('{', &format!("{{{more},"), 1);
    vec![
        Row::new("the same name", spelled::<CreateOrder>(&id, &twice(r#""currency":"USD""#)), UNDECODABLE),
        Row::new("its other name", spelled::<CreateOrder>(&id, &twice(r#""order_id":"x""#)), UNDECODABLE),
    ]
}

fn json_with_a_number_out_of_range_is_undecodable() -> Vec<Row> {
    let of = |number: &str| {
        let id = id();
        let text = format!(r#"{{"orderId":"{id}","sku":"lamp","quantity":{number}}}"#);
        Row::new(number.chars().take(30).collect::<String>(), spelled::<AddItem>(&id, &text), UNDECODABLE)
    };
    let digits = "9".repeat(100_000);
    vec![
        of("9223372036854775808"),
        of(r#""9223372036854775808""#),
        of("-9223372036854775809"),
        of("1e400"),
        of("1.5"),
        of("Infinity"),
        of(r#""NaN""#),
        of("0x10"),
        of(&digits),
    ]
}

fn json_that_nests_without_end_is_undecodable() -> Vec<Row> {
    let of = |what: &str, text: String| Row::new(what, spelled::<CreateOrder>(&id(), &text), UNDECODABLE);
    vec![
        of("arrays", "[".repeat(500_000)),
        of("arrays in an undeclared field", format!(r#"{{"x":{}"#, "[".repeat(500_000))),
        of("objects", r#"{"currency":"#.repeat(50_000)),
    ]
}

fn nul_in_a_text_of_protobuf_is_invalid() -> Vec<Row> {
    let cancel = |order_id: String| record(&order_id, &CancelOrder { order_id: order_id.clone(), reason: "\0".into() });
    let place = |order_id: String, payment_method: &str, address_id: &str| {
        let (payment_method, address_id) = (payment_method.to_owned(), address_id.to_owned());
        record(&order_id, &PlaceOrder { order_id: order_id.clone(), payment_method, address_id })
    };
    let add =
        |order_id: String| record(&order_id, &AddItem { order_id: order_id.clone(), sku: "a\0".into(), quantity: 1 });
    let (first, second) = (id(), id());
    let mut rows = Vec::from(with_its_order(&first, Row::new("CancelOrder.reason", cancel(first.clone()), INVALID)));
    let item = AddItem { order_id: second.clone(), sku: "lamp".to_owned(), quantity: 1 };
    rows.extend(with_its_order(&second, Row::new("its item", record(&second, &item), Outcome::Caused(1))));
    rows.push(Row::new("PlaceOrder.payment_method", place(second.clone(), "pm_\0", ""), INVALID));
    rows.push(Row::new("PlaceOrder.address_id", place(second.clone(), "", "\0"), INVALID));
    rows.push(Row::new("AddItem.sku", add(second), INVALID));
    rows
}

fn nul_in_a_text_of_json_is_invalid() -> Vec<Row> {
    let first = id();
    let mut rows = Vec::from(with_its_order(&first, Row::new("escaped", reason(&first, r#""\u0000""#), INVALID)));
    // JSON has no NUL that is not escaped.
    rows.push(Row::new("as it is", reason(&first, "\"\0\""), UNDECODABLE));
    rows
}

fn text_over_its_limit_is_invalid() -> Vec<Row> {
    let order_id = id();
    let cancel = CancelOrder { order_id: order_id.clone(), reason: "x".repeat(201) };
    let place = |payment_method: String, address_id: String| {
        record(&order_id, &PlaceOrder { order_id: order_id.clone(), payment_method, address_id })
    };
    vec![
        Row::new("a reason of 201 bytes", record(&order_id, &cancel), INVALID),
        Row::new("a method of 256 bytes", place("p".repeat(256), String::new()), INVALID),
        Row::new("an address of a million bytes", place(String::new(), "a".repeat(1_000_000)), INVALID),
    ]
}

fn sku_that_is_none_is_invalid() -> Vec<Row> {
    let skus = ["", " ", "a b", "a/b", "a\n", "\u{202e}pmal", "%00", "'; drop table prices; --"];
    let long = "a".repeat(65);
    let of = |sku: &str| {
        let order_id = id();
        let add = AddItem { order_id: order_id.clone(), sku: sku.to_owned(), quantity: 1 };
        let remove = RemoveItem { order_id: order_id.clone(), sku: sku.to_owned() };
        [
            Row::new(format!("AddItem {sku:?}"), record(&order_id, &add), INVALID),
            Row::new(format!("RemoveItem {sku:?}"), record(&order_id, &remove), INVALID),
        ]
    };
    skus.into_iter().chain([long.as_str()]).flat_map(of).collect()
}

fn quantity_at_an_extreme_has_its_answer() -> Vec<Row> {
    let add = |order_id: &str, quantity| {
        record(order_id, &AddItem { order_id: order_id.to_owned(), sku: "lamp".to_owned(), quantity })
    };
    let order_id = id();
    // The total overflows: a rejection, which is no dead letter.
    let most = Row::new("the most there is", add(&order_id, i64::MAX), Outcome::Caused(0));
    let mut rows = Vec::from(with_its_order(&order_id, most));
    rows.push(Row::new("the least there is", add(&order_id, i64::MIN), INVALID));
    rows
}

fn message_id_reused_with_another_body_is_invalid() -> Vec<Row> {
    let order_id = id();
    let first = record(&order_id, &opening(&order_id));
    let message_id = first.header("ce_id").to_owned();
    let other = record(&order_id, &CancelOrder { order_id: order_id.clone(), reason: "x".into() });
    let other = other.with("ce_id", Some(&message_id));
    // The source is a part of what is claimed.
    let stranger = other.clone().with("ce_source", Some("tests/stranger"));
    let cancelled = Outcome::Caused(2);
    vec![
        Row::new("the first", first.clone(), cancelled),
        Row::new("another type", other, INVALID),
        Row::new("of another source", stranger, cancelled),
        Row::new("the first again", first, cancelled),
    ]
}
