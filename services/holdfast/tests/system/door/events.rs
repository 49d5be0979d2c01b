//! Records in an events topic that another context reads, under the right source: what a defective context,
//! or a thief of its credentials, could send.
//!
//! Invariant: a record that must be passed over is followed, in its partition, by one that is a dead letter,
//! so that it was read when its outcome is checked. Deliberately absent: events under a wrong source
//! (`forgeries.rs`).

use holdfast_load_tests::by_hand::Raw;
use holdfast_proto::{
    Timestamp,
    fulfillment::v1::ShipmentDispatched,
    inventory::v1::{ReservationLine, StockReserved},
    money::v1::Money,
    orders::v1::{OrderCancelled, OrderLine, OrderPlaced, OrderReserved},
    payments::v1::{ExchangeRate, PaymentCaptured},
};

use super::{
    attack::{Acted, Attack, INVALID, Outcome, Row, UNDECODABLE, acts, records},
    envelopes::opening,
    forgeries::{captured, unpaid},
    stand::{PATIENCE, Stand, id},
};
use crate::shop::record;

const RESERVATION: &str = "holdfast/inventory/reservation";
const PAYMENT: &str = "holdfast/payments/payment";
const SHIPMENT: &str = "holdfast/fulfillment/shipment";
const ORDER: &str = "holdfast/orders/order";
/// The contexts that follow `OrderCancelled`.
const OF_ORDERS: Outcome = Outcome::Dead { by: &["inventory", "payments", "fulfillment"], reasons: &["UNDECODABLE"] };

