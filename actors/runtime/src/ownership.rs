//! Which partitions this node owns: take-over, lease, loss, release.
//!
//! The group says which partitions are this node's to take; only the row in the store makes it the owner (I4). Taking: raise the epoch
//! first, then, unless the last owner released it, wait out a full lease on one's own clock, then read where it stands and start. A reconcile loop
//! takes whatever is assigned and not owned, whatever order of pauses and callbacks led there; after losing a fence it takes again
//! only once the group has confirmed the assignment since.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    epoch::{Generation, PartitionRow, Token},
    port::{
        clock::Clock,
        log::Membership,
        store::{Store, StoreError},
    },
};
use ractor::{Actor, ActorRef};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    commit::Tokens,
    config::Config,
    context::Emit,
    entity::Shared,
    fetch::Fetcher,
    growth::{self, Homes},
    lane::{Control, Owned, Report, size},
    lease::Lease,
    mutant::Mutant,
    partition::{Partition, PartitionArguments, PartitionMessage},
    passivation::Directory,
    relay::RelayMessage,
    telemetry,
    work::{Input, ReadReply},
};

/// How the router reaches an owned partition.
#[derive(Clone)]
pub(crate) struct Handle {
    pub term: u64,
    pub supervisor: ActorRef<PartitionMessage>,
    pub lane: mpsc::Sender<Input>,
    pub lease: Lease,
    /// Whether the keys at home here are served.
    pub serving: Arc<AtomicBool>,
    /// Reads of aggregates that are not in memory come back here.
    pub cold: mpsc::UnboundedSender<(holdfast_core::AggregateId, ReadReply)>,
}

/// The owned partitions, for the router.
pub(crate) type Handles = Arc<RwLock<HashMap<PartitionId, Handle>>>;

/// The ends of one lane and its relay.
#[derive(Clone)]
pub(crate) struct LaneEnds {
    pub inputs: mpsc::Sender<Input>,
    pub control: mpsc::UnboundedSender<Control>,
    pub relay: mpsc::UnboundedSender<RelayMessage>,
}

pub(crate) struct Ownership {
    pub config: Arc<Config>,
    pub store: Arc<dyn Store>,
    pub membership: Arc<dyn Membership>,
    pub clock: Arc<dyn Clock>,
    pub emit: Arc<Emit>,
    pub homes: Homes,
    pub fetcher: Fetcher,
    pub lanes: Vec<LaneEnds>,
    pub reports: mpsc::UnboundedReceiver<Report>,
    pub handles: Handles,
    pub root: ractor::ActorCell,
    pub stop: CancellationToken,
}

/// A partition that is owned.
struct Held {
    term: u64,
    tokens: Tokens,
    lease: Lease,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    /// What the group says.
    group: BTreeSet<PartitionId>,
    /// That, and partitions that only other input topics have (see [`with_shared`]).
    assigned: BTreeSet<PartitionId>,
    taking: BTreeSet<PartitionId>,
    releasing: BTreeSet<PartitionId>,
    held: BTreeMap<PartitionId, Held>,
    /// Lost by a fence; not taken again until the group has confirmed the assignment.
    unconfirmed: BTreeSet<PartitionId>,
    terms: u64,
}

enum Done {
    Taken { partition: PartitionId, row: PartitionRow, count: u32, token: Token, started: Duration },
    NotTaken { partition: PartitionId },
    Released { partition: PartitionId },
    Confirmed { partition: PartitionId, is_confirmed: bool },
    Renewed { sent: Duration, tokens: Result<Vec<(PartitionId, Option<Token>)>, StoreError> },
}

