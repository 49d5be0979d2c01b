//! One group commit: what it writes, and how shared quantities are granted in it.
//!
//! Upholds I2 and I3: sequence numbers of outbox rows are given here, in batch order, under the partition's
//! fence; grants are made in batch order over the partitions whose fence held. [`Batch::settle`] is pure, so
//! that every store grants and numbers alike. Deliberately absent: SQL, locks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    aggregate::AggregateId,
    dedup::Claim,
    disposition::{DeadLetterReason, WaitReason},
    envelope::{Headers, Record},
    epoch::{Generation, Token},
    partition::{KeyHash, PartitionId},
    pool::{Pool, PoolChange, grant},
    ring::Ring,
    time::Timestamp,
};

/// Everything that one transaction writes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// One for each partition touched, in partition order.
    pub fences: Vec<Fence>,
    /// In the order in which grants are made.
    pub entries: Vec<Entry>,
}

/// The condition under which a partition's part of the batch commits, and how far its input is consumed with
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Which partition.
    pub partition: PartitionId,
    /// Must be the row's token.
    pub token: Token,
    /// Must be the row's generation.
    pub generation: Generation,
    /// The number of this batch: the row's plus one.
    pub number: u64,
    /// The row's outbox head, after which new rows are numbered.
    pub outbox_head: u64,
    /// Per topic, the offset of the next record to consume.
    pub consumed: Vec<(Arc<str>, u64)>,
    /// The relay's cursor, if it has moved since it was last stored.
    pub cursor: Option<u64>,
}

/// What a batch does for one aggregate (or for one dead letter without an aggregate).
#[derive(Clone, Debug)]
pub struct Entry {
    /// Under which fence.
    pub partition: PartitionId,
    /// The condition on shared quantities, if there is one.
    pub condition: Option<Condition>,
    /// What is written; where there is a condition, if it is granted.
    pub writes: Writes,
}

/// A condition on shared quantities.
#[derive(Clone, Debug)]
pub struct Condition {
    /// All or nothing.
    pub wants: Vec<PoolChange>,
    /// What is written instead if it is refused.
    pub refused: Writes,
}

/// The rows of one aggregate in one batch.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// The new state.
    pub state: Option<StateWrite>,
    /// Records to publish, in order.
    pub outbox: Vec<OutboxDraft>,
    /// Claims with their answers, which the ring of `state` has, or else `pushed_out`.
    pub claims: Vec<Claim>,
    /// What stands in the tables from now on: see [`crate::ring::Pushed::out`].
    pub pushed_out: Vec<Claim>,
    /// Timers set or cancelled.
    pub timers: Vec<TimerWrite>,
    /// Effects intended, or done with.
    pub effects: Vec<EffectWrite>,
    /// Changes to the durable mailbox.
    pub mailbox: Vec<MailboxWrite>,
    /// The read model's row.
    pub view: Option<ViewWrite>,
    /// Index rows of dead letters; their records are in `outbox`.
    pub dead_letters: Vec<DeadLetter>,
    /// Records that could be filed nowhere else.
    pub unfiled: Vec<Unfiled>,
}

/// An aggregate's stored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// Whose.
    pub id: AggregateId,
    /// The key's hash.
    pub hash: KeyHash,
    /// The stored version must be this one. Where it is 0 there may be no row.
    pub expected: u64,
    /// The stored revision must be this one, if there is a row. Each write raises it by one; a rejection
    /// keeps the version.
    pub revision: u64,
    /// The version after this batch. 0 is that of an aggregate that does not exist, and has only refused.
    pub version: u64,
    /// Schema of `bytes`.
    pub schema: u32,
    /// The encoded state.
    pub bytes: Bytes,
    /// Per event source, the last `ce_sequence` applied.
    pub sources: BTreeMap<String, u64>,
    /// The last claims.
    pub ring: Ring,
    /// Whether others were pushed out of the ring.
    pub spills: bool,
}

/// A record to publish, before it has a sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxDraft {
    /// The row's id, also the event's `ce_id`.
    pub id: Uuid,
    /// The target topic.
    pub topic: Arc<str>,
    /// The target partition.
    pub target: PartitionId,
    /// The record key.
    pub key: Option<Bytes>,
    /// The record headers.
    pub headers: Headers,
    /// The record value.
    pub value: Option<Bytes>,
}

