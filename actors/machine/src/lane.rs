//! What serves some of a node's partitions: batches, one commit after the other.
//!
//! Messages arrive and queue, one queue per aggregate ([`backlog`]). A batch takes what is ready: it is
//! looked up in the store, decided by its actors, and committed ([`batch`], [`decide`], [`commits`]). While
//! one commit is in flight the next batch gathers and is looked up; it is decided once that commit has ended.
//! Nothing is answered, published or noted as an offset before its commit is known to have happened (I1, I2),
//! and in this order: the actors advance, callers are answered, rows go to the relay, offsets are noted (I5).
//! What was undone is `Ready` again where it stands (I3). When the partition count changes, keys whose home
//! is elsewhere are let go ([`homes`]). Deliberately absent: bodies, and what is written for them, which the
//! shell keeps by the message's number.

mod backlog;
mod batch;
mod commits;
mod decide;
mod homes;
mod interface;
mod invariants;
mod live;
mod message;
#[cfg(test)]
mod model;
mod plan;
mod undone;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    dedup::{Claim, ClaimKey},
    epoch::{Generation, Token},
    growth::Growth,
    invariant::Invariant,
    retry::RetryPolicy,
    watermark::Watermark,
};

use self::{
    backlog::Backlog,
    batch::Batch,
    homes::Move,
    message::{Entry, Slot},
    plan::Plan,
};
pub use self::{
    homes::serves,
    interface::{Action, Branch, Delivery, Found, Input, Own, Reply, Report, Stored, Verdict},
    invariants::Violations,
    live::Claims,
    message::{Arrival, Content, Failure, Mail, Message, Number, Origin, Source, TopicOffset},
    plan::{Disposal, Part},
};
use crate::{Ask, Asks, Now, Rules, ownership::Loss};

/// What a lane's machine is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Messages in one batch, at most.
    pub batch_items_max: usize,
    /// Attempts at a message whose handler fails.
    pub retry: RetryPolicy,
    /// How often timers and mailboxes are looked through for what is due.
    pub poll_every: Duration,
    /// An actor idle for this long is dropped from memory.
    pub passivate_after: Duration,
    /// Actors of this lane in memory, at most, about; the idlest go first.
    pub live_max: usize,
    /// Claims that an aggregate keeps in its ring, at most
    /// [`Ring::CLAIMS_MAX`](holdfast_core::ring::Ring::CLAIMS_MAX).
    pub ring_max: usize,
    /// Which rules are kept.
    pub rules: Rules,
}

/// What a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It has nothing to do.
    Idle,
    /// It waits for the store.
    Store,
    /// It waits for other contexts, and for no longer than the commit in flight.
    LookUps,
    /// It waits for actors.
    Deciding,
}

/// A partition as its lane knows it.
#[derive(Clone, Debug)]
struct Owned {
    term: u64,
    token: Token,
    generation: Generation,
    /// The count of that generation, by which keys are at home here.
    count: u32,
    /// Whether its keys are served. A home that is new under its generation waits for the earlier ones.
    is_serving: bool,
    batch: u64,
    outbox_head: u64,
    marks: BTreeMap<Arc<str>, Watermark>,
    /// It is to be released: nothing more is taken in for it, and it goes when no commit touches it any more.
    is_closing: bool,
    /// A generation that is being acknowledged.
    moving: Option<Move>,
    /// A commit was refused for its generation: it waits for the counts until then.
    outdated_until: Option<Duration>,
}

impl Owned {
    fn is_home(&self, partition: PartitionId, hash: KeyHash) -> bool {
        hash.home(self.count) == partition
    }
}

/// Between two looks for actors to let go of.
const PASSIVATE_EVERY: Duration = Duration::from_secs(1);

