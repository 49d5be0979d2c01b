//! Deciding a batch: what needs no actor is disposed of, the rest is decided by the actors, and both become
//! plans.
//!
//! Invariants: what comes behind something that enters its aggregate's mailbox, or stays there, queues behind
//! it (I3). A record that becomes mail or a dead letter leaves no claim by which it would be recognised if it
//! were read again, so it is written by the very commit that moves the consumed offset past it (I2, I7).
//! Nothing is changed here that a commit has yet to confirm. Deliberately absent: what follows from a commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast_core::{PartitionId, dedup::ClaimKey, disposition::WaitReason, retry};

use super::{
    Action, Claims, Delivery, Failure, Machine, Origin, Reply, Report, Verdict,
    batch::{Batch, Open, Phase, Wait},
    message::{Entry, Need, Number, Remains, Slot, State},
    plan::{Decided, Disposal, Part},
};
use crate::{Now, ownership::Loss};

impl Machine {
    /// Disposes of everything that needs no actor, and has the rest decided, by aggregate, in order of first
    /// appearance.
    pub(super) fn decide(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some(mut batch) = self.batch.take() else { return };
        batch.phase = Phase::Deciding;
        self.has_decided = true;
        batch.waits = self.waits();
        let mut sorting = Sorting { deliveries: Vec::with_capacity(batch.messages.len()), ..Sorting::default() };
        batch.plain.reserve(batch.messages.len());
        for number in std::mem::take(&mut batch.messages) {
            if let Some(entry) = self.backlog.get(number) {
                let slot = entry.slot;
                // A strong read follows nobody.
                let is_blocked = slot.is_some_and(|slot| sorting.blocked.contains(&slot)) && !entry.is_read();
                let is_done = !is_blocked && self.sort(number, &mut batch, &mut sorting, now, actions);
                if !is_done {
                    sorting.back.push(number);
                }
                let keeps_back = |entry: &Entry| !entry.state.is_taken();
                if !is_done || self.backlog.get(number).is_some_and(keeps_back) {
                    sorting.blocked.extend(slot);
                }
            }
        }
        let is_left = |number: &Number| self.backlog.get(*number).is_some_and(|entry| entry.state == State::LookingUp);
        sorting.back.retain(is_left);
        self.backlog.set_all(&sorting.back, State::Ready);
        for (delivery, slot) in sorting.deliveries.iter().zip(sorting.slots) {
            let Delivery { delivery, partition, messages, .. } = delivery;
            self.backlog.set_all(messages, State::Deciding);
            batch.open.insert(*delivery, Open { slot, partition: *partition, messages: messages.clone() });
        }
        let readers: Vec<Number> =
            sorting.deliveries.iter().flat_map(|delivery| delivery.readers.iter().copied()).collect();
        if !sorting.deliveries.is_empty() {
            actions.push(Action::Decide { deliveries: sorting.deliveries });
        }
        for number in readers {
            self.backlog.remove(number);
            actions.push(Action::Done { message: number });
            self.moved += 1;
        }
        self.batch = Some(batch);
        self.end_batch();
    }

    /// Why what comes now for an aggregate queues behind something that is about to enter its mailbox.
    fn waits(&self) -> BTreeMap<Slot, Wait> {
        let wait = |(number, disposal): (&Number, &Disposal)| match disposal {
            Disposal::Put { reason, .. } => {
                Some((self.backlog.get(*number)?.slot?, Wait { reason: *reason, is_mail: false }))
            }
            _ => None,
        };
        self.late.iter().filter_map(wait).collect()
    }

