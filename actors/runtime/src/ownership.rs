//! The shell of the ownership machine: what the group, the store and the lanes say becomes its inputs, and
//! its actions become IO.
//!
//! The rules are the machine's (`holdfast_machine::ownership`). Here is one loop: it waits for whatever
//! happens first, tells the machine, and does what the machine says, in order. What takes its time runs as a
//! task whose end is the next input; a task that panicked ends as one that failed. Deliberately absent: any
//! decision.

mod ask;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, atomic::AtomicU64},
};

use holdfast_core::{
    PartitionId,
    port::{clock::Clock, log::Membership, store::Store},
};
use holdfast_machine::{
    Now,
    ownership::{Action, Input, Loss, Machine, Report, Settings, THE_LEASE},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    backoff::Backoff,
    chores::Chores,
    clock::Alarm,
    config::Config,
    emit::Emit,
    fetch::Fetcher,
    growth::Homes,
    handles::Handles,
    history::History,
    lane::{Control, Lost},
    lease::Lease,
    owned::Tokens,
    progress::{Board, Pulse},
    relay::RelayMessage,
    telemetry::{self, size},
    work,
};

/// The ends of one lane and its relay.
#[derive(Clone)]
pub(crate) struct LaneEnds {
    pub inputs: mpsc::Sender<work::Input>,
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
    pub lost: mpsc::UnboundedReceiver<Lost>,
    /// For those who tell of losses from here.
    pub losses: mpsc::UnboundedSender<Lost>,
    pub history: Arc<History>,
    pub handles: Handles,
    pub root: ractor::ActorCell,
    pub stop: CancellationToken,
    pub board: Board,
}

/// A partition that is owned.
struct Held {
    term: u64,
    tokens: Tokens,
    lease: Lease,
    stop: CancellationToken,
}

/// What a task is for, in case it panics: the loop that it belongs to, and the input that then stands for its
/// answer.
struct Note {
    class: &'static str,
    name: String,
    failed: Input,
}

/// What the shell itself has to remember.
struct State {
    held: BTreeMap<PartitionId, Held>,
    /// The last batch that this node committed to each partition.
    remembered: BTreeMap<PartitionId, Arc<AtomicU64>>,
    /// What each taker that does not serve yet was last seen to wait for.
    takers: BTreeMap<PartitionId, (&'static str, Pulse)>,
    work: Chores<Input, Note>,
}

impl Note {
    /// For a task of the taker of `partition`.
    fn of_taker(partition: PartitionId, failed: Input) -> Self {
        Self { class: "taker", name: partition.to_string(), failed }
    }

    /// For a task of the whole node.
    fn of_node(name: &str, failed: Input) -> Self {
        Self { class: "ownership", name: name.to_owned(), failed }
    }
}

impl State {
    fn remembered(&mut self, partition: PartitionId) -> Arc<AtomicU64> {
        self.remembered.entry(partition).or_default().clone()
    }
}

impl Ownership {
    /// Runs until stopped and everything is released.
    pub async fn run(mut self) {
        let started = Instant::now();
        let mut machine = Machine::new(self.settings(), self.homes.now());
        let work = Chores::new();
        let mut state = State { held: BTreeMap::new(), remembered: BTreeMap::new(), takers: BTreeMap::new(), work };
        let mut homes = self.homes.clone();
        let history = self.history.clone();
        let watching = history.watch();
        tokio::pin!(watching);
        let context = self.fetcher.context.name();
        let mut assigned = Box::pin(assigned(self.membership.clone(), context));
        let (stop, mut is_stopping) = (self.stop.clone(), false);
        let pulse = self.board.add("ownership", "");
        let (mut actions, mut alarm) = (Vec::new(), Alarm::default());
        while !machine.has_left() {
            let due = machine.due().map(|due| started + due);
            pulse.idle();
            let input = tokio::select! {
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    Input::Stop
                }
                group = &mut assigned, if !is_stopping => {
                    assigned = Box::pin(self::assigned(self.membership.clone(), context));
                    Input::Assigned(group)
                }
                Some(Lost { partition, term, cause }) = self.lost.recv() => Input::Lost { partition, term, cause },
                () = homes.changed() => Input::Counted(homes.now()),
                Some(done) = state.work.next(), if !state.work.is_empty() => match done {
                    Ok(input) => input,
                    Err(Note { class, name, failed }) => {
                        self.board.ended(class, name, "it panicked");
                        failed
                    }
                },
                () = alarm.until(due) => Input::Tick,
                // Looks at the marks of topics; never ends.
                () = &mut watching => continue,
            };
            pulse.step("reconciling");
            let now = Now { boot: self.clock.boot(), awake: started.elapsed() };
            machine.handle(input, now, &mut actions);
            for action in actions.drain(..) {
                self.perform(action, &mut state).await;
            }
            self.show(&machine, &mut state);
        }
    }

