//! What a [`super::MemoryStore`] holds, and what one transaction does to it: synchronous, without locks or
//! faults.
//!
//! `Contents::apply` checks everything first and writes after, so a refused batch leaves no trace. It also
//! keeps what a real database would not: every claim ever inserted and every breach of a fence, for the
//! checker.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    batch::{Batch, DeadLetter, Fence, Intent, MailboxWrite, OutboxRow, StateWrite, TimerWrite, Unfiled, Writes},
    dedup::{Claim, ClaimKey},
    disposition::WaitReason,
    envelope::Record,
    epoch::{Beat, Generation, PartitionRow, Token},
    growth::Step,
    pool::Pool,
    port::store::{CommitError, Committed, DueEffect, DueTimer, MailLimit, Slice, StateRow, Unreadable, Waiting},
    ring::Ring,
    stuck::Stuck,
    time::Timestamp,
};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::Sabotage;

/// All tables of one context.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Ownership and progress.
    pub partitions: BTreeMap<PartitionId, PartitionRow>,
    /// The last beats, by address.
    pub beats: BTreeMap<String, Beat>,
    /// Aggregates.
    pub states: BTreeMap<AggregateId, StateRow>,
    /// Every claim in the order of insertion, wherever it stands; more than one under a key is a breach of
    /// I2.
    pub claims: HashMap<ClaimKey, Vec<Claim>>,
    /// The last claims of each aggregate.
    pub rings: BTreeMap<AggregateId, Ring>,
    /// What was pushed out of rings.
    pub pushed_out: HashMap<ClaimKey, Claim>,
    /// Aggregates of which something was pushed out.
    pub spilled: BTreeSet<AggregateId>,
    /// Outbox rows by partition and sequence.
    pub outbox: BTreeMap<(PartitionId, u64), OutboxRow>,
    /// Stuck records by position.
    pub stuck: BTreeMap<i64, Stuck>,
    /// Effects that have not come to their end, by aggregate and name.
    pub effects: BTreeMap<(AggregateId, String), Effect>,
    /// Timers by aggregate and name.
    pub timers: BTreeMap<(AggregateId, String), Timer>,
    /// The durable mailbox by position.
    pub mailbox: BTreeMap<i64, Mail>,
    /// Read model rows.
    pub views: BTreeMap<AggregateId, Value>,
    /// The index of dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// Records that could be filed nowhere else.
    pub unfiled: Vec<Unfiled>,
    /// What each node has noted of its stalled loops, by address.
    pub stalled: BTreeMap<String, String>,
    /// Shared quantities.
    pub pools: BTreeMap<String, Pool>,
    /// Counts of topics, with the time at which each was noticed.
    pub topics: BTreeMap<String, (u32, Vec<(Step, Instant)>)>,
    /// The largest count that another context's relay has marked, by topic and partition.
    pub marks: BTreeMap<(String, PartitionId), u32>,
    /// Counts in force.
    pub generations: BTreeMap<Generation, u32>,
    /// Outbox heads of acknowledgements.
    pub acknowledged: BTreeMap<(PartitionId, Generation), u64>,
    /// States that no build can read.
    pub unreadable: BTreeSet<AggregateId>,
    /// Ids of messages whose claims no build can read.
    pub unreadable_claims: BTreeSet<Uuid>,
    /// The marks under which topics were first seen.
    pub topic_ids: BTreeMap<String, String>,
    /// What no sound run brings about, in words.
    pub breaches: Vec<String>,
    pub(super) last_position: i64,
    last_serial: i64,
    pub(super) staged: HashSet<Uuid>,
    /// Tokens that a sabotaged `retoken` failed to make invalid.
    pub(super) ghosts: HashSet<(PartitionId, Token)>,
}

/// A stored effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The key's hash.
    pub hash: KeyHash,
    /// As it was intended.
    pub intent: Intent,
    /// When it was intended.
    pub since: Instant,
    /// When it may be attempted again.
    pub due: Instant,
    /// Begun.
    pub attempts: u32,
    /// Of the last attempt.
    pub error: String,
}

