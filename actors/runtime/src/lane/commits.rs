//! Commits, one after the other, and what follows from each that happened.
//!
//! In this order, and only after the commit: the actors advance, callers are answered, rows go to the relay, offsets are noted (I5). What was not
//! committed under a fence that held did not happen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

use holdfast_core::{
    PartitionId,
    batch::{Batch, Entry, Fence, TimerWrite},
    dedup::Answer,
    port::store::Committed,
};

use holdfast_machine::ownership::Loss;

use super::{DATABASE, InFlight, Lane, Offsets, ended, undone::Refusal};
use crate::{
    commit::{self, End},
    owned::Owned,
    partition::PartitionMessage,
    plan::{Pending, Plan},
    relay::RelayMessage,
    router::RouteError,
    spans, telemetry,
    work::Input,
};

impl Lane {
    /// Starts the next plan that is ready, if nothing is in flight.
    pub(super) fn start_commit(&mut self) {
        while self.in_flight.is_none()
            && let Some(mut plan) = self.ready.pop_front()
        {
            let (fences, done) = self.fences(&plan);
            let entries = std::mem::take(&mut plan.entries);
            let batch = Arc::new(Batch { fences, entries });
            let is_last = plan.work.len() == 1 && plan.work.iter().all(Input::was_refused);
            let task = if batch.fences.is_empty() {
                tokio::spawn(async { End::Committed(Committed::default(), BTreeSet::new()) })
            } else {
                let tokens = self.owned.values().map(|owned| (owned.partition, owned.tokens.clone())).collect();
                let (store, context) = (self.env.store.clone(), self.env.context.name());
                tokio::spawn(commit::commit(store, batch.clone(), tokens, context, is_last, self.env.config.rules))
            };
            let spans = spans::commit(self.env.context.name(), &plan.work);
            self.in_flight = Some(InFlight { task, plan, batch, done, spans });
        }
    }

