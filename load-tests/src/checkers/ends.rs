//! In a whole shop every order comes to an end, and its parcel with it (I8); nothing goes wrong unheard of.
//!
//! Deliberately absent: money ([`super::money`]) and stock ([`super::stock`]).

use std::collections::HashSet;

use super::{
    Breach, ContextEvidence, Report,
    history::History,
    report::count,
    state::{Order, parcel},
};

pub(super) fn check(orders: &History<'_>, fulfillment: &History<'_>, report: &mut Report) {
    for key in orders.keys("order") {
        let Some(order) = orders.get("order", key).map(Order::fold) else { continue };
        let sent = fulfillment.get("shipment", key).map_or("", parcel);
        if matches!(order.status, "PLACED" | "PAID" | "SHIPPED") {
            let sent = if sent.is_empty() { "unknown" } else { sent };
            report.breach(Breach::Unended, key, format!("order {}, shipment {sent}", order.status));
            continue;
        }
        let agree = match order.status {
            "DRAFT" => sent.is_empty(),
            // Who heard of the cancellation first has forestalled the shipment.
            status => sent == status,
        };
        if !agree {
            let sent = if sent.is_empty() { "unknown" } else { sent };
            report.breach(Breach::Disagreement, key, format!("order {}, shipment {sent}", order.status));
        }
    }
    for key in fulfillment.keys("shipment") {
        if orders.get("order", key).is_none() {
            report.breach(Breach::Disagreement, key, "a shipment without an order");
        }
    }
}

/// Contexts to which nobody sends bad records have no dead letters.
pub(super) fn no_letters(context: &str, evidence: &ContextEvidence, report: &mut Report) {
    let mut seen = HashSet::new();
    for letter in evidence.dead.iter().filter(|letter| seen.insert(&letter.letter)) {
        count(&mut report.dead_letters, &letter.reason);
        report.breach(Breach::Unexpected, &letter.key, format!("{context}: dead letter {}", letter.reason));
    }
}
