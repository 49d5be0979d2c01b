//! One bounded context on one machine: wires the ports, the lanes, the relays and the ownership loop together.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    AggregateId, KeyHash, Message,
    dedup::Answer,
    disposition::Refused,
    epoch::Halt,
    port::{
        clock::Clock,
        log::{Log, LogError, Membership, Publisher},
        store::{Store, StoreError, Wanted},
    },
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Budget,
    config::Config,
    context::{BoundedContext, Emit},
    fetch::Fetcher,
    growth::{Homes, Watcher},
    history::History,
    lane::{Environment, Lane},
    mutant::Mutant,
    ownership::{Handle, Handles, LaneEnds, Ownership, owned_count},
    partition::PartitionMessage,
    relay::Relay,
    router::{Consistency, ReadAnswer, RouteError, Router},
    spans,
    telemetry::Trace,
    work::{Input, Item, Origin, Work},
};

/// The world outside.
#[derive(Clone)]
pub struct Ports {
    /// Where records are read.
    pub log: Arc<dyn Log>,
    /// The group that shares the partitions.
    pub membership: Arc<dyn Membership>,
    /// Where events and dead letters go.
    pub publisher: Arc<dyn Publisher>,
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tracing.
    pub trace: Trace,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The actor system.
    #[error("the root actor did not start")]
    Actor(#[from] ractor::SpawnErr),
}

/// A running context.
pub struct Node {
    context: Arc<BoundedContext>,
    store: Arc<dyn Store>,
    membership: Arc<dyn Membership>,
    clock: Arc<dyn Clock>,
    trace: Trace,
    homes: Homes,
    handles: Handles,
    history: Arc<History>,
    calls: Arc<Semaphore>,
    stop: CancellationToken,
    ownership: std::sync::Mutex<Option<JoinHandle<()>>>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    root: ActorRef<()>,
    drain: Duration,
    mutant: Option<Mutant>,
}

/// The actor above all partition supervisors. A supervisor that fails is a bug; its partition is noticed as lost at the next delivery.
struct Root;

impl Actor for Root {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, error) = event {
            tracing::error!(%error, "a partition supervisor failed; its partition will be taken again");
        }
        Ok(())
    }
}

impl Node {
    /// Starts serving. The topics must exist.
    pub async fn start(context: BoundedContext, config: Config, ports: Ports) -> Result<Arc<Self>, StartError> {
        let context = Arc::new(context);
        let config = Arc::new(config);
        let (watcher, homes) =
            Watcher::start(context.clone(), config.clone(), ports.log.clone(), ports.store.clone()).await?;
        let emit = Arc::new(Emit::new(&context, ports.trace.clone()));
        let (root, _) = Root::spawn(None, Root, ()).await?;
        let (reports, reported) = mpsc::unbounded_channel();
        let mut lanes = Vec::new();
        let mut tasks = vec![tokio::spawn(watcher.run())];
        for _ in 0..config.lanes.max(1) {
            let (inputs, inputs_end) = mpsc::channel(config.batch_items_max * 2);
            let (control, control_end) = mpsc::unbounded_channel();
            let (relay, relay_end) = mpsc::unbounded_channel();
            let environment = Environment {
                context: context.clone(),
                config: config.clone(),
                store: ports.store.clone(),
                log: ports.log.clone(),
                clock: ports.clock.clone(),
                emit: emit.clone(),
                homes: homes.clone(),
            };
            let lane = Lane::new(environment, inputs_end, control_end, reports.clone(), relay.clone());
            tasks.push(tokio::spawn(lane.run()));
            let publishing = Relay::new(
                context.name(),
                ports.store.clone(),
                ports.publisher.clone(),
                ports.trace.clone(),
                config.relay_rows_max,
            );
            tasks.push(tokio::spawn(publishing.run(relay_end)));
            lanes.push(LaneEnds { inputs, control, relay });
        }
        let history = Arc::new(History::new(context.clone(), emit.clone(), ports.log.clone(), ports.store.clone()));
        let handles: Handles = Arc::new(RwLock::new(HashMap::new()));
        let stop = CancellationToken::new();
        let fetcher = Fetcher {
            context: context.clone(),
            log: ports.log.clone(),
            clock: ports.clock.clone(),
            budget: Budget::new(config.memory_bytes_max),
            trace: ports.trace.clone(),
            store: ports.store.clone(),
            homes: homes.clone(),
            mutant: config.mutant,
            history: history.clone(),
            stall_after: config.stall_after,
        };
        let ownership = Ownership {
            config: config.clone(),
            store: ports.store.clone(),
            membership: ports.membership.clone(),
            clock: ports.clock.clone(),
            emit,
            homes: homes.clone(),
            fetcher,
            lanes,
            reports: reported,
            reporter: reports,
            history: history.clone(),
            handles: handles.clone(),
            root: root.get_cell(),
            stop: stop.clone(),
        };
        Ok(Arc::new(Self {
            context,
            store: ports.store,
            membership: ports.membership,
            clock: ports.clock,
            trace: ports.trace,
            homes,
            handles,
            history,
            calls: Arc::new(Semaphore::new(config.calls_max)),
            stop,
            ownership: std::sync::Mutex::new(Some(tokio::spawn(ownership.run()))),
            tasks: std::sync::Mutex::new(tasks),
            root,
            drain: config.drain,
            mutant: config.mutant,
        }))
    }