    fn settings(&self) -> Settings {
        let Config { address, lease, drift, renew_every, release_grace, drain, rules, .. } = &*self.config;
        Settings {
            address: address.clone(),
            run: Uuid::new_v4(),
            commands_topic: self.fetcher.context.commands_topic().clone(),
            lease: *lease,
            drift: *drift,
            renew_every: *renew_every,
            release_grace: *release_grace,
            drain: *drain,
            rules: *rules,
        }
    }

    /// Shows what is owned, and what each taker waits for.
    fn show(&self, machine: &Machine, state: &mut State) {
        metrics::gauge!(telemetry::OWNED_PARTITIONS, "context" => self.fetcher.context.name())
            .set(size(machine.owned()));
        let waits: BTreeMap<PartitionId, &'static str> = machine.waits().collect();
        state.takers.retain(|partition, _| waits.contains_key(partition));
        for (partition, what) in waits {
            let (last, pulse) =
                state.takers.entry(partition).or_insert_with(|| ("", self.board.add("taker", partition.to_string())));
            if std::mem::replace(last, what) == THE_LEASE {
                pulse.moved(); // the only step that is known to bring a taker on: the others may come round again
            }
            pulse.waits(what);
        }
    }

    async fn perform(&self, action: Action, state: &mut State) {
        match action {
            Action::Serve(grant) => {
                self.history.saw(None);
                let (partition, term) = (grant.row.partition, grant.term);
                if let Err(error) = self.start(state, *grant).await {
                    tracing::error!(partition = partition.0, %error, "an owned partition could not be started");
                    let _ = self.losses.send(Lost { partition, term, cause: Loss::SupervisorDied });
                }
            }
            Action::Renew { partition, term, until } => {
                if let Some(held) = state.held.get(&partition).filter(|held| held.term == term) {
                    held.lease.extend(until);
                }
            }
            // First the lease, so that no strong read is answered from here on.
            Action::Close { partition, term } => {
                if state.held.get(&partition).is_some_and(|held| held.term == term)
                    && let Some(held) = state.held.remove(&partition)
                {
                    held.lease.end();
                    self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
                    held.stop.cancel();
                }
            }
            Action::Drop { partition, term } => {
                let lane = self.lane_of(partition);
                let _ = lane.control.send(Control::Drop { partition, term });
                let _ = lane.relay.send(RelayMessage::Drop { partition, term });
            }
            Action::HurryCounts => self.homes.hurry(),
            Action::Leave => {
                state.work.abort_all(); // or an epoch might still be raised while the group is being left
                self.membership.leave().await;
            }
            Action::Report(report) => self.report(report, state),
            Action::ReadRows { .. }
            | Action::Raise { .. }
            | Action::Beat { .. }
            | Action::Verify { .. }
            | Action::Acknowledge { .. }
            | Action::HandOver { .. }
            | Action::Look { .. }
            | Action::Confirm { .. }
            | Action::Release { .. } => self.ask(action, state),
        }
    }

    fn lane_of(&self, partition: PartitionId) -> &LaneEnds {
        &self.lanes[partition.0 as usize % self.lanes.len()]
    }

    fn report(&self, report: Report, state: &mut State) {
        let context = self.fetcher.context.name();
        match report {
            Report::NoRow(partition) => {
                tracing::warn!(context, partition = partition.0, "an assigned partition has no row yet");
            }
            Report::Halted(partition, halt) => {
                self.history.saw(Some(&halt));
                // What an operator puts right is right, whatever this node remembers.
                state.remembered(partition).store(0, std::sync::atomic::Ordering::Release);
            }
            Report::Waits(partition, error) => {
                tracing::warn!(context, partition = partition.0, error, "take-over waits");
            }
            Report::NotRenewed(error) => tracing::warn!(context, %error, "leases could not be renewed"),
            Report::Lost(partition, cause) => {
                if cause == Loss::Fenced {
                    metrics::counter!(telemetry::FENCED_TOTAL, "context" => context).increment(1);
                }
                let cause = cause.as_str();
                metrics::counter!(telemetry::LOST_TOTAL, "context" => context, "cause" => cause).increment(1);
                tracing::warn!(
                    context,
                    partition = partition.0,
                    cause,
                    "partition given up; it is taken again if it is assigned still"
                );
            }
            Report::Released(partition) => tracing::info!(context, partition = partition.0, "partition released"),
            Report::NotReleased(partition) => tracing::warn!(
                context,
                partition = partition.0,
                "partition given up without release; its next owner waits out a lease"
            ),
            Report::AddressShared => tracing::warn!(
                context,
                address = self.config.address,
                "another node says that it is at this node's address: give each its own, or calls go to either"
            ),
        }
    }
}

/// Waits until the assignment differs from the one last returned. A group that fails is asked again.
async fn assigned(membership: Arc<dyn Membership>, context: &'static str) -> BTreeSet<PartitionId> {
    let mut backoff = Backoff::infrastructure();
    loop {
        match membership.changed().await {
            Ok(assigned) => return assigned,
            Err(error) => {
                tracing::warn!(context, %error, "group membership failed; trying again");
                backoff.wait().await;
            }
        }
    }
}