/// The machine. See the module.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    asks: Asks,
    growth: Arc<Growth>,
    partitions: BTreeMap<PartitionId, Owned>,
    backlog: Backlog,
    /// The batch that is looked up, or decided.
    batch: Option<Batch>,
    /// What was asked of other contexts, and for whom.
    questions: BTreeMap<Ask, Vec<Number>>,
    /// What is to be committed, one after the other; the first may be in flight.
    plans: VecDeque<Plan>,
    deliveries: u64,
    /// Records of homes that do not serve yet, and what is of partitions that are paused; by partition, and
    /// by whether it is a record.
    held: BTreeMap<(PartitionId, bool), BTreeSet<Number>>,
    /// What becomes of records that wait for their offset's turn, and whether it may have come.
    late: BTreeMap<Number, Disposal>,
    is_late_due: bool,
    /// Claims that commits have pushed out of rings since the batch was gathered.
    pushed_out: BTreeMap<ClaimKey, Claim>,
    /// Looks at what is due that are under way. Nothing is decided meanwhile, so what they find is not being
    /// done already.
    looks: BTreeSet<Ask>,
    look_due: Duration,
    /// Whether anything was decided since the last look. Looks and decisions take turns, or a store that is
    /// slow, or a flood, would leave no room for either.
    has_decided: bool,
    passivate_due: Duration,
    /// Rises whenever something is done.
    moved: u64,
    /// For [`Rules::drops_actors_when_fenced`] left out; empty otherwise.
    kept: BTreeMap<PartitionId, Vec<(KeyHash, AggregateId, u64, Claims)>>,
    /// For [`Rules::passivates_before_acknowledging`] left out; empty otherwise.
    lingering: Vec<(Duration, PartitionId, Vec<AggregateId>)>,
}

impl Machine {
    /// A lane that serves nothing yet.
    pub fn new(settings: Settings, growth: Arc<Growth>) -> Self {
        Self {
            settings,
            asks: Asks::default(),
            growth,
            partitions: BTreeMap::new(),
            backlog: Backlog::default(),
            batch: None,
            questions: BTreeMap::new(),
            plans: VecDeque::new(),
            deliveries: 0,
            held: BTreeMap::new(),
            late: BTreeMap::new(),
            is_late_due: false,
            pushed_out: BTreeMap::new(),
            looks: BTreeSet::new(),
            look_due: Duration::ZERO,
            has_decided: false,
            passivate_due: Duration::ZERO,
            moved: 0,
            kept: BTreeMap::new(),
            lingering: Vec::new(),
        }
    }

    /// Whether there is room for more to arrive. What waits for something takes none: its bytes are in the
    /// budget.
    pub const fn takes_more(&self) -> bool {
        self.backlog.takeable() < self.settings.batch_items_max
    }

    /// Actors in memory.
    pub fn live(&self) -> usize {
        self.backlog.live.len()
    }

