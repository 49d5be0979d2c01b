//! The faults that a run injects, each of which can be left out by name.
//!
//! Invariant: the dice are thrown whether or not a fault is left out. Deliberately absent: when a fault is
//! tried, which the world and its nodes say.

use std::collections::{BTreeMap, BTreeSet};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A partition gets a new owner, and the old one does not know.
    Moved,
    /// A partition is taken from an owner, who is told to drop it.
    Dropped,
    /// A partition is taken from an owner, who finishes first.
    Released,
    /// A node dies.
    Died,
    /// A node joins.
    Joined,
    /// The store is away for a while.
    Away,
    /// A look-up in the store fails.
    FindFailed,
    /// A look-up in another context fails.
    AskFailed,
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
    /// An acknowledgement fails.
    AcknowledgeFailed,
    /// A look at what is due fails.
    LookFailed,
    /// The topic grows.
    Grown,
    /// A producer sends a record twice.
    SentTwice,
    /// A caller calls twice.
    CalledTwice,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Moved,
        Self::Dropped,
        Self::Released,
        Self::Died,
        Self::Joined,
        Self::Away,
        Self::FindFailed,
        Self::AskFailed,
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
        Self::Grown,
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
