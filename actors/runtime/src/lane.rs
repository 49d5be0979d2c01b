//! The loop: gathers a batch, looks up what it needs, has it decided, commits it, answers, and hands on what it caused.
//!
//! A lane serves some of a node's partitions, one batch after the other; while one commit is in flight the next batch gathers and is looked
//! up. Nothing is answered, published or stored as an offset before its commit is known to have happened (I1, I2), and in this order:
//! the actors advance, callers are answered, rows go to the relay, offsets are noted (I5).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_core::{
    AggregateId, PartitionId,
    batch::{Batch, Entry, Fence},
    dedup::{Claim, ClaimKey},
    disposition::WaitReason,
    epoch::{Generation, PartitionRow, Token},
    port::{
        clock::Clock,
        log::Log,
        store::{Committed, Store},
    },
    watermark::Watermark,
};
use ractor::ActorRef;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    activation::{self, Known},
    backoff::Backoff,
    commit::{self, End, Tokens},
    config::Config,
    context::{BoundedContext, Emit},
    partition::{PartitionMessage, Post},
    passivation::Directory,
    plan::{Pending, Plan, Planned, Planner},
    prepare,
    relay::RelayMessage,
    router::RouteError,
    telemetry, waiting,
    work::{Delivery, Failure, Input, Item, Origin, ReadReply, Work, answer_of},
};

/// What a lane needs of its node.
pub(crate) struct Environment {
    pub context: Arc<BoundedContext>,
    pub config: Arc<Config>,
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub clock: Arc<dyn Clock>,
    pub emit: Arc<Emit>,
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

/// What the lane tells the ownership loop.
pub(crate) enum Report {
    /// The store refused this ownership's fence.
    Fenced { partition: PartitionId, term: u64 },
}

/// A partition as its lane knows it.
pub(crate) struct Owned {
    pub partition: PartitionId,
    /// Numbers this node's ownerships; what came in under another is void.
    pub term: u64,
    pub token: Token,
    /// Every token this ownership was ever held under, shared with the ownership loop.
    pub tokens: Tokens,
    pub generation: Generation,
    pub batch: u64,
    pub outbox_head: u64,
    pub supervisor: ActorRef<PartitionMessage>,
    /// How far the relay has come, and how much of that is stored.
    pub published: Arc<AtomicU64>,
    pub cursor_stored: u64,
    pub marks: HashMap<Arc<str>, Watermark>,
    pub live: Directory,
}

/// Offsets that a batch consumes, by partition and topic.
type Offsets = HashMap<(PartitionId, Arc<str>), BTreeSet<u64>>;

struct InFlight {
    task: JoinHandle<End>,
    plan: Plan,
    batch: Arc<Batch>,
    done: Offsets,
}

pub(crate) struct Lane {
    env: Environment,
    inputs: mpsc::Receiver<Input>,
    control: mpsc::UnboundedReceiver<Control>,
    reports: mpsc::UnboundedSender<Report>,
    relay: mpsc::UnboundedSender<RelayMessage>,
    owned: BTreeMap<PartitionId, Owned>,
    /// Work left over from the last batch; it comes before everything gathered since.
    carry: VecDeque<Input>,
    /// Parts of a batch that the store refused, to be tried one by one.
    parts: VecDeque<Vec<Input>>,
    in_flight: Option<InFlight>,
    /// Plans of this batch that are still to be committed.
    ready: VecDeque<Plan>,
    /// Claims written since the batch now gathering was looked up.
    recent: HashMap<ClaimKey, Claim>,
    /// Aggregates that are not live, to whose mailbox a commit has added since the batch now gathering was looked up: how many messages
    /// wait is not known.
    mailed: HashSet<AggregateId>,
    poll_due: Instant,
    passivate_due: Instant,
    /// Work that a commit left undone, in order, and whether there is any to put in its place.
    undone: Vec<Vec<Input>>,
    is_disturbed: bool,
}

impl Lane {
    pub fn new(
        env: Environment,
        inputs: mpsc::Receiver<Input>,
        control: mpsc::UnboundedReceiver<Control>,
        reports: mpsc::UnboundedSender<Report>,
        relay: mpsc::UnboundedSender<RelayMessage>,
    ) -> Self {
        Self {
            env,
            inputs,
            control,
            reports,
            relay,
            owned: BTreeMap::new(),
            carry: VecDeque::new(),
            parts: VecDeque::new(),
            in_flight: None,
            ready: VecDeque::new(),
            recent: HashMap::new(),
            mailed: HashSet::new(),
            poll_due: Instant::now(),
            passivate_due: Instant::now(),
            undone: Vec::new(),
            is_disturbed: false,
        }
    }

