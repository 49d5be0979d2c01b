//! Poison: one record of a hundred can't be decoded, or fails however often it is tried. Are the others as
//! fast as without?
//!
//! A bad record is of a stranger (no envelope, garbage, an unknown type, another's subject, a quantity of 0),
//! or it is a sound command to an order whose stored state can't be read: that one fails at each of its
//! attempts. Each has a key of its own. Loads with and without take turns. Deliberately absent: what becomes
//! of later commands to a parked order; the simulator and the system tests have that.

use futures::future::BoxFuture;

use super::{Error, apart::Launch, pipeline::Watcher, site::Site};
use crate::{
    findings::{Findings, rounded},
    work::{Expect, Ids, Mix, Planned, existing},
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the node is started.
    pub launch: Launch,
    /// Good commands in each measured stretch.
    pub commands: u32,
    /// How often both are measured, in turn; the medians count.
    pub rounds: u32,
}

/// What it asks.
pub const QUESTION: &str = "Does poison slow down its neighbours? 1% of the records can't be decoded, or fail at each attempt; \
                        each must be a dead letter, once, and the others must be done as without them.";
const CLEAN: &str = "without";
const POISONED: &str = "with 1% bad";
/// Good records to one of either kind of bad ones.
const GOOD_TO_BAD: u32 = 200;

/// Runs it on a fresh embedded stack, which is gone afterwards.
pub fn run(options: Options, watcher: Watcher) -> BoxFuture<'static, Result<Findings, Error>> {
    Box::pin(async move {
        let Options { launch, commands, rounds } = options;
        let mut findings = Findings::of("poison", QUESTION).set_up("good commands", commands).set_up("rounds", rounds);
        let mut site = Site::open(&launch, &watcher, commands).await?;
        let mut found = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            // Whatever comes second finds a warmer broker and larger topics.
            for is_bad in [round % 2 == 1, round % 2 == 0] {
                if is_bad {
                    produce_poisoned(&mut site, commands).await?;
                } else {
                    site.produce_new(commands).await?;
                }
                found[usize::from(is_bad)].push(site.drain(if is_bad { POISONED } else { CLEAN }).await?);
            }
        }
        for (of, drained) in [CLEAN, POISONED].into_iter().zip(&found) {
            findings.median(of, "rate", "good commands/s", drained, |drained| drained.per_second);
            findings.median(of, "CPU, node", "µs/good command", drained, |drained| drained.cpu_us.design);
            findings.median(of, "CPU, Postgres", "µs/good command", drained, |drained| drained.cpu_us.postgres);
        }
        let ratio = findings.value(POISONED, "rate") / findings.value(CLEAN, "rate");
        findings.figure(POISONED, "rate, of that without", rounded(ratio, 3), "x");
        let report = site.account(&mut findings).await?;
        for (reason, count) in &report.dead_letters {
            let count = f64::from(u32::try_from(*count).unwrap_or(u32::MAX));
            findings.figure(POISONED, &format!("dead letters, {reason}"), count, "records");
        }
        site.close().await?;
        Ok(findings)
    })
}

async fn produce_poisoned(site: &mut Site, commands: u32) -> Result<(), Error> {
    let failing = site.store_unreadable((commands / GOOD_TO_BAD).max(1)).await?;
    let failing: Vec<Planned> = existing::adds(failing, 1, site.seed()).flatten().collect();
    // Of 1,000 orders, with four commands each.
    let bad = u16::try_from(4_000 / GOOD_TO_BAD).unwrap_or(u16::MAX);
    let mix = Mix { ids: Ids::V4, bad, ..Mix::benchmark(commands.div_ceil(4), site.seed()) };
    site.produce(poisoned(&mix, failing)).await
}

/// The windows of `mix`, with these commands, which fail, spread over them.
fn poisoned(mix: &Mix, failing: Vec<Planned>) -> impl Iterator<Item = Vec<Planned>> + Send + use<> {
    let count = usize::try_from(mix.orders.div_ceil(mix.window.max(1))).unwrap_or(1).max(1);
    let share = failing.len().div_ceil(count).max(1);
    let mut failing = failing.into_iter().map(|record| Planned { expect: Expect::DeadLetter("POISON"), ..record });
    mix.windows().map(move |window| {
        let share: Vec<Planned> = failing.by_ref().take(share).collect();
        let every = window.len() / (share.len() + 1) + 1;
        let mut share = share.into_iter();
        let mut all = Vec::with_capacity(window.len() + share.len());
        for (place, record) in window.into_iter().enumerate() {
            if place % every == every - 1 {
                all.extend(share.next());
            }
            all.push(record);
        }
        all.extend(share);
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poison_is_one_record_of_a_hundred_of_both_kinds() {
        let mix = Mix { bad: 20, ..Mix::benchmark(12_000, 1) };
        let failing = existing::adds((0..240).map(|_| Ids::V4.fresh()).collect(), 1, 1).flatten().collect();
        let windows: Vec<Vec<Planned>> = poisoned(&mix, failing).collect();
        let count = |is: fn(&Expect) -> bool| windows.iter().flatten().filter(|record| is(&record.expect)).count();
        assert_eq!(count(|expect| *expect == Expect::DeadLetter("POISON")), 240);
        let garbage = count(|expect| matches!(expect, Expect::DeadLetter(_))) - 240;
        assert!((200..280).contains(&garbage), "{garbage}");
        assert_eq!(count(|expect| *expect == Expect::Event), 48_000);
        let first = windows[0].iter().position(|record| record.expect == Expect::DeadLetter("POISON"));
        assert!(first.is_some_and(|place| (100..1_000).contains(&place)), "{first:?}");
    }
}
