//! Builds that are broken on purpose: the ports of a node, wrapped so that one rule of the design no longer
//! holds.
//!
//! Upholds I9: the kill test must find each of them. Deliberately absent from every product binary: these
//! wrappers exist only here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use holdfast::compose::Wrap;
use holdfast_core::{
    batch::{Batch, OutboxDraft, OutboxRow, StateWrite},
    epoch::{Beat, Epoch, Generation, Halt, PartitionRow, Token},
    growth::Growth,
    partition::PartitionId,
    pool::Pool,
    port::{
        log::Publisher,
        store::{
            self, CommitError, Committed, Cursor, DueEffect, DueTimer, Found, MailLimit, Slice, Store, StoreError,
            Taken, Waiting, Wanted,
        },
    },
    seal::Seal,
    stuck::{Queue, Release, SetAside, Stuck},
};
use holdfast_runtime::Ports;

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// None: the product as it is.
    None,
    /// A commit goes through even if another node owns the partition by now.
    NoFence,
    /// Offsets are stored before what they stand for is.
    OffsetFirst,
    /// Events go out before they are committed.
    PublishFirst,
}

impl Sabotage {
    pub const BROKEN: [Self; 3] = [Self::NoFence, Self::OffsetFirst, Self::PublishFirst];

    pub fn named(name: &str) -> Option<Self> {
        [Self::None].into_iter().chain(Self::BROKEN).find(|sabotage| sabotage.to_string() == name)
    }

    /// What it does to a node.
    pub fn wrap(self) -> Wrap {
        match self {
            Self::None => |_, ports| ports,
            Self::NoFence => |_, ports| broken(ports, Self::NoFence),
            Self::OffsetFirst => |_, ports| broken(ports, Self::OffsetFirst),
            Self::PublishFirst => |_, ports| broken(ports, Self::PublishFirst),
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::NoFence => "no-fence",
            Self::OffsetFirst => "offset-first",
            Self::PublishFirst => "publish-first",
        })
    }
}

fn broken(ports: Ports, how: Sabotage) -> Ports {
    let publisher = ports.publishers.publisher().expect("the configuration was used before");
    let store = Broken { inner: ports.store, publisher, how, extra: Mutex::default() };
    Ports { store: Arc::new(store), ..ports }
}

struct Broken {
    inner: Arc<dyn Store>,
    publisher: Arc<dyn Publisher>,
    how: Sabotage,
    /// Batches committed under each token that its owner doesn't know of.
    extra: Mutex<HashMap<Token, u64>>,
}

impl Broken {
    fn extra(&self, token: Token) -> u64 {
        self.extra.lock().unwrap_or_else(PoisonError::into_inner).get(&token).copied().unwrap_or(0)
    }

    fn count(&self, token: Token, by: u64) {
        *self.extra.lock().unwrap_or_else(PoisonError::into_inner).entry(token).or_default() += by;
    }

    /// Writes even if another node owns the partition by now, and whatever the aggregates' versions are:
    /// token, generation, batch, head and versions are taken from the rows as they stand now. The version
    /// check goes as well because it is the second line behind the fence: with it in place, a stale owner's
    /// batch is refused for its versions, and a missing fence was not seen in six rounds.
    async fn without_fence(&self, batch: &Batch) -> Result<Committed, CommitError> {
        let away = |error: StoreError| CommitError::Unavailable(error.to_string());
        // A distant database: a process that is paused is then nearly always paused between deciding and
        // committing.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let rows = self.inner.partitions().await.map_err(away)?;
        let mut batch = batch.clone();
        for fence in &mut batch.fences {
            let Some(row) = rows.iter().find(|row| row.partition == fence.partition) else { continue };
            if let Some(token) = row.token {
                (fence.token, fence.generation) = (token, row.generation);
                (fence.number, fence.outbox_head) = (row.batch + 1, row.outbox_head);
            }
        }
        let mut states: Vec<&mut StateWrite> = batch
            .entries
            .iter_mut()
            .flat_map(|entry| {
                let refused = entry.condition.as_mut().and_then(|condition| condition.refused.state.as_mut());
                [entry.writes.state.as_mut(), refused].into_iter().flatten()
            })
            .collect();
        let wanted: Vec<Wanted> = states.iter().map(|state| Wanted::state(state.id.clone())).collect();
        let found = self.inner.find(&wanted).await.map_err(away)?;
        for (state, row) in states.iter_mut().zip(store::states(found).map_err(away)?) {
            (state.expected, state.revision) = row.map_or((0, 0), |row| (row.version, row.revision));
        }
        self.inner.commit(&batch).await
    }

