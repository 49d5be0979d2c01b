//! What a lane says to actors, to callers and to people, and what actors say to it.
//!
//! Deliberately absent: when, which the machine says.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_core::{PartitionId, batch::Writes, dedup::Answer};
use holdfast_machine::lane::{
    self as machine, Branch, Delivery as Wanted, Failure, Input as Happened, Number, Reply, Report,
};

use super::{Decided, Lane, Lost};
use crate::{
    delivery::{Delivery, Verdicts},
    partition::{PartitionMessage, Post},
    router::RouteError,
    telemetry,
    work::{Input, Item, Snapshot, Step, Verdict, Work, to_caller},
};

impl Lane {
    /// Takes in what an actor made of its messages.
    pub(super) fn verdict(&mut self, delivery: Arc<Delivery>, verdict: Verdict) -> Happened {
        let Verdict { steps, outcome, failed, unreadable } = verdict;
        let number = delivery.number;
        let decided = steps.len();
        let failed = if unreadable {
            failed
        } else {
            let is_unprepared = matches!(failed, Some(Failure::LookUp(_)));
            let has_reached_culprit = is_unprepared || decided == delivery.open().len();
            let of_item = delivery.items.get(decided).and_then(|item| item.failure.get().cloned());
            failed.filter(|_| has_reached_culprit).map(|failure| of_item.unwrap_or(failure))
        };
        let timers = |writes: &Writes| {
            writes.timers.iter().filter(|timer| timer.serial.is_none()).map(|timer| timer.name.clone()).collect()
        };
        let condition = outcome.as_ref().and_then(|outcome| outcome.condition.as_ref());
        let granted = outcome.as_ref().map(|outcome| &outcome.done.writes);
        let branches = [granted, condition.map(|(_, refused)| &refused.writes)];
        let verdict = machine::Verdict {
            delivery: number,
            decided,
            is_changed: outcome.is_some(),
            is_conditional: condition.is_some(),
            timers: branches.map(|writes| writes.map_or_else(Vec::new, timers)),
            claims: branches.map(|writes| writes.map_or_else(Vec::new, |writes| writes.claims.clone())),
            failed,
            is_unreadable: unreadable,
        };
        let decided = Decided {
            granted: outcome.as_ref().map(|outcome| outcome.done.after.clone()),
            refused: condition.map(|(_, refused)| refused.after.clone()),
            delivery,
            steps,
            outcome,
            entry: None,
        };
        self.decided.insert(number, decided);
        Happened::Decided(verdict)
    }

    /// Has actors decide.
    pub(super) fn deliver(&mut self, deliveries: Vec<Wanted>) {
        let verdicts = Arc::new(Verdicts::default());
        let mut posts: BTreeMap<PartitionId, Vec<Post>> = BTreeMap::new();
        for wanted in deliveries {
            let owned = self.owned.get(&wanted.partition).expect("the machine owns what its shell does");
            let kind = self.env.context.kind(wanted.aggregate.kind).expect("an aggregate id is made from a kind");
            let item = |number: &Number| match &self.bodies.get(number)?.work {
                Work::Item(item) => Some(item.clone()),
                _ => None,
            };
            let items: Vec<Arc<Item>> = wanted.messages.iter().filter_map(item).collect();
            for item in &items {
                self.stages.admitted(item.admitted);
            }
            let readers = wanted.readers.iter().filter_map(|number| match self.bodies.remove(number)?.work {
                Work::Activate { reply, .. } => Some(reply),
                _ => None,
            });
            let readers = readers.collect();
            let activation = self.states.remove(&wanted.aggregate);
            let posts = posts.entry(wanted.partition).or_default();
            let (kind, delivery) = (kind.clone(), Delivery::new(wanted, owned.own.term, items, &verdicts));
            posts.push(Post { delivery: Arc::new(delivery), kind, activation, readers });
        }
        self.stages.decides();
        for (partition, deliveries) in posts {
            let owned = self.owned.get(&partition).expect("the machine owns what its shell does");
            // A supervisor that is gone drops what it is sent, which is missed then.
            let _ = owned.supervisor.send_message(PartitionMessage::Deliver { deliveries });
        }
        self.verdicts = Some(verdicts);
    }

    /// Notes how a delivery ended, for its actor.
    pub(super) fn settle(&mut self, delivery: &Delivery, snapshot: Option<Arc<Snapshot>>) {
        self.settled.entry(delivery.home).or_default().push((delivery.aggregate.clone(), snapshot));
    }

    /// Tells actors how their deliveries ended.
    pub(super) fn tell_settled(&mut self) {
        while let Some((partition, snapshots)) = self.settled.pop_first() {
            if let Some(owned) = self.owned.get(&partition) {
                let _ = owned.supervisor.send_message(PartitionMessage::Settle { snapshots });
            }
        }
    }

