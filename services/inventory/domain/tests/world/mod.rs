//! Aggregates over in-memory pools: what the committer does, one command at a time.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;

use holdfast_core::{
    Aggregate, Context, Decision, TimerChange, Timestamp,
    pool::{Pool, grant},
};
use holdfast_inventory_domain::{Line, Sku};

pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_795_305_600_000);

pub(crate) type Pools = BTreeMap<String, Pool>;

/// What a command led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome<E> {
    pub(crate) events: Vec<E>,
    pub(crate) timers: Vec<TimerChange>,
}

pub(crate) fn pools<const N: usize>(pools: [(&str, i64, i64); N]) -> Pools {
    pools.into_iter().map(|(name, total, held)| (name.to_owned(), Pool { total, held })).collect()
}

pub(crate) fn line(name: &str, quantity: i64) -> Line {
    Line { sku: Sku::new(name).expect("well-formed"), quantity }
}

/// Decides, settles with the pools, and applies the events.
pub(crate) fn handle<A: Aggregate>(
    aggregate: &mut A,
    pools: &mut Pools,
    key: &str,
    command: &A::Command,
) -> Result<Outcome<A::Event>, A::Rejection> {
    let effects = match aggregate.decide(command, &Context { key, version: 0, now: NOW })? {
        Decision::Done(effects) => effects,
        Decision::Conditional { wants, granted, refused } => {
            if grant(pools, &wants) {
                granted
            } else {
                refused?
            }
        }
        Decision::Unprepared(lacking) => panic!("{lacking}"),
    };
    for event in &effects.events {
        aggregate.evolve(event);
    }
    Ok(Outcome { events: effects.events, timers: effects.timers })
}
