//! What a context stored is what its topics tell (I1, I8), and its topics are read and written to their ends
//! (I7, I8).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use holdfast_proto::{
    fulfillment::v1::ShipmentState,
    inventory::v1::{ReservationState, ReservationStatus},
    orders::v1::{OrderState, OrderStatus},
    payments::v1::PaymentState,
};
use prost::Message as _;
use uuid::Uuid;

use super::{AggregateRow, Breach, ContextEvidence, EventRecord, News, Report, Till, history::History, report::count};

pub(super) fn check(context: &str, evidence: &ContextEvidence, history: &History<'_>, report: &mut Report) {
    progress(context, evidence, report);
    outbox(context, evidence, report);
    fold(evidence, history, report);
}

/// Cursors at their heads, offsets at their ends, mailboxes empty.
fn progress(context: &str, evidence: &ContextEvidence, report: &mut Report) {
    for row in &evidence.partitions {
        if row.head != row.cursor {
            let what = format!("published {} of {} rows", row.cursor, row.head);
            report.breach(Breach::Undrained, format!("{context} partition {}", row.partition), what);
        }
    }
    for (topic, ends) in &evidence.ends {
        for (partition, end) in ends {
            let row = evidence.partitions.iter().find(|row| row.partition == *partition);
            let next = row.and_then(|row| row.consumed.get(topic)).copied().unwrap_or(0);
            if next != *end {
                let what = format!("{context} read up to {next}, the end is {end}");
                report.breach(Breach::Unconsumed, format!("{topic} partition {partition}"), what);
            }
        }
    }
    for (key, reason) in &evidence.mailbox {
        report.breach(Breach::Waiting, key, format!("{context}: {reason}"));
    }
}

/// Each outbox row has its event, dead letter, mark or command in a topic, and each event, dead letter and
/// mark has its outbox row.
fn outbox(context: &str, evidence: &ContextEvidence, report: &mut Report) {
    let letters = evidence.dead.iter().filter_map(|letter| Uuid::try_parse(&letter.letter).ok());
    let marks = evidence.marks.iter().copied();
    let published: HashSet<Uuid> = evidence.events.iter().map(|event| event.id).chain(letters).chain(marks).collect();
    let mut committed = HashSet::with_capacity(evidence.outbox.len());
    let mut numbers = HashSet::with_capacity(evidence.outbox.len());
    for row in &evidence.outbox {
        committed.insert(row.id);
        let at = || format!("{context} outbox {}/{}", row.partition, row.sequence);
        if !numbers.insert((row.partition, row.sequence)) {
            report.breach(Breach::TwoHistories, at(), "two outbox rows of one number");
        }
        if !published.contains(&row.id) && !evidence.command_ids.contains(&row.id) {
            report.breach(Breach::Unpublished, row.id, format!("{} is not in {}", at(), row.topic));
        }
    }
    for id in published.difference(&committed) {
        report.breach(Breach::Uncommitted, id, format!("{context}: no outbox row has this id"));
    }
}

/// Each aggregate's row is the fold of its events, and there is no other.
fn fold(evidence: &ContextEvidence, history: &History<'_>, report: &mut Report) {
    let mut rows: HashMap<(&str, &str), &AggregateRow> = HashMap::with_capacity(evidence.aggregates.len());
    for row in &evidence.aggregates {
        rows.insert((&row.kind, &row.key), row);
    }
    for (&(kind, key), events) in &history.of {
        let last = events.keys().next_back().copied().unwrap_or(0);
        let Some(row) = rows.remove(&(kind, key)) else {
            report.breach(Breach::NotTheFold, key, format!("{kind}: published up to version {last}, not stored"));
            continue;
        };
        if row.version.cast_unsigned() != last {
            let what = format!("{kind}: stored version {}, published version {last}", row.version);
            report.breach(Breach::NotTheFold, key, what);
        } else if let Err(what) = same(kind, row, events) {
            report.breach(Breach::NotTheFold, key, what);
        }
        if kind == "order"
            && let Some(view) = &evidence.view
        {
            let shown = view.get(key).map_or("", String::as_str);
            let status = Order::fold(events).status;
            if shown != status {
                report.breach(Breach::NotTheFold, key, format!("the read model says {shown:?}, the topic {status}"));
            }
        }
    }
    // An aggregate that never had an event may be stored: its version is 0.
    for row in rows.values().filter(|row| row.version > 0) {
        report.breach(Breach::NotTheFold, &row.key, format!("{}: stored, not published", row.kind));
    }
}