/// A stored timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The key's hash.
    pub hash: KeyHash,
    /// When it fires.
    pub due: Instant,
    /// How often it was put off.
    pub misses: u32,
    /// Which setting it is.
    pub serial: i64,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// For whom.
    pub id: AggregateId,
    /// The key's hash.
    pub hash: KeyHash,
    /// Why it waits; `None` is a reason that this build doesn't know.
    pub reason: Option<WaitReason>,
    /// Failures so far.
    pub attempts: u32,
    /// When it may be tried, once it is the head; `None` is at once.
    pub due: Option<Instant>,
    /// When it was put.
    pub since: Timestamp,
    /// The last failure.
    pub error: String,
    /// The message as it came.
    pub record: Record,
}

impl Contents {
    /// The partitions of `batch` whose fence does not hold now.
    pub(super) fn stale(&self, batch: &Batch, sabotage: Sabotage) -> Vec<PartitionId> {
        let lost = |fence: &&Fence| !self.fence_holds(fence, !sabotage.no_batch_number);
        batch.fences.iter().filter(lost).map(|fence| fence.partition).collect()
    }

    /// Whether an outbox row with this id was ever written.
    pub fn staged(&self, id: &Uuid) -> bool {
        self.staged.contains(id)
    }

    /// Applies `batch` as one transaction at `now`, `stale` being what its fence statement found.
    pub(super) fn apply(
        &mut self,
        batch: &Batch,
        mut stale: Vec<PartitionId>,
        now: Instant,
        sabotage: Sabotage,
    ) -> Result<Committed, CommitError> {
        let held =
            |fence: &&Fence| !stale.contains(&fence.partition) && !self.fence_holds(fence, !sabotage.no_batch_number);
        if let Some(fence) = batch.fences.iter().find(held) {
            self.breaches.push(format!("partition {} changed hands between fence and COMMIT", fence.partition));
        }
        if sabotage.no_fence {
            for partition in stale.drain(..) {
                self.breaches.push(format!("partition {partition} committed under a fence that does not hold"));
            }
        }
        let settled = batch.settle(&self.pools, &stale.iter().copied().collect());
        let states = || settled.writes.iter().filter_map(|(_, writes)| writes.state.as_ref());
        assert!(
            states().map(|write| &write.id).collect::<BTreeSet<_>>().len() == states().count(),
            "a batch writes one aggregate's state twice; set-based statements can't do that"
        );
        if !sabotage.no_version_check && !states().all(|write| self.version_matches(write)) {
            return Err(CommitError::Conflict);
        }
        for (_, writes) in &settled.writes {
            refuse_nul(writes)?;
        }
        for (_, writes) in &settled.writes {
            self.write(writes, now);
        }
        for fence in &batch.fences {
            self.progress(fence, settled.heads.get(&fence.partition).copied());
        }
        self.pools.extend(settled.pools);
        for row in &settled.outbox {
            if self.outbox.insert((row.partition, row.sequence), row.clone()).is_some() {
                // Tables cut by day can't enforce it, so the database would not have refused either.
                self.breaches.push(format!("outbox row {}/{} written twice", row.partition, row.sequence));
            }
            self.staged.insert(row.draft.id);
        }
        Ok(Committed { stale, granted: settled.granted, outbox: settled.outbox, heads: settled.heads })
    }

    fn fence_holds(&self, fence: &Fence, numbered: bool) -> bool {
        let current = |row: &PartitionRow| {
            row.token == Some(fence.token) || self.ghosts.contains(&(fence.partition, fence.token))
        };
        self.partitions.get(&fence.partition).is_some_and(|row| {
            current(row) && row.generation == fence.generation && (row.batch + 1 == fence.number || !numbered)
        })
    }

