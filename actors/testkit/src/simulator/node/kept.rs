//! What the shell of a node keeps.
//!
//! Deliberately absent: what it does with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{PartitionId, epoch::Token};
use holdfast_machine::{
    Ask, Now, gate,
    lane::{self, Number},
};

use crate::simulator::{
    Letter,
    log::Input,
    store::{Source, Write},
};

/// The answer to a caller once its message is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Applied,
    Rejected,
    AppliedIfGranted,
}

/// What an actor decided, until it is concluded or undone.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub place: ActorPlace,
    pub partition: PartitionId,
    pub after: Vec<u64>,
    pub after_refused: Vec<u64>,
    pub write: Option<Write>,
    pub callers: Vec<(Number, Said)>,
    pub intended: Vec<u64>,
    pub has_advanced: bool,
}

/// What arrived, as the shell keeps it.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub letter: Option<Letter>,
    pub partition: PartitionId,
    pub term: u64,
    pub record: Option<(Input, u64)>,
    pub mail: Option<(i64, u32)>,
    /// The number of the timer's setting.
    pub firing: Option<u64>,
    /// Whether it is an effect's end.
    pub is_end: bool,
    pub is_call: bool,
    pub is_answered: bool,
    /// The version that the store had when a strong read began.
    pub at_least: usize,
}

impl Body {
    pub fn source(&self) -> Option<Source> {
        let record = self.record.map(|(input, offset)| Source::Record(input, offset));
        record.or(self.mail.map(|(position, _)| Source::Mail(position)))
    }
}

/// A partition that is owned, as those know it who send to it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub term: u64,
    pub lease_until: Duration,
    /// The tokens under which it has been held.
    pub tokens: Vec<Token>,
    pub is_serving: bool,
}

/// A partition as the shell of the lane knows it.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    pub term: u64,
    /// The count by which keys are at home there.
    pub count: u32,
    pub tokens: Vec<Token>,
    pub hand_over: Option<Ask>,
    /// For [`holdfast_machine::Rules::drops_actors_when_fenced`] left out; false otherwise.
    pub is_stopped: bool,
}

/// An actor, by the ownership that it belongs to.
pub(super) type ActorPlace = (u64, Arc<str>);

/// Actors and states in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// Committed states.
    pub actors: BTreeMap<ActorPlace, Vec<u64>>,
    /// Actors with a delivery that has not ended.
    pub busy: BTreeMap<ActorPlace, u64>,
    /// Strong reads that wait for it, with the version that each has to show.
    pub awaiting: BTreeMap<ActorPlace, Vec<usize>>,
    /// States that were looked up for the batch, and the look-up that counts.
    pub cold: BTreeMap<Arc<str>, Vec<u64>>,
    pub finding: Option<Ask>,
    pub decided: BTreeMap<u64, Decided>,
}

/// The commit in flight, for when it is sent again.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight {
    pub writes: Vec<Write>,
    pub parts: Vec<Option<usize>>,
    pub deliveries: BTreeSet<u64>,
    pub has_happened: bool,
    /// The outbox heads of its partitions.
    pub heads: BTreeMap<PartitionId, u64>,
}

/// A node's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::simulator) struct Clock {
    /// For how long its machine has been suspended.
    pub slept: Duration,
    /// Until then it does nothing.
    pub wakes_at: Duration,
}

impl Clock {
    pub fn now(self, boot: Duration) -> Now {
        Now { boot, awake: boot.saturating_sub(self.slept) }
    }

    /// Does nothing for a while: its process is stopped, or its machine suspended.
    pub fn stop(&mut self, now: Duration, time: Duration, is_suspended: bool) {
        self.wakes_at = now + time;
        self.slept += if is_suspended { time } else { Duration::ZERO };
    }
}

/// Who listens for counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Listener {
    Takers,
    Lane,
    Gates,
}

/// What the takers tell the lane.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Own(Box<lane::Own>),
    Drop { partition: PartitionId, term: u64 },
    Release { ask: Ask, partition: PartitionId, term: u64 },
}

/// Reads one input of one partition, behind its gate.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// The ownership under which it reads.
    pub term: u64,
    pub gate: gate::Machine,
    /// The offset of the next record.
    pub next: u64,
    /// It was read, and waits at the gate.
    pub waits: bool,
}

impl Reader {
    pub fn due(&self) -> Option<Duration> {
        self.gate.due()
    }
}
