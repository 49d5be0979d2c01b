//! Catch-up: many small records lie in the topic before the node starts. How fast does it get through them,
//! and in how much memory?
//!
//! Invariant: the bound on memory is one on all that the node's process ever had resident, as the kernel
//! counts it. Deliberately absent: a bound on any time.

use futures::future::BoxFuture;

use super::{
    Error,
    apart::Launch,
    memory::mib,
    pipeline::Watcher,
    precise,
    site::{Drained, Sample, Site},
};
use crate::{
    findings::{Axis, Findings, Line, rounded},
    work::{Ids, Mix},
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the node is started.
    pub launch: Launch,
    /// Records that lie there, about.
    pub records: u32,
    /// Resident bytes that are too many.
    pub resident_max: u64,
}

impl Options {
    /// How many records a whole run has.
    pub const RECORDS: u32 = 1_000_000;

    /// This number of records, in less than 512 MiB.
    pub const fn new(launch: Launch, records: u32) -> Self {
        Self { launch, records, resident_max: 512 << 20 }
    }
}

/// What it asks.
pub const QUESTION: &str = "How fast does a node catch up that was away, and does its memory stay bounded? Small records lie in \
                        the topic before it starts.";
const NODE: &str = "node";
/// Commands that are drained before anything is measured.
const WARM_UP: u32 = 50_000;

/// Runs it on a fresh embedded stack, which is gone afterwards.
pub fn run(options: Options, watcher: Watcher) -> BoxFuture<'static, Result<Findings, Error>> {
    Box::pin(async move {
        let Options { launch, records, resident_max } = options;
        let mut findings = Findings::of("catch-up", QUESTION).set_up("records", records);
        let mut site = Site::open(&launch, &watcher, WARM_UP.min(records)).await?;
        let seed = site.seed();
        let small = Mix { ids: Ids::V4, value_bytes: 0, ..Mix::benchmark(records.div_ceil(4), seed) };
        site.produce(small.windows()).await?;
        let drained = site.drain("catching up").await?;
        note(&mut findings, &drained);
        if drained.memory.peak >= resident_max {
            let (peak, most) = (mib(drained.memory.peak), mib(resident_max));
            findings.breaches.push(format!("I11 memory: {peak} MiB were resident, {most} are too many"));
        }
        site.account(&mut findings).await?;
        site.close().await?;
        Ok(findings)
    })
}

fn note(findings: &mut Findings, drained: &Drained) {
    findings.figure(NODE, "rate", drained.per_second, "records/s");
    findings.figure(NODE, "time to the first event", rounded(drained.first_event.as_secs_f64(), 2), "s");
    findings.figure(NODE, "CPU, node", drained.cpu_us.design, "µs/record");
    findings.figure(NODE, "CPU, Postgres", drained.cpu_us.postgres, "µs/record");
    findings.figure(NODE, "resident, peak", mib(drained.memory.peak), "MiB");
    let line = |name: &str, points| vec![Line { name: name.to_owned(), points }];
    let seconds = || Axis::linear("since the node's start, s");
    let rate = |pair: &[Sample]| {
        let (events, took) = (precise(pair[1].events - pair[0].events), pair[1].seconds - pair[0].seconds);
        (pair[1].seconds, rounded(events / took.max(1e-3), 0))
    };
    let rates = drained.samples.windows(2).map(rate).collect();
    findings.plot("rate while catching up", seconds(), Axis::linear("records/s"), line(NODE, rates));
    let resident = drained.samples.iter().map(|sample| (sample.seconds, mib(sample.resident))).collect();
    findings.plot("memory while catching up", seconds(), Axis::linear("resident, MiB"), line(NODE, resident));
}