    /// The context's name.
    pub fn name(&self) -> &'static str {
        self.context.name()
    }

    /// The partition count in force.
    pub fn partition_count(&self) -> u32 {
        self.homes.count()
    }

    /// How many partitions this node owns now.
    pub fn owned_partitions(&self) -> usize {
        owned_count(&self.handles)
    }

    /// Why the context stands still, if it does: then it serves nothing but local reads until an operator has spoken.
    pub fn halt(&self) -> Option<Halt> {
        self.history.halt()
    }

    /// Whether this node has joined the group.
    pub fn joined(&self) -> bool {
        self.membership.joined()
    }

    /// Whether the loop moves: none of its tasks has ended.
    pub fn is_live(&self) -> bool {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().all(|task| !task.is_finished())
    }

    /// Stops in good order: ends strong reads, finishes and publishes what is in flight, releases the partitions, leaves the group. Bounded by
    /// twice the configured drain time.
    pub async fn stop(&self) {
        self.stop.cancel();
        let ownership = self.ownership.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut ownership) = ownership
            && tokio::time::timeout(self.drain * 2, &mut ownership).await.is_err()
        {
            tracing::warn!(context = self.context.name(), "stopped without having released everything");
            ownership.abort();
        }
        self.kill();
    }

    /// Stops at once, as a crash would: nothing is finished, published or released.
    pub fn kill(&self) {
        self.handles.write().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(ownership) = self.ownership.lock().unwrap_or_else(PoisonError::into_inner).take() {
            ownership.abort();
        }
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        self.root.stop(None);
    }

    fn handle(&self, key: &str) -> Result<(holdfast_core::PartitionId, Handle), RouteError> {
        if let Some(halt) = self.history.halt() {
            return Err(RouteError::Halted(halt));
        }
        let home = KeyHash::of(key.as_bytes()).home(self.count());
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let handle =
            handles.get(&home).ok_or_else(|| RouteError::not_owner("this node does not own the key's partition"))?;
        if !handle.serving.load(Ordering::Acquire) {
            return Err(RouteError::not_owner("the key is moving to another partition"));
        }
        Ok((home, handle.clone()))
    }

    /// The count by which a call is sent to its home; [`Mutant::PassivatedAfterwards`] has the first one for ever.
    fn count(&self) -> u32 {
        let growth = self.homes.now();
        let first = growth.generations.values().next().copied();
        first.filter(|_| self.mutant == Some(Mutant::PassivatedAfterwards)).unwrap_or(growth.current().1)
    }

    async fn read_strong(&self, id: AggregateId) -> Result<ReadAnswer, RouteError> {
        let (_, handle) = self.handle(&id.key)?;
        if !handle.lease.valid() {
            return Err(RouteError::not_owner("the lease on this partition has run out"));
        }
        let (reply, answer) = oneshot::channel();
        let message = PartitionMessage::Read { id, reply, cold: handle.cold };
        handle.supervisor.send_message(message).map_err(|_| RouteError::not_owner("the partition is closing"))?;
        answer.await.map_err(|_| RouteError::not_owner("the partition moved while it was read"))?
    }

    async fn read_local(&self, id: AggregateId) -> Result<ReadAnswer, RouteError> {
        let kind = self.context.kind(id.kind).ok_or_else(|| RouteError::unavailable("no such kind"))?.clone();
        let wanted = Wanted { aggregates: vec![id.clone()], claims: Vec::new() };
        let found = self.store.find(&wanted).await.map_err(|error| RouteError::unavailable(error.to_string()))?;
        let row = found.aggregates.into_iter().next().and_then(|(row, _)| row);
        let snapshot =
            kind.snapshot(&id.key, row.as_ref()).map_err(|error| RouteError::unavailable(error.to_string()))?;
        let body: Bytes = kind.reply(&id.key, &snapshot, self.clock.now());
        Ok(ReadAnswer { version: snapshot.version, exists: snapshot.version > 0, body, strong: false })
    }
}

/// How long a read waits for `min_version`.
const MIN_VERSION_WAIT: Duration = Duration::from_secs(2);

#[async_trait]
impl Router for Node {
    async fn command(&self, message: Message) -> Result<Answer, RouteError> {
        let kind = self.context.kind_of_type(&message.r#type).ok_or_else(Refused::unknown_type)?;
        let command = kind.decode(&message)?;
        let aggregate = AggregateId { kind: kind.name(), key: message.key.clone() };
        let permit = self.calls.clone().try_acquire_owned().map_err(|_| RouteError::Overloaded)?;
        let (partition, handle) = self.handle(&message.key)?;
        let (reply, answer) = oneshot::channel();
        let item = Item {
            origin: Origin::Call { reply: std::sync::Mutex::new(Some(reply)) },
            hash: KeyHash::of(message.key.as_bytes()),
            aggregate,
            span: spans::process(self.context.name(), &message, None, &self.trace),
            message,
            command,
            now: self.clock.now(),
            failure: OnceLock::new(),
            claim: OnceLock::default(),
            prepared: false,
            credit: Some(permit),
        };
        let input = Input { partition, term: handle.term, work: Work::Item(Arc::new(item)) };
        handle.lane.send(input).await.map_err(|_| RouteError::not_owner("the partition is closing"))?;
        answer.await.map_err(|_| RouteError::not_owner("the partition moved while the command ran"))?
    }

    async fn read(
        &self,
        kind: &'static str,
        key: &str,
        consistency: Consistency,
        min_version: u64,
    ) -> Result<ReadAnswer, RouteError> {
        let id = AggregateId { kind, key: key.into() };
        let deadline = tokio::time::Instant::now() + MIN_VERSION_WAIT;
        loop {
            let answer = match consistency {
                Consistency::Strong => self.read_strong(id.clone()).await?,
                Consistency::Local => self.read_local(id.clone()).await?,
            };
            if answer.version >= min_version {
                return Ok(answer);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(RouteError::Stale(answer.version));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