    fn fences(&self, plan: &Plan) -> (Vec<Fence>, Offsets) {
        let mut done: Offsets = HashMap::new();
        for (partition, topic, offset) in &plan.consumed {
            done.entry((*partition, topic.clone())).or_default().insert(*offset);
        }
        let touched = plan.partitions();
        let mut fences = Vec::with_capacity(touched.len());
        let is_in = |owned: &&Owned| touched.contains(&owned.partition) && plan.is_of(owned);
        for owned in self.owned.values().filter(is_in) {
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

    /// Waits until nothing is in flight and nothing is ready; meanwhile carries out orders.
    pub(super) async fn settle_all(&mut self, batch: &mut Vec<Input>) {
        self.start_commit();
        while self.in_flight.is_some() {
            self.pulse.waits(DATABASE);
            tokio::select! {
                biased;
                Some(control) = self.control.recv() => self.control(control, batch),
                end = ended(&mut self.in_flight) => self.settle(end),
            }
        }
    }

    /// Takes in how the commit ended, and starts the next part of the batch.
    pub(super) fn settle(&mut self, end: End) {
        let Some(in_flight) = self.in_flight.take() else { return };
        match end {
            End::Committed(committed, outdated) => {
                self.pulse.moved();
                self.committed(in_flight, committed, &outdated);
            }
            End::Data(error) => self.bisect(in_flight, &Refusal::Data(error)),
            End::Slow(error) => self.bisect(in_flight, &Refusal::Slow(error)),
            End::Reloaded(reloaded) => self.reloaded(in_flight, reloaded),
        }
        self.start_commit();
        self.let_go_of_closed();
    }

    fn committed(&mut self, in_flight: InFlight, committed: Committed, outdated: &BTreeSet<PartitionId>) {
        let InFlight { mut plan, batch, done, spans, .. } = in_flight;
        let traced = !spans.is_empty();
        drop(spans);
        for partition in committed.stale.iter().filter(|partition| !outdated.contains(partition)) {
            self.lose_if(&plan, *partition, Loss::Fenced);
        }
        self.redo_outdated(&mut plan, outdated);
        for fence in &batch.fences {
            if let Some(owned) = self.owned.get_mut(&fence.partition).filter(|owned| plan.is_of(owned))
                && let Some(head) = committed.heads.get(&fence.partition)
            {
                owned.batch = fence.number;
                owned.remembered.store(fence.number, Ordering::Release);
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
        self.recent.reserve(batch.entries.len());
        for (entry, writes) in batch.entries.iter().enumerate().map(|(at, entry)| (at, chosen(entry, is_granted(at)))) {
            let partition = batch.entries[entry].partition;
            if !undone.contains(&partition) {
                self.recent.extend(writes.claims.iter().map(|claim| (claim.key, claim.clone())));
                self.outlive(&writes.timers);
                if let Some(term) = plan.terms.get(partition) {
                    self.env.effects.intended(partition, term, writes);
                }
            }
        }
        // Then callers are answered.
        let (mut applied, mut rejected) = (0, 0);
        for (partition, item, pending) in plan.answers {
            let answer = match pending {
                _ if undone.contains(&partition) => {
                    Err(RouteError::not_owner("the partition moved while the command ran"))
                }
                Pending::Known(answer) => Ok(answer),
                Pending::Grant { entry, granted, refused } => Ok(if is_granted(entry) { granted } else { refused }),
            };
            match &answer {
                Ok(Answer::Applied { .. }) => applied += 1,
                Ok(Answer::Rejected { .. }) => rejected += 1,
                Err(_) => {}
            }
            item.answer(answer);
        }
        for (outcome, count) in [("applied", applied), ("rejected", rejected)] {
            let labels = [("context", self.env.context.name()), ("outcome", outcome)];
            metrics::counter!(telemetry::MESSAGES_TOTAL, &labels).increment(count);
        }
        // Then what was caused is published, and offsets are noted.
        if !committed.outbox.is_empty() {
            let _ = self.relay.send(RelayMessage::Rows { rows: committed.outbox.into(), traced });
        }
        for ((partition, topic), offsets) in done.into_iter().filter(|((partition, _), _)| !undone.contains(partition))
        {
            let owned = self.owned.get_mut(&partition).filter(|owned| plan.terms.include(owned));
            if let Some(mark) = owned.and_then(|owned| owned.marks.get_mut(&topic)) {
                for offset in &offsets {
                    mark.done(*offset);
                }
            }
        }
        for fence in batch.fences.iter().filter(|fence| committed.heads.contains_key(&fence.partition)) {
            for (topic, next) in &fence.consumed {
                self.env.log.store_offset(topic, fence.partition, *next);
            }
        }
    }

    /// Notes which firings under way are of settings that `timers` have replaced or removed.
    fn outlive(&mut self, timers: &[TimerWrite]) {
        if self.firings.is_empty() {
            return;
        }
        for timer in timers.iter().filter(|timer| timer.serial.is_none()) {
            if let Some(is_outlived) = self.firings.get_mut(&(timer.id.clone(), timer.name.clone())) {
                *is_outlived = true;
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
            if let Some(owned) = self.owned.get(&partition).filter(|owned| plan.is_of(owned)) {
                let _ = owned.supervisor.send_message(PartitionMessage::Settle { snapshots });
            }
        }
        for (partition, aggregate, change) in plan.waiting.iter().filter(|(partition, ..)| !undone.contains(partition))
        {
            let Some(owned) = self.owned.get_mut(partition).filter(|owned| plan.is_of(owned)) else { continue };
            match owned.live.waiting(aggregate) {
                Some(waiting) => owned.live.set_waiting(aggregate, waiting.saturating_add_signed(*change)),
                None => _ = self.mailed.insert(aggregate.clone()),
            }
        }
    }
}

fn chosen(entry: &Entry, granted: bool) -> &holdfast_core::batch::Writes {
    match &entry.condition {
        Some(condition) if !granted => &condition.refused,
        _ => &entry.writes,
    }
}
