//! Folds back what a restored database lost: the tail of the events topic, onto the stored states.
//!
//! Upholds I10 and I2 across a restore. Every event that was published is part of the one history, whatever
//! the database remembers: it is applied again, in version order, to the state it followed, together with
//! what went with it (shared quantities, timers, the read model), and its row is back in the outbox under its
//! old id. Consumers then rewind to where the backup stood, and find what they did before by the claims that
//! are rebuilt here. Each aggregate is folded by one ordinary commit, under fences, and one that is folded is
//! passed over: so a run that was cut off is simply repeated.
//!
//! What was never published is gone: events of the last moments, rejections, answers to callers, mail and
//! timers without an event. Commands that came through Kafka are read again and done again; calls are not.
//! Deliberately absent: deciding on its own that this is wanted.

mod fold;
mod replay;
mod tail;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use holdfast_core::{
    PartitionId,
    batch::{Batch, Entry, Fence},
    epoch::{Halt, HaltReason, PartitionRow, Token},
    pool::{Pool, grant},
    port::{
        clock::Clock,
        log::{Log, LogError},
        store::{CommitError, Cursor, Found, Slice, Store, StoreError, Taken, Wanted},
    },
    ring::Ring,
};

use crate::{context::BoundedContext, emit::Emit, telemetry::NoTrace};

/// Aggregates committed at a time.
const CHUNK: usize = 256;

/// Why nothing, or nothing more, was recovered. The context stays halted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A commit.
    #[error("a part could not be written; run it again")]
    Commit(#[from] CommitError),
    /// An event in the topic that this build can't apply.
    #[error("{place}: {reason}")]
    Unreadable {
        /// Topic, partition, offset.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The topic holds two histories, or one with a hole. No order of applying them is right.
    #[error("{place}: {reason}; this can't be folded, see the runbook")]
    Broken {
        /// Topic, partition, offset.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Shared quantities would leave their bounds.
    #[error(
        "the shared quantities {0} can't be recovered: what was published was granted from changes that were never published; \
         see the runbook"
    )]
    Pools(String),
    /// A topic is not the one it was, or lacks offsets, and no operator has accepted that.
    #[error("{0}; if that is how it is now, accept it with --accept-topics (what is missing is then passed over)")]
    Topics(String),
    /// A partition was taken during the recovery.
    #[error("partition {0} was taken by another owner during the recovery; run the recovery again")]
    Taken(PartitionId),
}

/// The world outside, as recovery needs it.
#[derive(Clone)]
pub struct Ports {
    /// Where the topics are read.
    pub log: Arc<dyn Log>,
    /// What was restored.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// How to recover.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `ce_source`s under which callers' commands are claimed.
    pub callers: Vec<String>,
    /// Whether topics that were made again, or whose offsets are gone, are taken as they are now.
    pub accept_topics: bool,
    /// How long old owners may still answer reads: the lease and its drift.
    pub lease: Duration,
}

/// What there is to recover, or was recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// The context.
    pub context: String,
    /// Why it is halted, if it is.
    pub halted: Option<String>,
    /// Events in the topic that the database lacks.
    pub events: u64,
    /// Aggregates that those events belong to.
    pub aggregates: u64,
    /// Claims rebuilt from commands that are still in their topic.
    pub claims_of_commands: u64,
    /// Claims rebuilt from events alone: calls, mostly. Any repeat of such a message gets the answer,
    /// whatever its body.
    pub claims_of_calls: u64,
    /// Commands that were decided before the restore without an event of theirs: they stay without effect,
    /// and their answers are lost.
    pub decided_without_event: u64,
    /// Shared quantities that change.
    pub pools: u64,
    /// Topics that are not as the database remembers them.
    pub topics: Vec<String>,
    /// Rows of the outbox that may be published a second time, under their old ids.
    pub repeated: u64,
    /// Events among those folded back that an operator had discarded: what they changed is lost.
    pub discarded: u64,
}

/// What is to be written.
struct Plan {
    summary: Summary,
    rows: Vec<PartitionRow>,
    entries: Vec<Entry>,
    accepts: Vec<tail::Accept>,
    /// Per partition the end of what is known of the events topic, and the cursor.
    ends: BTreeMap<PartitionId, (Option<u64>, tail::Published)>,
}

/// Recovers one context.
pub struct Recovery {
    context: Arc<BoundedContext>,
    emit: Arc<Emit>,
    ports: Ports,
    settings: Settings,
    count: u32,
}

