//! Cold start: a node comes up where many aggregates are stored and few are asked for.
//!
//! One command lies in the topic before the node is started, for the time to its first event; once the node
//! owns every partition, commands follow to orders spread over all that are stored, in two waves: what the
//! second adds to the node's memory is what live actors take, for buffers and connections are there already.
//! Deliberately absent: subtracting anything from the node's memory.

use std::time::Duration;

use futures::future::BoxFuture;

use super::{
    Error,
    apart::Launch,
    memory::mib,
    pipeline::Watcher,
    precise,
    site::{Site, now_us},
};
use crate::{
    findings::{Findings, rounded},
    work::existing,
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the node is started.
    pub launch: Launch,
    /// How many orders are stored.
    pub stored: u32,
    /// How many of them get a command.
    pub live: u32,
}

impl Options {
    /// 1% of `stored` orders get a command.
    pub const fn new(launch: Launch, stored: u32) -> Self {
        Self { launch, stored, live: stored / 100 }
    }
}

/// What it asks.
pub const QUESTION: &str = "How soon and how large is a node that starts where many orders are stored and few are asked for? \
                        Nothing may be read that is not asked for.";
const NODE: &str = "node";
/// Commands that are drained before anything is measured.
const WARM_UP: u32 = 20_000;
/// What a node that was idle takes back is freed by then.
const REST: Duration = Duration::from_secs(2);

/// Runs it on a fresh embedded stack, which is gone afterwards.
pub fn run(options: Options, watcher: Watcher) -> BoxFuture<'static, Result<Findings, Error>> {
    Box::pin(async move {
        let Options { launch, stored, live } = options;
        let mut findings = Findings::of("cold-start", QUESTION)
            .set_up("orders stored", stored)
            .set_up("orders that get a command", live);
        let mut site = Site::open(&launch, &watcher, WARM_UP.min(stored.max(4_000))).await?;
        site.store(stored).await?;
        let seed = site.seed();
        let mut orders = site.stored.pick(live.max(3), seed);
        let rest = orders.split_off(1);
        let (first, second) = rest.split_at(rest.len() / 2);
        let waves = [first.to_vec(), second.to_vec()];

        let before = site.read();
        site.produce(existing::adds(orders, 1, seed)).await?;
        let began_us = now_us();
        let mut node = site.start()?;
        let ready = node.ready().await?;
        site.caught_up(&mut node, "the first event").await?;
        let first_event = Duration::from_micros(site.span(before, before + 1)?.first_us.saturating_sub(began_us));
        tokio::time::sleep(REST).await;
        findings.figure(NODE, "time to owning all partitions", rounded(ready.as_secs_f64(), 2), "s");
        findings.figure(NODE, "time to the first event", rounded(first_event.as_secs_f64(), 2), "s");
        let mut resident = vec![node.memory()?.resident];
        for (number, wave) in (1..).zip(waves) {
            let (before, count) = (site.read(), wave.len() as u64);
            let seed = site.seed();
            site.produce(existing::adds(wave, 1, seed)).await?;
            site.caught_up(&mut node, "commands to cold orders").await?;
            let rate = site.span(before, before + count)?.per_second;
            findings.figure(NODE, &format!("rate, wave {number}"), rate, "commands/s");
            tokio::time::sleep(REST).await;
            resident.push(node.memory()?.resident);
        }
        for (name, bytes) in ["before", "after half", "after all"].into_iter().zip(&resident) {
            findings.figure(NODE, &format!("resident, {name}"), mib(*bytes), "MiB");
        }
        let grown = |from: usize, actors: usize| {
            precise(resident[2].saturating_sub(resident[from])) / precise(actors.max(1) as u64)
        };
        let all = first.len() + second.len();
        findings.figure(NODE, "memory per live actor, all told", rounded(grown(0, all), 0), "bytes");
        findings.figure(NODE, "memory per live actor, second half", rounded(grown(1, second.len()), 0), "bytes");
        findings.figure(NODE, "resident, peak", mib(node.memory()?.peak), "MiB");
        node.stop().await?;
        site.account(&mut findings).await?;
        site.close().await?;
        Ok(findings)
    })
}
