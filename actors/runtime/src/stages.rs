//! Where the time of a message goes: the stages of its way through a lane, as histograms.
//!
//! Invariant: a stage begins where the one before it has ended, so that they add up: arrival (in a reader),
//! queue, look-up, decision, commit, publication (in a relay). What a batch waits for the commit before it
//! is part of its decision. Deliberately absent: single messages, which traces show.

use metrics::Histogram;
use tokio::time::Instant;

use crate::telemetry;

/// Those of a lane.
pub(crate) struct Stages {
    queue: Histogram,
    look_up: Histogram,
    decision: Histogram,
    commit: Histogram,
    /// When the batch was begun, or its decision.
    since: Instant,
}

impl Stages {
    pub fn new(context: &'static str) -> Self {
        let of = |name| metrics::histogram!(name, "context" => context);
        Self {
            queue: of(telemetry::QUEUE_SECONDS),
            look_up: of(telemetry::LOOK_UP_SECONDS),
            decision: of(telemetry::DECISION_SECONDS),
            commit: of(telemetry::COMMIT_SECONDS),
            since: Instant::now(),
        }
    }

    /// A batch begins to be looked up.
    pub fn looks_up(&mut self) {
        self.since = Instant::now();
    }

    /// A message of the batch was admitted then.
    pub fn admitted(&self, at: Instant) {
        self.queue.record(self.since.saturating_duration_since(at));
    }

    /// Actors begin to decide it.
    pub fn decides(&mut self) {
        self.look_up.record(self.since.elapsed());
        self.since = Instant::now();
    }

    /// Its commit begins.
    pub fn commits(&self) {
        self.decision.record(self.since.elapsed());
    }

    /// For what commits: each attempt counts.
    pub fn commit(&self) -> Histogram {
        self.commit.clone()
    }
}