    /// Finds out what becomes of one message. `false` if it is left for the next batch, and everything behind
    /// it with it.
    fn sort(
        &mut self,
        number: Number,
        batch: &mut Batch,
        sorting: &mut Sorting,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(entry) = self.backlog.get(number) else { return true };
        if matches!(entry.state, State::Asking(_)) {
            return false;
        }
        let Some(owned) = self.partitions.get(&entry.partition).filter(|owned| owned.term == entry.term) else {
            self.abandon(number, actions);
            return true;
        };
        if owned.is_paused(self.growth.current().0) {
            return false;
        }
        // All of them, in order: what is not at home here may not pass what is, or it would wait for it in
        // vain.
        if !owned.is_serving && entry.place.is_some() {
            self.hold(number);
            self.backlog.set(number, State::Held);
            return false;
        }
        match &entry.remains {
            Remains::Message => {}
            Remains::Offset => {
                batch.plain.add(number, &mut self.backlog);
                return true;
            }
            Remains::Refused => {
                self.dispose(number, Disposal::Refuse, batch);
                return true;
            }
            Remains::Record { reason, error } => {
                let (reason, error) = (*reason, error.clone());
                let attempts = entry.attempts().max(1);
                let disposal = Disposal::Dead { reason, error, attempts, is_indexed: false };
                self.dispose(number, disposal, batch);
                return true;
            }
            Remains::Bytes { error } => {
                let error = error.clone();
                self.dispose(number, Disposal::Unfiled { error }, batch);
                return true;
            }
        }
        let Some(slot) = entry.slot else {
            self.abandon(number, actions); // its ownership has ended
            return true;
        };
        if batch.stale.contains(&slot) {
            return false; // the next batch looks it up again
        }
        let unusable = batch.cold.get(&slot).and_then(|cold| cold.unusable.clone());
        if let Some(failure @ Failure::Refused(_)) = &unusable {
            self.fail(number, failure.clone(), batch, actions); // wherever its home is: no table takes it
            return true;
        }
        if !owned.is_home(entry.partition, self.backlog.aggregate(slot).hash) {
            if entry.place.is_some() {
                let (reason, error) =
                    (WaitReason::Transferred, "read from a partition that is not its home".to_owned());
                let disposal = Disposal::Put { reason, attempts: 0, after: Some(Duration::ZERO), error };
                self.dispose(number, disposal, batch);
            } else {
                self.abandon(number, actions); // mail and timers are in their tables still, for the home's owner to find
            }
            return true;
        }
        if !owned.is_serving {
            self.abandon(number, actions);
            return true;
        }
        let count = owned.count;
        let stored = |batch: &Batch| {
            let unknown = || (0, Claims { has_spilled: true, ..Claims::default() });
            batch.cold.get(&slot).map_or_else(unknown, |stored| (stored.waiting, stored.claims.clone()))
        };
        if entry.is_read() {
            if let Some(failure) = unusable {
                self.finish(number, Some(Reply::Failed(failure)), actions);
            } else {
                self.backlog.live.touch(slot, now.boot, batch.as_of, || stored(batch));
                self.delivery(slot, count, sorting).readers.push(number);
            }
            return true;
        }
        // Claims first: what is done is a repeat, though mail waits or its aggregate can't be read by now. An
        // event's repeat shows in the state alone.
        match self.known(entry, slot, batch) {
            None => {}
            Some(Ok(answer)) => {
                actions.push(Action::Answer { message: number, reply: Reply::Known(answer) }); // committed long since
                if entry.place.is_some() || entry.mail.is_some() {
                    batch.plain.dispose(number, Disposal::Repeat, &mut self.backlog);
                } else {
                    self.finish(number, None, actions);
                }
                return true;
            }
            Some(Err(failure)) => {
                self.fail(number, failure, batch, actions);
                return true;
            }
        }
        let is_ignored = !self.settings.rules.applies_mail_before_records && entry.place.is_some();
        if entry.queues_behind_mail() && !is_ignored && self.waiting(entry, slot, batch) > 0 {
            batch.waits.entry(slot).or_insert(Wait { reason: WaitReason::Retrying, is_mail: false });
        }
        if !is_ignored && self.queues_behind(number, slot, batch, actions) {
            return true;
        }
        let Some(entry) = self.backlog.get(number) else { return true };
        if let Some(failure) = unusable {
            self.fail(number, failure, batch, actions);
            return true;
        }
        let claim = entry.message.as_ref().and_then(|message| message.fingerprint);
        let claim = claim.filter(|_| self.settings.rules.claims_count_within_batch);
        if claim.is_some_and(|claim| !sorting.claimed.insert(claim.key)) {
            return false; // its twin is in this batch
        }
        if let Some(failure) = entry.message.as_ref().and_then(|message| message.failure.clone()) {
            if sorting.places.contains_key(&slot) {
                return false; // what is before it may not be done in this batch, and must not queue behind it
            }
            self.fail(number, failure, batch, actions);
            return true;
        }
        if entry.need != Need::Nothing {
            return false; // it was about to queue behind mail, which is gone by now
        }
        self.backlog.live.touch(slot, now.boot, batch.as_of, || stored(batch));
        self.delivery(slot, count, sorting).messages.push(number);
        true
    }

