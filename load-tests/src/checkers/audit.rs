//! The whole account, in one pure function.

use super::{Evidence, Report, commands, ends, history::History, money, state, stock};
use crate::producer::Ledger;

/// Accounts for every command of `ledger` by what was found.
pub fn audit(ledger: &Ledger, evidence: &Evidence) -> Report {
    audit_shop(ledger, &Ledger::default(), evidence)
}

/// Likewise where a warehouse worked as well: `ledger` is of commands to orders, `warehouse` of commands to
/// fulfillment.
pub fn audit_shop(ledger: &Ledger, warehouse: &Ledger, evidence: &Evidence) -> Report {
    let sum = |of: fn(&Ledger) -> u64| of(ledger) + of(warehouse);
    let mut report = Report {
        records: sum(|ledger| ledger.records),
        commands: sum(|ledger| ledger.commands.len() as u64),
        bad_records: sum(|ledger| ledger.bad.len() as u64),
        repeats_sent: sum(Ledger::repeats),
        repeats_dropped: sum(Ledger::repeats),
        ..Report::default()
    };
    let orders = History::of(&evidence.orders, &mut report);
    commands::check(ledger, &evidence.orders, &orders, &mut report);
    state::check("orders", &evidence.orders, &orders, &mut report);
    state::count_orders(&orders, &mut report);
    let Some(inventory) = &evidence.inventory else { return report };
    let held = History::of(inventory, &mut report);
    state::check("inventory", inventory, &held, &mut report);
    stock::check(inventory, &orders, &held, &mut report);
    let mut others = vec![held];
    if let Some(payments) = &evidence.payments {
        ends::no_letters("inventory", inventory, &mut report);
        ends::no_letters("payments", payments, &mut report);
        let paid = History::of(payments, &mut report);
        state::check("payments", payments, &paid, &mut report);
        if let Some(account) = &evidence.provider {
            money::check(account, &evidence.orders, &orders, &paid, &mut report);
        }
        others.push(paid);
    }
    if let Some(fulfillment) = &evidence.fulfillment {
        ends::no_letters("fulfillment", fulfillment, &mut report);
        let sent = History::of(fulfillment, &mut report);
        commands::check(warehouse, fulfillment, &sent, &mut report);
        state::check("fulfillment", fulfillment, &sent, &mut report);
        ends::check(&orders, &sent, &mut report);
        others.push(sent);
    }
    if let Some(customers) = &evidence.customers {
        ends::no_letters("customers", customers, &mut report);
        let known = History::of(customers, &mut report);
        state::check("customers", customers, &known, &mut report);
    }
    commands::caused_by_others(ledger, &orders, &others, &mut report);
    report
}
