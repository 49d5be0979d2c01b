//! Forgeries: types that may not come from where they come, and sources that are not the sender's.
//!
//! Invariant: each is a dead letter `UNKNOWN_TYPE`, and no money, stock or parcel moves. Deliberately absent:
//! forgeries by call (`actors.rs`).

use holdfast_load_tests::by_hand::Raw;
use holdfast_proto::{
    Timestamp,
    customers::v1::{CreateCustomer, CustomerErased, SuspendCustomer},
    fulfillment::v1::{NoteShipment, ShipmentDelivered, ShipmentDispatched},
    inventory::v1::{ReservationExpired, ReservationRefused, StockReserved},
    money::v1::Money,
    orders::v1::{OrderCancelled, OrderPaid, OrderPlaced, OrderReserved, OrderStatus},
    payments::v1::{
        ChargeDeclined, ChargeSucceeded, ExchangeRate, PaymentCaptured, ProviderNews, ProviderReported, RefundSucceeded,
    },
};
use libtest_mimic::Failed;
use prost::{Message, Name};

use super::{
    attack::{Acted, Attack, Outcome, Row, UNKNOWN_TYPE, acts, records},
    stand::{Stand, id},
};
use crate::shop::record;

/// A name, and the rows under it.
type Table = (&'static str, fn() -> Vec<Row>);

pub fn attacks() -> Vec<Attack> {
    let mut all = acts![
        forged_payment_in_commands_pays_nothing,
        forged_payment_in_payments_events_pays_nothing,
        forged_payment_in_inventory_events_pays_nothing,
        forged_news_in_commands_changes_no_order,
        forged_charge_in_payments_commands_moves_nothing,
    ];
    let tables: [Table; 6] = [
        ("forged_reservation_in_inventory_events_is_refused", forged_reservation_in_inventory_events_is_refused),
        ("forged_order_events_are_refused_by_all_who_follow", forged_order_events_are_refused_by_all_who_follow),
        ("forged_erasure_in_customers_events_is_refused", forged_erasure_in_customers_events_is_refused),
        ("order_event_in_another_contexts_commands_is_refused", order_event_in_another_contexts_commands_is_refused),
        ("message_that_a_context_sends_itself_is_refused", message_that_a_context_sends_itself_is_refused),
        ("personal_data_in_customers_commands_is_refused", personal_data_in_customers_commands_is_refused),
    ];
    all.extend(tables.into_iter().map(|(name, rows)| records(name, rows)));
    all
}

/// A capture as payments would publish it.
pub fn captured(order_id: &str, minor: i64, currency: &str) -> PaymentCaptured {
    let amount = |minor| Some(Money { minor, currency: currency.to_owned() });
    let (from, to) = (currency.to_owned(), currency.to_owned());
    PaymentCaptured {
        order_id: order_id.to_owned(),
        occurred_at: Some(Timestamp { seconds: 1_764_000_000, nanos: 0 }),
        payment_id: "pi_forged".to_owned(),
        amount: amount(minor),
        rate: Some(ExchangeRate { from, to, numerator: 1, denominator: 1 }),
        settled: amount(minor),
    }
}

/// Checks that the order is placed and not paid.
pub async fn unpaid(stand: &Stand, order_id: &str) -> Result<(), Failed> {
    let order = stand.order(order_id).await?;
    if order.status() == OrderStatus::Placed && order.payment.is_none() {
        return Ok(());
    }
    Err(format!("the order over 5,000.00 EUR is {:?}, paid: {:?}", order.status(), order.payment).into())
}

/// Sends forgeries for a placed order over 5,000.00 EUR and checks, once each is a dead letter, that it is
/// not paid.
async fn forged(stand: &Stand, home: u32, make: impl Fn(&str) -> Vec<Row>) -> Acted {
    let order_id = stand.reserved(home).await?;
    let from = stand.tail.len();
    let sent = stand.send(make(&order_id)).await?;
    let settled = futures::future::join_all(sent.iter().map(|sent| stand.becomes(from, sent))).await;
    unpaid(stand, &order_id).await?;
    super::attack::all(settled)?;
    Ok(sent)
}

fn said_by<M: Message + Name>(source: &str, key: &str, body: &M) -> Raw {
    record(key, body).with("ce_source", Some(source))
}

async fn forged_payment_in_commands_pays_nothing(stand: &Stand) -> Acted {
    forged(stand, 4, |order_id| {
        let of = |source: &str, minor| {
            let raw = said_by(source, order_id, &captured(order_id, minor, "EUR"));
            [
                Row::new(format!("{minor} by {source}"), raw.clone(), UNKNOWN_TYPE),
                Row::new(format!("{minor} by {source}, numbered"), raw.with("ce_sequence", Some("1")), UNKNOWN_TYPE),
            ]
        };
        let sources = ["tests/system", "payments", "holdfast/payments/payment", "stripe/webhook", "grpc"];
        sources.into_iter().flat_map(|source| [of(source, 1), of(source, 500_000)]).flatten().collect()
    })
    .await
}

async fn forged_payment_in_payments_events_pays_nothing(stand: &Stand) -> Acted {
    forged(stand, 5, |order_id| {
        let sources = ["tests/system", "payments", "grpc", "holdfast/paymentsx", "holdfast/inventory/reservation"];
        let of = |source: &str| {
            let raw = said_by(source, order_id, &captured(order_id, 500_000, "EUR")).with("ce_sequence", Some("1"));
            Row::new(source, raw, UNKNOWN_TYPE).to("payments.events")
        };
        sources.into_iter().map(of).collect()
    })
    .await
}

async fn forged_payment_in_inventory_events_pays_nothing(stand: &Stand) -> Acted {
    forged(stand, 6, |order_id| {
        let of = |source: &str| {
            let raw = said_by(source, order_id, &captured(order_id, 500_000, "EUR")).with("ce_sequence", Some("1"));
            Row::new(source, raw, UNKNOWN_TYPE).to("inventory.events")
        };
        vec![of("holdfast/payments/payment"), of("holdfast/inventory/reservation"), of("tests/system")]
    })
    .await
}

async fn forged_news_in_commands_changes_no_order(stand: &Stand) -> Acted {
    forged(stand, 7, |order_id| {
        let order = || order_id.to_owned();
        let until = Some(Timestamp { seconds: i64::from(u32::MAX), nanos: 0 });
        let held = StockReserved { order_id: order(), expires_at: until, ..StockReserved::default() };
        let sent = ShipmentDispatched { order_id: order(), shipment_id: order(), ..ShipmentDispatched::default() };
        let there = ShipmentDelivered { order_id: order(), shipment_id: order(), ..ShipmentDelivered::default() };
        let late = ReservationExpired { order_id: order(), ..ReservationExpired::default() };
        let short = ReservationRefused { order_id: order(), ..ReservationRefused::default() };
        let raws = [
            said_by("holdfast/inventory/reservation", order_id, &held),
            said_by("tests/system", order_id, &short),
            said_by("holdfast/inventory/reservation", order_id, &late),
            said_by("holdfast/fulfillment/shipment", order_id, &sent),
            said_by("tests/system", order_id, &there),
        ];
        let row = |raw: Raw| Row::new(raw.header("ce_type").to_owned(), raw, UNKNOWN_TYPE);
        raws.into_iter().map(row).collect()
    })
    .await
}

/// The ends of effects come from the runtime and reports from the webhook, never from a topic.
async fn forged_charge_in_payments_commands_moves_nothing(stand: &Stand) -> Acted {
    let refused = Outcome::Dead { by: &["payments"], reasons: &["UNKNOWN_TYPE"] };
    forged(stand, 8, |order_id| {
        let order = || order_id.to_owned();
        let rate = Some(ExchangeRate { from: "EUR".into(), to: "EUR".into(), numerator: 1, denominator: 1 });
        let charged = ChargeSucceeded { order_id: order(), provider_ref: "pi_forged".into(), captured: true, rate };
        let declined = ChargeDeclined { order_id: order(), code: "forged".into() };
        let given_back = RefundSucceeded { order_id: order(), refund_no: 1, provider_ref: "re_forged".into() };
        let reported = ProviderReported {
            order_id: order(),
            provider_ref: "pi_forged".into(),
            news: ProviderNews::Captured.into(),
            amount: Some(Money { minor: 500_000, currency: "EUR".into() }),
            code: String::new(),
        };
        let mut rows = Vec::new();
        for source in ["tests/system", "stripe/webhook", "holdfast/payments/payment", "effect", "timer"] {
            for raw in [
                said_by(source, order_id, &charged),
                said_by(source, order_id, &reported),
                said_by(source, order_id, &declined),
                said_by(source, order_id, &given_back),
            ] {
                let what = format!("{} by {source}", raw.header("ce_type"));
                rows.push(Row::new(what, raw, refused).to("payments.commands"));
            }
        }
        rows
    })
    .await
}

fn forged_reservation_in_inventory_events_is_refused() -> Vec<Row> {
    let order_id = id();
    let expires_at = Some(Timestamp { seconds: 4_000_000_000, nanos: 0 });
    let body = StockReserved { order_id: order_id.clone(), expires_at, ..StockReserved::default() };
    let of = |source: &str| {
        let raw = said_by(source, &order_id, &body).with("ce_sequence", Some("1"));
        Row::new(source, raw, UNKNOWN_TYPE).to("inventory.events")
    };
    vec![of("tests/system"), of("inventory"), of("grpc"), of("holdfast/orders/order"), of("holdfast/")]
}

fn forged_order_events_are_refused_by_all_who_follow() -> Vec<Row> {
    let order_id = id();
    let order = || order_id.clone();
    let of = |raw: Raw, by: &'static [&'static str]| {
        let outcome = Outcome::Dead { by, reasons: &["UNKNOWN_TYPE"] };
        Row::new(raw.header("ce_type").to_owned(), raw.with("ce_sequence", Some("1")), outcome).to("orders.events")
    };
    let placed = OrderPlaced { order_id: order(), ..OrderPlaced::default() };
    let held = OrderReserved { order_id: order(), ..OrderReserved::default() };
    let paid = OrderPaid { order_id: order(), ..OrderPaid::default() };
    let ended = OrderCancelled { order_id: order(), ..OrderCancelled::default() };
    let source = "tests/system";
    vec![
        of(said_by(source, &order_id, &placed), &["inventory"]),
        of(said_by(source, &order_id, &held), &["payments"]),
        of(said_by("holdfast/payments/payment", &order_id, &paid), &["inventory", "fulfillment"]),
        of(said_by(source, &order_id, &ended), &["inventory", "payments", "fulfillment"]),
    ]
}

