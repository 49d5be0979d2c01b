//! Which partitions this node owns: take-over, lease, loss, release.
//!
//! The group says which partitions are this node's to take; only the row in the store makes it the owner (I4). Taking: raise the epoch
//! first, then, unless the last owner released it, wait until its lease is over, on one's own clock, then read where it stands and start
//! ([`crate::take_over`]). A reconcile loop takes whatever is assigned and not owned, whatever order of pauses, callbacks and panics led
//! there; after losing a fence it takes again only once the group has confirmed the assignment since.
//! Here is the loop; beginning, renewing and releasing have files of their own.

mod release;
mod renewal;
mod start;

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
    epoch::Token,
    port::{
        clock::Clock,
        log::Membership,
        store::{Store, StoreError},
    },
};
use ractor::ActorRef;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    beats::Beats,
    chores::Chores,
    commit::Tokens,
    config::Config,
    context::Emit,
    fetch::Fetcher,
    growth::Homes,
    history::History,
    lane::{Control, Loss, Report, size},
    lease::Lease,
    partition::PartitionMessage,
    progress::Board,
    relay::RelayMessage,
    take_over::{TakeOver, Taking},
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

impl LaneEnds {
    /// Lets the lane and its relay drop everything of a partition.
    fn forget(&self, partition: PartitionId, term: u64) {
        let _ = self.control.send(Control::Drop { partition, term });
        let _ = self.relay.send(RelayMessage::Drop { partition });
    }
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
    /// For those who report from here.
    pub reporter: mpsc::UnboundedSender<Report>,
    pub history: Arc<History>,
    pub beats: Arc<Beats>,
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

#[derive(Default)]
struct State {
    /// What the group says.
    group: BTreeSet<PartitionId>,
    /// That, and partitions that only other input topics have (see [`Ownership::with_shared`]).
    assigned: BTreeSet<PartitionId>,
    /// Being taken; cancelled when the assignment goes.
    taking: BTreeMap<PartitionId, CancellationToken>,
    releasing: BTreeSet<PartitionId>,
    held: BTreeMap<PartitionId, Held>,
    /// Lost by a fence; not taken again until the group has confirmed the assignment. With the number of the loss: a confirmation asked
    /// for before it says nothing.
    unconfirmed: BTreeMap<PartitionId, u64>,
    /// Being confirmed.
    confirming: BTreeSet<PartitionId>,
    losses: u64,
    terms: u64,
    /// The last batch that this node committed to each partition.
    remembered: BTreeMap<PartitionId, Arc<AtomicU64>>,
    is_renewing: bool,
}

impl State {
    /// Not to be taken again before the group confirms the assignment.
    fn doubt(&mut self, partition: PartitionId) {
        self.losses += 1;
        self.unconfirmed.insert(partition, self.losses);
    }
}

enum Done {
    Took { partition: PartitionId, end: Taking },
    Released { partition: PartitionId },
    Confirmed { partition: PartitionId, loss: u64, is_confirmed: bool },
    Renewed { sent: Duration, tokens: Result<Vec<(PartitionId, Option<Token>)>, StoreError> },
}

/// What a task is for, in case it panics.
#[derive(Clone, Copy)]
enum Chore {
    Take(PartitionId),
    Release(PartitionId, u64),
    Confirm(PartitionId),
    Renew,
}

type Work = Chores<Done, Chore>;

impl Ownership {
    /// Runs until stopped, then releases everything.
    pub async fn run(mut self) {
        let mut state = State::default();
        let mut work = Work::new();
        let mut renew = tokio::time::interval(self.config.renew_every);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let membership = self.membership.clone();
        let mut homes = self.homes.clone();
        let history = self.history.clone();
        let watching = history.watch();
        tokio::pin!(watching);
        let pulse = self.board.add("ownership", "");
        loop {
            pulse.step("reconciling");
            state.assigned = self.with_shared(&state.group);
            self.reconcile(&mut state, &mut work);
            pulse.idle();
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
                Some(report) = self.reports.recv() => self.lost(&mut state, report),
                () = homes.changed() => {}
                Some(done) = work.next(), if !work.is_empty() => match done {
                    Ok(done) => self.done(&mut state, &mut work, done).await,
                    Err(chore) => self.failed(&mut state, chore),
                },
                _ = renew.tick() => {
                    // Also with nothing to renew: others are to be heard.
                    if !state.is_renewing {
                        state.is_renewing = true;
                        self.renew(&state, &mut work);
                    }
                    self.confirm_all(&mut state, &mut work);
                }
                // Looks at the marks of topics; never ends.
                () = &mut watching => {}
            }
        }
        self.release_all(state, work).await;
    }

    /// A partition beyond the commands topic's count has records all the same, if another input topic is larger; the group knows nothing of
    /// it. It belongs to the owner of the partition that its number comes to among the commands topic's.
    fn with_shared(&self, group: &BTreeSet<PartitionId>) -> BTreeSet<PartitionId> {
        let growth = self.homes.now();
        let shared = growth.rows.iter().map(|row| row.partition).filter(|partition| {
            let shared_with = self.in_group(*partition);
            shared_with != *partition && group.contains(&shared_with)
        });
        group.iter().copied().chain(shared).collect()
    }

    /// The partition of the group's topic by whose assignment this one is assigned.
    fn in_group(&self, partition: PartitionId) -> PartitionId {
        let count = self.homes.now().topic_count(self.fetcher.context.commands_topic());
        if count > 0 && partition.0 >= count { PartitionId(partition.0 % count) } else { partition }
    }

