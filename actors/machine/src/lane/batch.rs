//! Gathering a batch: the store is asked what it knows, and other contexts what the messages need.
//!
//! Invariant (I6): what waits for another context leaves the batch, and keeps back nobody but its own
//! aggregate. A batch that is undone before its actors decide leaves no trace. Deliberately absent: what
//! becomes of its messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    dedup::{Answer, ClaimKey, Fingerprint},
    disposition::WaitReason,
    port::store::{StoreError, Wanted},
};

use super::{
    Action, Failure, Found, Machine, Reply, Report, Stored,
    backlog::Backlog,
    message::{Entry, Need, Number, Remains, Slot, State},
    plan::Plan,
};
use crate::{Ask, Now, step::Step};

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    LookingUp,
    LookedUp,
    Deciding,
}

/// A delivery that is not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub slot: Slot,
    pub partition: PartitionId,
    pub messages: Vec<Number>,
}

/// Something of an aggregate enters its mailbox, or stays there: what comes behind it queues behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub reason: WaitReason,
    /// It is the head of the mailbox, so other mail comes behind it too.
    pub is_mail: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub messages: Vec<Number>,
    pub phase: Phase,
    pub step: Step,
    /// The number of steps of growth that had ended when it was looked up.
    pub as_of: usize,
    /// The aggregates whose states the look-up asks for, in the order of its questions.
    asked: Vec<Option<Slot>>,
    /// What the store knows of aggregates that are not in memory, or of the mail of those that are.
    pub cold: BTreeMap<Slot, Stored>,
    /// Aggregates that are not in memory, to whose mailbox a commit has changed something since they were
    /// looked up.
    pub stale: BTreeSet<Slot>,
    pub open: BTreeMap<u64, Open>,
    pub plain: Plan,
    pub conditional: Plan,
    pub waits: BTreeMap<Slot, Wait>,
}

impl Batch {
    pub fn new(messages: Vec<Number>, now: Now) -> Self {
        Self {
            messages,
            phase: Phase::LookingUp,
            step: Step::due(now.awake),
            as_of: 0,
            asked: Vec::new(),
            cold: BTreeMap::new(),
            stale: BTreeSet::new(),
            open: BTreeMap::new(),
            plain: Plan::default(),
            conditional: Plan::default(),
            waits: BTreeMap::new(),
        }
    }

    pub fn is_deciding(&self) -> bool {
        self.phase == Phase::Deciding
    }

    pub fn is_looked_up(&self) -> bool {
        self.phase == Phase::LookedUp
    }

    /// When its look-up is to be made again.
    pub fn due(&self) -> Option<Duration> {
        (self.phase == Phase::LookingUp && self.step.ask.is_none()).then_some(self.step.due)
    }

    /// Whether actors of `partition` are deciding.
    pub fn is_with(&self, partition: PartitionId) -> bool {
        self.open.values().any(|open| open.partition == partition)
            || [&self.plain, &self.conditional].iter().any(|plan| plan.terms.contains_key(&partition))
    }

    /// Forgets what is of `partition`, whose slots go.
    pub fn abandon(&mut self, partition: PartitionId, backlog: &Backlog) {
        let is_of = |slot: Slot| backlog.holds(slot).is_none_or(|aggregate| aggregate.partition == partition);
        for asked in &mut self.asked {
            asked.take_if(|slot| is_of(*slot));
        }
        self.cold.retain(|slot, _| !is_of(*slot));
        self.stale.retain(|slot| !is_of(*slot));
        self.waits.retain(|slot, _| !is_of(*slot));
        self.open.retain(|_, open| open.partition != partition);
    }
}

impl Machine {
    /// Takes what is ready into a batch.
    pub(super) fn begin_batch(&mut self, now: Now) {
        if !self.backlog.has_ready() {
            return self.backlog.end_parts();
        }
        let (partitions, growth) = (&self.partitions, &self.growth);
        let is_paused =
            |entry: &Entry| partitions.get(&entry.partition).is_some_and(|owned| owned.is_paused(growth.current().0));
        let (messages, held) = self.backlog.take(self.settings.batch_items_max, is_paused);
        for number in held {
            self.hold(number);
        }
        if !messages.is_empty() {
            self.pushed_out.clear();
            self.batch = Some(Batch::new(messages, now));
        }
    }

