//! The loop: gathers a batch, looks up what it needs, has it decided, commits it, answers, and hands on what it caused.
//!
//! A lane serves some of a node's partitions, one batch after the other; while one commit is in flight the next batch gathers and is looked
//! up. Nothing is answered, published or stored as an offset before its commit is known to have happened (I1, I2), and in this order:
//! the actors advance, callers are answered, rows go to the relay, offsets are noted (I5).

mod asking;
mod commits;
mod decisions;
mod homes;
mod undone;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    AggregateId, PartitionId,
    batch::Batch,
    dedup::{Claim, ClaimKey},
    epoch::Token,
    watermark::Watermark,
};
use holdfast_machine::ownership::Loss;
use ractor::ActorRef;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tracing::Span;

use crate::{
    commit::{End, Reloaded},
    environment::Environment,
    ids::{IdMap, IdSet},
    owned::Owned,
    partition::PartitionMessage,
    passivation::Directory,
    plan::Plan,
    progress::Pulse,
    relay::RelayMessage,
    router::RouteError,
    telemetry::{self, size},
    waiting::{self, Due},
    work::{Input, Origin, Work},
};

/// What a lane waits for, as [`crate::progress`] shows it.
const DATABASE: &str = "the database";

/// An ownership that has ended without an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub partition: PartitionId,
    pub term: u64,
    pub cause: Loss,
}

/// Orders from the ownership loop.
pub(crate) enum Control {
    /// Serve this partition from now on.
    Own(Box<Owned>),
    /// The partition is lost: drop everything of it.
    Drop { partition: PartitionId, term: u64 },
    /// Finish what is in flight for it and let it go; answers with the token and outbox head it ends with.
    Release { partition: PartitionId, term: u64, done: oneshot::Sender<(Token, u64)> },
}

/// Offsets that a batch consumes, by partition and topic.
type Offsets = HashMap<(PartitionId, Arc<str>), BTreeSet<u64>>;

struct InFlight {
    task: JoinHandle<End>,
    plan: Plan,
    batch: Arc<Batch>,
    done: Offsets,
    /// They end with the commit.
    spans: Vec<Span>,
}

pub(crate) struct Lane {
    env: Environment,
    inputs: mpsc::Receiver<Input>,
    control: mpsc::UnboundedReceiver<Control>,
    reports: mpsc::UnboundedSender<Lost>,
    relay: mpsc::UnboundedSender<RelayMessage>,
    owned: BTreeMap<PartitionId, Owned>,
    /// Work left over from the last batch; it comes before everything gathered since.
    carry: VecDeque<Input>,
    /// Parts of a batch that the store refused, to be tried one by one.
    parts: VecDeque<Vec<Input>>,
    /// What waits for look-ups in other contexts.
    asking: asking::Asking,
    /// So many batches in a row had nothing in them but what was carried again, and look-ups are under way.
    fruitless: u8,
    in_flight: Option<InFlight>,
    /// Plans of this batch that are still to be committed.
    ready: VecDeque<Plan>,
    /// Claims written since the batch now gathering was looked up.
    recent: IdMap<ClaimKey, Claim>,
    /// Aggregates that are not live, to whose mailbox a commit has added since the batch now gathering was looked up: how many messages
    /// wait is not known.
    mailed: IdSet<AggregateId>,
    /// Firings of timers that are under way, by aggregate and name, and whether a commit has set the timer
    /// again, or cancelled it, since it was read.
    firings: IdMap<(AggregateId, String), bool>,
    poll_due: Instant,
    passivate_due: Instant,
    /// Work that a commit left undone, in order, and whether there is any to put in its place.
    undone: Vec<Vec<Input>>,
    is_disturbed: bool,
    /// Live actors as last told to the gauge.
    live_told: usize,
    /// A commit was refused for its generation: the counts have changed.
    is_outdated: bool,
    /// For [`Rules::drops_actors_when_fenced`] left out; empty otherwise.
    kept: HashMap<PartitionId, (ActorRef<PartitionMessage>, Directory)>,
    pulse: Pulse,
}

impl Lane {
    pub fn new(
        env: Environment,
        inputs: mpsc::Receiver<Input>,
        control: mpsc::UnboundedReceiver<Control>,
        reports: mpsc::UnboundedSender<Lost>,
        relay: mpsc::UnboundedSender<RelayMessage>,
        pulse: Pulse,
    ) -> Self {
        Self {
            pulse,
            env,
            inputs,
            control,
            reports,
            relay,
            owned: BTreeMap::new(),
            carry: VecDeque::new(),
            parts: VecDeque::new(),
            asking: asking::Asking::default(),
            fruitless: 0,
            in_flight: None,
            ready: VecDeque::new(),
            recent: IdMap::default(),
            mailed: IdSet::default(),
            firings: IdMap::default(),
            poll_due: Instant::now(),
            passivate_due: Instant::now(),
            undone: Vec::new(),
            is_disturbed: false,
            live_told: 0,
            is_outdated: false,
            kept: HashMap::new(),
        }
    }

