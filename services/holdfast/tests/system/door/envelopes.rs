//! Envelopes of records: keys, each header, ids, times, sources, types, and headers that only dead letters
//! have.
//!
//! Deliberately absent: what `bad_records.rs` has: headers that are missing, another specversion, an unknown
//! type, a key that is not the subject.

use std::sync::Arc;

use holdfast_load_tests::by_hand::Raw;
use holdfast_proto::orders::v1::CreateOrder;
use uuid::Uuid;

use super::{
    attack::{Attack, INVALID, MALFORMED, Outcome, Row, TOO_LARGE, UNDECODABLE, UNKNOWN_TYPE, dead, tables},
    stand::{CUSTOMER, id},
};
use crate::shop::record;

const REQUIRED: [&str; 6] = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type"];
/// Headers that are read but not required.
const OPTIONAL: [&str; 6] =
    ["ce_subject", "ce_sequence", "ce_correlationid", "ce_causationid", "traceparent", "tracestate"];

pub fn attacks() -> Vec<Attack> {
    tables![
        required_header_that_is_empty_is_undecodable,
        required_header_without_a_value_is_undecodable,
        optional_header_without_a_value_is_absent,
        header_that_is_no_utf8_is_undecodable,
        header_that_holds_nul_is_refused,
        header_over_a_kib_is_too_large,
        headers_over_64_kib_in_all_are_too_large,
        headers_at_their_limits_are_taken,
        header_that_comes_twice_counts_as_its_last,
        ten_thousand_headers_are_too_large,
        key_that_is_empty_is_invalid,
        key_that_holds_nul_is_invalid,
        key_that_is_no_utf8_is_invalid,
        key_of_64_kib_is_refused,
        key_that_looks_like_a_uuid_is_invalid,
        message_id_at_an_extreme_is_taken_once,
        message_id_of_another_age_is_taken_once,
        message_id_in_another_form_is_refused_or_the_same,
        time_of_another_age_is_taken,
        time_that_is_none_is_refused,
        type_of_another_context_is_unknown,
        type_that_is_hostile_is_unknown,
        source_that_only_the_runtime_gives_is_refused,
        sequence_that_is_no_version_is_invalid,
        content_type_in_another_spelling_is_taken,
        content_type_of_something_else_is_undecodable,
        mark_of_growth_in_commands_is_refused,
        record_that_claims_to_be_a_dead_letter_is_one_of_ours,
        record_time_of_another_age_is_harmless,
        record_without_anything_is_undecodable,
    ]
}

/// A good record that opens an order.
pub fn good() -> Raw {
    let id = id();
    record(&id, &opening(&id))
}

pub fn opening(order_id: &str) -> CreateOrder {
    CreateOrder { order_id: order_id.to_owned(), customer_id: CUSTOMER.to_owned(), currency: "EUR".to_owned() }
}

/// The same with a header replaced by bytes.
pub fn bytes(raw: Raw, name: &str, value: Option<&[u8]>) -> Raw {
    let mut raw = raw.with(name, None);
    raw.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
    raw
}

/// The same with one more header at its end.
fn and(mut raw: Raw, name: &str, value: &str) -> Raw {
    raw.headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
    raw
}

/// The same with one more header at its beginning.
fn after(mut raw: Raw, name: &str, value: &str) -> Raw {
    raw.headers.insert(0, (name.to_owned(), Some(value.as_bytes().to_vec())));
    raw
}

fn each(names: &[&str], what: &str, outcome: Outcome, make: impl Fn(&str) -> Raw) -> Vec<Row> {
    names.iter().map(|name| Row::new(format!("{name} {what}"), make(name), outcome)).collect()
}

fn required_header_that_is_empty_is_undecodable() -> Vec<Row> {
    each(&REQUIRED, "empty", UNDECODABLE, |name| good().with(name, Some("")))
}

fn required_header_without_a_value_is_undecodable() -> Vec<Row> {
    each(&REQUIRED, "null", UNDECODABLE, |name| bytes(good(), name, None))
}

fn optional_header_without_a_value_is_absent() -> Vec<Row> {
    each(&OPTIONAL, "null", Outcome::Caused(1), |name| bytes(good(), name, None))
}

fn header_that_is_no_utf8_is_undecodable() -> Vec<Row> {
    let all = [&REQUIRED[..], &OPTIONAL].concat();
    each(&all, "of invalid UTF-8", UNDECODABLE, |name| bytes(good(), name, Some(b"\xff\xc0\x80\xed\xa0\x80")))
}