    pub(super) fn advance(&mut self, delivery: u64, branch: Branch) {
        let Some(decided) = self.decided.get(&delivery) else { return };
        let snapshot = match branch {
            Branch::Refused if decided.refused.is_some() => decided.refused.clone(),
            _ => decided.granted.clone(),
        };
        let delivery = decided.delivery.clone();
        self.settle(&delivery, snapshot);
    }

    /// Begins the effects that a delivery intended, and answers its callers.
    pub(super) fn conclude(&mut self, delivery: u64, branch: Branch, term: u64) {
        let Some(Decided { delivery, steps, entry, .. }) = self.decided.remove(&delivery) else { return };
        if let Some(entry) = entry.and_then(|entry| self.in_flight.batch.entries.get(entry)) {
            let writes = match (&entry.condition, branch) {
                (Some(condition), Branch::Refused) => &condition.refused,
                _ => &entry.writes,
            };
            self.env.effects.intended(delivery.home, term, writes);
        }
        for (step, item) in steps.into_iter().zip(&delivery.items) {
            let answer = match (step, branch) {
                (Step::Answered(answer), _)
                | (Step::Conditional { granted: answer, .. }, Branch::Granted)
                | (Step::Conditional { refused: answer, .. }, Branch::Refused) => answer,
                (Step::Repeat, _) => {
                    self.count("repeat");
                    continue;
                }
            };
            self.count(match &answer {
                Answer::Applied { .. } => "applied",
                Answer::Rejected { .. } => "rejected",
            });
            item.answer(Ok(answer));
        }
    }

    /// The message is counted under its outcome; the meter gets the counts of a turn at its end.
    pub(super) fn count(&mut self, outcome: &'static str) {
        *self.counts.entry(outcome).or_default() += 1;
    }

    pub(super) fn tell_counts(&mut self) {
        while let Some((outcome, count)) = self.counts.pop_first() {
            let labels = [("context", self.env.context.name()), ("outcome", outcome)];
            metrics::counter!(telemetry::MESSAGES_TOTAL, &labels).increment(count);
        }
    }

    /// Answers a caller or a reader.
    pub(super) fn answer(&mut self, message: Number, reply: Reply) {
        if matches!(reply, Reply::Known(_)) {
            self.count("repeat");
        }
        match self.bodies.get(&message).map(|input| &input.work) {
            Some(Work::Item(item)) => item.answer(answer(reply)),
            Some(Work::Activate { .. }) => {
                if let Some(Input { work: Work::Activate { reply: reader, .. }, .. }) = self.bodies.remove(&message)
                    && let Err(error) = answer(reply)
                {
                    reader.send(Err(error)); // a state comes from its actor alone
                }
            }
            _ => {}
        }
    }

    pub(super) fn report(&self, report: Report) {
        let context = self.env.context.name();
        match report {
            Report::Lost(partition, term, cause) => _ = self.reports.send(Lost { partition, term, cause }),
            Report::NotFound(error) => tracing::warn!(context, %error, "look-up failed; holding"),
            Report::NotCommitted(error) => self.not_committed(&error),
            Report::NotCompared(error) => {
                tracing::warn!(%error, "partition rows could not be read after a refused commit; the partitions are given up");
            }
            Report::EffectFailed(number, failure) => {
                let (id, effect) = self.named(number);
                tracing::error!(aggregate = %id, effect, error = failure.text(), "the end of an effect could not be taken in; it is asked for again");
            }
            Report::LeftAlone(number, error) => {
                let (id, _) = self.named(number);
                tracing::error!(aggregate = %id, error, "what follows from a failed message was refused; it is left as it is");
            }
            Report::OffsetRefused(partition, error) => tracing::error!(
                context,
                partition = partition.0,
                error,
                "the store refused to consume an offset, whatever was written with it; the partition is given up"
            ),
            Report::Acknowledged(partition, generation, count) => tracing::info!(
                context,
                partition = partition.0,
                generation = generation.0,
                count,
                "partition count acknowledged"
            ),
            Report::Violated(invariant, detail) => _ = invariant.check(false, || format!("{context}: {detail}")),
            Report::NotAcknowledged(partition, error) => tracing::warn!(context, partition = partition.0, %error,
                "a partition count could not be acknowledged; the partition is given up"),
        }
    }

    /// The aggregate of a message, and its type.
    fn named(&self, number: Number) -> (String, String) {
        match self.bodies.get(&number).map(|input| &input.work) {
            Some(Work::Item(item)) => (item.aggregate.to_string(), item.message.r#type.to_string()),
            _ => (String::new(), String::new()),
        }
    }
}

/// A reply as a caller gets it.
fn answer(reply: Reply) -> Result<Answer, RouteError> {
    Err(match reply {
        Reply::Known(answer) => return Ok(answer),
        Reply::NotOwner => RouteError::not_owner("the partition moved"),
        Reply::Unavailable(error) => RouteError::unavailable(error),
        Reply::Waiting(reason) => RouteError::Waiting(reason),
        Reply::Failed(failure) => to_caller(&failure),
    })
}
