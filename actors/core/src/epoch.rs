//! Terms of ownership: who may commit to a partition, and under which partition count.
//!
//! Upholds I4: a commit carries the token drawn at take-over and the generation; the store refuses any other.

use std::fmt;

use uuid::Uuid;

use crate::partition::PartitionId;

/// Counts take-overs of a partition. A taker bumps it on condition of the value it read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Drawn at random at each take-over (and again when an unknown commit outcome is resolved); never comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub Uuid);

impl Token {
    /// A token nobody has seen.
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
    /// The number of the last committed batch.
    pub batch: u64,
    /// The sequence of the last outbox row written.
    pub outbox_head: u64,
    /// The sequence of the last outbox row known to be published.
    pub outbox_cursor: u64,
    /// Per input topic, the offset of the next record to consume.
    pub consumed: Vec<(String, u64)>,
}

impl PartitionRow {
    /// The offset of the next record of `topic`, `None` if nothing of it was ever consumed.
    pub fn next_offset(&self, topic: &str) -> Option<u64> {
        self.consumed.iter().find(|(name, _)| name == topic).map(|(_, next)| *next)
    }
}
