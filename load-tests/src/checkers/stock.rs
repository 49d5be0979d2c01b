//! Stock is conserved to the last unit (I2), and orders and reservations tell the same story (I8).

use std::collections::{BTreeMap, HashMap};

use holdfast_proto::inventory::v1::{ReservationState, ReservationStatus};
use prost::Message as _;

use super::{
    Breach, ContextEvidence, News, Report,
    history::History,
    report::count,
    state::{Order, reservation, reservation_name},
};

/// What must be there of one sku.
#[derive(Default)]
struct Sku {
    received: i64,
    /// By the events of reservations.
    shipped: i64,
    /// By the events of reservations.
    held_by_events: i64,
    /// By the stored reservations.
    held_stored: i64,
}

pub(super) fn check(evidence: &ContextEvidence, orders: &History<'_>, inventory: &History<'_>, report: &mut Report) {
    let mut skus: BTreeMap<&str, Sku> = BTreeMap::new();
    for event in inventory.events() {
        match &event.news {
            News::Stock((sku, units)) => skus.entry(sku).or_default().received += units,
            News::Held(lines) => {
                for (sku, units) in lines {
                    skus.entry(sku).or_default().held_by_events += units;
                }
            }
            News::Gone(lines) => {
                for (sku, units) in lines {
                    let sku = skus.entry(sku).or_default();
                    sku.held_by_events -= units;
                    sku.shipped += units;
                }
            }
            News::Released(lines) | News::Expired(lines) => {
                for (sku, units) in lines {
                    skus.entry(sku).or_default().held_by_events -= units;
                }
            }
            _ => {}
        }
    }
    let stored = stored(evidence, report);
    for (status, lines) in stored.values() {
        count(&mut report.reservations, status);
        if matches!(*status, "HELD" | "CONFIRMED") {
            for (sku, units) in lines {
                skus.entry(sku).or_default().held_stored += units;
            }
        }
    }
    pools(evidence, &skus, report);
    disagreements(orders, inventory, report);
}

/// By order id: the state's name, and its lines.
type Stored<'a> = HashMap<&'a str, (&'static str, Vec<(String, i64)>)>;

fn stored<'a>(evidence: &'a ContextEvidence, report: &mut Report) -> Stored<'a> {
    let mut all = HashMap::new();
    for row in evidence.aggregates.iter().filter(|row| row.kind == "reservation") {
        match ReservationState::decode(&row.state[..]) {
            Ok(state) if state.status() == ReservationStatus::Unspecified => {}
            Ok(state) => {
                let name = reservation_name(state.status());
                let lines = state.lines.into_iter().map(|line| (line.sku, line.quantity)).collect();
                all.insert(row.key.as_str(), (name, lines));
            }
            Err(error) => report.breach(Breach::NotTheFold, &row.key, format!("reservation can't be read: {error}")),
        }
    }
    all
}

fn pools(evidence: &ContextEvidence, skus: &BTreeMap<&str, Sku>, report: &mut Report) {
    let rows: BTreeMap<&str, (i64, i64)> =
        evidence.pools.iter().map(|row| (row.name.as_str(), (row.total, row.held))).collect();
    let nothing = Sku::default();
    let names = rows.keys().chain(skus.keys()).collect::<std::collections::BTreeSet<_>>();
    for name in names {
        let (on_hand, held) = rows.get(name).copied().unwrap_or_default();
        let due = skus.get(name).unwrap_or(&nothing);
        report.stock.skus += 1;
        report.stock.received += due.received;
        report.stock.shipped += due.shipped;
        report.stock.on_hand += on_hand;
        report.stock.reserved += held;
        let mut adrift = |is_wrong: bool, what: String| {
            if is_wrong {
                report.breach(Breach::StockAdrift, name, what);
            }
        };
        let left = due.received - due.shipped;
        adrift(on_hand != left, format!("{on_hand} on hand, {} received, {} shipped", due.received, due.shipped));
        adrift(held != due.held_by_events, format!("{held} reserved, {} by the events", due.held_by_events));
        adrift(held != due.held_stored, format!("{held} reserved, {} by the reservations", due.held_stored));
        adrift(held < 0 || held > on_hand, format!("{held} of {on_hand} reserved"));
    }
}

/// What left the shelves for an order.
fn gone<'a>(inventory: &History<'a>, key: &'a str) -> BTreeMap<&'a str, i64> {
    let mut gone = BTreeMap::new();
    for event in inventory.get("reservation", key).into_iter().flat_map(BTreeMap::values) {
        if let News::Gone(lines) = &event.news {
            for (sku, units) in lines {
                *gone.entry(sku.as_str()).or_default() += units;
            }
        }
    }
    gone
}

/// Who is placed holds stock and knows it; who is cancelled holds none; who is a draft never asked; what left
/// the shelves is what was ordered.
fn disagreements(orders: &History<'_>, inventory: &History<'_>, report: &mut Report) {
    for ((kind, key), events) in &orders.of {
        if *kind != "order" {
            continue;
        }
        let order = Order::fold(events);
        let held = inventory.get("reservation", key).map_or("", reservation);
        let agree = match order.status {
            "DRAFT" => held.is_empty(),
            "PLACED" => order.is_reserved && held == "HELD",
            "CANCELLED" => matches!(held, "RELEASED" | "REFUSED" | "EXPIRED"),
            "PAID" => held == "CONFIRMED",
            "SHIPPED" | "DELIVERED" => held == "SHIPPED" && order.lines == gone(inventory, key),
            _ => false,
        };
        if !agree {
            let knows = if order.is_reserved { " and reserved" } else { "" };
            let held = if held.is_empty() { "unknown" } else { held };
            report.breach(Breach::Disagreement, key, format!("order {}{knows}, reservation {held}", order.status));
        }
    }
    for (kind, key) in inventory.of.keys() {
        if *kind == "reservation" && orders.get("order", key).is_none() {
            report.breach(Breach::Disagreement, key, "a reservation without an order");
        }
    }
}