impl Recovery {
    /// Sees which count is in force; an empty database is given its rows.
    pub fn new(context: BoundedContext, ports: Ports, settings: Settings) -> BoxFuture<'static, Result<Self, Error>> {
        Box::pin(async move {
            let count = match ports.store.growth().await?.current() {
                (_, count) if count > 0 => count,
                // Nothing was ever registered: an empty database.
                _ => ports.log.partition_count(context.commands_topic()).await?,
            };
            ports.store.register_partitions(count).await?;
            let context = Arc::new(context.sealed(&*ports.store).await?);
            let emit = Arc::new(context.emit(&crate::config::Config::default(), Arc::new(NoTrace)));
            Ok(Self { context, emit, ports, settings, count })
        })
    }

    /// What there is to recover. Changes nothing; may be run beside nodes.
    pub fn look(&self) -> BoxFuture<'_, Result<Summary, Error>> {
        Box::pin(async move { Ok(self.plan().await?.summary) })
    }

    /// Recovers, and lets the context go on. Halts it first: nodes that run stop serving it, and take it up
    /// again afterwards by themselves.
    pub fn run(&self) -> BoxFuture<'_, Result<Summary, Error>> {
        Box::pin(async move {
            let detail = "holdfast recover is at work, or was cut off and has to be run again".to_owned();
            self.ports.store.halt(Some(&Halt { reason: HaltReason::Recovering, detail })).await?;
            tokio::time::sleep(self.settings.lease).await;
            let plan = self.plan().await?;
            if let Some(topic) = plan.summary.topics.first()
                && !self.settings.accept_topics
            {
                return Err(Error::Topics(topic.clone()));
            }
            let mut held = self.take(&plan.rows).await?;
            for chunk in plan.entries.chunks(CHUNK) {
                self.commit(&mut held, chunk).await?;
            }
            for accept in &plan.accepts {
                let mark = accept.mark.as_deref();
                self.ports.store.accept_topic(&accept.topic, mark, &accept.places, accept.events).await?;
            }
            let cursor = |held: &Held| {
                let (published, done) = plan.ends.get(&held.partition).cloned().unwrap_or_default();
                let cursor = if done.all { held.head } else { done.cursor };
                Cursor { partition: held.partition, token: held.token, cursor, published }
            };
            let cursors: Vec<Cursor> = held.values().map(cursor).collect();
            self.ports.store.advance(&cursors).await?;
            for held in held.values() {
                self.ports.store.release(held.partition, held.token).await?;
            }
            self.ports.store.halt(None).await?;
            Ok(plan.summary)
        })
    }

    async fn plan(&self) -> Result<Plan, Error> {
        let rows = self.ports.store.partitions().await?;
        let (accepts, topics) = tail::topics(self, &rows).await?;
        let mut tail = tail::read(self, &rows, &accepts).await?;
        let lost = fold::lost(self, &mut tail).await?;
        let mut ends = tail::ends(self, &rows, &tail).await?;
        let replays = replay::read(self, &rows, &accepts, &lost.keys().cloned().collect()).await?;
        let mut summary = Summary {
            context: self.context.name().to_owned(),
            halted: rows.iter().find_map(|row| row.halted.as_ref()).map(ToString::to_string),
            topics,
            events: lost.values().map(|lost| lost.events.len() as u64).sum(),
            aggregates: lost.len() as u64,
            ..Summary::default()
        };
        let mut entries = fold::entries(self, lost, &replays, &mut summary)?;
        // Whether messages to other aggregates were sent is not known: they are, with what lies before them.
        let sends = |entry: &&Entry| entry.writes.outbox.iter().any(|draft| draft.topic != self.emit.events_topic);
        for entry in entries.iter().filter(sends) {
            if let Some((_, done)) = ends.get_mut(&entry.partition) {
                done.all = false;
            }
        }
        summary.repeated = ends.values().filter(|(_, done)| !done.all).map(|(_, done)| done.behind).sum();
        self.push_claims(&mut entries).await?;
        let entries = self.in_grantable_order(entries, &mut summary).await?;
        Ok(Plan { summary, rows, entries, accepts, ends })
    }

    /// Puts claims into the rings of their aggregates, but those that the backup holds already.
    async fn push_claims(&self, entries: &mut [Entry]) -> Result<(), Error> {
        for chunk in entries.chunks_mut(CHUNK) {
            let mut wanted = Vec::with_capacity(chunk.len());
            for Entry { writes, .. } in &*chunk {
                let claims = writes.claims.iter().map(|claim| claim.key).collect();
                wanted.extend(writes.state.as_ref().map(|state| Wanted { claims, ..Wanted::state(state.id.clone()) }));
            }
            let mut found = self.ports.store.find(&wanted).await?.into_iter();
            for Entry { writes, .. } in chunk {
                let Some(state) = &mut writes.state else { continue };
                let Some(Found { ring, claims, .. }) = found.next() else { continue };
                let mut stored = claims.into_iter();
                // One that can't be read is there all the same.
                writes.claims.retain(|claim| {
                    stored.next().is_none_or(|stored| stored == Ok(None)) && ring.find(&claim.key).is_none()
                });
                let pushed = ring.push(&writes.claims, Ring::CLAIMS_MAX);
                (state.ring, state.spills, writes.pushed_out) = (pushed.ring, pushed.spills, pushed.out);
            }
        }
        Ok(())
    }

    /// An order in which every change of shared quantities can be granted. What was granted from changes that
    /// were never published can't be.
    async fn in_grantable_order(&self, entries: Vec<Entry>, summary: &mut Summary) -> Result<Vec<Entry>, Error> {
        let wants =
            |entry: &Entry| entry.condition.as_ref().map(|condition| condition.wants.clone()).unwrap_or_default();
        let names: BTreeSet<String> = entries.iter().flat_map(wants).map(|want| want.pool).collect();
        let names: Vec<String> = names.into_iter().collect();
        let mut pools: BTreeMap<String, Pool> = self.ports.store.pools(&names).await?;
        summary.pools = names.len() as u64;
        let (mut ordered, mut left) = (Vec::with_capacity(entries.len()), entries);
        loop {
            let before = left.len();
            let (granted, refused): (Vec<Entry>, Vec<Entry>) =
                left.into_iter().partition(|entry| grant(&mut pools, &wants(entry)));
            ordered.extend(granted);
            left = refused;
            if left.is_empty() {
                return Ok(ordered);
            }
            if left.len() == before {
                let names: BTreeSet<String> = left.iter().flat_map(wants).map(|want| want.pool).collect();
                return Err(Error::Pools(names.into_iter().take(10).collect::<Vec<_>>().join(", ")));
            }
        }
    }

    async fn take(&self, rows: &[PartitionRow]) -> Result<BTreeMap<PartitionId, Held>, Error> {
        let mut held = BTreeMap::new();
        for row in rows {
            let token = Token::draw();
            let taken = self.ports.store.take(row.partition, row.epoch, token, "holdfast recover").await?;
            let Some(Taken { row, .. }) = taken else { return Err(Error::Taken(row.partition)) };
            held.insert(
                row.partition,
                Held {
                    partition: row.partition,
                    token,
                    number: row.batch,
                    head: row.outbox_head,
                    generation: row.generation,
                },
            );
        }
        Ok(held)
    }

    /// One commit, in which every condition must be granted: what is not, is not written.
    async fn commit(&self, held: &mut BTreeMap<PartitionId, Held>, entries: &[Entry]) -> Result<(), Error> {
        let touched: BTreeSet<PartitionId> = entries.iter().map(|entry| entry.partition).collect();
        let fence = |held: &Held| Fence {
            partition: held.partition,
            token: held.token,
            generation: held.generation,
            number: held.number + 1,
            outbox_head: held.head,
            consumed: Vec::new(),
            cursor: None,
        };
        let fences = held.values().filter(|held| touched.contains(&held.partition)).map(fence).collect();
        let committed = self.ports.store.commit(&Batch { fences, entries: entries.to_vec() }).await?;
        if let Some(partition) = committed.stale.first() {
            return Err(Error::Taken(*partition));
        }
        for (partition, head) in committed.heads {
            if let Some(held) = held.get_mut(&partition) {
                (held.number, held.head) = (held.number + 1, head);
            }
        }
        if committed.granted.contains(&false) {
            return Err(Error::Pools("of this part".to_owned()));
        }
        Ok(())
    }

    fn slice(&self) -> Slice {
        Slice { partitions: (0..self.count).map(PartitionId).collect(), count: self.count }
    }
}

/// A partition taken for the recovery.
struct Held {
    partition: PartitionId,
    token: Token,
    number: u64,
    head: u64,
    generation: holdfast_core::epoch::Generation,
}
