//! The whole account, in one pure function.

use super::{Evidence, Report, commands, history::History, state, stock};
use crate::producer::Ledger;

/// Accounts for every command of `ledger` by what was found.
pub fn audit(ledger: &Ledger, evidence: &Evidence) -> Report {
    let mut report = Report {
        records: ledger.records,
        commands: ledger.commands.len() as u64,
        bad_records: ledger.bad.len() as u64,
        repeats_sent: ledger.repeats(),
        ..Report::default()
    };
    let orders = History::of(&evidence.orders, &mut report);
    commands::check(ledger, &evidence.orders, &orders, &mut report);
    state::check("orders", &evidence.orders, &orders, &mut report);
    state::count_orders(&orders, &mut report);
    if let Some(inventory) = &evidence.inventory {
        let held = History::of(inventory, &mut report);
        state::check("inventory", inventory, &held, &mut report);
        stock::check(inventory, &orders, &held, &mut report);
        commands::caused_by_others(ledger, &orders, &held, &mut report);
    }
    report
}