/// A record to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// The partition whose owner wrote it, and whose relay publishes it.
    pub partition: PartitionId,
    /// Its place in that partition's order, from 1, without gaps.
    pub sequence: u64,
    /// The record.
    pub draft: OutboxDraft,
}

/// A change to a durable timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerWrite {
    /// Whose.
    pub id: AggregateId,
    /// The key's hash.
    pub hash: KeyHash,
    /// Unique within the aggregate.
    pub name: String,
    /// Fires this long after the commit, by the database's clock; `None` removes it.
    pub after: Option<Duration>,
    /// The setting that is removed or put off, and nothing is done if another is stored by then: what a
    /// firing has to say. `None` removes whatever is set, or sets the timer, which is then another setting.
    pub serial: Option<i64>,
}

/// A change to an aggregate's effects: calls out of the system that it has yet to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectWrite {
    /// Whose.
    pub id: AggregateId,
    /// The key's hash.
    pub hash: KeyHash,
    /// Unique within the aggregate, for ever: a name is an idempotency key.
    pub name: String,
    /// What to call with; `None` if the effect has come to its end.
    pub intent: Option<Intent>,
}

/// An intended call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The request, byte for byte as it will be sent, however often and by whatever build.
    pub request: Bytes,
    /// The owner that wrote the intent makes the first call itself; the intent falls due for other nodes this
    /// long after the commit, by the database's clock.
    pub hold: Duration,
    /// `ce_correlationid` of what it belongs to.
    pub correlation: Option<String>,
    /// `traceparent` of what caused it.
    pub traceparent: Option<String>,
}

/// A change to the durable mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxWrite {
    /// Appends a message.
    Put {
        /// For whom.
        id: AggregateId,
        /// The key's hash.
        hash: KeyHash,
        /// Why it waits.
        reason: WaitReason,
        /// Failures so far.
        attempts: u32,
        /// Due this long after the commit; `None` for a message behind another of its aggregate.
        after: Option<Duration>,
        /// When it first failed or was put, by the node's clock.
        since: Timestamp,
        /// The failure, for a person.
        error: String,
        /// The message as it came.
        record: Record,
    },
    /// Notes another failure of a waiting message.
    Defer {
        /// The row.
        position: i64,
        /// Why it waits.
        reason: WaitReason,
        /// Failures so far.
        attempts: u32,
        /// Due this long after the commit.
        after: Duration,
        /// The failure.
        error: String,
    },
    /// Removes a message that is done; the next one of its aggregate becomes due.
    Remove {
        /// The row.
        position: i64,
    },
}

/// A read model row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewWrite {
    /// Which aggregate it describes.
    pub id: AggregateId,
    /// The row.
    pub row: ViewRow,
}

/// A row of a read model as the text of a JSON object: it is kept with each aggregate in memory, where it is
/// compared with the next one, and a tree of values is several times as large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRow(Bytes);

impl ViewRow {
    /// The text of `row`, a struct of plain fields. A store refuses a row that is no JSON object.
    ///
    /// # Panics
    /// If it can't be written as JSON at all, as a map whose keys are no texts: a mistake in the code.
    pub fn of(row: &impl Serialize) -> Self {
        Self(serde_json::to_vec(row).expect("a row can be written as JSON").into())
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.0
    }
}

/// The index row of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The outbox row's id, also the `dlt-id` header.
    pub id: Uuid,
    /// The aggregate, where it is known.
    pub aggregate: Option<AggregateId>,
    /// The key's hash.
    pub hash: KeyHash,
    /// Where the message came from.
    pub topic: Arc<str>,
    /// The partition there.
    pub partition: PartitionId,
    /// The offset there.
    pub offset: u64,
    /// Why.
    pub reason: DeadLetterReason,
    /// What is wrong, for a person.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// A record whose dead letter or mailbox row the store refused. It is kept as raw bytes, in columns that
/// accept anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfiled {
    /// The row's id.
    pub id: Uuid,
    /// What the store said.
    pub error: String,
    /// The record as it came.
    pub record: Record,
}

