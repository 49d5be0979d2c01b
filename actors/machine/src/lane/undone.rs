//! What becomes of work whose commit did not happen, or may have.
//!
//! It is `Ready` again where it stands, before anything that came later (I3), and is never executed blindly:
//! what was committed after all shows as consumed, as a claim or as an event sequence (I2). A commit that the
//! store refuses for some row's data, or for the time it takes, is cut in halves until the culprit stands
//! alone; of that one less and less is tried, and no step is taken twice, so nothing goes round for ever.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::{AggregateId, PartitionId, disposition::DeadLetterReason, epoch::PartitionRow};

use super::{
    Action, Failure, Machine, Reply, Report,
    message::{Number, Remains, Slot, State},
    plan::{Disposal, Phase, Plan},
};
use crate::{Ask, ownership::Loss};

/// Why a commit was refused.
pub(super) enum Refusal {
    /// Some row's data.
    Data(String),
    /// The time it took.
    Slow(String),
}

impl Refusal {
    fn failure(&self) -> Failure {
        match self {
            Self::Data(error) => Failure::Handler(format!("the store refused its data: {error}")),
            Self::Slow(error) => Failure::Slow(error.clone()),
        }
    }
}

impl Machine {
    /// Sets messages of a plan that did not happen back, and with them all that comes after: the plans that
    /// were still to be sent, what was disposed of behind them, and the batch that was looked up. If they are
    /// tried in parts, what stands before them in their queues goes with the first.
    pub(super) fn undo(&mut self, messages: Vec<Number>, is_split: bool, actions: &mut Vec<Action>) {
        let mut undone = messages;
        for plan in self.plans.drain(..) {
            actions.extend(plan.decided.iter().map(|decided| Action::Undo { delivery: decided.delivery }));
            undone.extend(plan.messages);
        }
        // Of ownerships that have ended meanwhile nothing is tried again.
        let is_held =
            |number: &Number| self.backlog.get(*number).is_some_and(|entry| self.is_held(entry.partition, entry.term));
        let (undone, gone): (Vec<Number>, Vec<Number>) = undone.into_iter().partition(is_held);
        for number in gone {
            self.abandon(number, actions);
        }
        // What was disposed of behind them was so because of them; and mail is put in order.
        let slot = |number: &Number| self.backlog.get(*number).and_then(|entry| entry.slot);
        let slots: BTreeSet<Slot> = undone.iter().filter_map(slot).collect();
        let is_theirs = |number: &Number| slot(number).is_some_and(|slot| slots.contains(&slot));
        let is_meant =
            |number: &Number, disposal: &mut Disposal| matches!(disposal, Disposal::Put { .. }) || is_theirs(number);
        let mut late: Vec<Number> = self.late.extract_if(.., is_meant).map(|(number, _)| number).collect();
        self.backlog.set_all(&undone, State::Ready);
        self.backlog.set_all(&late, State::Ready);
        if let Some(mut batch) = self.batch.take_if(|batch| !batch.is_deciding()) {
            let is_in =
                |number: &Number| self.backlog.get(*number).is_some_and(|entry| entry.state == State::LookingUp);
            batch.messages.retain(is_in);
            self.backlog.set_all(&batch.messages, State::Ready);
        }
        if is_split {
            late.retain(|number| {
                self.backlog.get(*number).and_then(|entry| entry.slot).is_some_and(|slot| slots.contains(&slot))
            });
            self.backlog.split(&undone, &late);
        }
    }

    /// The store refused the commit in flight, for some row's data or for the time it took: it is cut in
    /// halves until the culprit stands alone.
    pub(super) fn bisect(&mut self, refusal: &Refusal, actions: &mut Vec<Action>) {
        let Some(plan) = self.plans.pop_front() else { return };
        actions.extend(plan.decided.iter().map(|decided| Action::Undo { delivery: decided.delivery }));
        if let [only] = plan.messages[..] {
            self.refused_alone(only, refusal, actions);
        }
        self.undo(plan.messages, true, actions);
    }

    /// What becomes of a message whose commit was refused though it stood alone: it fails as if its handler
    /// had; then its record alone becomes a dead letter of no aggregate; then it is kept as raw bytes, where
    /// no column refuses anything.
    ///
    /// One that took too long goes to the mailbox, to be tried again less and less often, and that is never
    /// counted against it. If the store does not take that either it is the store that is slow, and the
    /// commit is held as in an outage.
    fn refused_alone(&mut self, number: Number, refusal: &Refusal, actions: &mut Vec<Action>) {
        let Some(entry) = self.backlog.get_mut(number) else { return };
        let has_record = entry.place.is_some() || entry.mail.is_some();
        match (&entry.remains, refusal) {
            (Remains::Message, _) if entry.message.as_ref().is_some_and(|message| message.failure.is_none()) => {
                if let Some(message) = &mut entry.message {
                    message.failure = Some(refusal.failure());
                }
            }
            (Remains::Message, Refusal::Data(error)) if has_record => {
                let error = format!("the store refused its data: {error}");
                entry.remains = Remains::Record { reason: DeadLetterReason::Poison, error };
            }
            (Remains::Message, Refusal::Data(error)) => {
                actions.push(Action::Report(Report::LeftAlone(number, error.clone())));
                self.finish(number, Some(Reply::Failed(refusal.failure())), actions);
            }
            (Remains::Record { error: before, .. }, Refusal::Data(error)) => {
                entry.remains = Remains::Bytes { error: format!("{before}; its dead letter was refused: {error}") };
            }
            (Remains::Refused, Refusal::Data(error)) => {
                entry.remains = Remains::Bytes { error: format!("its dead letter was refused: {error}") };
            }
            (Remains::Bytes { .. } | Remains::Offset, Refusal::Data(error) | Refusal::Slow(error)) => {
                let (partition, term) = (entry.partition, entry.term);
                if self.is_held(partition, term) {
                    actions.push(Action::Report(Report::OffsetRefused(partition, error.clone())));
                    self.lose(partition, Loss::Refused, actions);
                }
                self.abandon(number, actions);
            }
            (Remains::Message | Remains::Record { .. } | Remains::Refused, Refusal::Slow(_)) => {}
        }
    }