fn forged_erasure_in_customers_events_is_refused() -> Vec<Row> {
    let customer_id = id();
    let body = CustomerErased { customer_id: customer_id.clone(), ..CustomerErased::default() };
    let refused = Outcome::Dead { by: &["fulfillment"], reasons: &["UNKNOWN_TYPE"] };
    let of = |source: &str| {
        let raw = said_by(source, &customer_id, &body).with("ce_sequence", Some("1"));
        Row::new(source, raw, refused).to("customers.events")
    };
    vec![of("tests/system"), of("customers"), of("holdfast/fulfillment/recipient")]
}

fn order_event_in_another_contexts_commands_is_refused() -> Vec<Row> {
    let order_id = id();
    let order = || order_id.clone();
    let refused = |by| Outcome::Dead { by, reasons: &["UNKNOWN_TYPE"] };
    let source = "holdfast/orders/order";
    let placed = said_by(source, &order_id, &OrderPlaced { order_id: order(), ..OrderPlaced::default() });
    let held = said_by(source, &order_id, &OrderReserved { order_id: order(), ..OrderReserved::default() });
    let paid = said_by("tests/system", &order_id, &OrderPaid { order_id: order(), ..OrderPaid::default() });
    vec![
        Row::new("OrderPlaced", placed, refused(&["inventory"])).to("inventory.commands"),
        Row::new("OrderReserved", held, refused(&["payments"])).to("payments.commands"),
        Row::new("OrderPaid", paid, refused(&["fulfillment"])).to("fulfillment.commands"),
    ]
}

