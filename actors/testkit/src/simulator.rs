//! Lanes on one thread: the machine of production (`holdfast_machine::lane`) over a store, a log, actors and
//! clocks in memory, and one seed that decides everything.
//!
//! The seed decides what arrives, what each question is answered and when, in what order, who loses a
//! partition and who dies; and how often each of these happens at all, so that seeds differ in what they try.
//! Each question has two moments: when it takes effect in the store, and when its answer comes; anything may
//! happen between them, and the asker may be gone. The same seed gives the same trace, which
//! [`Outcome::digest`] stands for. Invariants are checked at every commit, answer, read and publication; once
//! faults have ended, everything must come to an end (I8). Deliberately absent so far: the takers and gates
//! (an oracle stands for both: it assigns partitions, and lets a new partition be read once those before it
//! are consumed as far as they went before the growth), relays that fail, timers, effects and other contexts'
//! events.

mod checks;
mod coverage;
mod faults;
mod journal;
mod mutants;
mod node;
mod sabotage;
mod shrink;
mod store;
#[cfg(test)]
mod tests;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use holdfast_core::KeyHash;
use holdfast_machine::Rules;

use self::world::World;
pub use self::{
    coverage::{Coverage, INPUTS, STATES},
    faults::Fault,
    mutants::{Caught, LANE_RULES, LeftOut, SHELL_RULES, UNSEEN, catch, mutants},
    sabotage::Sabotage,
    shrink::shrink,
};

/// What a message does when it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It is applied.
    Plain,
    /// It is rejected.
    Rejected,
    /// It is applied if one of a shared quantity is left.
    Conditional,
    /// It needs a look-up in another context, which may fail.
    NeedsLookUp,
    /// Its handler fails this often.
    Flaky(u32),
    /// Its handler fails always.
    Poison,
    /// The store refuses its rows.
    Refused,
    /// No aggregate sees it.
    Junk,
    /// It holds an offset and nothing else.
    Ignored,
}

/// A message of the simulation.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub id: u64,
    pub key: Arc<str>,
    pub nature: Nature,
}

impl Letter {
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.key.as_bytes())
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

/// What is run, beside the seed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which rules the machines keep.
    pub rules: Rules,
    /// What the shells of the nodes do wrong.
    pub sabotage: Option<Sabotage>,
    /// Faults that are not injected.
    pub without: BTreeSet<Fault>,
    /// Steps before faults end.
    pub steps: u32,
    /// Those of them that are left out.
    pub skipped: BTreeSet<u32>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { rules: Rules::SOUND, sabotage: None, without: BTreeSet::new(), steps: 700, skipped: BTreeSet::new() }
    }
}

/// What one seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first broken promise, if any.
    pub violation: Option<Violation>,
    /// Stands for the whole trace.
    pub digest: u64,
    /// What was reached.
    pub coverage: Coverage,
    /// How often each fault was injected.
    pub faults: BTreeMap<Fault, u64>,
    /// Strong reads that were answered with a state.
    pub reads: u64,
    /// Steps until it ended.
    pub steps: u32,
}

/// Runs one seed; `trace` keeps every step as a line.
pub fn run(seed: u64, setup: &Setup, trace: bool) -> (Outcome, Vec<String>) {
    World::new(seed, setup, trace).run()
}