/// What a batch comes to, once it is known which fences held and what the pools hold.
#[derive(Clone, Debug, Default)]
pub struct Settled<'a> {
    /// The writes that take effect.
    pub writes: Vec<(PartitionId, &'a Writes)>,
    /// For each entry, whether its condition was granted; `true` where it has none. Entries of stale
    /// partitions are `false`.
    pub granted: Vec<bool>,
    /// The outbox rows, numbered.
    pub outbox: Vec<OutboxRow>,
    /// The new outbox head of each partition whose fence held.
    pub heads: BTreeMap<PartitionId, u64>,
    /// The net change of each pool.
    pub pools: BTreeMap<String, Pool>,
}

impl Batch {
    /// The names of all pools that this batch wants, in the order in which they are locked.
    pub fn pool_names(&self) -> BTreeSet<&str> {
        let conditions = self.entries.iter().filter_map(|entry| entry.condition.as_ref());
        conditions.flat_map(|condition| condition.wants.iter().map(|want| want.pool.as_str())).collect()
    }

    /// Decides what this batch comes to. `pools` holds the current value of each wanted pool that exists;
    /// entries of the partitions in `stale` are left out.
    pub fn settle(&self, pools: &BTreeMap<String, Pool>, stale: &BTreeSet<PartitionId>) -> Settled<'_> {
        let held = self.fences.iter().filter(|fence| !stale.contains(&fence.partition));
        let mut settled =
            Settled { heads: held.map(|fence| (fence.partition, fence.outbox_head)).collect(), ..Settled::default() };
        let mut current = pools.clone();
        for entry in &self.entries {
            let Some(head) = settled.heads.get_mut(&entry.partition) else {
                settled.granted.push(false);
                continue;
            };
            let (granted, writes) = match &entry.condition {
                Some(condition) if !grant(&mut current, &condition.wants) => (false, &condition.refused),
                _ => (true, &entry.writes),
            };
            for draft in &writes.outbox {
                *head += 1;
                settled.outbox.push(OutboxRow { partition: entry.partition, sequence: *head, draft: draft.clone() });
            }
            settled.granted.push(granted);
            settled.writes.push((entry.partition, writes));
        }
        current.retain(|name, pool| pools.get(name) != Some(pool));
        settled.pools = current;
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(topic: &str) -> OutboxDraft {
        let (headers, target) = (Headers::default(), PartitionId(0));
        OutboxDraft { id: Uuid::nil(), topic: topic.into(), target, key: None, headers, value: None }
    }

    fn fence(partition: u32, outbox_head: u64) -> Fence {
        let (token, generation) = (Token(Uuid::nil()), Generation(1));
        Fence {
            partition: PartitionId(partition),
            token,
            generation,
            number: 1,
            outbox_head,
            consumed: vec![],
            cursor: None,
        }
    }

    fn wants(partition: u32, by: i64) -> Entry {
        let refused = Writes { outbox: vec![draft("refused"), draft("refused")], ..Writes::default() };
        Entry {
            partition: PartitionId(partition),
            condition: Some(Condition { wants: vec![PoolChange::hold("stock", by)], refused }),
            writes: Writes { outbox: vec![draft("granted")], ..Writes::default() },
        }
    }

    #[test]
    fn grants_follow_batch_order_and_skip_stale_partitions() {
        let batch = Batch {
            fences: vec![fence(0, 10), fence(1, 0), fence(2, 5)],
            entries: vec![wants(0, 2), wants(1, 2), wants(2, 2), wants(0, 1)],
        };
        let pools = BTreeMap::from([("stock".to_owned(), Pool { total: 3, held: 0 })]);
        let settled = batch.settle(&pools, &BTreeSet::from([PartitionId(1)]));
        assert_eq!(settled.granted, [true, false, false, true]);
        let rows: Vec<_> =
            settled.outbox.iter().map(|row| (row.partition.0, row.sequence, &*row.draft.topic)).collect();
        assert_eq!(rows, [(0, 11, "granted"), (2, 6, "refused"), (2, 7, "refused"), (0, 12, "granted")]);
        assert_eq!(settled.heads, BTreeMap::from([(PartitionId(0), 12), (PartitionId(2), 7)]));
        assert_eq!(settled.pools, BTreeMap::from([("stock".to_owned(), Pool { total: 3, held: 3 })]));
    }
}
