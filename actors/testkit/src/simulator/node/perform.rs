//! What a node's shell does when its lane says so, and the checks of that.
//!
//! Checked here is the order of what the machine says (I5): an actor advances or stays as it was before its
//! next delivery, callers are answered after that and as the store granted it, and rows go to the relay last.
//! Deliberately absent: what questions are answered.

use holdfast_core::{PartitionId, batch::Fence, dedup::Answer};
use holdfast_machine::{
    Ask,
    lane::{Action, Branch, Delivery, Input, Number, Part, Reply, Report},
    ownership,
};

use super::{
    Node,
    kept::{ActorPlace, Body, Held, InFlight, Order, Owned, Said},
};
use crate::simulator::{Sabotage, coverage::States, question::Question, surroundings::Surroundings};

impl Node {
    /// Hands an input to the lane's machine, and does what it says.
    pub fn tell_lane(&mut self, input: Input, around: &mut Surroundings) {
        // Orders that were given before this came in are heard first.
        while matches!(input, Input::Arrived(_)) && self.is_alive && !self.to_lane.is_empty() {
            self.obey(around);
        }
        if !self.is_alive {
            return;
        }
        let now = self.clock.now(around.now);
        around.journal.note(format_args!("lane of node {} at {now:?}: {input:?}", self.number));
        self.has_heard = !matches!(input, Input::Turn);
        around.coverage.met(&input, &self.states);
        let mut actions: Vec<Action> = Vec::new();
        self.lane.handle(input, now, &mut actions);
        let after: States = self.lane.states().into_iter().collect();
        around.coverage.changed(&self.states, &after);
        self.states = after;
        around.journal.note(format_args!("-> {actions:?}"));
        around.fail_all(self.lane.audit().into_iter().map(|(invariant, detail)| (invariant.id(), detail)).collect());
        if let Some(sabotage) = self.setup.sabotage {
            sabotage.change(&mut actions);
        }
        let (mut denied, mut lost) = (Vec::new(), Vec::new());
        for action in actions {
            let perform = |node: &mut Self, action, around: &mut Surroundings| {
                node.perform(action, &mut denied, &mut lost, around);
            };
            if !self.lives_through("lane", action, around, perform) {
                return;
            }
        }
        self.check_denied(denied, &lost, around);
    }

    /// The lane obeys the next order of the takers.
    pub(super) fn obey(&mut self, around: &mut Surroundings) {
        match self.to_lane.pop_front() {
            Some(Order::Own(own)) => {
                let (partition, term, count, token) = (own.partition, own.term, own.count, own.token);
                self.tell_lane(Input::Own(*own), around); // stops what is left of an earlier ownership
                let owned = Owned { term, count, tokens: vec![token], hand_over: None, is_stopped: false };
                if let Some(before) = self.owned.insert(partition, owned)
                    && !self.setup.rules.drops_actors_when_fenced
                {
                    // Only where that rule is left out is there one before.
                    let kept = self.memory.actors.extract_if(.., |(of, _), _| *of == before.term);
                    let kept: Vec<_> = kept.map(|((_, key), state)| ((term, key), state)).collect();
                    self.memory.actors.extend(kept);
                }
            }
            Some(Order::Drop { partition, term }) => self.tell_lane(Input::Drop { partition, term }, around),
            Some(Order::Release { ask, partition, term }) => match self.owned.get_mut(&partition) {
                Some(owned) if owned.term == term && !owned.is_stopped => {
                    owned.hand_over = Some(ask);
                    self.tell_lane(Input::Release { partition, term }, around);
                }
                _ => self.to_takers.push_back(ownership::Input::HandedOver { ask, token: None }),
            },
            None => {}
        }
    }

