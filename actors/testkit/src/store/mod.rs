//! The store in memory: one context's tables behind one mutex, shared by any number of nodes.
//!
//! Upholds what the [`Store`] contract says and no more, so that the loop finds in it the database it will
//! meet: partition rows are locked in partition order for as long as a commit is under way, plain reads wait
//! for no lock, and a transaction whose client is gone may still commit. What a test does with it beside the
//! port is in [`controls`]. Deliberately absent: durability, and any time but tokio's.

mod contents;
mod controls;
mod faults;
mod growth;
mod stuck;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_core::{
    AggregateId, PartitionId,
    batch::{Batch, OutboxDraft, OutboxRow},
    dedup::ClaimKey,
    epoch::{Beat, Epoch, Generation, Halt, PartitionRow, Token},
    growth::Growth,
    pool::Pool,
    port::store::{
        CommitError, Committed, Cursor, DueEffect, DueTimer, Found, MailLimit, Slice, Store, StoreError, Taken,
        Unreadable, Waiting, Wanted,
    },
    seal::{KEY_BYTES, Seal},
    stuck::{Queue, Release, SetAside, Stuck},
};
use tokio::{sync::OwnedMutexGuard, time::Instant};
use uuid::Uuid;

use self::faults::Faults;
pub use self::{
    contents::{Contents, Effect, Mail, Timer},
    controls::HeldRows,
    faults::{CommitFault, Sabotage, Stage},
};
use crate::log::MemoryLog;

/// A handle on the store. Clones are the same node; [`Self::node`] makes another node's, with faults of its
/// own.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Shared {
    contents: Mutex<Contents>,
    sabotage: Mutex<Sabotage>,
    publish_first: Mutex<Option<MemoryLog>>,
    rows: Mutex<BTreeMap<PartitionId, Arc<tokio::sync::Mutex<()>>>>,
    seal: OnceLock<Seal>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same store as another node sees it: faults set on one handle don't touch the other.
    #[must_use]
    pub fn node(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), faults: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.shared.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sabotaged(&self) -> Sabotage {
        *self.shared.sabotage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sabotage of [`Self::publish_first`].
    fn publish_uncommitted(&self, batch: &Batch) {
        let Some(log) = self.shared.publish_first.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return;
        };
        let pools = self.lock().pools.clone();
        for row in batch.settle(&pools, &BTreeSet::new()).outbox {
            let draft = row.draft;
            // A topic that is missing is found by the relay, which publishes the row again.
            let _ = log.append(&draft.topic, Some(draft.target), draft.key, draft.headers, draft.value);
        }
    }

    /// Locks the rows of `partitions`, in partition order.
    async fn lock_rows(&self, partitions: impl IntoIterator<Item = PartitionId>) -> Vec<OwnedMutexGuard<()>> {
        let partitions: BTreeSet<PartitionId> = partitions.into_iter().collect();
        let mut guards = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let row = Arc::clone(
                self.shared.rows.lock().unwrap_or_else(PoisonError::into_inner).entry(partition).or_default(),
            );
            guards.push(row.lock_owned().await);
        }
        guards
    }

    /// One transaction, which waits at `stage` for its gate.
    async fn transaction(&self, batch: &Batch, wait: Option<(Stage, crate::Gate)>) -> Result<Committed, CommitError> {
        let sabotage = self.sabotaged();
        if sabotage.offsets_first {
            self.lock().consume_first(batch);
        }
        self.publish_uncommitted(batch);
        self.faults.check_data(batch)?;
        if let Some((Stage::BeforeFence, gate)) = &wait {
            gate.pass().await;
        }
        let _rows = self.lock_rows(batch.fences.iter().map(|fence| fence.partition)).await;
        let stale = self.lock().stale(batch, sabotage);
        if let Some((Stage::BeforeCommit, gate)) = &wait {
            gate.pass().await;
        }
        self.lock().apply(batch, stale, Instant::now(), sabotage)
    }

    /// Starts a transaction that goes on whatever becomes of its caller.
    fn detach(
        &self,
        batch: &Batch,
        stage: Stage,
        gate: crate::Gate,
    ) -> tokio::task::JoinHandle<Result<Committed, CommitError>> {
        let (store, batch) = (self.clone(), batch.clone());
        tokio::spawn(async move { store.transaction(&batch, Some((stage, gate))).await })
    }
}

fn unknown(why: &str) -> CommitError {
    CommitError::Unknown(why.to_owned())
}

