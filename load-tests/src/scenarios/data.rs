//! Data growth: the same work on more and more orders that are stored.
//!
//! Two kinds of work, each drained from a full topic by a node just started: commands to new orders, and
//! additions to stored ones, spread evenly over all. How many orders these reach is the same at every size,
//! so that as many aggregates are read for the same number of commands. Each load is drained twice, and the
//! second counts: the first change to a page after a checkpoint writes the whole page, which in a stretch of
//! seconds is much, and little in the quarter of an hour between two checkpoints. Deliberately absent:
//! growing the topics, which the fault trials do.

use futures::future::BoxFuture;

use super::{
    Error,
    apart::Launch,
    pipeline::Watcher,
    precise,
    site::{Drained, Site},
};
use crate::{
    findings::{Axis, Findings, Line, rounded},
    work::existing,
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the node is started.
    pub launch: Launch,
    /// Commands in each measured stretch.
    pub commands: u32,
    /// How many orders are stored, ascending.
    pub sizes: Vec<u32>,
}

impl Options {
    /// The sizes that are measured in a short run.
    pub const SIZES: [u32; 2] = [10_000, 1_000_000];
    /// The one that a full run adds: writing it takes minutes, and some 10 GB.
    pub const FULL: u32 = 10_000_000;
}

/// What it asks.
pub const QUESTION: &str = "Does a command cost more when more orders are stored? The same work, with more and more orders \
                        in the tables: commands to new orders, and to stored ones spread over all.";

/// The kinds of work.
const WORKS: [&str; 2] = ["existing", "new"];

/// Runs it on a fresh embedded stack, which is gone afterwards.
pub fn run(options: Options, watcher: Watcher) -> BoxFuture<'static, Result<Findings, Error>> {
    Box::pin(async move {
        let Options { launch, commands, sizes } = options;
        // At least one of the smallest size's orders, and some commands to each.
        let reached = sizes.first().copied().unwrap_or(1).min(commands / 4).max(1);
        let mut findings = Findings::of("data", QUESTION)
            .set_up("commands", commands)
            .set_up("stored orders that get commands", reached);
        let mut site = Site::open(&launch, &watcher, commands).await?;
        for size in &sizes {
            site.store(*size).await?;
            for work in WORKS {
                let seed = site.seed();
                let orders = (work == "existing").then(|| site.stored.pick(reached, seed));
                let what = format!("{size} stored, {work} orders");
                for is_measured in [false, true] {
                    let seed = site.seed();
                    match orders.clone() {
                        Some(orders) => site.produce(existing::adds(orders, commands / reached, seed)).await?,
                        None => site.produce_new(commands).await?,
                    }
                    if is_measured {
                        note(&mut findings, &of(*size), work, &site.drain_on(&what).await?);
                    } else {
                        site.drain(&format!("{what}, unmeasured")).await?;
                    }
                }
            }
        }
        compare(&mut findings, &sizes);
        site.account(&mut findings).await?;
        site.close().await?;
        Ok(findings)
    })
}

fn of(size: u32) -> String {
    format!("{size} stored")
}

/// The figures of each kind of work, and their units.
const FIGURES: [(&str, &str); 7] = [
    ("rate", "commands/s"),
    ("CPU, node", "µs"),
    ("CPU, Postgres", "µs"),
    ("WAL, without full pages", "bytes"),
    ("WAL, full pages", "bytes"),
    ("rows written", "rows"),
    ("transactions", "transactions"),
];

fn name(work: &str, figure: &str) -> String {
    format!("{figure}, {work} orders")
}

fn note(findings: &mut Findings, of: &str, work: &str, drained: &Drained) {
    let Drained { per_second, cpu_us, database, full_page_bytes, .. } = drained;
    let values = [
        *per_second,
        cpu_us.design,
        cpu_us.postgres,
        database.wal_bytes - full_page_bytes,
        *full_page_bytes,
        database.rows,
        database.transactions,
    ];
    for ((figure, unit), value) in FIGURES.into_iter().zip(values) {
        let unit = if figure == "rate" { unit.to_owned() } else { format!("{unit}/command") };
        findings.figure(of, &name(work, figure), rounded(value, 4), &unit);
    }
}

/// Ratios to the smallest size, and a curve for each figure that has one.
fn compare(findings: &mut Findings, sizes: &[u32]) {
    let Some(smallest) = sizes.first() else { return };
    for work in WORKS {
        for (figure, _) in &FIGURES[..4] {
            findings.ratios(&of(*smallest), &name(work, figure));
        }
    }
    for (figure, unit) in &FIGURES[..4] {
        let line = |work: &str| {
            let at = |size: &u32| (precise((*size).into()), findings.value(&of(*size), &name(work, figure)));
            Line { name: format!("{work} orders"), points: sizes.iter().map(at).collect() }
        };
        let lines = WORKS.map(line).to_vec();
        let (x, y) = (Axis::logarithmic("orders stored"), Axis::linear(&format!("{figure}, {unit}")));
        findings.plot(&format!("{figure} by orders stored"), x, y, lines);
    }
}