fn header_that_holds_nul_is_refused() -> Vec<Row> {
    let known = |name: &str| {
        let good = good();
        let was = good.header(name).to_owned();
        good.with(name, Some(&format!("{was}\0x")))
    };
    // A type with a NUL is also one that nobody knows.
    let outcome = dead(&["UNDECODABLE", "INVALID", "UNKNOWN_TYPE"]);
    let mut rows = each(
        &["ce_id", "ce_source", "ce_time", "content-type", "ce_subject", "ce_sequence"],
        "with NUL",
        MALFORMED,
        known,
    );
    rows.extend(each(&["ce_type"], "with NUL", outcome, known));
    rows.extend(each(
        &["ce_correlationid", "ce_causationid", "traceparent", "tracestate"],
        "with NUL",
        MALFORMED,
        known,
    ));
    // A header that is not read may hold any bytes.
    rows.push(Row::new("a foreign header with NUL", and(good(), "x-foreign", "\0\0"), Outcome::Caused(1)));
    rows
}

fn header_over_a_kib_is_too_large() -> Vec<Row> {
    let all = [&REQUIRED[..], &OPTIONAL].concat();
    each(&all, "of 1,025 bytes", TOO_LARGE, |name| good().with(name, Some(&"1".repeat(1025))))
}

fn headers_over_64_kib_in_all_are_too_large() -> Vec<Row> {
    let many = (0..70).fold(good(), |raw, n| and(raw, &format!("x-{n}"), &"x".repeat(1000)));
    vec![
        Row::new("one foreign header of 65 KiB", and(good(), "x-foreign", &"x".repeat(65 * 1024)), TOO_LARGE),
        Row::new("70 foreign headers of 1,000 bytes", many, TOO_LARGE),
        Row::new("a header's name of 65 KiB", and(good(), &"x".repeat(65 * 1024), ""), TOO_LARGE),
    ]
}

fn headers_at_their_limits_are_taken() -> Vec<Row> {
    let taken = Outcome::Caused(1);
    vec![
        Row::new("a source of 1 KiB", good().with("ce_source", Some(&"s".repeat(1024))), taken),
        Row::new("foreign headers of 60 KiB", and(good(), "x-foreign", &"x".repeat(60 * 1024)), taken),
    ]
}

/// The last value counts, as in Kafka's `lastHeader`.
fn header_that_comes_twice_counts_as_its_last() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, bad, outcome) in [
        ("ce_specversion", "0.3", UNDECODABLE),
        ("ce_id", "seven", MALFORMED),
        ("ce_source", "holdfast/payments/payment", UNKNOWN_TYPE),
        ("ce_type", "holdfast.orders.v1.EatOrder", UNKNOWN_TYPE),
        ("ce_subject", "another", INVALID),
        ("content-type", "text/plain", UNDECODABLE),
    ] {
        rows.push(Row::new(format!("{name} good, then bad"), and(good(), name, bad), outcome));
        rows.push(Row::new(format!("{name} bad, then good"), after(good(), name, bad), Outcome::Caused(1)));
    }
    rows
}

fn ten_thousand_headers_are_too_large() -> Vec<Row> {
    let many = (0..10_000).fold(good(), |raw, n| and(raw, &format!("x-{n}"), "12345678"));
    let same = (0..10_000).fold(good(), |raw, _| and(raw, "ce_source", "tests/system"));
    vec![Row::new("10,000 foreign headers", many, TOO_LARGE), Row::new("10,000 times the same header", same, TOO_LARGE)]
}

fn keyed(key: &[u8]) -> Raw {
    let text = String::from_utf8_lossy(key).into_owned();
    let raw = record(&text, &opening(&text));
    Raw { key: Some(key.to_vec()), ..bytes(raw, "ce_subject", Some(key)) }
}

fn key_that_is_empty_is_invalid() -> Vec<Row> {
    vec![
        Row::new("empty key and subject", keyed(b""), INVALID),
        Row::new("empty key", Raw { key: Some(Vec::new()), ..good() }, INVALID),
    ]
}

fn key_that_holds_nul_is_invalid() -> Vec<Row> {
    let id = id();
    // The subject holds the NUL as well, so either may be blamed.
    vec![
        Row::new("NUL alone", keyed(b"\0"), MALFORMED),
        Row::new("NUL and a letter", keyed(b"\0x"), MALFORMED),
        Row::new("NUL after an id", keyed(format!("{id}\0").as_bytes()), MALFORMED),
        Row::new("NUL without a subject", keyed(b"\0x").with("ce_subject", None), INVALID),
    ]
}

fn key_that_is_no_utf8_is_invalid() -> Vec<Row> {
    vec![
        Row::new("without a subject", keyed(b"\xff\xfe").with("ce_subject", None), INVALID),
        Row::new("a lone surrogate", keyed(b"\xed\xa0\x80").with("ce_subject", None), INVALID),
        Row::new("with a good subject", Raw { key: Some(b"\xff".to_vec()), ..good() }, INVALID),
    ]
}