    /// Runs until the node drops its ends of the channels.
    pub async fn run(mut self) {
        while let Some(mut batch) = self.gather().await {
            self.mailed.clear();
            let known = self.look_up(&mut batch).await;
            self.settle_all().await;
            if self.reorder(&mut batch) {
                continue;
            }
            self.upkeep(&batch).await;
            self.decide(batch, known).await;
            self.start_commit();
        }
    }

    // ---- gather

    /// Waits for work. Returns at once what is there if nothing is in flight, else a full batch or whatever has come when the commit ends.
    async fn gather(&mut self) -> Option<Vec<Input>> {
        let mut batch: Vec<Input> = Vec::new();
        let max = self.env.config.batch_items_max;
        loop {
            while let Ok(control) = self.control.try_recv() {
                self.control(control, &mut batch).await;
            }
            self.reorder(&mut batch);
            if batch.is_empty() {
                batch.extend(self.carry.drain(..));
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
                let due = self.poll(&batch).await;
                batch.extend(due);
            }
            if batch.len() >= max || (idle && !batch.is_empty()) {
                return Some(batch);
            }
            tokio::select! {
                biased;
                control = self.control.recv() => self.control(control?, &mut batch).await,
                end = ended(&mut self.in_flight) => self.settle(end),
                input = self.inputs.recv() => self.admit(input?, &mut batch),
                () = tokio::time::sleep_until(self.poll_due), if idle => {}
            }
        }
    }

    /// Takes an input into the batch if its ownership still stands.
    fn admit(&mut self, input: Input, batch: &mut Vec<Input>) {
        let Some(owned) = self.owned.get_mut(&input.partition).filter(|owned| owned.term == input.term) else {
            abandon(input);
            return;
        };
        if let Some((topic, offset)) = input.place() {
            owned.marks.entry(topic.clone()).or_insert_with(|| Watermark::starting_at(offset)).admit(offset);
        }
        batch.push(input);
    }