impl Ownership {
    /// Runs until stopped, then releases everything.
    pub async fn run(mut self) {
        let mut state = State::default();
        let mut work: JoinSet<Done> = JoinSet::new();
        let mut renew = tokio::time::interval(self.config.renew_every);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_renewing = false;
        let membership = self.membership.clone();
        let mut homes = self.homes.clone();
        loop {
            state.assigned = self.with_shared(&state.group);
            self.reconcile(&mut state, &mut work);
            tokio::select! {
                () = self.stop.cancelled() => break,
                assigned = membership.changed() => match assigned {
                    Ok(assigned) => {
                        state.unconfirmed.clear(); // the group has spoken since
                        state.group = assigned;
                    }
                    Err(error) => {
                        tracing::warn!(context = self.fetcher.context.name(), %error, "group membership failed; trying again");
                        Backoff::infrastructure().wait().await;
                    }
                },
                Some(report) = self.reports.recv() => self.fenced(&mut state, report),
                () = homes.changed() => {}
                Some(done) = work.join_next(), if !work.is_empty() => match done {
                    Ok(Done::Renewed { sent, tokens }) => {
                        is_renewing = false;
                        self.renewed(&mut state, sent, tokens);
                    }
                    Ok(done) => self.done(&mut state, &mut work, done).await,
                    Err(error) => tracing::error!(%error, "an ownership task failed"),
                },
                _ = renew.tick() => {
                    if !is_renewing && !state.held.is_empty() {
                        is_renewing = true;
                        self.renew(&state, &mut work);
                    }
                    for partition in &state.unconfirmed {
                        self.confirm(*partition, &mut work);
                    }
                }
            }
        }
        self.release_all(state, work).await;
    }

    /// A partition beyond the commands topic's count has records all the same, if another input topic is larger; the group knows nothing of
    /// it. It belongs to the owner of the partition that its number comes to among the commands topic's.
    fn with_shared(&self, group: &BTreeSet<PartitionId>) -> BTreeSet<PartitionId> {
        let growth = self.homes.now();
        let count = growth.topic_count(self.fetcher.context.commands_topic());
        let shared =
            growth.rows.iter().map(|row| row.partition).filter(|partition| {
                count > 0 && partition.0 >= count && group.contains(&PartitionId(partition.0 % count))
            });
        group.iter().copied().chain(shared).collect()
    }

    /// Starts taking what is assigned and not owned, and releasing what is owned and not assigned.
    fn reconcile(&self, state: &mut State, work: &mut JoinSet<Done>) {
        metrics::gauge!(telemetry::OWNED_PARTITIONS, "context" => self.fetcher.context.name())
            .set(size(state.held.len()));
        let wanted: Vec<PartitionId> = state
            .assigned
            .iter()
            .filter(|id| {
                !state.held.contains_key(id)
                    && !state.taking.contains(id)
                    && !state.releasing.contains(id)
                    && !state.unconfirmed.contains(id)
            })
            .copied()
            .collect();
        for partition in wanted {
            state.taking.insert(partition);
            let (store, clock, config) = (self.store.clone(), self.clock.clone(), self.config.clone());
            let marks = Marks { context: self.fetcher.context.name(), topic: self.emit.events_topic.clone() };
            let homes = self.homes.clone();
            work.spawn(async move { take(store, clock, &config, partition, marks, homes).await });
        }
        let unwanted: Vec<PartitionId> = state.held.keys().filter(|id| !state.assigned.contains(id)).copied().collect();
        for partition in unwanted {
            self.release(state, work, partition);
        }
    }

    async fn done(&self, state: &mut State, work: &mut JoinSet<Done>, done: Done) {
        match done {
            Done::Taken { partition, row, count, token, started } => {
                state.taking.remove(&partition);
                if let Err(error) = self.start(state, row, count, token, started).await {
                    tracing::error!(partition = partition.0, %error, "an owned partition could not be started");
                } else if !state.assigned.contains(&partition) {
                    self.release(state, work, partition);
                }
            }
            Done::NotTaken { partition } => {
                state.taking.remove(&partition);
                state.unconfirmed.insert(partition);
            }
            Done::Released { partition } => {
                state.releasing.remove(&partition);
            }
            Done::Confirmed { partition, is_confirmed } => {
                if is_confirmed {
                    state.unconfirmed.remove(&partition);
                }
            }
            Done::Renewed { .. } => {}
        }
    }