fn key_of_64_kib_is_refused() -> Vec<Row> {
    let key = "k".repeat(64 * 1024);
    let outcome = dead(&["INVALID", "TOO_LARGE"]);
    vec![
        Row::new("64 KiB", keyed(key.as_bytes()).with("ce_subject", None), outcome),
        Row::new("1 MiB", keyed(key.repeat(16).as_bytes()).with("ce_subject", None), outcome),
    ]
}

fn key_that_looks_like_a_uuid_is_invalid() -> Vec<Row> {
    let id = id();
    let forms = [
        format!("{{{id}}}"),
        format!("urn:uuid:{id}"),
        id.replace('-', ""),
        format!(" {id}"),
        format!("{id}\n"),
        // A full-width digit is a digit of Unicode.
        id.replacen('0', "\u{ff10}", 1),
    ];
    forms.iter().map(|form| Row::new(form.clone(), keyed(form.as_bytes()), INVALID)).collect()
}

fn message_id_at_an_extreme_is_taken_once() -> Vec<Row> {
    let twice = |what: &str, message_id: Uuid| {
        let raw = good().with("ce_id", Some(&message_id.to_string()));
        [Row::new(what, raw.clone(), Outcome::Caused(1)), Row::new(format!("{what}, again"), raw, Outcome::Caused(1))]
    };
    [twice("nil", Uuid::nil()), twice("max", Uuid::max())].into_iter().flatten().collect()
}

/// A UUID of version 7 holds a time, which its producer chooses.
fn message_id_of_another_age_is_taken_once() -> Vec<Row> {
    let at = |ms: u64| {
        let random = u128::from(Uuid::now_v7().as_u64_pair().1);
        Uuid::from_u128(u128::from(ms) << 80 | 7 << 76 | random)
    };
    let ages = [("1970", 0), ("2300", 10_413_792_000_000), ("10889", (1 << 48) - 1)];
    let twice = |(what, ms)| {
        let raw = good().with("ce_id", Some(&at(ms).to_string()));
        [Row::new(what, raw.clone(), Outcome::Caused(1)), Row::new(format!("{what}, again"), raw, Outcome::Caused(1))]
    };
    ages.into_iter().flat_map(twice).collect()
}

fn message_id_in_another_form_is_refused_or_the_same() -> Vec<Row> {
    let upper = id().to_uppercase();
    vec![
        Row::new("upper case", good().with("ce_id", Some(&upper)), Outcome::Caused(1)),
        Row::new("one digit short", good().with("ce_id", Some(&upper[1..])), MALFORMED),
        Row::new("negative", good().with("ce_id", Some("-1")), MALFORMED),
        Row::new("an essay", good().with("ce_id", Some(&"0".repeat(1000))), MALFORMED),
    ]
}

fn time_of_another_age_is_taken() -> Vec<Row> {
    let at = |time: &str| Row::new(time, good().with("ce_time", Some(time)), Outcome::Caused(1));
    vec![
        at("1970-01-01T00:00:00Z"),
        at("1969-12-31T23:59:59.999Z"),
        at("2300-01-01T00:00:00Z"),
        at("9999-12-31T23:59:59Z"),
    ]
}

fn time_that_is_none_is_refused() -> Vec<Row> {
    let at = |time: &str| Row::new(time, good().with("ce_time", Some(time)), MALFORMED);
    vec![at("yesterday"), at("2026-13-45T99:99:99Z"), at("+292277026596-12-04T15:30:07Z"), at("1764370000")]
}

fn type_of_another_context_is_unknown() -> Vec<Row> {
    let of = |name: &str| Row::new(name, good().with("ce_type", Some(name)), UNKNOWN_TYPE);
    vec![
        of("holdfast.inventory.v1.ReceiveStock"),
        of("holdfast.payments.v1.RefundPayment"),
        of("holdfast.orders.v1.OrderCreated"),
        of("holdfast.orders.v1.Order"),
        of("google.protobuf.Any"),
    ]
}

fn type_that_is_hostile_is_unknown() -> Vec<Row> {
    let of = |what: &str, name: &str, outcome| Row::new(what, good().with("ce_type", Some(name)), outcome);
    vec![
        of("of 1,000 letters", &"a".repeat(1000), UNKNOWN_TYPE),
        of("of a MiB", &"a".repeat(1024 * 1024), TOO_LARGE),
        of("in another case", "HOLDFAST.orders.v1.createorder", UNKNOWN_TYPE),
        of("with a space", "holdfast.orders.v1.CreateOrder ", UNKNOWN_TYPE),
        of("with a URL before it", "type.googleapis.com/holdfast.orders.v1.CreateOrder", UNKNOWN_TYPE),
        of("statements", "'; drop table aggregates; --", UNKNOWN_TYPE),
    ]
}

