//! A question that is asked until it succeeds.
//!
//! Invariant: one question at a time is under way, and the pauses between failures grow up to a bound.
//! Deliberately absent: what is asked.

use std::time::Duration;

use holdfast_core::{
    PartitionId,
    retry::{self, RetryPolicy},
};

use crate::{Ask, Asks, Now};

/// Between attempts at what is away.
const AWAY: RetryPolicy =
    RetryPolicy { budget: u32::MAX, base: Duration::from_millis(50), max: Duration::from_secs(5) };

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    /// The question under way.
    pub ask: Option<Ask>,
    /// When it is asked next.
    pub due: Duration,
    failures: u32,
}

impl Step {
    /// Asked at `due` for the first time.
    pub const fn due(due: Duration) -> Self {
        Self { ask: None, due, failures: 0 }
    }

    /// The same question, asked at `due`, as often failed as this one.
    pub const fn at(&self, due: Duration) -> Self {
        Self { ask: None, due, failures: self.failures }
    }

    pub const fn is_due(&self, now: Now) -> bool {
        self.ask.is_none() && self.due.as_nanos() <= now.awake.as_nanos()
    }

    /// Asks: the answer to the number that is returned is waited for from here on.
    pub fn begin(&mut self, asks: &mut Asks) -> Ask {
        let ask = asks.next();
        self.ask = Some(ask);
        ask
    }

    /// The next question after this one was answered: asked at once, and after a failure no sooner than this
    /// one would be.
    pub const fn next(&self, now: Now) -> Self {
        self.at(now.awake)
    }

    /// The step after one more failure: due after a pause that grows, and differs from partition to
    /// partition.
    pub fn after_failure(&self, partition: PartitionId, now: Now) -> Self {
        let failures = self.failures.saturating_add(1);
        let [seed, ..] = partition.0.wrapping_mul(97).wrapping_add(failures).to_le_bytes();
        let pause = retry::spread(AWAY.backoff(failures), seed);
        Self { ask: None, due: now.awake + pause, failures }
    }
}