    /// Begins to serve a partition that has been taken.
    async fn start(
        &self,
        state: &mut State,
        row: PartitionRow,
        count: u32,
        token: Token,
        started: Duration,
    ) -> Result<(), ractor::SpawnErr> {
        state.terms += 1;
        let (partition, term) = (row.partition, state.terms);
        let lane = self.lane_of(partition).clone();
        let lease = Lease::new(self.clock.clone());
        let forever = Duration::from_hours(1_000_000);
        lease.renew(started, if self.config.is(Mutant::NoLeaseCheck) { forever } else { self.config.lease });
        let shared = Arc::new(Shared {
            emit: self.emit.clone(),
            lease: lease.clone(),
            clock: self.clock.clone(),
            mutant: self.config.mutant,
        });
        let arguments = PartitionArguments { context: self.fetcher.context.name(), shared };
        let (supervisor, _) = Partition::spawn_linked(None, Partition, arguments, self.root.clone()).await?;
        let tokens = Tokens::default();
        tokens.add(token);
        let serving = Arc::new(AtomicBool::new(self.config.serves(&self.homes.now(), partition, row.generation)));
        let published = Arc::new(AtomicU64::new(row.outbox_cursor));
        let _ = lane.relay.send(RelayMessage::Own {
            partition,
            token,
            cursor: row.outbox_cursor,
            head: row.outbox_head,
            published: published.clone(),
        });
        let owned = Owned {
            partition,
            term,
            token,
            tokens: tokens.clone(),
            generation: row.generation,
            count,
            serving: serving.clone(),
            held: Vec::new(),
            batch: row.batch,
            outbox_head: row.outbox_head,
            supervisor: supervisor.clone(),
            published,
            cursor_stored: row.outbox_cursor,
            marks: HashMap::new(),
            live: Directory::default(),
        };
        let _ = lane.control.send(Control::Own(Box::new(owned)));
        let stop = CancellationToken::new();
        for topic in self.fetcher.context.inputs() {
            let (fetcher, inputs) = (self.fetcher.clone(), lane.inputs.clone());
            tokio::spawn(fetcher.run(
                topic.clone(),
                partition,
                term,
                row.next_offset(topic),
                inputs,
                serving.clone(),
                stop.clone(),
            ));
        }
        let cold = forward_cold(partition, term, lane.inputs.clone());
        let handle = Handle { term, supervisor, lane: lane.inputs, lease: lease.clone(), serving, cold };
        self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(partition, handle);
        state.held.insert(partition, Held { term, tokens, lease, stop });
        tracing::info!(
            context = self.fetcher.context.name(),
            partition = partition.0,
            epoch = row.epoch.0,
            "partition owned"
        );
        Ok(())
    }

    fn lane_of(&self, partition: PartitionId) -> &LaneEnds {
        &self.lanes[partition.0 as usize % self.lanes.len()]
    }

    /// Ends this node's serving of a partition: first the lease, so that no strong read is answered from here on.
    fn close(&self, partition: PartitionId, held: &Held) {
        held.lease.end();
        self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        held.stop.cancel();
    }

    fn release(&self, state: &mut State, work: &mut JoinSet<Done>, partition: PartitionId) {
        let Some(held) = state.held.remove(&partition) else { return };
        if self.config.is(Mutant::ReleaseFirst) {
            return self.release_first(state, work, partition, held);
        }
        self.close(partition, &held);
        state.releasing.insert(partition);
        let (lane, store, drain) = (self.lane_of(partition).clone(), self.store.clone(), self.config.drain);
        let context = self.fetcher.context.name();
        work.spawn(async move {
            let handed_over = tokio::time::timeout(drain, hand_over(&lane, &*store, partition, held.term)).await;
            let partition_index = partition.0;
            if handed_over == Ok(true) {
                tracing::info!(context, partition = partition_index, "partition released");
            } else {
                tracing::warn!(
                    context,
                    partition = partition_index,
                    "partition given up without release; its next owner waits out a lease"
                );
                let _ = lane.control.send(Control::Drop { partition, term: held.term });
                let _ = lane.relay.send(RelayMessage::Drop { partition });
            }
            Done::Released { partition }
        });
    }