    fn version_matches(&self, write: &StateWrite) -> bool {
        match self.states.get(&write.id) {
            None => write.expected == 0,
            Some(row) => row.version == write.expected && row.revision == write.revision,
        }
    }

    /// Advances the row of a fence that held; `head` is `None` for one that did not.
    fn progress(&mut self, fence: &Fence, head: Option<u64>) {
        let (Some(row), Some(head)) = (self.partitions.get_mut(&fence.partition), head) else { return };
        row.batch = fence.number;
        row.outbox_head = row.outbox_head.max(head);
        row.outbox_cursor = row.outbox_cursor.max(fence.cursor.unwrap_or(0));
        consume(row, &fence.consumed);
    }

    /// Notes consumed offsets whether or not the batch commits: the sabotage "offsets first".
    pub(super) fn consume_first(&mut self, batch: &Batch) {
        for fence in &batch.fences {
            if let Some(row) = self.partitions.get_mut(&fence.partition) {
                consume(row, &fence.consumed);
            }
        }
    }

    fn write(&mut self, writes: &Writes, now: Instant) {
        if let Some(write) = &writes.state {
            let row = StateRow {
                version: write.version,
                revision: write.revision + 1,
                schema: write.schema,
                bytes: write.bytes.clone(),
                sources: write.sources.clone(),
            };
            self.states.insert(write.id.clone(), row);
            self.rings.insert(write.id.clone(), write.ring.clone());
            if write.spills {
                self.spilled.insert(write.id.clone());
            }
        }
        self.pushed_out.extend(writes.pushed_out.iter().map(|claim| (claim.key, claim.clone())));
        for claim in &writes.claims {
            self.claims.entry(claim.key).or_default().push(claim.clone());
        }
        for timer in &writes.timers {
            self.change_timer(timer, now);
        }
        for effect in &writes.effects {
            let key = (effect.id.clone(), effect.name.clone());
            match &effect.intent {
                None => _ = self.effects.remove(&key),
                Some(intent) => {
                    let (hash, intent, due) = (effect.hash, intent.clone(), now + intent.hold);
                    let new = || Effect { hash, intent, since: now, due, attempts: 1, error: String::new() };
                    self.effects.entry(key).or_insert_with(new);
                }
            }
        }
        // As one statement has it: a message that is removed here is nobody's head, and one deferred here
        // stays so.
        for kind in [is_remove, is_defer, is_put] {
            for change in writes.mailbox.iter().filter(|change| kind(change)) {
                self.change_mailbox(change, now);
            }
        }
        if let Some(view) = &writes.view {
            let row = serde_json::from_slice(view.row.text()).expect("a row is JSON");
            self.views.insert(view.id.clone(), row);
        }
        self.dead_letters.extend(writes.dead_letters.iter().cloned());
        self.unfiled.extend(writes.unfiled.iter().cloned());
    }

    fn change_timer(&mut self, timer: &TimerWrite, now: Instant) {
        let key = (timer.id.clone(), timer.name.clone());
        if let Some(serial) = timer.serial {
            let Entry::Occupied(mut stored) = self.timers.entry(key) else { return };
            match timer.after {
                _ if stored.get().serial != serial => {}
                Some(after) => stored.get_mut().due = now + after,
                None => _ = stored.remove(),
            }
        } else if let Some(after) = timer.after {
            self.last_serial += 1;
            self.timers.insert(key, Timer { hash: timer.hash, due: now + after, misses: 0, serial: self.last_serial });
        } else {
            self.timers.remove(&key);
        }
    }

