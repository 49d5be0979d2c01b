//! What came of the demo: for people as a table, for programs as JSON.
//!
//! Deliberately absent: anything that is not in the account.

use std::time::Duration;

use comfy_table::{CellAlignment, Table};
use holdfast_load_tests::{
    checkers::{self, Evidence, Latencies, Money, Report, percentiles, times_to_paid},
    findings::Findings,
    floor::Done,
    producer::Ledger,
    scenarios::cpu::Cpu,
};
use indicatif::HumanCount;

use super::run::{CALM_RATE, Crowd};

/// What came of it.
pub struct Outcome {
    partitions: u32,
    /// From the first record sent to the end of nearly all orders.
    took: Duration,
    orders_per_s: f64,
    messages_per_s: f64,
    /// CPU time for each message, in µs.
    message_us: Cpu,
    /// From `PlaceOrder` to `OrderPaid`, in the first part.
    crowded: Latencies,
    /// The same in the second.
    calm: Latencies,
    pub report: Report,
}

impl Outcome {
    /// By what was sent, and what was found.
    pub fn of(partitions: u32, crowd: Crowd, calm: Ledger, done: Done, evidence: &Evidence) -> Self {
        let Crowd { mut ledger, took, orders_per_s, messages_per_s, message_us } = crowd;
        let paid = |ledger: &Ledger| percentiles(times_to_paid(ledger, &evidence.orders.events).map(|(_, took)| took));
        let (crowded, quiet) = (paid(&ledger), paid(&calm));
        ledger.absorb(calm);
        ledger.absorb(done.orders);
        let report = checkers::audit_shop(&ledger, &done.warehouse, evidence);
        Self { partitions, took, orders_per_s, messages_per_s, message_us, crowded, calm: quiet, report }
    }

    /// The speed of it, and what broke a promise, as `load life` has it.
    pub fn findings(&self, question: &str) -> Findings {
        let (crowd, calm) = ("all together", format!("at {CALM_RATE} commands/s"));
        let orders: u64 = self.report.orders.values().sum();
        let mut findings =
            Findings::of("life", question).set_up("orders", orders).set_up("partitions", self.partitions);
        findings.figure(crowd, "messages, all topics", self.messages_per_s.round(), "messages/s");
        findings.figure(crowd, "orders that ended", self.orders_per_s.round(), "orders/s");
        findings.figure(crowd, "CPU, process", self.message_us.design, "µs/message");
        findings.figure(crowd, "CPU, Postgres", self.message_us.postgres, "µs/message");
        findings.figure(crowd, "CPU, Kafka", self.message_us.kafka, "µs/message");
        for (of, latencies) in [(crowd, &self.crowded), (&*calm, &self.calm)] {
            for (name, value) in [("p50", latencies.p50_ms), ("p99", latencies.p99_ms)] {
                let value = f64::from(u32::try_from(value).unwrap_or(u32::MAX));
                findings.figure(of, &format!("PlaceOrder to PAID, {name}"), value, "ms");
            }
        }
        findings.breached(&self.report);
        findings
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "partitions": self.partitions,
            "seconds": self.took.as_secs_f64(),
            "orders_per_s": self.orders_per_s,
            "messages_per_s": self.messages_per_s,
            "placed_to_paid": self.crowded,
            "calm_commands_per_s": CALM_RATE,
            "calm_placed_to_paid": self.calm,
            "lost": self.report.lost(),
            "doubled": self.report.doubled(),
            "out_of_order": self.report.out_of_order(),
            "unbalanced": self.report.unbalanced(),
            "clean": self.report.is_clean(),
            "report": self.report,
        })
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        let rows = [self.orders(), self.commands(), self.books(), self.speed(), self.verdict()];
        for [name, value] in rows.into_iter().flatten() {
            table.add_row([name, value]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn orders(&self) -> Vec<[String; 2]> {
        let report = &self.report;
        let mut rows = vec![row("orders", count(report.orders.values().sum()))];
        for (state, number) in &report.orders {
            rows.push(row(&format!("  {state}"), count(*number)));
            if state == "CANCELLED" {
                rows.extend(report.cancelled.iter().map(|(cause, n)| row(&format!("    {cause}"), count(*n))));
            }
        }
        rows
    }

    fn commands(&self) -> Vec<[String; 2]> {
        let report = &self.report;
        let mut rows = vec![row("commands sent", count(report.records)), row("  applied", count(report.applied))];
        rows.push(row("  nothing left to change", count(report.idle)));
        rows.extend(report.rejected.iter().map(|(name, n)| row(&format!("  rejected: {name}"), count(*n))));
        let (dropped, sent) = (count(report.repeats_dropped), count(report.repeats_sent));
        rows.push(row("  repeats, dropped", format!("{dropped} of {sent}")));
        rows.extend(report.dead_letters.iter().map(|(why, n)| row(&format!("  dead letters: {why}"), count(*n))));
        rows.push(row("events", count(report.events)));
        rows
    }

    /// Money by the provider's own books, stock by the shelves.
    fn books(&self) -> Vec<[String; 2]> {
        let nothing = Money::default();
        let (money, stock) = (self.report.money.as_ref().unwrap_or(&nothing), &self.report.stock);
        let delivered = self.report.orders.get("DELIVERED").copied().unwrap_or(0);
        let units = |number: i64| count(number.unsigned_abs());
        vec![
            row("provider: requests, failed", format!("{}, {}", count(money.requests), count(money.faults))),
            row("  charged", euros(money.charged)),
            row("  refunded", euros(money.refunded)),
            row("  kept", euros(money.kept)),
            row("delivered orders cost", euros(money.delivered)),
            row("  charged exactly once", format!("{} of {}", count(money.charged_once), count(delivered))),
            row("stock received", units(stock.received)),
            row("  on hand", units(stock.on_hand)),
            row("  shipped", units(stock.shipped)),
            row("  still reserved", units(stock.reserved)),
        ]
    }

    fn speed(&self) -> Vec<[String; 2]> {
        let both = |latencies: &Latencies| format!("{} ms, {} ms", latencies.p50_ms, latencies.p99_ms);
        vec![
            row("complete orders/s", format!("{:.0}", self.orders_per_s)),
            row("messages/s, all topics", format!("{:.0}", self.messages_per_s)),
            row("PlaceOrder to PAID, p50, p99", both(&self.crowded)),
            row(&format!("  at {CALM_RATE} commands/s"), both(&self.calm)),
        ]
    }

    fn verdict(&self) -> Vec<[String; 2]> {
        let report = &self.report;
        let named = [report.lost(), report.doubled(), report.out_of_order(), report.unbalanced()];
        let all: u64 = report.violations().map(|(_, found)| found.count).sum();
        let names = ["lost", "doubled", "out of order", "unbalanced"];
        let mut rows: Vec<_> = names.iter().zip(named).map(|(name, number)| row(name, count(number))).collect();
        rows.push(row("other contradictions", count(all - named.iter().sum::<u64>())));
        rows
    }
}

fn row(name: &str, value: String) -> [String; 2] {
    [name.to_owned(), value]
}

fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// From cents.
fn euros(minor: i64) -> String {
    let (sign, cents) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
    format!("{sign}{}.{:02} EUR", count(cents / 100), cents % 100)
}