    /// The commit may have happened or not. Actors and counters are read again from the store, and the work
    /// is ready again: what was committed shows as consumed, as a claim or as an event sequence.
    pub(super) fn retokened(&mut self, of: Ask, rows: Option<Vec<PartitionRow>>, actions: &mut Vec<Action>) {
        let Some(in_flight) = self.in_flight(of) else { return };
        let is_split = matches!(in_flight.phase, Phase::Settling(true));
        let cause = if rows.is_some() { Loss::Fenced } else { Loss::OutcomeUnknown };
        let Some(plan) = self.plans.pop_front() else { return };
        let rows: BTreeMap<PartitionId, PartitionRow> =
            rows.into_iter().flatten().map(|row| (row.partition, row)).collect();
        for (partition, term) in &plan.terms {
            if !self.is_held(*partition, *term) {
                continue;
            }
            let Some(row) = rows.get(partition) else {
                self.lose(*partition, cause, actions);
                continue;
            };
            let Some(owned) = self.partitions.get_mut(partition) else { continue };
            let token = row.token.unwrap_or(owned.token);
            (owned.token, owned.batch, owned.outbox_head) = (token, row.batch, row.outbox_head);
            actions.push(Action::Remember { partition: *partition, batch: row.batch });
            actions.push(Action::Reload { partition: *partition, token, head: row.outbox_head });
        }
        if self.settings.rules.forgets_actors_of_unknown_commits {
            self.forget(&plan, actions);
        }
        actions.extend(plan.decided.iter().map(|decided| Action::Undo { delivery: decided.delivery }));
        // The commit may have set timers again whose firings were read before it.
        for decided in &plan.decided {
            for timers in &decided.timers {
                self.outlive(decided.slot, timers, actions);
            }
        }
        let mut again = Vec::new();
        let mut mailboxes = BTreeSet::new();
        for number in plan.messages {
            let Some(entry) = self.backlog.get(number) else { continue };
            let (partition, term) = (entry.partition, entry.term);
            let Some(row) = rows.get(&partition).filter(|_| self.is_held(partition, term)) else {
                self.abandon(number, actions);
                continue;
            };
            let consumed =
                entry.place.clone().filter(|(topic, offset)| row.next_offset(topic).is_some_and(|next| *offset < next));
            if let Some((topic, offset)) = consumed {
                let owned = self.partitions.get_mut(&partition);
                if let Some(mark) = owned.and_then(|owned| owned.marks.get_mut(&topic)) {
                    mark.done(offset);
                }
                self.finish(number, None, actions);
            } else if entry.comes_again() {
                // From its table. What stands behind it in its mailbox comes again with it.
                mailboxes.extend(entry.slot.filter(|_| entry.mail.is_some()).map(|slot| {
                    let aggregate = self.backlog.aggregate(slot);
                    (aggregate.partition, aggregate.id.clone())
                }));
                self.finish(number, None, actions);
            } else {
                again.push(number);
            }
        }
        self.is_late_due = true;
        for (partition, id) in mailboxes {
            self.drop_mail(partition, &id, actions);
        }
        self.undo(again, is_split, actions);
    }

    /// Stops the actors of a plan whose outcome is not known, and of those whose mailboxes it changed: they
    /// are activated again.
    fn forget(&mut self, plan: &Plan, actions: &mut Vec<Action>) {
        let decided = plan.decided.iter().map(|decided| decided.slot);
        let changed = plan.waiting.iter().filter_map(|(partition, hash, id, _)| {
            let count = self.partitions.get(partition).map_or(1, |owned| owned.count);
            self.backlog.find(hash.home(count), id)
        });
        let all: BTreeSet<Slot> = decided.chain(changed).collect();
        let mut by_partition: BTreeMap<PartitionId, Vec<AggregateId>> = BTreeMap::new();
        for slot in all {
            let Some(aggregate) = self.backlog.holds(slot) else { continue };
            let (partition, id) = (aggregate.partition, aggregate.id.clone());
            if self.backlog.forget(slot) {
                by_partition.entry(partition).or_default().push(id);
            }
        }
        for (partition, aggregates) in by_partition {
            actions.push(Action::Passivate { partition, aggregates });
        }
    }
}
