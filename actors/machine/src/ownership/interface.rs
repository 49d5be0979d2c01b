//! Inputs and actions of an ownership machine.
//!
//! Invariant: an action that asks for something carries an [`Ask`], and has exactly one answer. Deliberately
//! absent: what either leads to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    epoch::{Beat, Epoch, Generation, Halt, PartitionRow, Token},
    growth::Growth,
    port::store::{StoreError, Taken},
};

use crate::Ask;

/// Why an ownership has ended without an order.
///
/// The causes are distinguished because they call for different people: another owner is ordinary, a
/// supervisor or a reader that died is a bug, an outcome that could not be found out is the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The store refused its fence: another owner has taken the partition, or an operator has halted the
    /// context.
    Fenced,
    /// Its partition supervisor died, or did not start.
    SupervisorDied,
    /// The reader of one of its inputs died.
    ReaderDied,
    /// A new generation could not be acknowledged, or the answer was lost.
    AcknowledgementFailed,
    /// How a commit ended could not be found out.
    OutcomeUnknown,
    /// The store refuses what consumes an offset, whatever is written with it.
    Refused,
}

impl Loss {
    /// As a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::SupervisorDied => "supervisor_died",
            Self::ReaderDied => "reader_died",
            Self::AcknowledgementFailed => "acknowledgement_failed",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Refused => "refused",
        }
    }
}

/// Why the history of a partition was not found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsound {
    /// It is lost, and the context was halted: every token is gone.
    Halted,
    /// It could not be checked now.
    Away(String),
}

