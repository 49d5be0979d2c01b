//! The partitioned log: reading, membership in the group that shares the partitions, publishing.
//!
//! Membership is not a fence (see [`crate::epoch`]); a stored offset is a hint for lag tools, never read
//! back.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;

use crate::{batch::OutboxRow, envelope::Record, partition::PartitionId};

/// What can go wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It cannot be reached, or says try again. Held and retried without end.
    #[error("log unavailable: {0}")]
    Unavailable(String),
    /// The offset asked for is no longer (or not yet) there. The partition halts: records may be lost, and
    /// skipping them silently is not for the runtime to decide.
    #[error("{topic}-{partition}: offset {offset} is not in the log (it was deleted, or the topic was recreated)")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: PartitionId,
        /// The offset asked for.
        offset: u64,
    },
    /// The record can't be read, now or ever: its batch decompresses to more than a reader takes, or to
    /// nothing. The stream goes on behind it.
    #[error("{topic}-{partition}: the record at offset {offset} can't be read: {error}")]
    Unreadable {
        /// The topic.
        topic: String,
        /// The partition.
        partition: PartitionId,
        /// The record's offset.
        offset: u64,
        /// What the client says.
        error: String,
    },
    /// The topic does not exist.
    #[error("topic {0} does not exist; `holdfast topics apply` creates it")]
    NoSuchTopic(String),
    /// The client can't go on; its owner makes a new one.
    #[error("log client failed: {0}")]
    Fatal(String),
}

/// Reads partitions from explicit offsets.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// How many partitions `topic` has.
    async fn partition_count(&self, topic: &str) -> Result<u32, LogError>;

    /// The end offset of each partition of `topic`: no record acknowledged before this call is at or above
    /// it, and readers may be unable to read up to it yet. Asked of the brokers now.
    async fn ends(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<u64>, LogError>;

    /// Opens a stream of one partition from offset `from`, or from the log's start. At most one stream of a
    /// partition is open at a time; dropping it closes it.
    async fn open(
        &self,
        topic: &str,
        partition: PartitionId,
        from: Option<u64>,
    ) -> Result<Box<dyn RecordStream>, LogError>;

    /// The first offset of the partition and the one after its last, asked of the broker now: neither is
    /// older than this call.
    async fn bounds(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64), LogError>;

    /// What tells this topic from another of the same name, made after it was deleted; `None` where the log
    /// has no such mark.
    async fn incarnation(&self, topic: &str) -> Result<Option<String>, LogError>;

    /// The largest record batch that `topic` takes, in bytes as the broker measures it, asked of the brokers
    /// now; `None` where the log has no such limit.
    async fn bytes_max(&self, topic: &str) -> Result<Option<u64>, LogError>;

    /// Notes that everything below `next` is consumed, for lag tools. Never blocks, may be lost.
    fn store_offset(&self, topic: &str, partition: PartitionId, next: u64);
}

/// Records of one partition, in offset order.
#[async_trait]
pub trait RecordStream: Send {
    /// Waits for the next record. Cancel-safe. After an error that is neither [`LogError::Unavailable`] nor
    /// [`LogError::Unreadable`] the stream is dead.
    async fn next(&mut self) -> Result<Record, LogError>;

    /// The offset below which everything was delivered or is no record: transaction markers and what aborted
    /// transactions wrote lie between records and behind the last one, and [`RecordStream::next`] says
    /// nothing of them. `None` before it is known. May lag behind, is never too high.
    fn position(&self) -> Option<u64>;

    /// The end offset of the partition as last heard from the broker, for lag; `None` if unknown.
    fn end_offset(&self) -> Option<u64>;
}

/// This node's membership in the group that shares the partitions of a context's commands topic.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// Waits until the assignment differs from the one last returned, and returns it whole. Cancel-safe.
    async fn changed(&self) -> Result<BTreeSet<PartitionId>, LogError>;

    /// Asks the group's coordinator whether `partition` is still this member's.
    async fn confirm(&self, partition: PartitionId) -> bool;

    /// Whether this node has joined the group (owning nothing is fine).
    fn joined(&self) -> bool;

    /// Leaves the group. Further calls of `changed` wait for ever.
    async fn leave(&self);
}

/// Where the rows of one call landed: for each target the highest offset, as far as the brokers returned it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landed(pub Vec<Landing>);

/// The highest offset that one call reached in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landing {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
    /// The offset.
    pub offset: u64,
}

/// Why rows were not all acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not for the sake of a row: the broker is away, a partition is unknown, the client failed.
    #[error("publishing stopped: {0}")]
    Stopped(String),
    /// The brokers refuse this row for its own sake: too large, or invalid, with nothing else in its batch
    /// and nothing of its partition in flight. All rows of its call before it are acknowledged, nothing
    /// behind it went out.
    #[error("row {sequence} of partition {partition} was refused for its own sake: {error}")]
    Refused {
        /// The row's partition.
        partition: PartitionId,
        /// The row's sequence.
        sequence: u64,
        /// What the broker said.
        error: String,
    },
}

/// Publishes outbox rows.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Sends `rows` in order, each to the partition written in it, after all rows of earlier calls; waits
    /// until all are acknowledged by the brokers that must (acks=all). Calls may overlap: rows go out in call
    /// order. On an error some rows may be out; the caller calls [`Self::reset`] and starts again at the
    /// first row not known to be acknowledged. A row that the brokers may refuse for its own sake is sent
    /// alone: first occurrences of a partition stay in order whatever is refused.
    async fn publish(&self, rows: Arc<[OutboxRow]>) -> Result<Landed, PublishError>;

    /// Replaces the underlying client; whatever it still holds is abandoned. Waits for no call: its caller
    /// may be the one that polls them.
    async fn reset(&self);
}

/// Makes publishers.
pub trait Publishers: Send + Sync + 'static {
    /// A publisher with a client of its own: its errors and its reset are no other's.
    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError>;
}
