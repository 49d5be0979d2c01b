//! The durable store of one context: ownership rows, states, claims, outbox, timers, effects, mailbox.
//!
//! One call is one transaction. Every method that writes on behalf of an owner carries its token, and touches
//! nothing where that is no longer the row's (I4).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    aggregate::AggregateId,
    batch::{Batch, OutboxDraft, OutboxRow},
    dedup::{Claim, ClaimKey},
    disposition::WaitReason,
    envelope::Record,
    epoch::{Beat, Epoch, Generation, Halt, PartitionRow, Token},
    growth::Growth,
    partition::{KeyHash, PartitionId},
    pool::Pool,
    ring::Ring,
    seal::Seal,
    stuck::{Queue, Release, SetAside, Stuck},
    time::Timestamp,
};

/// What can go wrong outside a commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or refuses for now. Held and retried without end; never counted against a
    /// message.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// It refuses a value of the question (SQLSTATE class 22). The question is split until that value stands
    /// alone.
    #[error("value refused ({sqlstate}): {message}")]
    Data {
        /// The five characters.
        sqlstate: String,
        /// The server's message.
        message: String,
    },
    /// It answers what it must not. A bug or a damaged schema.
    #[error("store broken: {0}")]
    Broken(String),
}

/// A stored row that this build can't read. It is the fault of that row alone: the others of the answer
/// stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unreadable row: {0}")]
pub struct Unreadable(pub String);

/// How a commit failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Nothing was written.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// Nothing was written, because of one row's data (SQLSTATE class 22 or 23). The batch is bisected.
    #[error("data refused ({sqlstate}): {message}")]
    Data {
        /// The five characters.
        sqlstate: String,
        /// The server's message.
        message: String,
    },
    /// Nothing was written: a stored version or revision is not the expected one.
    #[error("version conflict")]
    Conflict,
    /// Nothing was written: the server ended a statement for the time it took (SQLSTATE 57014), or it did not
    /// answer before COMMIT. A batch of several messages is split.
    #[error("commit took too long: {0}")]
    Slow(String),
    /// The connection was lost during COMMIT, or COMMIT came with a warning: it may or may not have happened.
    /// [`Store::retoken`] tells.
    #[error("commit outcome unknown: {0}")]
    Unknown(String),
}

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Partitions whose fence did not hold; nothing of theirs was written.
    pub stale: Vec<PartitionId>,
    /// For each entry of the batch, whether its condition was granted (`true` without one; `false` on a stale
    /// partition).
    pub granted: Vec<bool>,
    /// The outbox rows as written, in order.
    pub outbox: Vec<OutboxRow>,
    /// The new outbox head of each partition whose fence held.
    pub heads: BTreeMap<PartitionId, u64>,
}

/// An aggregate's stored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRow {
    /// Number of events so far. 0 is that of an aggregate that does not exist, and has only refused.
    pub version: u64,
    /// Number of times the row was written.
    pub revision: u64,
    /// Schema of `bytes`.
    pub schema: u32,
    /// The encoded state.
    pub bytes: Bytes,
    /// Per event source, the last `ce_sequence` applied.
    pub sources: BTreeMap<String, u64>,
}

/// What a batch needs to know of an aggregate before it can decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub id: AggregateId,
    /// Whether its row and the length of its mailbox are asked for.
    pub state: bool,
    /// Claims that may stand outside of its ring. Together with the row they are looked for only if it says
    /// so: of this aggregate, or of this claim.
    pub claims: Vec<ClaimKey>,
}

impl Wanted {
    /// The row and the mailbox of `id`, and no claim.
    pub const fn state(id: AggregateId) -> Self {
        Self { id, state: true, claims: Vec::new() }
    }
}

/// The answer to a [`Wanted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its row, if that was asked for.
    pub state: Result<Option<StateRow>, Unreadable>,
    /// Its last claims, if its row was asked for.
    pub ring: Ring,
    /// How many messages wait in its durable mailbox, if that was asked for.
    pub waiting: u64,
    /// Whether claims of it may stand outside of its ring, if its row was asked for.
    pub has_spilled: bool,
    /// For each claim what is stored; nothing if it was not looked for.
    pub claims: Vec<Result<Option<Claim>, Unreadable>>,
}

