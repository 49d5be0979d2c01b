//! Small well-formed rows and batches, and an owner that commits them, for suites and tests.
//!
//! Deliberately absent: anything that knows a domain; the aggregates here are keys with bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, Headers, KeyHash, PartitionId, Record, Timestamp,
    batch::{
        Batch, Condition, EffectWrite, Entry, Fence, Intent, MailboxWrite, OutboxDraft, StateWrite, TimerWrite, Writes,
    },
    dedup::{Answer, Claim, ClaimKey},
    disposition::WaitReason,
    epoch::{Generation, Token},
    pool::PoolChange,
    port::store::{CommitError, Committed, Found, Slice, Store, Wanted},
    ring::{Pushed, Ring},
};
use uuid::Uuid;

/// The kind of all sample aggregates.
pub const KIND: &str = "sample";

/// An aggregate of [`KIND`].
pub fn id(key: &str) -> AggregateId {
    AggregateId { kind: KIND, key: key.into() }
}

/// The hash of an aggregate's key.
pub fn hash(key: &str) -> KeyHash {
    KeyHash::of(key.as_bytes())
}

/// All of the first `count` partitions.
pub fn everything(count: u32) -> Slice {
    Slice { partitions: (0..count).map(PartitionId).collect(), count }
}

/// The state of `key` going from `expected` to `version`, without claims; written once before, or never if
/// `expected` is 0.
pub fn state(key: &str, expected: u64, version: u64) -> StateWrite {
    StateWrite {
        id: id(key),
        hash: hash(key),
        expected,
        revision: u64::from(expected > 0),
        version,
        schema: 1,
        bytes: Bytes::from(format!("{key}@{version}")),
        sources: BTreeMap::new(),
        ring: Ring::default(),
        spills: false,
    }
}

