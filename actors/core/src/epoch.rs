//! Terms of ownership: who may commit to a partition, and under which partition count.
//!
//! Upholds I4: a commit carries the token drawn at take-over and the generation; the store refuses any other.

use std::fmt;

use uuid::Uuid;

use crate::partition::PartitionId;

/// Counts take-overs of a partition. A taker bumps it on condition of the value it read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Drawn at random at each take-over (and again when an unknown commit outcome is resolved); never comes
/// back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub Uuid);

impl Token {
    /// A token nobody has seen.
    ///
    /// It comes from the process's cryptographic generator (uuid's `fast-rng`), which is not seeded again
    /// when a snapshot of a virtual machine is restored: two copies may draw the same token. The condition on
    /// the epoch still lets only one of them take the partition.
    pub fn draw() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Numbers the partition counts that have been in force, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// What a node says again and again, to be known to live. No beat is ever said twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Beat {
    /// Drawn at random when the node starts.
    pub run: Uuid,
    /// Counts the beats of the run.
    pub count: u64,
}

/// One partition's row: ownership, progress of input and output. The store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    /// Which partition.
    pub partition: PartitionId,
    /// The current term.
    pub epoch: Epoch,
    /// The current owner's token; `None` if it was never owned.
    pub token: Option<Token>,
    /// Where the owner can be called.
    pub address: String,
    /// The generation in force.
    pub generation: Generation,
    /// Whether the last owner gave it up in good order, so that the next need not wait out its lease.
    pub released: bool,
    /// Whether the last taker has begun to serve. Then every lease of an earlier owner is over, and only its
    /// own may still run.
    pub has_begun: bool,
    /// The number of the last committed batch.
    pub batch: u64,
    /// The sequence of the last outbox row written.
    pub outbox_head: u64,
    /// The sequence of the last outbox row known to be published.
    pub outbox_cursor: u64,
    /// Per input topic, the offset of the next record to consume.
    pub consumed: Vec<(String, u64)>,
    /// The end of what is known of this partition of the events topic: every record of ours below it is of a
    /// row that was committed here. `None` if that was never noted.
    pub published: Option<u64>,
    /// Why nobody may own it.
    pub halted: Option<Halt>,
}

/// Why a context stands still until an operator has spoken (`holdfast recover`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .reason.as_str())]
pub struct Halt {
    /// The class.
    pub reason: HaltReason,
    /// What was seen and where, for a person.
    pub detail: String,
}

/// The classes of [`Halt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HaltReason {
    /// The events topic or an owner remembers what the database doesn't: it was restored from an older
    /// backup.
    HistoryLost,
    /// The events topic is not the one that was published to, or is shorter.
    TopicLost,
    /// `holdfast recover` is at work.
    Recovering,
}

impl HaltReason {
    /// The name in storage, in errors and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HistoryLost => "HISTORY_LOST",
            Self::TopicLost => "TOPIC_LOST",
            Self::Recovering => "RECOVERING",
        }
    }
}

impl Halt {
    /// The stored form.
    pub fn to_text(&self) -> String {
        self.to_string()
    }

    /// Reads [`Self::to_text`]. What this build doesn't know is a lost history all the same: better halted
    /// than wrong.
    pub fn from_text(text: &str) -> Self {
        let (name, detail) = text.split_once(": ").unwrap_or((text, ""));
        let all = [HaltReason::HistoryLost, HaltReason::TopicLost, HaltReason::Recovering];
        match all.into_iter().find(|reason| reason.as_str() == name) {
            Some(reason) => Self { reason, detail: detail.to_owned() },
            None => Self { reason: HaltReason::HistoryLost, detail: text.to_owned() },
        }
    }
}

impl PartitionRow {
    /// The row of a partition that nobody has owned. It counts as released: there is no lease to wait out.
    pub const fn new(partition: PartitionId, generation: Generation) -> Self {
        Self {
            partition,
            epoch: Epoch(0),
            token: None,
            address: String::new(),
            generation,
            released: true,
            has_begun: false,
            batch: 0,
            outbox_head: 0,
            outbox_cursor: 0,
            consumed: Vec::new(),
            published: None,
            halted: None,
        }
    }

    /// The offset of the next record of `topic`, `None` if nothing of it was ever consumed.
    pub fn next_offset(&self, topic: &str) -> Option<u64> {
        self.consumed.iter().find(|(name, _)| name == topic).map(|(_, next)| *next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_survives_storage_and_an_unknown_one_still_halts() {
        for reason in [HaltReason::HistoryLost, HaltReason::TopicLost, HaltReason::Recovering] {
            let halt = Halt { reason, detail: "orders.events-3: offset 7: unknown".into() };
            assert_eq!(Halt::from_text(&halt.to_text()), halt);
        }
        let later = Halt::from_text("OF_A_LATER_BUILD: why");
        assert_eq!((later.reason, later.detail.as_str()), (HaltReason::HistoryLost, "OF_A_LATER_BUILD: why"));
    }
}