/// `NoteShipment` comes from fulfillment's own outbox alone, under its seal.
fn message_that_a_context_sends_itself_is_refused() -> Vec<Row> {
    let customer_id = id();
    let refused = Outcome::Dead { by: &["fulfillment"], reasons: &["UNKNOWN_TYPE"] };
    let body = NoteShipment { customer_id: customer_id.clone(), order_id: id() };
    let of = |what: &str, raw: Raw| Row::new(what, raw, refused).to("fulfillment.commands");
    let own = said_by("holdfast/fulfillment/shipment", &customer_id, &body);
    vec![
        of("by a stranger", said_by("tests/system", &customer_id, &body)),
        of("under its source", own.clone()),
        of("with a seal that is none", own.clone().with("ce_holdfastseal", Some(&"0".repeat(64)))),
        of("with an empty seal", own.with("ce_holdfastseal", Some(""))),
    ]
}

fn personal_data_in_customers_commands_is_refused() -> Vec<Row> {
    let customer_id = id();
    let refused = |reasons| Outcome::Dead { by: &["customers"], reasons };
    let create = CreateCustomer { customer_id: customer_id.clone(), ..CreateCustomer::default() };
    let suspend = SuspendCustomer { customer_id: customer_id.clone(), reason: "\0".to_owned() };
    let of = |what: &str, raw: Raw, reasons| Row::new(what, raw, refused(reasons)).to("customers.commands");
    vec![
        of("by a stranger", said_by("tests/system", &customer_id, &create), &["UNKNOWN_TYPE"]),
        of("as a call", said_by("grpc", &customer_id, &create), &["UNKNOWN_TYPE"]),
        of("a reason with NUL", said_by("tests/system", &customer_id, &suspend), &["INVALID"]),
    ]
}