/// A name, and the rows under it.
type Table = (&'static str, fn() -> Vec<Row>);

pub fn attacks() -> Vec<Attack> {
    let tables: [Table; 10] = [
        ("event_with_sequence_0_is_invalid", event_with_sequence_0_is_invalid),
        ("event_of_an_unknown_type_is_passed_over", event_of_an_unknown_type_is_passed_over),
        ("event_without_headers_is_undecodable", event_without_headers_is_undecodable),
        ("event_with_a_date_of_another_age_is_harmless", event_with_a_date_of_another_age_is_harmless),
        ("event_with_nul_in_a_text_is_invalid", event_with_nul_in_a_text_is_invalid),
        ("event_for_an_order_that_is_none_is_invalid", event_for_an_order_that_is_none_is_invalid),
        ("order_with_hostile_lines_is_invalid", order_with_hostile_lines_is_invalid),
        ("amount_that_is_none_is_invalid", amount_that_is_none_is_invalid),
        ("payment_with_a_hostile_rate_is_invalid", payment_with_a_hostile_rate_is_invalid),
        ("mark_of_growth_with_an_absurd_count_is_harmless", mark_of_growth_with_an_absurd_count_is_harmless),
    ];
    let mut all: Vec<Attack> = tables.into_iter().map(|(name, rows)| records(name, rows)).collect();
    all.extend(acts![
        event_without_a_sequence_takes_effect_once,
        event_with_the_highest_sequence_is_taken_or_invalid,
        payment_of_another_amount_pays_nothing,
        payment_in_another_currency_pays_nothing,
    ]);
    all
}

/// An event of this source and sequence, in its context's events topic.
pub fn event(raw: Raw, source: &str, sequence: &str) -> Row {
    let topic = match source {
        RESERVATION => "inventory.events",
        PAYMENT => "payments.events",
        SHIPMENT => "fulfillment.events",
        _ => "orders.events",
    };
    let raw = raw.with("ce_source", Some(source)).with("ce_sequence", Some(sequence));
    Row::new(format!("{source} {sequence}"), raw, Outcome::Caused(0)).to(topic)
}

fn named(what: &str, outcome: Outcome, row: Row) -> Row {
    Row { what: what.to_owned(), outcome, ..row }
}

/// A dead letter at the end of the key's partition of inventory's events.
fn last(key: &str) -> Row {
    let raw = Raw { value: Some(vec![0xff; 9]), ..record(key, &StockReserved::default()) };
    named("the last", UNDECODABLE, event(raw, RESERVATION, "9"))
}

fn reserved(order_id: &str, until_s: i64) -> Raw {
    let lines = vec![ReservationLine { sku: "lamp".to_owned(), quantity: 1 }];
    let expires_at = Some(Timestamp { seconds: until_s, nanos: 0 });
    record(order_id, &StockReserved { order_id: order_id.to_owned(), occurred_at: None, lines, expires_at })
}

fn event_with_sequence_0_is_invalid() -> Vec<Row> {
    let of =
        |sequence| named(&format!("sequence {sequence:?}"), INVALID, event(reserved(&id(), 1), RESERVATION, sequence));
    vec![of("0"), of("-1"), of("18446744073709551616"), of("1.0"), of("NaN")]
}

fn event_of_an_unknown_type_is_passed_over() -> Vec<Row> {
    let id = id();
    let noise = |what: &str, name: &str, value: Option<Vec<u8>>| {
        let raw = Raw { value, ..reserved(&id, 1).with("ce_type", Some(name)) };
        named(what, Outcome::Caused(0), event(raw, RESERVATION, "1"))
    };
    vec![
        noise("with garbage", "shop.v1.Noise", Some(vec![0xff; 99])),
        noise("without a value", "holdfast.inventory.v1.StockEaten", None),
        noise("with NUL in its type", "shop.v1.\0", Some(Vec::new())),
        noise("of 1,000 letters", &"a".repeat(1000), Some(Vec::new())),
        last(&id),
    ]
}

/// Each reader of the topic refuses it, since without a type it can be meant for any.
fn event_without_headers_is_undecodable() -> Vec<Row> {
    let both = Outcome::Dead { by: &["orders", "fulfillment"], reasons: &["UNDECODABLE"] };
    let bare = Raw { headers: Vec::new(), ..reserved(&id(), 1) };
    vec![
        named("inventory's", both, Row::new("", bare.clone(), both).to("inventory.events")),
        named("orders'", OF_ORDERS, Row::new("", bare, OF_ORDERS).to("orders.events")),
    ]
}

fn event_with_a_date_of_another_age_is_harmless() -> Vec<Row> {
    let of = |what: &str, until_s, outcome| {
        let id = id();
        let opened = Row::new("its order", record(&id, &opening(&id)), Outcome::Caused(1));
        [opened, named(what, outcome, event(reserved(&id, until_s), RESERVATION, "1")), last(&id)]
    };
    let nothing = Outcome::Caused(0);
    let dates = [
        of("1970", 0, nothing),
        of("0001", -62_135_596_800, nothing),
        of("2300", 10_413_792_000, nothing),
        of("9999", 253_402_300_799, nothing),
        of("292277026596", i64::MAX, INVALID),
        of("before everything", i64::MIN, INVALID),
    ];
    dates.into_iter().flatten().collect()
}

fn event_with_nul_in_a_text_is_invalid() -> Vec<Row> {
    let order_id = id();
    let paid = PaymentCaptured { payment_id: "pi_\0".to_owned(), ..captured(&order_id, 1, "EUR") };
    let sent = ShipmentDispatched {
        order_id: order_id.clone(),
        shipment_id: order_id.clone(),
        carrier: "\0".to_owned(),
        tracking_number: "\0".to_owned(),
        ..ShipmentDispatched::default()
    };
    let total = Some(Money { minor: 1, currency: "EUR".to_owned() });
    let payment_method = "pm_\0".to_owned();
    let held = OrderReserved { order_id: order_id.clone(), total, payment_method, ..OrderReserved::default() };
    let by_payments = Outcome::Dead { by: &["payments"], reasons: &["INVALID"] };
    vec![
        Row::new("its order", record(&order_id, &opening(&order_id)), Outcome::Caused(1)),
        named("PaymentCaptured.payment_id", INVALID, event(record(&order_id, &paid), PAYMENT, "1")),
        named("ShipmentDispatched.carrier", INVALID, event(record(&order_id, &sent), SHIPMENT, "1")),
        named("OrderReserved.payment_method", by_payments, event(record(&order_id, &held), ORDER, "1")),
    ]
}

fn event_for_an_order_that_is_none_is_invalid() -> Vec<Row> {
    let of = |what: &str, key: &str| named(what, INVALID, event(reserved(key, 1), RESERVATION, "1"));
    vec![
        of("NUL", "\0x").without_subject(),
        of("a word", "seven"),
        of("upper case", &id().to_uppercase()),
        named(
            "another's",
            INVALID,
            event(Raw { key: Some(id().into_bytes()), ..reserved(&id(), 1) }, RESERVATION, "1"),
        ),
        named("no key", INVALID, event(Raw { key: None, ..reserved(&id(), 1) }, RESERVATION, "1")),
    ]
}

impl Row {
    fn without_subject(self) -> Self {
        Self { raw: self.raw.with("ce_subject", None), ..self }
    }
}

fn order_with_hostile_lines_is_invalid() -> Vec<Row> {
    let invalid = Outcome::Dead { by: &["inventory"], reasons: &["INVALID"] };
    let placed = |lines: Vec<OrderLine>| {
        let order_id = id();
        record(&order_id, &OrderPlaced { order_id: order_id.clone(), lines, ..OrderPlaced::default() })
    };
    let line = |sku: &str, quantity| OrderLine { sku: sku.to_owned(), quantity, unit_price: None, subtotal: None };
    let of = |what: &str, outcome, lines| named(what, outcome, event(placed(lines), ORDER, "1"));
    let key = id();
    let end = Raw { value: Some(vec![0xff; 9]), ..record(&key, &OrderCancelled::default()) };
    vec![
        of("a sku with NUL", invalid, vec![line("a\0", 1)]),
        of("a quantity of 0", invalid, vec![line("lamp", 0)]),
        of("a quantity below 0", invalid, vec![line("lamp", i64::MIN)]),
        of("no lines", invalid, Vec::new()),
        // Inventory refuses the reservation, and orders ignore that: there is no such order.
        of("the most there is", Outcome::Caused(0), vec![line("lamp", i64::MAX)]),
        of("the most there is, twice", Outcome::Caused(0), vec![line("throne", i64::MAX), line("lamp", i64::MAX)]),
        named("the last", OF_ORDERS, event(end, ORDER, "9")),
    ]
}

fn amount_that_is_none_is_invalid() -> Vec<Row> {
    let order_id = id();
    let paid = |what: &str, amount: Option<Money>| {
        let body = PaymentCaptured { amount, ..captured(&order_id, 1, "EUR") };
        named(what, INVALID, event(record(&order_id, &body), PAYMENT, "1"))
    };
    let by_payments = Outcome::Dead { by: &["payments"], reasons: &["INVALID"] };
    let held = |what: &str, minor, currency: &str| {
        let order_id = id();
        let total = Some(Money { minor, currency: currency.to_owned() });
        let body = OrderReserved { order_id: order_id.clone(), total, ..OrderReserved::default() };
        named(what, by_payments, event(record(&order_id, &body), ORDER, "1"))
    };
    vec![
        paid("none captured", None),
        paid("captured in no currency", Some(Money { minor: 1, currency: String::new() })),
        paid("captured in NUL", Some(Money { minor: 1, currency: "EU\0".to_owned() })),
        held("below 0", -1, "EUR"),
        held("the least there is", i64::MIN, "EUR"),
        held("in gold", 1, "XAU"),
    ]
}

fn payment_with_a_hostile_rate_is_invalid() -> Vec<Row> {
    let order_id = id();
    let with = |what: &str, numerator, denominator| {
        let (from, to) = ("EUR".to_owned(), "EUR".to_owned());
        let rate = Some(ExchangeRate { from, to, numerator, denominator });
        let body = PaymentCaptured { rate, ..captured(&order_id, 1, "EUR") };
        named(what, INVALID, event(record(&order_id, &body), PAYMENT, "1"))
    };
    vec![with("by 0", 1, 0), with("below 0", -1, 1), with("0 by 0", 0, 0), with("the least", i64::MIN, i64::MIN)]
}

/// A mark is a record without a key, and no event of an aggregate.
fn mark_of_growth_with_an_absurd_count_is_harmless() -> Vec<Row> {
    let id = id();
    let mark = |what: &str, key: Option<&str>, value: &[u8]| {
        let raw = reserved(&id, 1).with("ce_type", Some("holdfast.runtime.v1.PartitionsGrown"));
        let raw = Raw { key: key.map(|key| key.as_bytes().to_vec()), value: Some(value.to_vec()), ..raw };
        let row = Row::new(
            what,
            raw.with("ce_source", Some("holdfast/inventory")).with("ce_subject", None),
            Outcome::Caused(0),
        );
        Row { partition: Some(0), ..row }.to("inventory.events")
    };
    vec![
        mark("four billion partitions", None, b"\x08\xff\xff\xff\xff\x0f"),
        mark("no partitions", None, b"\x08\x00"),
        mark("more than can be counted", None, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        mark("garbage", None, &[0xff; 64]),
        mark("nothing", None, b""),
        mark("with a key", Some(&id), b"\x08\x18"),
        Row { partition: Some(0), ..last(&id) },
    ]
}

/// A capture of the order's total, with this sequence.
fn paying(order_id: &str, sequence: Option<&str>) -> Row {
    let row = event(record(order_id, &captured(order_id, 500_000, "EUR")), PAYMENT, "1");
    Row { raw: row.raw.with("ce_sequence", sequence), ..row }
}

async fn event_without_a_sequence_takes_effect_once(stand: &Stand) -> Acted {
    let order_id = stand.reserved(1).await?;
    let paying = named("without", Outcome::Caused(1), paying(&order_id, None));
    let again = Row { raw: paying.raw.clone(), ..named("again", Outcome::Caused(1), paying_again(&order_id)) };
    stand.send(vec![paying, again]).await
}

fn paying_again(order_id: &str) -> Row {
    paying(order_id, None)
}

async fn event_with_the_highest_sequence_is_taken_or_invalid(stand: &Stand) -> Acted {
    let order_id = stand.reserved(2).await?;
    let sent = stand.send(vec![paying(&order_id, Some("9223372036854775807"))]).await?;
    let beyond = stand.send(vec![named("beyond", INVALID, paying(&id(), Some("9223372036854775808")))]).await?;
    let sent = sent.into_iter().map(|sent| super::attack::Sent { outcome: Outcome::Caused(1), ..sent });
    Ok(sent.chain(beyond).collect())
}

/// A capture of another amount for an order over 5,000.00 EUR: an event of the order's says so, and the order
/// is not paid.
async fn wrongly_paid(stand: &Stand, minor: i64, currency: &str) -> Acted {
    let order_id = stand.reserved(3).await?;
    let row = event(record(&order_id, &captured(&order_id, minor, currency)), PAYMENT, "1");
    let cause = row.raw.header("ce_id").to_owned();
    let from = stand.tail.len();
    // The type of that event is not for this test.
    let sent = stand.send(vec![named("wrongly paid", Outcome::Caused(1), row)]).await?;
    let noted = |seen: &[holdfast_load_tests::tail::Lying]| {
        seen.iter().any(|lying| super::stand::last(&lying.raw, "ce_causationid") == cause).then_some(())
    };
    let noted = stand.tail.until(from, PATIENCE, noted).await.map_err(|_| "no event says that it was paid wrongly");
    unpaid(stand, &order_id).await?;
    noted?;
    Ok(sent)
}

async fn payment_of_another_amount_pays_nothing(stand: &Stand) -> Acted {
    let mut sent = wrongly_paid(stand, 1, "EUR").await?;
    sent.extend(wrongly_paid(stand, 499_999, "EUR").await?);
    sent.extend(wrongly_paid(stand, 500_001, "EUR").await?);
    Ok(sent)
}

async fn payment_in_another_currency_pays_nothing(stand: &Stand) -> Acted {
    wrongly_paid(stand, 500_000, "JPY").await
}