    fn perform(
        &mut self,
        action: Action,
        denied: &mut Vec<Body>,
        lost: &mut Vec<(PartitionId, u64)>,
        around: &mut Surroundings,
    ) {
        match action {
            Action::Find { ask, wanted, claimants, unprepared } => {
                self.memory.finding = Some(ask);
                let question = Question::Find { ask, wanted, claimants, unprepared };
                around.ask(self.number, question);
            }
            Action::Ask { ask, messages } => around.ask(self.number, Question::Ask { ask, messages }),
            Action::Decide { deliveries } => {
                for delivery in deliveries {
                    self.deliver(delivery, around);
                }
            }
            Action::Commit { ask, fences, parts, .. } => {
                let delivery = |part: &Part| match part {
                    Part::Decided { delivery, .. } => Some(*delivery),
                    Part::Disposed { .. } => None,
                };
                let deliveries = parts.iter().filter_map(delivery).collect();
                let (writes, parts) = self.write(parts);
                self.in_flight = InFlight { writes, parts, deliveries, ..InFlight::default() };
                self.commit(ask, fences, around);
            }
            Action::CommitAgain { ask, fences } => self.commit(ask, fences, around),
            Action::Compare { ask } => around.ask(self.number, Question::Compare { ask }),
            Action::Retoken { ask, held } => around.ask(self.number, Question::Retoken { ask, held }),
            Action::Look { ask, partitions, count } => {
                around.ask(self.number, Question::Look { ask, partitions, count });
            }
            Action::Acknowledge { ask, partition, token, generation, count } => {
                if let Some(owned) = self.owned.get_mut(&partition) {
                    owned.count = count;
                }
                around.ask(self.number, Question::Acknowledge { ask, partition, token, generation });
            }
            Action::Advance { delivery, branch } => self.advance(delivery, branch, around),
            Action::Conclude { delivery, branch, term } => self.conclude(delivery, branch, term, denied, around),
            Action::Undo { delivery } => {
                if let Some(decided) = self.memory.decided.remove(&delivery) {
                    self.settle(&decided.place, delivery, around);
                }
            }
            Action::Publish => self.publish(around),
            Action::Note { topic, partition, next } => {
                let topic = around.log.name(&topic);
                if around.store.next_offset((topic, partition)) < next {
                    around.fail("I1", format!("{topic}-{partition} is noted up to {next}, which is not stored"));
                }
            }
            Action::Answer { message, reply } => self.answer(message, &reply, denied, around),
            Action::Done { message } => {
                if let Some(body) = self.bodies.remove(&message)
                    && body.is_call
                    && !body.is_answered
                {
                    around.fail("I8", format!("{body:?} is gone and was never answered"));
                }
            }
            Action::Passivate { partition, aggregates } => {
                let Some(term) = self.owned.get(&partition).map(|owned| owned.term) else { return };
                for id in aggregates {
                    let place = (term, id.key);
                    self.memory.actors.remove(&place);
                    self.memory.busy.remove(&place);
                    self.memory.awaiting.remove(&place); // their readers hear that the partition moved
                }
            }
            Action::Stop { partition, term } => self.stop(partition, term),
            Action::Serve { partition, is_serving } => {
                let term = self.owned.get(&partition).map(|owned| owned.term);
                if let Some(held) = self.held.get_mut(&partition).filter(|held| Some(held.term) == term) {
                    held.is_serving = is_serving;
                }
            }
            Action::Reload { partition, token, head } => {
                if let Some(owned) = self.owned.get(&partition) {
                    self.relay.reload(partition, owned.term, token, head);
                }
            }
            Action::Remember { partition, batch } => {
                if self.owned.contains_key(&partition) {
                    self.remembered.insert(partition, batch);
                }
            }
            Action::Released { partition, token, head } => {
                if let Some(row) = around.store.events_after(partition, head, token) {
                    around.fail("I3", format!("{partition} is let go of at row {head}, and has written row {row}"));
                }
                let Some(owned) = self.owned.get_mut(&partition) else { return };
                if let Some(ask) = owned.hand_over.take()
                    && !self.relay.finish(partition, owned.term, token, head, ask)
                {
                    self.to_takers.push_back(ownership::Input::HandedOver { ask, token: None });
                }
            }
            Action::HurryCounts => self.wants_counts = true,
            Action::Report(Report::Violated(invariant, detail)) => around.fail(invariant.id(), detail),
            Action::Report(Report::Lost(partition, term, cause)) => {
                lost.push((partition, term));
                self.lose(partition, term, cause);
            }
            Action::Home { .. } | Action::Report(_) => {}
        }
    }