/// The states alone of `found`.
///
/// # Errors
/// [`StoreError::Broken`] if one of them can't be read.
pub fn states(found: Vec<Found>) -> Result<Vec<Option<StateRow>>, StoreError> {
    found.into_iter().map(|found| found.state.map_err(|row| StoreError::Broken(row.0))).collect()
}

/// The partitions whose waiting work is asked for, and the count that `hash % count` is taken by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Owned partitions.
    pub partitions: Vec<PartitionId>,
    /// The count in force.
    pub count: u32,
}

/// How much mail one question takes. Whatever the bounds, the head of the first mailbox is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailLimit {
    /// Mailboxes.
    pub aggregates: u32,
    /// Messages of one mailbox.
    pub each: u32,
    /// Messages of all.
    pub messages: u32,
    /// Bytes of keys, headers and values of one mailbox; its last message may go beyond.
    pub bytes_each: u64,
    /// Bytes of all; the last message may go beyond.
    pub bytes: u64,
}

impl MailLimit {
    /// At most `n` messages of each of at most `n` mailboxes.
    pub const fn of(n: u32) -> Self {
        Self { aggregates: n, each: n, messages: n.saturating_mul(n), bytes_each: u64::MAX >> 1, bytes: u64::MAX >> 1 }
    }
}

/// A timer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTimer {
    /// The aggregate's kind, as stored.
    pub kind: String,
    /// The aggregate's key.
    pub key: Arc<str>,
    /// The timer's name.
    pub name: String,
    /// Which setting of that name this is; no other one ever has the same number.
    pub serial: i64,
}

/// An effect whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueEffect {
    /// The aggregate's kind, as stored.
    pub kind: String,
    /// The aggregate's key.
    pub key: Arc<str>,
    /// The effect's name.
    pub name: String,
    /// The request as it was intended.
    pub request: Bytes,
    /// The attempts begun, with this one.
    pub attempts: u32,
    /// How long ago it was intended.
    pub age: Duration,
    /// `ce_correlationid` of what it belongs to.
    pub correlation: Option<String>,
    /// `traceparent` of what caused it.
    pub traceparent: Option<String>,
}

/// How far a relay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of which partition.
    pub partition: PartitionId,
    /// Must be the row's token.
    pub token: Token,
    /// The sequence of the last outbox row known to be published.
    pub cursor: u64,
    /// The end of what is known of the events topic's partition: whatever lies below it, this store knows.
    pub published: Option<u64>,
}

impl Cursor {
    /// A cursor that says nothing of the events topic.
    pub const fn new(partition: PartitionId, token: Token, cursor: u64) -> Self {
        Self { partition, token, cursor, published: None }
    }
}

/// A message in the durable mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The row; mailbox order is by this number.
    pub position: i64,
    /// The aggregate's kind, as stored.
    pub kind: String,
    /// The aggregate's key.
    pub key: Arc<str>,
    /// The key's hash.
    pub hash: KeyHash,
    /// Why it waits; or what of the row can't be read. Then `record` holds what can be, and nothing is left
    /// out: stored headers that are none stand in it as the value of one header, [`UNREADABLE_HEADERS`].
    pub reason: Result<WaitReason, Unreadable>,
    /// Failures so far.
    pub attempts: u32,
    /// When it was put.
    pub since: Timestamp,
    /// The last failure.
    pub error: String,
    /// The message as it came.
    pub record: Record,
}

/// The header that holds the bytes of stored headers that can't be read.
pub const UNREADABLE_HEADERS: &str = "dlt-unreadable-headers";

/// How a partition was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The row.
    pub row: PartitionRow,
    /// What its last taker has said last, if that one had begun to serve; `None` if that is not known.
    pub beat: Option<Beat>,
}