    fn delivery<'s>(&mut self, slot: Slot, count: u32, sorting: &'s mut Sorting) -> &'s mut Delivery {
        let at = *sorting.places.entry(slot).or_insert_with(|| {
            self.deliveries += 1;
            let aggregate = self.backlog.aggregate(slot);
            sorting.slots.push(slot);
            sorting.deliveries.push(Delivery {
                delivery: self.deliveries,
                aggregate: aggregate.id.clone(),
                hash: aggregate.hash,
                partition: aggregate.partition,
                count,
                messages: Vec::new(),
                readers: Vec::new(),
            });
            sorting.deliveries.len() - 1
        });
        &mut sorting.deliveries[at]
    }

    /// Queues a message behind what enters, or is in, the mailbox of its aggregate, if there is such. How a
    /// call ended passes, and so does mail, unless its own head stays there.
    fn queues_behind(&mut self, number: Number, slot: Slot, batch: &mut Batch, actions: &mut Vec<Action>) -> bool {
        let Some(Wait { reason, is_mail }) = batch.waits.get(&slot).copied() else { return false };
        let Some(entry) = self.backlog.get(number) else { return true };
        if entry.mail.is_some() && !is_mail || !entry.queues_behind_mail() && entry.mail.is_none() {
            return false;
        }
        if entry.place.is_some() {
            let error = "behind another message".to_owned();
            self.dispose(number, Disposal::Put { reason, attempts: 0, after: None, error }, batch);
        } else {
            self.finish(number, Some(Reply::Waiting(reason)), actions); // mail and timers are in their tables still
        }
        true
    }

    /// Disposes of a message. A record leaves no claim by which it would be recognised if it were read again,
    /// so it is written by the very commit that moves the consumed offset past it; anything else need not
    /// wait for any.
    fn dispose(&mut self, message: Number, disposal: Disposal, batch: &mut Batch) {
        let Some(entry) = self.backlog.get(message) else { return };
        match (&disposal, entry.slot) {
            (Disposal::Put { reason, .. }, Some(slot)) => {
                batch.waits.insert(slot, Wait { reason: *reason, is_mail: false });
            }
            (Disposal::Defer { reason, .. }, Some(slot)) => {
                batch.waits.insert(slot, Wait { reason: *reason, is_mail: true });
            }
            _ => {}
        }
        if entry.place.is_some() {
            let keeps_back = !matches!(disposal, Disposal::Put { .. });
            self.backlog.set(message, State::Late { keeps_back });
            self.late.insert(message, disposal);
        } else {
            batch.plain.dispose(message, disposal, &mut self.backlog);
        }
    }

    /// How long a message waits after `failure`; `None` if it is not tried again.
    fn wait_after(&self, entry: &Entry, failure: &Failure) -> Option<Duration> {
        let retry = self.settings.retry;
        match failure {
            Failure::Reused | Failure::TooLarge(_) | Failure::Refused(_) | Failure::Unreadable(_) => None,
            // Half as long again as it has waited already, whatever was tried: an outage costs less the
            // longer it lasts.
            Failure::LookUp(_) | Failure::Slow(_) => Some(match (&entry.mail, &entry.message) {
                (Some(mail), Some(message)) => {
                    retry::spread((mail.waited / 2).clamp(retry.base, retry.max), message.seed)
                }
                _ => retry.base,
            }),
            Failure::Handler(_) => retry.wait_after(entry.attempts() + 1),
        }
    }

    /// What becomes of a message that can't be applied.
    fn fail(&mut self, number: Number, failure: Failure, batch: &mut Batch, actions: &mut Vec<Action>) {
        let Some(entry) = self.backlog.get(number) else { return };
        let attempts = entry.attempts() + u32::from(matches!(failure, Failure::Handler(_)));
        let (reason, error) = (failure.wait_reason(), failure.text().to_owned());
        let disposal = match (entry.message.as_ref().map(|message| &message.origin), self.wait_after(entry, &failure)) {
            (None | Some(Origin::Call), _) => return self.finish(number, Some(Reply::Failed(failure)), actions),
            (Some(Origin::Effect), _) => {
                actions.push(Action::Report(Report::EffectFailed(number, failure)));
                return self.finish(number, None, actions);
            }
            (Some(Origin::Timer { .. }), after) => Disposal::PutOff { after: after.unwrap_or(self.settings.retry.max) },
            (Some(Origin::Log(_)), after @ Some(_)) => Disposal::Put { reason, attempts, after, error },
            (Some(Origin::Mail(_)), Some(after)) => Disposal::Defer { reason, attempts, after, error },
            (Some(Origin::Log(_) | Origin::Mail(_)), None) => Disposal::Dead {
                reason: failure.dead_letter_reason(),
                error,
                attempts: attempts.max(1),
                is_indexed: !matches!(failure, Failure::Refused(_)),
            },
        };
        self.dispose(number, disposal, batch);
    }

    /// Takes in what an actor made of its messages.
    pub(super) fn decided(&mut self, verdict: Verdict, actions: &mut Vec<Action>) {
        let Verdict { delivery, decided, is_changed, is_conditional, timers, claims, failed, is_unreadable } = verdict;
        let Some(mut batch) = self.batch.take() else { return actions.push(Action::Undo { delivery }) };
        let Some(Open { slot, partition, messages }) = batch.open.remove(&delivery) else {
            self.batch = Some(batch);
            return actions.push(Action::Undo { delivery });
        };
        self.moved += 1;
        let (done, rest) = messages.split_at(decided.min(messages.len()));
        let is_written = |number: &Number| {
            self.backlog.get(*number).is_some_and(|entry| entry.place.is_some() || entry.mail.is_some())
        };
        let is_written = is_changed || done.iter().any(is_written);
        if is_written {
            let plan = if is_conditional { &mut batch.conditional } else { &mut batch.plain };
            let part = plan.parts.len();
            let Claims { ring, .. } = self.backlog.live.claims(slot).expect("an actor that decides is in memory");
            let claims = claims.map(|made| ring.push(&made, self.settings.ring_max));
            plan.parts.push(Part::Decided { delivery, messages: done.to_vec(), claims: claims.clone() });
            for number in done {
                if self.backlog.get(*number).is_some_and(|entry| entry.mail.is_some()) {
                    let aggregate = self.backlog.aggregate(slot);
                    plan.waiting.push((partition, aggregate.hash, aggregate.id.clone(), -1));
                }
                plan.add(*number, &mut self.backlog);
            }
            plan.decided.push(Decided { delivery, part, partition, slot, timers, claims });
        } else {
            actions.push(Action::Undo { delivery });
            for number in done {
                self.finish(*number, None, actions);
            }
        }
        let mut rest = rest.iter().copied();
        if is_unreadable {
            let failure = failed.unwrap_or_else(|| Failure::Unreadable(String::new()));
            for number in rest.by_ref() {
                self.fail(number, failure.clone(), &mut batch, actions);
            }
        } else if let Some(failure) = failed
            && let Some(number) = rest.next()
        {
            self.fail(number, failure, &mut batch, actions);
        }
        let left: Vec<Number> = rest.filter(|number| !self.queues_behind(*number, slot, &mut batch, actions)).collect();
        self.backlog.set_all(&left, State::Ready);
        if is_unreadable && self.backlog.holds(slot).is_some() {
            self.backlog.forget(slot);
        }
        self.batch = Some(batch);
        self.end_batch();
    }

    /// A partition supervisor died: its partition is given up, its work is undone, and its next owner reads
    /// it again.
    pub(super) fn supervisor_died(&mut self, partition: PartitionId, term: u64, actions: &mut Vec<Action>) {
        if self.is_held(partition, term) {
            self.lose(partition, Loss::SupervisorDied, actions);
        }
        self.end_batch();
    }

    /// Once everything is decided: writes what has to go with its offset, or holds it if something before it
    /// in its partition is not done yet.
    pub(super) fn end_batch(&mut self) {
        let Some(mut batch) = self.batch.take_if(|batch| batch.is_deciding() && batch.open.is_empty()) else { return };
        self.write_late(&mut batch);
        batch.conditional.sort();
        let plans = [batch.plain, batch.conditional];
        self.plans.extend(plans.into_iter().filter(|plan| !plan.is_empty()));
        if self.plans.is_empty() {
            self.moved += 1; // reads, or what others have done already
        }
    }

    /// Writes what has its offset's turn, in order of arrival.
    fn write_late(&mut self, batch: &mut Batch) {
        self.is_late_due = false;
        if self.late.is_empty() {
            return;
        }
        let current = self.growth.current().0;
        let (backlog, partitions) = (&self.backlog, &self.partitions);
        let is_paused = |entry: &Entry| partitions.get(&entry.partition).is_none_or(|owned| owned.is_paused(current));
        self.late.retain(|number, _| backlog.get(*number).is_some());
        let mut writable: BTreeSet<Number> = self.late.keys().copied().collect();
        writable.retain(|number| backlog.get(*number).is_some_and(|entry| !is_paused(entry)));
        // What has to wait keeps those behind it waiting, whose offsets then keep others waiting.
        loop {
            let mut done = batch.plain.consumed.clone();
            for number in &writable {
                let Some(entry) = backlog.get(*number) else { continue };
                let Some((topic, offset)) = entry.place.clone() else { continue };
                done.entry(entry.partition).or_default().entry(topic).or_default().insert(offset);
            }
            let mut lows = BTreeMap::new();
            for (partition, topics) in &done {
                for (topic, offsets) in topics {
                    let mark = partitions.get(partition).and_then(|owned| owned.marks.get(topic));
                    lows.extend(mark.map(|mark| ((*partition, topic), mark.low_after(offsets))));
                }
            }
            let mut blocked = BTreeSet::new();
            let before = writable.len();
            for (number, disposal) in &self.late {
                let Some(entry) = backlog.get(*number) else { continue };
                let Some((topic, offset)) = &entry.place else { continue };
                let has_turn = lows.get(&(entry.partition, topic)).is_some_and(|low| offset < low);
                if !has_turn || entry.slot.is_some_and(|slot| blocked.contains(&slot)) {
                    writable.remove(number);
                }
                if !writable.contains(number) && matches!(disposal, Disposal::Put { .. }) {
                    blocked.extend(entry.slot);
                }
            }
            if writable.len() == before {
                break;
            }
        }
        for number in writable {
            if let Some(disposal) = self.late.remove(&number) {
                batch.plain.dispose(number, disposal, &mut self.backlog);
            }
        }
    }

    /// Writes what has its offset's turn by now, though no batch goes with it.
    pub(super) fn flush_late(&mut self, now: Now) {
        if self.is_late_due && self.batch.is_none() && self.plans.is_empty() && self.looks.is_empty() {
            self.has_decided = true;
            let mut batch = Batch::new(Vec::new(), now);
            batch.phase = Phase::Deciding;
            self.batch = Some(batch);
            self.end_batch();
        }
    }
}

/// What a batch is sorted into.
#[derive(Default)]
struct Sorting {
    deliveries: Vec<Delivery>,
    /// Whose each of them is.
    slots: Vec<Slot>,
    /// The place of each aggregate's delivery.
    places: BTreeMap<Slot, usize>,
    claimed: BTreeSet<ClaimKey>,
    /// Aggregates of which something is left for the next batch.
    blocked: BTreeSet<Slot>,
    back: Vec<Number>,
}