/// Compares a stored state with the fold; says how they differ.
fn same(kind: &str, row: &AggregateRow, events: &BTreeMap<u64, &EventRecord>) -> Result<(), String> {
    let garbage = |error: prost::DecodeError| format!("{kind}: stored state can't be read: {error}");
    let (stored, folded) = match kind {
        "order" => {
            let state = OrderState::decode(&row.state[..]).map_err(garbage)?;
            let lines: BTreeSet<(String, i64)> =
                state.lines.iter().map(|line| (line.sku.clone(), line.quantity)).collect();
            let order = Order::fold(events);
            (format!("{} {lines:?}", status_name(state.status())), format!("{} {:?}", order.status, order.set()))
        }
        "reservation" => {
            let state = ReservationState::decode(&row.state[..]).map_err(garbage)?;
            (reservation_name(state.status()).to_owned(), reservation(events).to_owned())
        }
        "payment" => {
            let status = PaymentState::decode(&row.state[..]).map_err(garbage)?.status().as_str_name();
            (status.trim_start_matches("PAYMENT_STATUS_").to_owned(), payment(events).to_owned())
        }
        "shipment" => {
            let status = ShipmentState::decode(&row.state[..]).map_err(garbage)?.status().as_str_name();
            (status.trim_start_matches("SHIPMENT_STATUS_").to_owned(), parcel(events).to_owned())
        }
        _ => return Ok(()),
    };
    if stored == folded { Ok(()) } else { Err(format!("{kind}: stored {stored}, published {folded}")) }
}

fn status_name(status: OrderStatus) -> &'static str {
    status.as_str_name().trim_start_matches("ORDER_STATUS_")
}

pub(super) fn reservation_name(status: ReservationStatus) -> &'static str {
    status.as_str_name().trim_start_matches("RESERVATION_STATUS_")
}

/// The state of a reservation by its events.
pub(super) fn reservation(events: &BTreeMap<u64, &EventRecord>) -> &'static str {
    events.values().next_back().map_or("", |last| match &last.news {
        News::Held(_) => "HELD",
        News::Refused(_) => "REFUSED",
        News::Confirmed(_) => "CONFIRMED",
        News::Gone(_) => "SHIPPED",
        News::Released(_) => "RELEASED",
        News::Expired(_) => "EXPIRED",
        _ => "",
    })
}

/// The state of a payment by its events.
pub(super) fn payment(events: &BTreeMap<u64, &EventRecord>) -> &'static str {
    let (mut status, mut captured, mut back) = ("", 0, 0);
    for event in events.values() {
        let News::Payment(news) = &event.news else { continue };
        match news {
            Till::Requested => status = "REQUESTED",
            Till::Authorized => status = "AUTHORIZED",
            Till::Captured(amount) => (status, captured) = ("CAPTURED", *amount),
            Till::Declined => status = "DECLINED",
            Till::Voided => status = "VOIDED",
            Till::Refunded(amount) => {
                back += amount;
                status = if back == captured { "REFUNDED" } else { "PARTIALLY_REFUNDED" };
            }
            Till::Noted | Till::Contradicted => {}
        }
    }
    status
}

/// The state of a shipment by its events.
pub(super) fn parcel(events: &BTreeMap<u64, &EventRecord>) -> &'static str {
    let last = events.values().rev().find_map(|event| match event.news {
        News::Parcel(status) => status,
        _ => None,
    });
    last.unwrap_or("PENDING")
}

/// An order as far as it is compared.
#[derive(Default)]
pub(super) struct Order<'a> {
    pub(super) status: &'static str,
    pub(super) is_reserved: bool,
    pub(super) cause: &'a str,
    /// What it costs, as it said when it was placed.
    pub(super) total: i64,
    /// What it says was paid.
    pub(super) paid: Option<i64>,
    pub(super) lines: BTreeMap<&'a str, i64>,
}

impl<'a> Order<'a> {
    pub(super) fn fold(events: &BTreeMap<u64, &'a EventRecord>) -> Self {
        let mut order = Self::default();
        for event in events.values() {
            match &event.news {
                News::Created => order.status = "DRAFT",
                News::Added((sku, quantity)) => {
                    order.lines.insert(sku, *quantity);
                }
                News::Removed(sku) => {
                    order.lines.remove(sku.as_str());
                }
                News::Placed(total) => (order.status, order.total) = ("PLACED", *total),
                News::Paid(amount) => (order.status, order.paid) = ("PAID", Some(*amount)),
                News::Sent => order.status = "SHIPPED",
                News::Delivered => order.status = "DELIVERED",
                News::Reserved => order.is_reserved = true,
                News::Cancelled(cause) => (order.status, order.cause) = ("CANCELLED", cause),
                _ => {}
            }
        }
        order
    }

    fn set(&self) -> BTreeSet<(String, i64)> {
        self.lines.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity)).collect()
    }
}

/// Orders by state, and why they were cancelled.
pub(super) fn count_orders(history: &History<'_>, report: &mut Report) {
    for ((kind, _), events) in &history.of {
        if *kind != "order" {
            continue;
        }
        let order = Order::fold(events);
        count(&mut report.orders, order.status);
        if order.status == "CANCELLED" {
            count(&mut report.cancelled, order.cause);
        }
        report.reserved += u64::from(order.status == "PLACED" && order.is_reserved);
    }
}