    /// [`Mutant::ReleaseFirst`]: serves on for a second.
    fn release_first(&self, state: &mut State, work: &mut JoinSet<Done>, partition: PartitionId, held: Held) {
        state.releasing.insert(partition);
        let (lane, store, handles) = (self.lane_of(partition).clone(), self.store.clone(), self.handles.clone());
        work.spawn(async move {
            if let Some(token) = held.tokens.last() {
                let _ = store.release(partition, token).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            held.lease.end();
            handles.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
            held.stop.cancel();
            let _ = hand_over(&lane, &*store, partition, held.term).await;
            Done::Released { partition }
        });
    }

    async fn release_all(&self, mut state: State, mut work: JoinSet<Done>) {
        let ids: Vec<PartitionId> = state.held.keys().copied().collect();
        for partition in ids {
            self.release(&mut state, &mut work, partition);
        }
        while !state.releasing.is_empty() {
            match work.join_next().await {
                Some(Ok(Done::Released { partition })) => {
                    state.releasing.remove(&partition);
                }
                Some(_) => {}
                None => break,
            }
        }
        work.abort_all();
        self.membership.leave().await;
    }

    fn fenced(&self, state: &mut State, report: Report) {
        let Report::Fenced { partition, term } = report;
        if state.held.get(&partition).is_some_and(|held| held.term == term)
            && let Some(held) = state.held.remove(&partition)
        {
            self.close(partition, &held);
            let lane = self.lane_of(partition);
            let _ = lane.control.send(Control::Drop { partition, term });
            let _ = lane.relay.send(RelayMessage::Drop { partition });
            metrics::counter!(telemetry::FENCED_TOTAL, "context" => self.fetcher.context.name()).increment(1);
            tracing::warn!(
                context = self.fetcher.context.name(),
                partition = partition.0,
                "fenced: another owner has taken this partition"
            );
            state.unconfirmed.insert(partition);
        }
    }

    fn renew(&self, state: &State, work: &mut JoinSet<Done>) {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let held: Vec<PartitionId> = state.held.keys().copied().collect();
        let is_late = self.config.is(Mutant::LeaseFromAnswer);
        work.spawn(async move {
            let mut sent = clock.boot(); // before sending: the lease counts from here
            let tokens = store.tokens(&held).await;
            if is_late {
                sent = clock.boot();
            }
            Done::Renewed { sent, tokens }
        });
    }

    fn renewed(
        &self,
        state: &mut State,
        sent: Duration,
        tokens: Result<Vec<(PartitionId, Option<Token>)>, StoreError>,
    ) {
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(error) => {
                tracing::warn!(context = self.fetcher.context.name(), %error, "leases could not be renewed");
                return;
            }
        };
        for (partition, token) in tokens {
            let Some(held) = state.held.get(&partition) else { continue };
            if token.is_some_and(|token| held.tokens.contains(token)) {
                held.lease.renew(sent, self.config.lease);
            } else {
                // The answer may be older than this ownership; a fence will tell. Only then is it certain.
                let term = held.term;
                self.fenced(state, Report::Fenced { partition, term });
            }
        }
    }

    fn confirm(&self, partition: PartitionId, work: &mut JoinSet<Done>) {
        let membership = self.membership.clone();
        let count = self.homes.now().topic_count(self.fetcher.context.commands_topic());
        let asked = if count > 0 { PartitionId(partition.0 % count) } else { partition };
        work.spawn(async move {
            let is_confirmed = membership.confirm(asked).await;
            Done::Confirmed { partition, is_confirmed }
        });
    }
}

