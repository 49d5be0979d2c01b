//! What a node's shell does when its machine says so, and the checks of that.
//!
//! Deliberately absent: what questions are answered.

use holdfast_core::{PartitionId, dedup::Answer};
use holdfast_machine::lane::{Action, Branch, Number, Part, Reply, Report};

use super::{ActorPlace, Body, Happened, Node, Question, Said};
use crate::simulator::{Sabotage, store::Store};

impl Node {
    pub(super) fn perform(&mut self, action: Action, store: &Store, happened: &mut Happened) {
        match action {
            Action::Find { ask, wanted, claimants, unprepared } => {
                self.finding = Some(ask);
                happened.asked.push(Question::Find { ask, aggregates: wanted.aggregates, claimants, unprepared });
            }
            Action::Report(Report::Violated(invariant, detail)) => happened.violations.push((invariant.id(), detail)),
            Action::Ask { ask, messages } => happened.asked.push(Question::Ask { ask, messages }),
            Action::Decide { deliveries } => {
                for delivery in deliveries {
                    let place = (delivery.partition, delivery.aggregate.key.clone());
                    if let Some(state) = self.cold.remove(&place.1) {
                        self.actors.entry(place.clone()).or_insert(state);
                    }
                    if !self.actors.contains_key(&place) {
                        let detail = format!("{place:?} is to decide, and is neither in memory nor looked up");
                        happened.violations.push(("actors", detail));
                    }
                    let reads = delivery.readers.iter().filter_map(|number| self.bodies.get(number));
                    let reads: Vec<usize> = reads.map(|body| body.at_least).collect();
                    if !reads.is_empty() {
                        self.awaiting.entry(place.clone()).or_default().extend(reads);
                    }
                    if let Some(before) = self.busy.insert(place.clone(), delivery.delivery) {
                        let detail = format!(
                            "{place:?} is to decide, and delivery {before} has neither advanced it nor been undone"
                        );
                        happened.violations.push(("actors", detail));
                    }
                    happened.asked.push(Question::Decide(delivery));
                }
            }
            Action::Commit { ask, fences, parts, .. } => {
                let delivery = |part: &Part| match part {
                    Part::Decided { delivery, .. } => Some(*delivery),
                    Part::Disposed { .. } => None,
                };
                (self.committing, self.has_committed) = (parts.iter().filter_map(delivery).collect(), false);
                (self.writes, self.parts) = self.write(parts);
                let (writes, parts) = (self.writes.clone(), self.parts.clone());
                happened.asked.push(Question::Commit { ask, fences, writes, parts });
            }
            Action::CommitAgain { ask, fences } => {
                let (writes, parts) = (self.writes.clone(), self.parts.clone());
                happened.asked.push(Question::Commit { ask, fences, writes, parts });
            }
            Action::Compare { ask } => happened.asked.push(Question::Compare { ask }),
            Action::Retoken { ask, held } => happened.asked.push(Question::Retoken { ask, held }),
            Action::Look { ask, partitions, count } => happened.asked.push(Question::Look { ask, partitions, count }),
            Action::Advance { delivery, branch } => self.advance(delivery, branch, store, happened),
            Action::Conclude { delivery, branch, .. } => self.conclude(delivery, branch, store, happened),
            Action::Undo { delivery } => {
                if let Some(decided) = self.decided.remove(&delivery) {
                    self.settle(&(decided.partition, decided.key), delivery, store, happened);
                }
            }
            Action::Publish => {
                if !self.has_committed || self.committing.iter().any(|delivery| self.decided.contains_key(delivery)) {
                    let detail = format!(
                        "rows go to the relay; committed: {}; deliveries {:?}, of which not concluded: {:?}",
                        self.has_committed, self.committing, self.decided
                    );
                    happened.violations.push(("I5", detail));
                }
            }
            Action::Note { partition, next, .. } => {
                if store.next_offset(partition).is_none_or(|consumed| consumed < next) {
                    happened.violations.push(("I1", format!("{partition} is noted up to {next}, which is not stored")));
                }
            }
            Action::Answer { message, reply } => self.answer(message, &reply, store, happened),
            Action::Done { message } => {
                if let Some(body) = self.bodies.remove(&message)
                    && body.is_call
                    && !body.is_answered
                {
                    happened.violations.push(("answers", format!("{body:?} is gone and was never answered")));
                }
            }
            Action::Passivate { partition, aggregates } => {
                for id in aggregates {
                    let place = (partition, id.key);
                    self.actors.remove(&place);
                    self.busy.remove(&place);
                    self.awaiting.remove(&place); // they are told that the partition moved
                }
            }
            Action::Stop { partition, term } => {
                if self.setup.rules.drops_actors_when_fenced {
                    self.actors.retain(|(of, _), _| *of != partition);
                }
                self.busy.retain(|(of, _), _| *of != partition);
                self.awaiting.retain(|(of, _), _| *of != partition);
                happened.lost.push((partition, term));
            }
            Action::Acknowledge { ask, partition, token, generation, count } => {
                if let Some(held) = self.held.get_mut(&partition) {
                    held.count = count;
                }
                happened.asked.push(Question::Acknowledge { ask, partition, token, generation });
            }
            Action::Serve { partition, is_serving } => {
                if let Some(reader) = self.readers.get_mut(&partition) {
                    reader.is_serving = is_serving;
                }
            }
            Action::HurryCounts => happened.wants_counts = true,
            Action::Home { .. }
            | Action::Reload { .. }
            | Action::Remember { .. }
            | Action::Released { .. }
            | Action::Report(_) => {}
        }
    }

