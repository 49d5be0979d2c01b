//! The faults that a run injects, each of which can be left out by name.
//!
//! A fault that is left out is one that the dice do not call for; each step throws dice of its own, so the
//! next is the same. Deliberately absent: when a fault is tried, which the world and its nodes say.

use std::collections::{BTreeMap, BTreeSet};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The group gives a partition to another node.
    Moved,
    /// A node dies.
    Died,
    /// A node dies before or after one of the things that it is to do.
    DiedWithin,
    /// A node is stopped in good order.
    Stopped,
    /// A node joins.
    Joined,
    /// A node's process is stopped for a while.
    Paused,
    /// A node reaches neither the store nor the group for a while, and clients reach it.
    CutOff,
    /// The group has not heard of a node for too long.
    Expelled,
    /// A node's machine is suspended for a while, and one of its clocks with it.
    Suspended,
    /// The store's clock jumps, but not the ages of counts: `producers_max_age` takes it that they don't.
    ClockJumped,
    /// The store is away for a while.
    Away,
    /// The rows can't be read.
    RowsFailed,
    /// An epoch is not raised, or the answer is lost.
    RaiseFailed,
    /// A beat is not written, or the answer is lost.
    BeatFailed,
    /// A partition's history can't be checked.
    VerifyFailed,
    /// Leases can't be renewed.
    RenewalFailed,
    /// A row is not marked as released, or the answer is lost.
    ReleaseFailed,
    /// The group does not confirm an assignment.
    ConfirmFailed,
    /// End offsets can't be read.
    MeasureFailed,
    /// The counts can't be read.
    CountFailed,
    /// A row can't be published, or the answer is lost.
    PublishFailed,
    /// An attempt at an effect has no outcome.
    AttemptFailed,
    /// A partition of an input can't be read for a while.
    ReadLate,
    /// A reader dies.
    ReaderDied,
    /// A look-up in the store fails.
    FindFailed,
    /// A look-up in another context fails.
    AskFailed,
    /// A stored state can't be read by this build.
    Unreadable,
    /// The supervisor of a partition dies while an actor decides.
    SupervisorDied,
    /// A commit is lost on its way, and its sender does not know.
    LostBefore,
    /// A commit happens, and its answer is lost.
    LostAfter,
    /// A lost commit arrives later.
    ArrivedLate,
    /// A commit takes too long.
    Slow,
    /// A commit finds no connection.
    Unavailable,
    /// The reading of rows after a stale commit fails.
    CompareFailed,
    /// The drawing of tokens after a commit of unknown outcome fails.
    RetokenFailed,
    /// An acknowledgement fails, or its answer is lost.
    AcknowledgeFailed,
    /// A look at what is due fails.
    LookFailed,
    /// A question takes long, or its answer.
    Hung,
    /// An answer comes twice.
    AnsweredTwice,
    /// The context's topic grows.
    Grown,
    /// Another context's topic grows.
    TheirsGrown,
    /// A producer sends a record twice.
    SentTwice,
    /// A caller calls twice.
    CalledTwice,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 43] = [
        Self::Moved,
        Self::Died,
        Self::DiedWithin,
        Self::Stopped,
        Self::Joined,
        Self::Paused,
        Self::CutOff,
        Self::Expelled,
        Self::Suspended,
        Self::ClockJumped,
        Self::Away,
        Self::RowsFailed,
        Self::RaiseFailed,
        Self::BeatFailed,
        Self::VerifyFailed,
        Self::RenewalFailed,
        Self::ReleaseFailed,
        Self::ConfirmFailed,
        Self::MeasureFailed,
        Self::CountFailed,
        Self::PublishFailed,
        Self::AttemptFailed,
        Self::ReadLate,
        Self::ReaderDied,
        Self::FindFailed,
        Self::AskFailed,
        Self::Unreadable,
        Self::SupervisorDied,
        Self::LostBefore,
        Self::LostAfter,
        Self::ArrivedLate,
        Self::Slow,
        Self::Unavailable,
        Self::CompareFailed,
        Self::RetokenFailed,
        Self::AcknowledgeFailed,
        Self::LookFailed,
        Self::Hung,
        Self::AnsweredTwice,
        Self::Grown,
        Self::TheirsGrown,
        Self::SentTwice,
        Self::CalledTwice,
    ];
}

/// Which faults are injected, and how often each was.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// Whether there are any; they end before a run does.
    pub are_on: bool,
    pub without: BTreeSet<Fault>,
    pub seen: BTreeMap<Fault, u64>,
}

impl Faults {
    /// Whether a fault that the dice call for is injected.
    pub fn inject(&mut self, fault: Fault, is_called_for: bool) -> bool {
        let happens = is_called_for && self.are_on && !self.without.contains(&fault);
        if happens {
            *self.seen.entry(fault).or_default() += 1;
        }
        happens
    }
}