    /// Looks a batch up, for the first time or again.
    pub(super) fn look_up(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some(batch) = self.batch.as_mut().filter(|batch| batch.phase == Phase::LookingUp) else { return };
        if !batch.step.is_due(now) {
            return;
        }
        // Until a transition has ended, owners of other partitions put mail of keys that are at home here,
        // which a record must not pass: so the mail of an actor in memory is asked for until then, and once
        // after. A record that has waited at its gate comes with the counts by which the gate let it pass, or
        // newer ones.
        let (is_growing, as_of) = if self.settings.rules.reads_mail_after_wait {
            (self.growth.is_in_transition(), self.growth.ended_steps())
        } else {
            (false, 0)
        };
        let (mut wanted, mut places) = (Vec::<Wanted>::new(), BTreeMap::new());
        let (mut claimants, mut unprepared) = (Vec::new(), Vec::new());
        batch.asked.clear();
        batch.as_of = as_of;
        for number in &batch.messages {
            let Some(entry) = self.backlog.get(*number) else { continue };
            let Some(slot) = entry.slot.filter(|_| matches!(entry.remains, Remains::Message)) else { continue };
            if entry.need != Need::Nothing {
                unprepared.push(*number);
            }
            let is_live = if entry.place.is_some() {
                !is_growing && self.backlog.live.knows_mail(slot, as_of)
            } else {
                self.backlog.live.contains(slot)
            };
            // All claims of an actor in memory of which none was pushed out are in its ring.
            let may_be_outside = |key: &ClaimKey| {
                let is_asked = self.settings.rules.looks_for_claims_of_actors;
                let claims = self.backlog.live.claims(slot);
                claims.is_none_or(|claims| is_asked && (claims.has_spilled || claims.ring.is_elsewhere(key)))
            };
            let fingerprint = entry.message.as_ref().and_then(|message| message.fingerprint);
            let claim = fingerprint.map(|fingerprint| fingerprint.key).filter(may_be_outside);
            if is_live && claim.is_none() {
                continue;
            }
            let place = *places.entry(slot).or_insert_with(|| {
                batch.asked.push(None);
                let id = self.backlog.aggregate(slot).id.clone();
                wanted.push(Wanted { state: false, ..Wanted::state(id) });
                wanted.len() - 1
            });
            if !is_live {
                (wanted[place].state, batch.asked[place]) = (true, Some(slot));
            }
            if let Some(key) = claim {
                wanted[place].claims.push(key);
                claimants.push(*number);
            }
        }
        let ask = batch.step.begin(&mut self.asks);
        actions.push(Action::Find { ask, wanted, claimants, unprepared });
    }