/// What happened. Nothing that fails is given up but a hand-over and a release: a taker begins again, and a
/// renewal comes round again.
#[derive(Clone, Debug)]
pub enum Input {
    /// The group has assigned these partitions, and no others.
    Assigned(BTreeSet<PartitionId>),
    /// The partition counts were read.
    Counted(Arc<Growth>),
    /// All partition rows were read.
    RowsRead {
        /// Which reading.
        ask: Ask,
        /// The rows.
        rows: Result<Vec<PartitionRow>, StoreError>,
    },
    /// An epoch was raised, or was not, because another node was quicker (`None`).
    Raised {
        /// Which attempt.
        ask: Ask,
        /// The token that was drawn for it.
        token: Token,
        /// The row as it then stood.
        taken: Result<Option<Taken>, StoreError>,
    },
    /// A beat was written, and the beats of all nodes came back.
    Beaten {
        /// Which beat.
        ask: Ask,
        /// The last beats, by address.
        said: Result<BTreeMap<String, Beat>, StoreError>,
    },
    /// The history of a partition was checked.
    Verified {
        /// Which check.
        ask: Ask,
        /// The end of what is known of the partition's events.
        known: Result<Option<u64>, Unsound>,
    },
    /// A generation was acknowledged; `None` if the row has another token or another generation by now.
    Acknowledged {
        /// Which acknowledgement.
        ask: Ask,
        /// The row as it then stood.
        row: Result<Option<PartitionRow>, StoreError>,
    },
    /// The tokens of owned partitions were looked at, after a beat.
    Looked {
        /// Which look.
        ask: Ask,
        /// For each partition, whether its row has a token under which this node has held it.
        ours: Result<Vec<(PartitionId, bool)>, StoreError>,
    },
    /// The group was asked whether a partition is still this node's.
    Confirmed {
        /// Which question.
        ask: Ask,
        /// Its answer.
        is_confirmed: bool,
    },
    /// A partition's lane has finished with it, and all that it committed is published.
    HandedOver {
        /// Which hand-over.
        ask: Ask,
        /// The token that the partition was last held under; `None` if the hand-over failed.
        token: Option<Token>,
    },
    /// A row was marked as released, or was not.
    Released {
        /// Which release.
        ask: Ask,
        /// Whether it was.
        is_released: bool,
    },
    /// An ownership has ended without an order.
    Lost {
        /// Of which partition.
        partition: PartitionId,
        /// Which ownership.
        term: u64,
        /// Why.
        cause: Loss,
    },
    /// Time has passed.
    Tick,
    /// The node stops: everything is released, then the group is left.
    Stop,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Read all partition rows.
    ReadRows {
        /// For [`Input::RowsRead`].
        ask: Ask,
    },
    /// Raise the epoch of a partition under a new token, if it still is the expected one.
    Raise {
        /// For [`Input::Raised`].
        ask: Ask,
        /// Which partition.
        partition: PartitionId,
        /// Its epoch as it was read.
        expected: Epoch,
    },
    /// Write this node's beat.
    Beat {
        /// For [`Input::Beaten`].
        ask: Ask,
        /// The beat.
        beat: Beat,
    },
    /// Check the history of a partition.
    Verify {
        /// For [`Input::Verified`].
        ask: Ask,
        /// The partition's row.
        row: Box<PartitionRow>,
    },
    /// Acknowledge a generation.
    Acknowledge {
        /// For [`Input::Acknowledged`].
        ask: Ask,
        /// Which partition.
        partition: PartitionId,
        /// The token that it is held under.
        token: Token,
        /// The generation.
        generation: Generation,
        /// That generation's count, for the mark in the events topic; `None` for no mark.
        count: Option<u32>,
    },
    /// Read the counts soon: a taker waits for them.
    HurryCounts,
    /// Begin to serve a partition.
    Serve(Box<Grant>),
    /// The lease of an ownership lasts until then, by the boot clock.
    Renew {
        /// Which partition.
        partition: PartitionId,
        /// Which ownership.
        term: u64,
        /// The lease's end.
        until: Duration,
    },
    /// End the lease of an ownership, then its readers and the router's way to it.
    Close {
        /// Which partition.
        partition: PartitionId,
        /// Which ownership.
        term: u64,
    },
    /// Let the lane finish what is in flight for a partition, and publish it.
    HandOver {
        /// For [`Input::HandedOver`].
        ask: Ask,
        /// Which partition.
        partition: PartitionId,
        /// Which ownership.
        term: u64,
    },
    /// Drop everything of an ownership.
    Drop {
        /// Which partition.
        partition: PartitionId,
        /// Which ownership.
        term: u64,
    },
    /// Look at the tokens of these ownerships' rows.
    Look {
        /// For [`Input::Looked`].
        ask: Ask,
        /// Partitions and terms.
        owned: Vec<(PartitionId, u64)>,
    },
    /// Ask the group whether a partition is still this node's.
    Confirm {
        /// For [`Input::Confirmed`].
        ask: Ask,
        /// Which partition of the commands topic.
        partition: PartitionId,
    },
    /// Mark a row as released.
    Release {
        /// For [`Input::Released`].
        ask: Ask,
        /// Which partition.
        partition: PartitionId,
        /// The token that it was held under.
        token: Token,
    },
    /// Leave the group. Nothing follows.
    Leave,
    /// Tell people.
    Report(Report),
}

/// A partition that may be served from now on.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Its row.
    pub row: PartitionRow,
    /// Numbers the ownerships of a node.
    pub term: u64,
    /// The count of the row's generation.
    pub count: u32,
    /// The token that it is held under.
    pub token: Token,
    /// The end of what is known of its partition of the events topic.
    pub known: Option<u64>,
    /// The end of its first lease, by the boot clock.
    pub lease_until: Duration,
}

/// A report for operators, which the shell logs or passes on.
#[derive(Clone, Debug)]
pub enum Report {
    /// An assigned partition has no row yet.
    NoRow(PartitionId),
    /// The context is halted; a taker waits for an operator.
    Halted(PartitionId, Halt),
    /// A taker waits and tries again.
    Waits(PartitionId, String),
    /// Leases could not be renewed.
    NotRenewed(StoreError),
    /// An ownership has ended without an order.
    Lost(PartitionId, Loss),
    /// A partition was released.
    Released(PartitionId),
    /// A partition was given up without a release: the next owner waits out a lease.
    NotReleased(PartitionId),
    /// Another node writes beats under this node's address.
    AddressShared,
}
