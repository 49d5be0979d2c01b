//! One bounded context on one machine: wires the ports, the lanes, the relays and the ownership loop
//! together.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::future::BoxFuture;
use holdfast_core::{
    epoch::Halt,
    port::{
        clock::Clock,
        log::{Log, LogError, Membership, Publishers},
        store::{Store, StoreError},
    },
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use holdfast_machine::Rules;

use crate::{
    admission::{Budget, CallBudget},
    config::Config,
    context::BoundedContext,
    effects::EffectCalls,
    environment::Environment,
    fetch::Fetcher,
    gauges::{Gauges, Keeper},
    growth::{self, Homes, Watcher},
    handles::{Handles, owned_count},
    history::History,
    lane::Lane,
    ownership::{LaneEnds, Ownership},
    progress::{Board, Stalled},
    relay::Relay,
    telemetry::Trace,
};

/// The world outside.
#[derive(Clone)]
pub struct Ports {
    /// Where records are read.
    pub log: Arc<dyn Log>,
    /// The group that shares the partitions.
    pub membership: Arc<dyn Membership>,
    /// Where events and dead letters go: each lane has a publisher of its own.
    pub publishers: Arc<dyn Publishers>,
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

impl From<growth::Error> for StartError {
    fn from(error: growth::Error) -> Self {
        match error {
            growth::Error::Log(error) => Self::Log(error),
            growth::Error::Store(error) => Self::Store(error),
        }
    }
}

/// A running context.
pub struct Node {
    pub(crate) context: Arc<BoundedContext>,
    pub(crate) store: Arc<dyn Store>,
    membership: Arc<dyn Membership>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) trace: Trace,
    homes: Homes,
    pub(crate) handles: Handles,
    history: Arc<History>,
    pub(crate) calls: CallBudget,
    stop: CancellationToken,
    ownership: std::sync::Mutex<Option<JoinHandle<()>>>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    board: Board,
    root: ActorRef<()>,
    drain: Duration,
    rules: Rules,
}

/// The actor above all partition supervisors. A supervisor that fails is a bug; its partition is noticed as
/// lost at the next delivery.
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
    ///
    /// The future is boxed: a future is compiled where it is polled, and with this one goes the whole loop,
    /// which every program and test that starts a node would compile again.
    pub fn start(
        context: BoundedContext,
        config: Config,
        ports: Ports,
    ) -> BoxFuture<'static, Result<Arc<Self>, StartError>> {
        Box::pin(Self::begin(context, config, ports))
    }

    async fn begin(context: BoundedContext, config: Config, ports: Ports) -> Result<Arc<Self>, StartError> {
        let context = Arc::new(context.sealed(&*ports.store).await?);
        let config = Arc::new(config);
        let stop = CancellationToken::new();
        let board = Board::new(ports.clock.clone());
        let publishers = (0..config.lanes.max(1)).map(|_| ports.publishers.publisher());
        let publishers: Vec<_> = publishers.collect::<Result<_, _>>()?;
        let (watcher, homes) =
            Watcher::start(context.clone(), config.clone(), ports.log.clone(), ports.store.clone()).await?;
        let emit = Arc::new(context.emit(&config, ports.trace.clone()));
        let (root, _) = Root::spawn(None, Root, ()).await?;
        let (reports, reported) = mpsc::unbounded_channel();
        let mut lanes = Vec::new();
        let slots = Arc::new(Semaphore::new(config.effects_max));
        let watching = watcher.run(board.add("watcher", ""));
        let mut tasks = vec![
            tokio::spawn(board.watch("watcher", "", watching)),
            tokio::spawn(board.watch("limits", "", emit.limits.clone().watch(ports.log.clone()))),
        ];
        for (number, publisher) in publishers.into_iter().enumerate() {
            let name = number.to_string();
            let (inputs, inputs_end) = mpsc::channel(config.batch_items_max * 2);
            let (control, control_end) = mpsc::unbounded_channel();
            let (relay, relay_end) = mpsc::unbounded_channel();
            let effects = EffectCalls {
                context: context.clone(),
                config: config.clone(),
                store: ports.store.clone(),
                clock: ports.clock.clone(),
                trace: ports.trace.clone(),
                slots: slots.clone(),
                inputs: inputs.downgrade(),
            };
            let environment = Environment {
                context: context.clone(),
                config: config.clone(),
                store: ports.store.clone(),
                log: ports.log.clone(),
                clock: ports.clock.clone(),
                emit: emit.clone(),
                homes: homes.clone(),
                effects,
            };
            let lane = Lane::new(
                environment,
                inputs_end,
                control_end,
                reports.clone(),
                relay.clone(),
                board.add("lane", &*name),
            );
            tasks.push(tokio::spawn(board.watch("lane", &*name, lane.run())));
            let pulse = board.add("relay", &*name);
            let publishing =
                Relay::new(context.name(), ports.store.clone(), publisher, ports.trace.clone(), &config, pulse);
            tasks.push(tokio::spawn(board.watch("relay", &*name, publishing.run(relay_end))));
            lanes.push(LaneEnds { inputs, control, relay });
        }
        let history = Arc::new(History::new(context.clone(), emit.clone(), ports.log.clone(), ports.store.clone()));
        let handles: Handles = Arc::new(RwLock::new(HashMap::new()));
        let gauges = Arc::new(Gauges::default());
        let budget = Budget::new(config.memory_bytes_max);
        let keeper = Keeper {
            context: context.clone(),
            address: config.address.clone(),
            log: ports.log.clone(),
            store: ports.store.clone(),
            clock: ports.clock.clone(),
            homes: homes.clone(),
            handles: handles.clone(),
            budget: budget.clone(),
            board: board.clone(),
            gauges: gauges.clone(),
        };
        tasks.push(tokio::spawn(board.watch("watcher", "gauges", keeper.run())));
        let fetcher = Fetcher {
            context: context.clone(),
            log: ports.log.clone(),
            clock: ports.clock.clone(),
            budget,
            trace: ports.trace.clone(),
            store: ports.store.clone(),
            homes: homes.clone(),
            rules: config.rules,
            history: history.clone(),
            stall_after: config.stall_after,
            board: board.clone(),
            gauges,
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
            lost: reported,
            losses: reports,
            history: history.clone(),
            handles: handles.clone(),
            root: root.get_cell(),
            stop: stop.clone(),
            board: board.clone(),
        };
        let owning = board.watch("ownership", "", ownership.run());
        Ok(Arc::new(Self {
            context,
            store: ports.store,
            membership: ports.membership,
            clock: ports.clock,
            trace: ports.trace,
            homes,
            handles,
            history,
            calls: CallBudget::new(config.calls_max, config.calls_bytes_max),
            stop,
            ownership: std::sync::Mutex::new(Some(tokio::spawn(owning))),
            tasks: std::sync::Mutex::new(tasks),
            board,
            root,
            drain: config.drain,
            rules: config.rules,
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

    /// Why the context stands still, if it does: then it serves nothing but local reads until an operator has
    /// spoken.
    pub fn halt(&self) -> Option<Halt> {
        self.history.halt()
    }

    /// Whether this node has joined the group.
    pub fn joined(&self) -> bool {
        self.membership.joined()
    }

    /// Whether every loop moves, or waits for something outside the process: none has ended, and none stands
    /// at a step of its own.
    pub fn is_live(&self) -> bool {
        !self.stalled().iter().any(Stalled::is_stuck)
    }

    /// The loops that make no progress though they have work, the longest first.
    pub fn stalled(&self) -> Vec<Stalled> {
        self.board.stalled()
    }

    /// Stops in good order: ends strong reads, finishes and publishes what is in flight, releases the
    /// partitions, leaves the group. Bounded by twice the configured drain time.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.board.close();
            self.stop.cancel();
            let ownership = self.ownership.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(mut ownership) = ownership
                && tokio::time::timeout(self.drain * 2, &mut ownership).await.is_err()
            {
                tracing::warn!(context = self.context.name(), "stopped without having released everything");
                ownership.abort();
            }
            self.kill();
        })
    }

    /// Stops at once, as a crash would: nothing is finished, published or released.
    pub fn kill(&self) {
        self.board.close();
        self.handles.write().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(ownership) = self.ownership.lock().unwrap_or_else(PoisonError::into_inner).take() {
            ownership.abort();
        }
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        self.root.stop(None);
    }

    /// The count by which a call is sent to its home; [`Rules::passivates_before_acknowledging`] left out has
    /// the first one for ever.
    pub(crate) fn count(&self) -> u32 {
        let growth = self.homes.now();
        let first = growth.generations.values().next().copied();
        first.filter(|_| !self.rules.passivates_before_acknowledging).unwrap_or(growth.current().1)
    }
}