    /// Timers and mailboxes that are due. Called only while nothing is in flight, so that what it finds is not being done already.
    async fn poll(&mut self, batch: &[Input]) -> Vec<Input> {
        self.poll_due = Instant::now() + self.env.config.poll_every;
        if self.owned.is_empty() {
            return Vec::new();
        }
        let partitions: Vec<(PartitionId, u64)> =
            self.owned.values().map(|owned| (owned.partition, owned.term)).collect();
        let busy: Vec<&Input> = batch.iter().chain(&self.carry).chain(self.parts.iter().flatten()).collect();
        let due = waiting::due(&self.env, &partitions, &busy).await;
        let mut counts: HashMap<(PartitionId, &AggregateId), u64> = HashMap::new();
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

    // ---- look up

    async fn look_up(&mut self, batch: &mut [Input]) -> Known {
        let mut backoff = Backoff::infrastructure();
        let known = loop {
            let is_live = |input: &Input, id: &AggregateId| {
                self.owned.get(&input.partition).is_some_and(|owned| owned.live.contains(id))
            };
            match activation::look_up(&*self.env.store, batch, is_live).await {
                Ok(known) => break known,
                Err(error) => {
                    tracing::warn!(context = self.env.context.name(), %error, "look-up failed; holding");
                    for input in batch.iter() {
                        if let Work::Item(item) = &input.work {
                            item.answer(Err(RouteError::unavailable(error.to_string())));
                        }
                    }
                    backoff.wait().await;
                }
            }
        };
        prepare::prepare(&self.env.context, batch, |item| {
            item.claim_key().is_some_and(|key| known.claims.contains_key(&key))
        })
        .await;
        known
    }

    // ---- decide

    async fn decide(&mut self, batch: Vec<Input>, known: Known) {
        metrics::histogram!(telemetry::BATCH_SIZE, "context" => self.env.context.name()).record(size(batch.len()));
        let recent = std::mem::take(&mut self.recent);
        let emit = self.env.emit.clone();
        let mut planner = Planner::new(self.env.context.name(), &emit, self.env.config.retry, self.env.clock.now());
        let groups = self.sort(batch, &known, &recent, &mut planner);
        self.deliver(groups, known, &mut planner).await;
        let low_after = |partition: PartitionId, topic: &str, done: &BTreeSet<u64>| {
            self.owned.get(&partition).and_then(|owned| owned.marks.get(topic)).map(|mark| mark.low_after(done))
        };
        let Planned { plans, carry } = planner.finish(low_after);
        self.carry.extend(carry);
        self.ready.extend(plans.into_iter().filter(|plan| !plan.is_empty()));
    }

    /// Disposes of everything that needs no actor, and groups the rest by aggregate, in order of first appearance.
    fn sort(
        &mut self,
        batch: Vec<Input>,
        known: &Known,
        recent: &HashMap<ClaimKey, Claim>,
        planner: &mut Planner<'_>,
    ) -> Vec<Group> {
        let now = self.env.clock.boot();
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<AggregateId, usize> = HashMap::new();
        let mut claimed: HashSet<ClaimKey> = HashSet::new();
        for input in batch {
            let Some(owned) = self.owned.get_mut(&input.partition).filter(|owned| owned.term == input.term) else {
                abandon(input);
                continue;
            };
            let (aggregate, item) = match &input.work {
                Work::Ignored { .. } => {
                    planner.plain.consume(&input);
                    planner.plain.work.push(input);
                    continue;
                }
                Work::Refused(_) => {
                    planner.refuse(input);
                    continue;
                }
                Work::Activate { aggregate, .. } => (aggregate.clone(), None),
                Work::Item(item) => (item.aggregate.clone(), Some(item.clone())),
            };
            if self.mailed.contains(&aggregate) {
                planner.carry(input, &aggregate); // the next batch looks it up again
                continue;
            }
            let stored_waiting = known.cold.get(&aggregate).map_or(0, |(_, waiting)| *waiting);
            let Some(item) = item else {
                owned.live.touch(&aggregate, now, || stored_waiting);
                group(&mut groups, &mut places, input.partition, &aggregate).add_reader(input);
                continue;
            };
            if matches!(item.origin, Origin::Log { .. }) && item.hash.home(self.env.emit.count) != input.partition {
                planner.transfer(input);
                continue;
            }
            if owned.live.waiting(&aggregate).unwrap_or(stored_waiting) > 0 {
                planner.block_waiting(&aggregate, WaitReason::Retrying);
            }
            let Some(input) = planner.unless_blocked(input, &item) else { continue };
            if let Some(key) = item.claim_key() {
                if let Some(claim) = recent.get(&key).or_else(|| known.claims.get(&key)) {
                    match answer_of(claim, item.body()) {
                        Ok(answer) => planner.repeat(input, &item, Some(answer)),
                        Err(failure) => planner.fail(input, &item, &failure),
                    }
                    continue;
                }
                if !claimed.insert(key) {
                    planner.carry(input, &aggregate); // its twin is in this batch: the next one knows the answer
                    continue;
                }
            }
            if let Some(failure) = item.failure.get() {
                if places.contains_key(&aggregate) {
                    planner.carry(input, &aggregate); // what is before it may not be done in this batch, and must not queue behind it
                } else {
                    planner.fail(input, &item, failure);
                }
                continue;
            }
            owned.live.touch(&aggregate, now, || stored_waiting);
            group(&mut groups, &mut places, input.partition, &aggregate).inputs.push(input);
        }
        groups
    }

    /// Has each group decided by its actor.
    async fn deliver(&mut self, groups: Vec<Group>, mut known: Known, planner: &mut Planner<'_>) {
        let (sender, mut verdicts) = mpsc::unbounded_channel();
        let mut posts: BTreeMap<PartitionId, Vec<Post>> = BTreeMap::new();
        let mut deliveries = Vec::with_capacity(groups.len());
        for (index, group) in groups.into_iter().enumerate() {
            let kind = self.env.context.kind(group.aggregate.kind).expect("an aggregate id is made from a kind");
            let items: Vec<Arc<Item>> = group
                .inputs
                .iter()
                .filter_map(|input| match &input.work {
                    Work::Item(item) => Some(item.clone()),
                    _ => None,
                })
                .collect();
            let hash = holdfast_core::KeyHash::of(group.aggregate.key.as_bytes());
            let delivery = Arc::new(Delivery::new(group.aggregate, hash, items));
            posts.entry(group.partition).or_default().push(Post {
                index,
                delivery: delivery.clone(),
                kind: kind.clone(),
                activation: known.cold.remove(&delivery.aggregate).map(|(row, _)| row),
                readers: group.readers,
            });
            deliveries.push(Some((group.partition, delivery, group.inputs)));
        }
        let mut open = deliveries.len();
        for (partition, deliveries) in posts {
            let Some(owned) = self.owned.get(&partition) else { continue };
            // A supervisor that is gone answers nothing; its verdicts are missed below.
            let _ = owned.supervisor.send_message(PartitionMessage::Deliver { deliveries, verdicts: sender.clone() });
        }
        drop(sender);
        while open > 0
            && let Some(verdict) = verdicts.recv().await
        {
            let Some((partition, delivery, inputs)) = deliveries.get_mut(verdict.delivery).and_then(Option::take)
            else {
                continue;
            };
            open -= 1;
            if verdict.unreadable
                && let Some(owned) = self.owned.get_mut(&partition)
            {
                owned.live.remove(&delivery.aggregate);
            }
            planner.verdict(partition, &delivery, inputs, verdict);
        }
        // A partition supervisor died: its partition is given up, its work is undone and comes again to whoever owns it next.
        for (partition, _, inputs) in deliveries.into_iter().flatten() {
            inputs.into_iter().for_each(abandon);
            self.lose(partition);
        }
    }

    // ---- commit

    /// Starts the next plan that is ready, if nothing is in flight.
    fn start_commit(&mut self) {
        while self.in_flight.is_none()
            && let Some(mut plan) = self.ready.pop_front()
        {
            let (fences, done) = self.fences(&plan);
            let entries = std::mem::take(&mut plan.entries);
            let batch = Arc::new(Batch { fences, entries });
            let task = if batch.fences.is_empty() {
                tokio::spawn(async { End::Committed(Committed::default()) })
            } else {
                let tokens = self.owned.values().map(|owned| (owned.partition, owned.tokens.clone())).collect();
                tokio::spawn(commit::commit(self.env.store.clone(), batch.clone(), tokens, self.env.context.name()))
            };
            self.in_flight = Some(InFlight { task, plan, batch, done });
        }
    }

    fn fences(&self, plan: &Plan) -> (Vec<Fence>, Offsets) {
        let mut done: Offsets = HashMap::new();
        for (partition, topic, offset) in &plan.consumed {
            done.entry((*partition, topic.clone())).or_default().insert(*offset);
        }
        let touched = plan.partitions();
        let mut fences = Vec::with_capacity(touched.len());
        for owned in self.owned.values().filter(|owned| touched.contains(&owned.partition)) {
            let mut consumed = Vec::new();
            for ((partition, topic), offsets) in &done {
                if *partition == owned.partition
                    && let Some(mark) = owned.marks.get(topic)
                {
                    let low = mark.low_after(offsets);
                    if low > mark.low() {
                        consumed.push((topic.clone(), low));
                    }
                }
            }
            let published = owned.published.load(Ordering::Acquire);
            fences.push(Fence {
                partition: owned.partition,
                token: owned.token,
                generation: owned.generation,
                number: owned.batch + 1,
                outbox_head: owned.outbox_head,
                consumed,
                cursor: (published > owned.cursor_stored).then_some(published),
            });
        }
        (fences, done)
    }

    async fn settle_all(&mut self) {
        while self.in_flight.is_some() || !self.ready.is_empty() {
            self.start_commit();
            let end = ended(&mut self.in_flight).await;
            self.settle(end);
        }
    }

    /// Takes in how the commit ended, and starts the next part of the batch.
    fn settle(&mut self, end: End) {
        let Some(in_flight) = self.in_flight.take() else { return };
        match end {
            End::Committed(committed) => self.committed(in_flight, committed),
            End::Data(error) => self.bisect(in_flight, &error),
            End::Reloaded(rows) => self.reloaded(in_flight, rows),
        }
        self.start_commit();
    }

    fn committed(&mut self, in_flight: InFlight, committed: Committed) {
        let InFlight { plan, batch, done, .. } = in_flight;
        for partition in &committed.stale {
            self.lose(*partition);
        }
        for fence in &batch.fences {
            if let Some(owned) = self.owned.get_mut(&fence.partition)
                && let Some(head) = committed.heads.get(&fence.partition)
            {
                owned.batch = fence.number;
                owned.outbox_head = *head;
                owned.cursor_stored = fence.cursor.unwrap_or(owned.cursor_stored);
            }
        }
        let is_granted = |entry: usize| committed.granted.get(entry).copied().unwrap_or(false);
        // A partition may have been lost before this plan had its turn, so that it had no fence in it at all; and by now it may be owned
        // again. What was not committed under a fence that held did not happen.
        let touched =
            batch.entries.iter().map(|entry| entry.partition).chain(done.keys().map(|(partition, _)| *partition));
        let undone: BTreeSet<PartitionId> =
            touched.filter(|partition| !committed.heads.contains_key(partition)).collect();
        // First the actors advance.
        self.advance(&plan, &undone, is_granted);
        for (entry, writes) in batch.entries.iter().enumerate().map(|(at, entry)| (at, chosen(entry, is_granted(at)))) {
            if !undone.contains(&batch.entries[entry].partition) {
                self.recent.extend(writes.claims.iter().map(|claim| (claim.key, claim.clone())));
            }
        }
        // Then callers are answered.
        for (item, pending) in plan.answers {
            let partition_lost = undone.contains(&item.hash.home(self.env.emit.count));
            let answer = match pending {
                _ if partition_lost => Err(RouteError::not_owner("the partition moved while the command ran")),
                Pending::Known(answer) => Ok(answer),
                Pending::Grant { entry, granted, refused } => Ok(if is_granted(entry) { granted } else { refused }),
            };
            if let Ok(answer) = &answer {
                let outcome = match answer {
                    holdfast_core::dedup::Answer::Applied { .. } => "applied",
                    holdfast_core::dedup::Answer::Rejected { .. } => "rejected",
                };
                let labels = [("context", self.env.context.name()), ("outcome", outcome)];
                metrics::counter!(telemetry::MESSAGES_TOTAL, &labels).increment(1);
            }
            item.answer(answer);
        }
        // Then what was caused is published, and offsets are noted.
        if !committed.outbox.is_empty() {
            let _ = self.relay.send(RelayMessage::Rows(committed.outbox.into()));
        }
        for ((partition, topic), offsets) in done.into_iter().filter(|((partition, _), _)| !undone.contains(partition))
        {
            if let Some(mark) = self.owned.get_mut(&partition).and_then(|owned| owned.marks.get_mut(&topic)) {
                for offset in &offsets {
                    mark.done(*offset);
                }
                self.env.log.store_offset(&topic, partition, mark.low());
            }
        }
    }

    fn advance(&mut self, plan: &Plan, undone: &BTreeSet<PartitionId>, is_granted: impl Fn(usize) -> bool) {
        let mut snapshots: BTreeMap<PartitionId, Vec<_>> = BTreeMap::new();
        for settle in plan.settles.iter().filter(|settle| !undone.contains(&settle.partition)) {
            let snapshot = match (&settle.granted, &settle.refused) {
                (Some((entry, _)), Some(refused)) if !is_granted(*entry) => Some(refused.clone()),
                (Some((_, granted)), _) => Some(granted.clone()),
                (None, _) => None,
            };
            snapshots.entry(settle.partition).or_default().push((settle.aggregate.clone(), snapshot));
        }
        for (partition, snapshots) in snapshots {
            if let Some(owned) = self.owned.get(&partition) {
                let _ = owned.supervisor.send_message(PartitionMessage::Settle { snapshots });
            }
        }
        for (partition, aggregate, change) in plan.waiting.iter().filter(|(partition, ..)| !undone.contains(partition))
        {
            let Some(owned) = self.owned.get_mut(partition) else { continue };
            match owned.live.waiting(aggregate) {
                Some(waiting) => owned.live.set_waiting(aggregate, waiting.saturating_add_signed(*change)),
                None => _ = self.mailed.insert(aggregate.clone()),
            }
        }
    }

    /// The store refused some row: the batch is cut in halves until the culprit stands alone, which then counts as failed.
    fn bisect(&mut self, in_flight: InFlight, error: &str) {
        let InFlight { plan, .. } = in_flight;
        self.advance_unchanged(&plan);
        let mut work = plan.work;
        if let [input] = work.as_slice() {
            if let Work::Item(item) = &input.work {
                let _ = item.failure.set(Failure::Handler(format!("the store refused its data: {error}")));
            }
            return self.redo([work]);
        }
        let half = work.split_off(work.len() / 2);
        self.redo([work, half]);
    }

    /// Notes work that a commit left undone; [`Self::reorder`] puts it where it belongs.
    fn redo(&mut self, parts: impl IntoIterator<Item = Vec<Input>>) {
        self.undone.extend(parts);
        self.is_disturbed = true;
    }

    /// If a commit left work undone: that comes first, then what its batch had left over, then `batch`, which was gathered after it, then
    /// the parts that were waiting already.
    fn reorder(&mut self, batch: &mut Vec<Input>) -> bool {
        if !std::mem::take(&mut self.is_disturbed) {
            return false;
        }
        let mut parts = std::mem::take(&mut self.undone);
        parts.push(self.carry.drain(..).collect());
        parts.push(std::mem::take(batch));
        for part in parts.into_iter().rev().filter(|part| !part.is_empty()) {
            self.parts.push_front(part);
        }
        true
    }

    /// Tells actors that their delivery did not happen.
    fn advance_unchanged(&mut self, plan: &Plan) {
        let mut snapshots: BTreeMap<PartitionId, Vec<_>> = BTreeMap::new();
        for settle in &plan.settles {
            snapshots.entry(settle.partition).or_default().push((settle.aggregate.clone(), None));
        }
        for (partition, snapshots) in snapshots {
            if let Some(owned) = self.owned.get(&partition) {
                let _ = owned.supervisor.send_message(PartitionMessage::Settle { snapshots });
            }
        }
    }

    /// The commit may have happened or not. Actors and counters are read again from the store, and the work goes round again: what
    /// was committed shows as consumed, as a claim or as an event sequence.
    fn reloaded(&mut self, in_flight: InFlight, rows: Vec<PartitionRow>) {
        let rows: HashMap<PartitionId, PartitionRow> = rows.into_iter().map(|row| (row.partition, row)).collect();
        for fence in &in_flight.batch.fences {
            let Some(row) = rows.get(&fence.partition) else {
                self.lose(fence.partition);
                continue;
            };
            let Some(owned) = self.owned.get_mut(&fence.partition) else { continue };
            let token = row.token.unwrap_or(owned.token);
            (owned.token, owned.batch, owned.outbox_head) = (token, row.batch, row.outbox_head);
            let relay = RelayMessage::Reload { partition: owned.partition, token, head: row.outbox_head };
            let _ = self.relay.send(relay);
        }
        let Plan { settles, waiting, .. } = &in_flight.plan;
        let settled = settles.iter().map(|settle| (settle.partition, settle.aggregate.clone()));
        // How many messages wait isn't known any more either.
        let ids = settled.chain(waiting.iter().map(|(partition, aggregate, _)| (*partition, aggregate.clone())));
        self.forget(ids.collect());
        let undone = in_flight.plan.work.into_iter().filter(|input| {
            let Some(row) = rows.get(&input.partition) else { return false };
            let Some((topic, offset)) = input.place() else {
                // Mail and timers come again from their tables; calls go round and meet their claim.
                return matches!(&input.work, Work::Item(item) if item.wants_reply());
            };
            let consumed = row.next_offset(topic).is_some_and(|next| offset < next);
            if consumed
                && let Some(mark) = self.owned.get_mut(&input.partition).and_then(|owned| owned.marks.get_mut(topic))
            {
                mark.done(offset);
            }
            !consumed
        });
        let undone: Vec<Input> = undone.collect();
        self.redo([undone]);
    }

    // ---- ownership

    async fn control(&mut self, control: Control, batch: &mut Vec<Input>) {
        match control {
            Control::Own(owned) => {
                self.owned.insert(owned.partition, *owned);
            }
            Control::Drop { partition, term } => {
                if self.owned.get(&partition).is_some_and(|owned| owned.term == term) {
                    self.remove(partition, batch);
                }
            }
            Control::Release { partition, term, done } => {
                self.settle_all().await;
                if let Some(owned) = self.owned.get(&partition).filter(|owned| owned.term == term) {
                    let end = (owned.token, owned.outbox_head);
                    self.remove(partition, batch);
                    let _ = done.send(end);
                }
            }
        }
    }

    /// Lets go of a partition and of everything gathered for it.
    fn remove(&mut self, partition: PartitionId, batch: &mut Vec<Input>) {
        if let Some(owned) = self.owned.remove(&partition) {
            owned.supervisor.stop(None);
        }
        for input in batch.extract_if(.., |input| input.partition == partition) {
            abandon(input);
        }
        let carried = std::mem::take(&mut self.carry);
        let (gone, kept): (Vec<_>, Vec<_>) = carried.into_iter().partition(|input| input.partition == partition);
        self.carry.extend(kept);
        gone.into_iter().for_each(abandon);
    }

    /// Finds itself fenced.
    fn lose(&mut self, partition: PartitionId) {
        if let Some(owned) = self.owned.get(&partition) {
            let _ = self.reports.send(Report::Fenced { partition, term: owned.term });
            self.remove(partition, &mut Vec::new());
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
    async fn upkeep(&mut self, batch: &[Input]) {
        let now = Instant::now();
        if now >= self.poll_due {
            let due = self.poll(batch).await;
            self.carry.extend(due);
        }
        let live: usize = self.owned.values().map(|owned| owned.live.len()).sum();
        if now >= self.passivate_due || live > self.env.config.live_max / self.env.config.lanes.max(1) {
            self.passivate_due = now + Duration::from_secs(1);
            self.passivate(batch);
        }
    }

    /// Lets go of actors that are idle or too many; what `batch` is about to use stays.
    fn passivate(&mut self, batch: &[Input]) {
        let busy: HashSet<&AggregateId> = batch
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

/// The messages of one batch for one aggregate.
struct Group {
    partition: PartitionId,
    aggregate: AggregateId,
    inputs: Vec<Input>,
    readers: Vec<ReadReply>,
}

impl Group {
    fn add_reader(&mut self, input: Input) {
        if let Work::Activate { reply, .. } = input.work {
            self.readers.push(reply);
        }
    }
}

fn group<'g>(
    groups: &'g mut Vec<Group>,
    places: &mut HashMap<AggregateId, usize>,
    partition: PartitionId,
    aggregate: &AggregateId,
) -> &'g mut Group {
    let at = *places.entry(aggregate.clone()).or_insert_with(|| {
        groups.push(Group { partition, aggregate: aggregate.clone(), inputs: Vec::new(), readers: Vec::new() });
        groups.len() - 1
    });
    &mut groups[at]
}

fn chosen(entry: &Entry, granted: bool) -> &holdfast_core::batch::Writes {
    match &entry.condition {
        Some(condition) if !granted => &condition.refused,
        _ => &entry.writes,
    }
}

/// Work whose partition is gone: whoever owns it next reads it again; callers are told.
fn abandon(input: Input) {
    let gone = || RouteError::not_owner("the partition moved");
    match input.work {
        Work::Item(item) => item.answer(Err(gone())),
        Work::Activate { reply, .. } => {
            let _ = reply.send(Err(gone()));
        }
        Work::Refused(_) | Work::Ignored { .. } => {}
    }
}

/// Waits for the commit in flight; for ever if there is none.
async fn ended(in_flight: &mut Option<InFlight>) -> End {
    match in_flight {
        None => std::future::pending().await,
        // A commit that panicked is a lost one: nothing is held under any token we know to be ours.
        Some(in_flight) => (&mut in_flight.task).await.unwrap_or_else(|_| End::Reloaded(Vec::new())),
    }
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn size(n: usize) -> f64 {
    n as f64
}