    fn change_mailbox(&mut self, change: &MailboxWrite, now: Instant) {
        match change {
            MailboxWrite::Put { id, hash, reason, attempts, after, since, error, record } => {
                self.last_position += 1;
                let mail = Mail {
                    id: id.clone(),
                    hash: *hash,
                    reason: Some(*reason),
                    attempts: *attempts,
                    due: after.map(|after| now + after),
                    since: *since,
                    error: error.clone(),
                    record: record.clone(),
                };
                self.mailbox.insert(self.last_position, mail);
            }
            MailboxWrite::Defer { position, reason, attempts, after, error } => {
                if let Some(mail) = self.mailbox.get_mut(position) {
                    (mail.reason, mail.attempts, mail.due) = (Some(*reason), *attempts, Some(now + *after));
                    mail.error.clone_from(error);
                }
            }
            MailboxWrite::Remove { position } => {
                let Some(gone) = self.mailbox.remove(position) else { return };
                if let Some(next) = self.mailbox.values_mut().find(|mail| mail.id == gone.id) {
                    next.due = None;
                }
            }
        }
    }

    /// How many messages wait for `id`.
    pub fn waiting(&self, id: &AggregateId) -> u64 {
        self.mailbox.values().filter(|mail| mail.id == *id).count() as u64
    }

    /// See [`holdfast_core::port::store::Store::due_timers`].
    pub(super) fn due_timers(&self, slice: &Slice, limit: usize, now: Instant) -> Vec<DueTimer> {
        let due = |timer: &Timer| timer.due <= now && in_slice(slice, timer.hash);
        let mut found: Vec<_> = self.timers.iter().filter(|(_, timer)| due(timer)).collect();
        found.sort_by_key(|(_, timer)| timer.due);
        found.truncate(limit);
        let row = |((id, name), timer): (&(AggregateId, String), &Timer)| DueTimer {
            kind: id.kind.to_owned(),
            key: Arc::clone(&id.key),
            name: name.clone(),
            serial: timer.serial,
        };
        found.into_iter().map(row).collect()
    }

    /// See [`holdfast_core::port::store::Store::put_off_timers`].
    pub(super) fn put_off_timers(&mut self, timers: &[DueTimer], now: Instant) {
        for ((id, name), timer) in &mut self.timers {
            if timers.iter().any(|due| due.kind == id.kind && due.key == id.key && due.name == *name) {
                timer.due = now + Duration::from_secs((1 << timer.misses.min(12)).min(3600));
                timer.misses += 1;
            }
        }
    }

    /// See [`holdfast_core::port::store::Store::due_effects`].
    pub(super) fn due_effects(&mut self, slice: &Slice, limit: usize, hold: Duration, now: Instant) -> Vec<DueEffect> {
        let due = |effect: &Effect| effect.due <= now && in_slice(slice, effect.hash);
        let mut found: Vec<_> = self.effects.iter_mut().filter(|(_, effect)| due(effect)).collect();
        found.sort_by_key(|(_, effect)| effect.due);
        found.truncate(limit);
        let begin = |((id, name), effect): (&(AggregateId, String), &mut Effect)| {
            (effect.due, effect.attempts) = (now + hold, effect.attempts + 1);
            DueEffect {
                kind: id.kind.to_owned(),
                key: Arc::clone(&id.key),
                name: name.clone(),
                request: effect.intent.request.clone(),
                correlation: effect.intent.correlation.clone(),
                traceparent: effect.intent.traceparent.clone(),
                attempts: effect.attempts,
                age: now.duration_since(effect.since),
            }
        };
        found.into_iter().map(begin).collect()
    }

    /// See [`holdfast_core::port::store::Store::put_off_effect`].
    pub(super) fn put_off_effect(
        &mut self,
        kind: &str,
        key: &str,
        name: &str,
        after: Duration,
        error: &str,
        now: Instant,
    ) {
        let is_it = |id: &AggregateId, its: &str| id.kind == kind && &*id.key == key && its == name;
        if let Some((_, effect)) = self.effects.iter_mut().find(|((id, its), _)| is_it(id, its)) {
            effect.due = now + after;
            error.clone_into(&mut effect.error);
        }
    }