fn source_that_only_the_runtime_gives_is_refused() -> Vec<Row> {
    let of = |source: &str| Row::new(source, good().with("ce_source", Some(source)), UNKNOWN_TYPE);
    vec![
        of("grpc"),
        of("stripe/webhook"),
        of("holdfast/orders"),
        of("holdfast/orders/order"),
        of("holdfast/payments/payment"),
        of("holdfast/"),
    ]
}

/// A command may carry a sequence of its producer's.
fn sequence_that_is_no_version_is_invalid() -> Vec<Row> {
    let of = |sequence: &str| Row::new(sequence, good().with("ce_sequence", Some(sequence)), INVALID);
    vec![of("0"), of("-1"), of("1.5"), of("1e3"), of("18446744073709551616"), of("0x10"), of("\u{0661}")]
}

fn content_type_in_another_spelling_is_taken() -> Vec<Row> {
    let id = id();
    let json = serde_json::json!({ "orderId": id, "customerId": CUSTOMER, "currency": "EUR" });
    let of = |name: &str| Row::new(name, good().with("content-type", Some(name)), Outcome::Caused(1));
    let json = Raw { value: Some(json.to_string().into_bytes()), ..record(&id, &opening(&id)) };
    let name = "application/json; charset=utf-8";
    vec![
        of("APPLICATION/Protobuf"),
        of("application/protobuf; messageType=x"),
        Row::new(name, json.with("content-type", Some(name)), Outcome::Caused(1)),
    ]
}

fn content_type_of_something_else_is_undecodable() -> Vec<Row> {
    let of = |name: &str| Row::new(name, good().with("content-type", Some(name)), UNDECODABLE);
    vec![of("application/cloudevents+json"), of("application/avro"), of("application"), of(";"), of("*/*")]
}

/// Marks belong in events topics; in a commands topic their type is not declared.
fn mark_of_growth_in_commands_is_refused() -> Vec<Row> {
    let name = "holdfast.runtime.v1.PartitionsGrown";
    let mark = |count: &[u8]| Raw { value: Some(count.to_vec()), ..good().with("ce_type", Some(name)) };
    let huge = b"\x08\xff\xff\xff\xff\x0f";
    // The missing key may be blamed as well.
    let keyless = dead(&["UNKNOWN_TYPE", "INVALID"]);
    let without = |raw: Raw| Raw { key: None, ..raw }.with("ce_source", Some("holdfast/orders"));
    vec![
        Row::new("with a key", mark(huge), UNKNOWN_TYPE),
        Row::new("without a key", without(mark(huge)), keyless),
        Row::new("of no partitions", without(mark(b"\x08\x00")), keyless),
    ]
}

fn record_that_claims_to_be_a_dead_letter_is_one_of_ours() -> Vec<Row> {
    let claims = [
        ("dlt-original-topic", "payments.events"),
        ("dlt-original-partition", "-1"),
        ("dlt-original-offset", "18446744073709551615"),
        ("dlt-reason", "POISON"),
        ("dlt-id", "00000000-0000-0000-0000-000000000000"),
        ("dlt-cut", "1"),
    ];
    let claimed = |raw: Raw| claims.iter().fold(raw, |raw, (name, value)| and(raw, name, value));
    vec![
        Row::new("a bad one", claimed(Raw { value: Some(vec![0xff; 9]), ..good() }), UNDECODABLE),
        Row::new("a good one", claimed(good()), Outcome::Caused(1)),
    ]
}

fn record_time_of_another_age_is_harmless() -> Vec<Row> {
    let at = |what: &str, time_ms| Row { time_ms: Some(time_ms), ..Row::new(what, good(), Outcome::Caused(1)) };
    vec![at("1970", 1), at("before 1970", -86_400_000), at("an hour ahead", hour_ahead())]
}

/// Brokers refuse a record time further ahead than an hour.
fn hour_ahead() -> i64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX) + 3_500_000
}

fn record_without_anything_is_undecodable() -> Vec<Row> {
    let id: Arc<[u8]> = id().into_bytes().into();
    vec![
        Row::new("nothing at all", Raw::default(), UNDECODABLE),
        Row::new("a key alone", Raw { key: Some(id.to_vec()), ..Raw::default() }, UNDECODABLE),
        Row::new("a value alone", Raw { value: Some(id.to_vec()), ..Raw::default() }, UNDECODABLE),
        Row::new("empty key and value", Raw { key: Some(vec![]), value: Some(vec![]), headers: vec![] }, UNDECODABLE),
    ]
}
