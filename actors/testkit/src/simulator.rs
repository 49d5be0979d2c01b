//! A cluster on one thread: the machines of production (`holdfast_machine`: takers, lanes, gates) over a
//! store, a log, a consumer group, actors and clocks in memory, and one seed that decides everything.
//!
//! The seed decides what arrives, what each question is answered and when, in what order, who is assigned
//! what, who dies, and before or after which of its actions; and how often each of these happens at all, so
//! that seeds differ in what they try. Each question has two moments: when it takes effect, and when its
//! answer comes; anything may happen between them, and the asker may be gone. The same seed gives the same
//! trace, which [`Outcome::digest`] stands for. Invariants are checked at every commit, answer, read and
//! publication; once faults have ended, everything must come to an end (I8). Deliberately absent: what a
//! broker refuses, and histories that are lost, which have tests of their own with the real runtime.

mod checks;
mod coverage;
mod faults;
mod group;
mod journal;
mod log;
mod mutants;
mod node;
mod question;
mod sabotage;
mod shrink;
mod store;
mod surroundings;
#[cfg(test)]
mod tests;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_core::KeyHash;
use holdfast_machine::Rules;

use self::world::World;
pub use self::{
    coverage::{Coverage, Death},
    faults::Fault,
    mutants::{Caught, UNSEEN, catch_all, mutants},
    sabotage::Sabotage,
    shrink::shrink,
};

/// For this long a producer may go on sending by a count that has changed.
const PRODUCERS_MAX_AGE: Duration = Duration::from_secs(10);

/// What a message does when it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It is applied.
    Plain,
    /// It is rejected.
    Rejected,
    /// It is applied if one of a shared quantity is left.
    Conditional,
    /// It sets its aggregate's timer, to this long from then.
    SetsTimer(Duration),
    /// It intends an effect.
    Intends,
    /// It needs a look-up in another context, which may fail.
    NeedsLookUp,
    /// Its handler fails this often.
    Flaky(u32),
    /// Its handler fails always.
    Poison,
    /// What it causes is more than its topic takes, in every other state of its aggregate.
    TooLarge,
    /// The store refuses its rows.
    Refused,
    /// No aggregate sees it.
    Junk,
    /// It holds an offset and nothing else.
    Ignored,
    /// Another context's relay addresses nothing by a smaller count from here on.
    Mark(u32),
}

impl Nature {
    const fn is_ignored(self) -> bool {
        matches!(self, Self::Ignored | Self::Mark(_))
    }
}

/// From here on ids are those of another context's events, of firings, and of effects' ends.
const EVENT: u64 = 1 << 60;
const FIRING: u64 = 1 << 61;
const END: u64 = 1 << 62;

/// A message of the simulation.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub id: u64,
    pub key: Arc<str>,
    pub nature: Nature,
}

impl Letter {
    /// A setting of a timer fires.
    fn firing(key: Arc<str>, serial: u64) -> Self {
        Self { id: FIRING | serial, key, nature: Nature::Plain }
    }

    /// An effect has ended that a message intended.
    fn end_of(key: Arc<str>, effect: u64) -> Self {
        Self { id: END | effect, key, nature: Nature::Plain }
    }

    fn hash(&self) -> KeyHash {
        KeyHash::of(self.key.as_bytes())
    }

    /// Whether a repeat is recognised by its claim.
    const fn is_claimed(&self) -> bool {
        self.id < EVENT
    }

    /// Whether it is another context's event, of which a repeat is recognised by its number.
    const fn is_event(&self) -> bool {
        EVENT <= self.id && self.id < FIRING
    }

    /// Whether another event of the same aggregate is the same or a later one.
    const fn is_passed_by(&self, other: u64) -> bool {
        self.id <= other && other < FIRING
    }

    /// The effect whose end it is.
    const fn effect(&self) -> u64 {
        self.id & !END
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
        Self { rules: Rules::SOUND, sabotage: None, without: BTreeSet::new(), steps: 1_600, skipped: BTreeSet::new() }
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

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The lowest seed that breaks a promise, and which.
    pub violation: Option<(u64, Violation)>,
    /// What was reached.
    pub coverage: Coverage,
    /// How often each fault was injected.
    pub faults: BTreeMap<Fault, u64>,
    /// Strong reads that were answered with a state.
    pub reads: u64,
}

impl Survey {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.coverage.add(&outcome.coverage);
        for (fault, count) in outcome.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.reads += outcome.reads;
        if let Some(violation) = outcome.violation
            && self.violation.as_ref().is_none_or(|(lowest, _)| seed < *lowest)
        {
            self.violation = Some((seed, violation));
        }
    }
}

/// Runs many seeds, on all cores.
pub fn survey(seeds: Range<u64>, setup: &Setup) -> Survey {
    let next = AtomicU64::new(seeds.start);
    let survey = Mutex::new(Survey::default());
    on_all_cores(|| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let (outcome, _) = run(seed, setup, false);
            survey.lock().unwrap_or_else(PoisonError::into_inner).add(seed, outcome);
        }
    });
    survey.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Does the same on each core, and waits for all.
fn on_all_cores(work: impl Fn() + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(&work);
        }
    });
}

/// Runs one seed; `trace` keeps every step as a line.
pub fn run(seed: u64, setup: &Setup, trace: bool) -> (Outcome, Vec<String>) {
    World::new(seed, setup, trace).run()
}