    /// See [`holdfast_core::port::store::Store::due_mail`].
    pub(super) fn due_mail(&self, slice: &Slice, limit: MailLimit, now: Instant) -> Vec<Waiting> {
        let mut queues: BTreeMap<&AggregateId, Vec<(i64, &Mail)>> = BTreeMap::new();
        for (position, mail) in self.mailbox.iter().filter(|(_, mail)| in_slice(slice, mail.hash)) {
            queues.entry(&mail.id).or_default().push((*position, mail));
        }
        let mut due: Vec<_> =
            queues.into_values().filter(|queue| queue[0].1.due.is_none_or(|due| due <= now)).collect();
        due.sort_by_key(|queue| (queue[0].1.due, queue[0].0));
        due.truncate(limit.aggregates as usize);
        // By rounds: the heads first, then what stands second.
        let mut line: Vec<(usize, i64, &Mail)> = Vec::new();
        for queue in due {
            let mut before = 0;
            for (n, (position, mail)) in queue.into_iter().take(limit.each as usize).enumerate() {
                if before >= limit.bytes_each {
                    break;
                }
                before += size(&mail.record);
                line.push((n, position, mail));
            }
        }
        line.sort_by_key(|(n, position, _)| (*n, *position));
        let mut before = 0;
        line.retain(|(.., mail)| {
            let is_taken = before < limit.bytes;
            before += size(&mail.record);
            is_taken
        });
        line.truncate(limit.messages as usize);
        line.sort_by_key(|(_, position, _)| *position);
        let unknown = || Unreadable("unknown wait reason".to_owned());
        let waiting = |(_, position, mail): (usize, i64, &Mail)| Waiting {
            position,
            kind: mail.id.kind.to_owned(),
            key: mail.id.key.clone(),
            hash: mail.hash,
            reason: mail.reason.ok_or_else(unknown),
            attempts: mail.attempts,
            since: mail.since,
            error: mail.error.clone(),
            record: mail.record.clone(),
        };
        line.into_iter().map(waiting).collect()
    }
}

fn size(record: &Record) -> u64 {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    (length(&record.key) + record.headers.to_bytes().len() + length(&record.value)) as u64
}

fn is_remove(change: &MailboxWrite) -> bool {
    matches!(change, MailboxWrite::Remove { .. })
}

fn is_defer(change: &MailboxWrite) -> bool {
    matches!(change, MailboxWrite::Defer { .. })
}

fn is_put(change: &MailboxWrite) -> bool {
    matches!(change, MailboxWrite::Put { .. })
}

fn in_slice(slice: &Slice, hash: KeyHash) -> bool {
    slice.partitions.contains(&hash.home(slice.count))
}

fn consume(row: &mut PartitionRow, consumed: &[(Arc<str>, u64)]) {
    for (topic, next) in consumed {
        match row.consumed.iter_mut().find(|(name, _)| **name == **topic) {
            Some((_, stored)) => *stored = *next,
            None => row.consumed.push((topic.to_string(), *next)),
        }
    }
    row.consumed.sort();
}

/// Postgres has no NUL in text; so that poison of this kind is found here too, it is refused alike.
fn refuse_nul(writes: &Writes) -> Result<(), CommitError> {
    let ids = writes
        .state
        .iter()
        .map(|write| &write.id)
        .chain(writes.view.iter().map(|view| &view.id))
        .chain(writes.timers.iter().map(|timer| &timer.id))
        .chain(writes.dead_letters.iter().filter_map(|letter| letter.aggregate.as_ref()));
    let errors = writes.dead_letters.iter().map(|letter| letter.error.as_str());
    let mail = writes.mailbox.iter().flat_map(|change| match change {
        MailboxWrite::Put { id, error, .. } => [&*id.key, error.as_str()],
        MailboxWrite::Defer { error, .. } => [error.as_str(), ""],
        MailboxWrite::Remove { .. } => ["", ""],
    });
    if ids.map(|id| &*id.key).chain(errors).chain(mail).any(|text| text.contains('\0')) {
        return Err(CommitError::Data {
            sqlstate: "22021".into(),
            message: "invalid byte sequence for encoding \"UTF8\": 0x00".into(),
        });
    }
    Ok(())
}