/// The store of one context.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Notes that `topic` has `count` partitions, and makes a row for each that has none, of the generation
    /// in force: in one transaction, so that no partition has a row before the transition that brought it is
    /// on record. A first count opens no transition; one that is not above the newest known changes nothing.
    async fn note_count(&self, topic: &str, count: u32) -> Result<(), StoreError>;

    /// Puts `count` in force as the first generation, if there is none, and makes rows for it.
    async fn register_partitions(&self, count: u32) -> Result<(), StoreError>;

    /// All counts, generations, acknowledgements and partition rows, as of one moment.
    async fn growth(&self) -> Result<Growth, StoreError>;

    /// Puts `count` in force on all rows as the generation after `from`, in one transaction; changes nothing
    /// if `from` is no longer the last.
    async fn bump(&self, from: Generation, count: u32) -> Result<(), StoreError>;

    /// Notes that the owner of `partition` has let go of all keys whose home is elsewhere under `generation`.
    /// The first time, that is put on record with the outbox head, `mark` being the last row up to there;
    /// later ones change nothing of that. Each time the owner has begun to serve (`has_begun`). Returns the
    /// row as it then stands; `None`, and nothing is changed, if `token` is not its token or `generation` not
    /// its generation.
    async fn acknowledge(
        &self,
        partition: PartitionId,
        token: Token,
        generation: Generation,
        mark: Option<OutboxDraft>,
    ) -> Result<Option<PartitionRow>, StoreError>;

    /// Notes that the relay of `partition` addresses no row of `topic` by a count below `count` any more,
    /// whether or not that growth is known yet.
    async fn note_mark(&self, topic: &str, partition: PartitionId, count: u32) -> Result<(), StoreError>;

    /// Notes the end offsets of `topic` that its growth to `count` has to be consumed to; the first ones
    /// noted stand.
    async fn note_ends(&self, topic: &str, count: u32, ends: &[u64]) -> Result<(), StoreError>;

    /// Ends the transition of `topic` to `count`.
    async fn end_transition(&self, topic: &str, count: u32) -> Result<(), StoreError>;

    /// All partition rows, in order.
    async fn partitions(&self) -> Result<Vec<PartitionRow>, StoreError>;

    /// Takes `partition`: raises its epoch on condition that it is still `expected`, and writes `token` and
    /// `address`. Returns the row as it then stands, with `released` and `has_begun` as they were before, and
    /// the last beat of its last taker, if that taker had begun; `None` if another taker was quicker. A later
    /// beat of the last taker is written after this: once the beat is written, that node finds the new token.
    async fn take(
        &self,
        partition: PartitionId,
        expected: Epoch,
        token: Token,
        address: &str,
    ) -> Result<Option<Taken>, StoreError>;

    /// Says that the node at `address` lives, durably, and returns the last beats of all nodes, by address:
    /// its own is the one before this. Waits for no lock but that of a take-over from this very node.
    async fn beat(&self, address: &str, beat: Beat) -> Result<BTreeMap<String, Beat>, StoreError>;

    /// The current tokens of `partitions`, by a plain read that waits for no lock.
    async fn tokens(&self, partitions: &[PartitionId]) -> Result<Vec<(PartitionId, Option<Token>)>, StoreError>;

    /// Marks `partition` as given up in good order, if `token` is still its token.
    async fn release(&self, partition: PartitionId, token: Token) -> Result<bool, StoreError>;

    /// Finds out how an unknown commit ended: replaces each old token by the new one, in one transaction,
    /// waiting for transactions that hold the rows, and returns the batch number of each row that still had
    /// the old token. A later commit with the old token finds no row, so the answer is final.
    async fn retoken(&self, changes: &[(PartitionId, Token, Token)]) -> Result<BTreeMap<PartitionId, u64>, StoreError>;

    /// Reads states, mailbox counts and claims, in the order of the questions: in one round trip, and a
    /// second one only for claims that turn out to stand outside of rings. A row that can't be read is an
    /// error in its own place; a value that can't be asked for fails the question with [`StoreError::Data`].
    async fn find(&self, wanted: &[Wanted]) -> Result<Vec<Found>, StoreError>;

    /// Commits a batch.
    async fn commit(&self, batch: &Batch) -> Result<Committed, CommitError>;

    /// Outbox rows of `partition` after sequence `after`, in order: at most `limit`, and no further ones once
    /// those before hold `bytes_max` bytes of keys, headers and values (I11).
    async fn outbox(
        &self,
        partition: PartitionId,
        after: u64,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<OutboxRow>, StoreError>;

    /// Copies these outbox rows of `partition`, which follow one another, behind their queues' stuck records
    /// and moves the cursor to the last of them, in one statement. Changes nothing if the cursor is there
    /// already. `false`, and nothing is changed, if `token` is not its token.
    async fn set_aside(&self, partition: PartitionId, token: Token, rows: &[SetAside]) -> Result<bool, StoreError>;

    /// All queues of stuck records, whichever owner set them aside, with their lengths.
    async fn stuck(&self) -> Result<BTreeMap<Queue, u64>, StoreError>;

    /// The first records of the queues that are at home in `slice` and may go: those that no broker has
    /// refused, and those of which an operator has spoken. Longest stuck first.
    async fn released(&self, slice: &Slice, limit: u32) -> Result<Vec<Stuck>, StoreError>;

    /// Notes how the release of the stuck record at `position` ended; `false`, and nothing is changed, if
    /// `token` is not the token of `partition`.
    async fn end_release(
        &self,
        partition: PartitionId,
        token: Token,
        position: i64,
        end: &Release,
    ) -> Result<bool, StoreError>;

    /// Stores the relay's cursors where the token still matches. Neither number ever goes back.
    async fn advance(&self, cursors: &[Cursor]) -> Result<(), StoreError>;

    /// Halts the context for `halt`: takes every partition from its owner, raising its epoch, and marks its
    /// row, so that nobody commits from here on and everybody sees why. `None` takes the mark away; owners
    /// are then drawn as ever.
    async fn halt(&self, halt: Option<&Halt>) -> Result<(), StoreError>;

    /// Notes the marks of topics that have none noted yet, and returns all that are noted. The first one
    /// noted stays.
    async fn incarnations(&self, seen: &[(String, String)]) -> Result<BTreeMap<String, String>, StoreError>;

    /// An operator's word that `topic` is what it is now: notes `mark`, if there is one, in place of the old,
    /// and for each of `places` the offset to consume next. Where `events`, it is the end of what is known of
    /// our own events instead.
    async fn accept_topic(
        &self,
        topic: &str,
        mark: Option<&str>,
        places: &[(PartitionId, u64)],
        events: bool,
    ) -> Result<(), StoreError>;

    /// Timers that are due by the store's clock, oldest first.
    async fn due_timers(&self, slice: &Slice, limit: u32) -> Result<Vec<DueTimer>, StoreError>;

    /// Puts off timers that this build can't fire: each is due again after a second, twice as long each time
    /// it is put off, at most an hour.
    async fn put_off_timers(&self, timers: &[DueTimer]) -> Result<(), StoreError>;

    /// Effects that are due by the store's clock, those due longest. Each counts as attempted once more, and
    /// is not due again before `hold` has passed.
    async fn due_effects(&self, slice: &Slice, limit: u32, hold: Duration) -> Result<Vec<DueEffect>, StoreError>;

    /// An attempt at an effect has ended without an outcome: it is due again `after` this, and `error` is
    /// kept for a person. One that has come to its end stays so.
    async fn put_off_effect(
        &self,
        kind: &str,
        key: &str,
        name: &str,
        after: Duration,
        error: &str,
    ) -> Result<(), StoreError>;

    /// The mailboxes whose head is due, those due longest, each from its head on, ordered by position. Within
    /// the limit each mailbox gets its first message before any gets its second, and so on.
    async fn due_mail(&self, slice: &Slice, limit: MailLimit) -> Result<Vec<Waiting>, StoreError>;

    /// How many messages wait in the mailboxes of each partition; one without any is left out.
    async fn mail_waiting(&self, slice: &Slice) -> Result<BTreeMap<PartitionId, u64>, StoreError>;

    /// Notes which loops of the node at `address` are stalled, for people; empty if none is. Kept until it is
    /// noted again.
    async fn note_stalled(&self, address: &str, stalled: &str) -> Result<(), StoreError>;

    /// The context's seal, whose key was drawn at random with the schema and never changes.
    async fn seal(&self) -> Result<Seal, StoreError>;

    /// Shared quantities by name; one that does not exist is left out.
    async fn pools(&self, names: &[String]) -> Result<BTreeMap<String, Pool>, StoreError>;
}