    fn deliver(&mut self, delivery: Delivery, around: &mut Surroundings) {
        let Some(term) = self.owned.get(&delivery.partition).map(|owned| owned.term) else {
            return around.fail("I8", format!("{delivery:?} is of a partition that this lane does not have"));
        };
        let place = (term, delivery.aggregate.key.clone());
        let memory = &mut self.memory;
        if let Some(state) = memory.cold.remove(&place.1) {
            memory.actors.entry(place.clone()).or_insert(state);
        }
        if !memory.actors.contains_key(&place) {
            around.fail("I10", format!("{place:?} is to decide, and is neither in memory nor looked up"));
        }
        let reads = delivery.readers.iter().filter_map(|number| self.bodies.get(number));
        let reads: Vec<usize> = reads.map(|body| body.at_least).collect();
        if !reads.is_empty() {
            memory.awaiting.entry(place.clone()).or_default().extend(reads);
        }
        if let Some(before) = memory.busy.insert(place.clone(), delivery.delivery) {
            let detail =
                format!("{place:?} is to decide, and delivery {before} has neither advanced it nor been undone");
            around.fail("I10", detail);
        }
        around.ask(self.number, Question::Decide { delivery, term });
    }

    /// Sends the commit, with the relay's cursors.
    fn commit(&mut self, ask: Ask, mut fences: Vec<Fence>, around: &mut Surroundings) {
        for fence in &mut fences {
            fence.cursor = self.relay.cursor(fence.partition);
        }
        self.in_flight.has_happened = false;
        let (writes, parts) = (self.in_flight.writes.clone(), self.in_flight.parts.clone());
        around.ask(self.number, Question::Commit { ask, fences, writes, parts });
    }

    fn publish(&mut self, around: &mut Surroundings) {
        let InFlight { has_happened, deliveries, .. } = &self.in_flight;
        if !has_happened || deliveries.iter().any(|delivery| self.memory.decided.contains_key(delivery)) {
            let decided = &self.memory.decided;
            let detail = format!(
                "rows go to the relay; committed: {has_happened}; deliveries {deliveries:?}, of which not concluded: {decided:?}"
            );
            around.fail("I5", detail);
        }
        for (partition, head) in std::mem::take(&mut self.in_flight.heads) {
            self.relay.reach(partition, head);
        }
    }

    /// A partition's supervisor stops.
    fn stop(&mut self, partition: PartitionId, term: u64) {
        let memory = &mut self.memory;
        memory.busy.retain(|(of, _), _| *of != term);
        memory.awaiting.retain(|(of, _), _| *of != term);
        if let Some(ask) = self.owned.get_mut(&partition).and_then(|owned| owned.hand_over.take()) {
            self.to_takers.push_back(ownership::Input::HandedOver { ask, token: None });
        }
        if self.setup.rules.drops_actors_when_fenced {
            memory.actors.retain(|(of, _), _| *of != term);
            self.owned.remove(&partition);
        } else if let Some(owned) = self.owned.get_mut(&partition) {
            owned.is_stopped = true;
        }
    }

    fn advance(&mut self, delivery: u64, branch: Branch, around: &mut Surroundings) {
        let Some(decided) = self.memory.decided.get_mut(&delivery) else { return };
        decided.has_advanced = true;
        let state = if branch == Branch::Granted { decided.after.clone() } else { decided.after_refused.clone() };
        let (place, partition) = (decided.place.clone(), decided.partition);
        let is_current = self.is_current(partition, place.0, around);
        if let Some(actor) = self.memory.actors.get_mut(&place) {
            actor.clone_from(&state);
            let stored = around.store.aggregates.get(&place.1);
            if is_current && stored.is_none_or(|stored| stored != actor) {
                let detail = format!("{place:?} has advanced to {actor:?}, and stored is {stored:?}");
                around.fail("I5", detail);
            }
        }
        self.settle(&place, delivery, around);
    }

    fn conclude(
        &mut self,
        delivery: u64,
        branch: Branch,
        term: u64,
        denied: &mut Vec<Body>,
        around: &mut Surroundings,
    ) {
        let Some(decided) = self.memory.decided.remove(&delivery) else { return };
        if !decided.has_advanced {
            let detail = format!("callers of {decided:?} are answered, and its actor has not advanced");
            around.fail("I5", detail);
        }
        for effect in decided.intended {
            let (partition, key) = (decided.partition, decided.place.1.clone());
            around.ask(self.number, Question::Attempt { partition, term, key, effect });
        }
        for (number, said) in decided.callers {
            if self.setup.sabotage == Some(Sabotage::DeniesCommitted) {
                self.answer(number, &Reply::NotOwner, denied, around);
                continue;
            }
            let is_applied = match said {
                Said::Applied => true,
                Said::Rejected => false,
                Said::AppliedIfGranted => branch == Branch::Granted,
            };
            self.check_answer(number, is_applied, around);
        }
    }

