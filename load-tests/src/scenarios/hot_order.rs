//! One hot order: `AddItem` and `RemoveItem` in turn, all to one aggregate, as fast as it goes.
//!
//! Nothing of it can go side by side: one partition, one lane, one actor, and each version follows from the
//! one before. Beside it the same number of commands spread over many orders, on the same site. Deliberately
//! absent: a hot sku, which the flash sale has.

use futures::future::BoxFuture;

use super::{Error, apart::Launch, pipeline::Watcher, site::Site};
use crate::{
    findings::{Findings, rounded},
    work::{Ids, existing},
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the node is started.
    pub launch: Launch,
    /// Commands in each measured stretch.
    pub commands: u32,
    /// How often each kind of work is measured, in turn; the medians count.
    pub rounds: u32,
}

/// What it asks.
pub const QUESTION: &str = "How fast does a single order go? AddItem and RemoveItem in turn to one order, each of which must \
                        have its one event, in order; beside it the same number of commands to many orders.";

/// The kinds of work.
const HOT: &str = "one hot order";
const SPREAD: &str = "many orders";

/// Runs it on a fresh embedded stack, which is gone afterwards.
pub fn run(options: Options, watcher: Watcher) -> BoxFuture<'static, Result<Findings, Error>> {
    Box::pin(async move {
        let Options { launch, commands, rounds } = options;
        let mut findings = Findings::of("hot-order", QUESTION).set_up("commands", commands).set_up("rounds", rounds);
        let mut site = Site::open(&launch, &watcher, commands).await?;
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let seed = site.seed();
            // The first creates it.
            site.produce(existing::hot(Ids::V4.fresh(), commands.saturating_sub(1), seed)).await?;
            found[0].push(site.drain(HOT).await?);
            site.produce_new(commands).await?;
            found[1].push(site.drain(SPREAD).await?);
        }
        for (of, drained) in [HOT, SPREAD].into_iter().zip(&found) {
            findings.median(of, "rate", "commands/s", drained, |drained| drained.per_second);
            findings.median(of, "CPU, node", "µs/command", drained, |drained| drained.cpu_us.design);
            findings.median(of, "CPU, Postgres", "µs/command", drained, |drained| drained.cpu_us.postgres);
            findings.median(of, "WAL", "bytes/command", drained, |drained| drained.database.wal_bytes);
        }
        let ratio = findings.value(HOT, "rate") / findings.value(SPREAD, "rate");
        findings.figure(HOT, "rate, of that of many orders", rounded(ratio, 3), "x");
        site.account(&mut findings).await?;
        site.close().await?;
        Ok(findings)
    })
}