    fn advance(&mut self, delivery: u64, branch: Branch, store: &Store, happened: &mut Happened) {
        let Some(decided) = self.decided.get_mut(&delivery) else { return };
        decided.has_advanced = true;
        let state = if branch == Branch::Granted { decided.after.clone() } else { decided.after_refused.clone() };
        let place = (decided.partition, decided.key.clone());
        let is_current = self.is_current(place.0, store);
        if let Some(actor) = self.actors.get_mut(&place) {
            actor.clone_from(&state);
            let stored = store.aggregates.get(&place.1);
            if is_current && stored.is_none_or(|stored| stored != actor) {
                let detail = format!("{place:?} has advanced to {actor:?}, and stored is {stored:?}");
                happened.violations.push(("I5", detail));
            }
        }
        self.settle(&place, delivery, store, happened);
    }

    fn conclude(&mut self, delivery: u64, branch: Branch, store: &Store, happened: &mut Happened) {
        let Some(decided) = self.decided.remove(&delivery) else { return };
        if !decided.has_advanced {
            let detail = format!("callers of {decided:?} are answered, and its actor has not advanced");
            happened.violations.push(("I5", detail));
        }
        for (number, said) in decided.callers {
            if self.setup.sabotage == Some(Sabotage::DeniesCommitted) {
                self.answer(number, &Reply::NotOwner, store, happened);
                continue;
            }
            let is_applied = match said {
                Said::Applied => true,
                Said::Rejected => false,
                Said::AppliedIfGranted => branch == Branch::Granted,
            };
            self.check_answer(number, is_applied, store, happened);
        }
    }

    /// A delivery has ended, so the reads that wait for that are answered.
    fn settle(&mut self, place: &ActorPlace, delivery: u64, store: &Store, happened: &mut Happened) {
        if self.busy.get(place) != Some(&delivery) {
            return;
        }
        self.busy.remove(place);
        for at_least in self.awaiting.remove(place).unwrap_or_default() {
            self.show(place, at_least, store, happened);
        }
    }

    /// Whether this node's ownership is the one that lasts.
    fn is_current(&self, partition: PartitionId, store: &Store) -> bool {
        self.term(partition).is_some_and(|term| store.is_owned(partition, term))
    }

    /// I5: a strong read shows every commit that had happened when it began; other reads, and events, show
    /// these from then on. A lease that is over answers nothing.
    pub(super) fn show(&self, place: &ActorPlace, at_least: usize, store: &Store, happened: &mut Happened) {
        let (partition, key) = place;
        let is_leased = self.is_current(*partition, store) || !self.setup.rules.checks_lease;
        let Some(shown) = self.actors.get(place).filter(|_| is_leased) else { return };
        happened.reads += 1;
        let stored = store.aggregates.get(key).map_or(&[][..], Vec::as_slice);
        if shown.len() < at_least || !stored.starts_with(shown) {
            let detail = format!(
                "{key} is read from {partition} as {shown:?}, stored is {stored:?}, {at_least} of it since before the read"
            );
            happened.violations.push(("I5", detail));
        }
    }

    fn answer(&mut self, number: Number, reply: &Reply, store: &Store, happened: &mut Happened) {
        match reply {
            Reply::Known(Answer::Applied { version, .. }) => {
                self.check_answer(number, *version > 0, store, happened);
            }
            Reply::NotOwner => {
                let body = self.answered(number, happened).cloned();
                happened.denied.extend(body);
            }
            _ => _ = self.answered(number, happened),
        }
    }

    /// A caller's message, which is answered now, and once only.
    fn answered(&mut self, number: Number, happened: &mut Happened) -> Option<&Body> {
        let body = self.bodies.get_mut(&number).filter(|body| body.is_call)?;
        if std::mem::replace(&mut body.is_answered, true) {
            happened.violations.push(("answers", format!("{body:?} is answered twice")));
        }
        Some(body)
    }

    /// I1: what a caller is told is what is stored.
    fn check_answer(&mut self, number: Number, is_applied: bool, store: &Store, happened: &mut Happened) {
        let Some(body) = self.answered(number, happened).cloned() else { return };
        let id = body.letter.as_ref().map_or(0, |letter| letter.id);
        if store.claims.get(&id) != Some(&is_applied) {
            let detail = format!("{body:?} is answered, applied: {is_applied}; stored is {:?}", store.claims.get(&id));
            happened.violations.push(("I1", detail));
        }
    }

    /// A call that is committed is not sent elsewhere, unless its ownership has ended, is about to, or its
    /// key has moved.
    pub(super) fn check_denied(&self, store: &Store, happened: &mut Happened) {
        for body in std::mem::take(&mut happened.denied) {
            let Body { letter: Some(letter), partition, term, .. } = &body else { continue };
            let Some(held) = self.held.get(partition).filter(|held| held.term == *term) else { continue };
            let stays = !held.is_closing && letter.hash().home(held.count) == *partition && self.is_serving(*partition);
            let is_lost = happened.lost.contains(&(*partition, *term));
            if stays && !is_lost && store.claims.contains_key(&letter.id) {
                happened.violations.push(("answers", format!("{body:?} is sent elsewhere, and is committed here")));
            }
        }
    }
}