/// A record to publish to partition 0 of `topic`, with `text` as its body.
pub fn draft(topic: &str, key: &str, text: &str) -> OutboxDraft {
    let mut headers = Headers::default();
    headers.push("ce_subject", key);
    OutboxDraft {
        id: Uuid::now_v7(),
        topic: topic.into(),
        target: PartitionId(0),
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        headers,
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// A claim on a fresh id, answered with `version`.
pub fn claim(version: u64) -> Claim {
    Claim {
        key: ClaimKey { id: Uuid::new_v4(), scope: Uuid::new_v4() },
        body: Uuid::new_v4(),
        answer: Answer::Applied { version, reply: Bytes::new() },
    }
}

/// What writes `state` with `claims`, of which the ring holds the last `max`.
pub fn claimed(mut state: StateWrite, claims: Vec<Claim>, max: usize) -> Writes {
    let Pushed { ring, out, spills } = state.ring.push(&claims, max);
    (state.ring, state.spills) = (ring, spills);
    Writes { state: Some(state), claims, pushed_out: out, ..Writes::default() }
}

/// What writes claims that stand in no ring.
pub fn pushed_out(claims: &[Claim]) -> Writes {
    Writes { claims: claims.to_vec(), pushed_out: claims.to_vec(), ..Writes::default() }
}

/// How many of `claims`, which stand in no ring, `store` has.
///
/// # Panics
/// If it can't be reached, or has another one under the same key.
pub async fn count_outside(store: &Arc<dyn Store>, claims: &[Claim]) -> usize {
    let keys = claims.iter().map(|claim| claim.key).collect();
    let wanted = Wanted { state: false, claims: keys, ..Wanted::state(id("")) };
    let found = store.find(&[wanted]).await.expect("the store is there").remove(0).claims;
    let known = found.iter().zip(claims).filter(|(found, _)| **found != Ok(None));
    known.inspect(|(found, claim)| assert_eq!(**found, Ok(Some((*claim).clone())))).count()
}

/// What `store` has of `key`, with these claims.
///
/// # Panics
/// If it can't be reached.
pub async fn found(store: &Arc<dyn Store>, key: &str, claims: Vec<ClaimKey>) -> Found {
    let mut found = store.find(&[Wanted { claims, ..Wanted::state(id(key)) }]).await.expect("the store is there");
    found.remove(0)
}

/// What `store` has under these claims of `key`, in its ring or outside of it. The digest of a body is known
/// by its first half.
///
/// # Panics
/// If it can't be reached, or a claim can't be read.
pub async fn known_claims(store: &Arc<dyn Store>, key: &str, claims: &[ClaimKey]) -> Vec<Option<Claim>> {
    let Found { ring, claims: outside, .. } = found(store, key, claims.to_vec()).await;
    let known = claims.iter().zip(outside).map(|(key, outside)| outside.expect("readable").or(ring.find(key)));
    known.map(|claim| claim.map(half)).collect()
}

/// The claim with the half of the digest that rings keep.
pub fn half(claim: Claim) -> Claim {
    Claim { body: Uuid::from_u64_pair(claim.body.as_u64_pair().0, 0), ..claim }
}

/// A record read from offset `offset` of partition 0 of `t.commands`.
pub fn record(key: &str, offset: u64, text: &str) -> Record {
    Record {
        topic: "t.commands".into(),
        partition: PartitionId(0),
        offset,
        timestamp: Some(Timestamp::from_unix_ms(1_700_000_000_123)),
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        headers: Headers(vec![("a".into(), Some(Bytes::from_static(b"\x00\xff"))), ("none".into(), None)]),
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// Intends the effect `name` of `key`, or ends it.
pub fn effect(key: &str, name: &str, hold: Option<Duration>) -> EffectWrite {
    let intent = hold.map(|hold| Intent {
        request: Bytes::from(format!("{key} {name}")),
        hold,
        correlation: Some("flow".into()),
        traceparent: None,
    });
    EffectWrite { id: id(key), hash: hash(key), name: name.into(), intent }
}

/// Sets the timer `name` of `key`, or removes it.
pub fn timer(key: &str, name: &str, after: Option<Duration>) -> TimerWrite {
    TimerWrite { id: id(key), hash: hash(key), name: name.into(), after, serial: None }
}

/// Puts a message for `key` into the mailbox.
pub fn mail(key: &str, text: &str, after: Option<Duration>) -> MailboxWrite {
    MailboxWrite::Put {
        id: id(key),
        hash: hash(key),
        reason: WaitReason::Retrying,
        attempts: 1,
        after,
        since: Timestamp::from_unix_ms(1_700_000_000_456),
        error: "failed".into(),
        record: record(key, 0, text),
    }
}

/// An entry without a condition.
pub fn entry(partition: u32, writes: Writes) -> Entry {
    Entry { partition: PartitionId(partition), condition: None, writes }
}

/// An entry that wants `wants`, and publishes `granted` or `refused` to the topic `t.events`.
pub fn conditional(partition: u32, wants: Vec<PoolChange>) -> Entry {
    let publish = |text| Writes { outbox: vec![draft("t.events", "k", text)], ..Writes::default() };
    Entry {
        partition: PartitionId(partition),
        condition: Some(Condition { wants, refused: publish("refused") }),
        writes: publish("granted"),
    }
}

/// Owns partitions of a store, and commits to them as a node would.
#[derive(Clone)]
pub struct Owner {
    store: Arc<dyn Store>,
    fences: BTreeMap<PartitionId, Fence>,
}

impl Owner {
    /// Takes `partitions`, whichever owners have them.
    pub async fn take(store: &Arc<dyn Store>, partitions: impl IntoIterator<Item = u32>) -> Self {
        let partitions: BTreeSet<PartitionId> = partitions.into_iter().map(PartitionId).collect();
        let mut fences = BTreeMap::new();
        for row in store.partitions().await.expect("the store is there") {
            if !partitions.contains(&row.partition) {
                continue;
            }
            let token = Token::draw();
            let taken = store.take(row.partition, row.epoch, token, "http://here").await.expect("the store is there");
            let row = taken.expect("nobody else takes it meanwhile").row;
            let fence = Fence {
                partition: row.partition,
                token,
                generation: row.generation,
                number: row.batch + 1,
                outbox_head: row.outbox_head,
                consumed: Vec::new(),
                cursor: None,
            };
            fences.insert(row.partition, fence);
        }
        assert_eq!(fences.len(), partitions.len(), "all partitions are registered");
        Self { store: Arc::clone(store), fences }
    }

    /// The fence under which the next batch would commit.
    pub fn fence(&self, partition: u32) -> Fence {
        self.fences[&PartitionId(partition)].clone()
    }

    /// The token of `partition`.
    pub fn token(&self, partition: u32) -> Token {
        self.fence(partition).token
    }

    /// Goes on under another token.
    pub fn set_token(&mut self, partition: u32, token: Token) {
        self.change(partition, |fence| fence.token = token);
    }

    /// Goes on under another generation.
    pub fn set_generation(&mut self, partition: u32, generation: Generation) {
        self.change(partition, |fence| fence.generation = generation);
    }

    fn change(&mut self, partition: u32, change: impl FnOnce(&mut Fence)) {
        if let Some(fence) = self.fences.get_mut(&PartitionId(partition)) {
            change(fence);
        }
    }

    /// A batch of `entries` under the fences of their partitions.
    pub fn batch(&self, entries: Vec<Entry>) -> Batch {
        let touched: BTreeSet<PartitionId> = entries.iter().map(|entry| entry.partition).collect();
        Batch { fences: touched.iter().map(|partition| self.fences[partition].clone()).collect(), entries }
    }

    /// Commits `batch`, and on success counts it.
    pub async fn commit_batch(&mut self, batch: &Batch) -> Result<Committed, CommitError> {
        let committed = self.store.commit(batch).await?;
        for fence in &batch.fences {
            if let (Some(head), Some(own)) =
                (committed.heads.get(&fence.partition), self.fences.get_mut(&fence.partition))
            {
                own.number = fence.number + 1;
                own.outbox_head = *head;
            }
        }
        Ok(committed)
    }

    /// Commits `entries`.
    pub async fn commit(&mut self, entries: Vec<Entry>) -> Result<Committed, CommitError> {
        self.commit_batch(&self.batch(entries)).await
    }

    /// Commits one entry of `writes` to `partition`, which must succeed.
    pub async fn write(&mut self, partition: u32, writes: Writes) -> Committed {
        let committed = self.commit(vec![entry(partition, writes)]).await.expect("the batch is sound");
        assert_eq!(committed.stale, [], "the fence holds");
        committed
    }
}