    /// Runs until the node drops its ends of the channels.
    pub async fn run(mut self) {
        while let Some(mut batch) = self.gather().await {
            self.mailed.clear();
            let known = self.look_up(&mut batch).await;
            self.settle_all(&mut batch).await;
            if self.reorder(&mut batch) {
                continue;
            }
            self.upkeep(&mut batch).await;
            self.pulse.step("deciding");
            self.decide(batch, known).await;
            self.start_commit();
        }
        self.owned.clear();
        self.count_live();
    }

    /// Waits for work. Returns at once what is there if nothing is in flight, else a full batch or whatever has come when the commit ends.
    async fn gather(&mut self) -> Option<Vec<Input>> {
        let mut batch: Vec<Input> = Vec::new();
        let max = self.env.config.batch_items_max;
        loop {
            self.hear(&mut batch);
            self.follow_counts(&mut batch).await;
            self.reorder(&mut batch);
            if batch.is_empty() {
                self.take_answered();
                if !self.is_stuck() {
                    batch.extend(self.carry.drain(..));
                }
                if let Some(part) = self.parts.pop_front() {
                    batch.extend(part);
                    return Some(batch);
                }
            }
            while batch.len() < max
                && let Ok(input) = self.inputs.try_recv()
            {
                self.admit(input, &mut batch);
            }
            let idle = self.in_flight.is_none() && self.ready.is_empty();
            if idle && Instant::now() >= self.poll_due {
                let due = self.poll(&mut batch).await;
                batch.extend(due);
            }
            if batch.len() >= max || (idle && !batch.is_empty()) {
                if !self.carry.is_empty() {
                    batch.splice(0..0, self.carry.drain(..)); // it came before
                }
                return Some(batch);
            }
            if idle {
                self.pulse.idle();
            } else {
                self.pulse.waits(DATABASE);
            }
            tokio::select! {
                biased;
                control = self.control.recv() => self.control(control?, &mut batch),
                () = self.env.homes.changed() => {}
                end = ended(&mut self.in_flight) => self.settle(end),
                () = self.asking.answer(), if batch.is_empty() => self.fruitless = 0,
                input = self.inputs.recv() => self.admit(input?, &mut batch),
                () = tokio::time::sleep_until(self.poll_due), if idle => {}
            }
        }
    }

    /// Takes up what came back from look-ups. What is in parts may be older.
    fn take_answered(&mut self) {
        if self.parts.is_empty() {
            let answered = self.asking.take();
            if !answered.is_empty() {
                self.fruitless = 0;
            }
            self.carry.extend(answered);
        } else {
            self.fruitless = 0;
        }
    }

    /// What is carried waits for something that is away: no use in trying it again before there is news. It was tried twice, because the first time it
    /// may have waited for the commit that was in flight.
    const fn is_stuck(&self) -> bool {
        self.fruitless >= 2
    }

    /// Does what the ownership loop has ordered by now.
    fn hear(&mut self, batch: &mut Vec<Input>) {
        while let Ok(control) = self.control.try_recv() {
            self.control(control, batch);
        }
    }