/// Takes a partition over; returns when it may be served.
async fn take(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: &Config,
    partition: PartitionId,
    marks: Marks,
    homes: Homes,
) -> Done {
    let mut backoff = Backoff::infrastructure();
    let patience = Instant::now() + config.release_grace;
    loop {
        let row = match row_of(&*store, partition).await {
            Ok(Some(row)) => row,
            Ok(None) => {
                tracing::warn!(partition = partition.0, "no row for this partition yet");
                backoff.wait().await;
                continue;
            }
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "take-over waits for the store");
                backoff.wait().await;
                continue;
            }
        };
        // The last owner may be about to release it: that is quicker than waiting out its lease.
        if !row.released && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let token = Token::draw();
        if config.is(Mutant::WaitThenBump) && !row.released {
            tokio::time::sleep(config.lease + config.drift).await;
        }
        match store.take(partition, row.epoch, token, &config.address).await {
            Ok(Some(taken)) => {
                if config.is(Mutant::AcknowledgedAtBump) {
                    let _ = store.acknowledge(partition, token, taken.generation, None).await;
                }
                if !taken.released && !config.is(Mutant::WaitThenBump) {
                    // Until every lease that an earlier owner may hold is over.
                    tokio::time::sleep(config.lease + config.drift).await;
                }
                return begin(&*store, partition, token, &*clock, &marks, homes).await;
            }
            Ok(None) => return Done::NotTaken { partition },
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "take-over waits for the store");
                backoff.wait().await;
            }
        }
    }
}

/// How a mark of this context looks (see [`growth::mark`]).
struct Marks {
    context: &'static str,
    topic: Arc<str>,
}

/// Reads the row as it stands now that nobody else writes it, and acknowledges its generation: an owner that only now begins has let go of
/// every key that is not at home here.
async fn begin(
    store: &dyn Store,
    partition: PartitionId,
    token: Token,
    clock: &dyn Clock,
    marks: &Marks,
    mut homes: Homes,
) -> Done {
    let mut backoff = Backoff::infrastructure();
    loop {
        let started = clock.boot();
        let generation = match row_of(store, partition).await {
            Ok(Some(row)) if row.token == Some(token) => row.generation,
            Ok(_) => return Done::NotTaken { partition },
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "take-over waits for the store");
                backoff.wait().await;
                continue;
            }
        };
        let growth = homes.until(|growth| growth.count_of(generation).is_some()).await;
        let count = growth.count_of(generation).unwrap_or(1);
        // The first generation has left nothing behind.
        let mark = (generation > Generation(1))
            .then(|| growth::mark(marks.context, &marks.topic, partition, count, clock.now()));
        match store.acknowledge(partition, token, generation, mark).await {
            Ok(Some(row)) => return Done::Taken { partition, row, count, token, started },
            // Another generation meanwhile, or another owner: the row says which.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "take-over waits for the store");
                backoff.wait().await;
            }
        }
    }
}

async fn row_of(store: &dyn Store, partition: PartitionId) -> Result<Option<PartitionRow>, StoreError> {
    Ok(store.partitions().await?.into_iter().find(|row| row.partition == partition))
}

/// Finishes what is in flight, publishes it, and marks the row as released.
async fn hand_over(lane: &LaneEnds, store: &dyn Store, partition: PartitionId, term: u64) -> bool {
    let (done, finished) = oneshot::channel();
    if lane.control.send(Control::Release { partition, term, done }).is_err() {
        return false;
    }
    let Ok((token, head)) = finished.await else { return false };
    let (done, published) = oneshot::channel();
    let _ = lane.relay.send(RelayMessage::Finish { partition, token, head, done });
    if published.await.is_err() {
        return false;
    }
    store.release(partition, token).await.unwrap_or(false)
}

/// Sends reads that found no live actor to the lane, which activates one.
fn forward_cold(
    partition: PartitionId,
    term: u64,
    lane: mpsc::Sender<Input>,
) -> mpsc::UnboundedSender<(holdfast_core::AggregateId, ReadReply)> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some((aggregate, reply)) = receiver.recv().await {
            let work = crate::work::Work::Activate { aggregate, reply };
            if lane.send(Input { partition, term, work }).await.is_err() {
                return;
            }
        }
    });
    sender
}

/// The number of partitions owned now.
pub(crate) fn owned_count(handles: &Handles) -> usize {
    handles.read().unwrap_or_else(PoisonError::into_inner).len()
}