    /// The name of what each message of the backlog waits for.
    pub fn states(&self) -> BTreeMap<Number, &'static str> {
        self.backlog.entries().map(|(number, entry)| (number, entry.state.name())).collect()
    }

    /// Whether mail of this aggregate is here.
    pub fn has_mail(&self, partition: PartitionId, id: &AggregateId) -> bool {
        self.backlog.find(partition, id).is_some_and(|slot| self.backlog.has_mail(slot))
    }

    /// Rises whenever something is done.
    pub const fn moved(&self) -> u64 {
        self.moved
    }

    /// What it does.
    pub fn doing(&self) -> Doing {
        match &self.batch {
            Some(batch) if batch.is_deciding() => Doing::Deciding,
            Some(batch) if batch.is_looked_up() && self.asks_for_batch() => Doing::LookUps,
            _ if self.batch.is_some() || !self.plans.is_empty() || !self.looks.is_empty() => Doing::Store,
            _ if self.partitions.values().any(|owned| owned.moving.is_some()) => Doing::Store,
            _ => Doing::Idle,
        }
    }

    /// When the machine wants an [`Input::Turn`], by the clock that is awake.
    pub fn due(&self) -> Option<Duration> {
        let batch = self.batch.as_ref().and_then(Batch::due);
        let plan = self.plans.front().and_then(Plan::due);
        let look = self.may_look().then_some(self.look_due);
        let outdated = self.partitions.values().filter_map(|owned| owned.outdated_until);
        let lingering = self.lingering.iter().map(|(due, ..)| *due);
        batch.into_iter().chain(plan).chain(look).chain(outdated).chain(lingering).min()
    }

    /// Takes in what happened, and adds what is to be done about it to `actions`, in order.
    pub fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::Arrived(arrival) => self.arrived(arrival, actions),
            Input::Turn => self.turn(now, actions),
            Input::Found { ask, found } => self.found(ask, found, now, actions),
            Input::Asked { ask, failures } => self.asked(ask, failures, actions),
            Input::Decided(verdict) => self.decided(verdict, actions),
            Input::SupervisorDied { partition, term } => self.supervisor_died(partition, term, actions),
            Input::Committed { ask, result } => self.committed(ask, result, now, actions),
            Input::Compared { ask, rows } => self.compared(ask, rows, now, actions),
            Input::Retokened { ask, rows } => self.retokened(ask, rows, actions),
            Input::Due { ask, due } => self.found_due(ask, due, actions),
            Input::Counted(growth) => self.growth = growth,
            Input::Acknowledged { ask, row } => self.acknowledged(ask, row, now, actions),
            Input::Own(own) => self.own(own, actions),
            Input::Drop { partition, term } => {
                if self.is_held(partition, term) {
                    self.remove_partition(partition, actions);
                }
            }
            Input::Release { partition, term } => self.release(partition, term, actions),
        }
    }

    /// Whether this very ownership lasts.
    fn is_held(&self, partition: PartitionId, term: u64) -> bool {
        self.partitions.get(&partition).is_some_and(|owned| owned.term == term)
    }

    fn arrived(&mut self, arrival: Arrival, actions: &mut Vec<Action>) {
        let number = arrival.number;
        let owned = self.partitions.get_mut(&arrival.partition);
        let Some(owned) = owned.filter(|owned| owned.term == arrival.term && !owned.is_closing) else {
            return give_back(number, Reply::NotOwner, actions);
        };
        let place = match &arrival.content {
            Content::Message(Message { origin: Origin::Log(place), .. })
            | Content::Refused(Source::Log(place))
            | Content::Ignored(place) => Some(place),
            _ => None,
        };
        if let Some((topic, offset)) = place {
            let mark = owned.marks.entry(topic.clone()).or_insert_with(|| Watermark::starting_at(*offset));
            mark.admit(*offset);
        } else if !owned.is_serving {
            return give_back(number, Reply::NotOwner, actions); // mail and timers are in their tables still
        }
        self.backlog.add(arrival);
    }

    /// Begins what can be begun.
    fn turn(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.follow_counts(now, actions);
        self.look(now, actions);
        self.passivate(now, actions);
        self.end_batch();
        self.flush_late(now);
        self.start_commit(now, actions);
        let is_idle = self.plans.is_empty();
        if self.batch.is_none() && (is_idle || !self.takes_more() && !self.backlog.is_split()) {
            self.begin_batch(now);
        }
        self.look_up(now, actions);
        let may_decide = self.plans.is_empty() && self.looks.is_empty();
        if may_decide && self.batch.as_ref().is_some_and(Batch::is_looked_up) {
            self.decide(now, actions);
            self.start_commit(now, actions);
            if self.batch.is_none() && self.plans.is_empty() {
                self.begin_batch(now); // nothing came of it, so the next need not wait
                self.look_up(now, actions);
            }
        }
        self.let_go_of_closed(actions);
        self.check_turn(actions);
    }

    fn own(&mut self, own: Own, actions: &mut Vec<Action>) {
        // What is left of an earlier ownership says nothing under this one.
        self.remove_partition(own.partition, actions);
        let Own { partition, term, token, generation, count, is_serving, batch, outbox_head } = own;
        for (hash, id, waiting, claims) in self.kept.remove(&partition).unwrap_or_default() {
            let slot = self.backlog.slot(partition, hash, id);
            self.backlog.live.touch(slot, Duration::MAX, 0, || (waiting, claims));
        }
        let owned = Owned {
            term,
            token,
            generation,
            count,
            is_serving,
            batch,
            outbox_head,
            marks: BTreeMap::new(),
            is_closing: false,
            moving: None,
            outdated_until: None,
        };
        self.partitions.insert(partition, owned);
    }

    fn release(&mut self, partition: PartitionId, term: u64, actions: &mut Vec<Action>) {
        if !self.is_held(partition, term) {
            return;
        }
        if let Some(owned) = self.partitions.get_mut(&partition) {
            owned.is_closing = true;
        }
        self.abandon_all(partition, actions);
        self.let_go_of_closed(actions);
    }

    /// Lets go of the partitions that are to be released and that no commit touches any more.
    fn let_go_of_closed(&mut self, actions: &mut Vec<Action>) {
        let closing = self.partitions.iter().filter(|(_, owned)| owned.is_closing).map(|(partition, _)| *partition);
        let closed: Vec<PartitionId> = closing.filter(|partition| !self.is_committing(*partition)).collect();
        for partition in closed {
            let owned = &self.partitions[&partition];
            let (token, head) = (owned.token, owned.outbox_head);
            actions.push(Action::Released { partition, token, head });
            self.remove_partition(partition, actions);
        }
    }

    /// Whether a plan touches `partition`.
    fn is_committing(&self, partition: PartitionId) -> bool {
        self.plans.iter().any(|plan| plan.terms.contains_key(&partition))
    }

    /// Lets go of a partition and of everything that no commit has begun with.
    fn remove_partition(&mut self, partition: PartitionId, actions: &mut Vec<Action>) {
        self.abandon_all(partition, actions);
        let Some(Owned { term, .. }) = self.partitions.remove(&partition) else { return };
        for slot in self.backlog.slots_of(partition) {
            let aggregate = self.backlog.aggregate(slot);
            let (hash, id) = (aggregate.hash, aggregate.id.clone());
            let waiting = self.backlog.live.waiting(slot);
            if let Some(waiting) = waiting.filter(|_| !self.settings.rules.drops_actors_when_fenced) {
                let claims = self.backlog.live.claims(slot).cloned().unwrap_or_default();
                self.kept.entry(partition).or_default().push((hash, id, waiting, claims));
            }
            let in_flight: Vec<Number> = self.backlog.queue(slot).map(|(number, _)| number).collect();
            for number in in_flight {
                self.backlog.detach(number);
            }
            if waiting.is_some() {
                self.backlog.forget(slot);
            }
        }
        actions.push(Action::Stop { partition, term });
    }

    /// Abandons everything of a partition that no commit has begun with. The next owner reads it again;
    /// callers and readers get [`Reply::NotOwner`].
    fn abandon_all(&mut self, partition: PartitionId, actions: &mut Vec<Action>) {
        if let Some(batch) = &mut self.batch {
            batch.abandon(partition, &self.backlog);
        }
        for (number, entry) in self.backlog.abandon(partition) {
            self.moved += 1;
            answer(number, &entry, Some(Reply::NotOwner), actions);
        }
    }

    /// Drops a message whose partition, or whose turn, is gone.
    fn abandon(&mut self, number: Number, actions: &mut Vec<Action>) {
        self.finish(number, Some(Reply::NotOwner), actions);
    }

    /// Drops a message that is done or void, and answers its caller or reader.
    fn finish(&mut self, number: Number, reply: Option<Reply>, actions: &mut Vec<Action>) {
        if let Some(entry) = self.backlog.remove(number) {
            self.moved += 1;
            answer(number, &entry, reply, actions);
        }
    }

    /// Gives a partition up and reports why.
    fn lose(&mut self, partition: PartitionId, cause: Loss, actions: &mut Vec<Action>) {
        if let Some(owned) = self.partitions.get(&partition) {
            actions.push(Action::Report(Report::Lost(partition, owned.term, cause)));
            self.remove_partition(partition, actions);
        }
    }

    /// Whether nothing is being decided or committed.
    fn is_at_rest(&self) -> bool {
        self.plans.is_empty() && !self.batch.as_ref().is_some_and(Batch::is_deciding)
    }

    /// Whether it may be asked what is due: nothing of it is being done already, and mail comes before no
    /// part of a refused batch.
    fn may_look(&self) -> bool {
        self.is_at_rest() && self.looks.is_empty() && !self.partitions.is_empty() && !self.backlog.is_split()
    }

    /// Asks for what is due.
    fn look(&mut self, now: Now, actions: &mut Vec<Action>) {
        let is_behind = !self.has_decided
            && self.batch.as_ref().map_or(self.is_late_due && !self.late.is_empty(), Batch::is_looked_up);
        if !self.may_look() || now.awake < self.look_due || is_behind {
            return;
        }
        self.has_decided = false;
        self.look_due = now.awake + self.settings.poll_every;
        let mut by_count: BTreeMap<u32, Vec<(PartitionId, u64)>> = BTreeMap::new();
        for (partition, owned) in self.partitions.iter().filter(|(_, owned)| owned.is_serving && !owned.is_closing) {
            by_count.entry(owned.count).or_default().push((*partition, owned.term));
        }
        for (count, partitions) in by_count {
            let ask = self.asks.next();
            self.looks.insert(ask);
            actions.push(Action::Look { ask, partitions, count });
        }
    }

    /// Takes in what is due, but what is here already.
    fn found_due(&mut self, ask: Ask, due: Vec<Arrival>, actions: &mut Vec<Action>) {
        if !self.looks.remove(&ask) {
            return due.into_iter().for_each(|arrival| give_back(arrival.number, Reply::NotOwner, actions));
        }
        let mut mailboxes: BTreeMap<Slot, u64> = BTreeMap::new();
        let busy: BTreeSet<Slot> = due.iter().filter_map(|arrival| self.mailbox_in_use(arrival)).collect();
        for arrival in due {
            let of = aggregate_of(&arrival.content).map(|id| (arrival.partition, id.clone()));
            let slot = of.as_ref().and_then(|(partition, id)| self.backlog.find(*partition, id));
            let row = match &arrival.content {
                Content::Refused(Source::Mail(mail, _)) => Some(mail.position),
                _ => None,
            };
            let is_here = match &arrival.content {
                Content::Message(Message { origin: Origin::Timer { name }, .. }) => {
                    slot.is_some_and(|slot| self.has_timer(slot, name))
                }
                _ => {
                    slot.is_some_and(|slot| busy.contains(&slot))
                        || (of.is_none() && row.is_some_and(|row| self.backlog.has_row(row)))
                }
            };
            if is_here || self.backlog.is_split() {
                give_back(arrival.number, Reply::NotOwner, actions);
                continue;
            }
            let is_mail = matches!(&arrival.content, Content::Message(Message { origin: Origin::Mail(_), .. }));
            self.arrived(arrival, actions);
            if let Some((partition, id)) = of.filter(|_| is_mail)
                && let Some(slot) = self.backlog.find(partition, &id)
            {
                *mailboxes.entry(slot).or_default() += 1;
            }
        }
        for (slot, found) in mailboxes {
            // Another partition's owner may have put some there.
            let waiting = self.backlog.live.waiting(slot).unwrap_or(0);
            self.backlog.live.set_waiting(slot, waiting.max(found));
        }
    }

    /// The slot of the mailbox that `arrival` is from, if mail of it is here already.
    fn mailbox_in_use(&self, arrival: &Arrival) -> Option<Slot> {
        let slot = self.backlog.find(arrival.partition, aggregate_of(&arrival.content)?)?;
        self.backlog.has_mail(slot).then_some(slot)
    }

    fn has_timer(&self, slot: Slot, name: &str) -> bool {
        self.backlog.queue(slot).any(|(_, entry)| is_timer(entry, |timer| timer == name))
    }

    /// Lets go of actors that are idle or too many; whatever has messages here stays.
    fn passivate(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(at) = self.lingering.iter().position(|(due, ..)| *due <= now.awake) {
            let (_, partition, aggregates) = self.lingering.swap_remove(at);
            actions.push(Action::Passivate { partition, aggregates });
        }
        let is_due = now.awake >= self.passivate_due || self.live() > self.settings.live_max;
        if !is_due || !self.is_at_rest() {
            return;
        }
        self.passivate_due = now.awake + PASSIVATE_EVERY;
        let idle_before = now.boot.saturating_sub(self.settings.passivate_after);
        let gone = self.backlog.passivate(idle_before, self.settings.live_max.max(1));
        for (partition, aggregates) in gone {
            actions.push(Action::Passivate { partition, aggregates });
        }
        // I11: beyond the maximum only actors in use, each of which has a message here.
        let (live, max) = (self.live(), self.settings.live_max.max(1) + self.backlog.len());
        invariants::check(
            Invariant::Bounded,
            live <= max,
            || format!("{live} actors are in memory, of {max}"),
            actions,
        );
    }
}

/// Whom a message is for.
const fn aggregate_of(content: &Content) -> Option<&AggregateId> {
    match content {
        Content::Message(Message { aggregate, .. })
        | Content::Read { aggregate, .. }
        | Content::Refused(Source::Mail(_, Some((aggregate, _)))) => Some(aggregate),
        _ => None,
    }
}

/// Whether this is the firing of a timer of such a name.
fn is_timer(entry: &Entry, is_named: impl Fn(&str) -> bool) -> bool {
    match entry.message.as_ref().map(|message| &message.origin) {
        Some(Origin::Timer { name }) => is_named(name),
        _ => false,
    }
}

/// Gives back what a message held that is done or void, and answers a caller or a reader.
fn answer(number: Number, entry: &Entry, reply: Option<Reply>, actions: &mut Vec<Action>) {
    match reply {
        Some(reply) if entry.is_call() || entry.is_read() => give_back(number, reply, actions),
        _ => actions.push(Action::Done { message: number }),
    }
}

/// Gives back what a message held, and answers its caller or reader.
fn give_back(message: Number, reply: Reply, actions: &mut Vec<Action>) {
    actions.push(Action::Answer { message, reply });
    actions.push(Action::Done { message });
}