    /// Takes in what the store knows, and asks other contexts.
    pub(super) fn found(&mut self, of: Ask, found: Result<Found, StoreError>, now: Now, actions: &mut Vec<Action>) {
        let Some(batch) = self.batch.as_mut().filter(|batch| batch.step.ask == Some(of)) else { return };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let first = batch.messages.first().and_then(|number| self.backlog.get(*number));
                batch.step = batch.step.after_failure(first.map_or(PartitionId(0), |entry| entry.partition), now);
                batch.asked.clear();
                actions.push(Action::Report(Report::NotFound(error.clone())));
                // Callers and readers get an answer: nothing of theirs has begun.
                for number in batch.messages.clone() {
                    if self.backlog.get(number).is_some_and(|entry| entry.is_call() || entry.is_read()) {
                        self.finish(number, Some(Reply::Unavailable(error.to_string())), actions);
                    }
                }
                return;
            }
        };
        batch.step.ask = None;
        batch.phase = Phase::LookedUp;
        let Found { aggregates, claims, needs } = found;
        for (slot, mut stored) in std::mem::take(&mut batch.asked).into_iter().zip(aggregates) {
            let Some(slot) = slot else { continue };
            if stored.waiting == 0 {
                self.backlog.live.note_no_mail(slot, batch.as_of);
            }
            // An actor in memory has its state, whatever has become of the stored one.
            stored.unusable.take_if(|_| self.backlog.live.contains(slot));
            batch.cold.insert(slot, stored);
        }
        for number in &batch.messages {
            if let Some(entry) = self.backlog.get_mut(*number) {
                (entry.claim, entry.need) = (None, Need::Nothing);
            }
        }
        for (number, claim) in claims {
            if let Some(entry) = self.backlog.get_mut(number) {
                entry.claim = Some(claim);
            }
        }
        for (number, need) in needs {
            let Some(entry) = self.backlog.get_mut(number) else { continue };
            match need {
                Ok(context) => entry.need = Need::Of(context),
                Err(failure) => {
                    if let Some(message) = &mut entry.message {
                        message.failure.get_or_insert(failure);
                    }
                }
            }
        }
        self.ask(actions);
    }

    /// Asks other contexts what the messages of the batch need, unless they are disposed of without. One
    /// context at a time for each aggregate, or its messages could come back in another order.
    fn ask(&mut self, actions: &mut Vec<Action>) {
        let Some(batch) = &self.batch else { return };
        let mut contexts: BTreeMap<Slot, &'static str> = BTreeMap::new();
        let mut questions: BTreeMap<&'static str, Vec<Number>> = BTreeMap::new();
        for number in &batch.messages {
            let Some(entry) = self.backlog.get(*number) else { continue };
            let (Some(slot), Need::Of(context)) = (entry.slot, entry.need) else { continue };
            let is_unusable = batch.cold.get(&slot).is_some_and(|cold| cold.unusable.is_some());
            let is_repeat = self.known(entry, slot, batch).is_some();
            let is_behind = self.settings.rules.applies_mail_before_records
                && entry.queues_behind_mail()
                && self.waiting(entry, slot, batch) > 0;
            let has_failed = entry.message.as_ref().is_some_and(|message| message.failure.is_some());
            if !is_unusable
                && !is_repeat
                && !is_behind
                && !has_failed
                && *contexts.entry(slot).or_insert(context) == context
            {
                questions.entry(context).or_default().push(*number);
            }
        }
        for messages in questions.into_values() {
            let ask = self.asks.next();
            for number in &messages {
                self.backlog.set(*number, State::Asking(ask));
            }
            self.questions.insert(ask, messages.clone());
            actions.push(Action::Ask { ask, messages });
        }
    }

    /// Whether the batch waits for other contexts.
    pub(super) fn asks_for_batch(&self) -> bool {
        let is_asking =
            |number: &Number| self.backlog.get(*number).is_some_and(|entry| matches!(entry.state, State::Asking(_)));
        self.batch.as_ref().is_some_and(|batch| batch.messages.iter().any(is_asking))
    }

    /// Takes in what another context answered. Messages of the batch that waits for its turn go on with it;
    /// others are ready.
    pub(super) fn asked(&mut self, ask: Ask, failures: Vec<(Number, Failure)>, actions: &mut Vec<Action>) {
        let Some(messages) = self.questions.remove(&ask) else { return };
        let mut failures: BTreeMap<Number, Failure> = failures.into_iter().collect();
        let waits: BTreeSet<Number> = match &self.batch {
            Some(batch) if batch.is_looked_up() => batch.messages.iter().copied().collect(),
            _ => BTreeSet::new(),
        };
        for number in messages {
            let Some(entry) = self.backlog.get_mut(number) else {
                // Its partition has gone meanwhile; its body comes back now.
                super::give_back(number, Reply::NotOwner, actions);
                continue;
            };
            entry.need = Need::Nothing;
            if let (Some(failure), Some(message)) = (failures.remove(&number), &mut entry.message) {
                message.failure.get_or_insert(failure);
            }
            let is_in_batch = waits.contains(&number);
            self.backlog.set(number, if is_in_batch { State::LookingUp } else { State::Ready });
        }
        self.moved += 1;
    }

    /// How a message with this id was answered before, if one was, or why that can't be said.
    pub(super) fn known(&self, entry: &Entry, slot: Slot, batch: &Batch) -> Option<Result<Answer, Failure>> {
        let Fingerprint { key, body } = entry.message.as_ref()?.fingerprint?;
        let claims = || batch.cold.get(&slot).map(|stored| &stored.claims);
        let in_ring = || self.backlog.live.claims(slot).or_else(claims).and_then(|claims| claims.ring.find(&key));
        // The ring may say no more of a claim than that it stands elsewhere.
        let claim = match (self.pushed_out.get(&key), &entry.claim) {
            (Some(claim), _) | (None, Some(Ok(claim))) => claim.clone(),
            (None, Some(Err(failure))) => return Some(Err(failure.clone())),
            (None, None) => in_ring()?,
        };
        Some(if claim.is_repeat(body) { Ok(claim.answer) } else { Err(Failure::Reused) })
    }

    /// How many messages wait in the mailbox of a message's aggregate. What comes from a log goes by the
    /// store if that knows of more: while counts grow, owners of other partitions put mail there for an
    /// aggregate that is live here.
    pub(super) fn waiting(&self, entry: &Entry, slot: Slot, batch: &Batch) -> u64 {
        let stored = batch.cold.get(&slot).map_or(0, |cold| cold.waiting);
        match self.backlog.live.waiting(slot) {
            Some(waiting) if entry.place.is_some() => waiting.max(stored),
            Some(waiting) => waiting,
            None => stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use holdfast_core::growth::{Counts, Growth, Step};

    use super::*;
    use crate::lane::{
        Claims, Disposal, Input,
        invariants::tests::{N, growth, machine},
        plan::Part,
    };

    const NOW: Now = Now { boot: Duration::ZERO, awake: Duration::ZERO };

    fn growing(has_ended: bool) -> Input {
        let step = Step { count: 2, ended: has_ended, ..Step::default() };
        let counts = Counts { first: 1, steps: vec![step] };
        Input::Counted(Arc::new(Growth { topics: [("t".to_owned(), counts)].into(), ..growth() }))
    }

    /// A lane whose record is looked up after a growth. The record's actor is in memory, and had no mail
    /// before.
    fn looked_up() -> (Machine, Slot, Ask) {
        let (mut machine, mut actions) = (machine(), Vec::new());
        let slot = machine.backlog.get(N).and_then(|entry| entry.slot).expect("of an aggregate");
        machine.backlog.live.touch(slot, Duration::ZERO, 0, Default::default);
        for input in [growing(false), growing(true), Input::Turn] {
            machine.handle(input, NOW, &mut actions);
        }
        let mut asked = None;
        for action in actions {
            match action {
                Action::Look { ask, .. } => machine.handle(Input::Due { ask, due: Vec::new() }, NOW, &mut Vec::new()),
                Action::Find { ask, wanted, .. } if wanted.len() == 1 => asked = Some(ask),
                _ => {}
            }
        }
        (machine, slot, asked.expect("its mail is asked for"))
    }

    fn found(machine: &mut Machine, ask: Ask, waiting: u64) -> Vec<Action> {
        let stored = Stored { waiting, ..Stored::default() };
        let found = Found { aggregates: vec![stored], ..Found::default() };
        let mut actions = Vec::new();
        for input in [Input::Found { ask, found: Ok(found) }, Input::Turn] {
            machine.handle(input, NOW, &mut actions);
        }
        actions
    }

    /// What a lane asks the store about a record whose actor is in memory.
    fn asked_of_a_live_actor(claims: Claims) -> Vec<Wanted> {
        let (mut machine, mut actions) = (machine(), Vec::new());
        let entry = machine.backlog.get_mut(N).expect("it is ready");
        let key = ClaimKey { id: uuid::Uuid::nil(), scope: uuid::Uuid::nil() };
        entry.message.as_mut().expect("a message").fingerprint = Some(Fingerprint { key, body: uuid::Uuid::nil() });
        let slot = entry.slot.expect("of an aggregate");
        machine.backlog.live.touch(slot, Duration::ZERO, 0, || (0, claims));
        machine.handle(Input::Turn, NOW, &mut actions);
        let find = |action| match action {
            Action::Find { wanted, .. } => Some(wanted),
            _ => None,
        };
        actions.into_iter().find_map(find).expect("what its message needs is asked in any case")
    }

    #[test]
    fn store_is_asked_nothing_about_an_actor_that_has_not_spilled() {
        assert_eq!(asked_of_a_live_actor(Claims::default()), []);
        let asked = asked_of_a_live_actor(Claims { has_spilled: true, ..Claims::default() });
        assert!(matches!(&asked[..], [Wanted { state: false, claims, .. }] if claims.len() == 1), "{asked:?}");
    }

    #[test]
    fn record_queues_behind_mail_that_came_while_counts_grew() {
        let (mut machine, _, ask) = looked_up();
        let actions = found(&mut machine, ask, 1);
        let is_put = |part: &Part| matches!(part, Part::Disposed { disposal: Disposal::Put { .. }, .. });
        let is_put = |action: &Action| matches!(action, Action::Commit { parts, .. } if parts.iter().any(is_put));
        assert!(actions.iter().any(is_put), "{actions:?}");
    }

    #[test]
    fn mail_is_asked_for_once_after_a_growth() {
        let (mut machine, slot, ask) = looked_up();
        assert!(!machine.backlog.live.knows_mail(slot, 1));
        let actions = found(&mut machine, ask, 0);
        assert!(actions.iter().any(|action| matches!(action, Action::Decide { .. })), "{actions:?}");
        assert!(machine.backlog.live.knows_mail(slot, 1));
    }
}