#[async_trait]
impl Store for MemoryStore {
    async fn register_partitions(&self, count: u32) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        self.lock().register(count);
        Ok(())
    }

    async fn note_count(&self, topic: &str, count: u32) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        self.lock().note_count(topic, count, Instant::now());
        self.faults.answer(())
    }

    async fn growth(&self) -> Result<Growth, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        Ok(self.lock().growth(Instant::now()))
    }

    async fn bump(&self, from: Generation, count: u32) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let partitions = self.lock().all_partitions();
        let _rows = self.lock_rows(partitions).await;
        self.lock().bump(from, count);
        self.faults.answer(())
    }

    async fn acknowledge(
        &self,
        partition: PartitionId,
        token: Token,
        generation: Generation,
        mark: Option<OutboxDraft>,
    ) -> Result<Option<PartitionRow>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let _row = self.lock_rows([partition]).await;
        let row = self.lock().acknowledge(partition, token, generation, mark);
        self.faults.answer(row)
    }

    async fn note_mark(&self, topic: &str, partition: PartitionId, count: u32) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        self.lock().note_mark(topic, partition, count);
        self.faults.answer(())
    }

    async fn note_ends(&self, topic: &str, count: u32, ends: &[u64]) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        self.lock().note_ends(topic, count, ends);
        self.faults.answer(())
    }

    async fn end_transition(&self, topic: &str, count: u32) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        self.lock().end_transition(topic, count);
        self.faults.answer(())
    }

    async fn partitions(&self) -> Result<Vec<PartitionRow>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        Ok(self.lock().partitions.values().cloned().collect())
    }

    async fn take(
        &self,
        partition: PartitionId,
        expected: Epoch,
        token: Token,
        address: &str,
    ) -> Result<Option<Taken>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        self.faults.taking();
        let _row = self.lock_rows([partition]).await;
        let anyway = self.sabotaged().unconditional_take;
        let Contents { partitions, beats, .. } = &mut *self.lock();
        let taken = partitions.get_mut(&partition).filter(|row| anyway || row.epoch == expected).map(|row| {
            row.epoch = Epoch(row.epoch.0 + 1);
            row.token = Some(token);
            let last = std::mem::replace(&mut row.address, address.to_owned());
            let released = std::mem::replace(&mut row.released, false);
            let has_begun = std::mem::replace(&mut row.has_begun, false);
            let beat = beats.get(&last).filter(|_| has_begun).copied();
            Taken { row: PartitionRow { released, has_begun, ..row.clone() }, beat }
        });
        self.faults.answer(taken)
    }

    async fn beat(&self, address: &str, beat: Beat) -> Result<BTreeMap<String, Beat>, StoreError> {
        self.faults.travel().await;
        self.faults.hold_beat().await;
        self.faults.reach()?;
        let beats = {
            let mut contents = self.lock();
            let before = contents.beats.clone();
            contents.beats.insert(address.to_owned(), beat);
            before
        };
        self.faults.answer(beats)
    }

    async fn tokens(&self, partitions: &[PartitionId]) -> Result<Vec<(PartitionId, Option<Token>)>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let tokens = {
            let contents = self.lock();
            let token = |partition| contents.partitions.get(partition).map(|row| (*partition, row.token));
            partitions.iter().filter_map(token).collect()
        };
        self.faults.travel_back().await;
        Ok(tokens)
    }

    async fn release(&self, partition: PartitionId, token: Token) -> Result<bool, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let _row = self.lock_rows([partition]).await;
        let released = match self.lock().partitions.get_mut(&partition) {
            Some(row) if row.token == Some(token) => {
                row.released = true;
                true
            }
            _ => false,
        };
        self.faults.answer(released)
    }

    async fn retoken(&self, changes: &[(PartitionId, Token, Token)]) -> Result<BTreeMap<PartitionId, u64>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let plain = self.sabotaged().retoken_by_plain_read;
        let _rows = if plain { Vec::new() } else { self.lock_rows(changes.iter().map(|(p, ..)| *p)).await };
        let mut contents = self.lock();
        let (mut found, mut ghosts) = (BTreeMap::new(), Vec::new());
        for (partition, old, new) in changes {
            if let Some(row) = contents.partitions.get_mut(partition).filter(|row| row.token == Some(*old)) {
                found.insert(*partition, row.batch);
                row.token = Some(*new);
                if plain {
                    ghosts.push((*partition, *old));
                }
            }
        }
        contents.ghosts.extend(ghosts);
        drop(contents);
        self.faults.answer(found)
    }

    async fn find(&self, wanted: &[Wanted]) -> Result<Vec<Found>, StoreError> {
        self.faults.travel().await;
        self.faults.reading().await;
        self.faults.reach()?;
        Faults::finding(wanted)?;
        let forgetful = self.sabotaged().forgetful_claims;
        let contents = self.lock();
        let state = |id: &AggregateId| {
            let is_readable = !contents.unreadable.contains(id);
            is_readable
                .then(|| contents.states.get(id).cloned())
                .ok_or_else(|| Unreadable("as the test asked".to_owned()))
        };
        let claimed = |key: &ClaimKey| {
            let stored = || contents.pushed_out.get(key).filter(|_| !forgetful).cloned();
            let is_readable = !contents.unreadable_claims.contains(&key.id);
            is_readable.then(stored).ok_or_else(|| Unreadable("a stored answer is none".to_owned()))
        };
        let find = |Wanted { id, state: is_state, claims }: &Wanted| {
            let has_spilled = contents.spilled.contains(id);
            let elsewhere = |key| contents.rings.get(id).is_some_and(|ring| ring.is_elsewhere(key));
            let is_asked = |key| has_spilled || !is_state || elsewhere(key);
            Found {
                state: if *is_state { state(id) } else { Ok(None) },
                ring: contents.rings.get(id).filter(|_| *is_state && !forgetful).cloned().unwrap_or_default(),
                waiting: if *is_state { contents.waiting(id) } else { 0 },
                has_spilled,
                claims: claims.iter().map(|key| if is_asked(key) { claimed(key) } else { Ok(None) }).collect(),
            }
        };
        Ok(wanted.iter().map(find).collect())
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        self.faults.travel().await;
        self.faults.reach().map_err(|error| CommitError::Unavailable(error.to_string()))?;
        match self.faults.take_commit() {
            None => self.transaction(batch, None).await,
            Some(CommitFault::Unavailable) => Err(CommitError::Unavailable("as the test asked".into())),
            Some(CommitFault::UnknownNotCommitted) => Err(unknown("lost before COMMIT")),
            Some(CommitFault::UnknownCommitted) => {
                self.transaction(batch, None).await?;
                Err(unknown("lost after COMMIT"))
            }
            Some(CommitFault::Late(stage, gate)) => {
                // Its rows are locked (or it is known not to have come so far) before the caller hears of the
                // loss.
                let before = gate.count();
                let lost = self.detach(batch, stage, gate.clone());
                gate.arrivals(before + 1).await;
                drop(lost);
                Err(unknown("lost while the transaction goes on"))
            }
            Some(CommitFault::Slow(stage, gate)) => match self.detach(batch, stage, gate).await {
                Ok(outcome) => outcome,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            },
        }
    }

    async fn outbox(
        &self,
        partition: PartitionId,
        after: u64,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        Ok(self.lock().outbox(partition, after, limit, bytes_max))
    }

    async fn set_aside(&self, partition: PartitionId, token: Token, rows: &[SetAside]) -> Result<bool, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let _row = self.lock_rows([partition]).await;
        let done = self.lock().set_aside(partition, token, rows)?;
        self.faults.answer(done)
    }

    async fn stuck(&self) -> Result<BTreeMap<Queue, u64>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        Ok(self.lock().queues())
    }

    async fn released(&self, slice: &Slice, limit: u32) -> Result<Vec<Stuck>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        Ok(self.lock().released(slice, limit))
    }

    async fn end_release(
        &self,
        partition: PartitionId,
        token: Token,
        position: i64,
        end: &Release,
    ) -> Result<bool, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let done = self.lock().end_release(partition, token, position, end);
        self.faults.answer(done)
    }

    async fn advance(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let _rows = self.lock_rows(cursors.iter().map(|cursor| cursor.partition)).await;
        let anyway = self.sabotaged().cursor_unfenced;
        let mut contents = self.lock();
        for Cursor { partition, token, cursor, published } in cursors {
            match contents.partitions.get_mut(partition) {
                Some(row) if anyway || row.token == Some(*token) => {
                    row.outbox_cursor = row.outbox_cursor.max(*cursor);
                    row.published = row.published.max(*published);
                }
                _ => {}
            }
        }
        drop(contents);
        self.faults.answer(())
    }

    async fn halt(&self, halt: Option<&Halt>) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let partitions: Vec<PartitionId> = self.lock().partitions.keys().copied().collect();
        let _rows = self.lock_rows(partitions).await;
        for row in self.lock().partitions.values_mut() {
            match halt {
                None => row.halted = None,
                Some(halt) if row.halted.is_none() => {
                    row.halted = Some(halt.clone());
                    (row.token, row.epoch, row.released, row.has_begun) = (None, Epoch(row.epoch.0 + 1), false, false);
                }
                Some(_) => {}
            }
        }
        self.faults.answer(())
    }

    async fn incarnations(&self, seen: &[(String, String)]) -> Result<BTreeMap<String, String>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let mut contents = self.lock();
        for (topic, mark) in seen {
            contents.topic_ids.entry(topic.clone()).or_insert_with(|| mark.clone());
        }
        let marks = contents.topic_ids.clone();
        drop(contents);
        self.faults.answer(marks)
    }

    async fn accept_topic(
        &self,
        topic: &str,
        mark: Option<&str>,
        places: &[(PartitionId, u64)],
        events: bool,
    ) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let _rows = self.lock_rows(places.iter().map(|(partition, _)| *partition)).await;
        let mut contents = self.lock();
        for (partition, next) in places {
            let Some(row) = contents.partitions.get_mut(partition) else { continue };
            if events {
                row.published = Some(*next);
            } else {
                row.consumed.retain(|(name, _)| name != topic);
                row.consumed.push((topic.to_owned(), *next));
                row.consumed.sort();
            }
        }
        contents.topic_ids.extend(mark.map(|mark| (topic.to_owned(), mark.to_owned())));
        drop(contents);
        self.faults.answer(())
    }

    async fn due_timers(&self, slice: &Slice, limit: u32) -> Result<Vec<DueTimer>, StoreError> {
        self.faults.travel().await;
        self.faults.reading().await;
        self.faults.reach()?;
        Ok(self.lock().due_timers(slice, limit as usize, Instant::now()))
    }

    async fn put_off_timers(&self, timers: &[DueTimer]) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        self.lock().put_off_timers(timers, Instant::now());
        self.faults.answer(())
    }

    async fn due_effects(&self, slice: &Slice, limit: u32, hold: Duration) -> Result<Vec<DueEffect>, StoreError> {
        self.faults.travel().await;
        self.faults.reading().await;
        self.faults.reach()?;
        let found = self.lock().due_effects(slice, limit as usize, hold, Instant::now());
        self.faults.answer(found)
    }

    async fn put_off_effect(
        &self,
        kind: &str,
        key: &str,
        name: &str,
        after: Duration,
        error: &str,
    ) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        self.lock().put_off_effect(kind, key, name, after, error, Instant::now());
        self.faults.answer(())
    }

    async fn due_mail(&self, slice: &Slice, limit: MailLimit) -> Result<Vec<Waiting>, StoreError> {
        self.faults.travel().await;
        self.faults.reading().await;
        self.faults.reach()?;
        let mut found = self.lock().due_mail(slice, limit, Instant::now());
        if self.sabotaged().mailbox_by_offset {
            found.sort_by_key(|waiting| waiting.record.offset);
        }
        Ok(found)
    }

    async fn mail_waiting(&self, slice: &Slice) -> Result<BTreeMap<PartitionId, u64>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let mut waiting = BTreeMap::new();
        for mail in self.lock().mailbox.values() {
            let home = mail.hash.home(slice.count);
            if slice.partitions.contains(&home) {
                *waiting.entry(home).or_default() += 1;
            }
        }
        Ok(waiting)
    }

    async fn note_stalled(&self, address: &str, stalled: &str) -> Result<(), StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        self.lock().stalled.insert(address.to_owned(), stalled.to_owned());
        self.faults.answer(())
    }

    async fn pools(&self, names: &[String]) -> Result<BTreeMap<String, Pool>, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let contents = self.lock();
        Ok(names.iter().filter_map(|name| Some((name.clone(), *contents.pools.get(name)?))).collect())
    }

    async fn seal(&self) -> Result<Seal, StoreError> {
        self.faults.travel().await;
        self.faults.reach()?;
        let draw = || {
            let mut key = [0; KEY_BYTES];
            for half in key.chunks_mut(16) {
                half.copy_from_slice(Uuid::new_v4().as_bytes());
            }
            Seal::new(key)
        };
        Ok(self.shared.seal.get_or_init(draw).clone())
    }
}