    /// Two transactions: how far the input is consumed, then everything else.
    async fn offset_first(&self, batch: &Batch) -> Result<Committed, CommitError> {
        let mut offsets = Batch { fences: batch.fences.clone(), entries: Vec::new() };
        let mut rest = batch.clone();
        for fence in &mut offsets.fences {
            fence.number += self.extra(fence.token);
        }
        let first = self.inner.commit(&offsets).await?;
        for (fence, counted) in rest.fences.iter_mut().zip(&offsets.fences) {
            if !first.stale.contains(&fence.partition) {
                self.count(fence.token, 1);
                fence.number = counted.number + 1;
                fence.consumed.clear();
            }
        }
        self.inner.commit(&rest).await
    }

    /// Publishes what the batch would come to, and then commits it.
    async fn publish_first(&self, batch: &Batch) -> Result<Committed, CommitError> {
        let names: Vec<String> = batch.pool_names().into_iter().map(str::to_owned).collect();
        let pools = self.inner.pools(&names).await.map_err(|error| CommitError::Unavailable(error.to_string()))?;
        let rows: Arc<[OutboxRow]> = batch.settle(&pools, &BTreeSet::new()).outbox.into();
        let published = self.publisher.publish(rows).await;
        published.map_err(|error| CommitError::Unavailable(error.to_string()))?;
        self.inner.commit(batch).await
    }
}

