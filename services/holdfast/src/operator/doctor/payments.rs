//! Checks of payments: those that are stopped because the provider contradicted what was asked of it.
//!
//! Deliberately absent: the provider's own books, which a person compares.

use super::{Facts, Finding, stored};
use crate::operator::books::contradiction;

pub(super) fn the_provider_agrees(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, _, stored) in stored(facts) {
        for payment in &stored.stopped {
            let found = contradiction(&payment.source, &payment.subject, &payment.asked, &payment.answered);
            findings.push(Finding::wrong(
                format!("order {}, since {}: {found}", payment.order_id, payment.since.rfc3339()),
                format!(
                    "compare `holdfast order trace {}` with the provider's own books, and settle the difference there: a stopped payment moves no money (deploy/runbooks/payment-stopped.md)",
                    payment.order_id
                ),
            ));
        }
        let shown = u64::try_from(stored.stopped.len()).unwrap_or(u64::MAX);
        if stored.stopped_in_all > shown {
            findings.push(Finding::wrong(
                format!("{} payments are stopped in all, of which the latest {shown} are shown", stored.stopped_in_all),
                "run `holdfast reconcile`, which names all of them",
            ));
        }
    }
    findings
}