    /// Starts taking what is assigned and not owned, and releasing what is owned and not assigned.
    fn reconcile(&self, state: &mut State, work: &mut Work) {
        metrics::gauge!(telemetry::OWNED_PARTITIONS, "context" => self.fetcher.context.name())
            .set(size(state.held.len()));
        let wanted: Vec<PartitionId> = state
            .assigned
            .iter()
            .filter(|id| {
                !state.held.contains_key(id)
                    && !state.taking.contains_key(id)
                    && !state.releasing.contains(id)
                    && !state.unconfirmed.contains_key(id)
            })
            .copied()
            .collect();
        for partition in wanted {
            let unwanted = CancellationToken::new();
            state.taking.insert(partition, unwanted.clone());
            let taking = TakeOver {
                store: self.store.clone(),
                clock: self.clock.clone(),
                config: self.config.clone(),
                history: self.history.clone(),
                context: self.fetcher.context.name(),
                events_topic: self.emit.events_topic.clone(),
                homes: self.homes.clone(),
                beats: self.beats.clone(),
                partition,
                pulse: self.board.add("taker", partition.to_string()),
                remembered: state.remembered.entry(partition).or_default().clone(),
                unwanted,
            };
            work.spawn(Chore::Take(partition), async move { Done::Took { partition, end: taking.run().await } });
        }
        for (_, unwanted) in state.taking.iter().filter(|(id, _)| !state.assigned.contains(id)) {
            unwanted.cancel();
        }
        let unwanted: Vec<PartitionId> = state.held.keys().filter(|id| !state.assigned.contains(id)).copied().collect();
        for partition in unwanted {
            self.release(state, work, partition);
        }
    }

    async fn done(&self, state: &mut State, work: &mut Work, done: Done) {
        match done {
            Done::Took { partition, end } => {
                state.taking.remove(&partition);
                match end {
                    Taking::Taken { row, count, token, started, known } => {
                        if let Err(error) = self.start(state, row, count, token, started, known).await {
                            tracing::error!(partition = partition.0, %error, "an owned partition could not be started");
                            state.doubt(partition);
                        } else if !state.assigned.contains(&partition) {
                            self.release(state, work, partition);
                        }
                    }
                    Taking::Lost => state.doubt(partition),
                    Taking::GivenUp => {}
                }
            }
            Done::Released { partition } => {
                state.releasing.remove(&partition);
            }
            Done::Confirmed { partition, loss, is_confirmed } => {
                state.confirming.remove(&partition);
                if is_confirmed && state.unconfirmed.get(&partition) == Some(&loss) {
                    state.unconfirmed.remove(&partition);
                }
            }
            Done::Renewed { sent, tokens } => {
                state.is_renewing = false;
                self.renewed(state, sent, tokens);
            }
        }
    }

    /// A task panicked: a bug, which must not cost a partition for good. What it was for is begun again, no faster than the group confirms.
    fn failed(&self, state: &mut State, chore: Chore) {
        let (class, name) = match chore {
            Chore::Take(partition) => ("taker", partition.to_string()),
            Chore::Release(partition, _) => ("ownership", format!("release of {partition}")),
            Chore::Confirm(partition) => ("ownership", format!("confirmation of {partition}")),
            Chore::Renew => ("ownership", "renewal of leases".to_owned()),
        };
        self.board.ended(class, name, "it panicked");
        match chore {
            Chore::Take(partition) => {
                state.taking.remove(&partition);
                state.doubt(partition);
            }
            Chore::Release(partition, term) => {
                state.releasing.remove(&partition);
                self.lane_of(partition).forget(partition, term);
            }
            Chore::Confirm(partition) => {
                state.confirming.remove(&partition);
            }
            Chore::Renew => state.is_renewing = false,
        }
    }

    fn lane_of(&self, partition: PartitionId) -> &LaneEnds {
        &self.lanes[partition.0 as usize % self.lanes.len()]
    }

    /// Takes in that an ownership has ended without an order.
    fn lost(&self, state: &mut State, report: Report) {
        let Report { partition, term, cause } = report;
        if state.held.get(&partition).is_some_and(|held| held.term == term)
            && let Some(held) = state.held.remove(&partition)
        {
            self.close(partition, &held);
            self.lane_of(partition).forget(partition, term);
            let (context, partition_index) = (self.fetcher.context.name(), partition.0);
            if cause == Loss::Fenced {
                metrics::counter!(telemetry::FENCED_TOTAL, "context" => context).increment(1);
            }
            metrics::counter!(telemetry::LOST_TOTAL, "context" => context, "cause" => cause.as_str()).increment(1);
            let cause = cause.as_str();
            tracing::warn!(
                context,
                partition = partition_index,
                cause,
                "partition given up; it is taken again if it is assigned still"
            );
            state.doubt(partition);
        }
    }

    /// Asks the group about what is in doubt, once at a time for each.
    fn confirm_all(&self, state: &mut State, work: &mut Work) {
        for (partition, loss) in &state.unconfirmed {
            if !state.confirming.insert(*partition) {
                continue;
            }
            let (membership, partition, loss) = (self.membership.clone(), *partition, *loss);
            let asked = self.in_group(partition);
            work.spawn(Chore::Confirm(partition), async move {
                let is_confirmed = membership.confirm(asked).await;
                Done::Confirmed { partition, loss, is_confirmed }
            });
        }
    }
}

/// The number of partitions owned now.
pub(crate) fn owned_count(handles: &Handles) -> usize {
    handles.read().unwrap_or_else(PoisonError::into_inner).len()
}