#[async_trait]
impl Store for Broken {
    async fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        match self.how {
            Sabotage::None => self.inner.commit(batch).await,
            Sabotage::NoFence => self.without_fence(batch).await,
            Sabotage::OffsetFirst => self.offset_first(batch).await,
            Sabotage::PublishFirst => self.publish_first(batch).await,
        }
    }

    async fn retoken(&self, changes: &[(PartitionId, Token, Token)]) -> Result<BTreeMap<PartitionId, u64>, StoreError> {
        let mut numbers = self.inner.retoken(changes).await?;
        for (partition, old, new) in changes {
            let extra = self.extra(*old);
            self.count(*new, extra);
            if let Some(number) = numbers.get_mut(partition) {
                *number -= extra;
            }
        }
        Ok(numbers)
    }

    async fn register_partitions(&self, count: u32) -> Result<(), StoreError> {
        self.inner.register_partitions(count).await
    }

    async fn note_count(&self, topic: &str, count: u32) -> Result<(), StoreError> {
        self.inner.note_count(topic, count).await
    }

    async fn growth(&self) -> Result<Growth, StoreError> {
        self.inner.growth().await
    }

    async fn bump(&self, from: Generation, count: u32) -> Result<(), StoreError> {
        self.inner.bump(from, count).await
    }

    async fn acknowledge(
        &self,
        partition: PartitionId,
        token: Token,
        generation: Generation,
        mark: Option<OutboxDraft>,
    ) -> Result<Option<PartitionRow>, StoreError> {
        self.inner.acknowledge(partition, token, generation, mark).await
    }

    async fn note_mark(&self, topic: &str, partition: PartitionId, count: u32) -> Result<(), StoreError> {
        self.inner.note_mark(topic, partition, count).await
    }

    async fn note_ends(&self, topic: &str, count: u32, ends: &[u64]) -> Result<(), StoreError> {
        self.inner.note_ends(topic, count, ends).await
    }

    async fn end_transition(&self, topic: &str, count: u32) -> Result<(), StoreError> {
        self.inner.end_transition(topic, count).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionRow>, StoreError> {
        self.inner.partitions().await
    }

    async fn take(
        &self,
        partition: PartitionId,
        expected: Epoch,
        token: Token,
        address: &str,
    ) -> Result<Option<Taken>, StoreError> {
        self.inner.take(partition, expected, token, address).await
    }

    async fn beat(&self, address: &str, beat: Beat) -> Result<BTreeMap<String, Beat>, StoreError> {
        self.inner.beat(address, beat).await
    }

    async fn tokens(&self, partitions: &[PartitionId]) -> Result<Vec<(PartitionId, Option<Token>)>, StoreError> {
        self.inner.tokens(partitions).await
    }

    async fn release(&self, partition: PartitionId, token: Token) -> Result<bool, StoreError> {
        self.inner.release(partition, token).await
    }

    async fn find(&self, wanted: &[Wanted]) -> Result<Vec<Found>, StoreError> {
        self.inner.find(wanted).await
    }

    async fn outbox(
        &self,
        partition: PartitionId,
        after: u64,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.inner.outbox(partition, after, limit, bytes_max).await
    }

    async fn set_aside(&self, partition: PartitionId, token: Token, rows: &[SetAside]) -> Result<bool, StoreError> {
        self.inner.set_aside(partition, token, rows).await
    }

    async fn stuck(&self) -> Result<BTreeMap<Queue, u64>, StoreError> {
        self.inner.stuck().await
    }

    async fn released(&self, slice: &Slice, limit: u32) -> Result<Vec<Stuck>, StoreError> {
        self.inner.released(slice, limit).await
    }

    async fn end_release(
        &self,
        partition: PartitionId,
        token: Token,
        position: i64,
        end: &Release,
    ) -> Result<bool, StoreError> {
        self.inner.end_release(partition, token, position, end).await
    }

    async fn advance(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        self.inner.advance(cursors).await
    }

    async fn halt(&self, halt: Option<&Halt>) -> Result<(), StoreError> {
        self.inner.halt(halt).await
    }

    async fn incarnations(&self, seen: &[(String, String)]) -> Result<BTreeMap<String, String>, StoreError> {
        self.inner.incarnations(seen).await
    }

    async fn accept_topic(
        &self,
        topic: &str,
        mark: Option<&str>,
        places: &[(PartitionId, u64)],
        events: bool,
    ) -> Result<(), StoreError> {
        self.inner.accept_topic(topic, mark, places, events).await
    }

    async fn due_timers(&self, slice: &Slice, limit: u32) -> Result<Vec<DueTimer>, StoreError> {
        self.inner.due_timers(slice, limit).await
    }

    async fn due_effects(&self, slice: &Slice, limit: u32, hold: Duration) -> Result<Vec<DueEffect>, StoreError> {
        self.inner.due_effects(slice, limit, hold).await
    }

    async fn put_off_effect(
        &self,
        kind: &str,
        key: &str,
        name: &str,
        after: Duration,
        error: &str,
    ) -> Result<(), StoreError> {
        self.inner.put_off_effect(kind, key, name, after, error).await
    }

    async fn put_off_timers(&self, timers: &[DueTimer]) -> Result<(), StoreError> {
        self.inner.put_off_timers(timers).await
    }

    async fn due_mail(&self, slice: &Slice, limit: MailLimit) -> Result<Vec<Waiting>, StoreError> {
        self.inner.due_mail(slice, limit).await
    }

    async fn mail_waiting(&self, slice: &Slice) -> Result<BTreeMap<PartitionId, u64>, StoreError> {
        self.inner.mail_waiting(slice).await
    }

    async fn note_stalled(&self, address: &str, stalled: &str) -> Result<(), StoreError> {
        self.inner.note_stalled(address, stalled).await
    }

    async fn pools(&self, names: &[String]) -> Result<BTreeMap<String, Pool>, StoreError> {
        self.inner.pools(names).await
    }

    async fn seal(&self) -> Result<Seal, StoreError> {
        self.inner.seal().await
    }
}