    /// Waits for `work`, which is outside the lane. Meanwhile orders are carried out and commits that end are taken in, or a store that hangs would
    /// keep partitions from being dropped and released (I6).
    pub(super) async fn hearing<T>(&mut self, batch: &mut Vec<Input>, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(control) = self.control.recv() => self.control(control, batch),
                end = ended(&mut self.in_flight) => self.settle(end),
                answer = &mut work => return answer,
            }
        }
    }

    /// Takes an input into the batch if its ownership still stands. One that is not known may have begun while the lane was busy: it was told before
    /// anything came in under it, so it is heard of now, or it has ended.
    fn admit(&mut self, input: Input, batch: &mut Vec<Input>) {
        if self.owned.get(&input.partition).is_none_or(|owned| owned.term != input.term) {
            self.hear(batch);
        }
        let Some(owned) = self.owned.get_mut(&input.partition).filter(|owned| owned.takes(input.term)) else {
            abandon(input);
            return;
        };
        if let Some((topic, offset)) = input.place() {
            owned.marks.entry(topic.clone()).or_insert_with(|| Watermark::starting_at(offset)).admit(offset);
        }
        batch.push(input);
    }

    /// Timers and mailboxes that are due. Called only while nothing is in flight, so that what it finds is not being done already.
    async fn poll(&mut self, batch: &mut Vec<Input>) -> Vec<Input> {
        self.poll_due = Instant::now() + self.env.config.poll_every;
        let mut by_count: BTreeMap<u32, Vec<(PartitionId, u64)>> = BTreeMap::new();
        for owned in self.owned.values().filter(|owned| owned.is_serving() && owned.closing.is_none()) {
            by_count.entry(owned.count).or_default().push((owned.partition, owned.term));
        }
        let all = batch.iter().chain(&self.carry).chain(self.parts.iter().flatten());
        let under_way: IdSet<_> = all.filter_map(|input| waiting::firing(input)).collect();
        self.firings.retain(|(aggregate, name), _| {
            self.asking.is_for(aggregate) || under_way.contains(&(aggregate, name.as_str()))
        });
        let mut due = Vec::new();
        for (count, partitions) in by_count {
            self.pulse.waits(DATABASE);
            let looking = waiting::look(&self.env, &partitions, count);
            let found = self.hearing(batch, looking).await;
            self.pulse.step("decoding");
            let busy: Vec<&Input> = batch.iter().chain(&self.carry).chain(self.parts.iter().flatten()).collect();
            let Due { inputs, strange } = waiting::sort(&self.env, &partitions, count, &busy, found);
            // What is away is in its table still, and comes again.
            due.extend(inputs.into_iter().filter(|input| match &input.work {
                Work::Item(item) => !self.asking.is_for(&item.aggregate),
                _ => true,
            }));
            let putting_off = waiting::put_off(&self.env, strange);
            self.hearing(batch, putting_off).await;
        }
        for (aggregate, name) in due.iter().filter_map(waiting::firing) {
            self.firings.insert((aggregate.clone(), name.to_owned()), false);
        }
        let mut counts: IdMap<(PartitionId, &AggregateId), u64> = IdMap::default();
        for input in &due {
            if let Work::Item(item) = &input.work
                && matches!(item.origin, Origin::Mail { .. })
            {
                *counts.entry((input.partition, &item.aggregate)).or_default() += 1;
            }
        }
        for ((partition, aggregate), found) in counts {
            // Another partition's owner may have put some there.
            if let Some(owned) = self.owned.get_mut(&partition) {
                let waiting = owned.live.waiting(aggregate).unwrap_or(0);
                owned.live.set_waiting(aggregate, waiting.max(found));
            }
        }
        due
    }

    fn control(&mut self, control: Control, batch: &mut Vec<Input>) {
        match control {
            Control::Own(mut owned) => {
                if let Some((supervisor, live)) = self.kept.remove(&owned.partition) {
                    (owned.supervisor, owned.live) = (supervisor, live);
                }
                self.owned.insert(owned.partition, *owned);
            }
            Control::Drop { partition, term } => {
                if self.owned.get(&partition).is_some_and(|owned| owned.term == term) {
                    self.remove(partition, batch);
                }
            }
            Control::Release { partition, term, done } => {
                if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.term == term) {
                    owned.closing = Some(done);
                    self.abandon_all(partition, batch);
                    self.let_go_of_closed();
                }
            }
        }
    }

    /// Lets go of the partitions that are to be released and that no commit touches any more.
    fn let_go_of_closed(&mut self) {
        let closing = self.owned.values().filter(|owned| owned.closing.is_some()).map(|owned| owned.partition);
        let is_touched = |partition: &PartitionId| {
            let in_flight = self.in_flight.iter().flat_map(|in_flight| &in_flight.batch.fences);
            in_flight.map(|fence| fence.partition).any(|touched| touched == *partition)
                || self.ready.iter().any(|plan| plan.partitions().contains(partition))
        };
        let closed: Vec<PartitionId> = closing.filter(|partition| !is_touched(partition)).collect();
        for partition in closed {
            let Some(owned) = self.owned.get_mut(&partition) else { continue };
            let (end, done) = ((owned.token, owned.outbox_head), owned.closing.take());
            self.remove(partition, &mut Vec::new());
            if let Some(done) = done {
                let _ = done.send(end);
            }
        }
    }

    /// Lets go of a partition and of everything gathered for it.
    fn remove(&mut self, partition: PartitionId, batch: &mut Vec<Input>) {
        if let Some(owned) = self.owned.remove(&partition) {
            if self.env.config.rules.drops_actors_when_fenced {
                owned.supervisor.stop(None);
            } else {
                self.kept.insert(partition, (owned.supervisor, owned.live));
            }
            owned.held.into_iter().for_each(abandon);
            self.count_live();
        }
        self.abandon_all(partition, batch);
    }

    /// Abandons everything gathered for a partition that no commit has begun with.
    fn abandon_all(&mut self, partition: PartitionId, batch: &mut Vec<Input>) {
        for input in batch.extract_if(.., |input| input.partition == partition) {
            abandon(input);
        }
        self.asking.remove(partition);
        let carried = std::mem::take(&mut self.carry);
        let (gone, kept): (Vec<_>, Vec<_>) = carried.into_iter().partition(|input| input.partition == partition);
        self.carry.extend(kept);
        gone.into_iter().for_each(abandon);
    }

    /// Gives a partition up and reports why.
    fn lose(&mut self, partition: PartitionId, cause: Loss) {
        if let Some(owned) = self.owned.get(&partition) {
            let _ = self.reports.send(Lost { partition, term: owned.term, cause });
            self.remove(partition, &mut Vec::new());
        }
    }

    /// Finds that an ownership under which `plan` was made is lost. A later one of the same partition is not meant.
    fn lose_if(&mut self, plan: &Plan, partition: PartitionId, cause: Loss) {
        if self.owned.get(&partition).is_some_and(|owned| plan.is_of(owned)) {
            self.lose(partition, cause);
        }
    }

    /// Stops actors whose state in memory can't be trusted any more; they are activated anew.
    fn forget(&mut self, ids: Vec<(PartitionId, AggregateId)>) {
        let mut by_partition: BTreeMap<PartitionId, Vec<AggregateId>> = BTreeMap::new();
        for (partition, id) in ids {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.live.remove(&id);
                by_partition.entry(partition).or_default().push(id);
            }
        }
        for (partition, ids) in by_partition {
            if let Some(owned) = self.owned.get(&partition) {
                let _ = owned.supervisor.send_message(PartitionMessage::Passivate { ids });
            }
        }
    }

    /// What is done from time to time between two batches, while nothing is in flight.
    async fn upkeep(&mut self, batch: &mut Vec<Input>) {
        let now = Instant::now();
        if now >= self.poll_due {
            let due = self.poll(batch).await;
            self.carry.extend(due);
        }
        let live = self.count_live();
        if now >= self.passivate_due || live > self.env.config.live_max / self.env.config.lanes.max(1) {
            self.passivate_due = now + Duration::from_secs(1);
            self.passivate(batch);
        }
    }

    /// How many actors are in memory. The gauge is moved by the difference, because all lanes of the context share it.
    fn count_live(&mut self) -> usize {
        let live = self.owned.values().map(|owned| owned.live.len()).sum();
        let before = std::mem::replace(&mut self.live_told, live);
        metrics::gauge!(telemetry::LIVE_ACTORS, "context" => self.env.context.name())
            .increment(size(live) - size(before));
        live
    }

    /// Lets go of actors that are idle or too many; what `batch` is about to use stays.
    fn passivate(&mut self, batch: &[Input]) {
        let busy: IdSet<&AggregateId> = batch
            .iter()
            .chain(&self.carry)
            .chain(self.parts.iter().flatten())
            .filter_map(|input| match &input.work {
                Work::Item(item) => Some(&item.aggregate),
                Work::Activate { aggregate, .. } => Some(aggregate),
                _ => None,
            })
            .collect();
        let idle_before = self.env.clock.boot().saturating_sub(self.env.config.passivate_after);
        let share = self.env.config.live_max / self.env.config.lanes.max(1) / self.owned.len().max(1);
        for owned in self.owned.values_mut() {
            let ids = owned.live.passivate(idle_before, share.max(1), &busy);
            if !ids.is_empty() {
                let _ = owned.supervisor.send_message(PartitionMessage::Passivate { ids });
            }
        }
    }
}

/// Work whose partition is gone: whoever owns it next reads it again; callers are told.
fn abandon(input: Input) {
    let gone = || RouteError::not_owner("the partition moved");
    match input.work {
        Work::Item(item) => item.answer(Err(gone())),
        Work::Activate { reply, .. } => {
            reply.send(Err(gone()));
        }
        Work::Refused(_) | Work::Unfiled(_) | Work::Ignored { .. } => {}
    }
}

/// Waits for the commit in flight; for ever if there is none.
async fn ended(in_flight: &mut Option<InFlight>) -> End {
    match in_flight {
        None => std::future::pending().await,
        // A commit that panicked is a lost one: nothing is held under any token we know to be ours.
        Some(in_flight) => (&mut in_flight.task).await.unwrap_or_else(|_| End::Reloaded(Reloaded::default())),
    }
}
