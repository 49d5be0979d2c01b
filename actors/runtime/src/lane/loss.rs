//! Why an ownership has ended without an order.
//!
//! The causes are told apart because they call for different people: another owner is ordinary, a supervisor or a reader that died is a bug, an
//! outcome that could not be found out is the database. Deliberately absent: what follows, which is [`crate::ownership`]'s.

use holdfast_core::PartitionId;

/// An ownership that has ended without an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub partition: PartitionId,
    pub term: u64,
    pub cause: Loss,
}

/// Why an ownership has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The store refused its fence: another owner has taken the partition, or an operator has halted the context.
    Fenced,
    /// Its partition supervisor died.
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