    /// A delivery has ended, so the reads that wait for that are answered.
    fn settle(&mut self, place: &ActorPlace, delivery: u64, around: &mut Surroundings) {
        if self.memory.busy.get(place) != Some(&delivery) {
            return;
        }
        self.memory.busy.remove(place);
        for at_least in self.memory.awaiting.remove(place).unwrap_or_default() {
            self.show(place, at_least, around);
        }
    }

    /// Whether this ownership is the one that lasts.
    fn is_current(&self, partition: PartitionId, term: u64, around: &Surroundings) -> bool {
        let owned = self.owned.get(&partition).filter(|owned| owned.term == term);
        owned.is_some_and(|owned| around.store.token(partition).is_some_and(|token| owned.tokens.contains(&token)))
    }

    /// I5: a strong read shows every commit that had happened when it began; other reads, and events, show
    /// these from then on. A lease that is over answers nothing.
    pub(super) fn show(&self, place: &ActorPlace, at_least: usize, around: &mut Surroundings) {
        let (term, key) = place;
        let is_leased = |held: &Held| held.lease_until > around.now || !self.setup.rules.checks_lease;
        let is_held = self.held.values().any(|held| held.term == *term && is_leased(held));
        let Some(shown) = self.memory.actors.get(place).filter(|_| is_held) else { return };
        around.reads += 1;
        let stored = around.store.aggregates.get(key).map_or(&[][..], Vec::as_slice);
        if shown.len() < at_least || !stored.starts_with(shown) {
            let detail = format!(
                "{key} is read as {shown:?}, stored is {stored:?}, {at_least} of it since before the read; \
                 node {}, term {term}",
                self.number
            );
            around.fail("I5", detail);
        }
    }

    fn answer(&mut self, number: Number, reply: &Reply, denied: &mut Vec<Body>, around: &mut Surroundings) {
        match reply {
            Reply::Known(Answer::Applied { version, .. }) => self.check_answer(number, *version > 0, around),
            Reply::Known(Answer::Rejected { rejection, .. }) => {
                around.fail("I1", format!("{number:?} is answered {rejection:?}, and nobody has said so"));
            }
            Reply::NotOwner => denied.extend(self.answered(number, around).cloned()),
            _ => _ = self.answered(number, around),
        }
    }

    /// A caller's message, which is answered now, and once only.
    fn answered(&mut self, number: Number, around: &mut Surroundings) -> Option<&Body> {
        let body = self.bodies.get_mut(&number).filter(|body| body.is_call)?;
        if std::mem::replace(&mut body.is_answered, true) {
            around.fail("I2", format!("{body:?} is answered twice"));
        }
        Some(body)
    }

    /// I1: the answer of a caller is what is stored.
    fn check_answer(&mut self, number: Number, is_applied: bool, around: &mut Surroundings) {
        let Some(body) = self.answered(number, around).cloned() else { return };
        let id = body.letter.as_ref().map_or(0, |letter| letter.id);
        let stored = around.store.claims.get(&id).copied();
        if stored != Some(is_applied) {
            around.fail("I1", format!("{body:?} is answered, applied: {is_applied}; stored is {stored:?}"));
        }
    }

    /// A call that is committed is not sent elsewhere, unless its ownership has ended, is about to, or its
    /// key has moved.
    fn check_denied(&self, denied: Vec<Body>, lost: &[(PartitionId, u64)], around: &mut Surroundings) {
        for body in denied {
            let Body { letter: Some(letter), partition, term, .. } = &body else { continue };
            let Some(owned) = self.owned.get(partition).filter(|owned| owned.term == *term) else { continue };
            let is_open = owned.hand_over.is_none() && self.is_serving(*partition);
            let stays = is_open && letter.hash().home(owned.count) == *partition;
            if stays && !lost.contains(&(*partition, *term)) && around.store.claims.contains_key(&letter.id) {
                around.fail("I1", format!("{body:?} is sent elsewhere, and is committed here"));
            }
        }
    }
}
