//! Commits, one after the other, and what follows from each that happened.
//!
//! In this order, and only after the commit: the actors advance, callers are answered, rows go to the relay,
//! offsets are noted (I5). What was not committed under a fence that held did not happen. Deliberately
//! absent: what becomes of that, and how a commit is sent.

use std::{collections::BTreeSet, time::Duration};

use holdfast_core::{
    AggregateId, PartitionId,
    batch::Fence,
    epoch::PartitionRow,
    invariant::Invariant,
    port::store::{CommitError, Committed, StoreError},
    ring::Pushed,
    watermark::Watermark,
};

use super::{
    Action, Branch, Claims, Machine, Report,
    invariants::check,
    is_timer,
    message::{Entry, Number, Slot, State},
    plan::{Decided, InFlight, Phase, Plan},
    undone::Refusal,
};
use crate::{Ask, Now, ownership::Loss, step::Step};

/// A refused commit waits at most so long for the news that explain it, before it is tried again.
const NEWS_PATIENCE: Duration = Duration::from_secs(1);

impl Machine {
    /// Sends the first plan, for the first time or again.
    pub(super) fn start_commit(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(plan) = self.plans.front_mut() {
            if let Some(InFlight { step, fences, .. }) = &mut plan.in_flight {
                if step.is_due(now) {
                    let ask = step.begin(&mut self.asks);
                    actions.push(Action::CommitAgain { ask, fences: fences.clone() });
                }
                return;
            }
            let partitions = &self.partitions;
            let is_held = |partition, term| partitions.get(&partition).is_some_and(|owned| owned.term == term);
            let (messages, deliveries) = plan.prune(is_held, &self.backlog);
            for delivery in deliveries {
                actions.push(Action::Undo { delivery });
            }
            let fences = self.fences();
            for number in messages {
                self.abandon(number, actions);
            }
            let Some(plan) = self.plans.front_mut() else { return };
            if fences.is_empty() {
                self.plans.pop_front();
                continue;
            }
            let mut step = Step::due(now.awake);
            let ask = step.begin(&mut self.asks);
            let is_last = matches!(plan.messages[..], [only] if self.backlog.get(only).is_some_and(Entry::was_refused));
            plan.in_flight = Some(InFlight { step, fences: fences.clone(), phase: Phase::Sent, is_last });
            let (parts, messages) = (std::mem::take(&mut plan.parts), plan.messages.clone());
            return actions.push(Action::Commit { ask, fences, parts, messages });
        }
    }

    /// The fences of the first plan.
    fn fences(&self) -> Vec<Fence> {
        let Some(plan) = self.plans.front() else { return Vec::new() };
        let fence = |partition: &PartitionId| {
            let owned = self.partitions.get(partition)?;
            let topics = plan.consumed.get(partition).into_iter().flatten();
            let consumed = topics.filter_map(|(topic, offsets)| {
                let mark = owned.marks.get(topic)?;
                let low = mark.low_after(offsets);
                (low > mark.low()).then(|| (topic.clone(), low))
            });
            Some(Fence {
                partition: *partition,
                token: owned.token,
                generation: owned.generation,
                number: owned.batch + 1,
                outbox_head: owned.outbox_head,
                consumed: consumed.collect(),
                cursor: None,
            })
        };
        plan.terms.keys().filter_map(fence).collect()
    }

    /// The plan in flight, if it waits for this answer.
    pub(super) fn in_flight(&mut self, ask: Ask) -> Option<&mut InFlight> {
        self.plans.front_mut()?.in_flight.as_mut().filter(|in_flight| in_flight.step.ask == Some(ask))
    }

    /// Takes in how a commit ended.
    pub(super) fn committed(
        &mut self,
        of: Ask,
        result: Result<Committed, CommitError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let is_sound = self.settings.rules.settles_unknown_commits;
        let Some(in_flight) = self.in_flight(of) else { return };
        let error = match result {
            Ok(committed) if committed.stale.is_empty() => {
                return self.settle(committed, &BTreeSet::new(), now, actions);
            }
            Ok(committed) => {
                in_flight.phase = Phase::Comparing(committed);
                let ask = self.begin_step();
                return actions.push(Action::Compare { ask });
            }
            Err(error) => error,
        };
        let Some(in_flight) = self.in_flight(of) else { return };
        let is_tried_in_parts =
            matches!(error, CommitError::Data { .. }) || matches!(error, CommitError::Slow(_)) && !in_flight.is_last;
        if !is_tried_in_parts {
            actions.push(Action::Report(Report::NotCommitted(error.clone())));
        }
        match error {
            CommitError::Data { sqlstate, message } => {
                self.bisect(&Refusal::Data(format!("{sqlstate}: {message}")), actions);
            }
            CommitError::Slow(error) if !in_flight.is_last => self.bisect(&Refusal::Slow(error), actions),
            CommitError::Unavailable(_) | CommitError::Slow(_) => {
                let first = in_flight.fences.first().map_or(PartitionId(0), |fence| fence.partition);
                in_flight.step = in_flight.step.after_failure(first, now);
            }
            CommitError::Unknown(_) if !is_sound => {
                in_flight.phase = Phase::Blind;
                let ask = self.begin_step();
                actions.push(Action::Compare { ask });
            }
            CommitError::Conflict | CommitError::Unknown(_) => {
                in_flight.phase = Phase::Settling(matches!(error, CommitError::Unknown(_)));
                let held = in_flight.fences.iter().map(|fence| (fence.partition, fence.token)).collect();
                let ask = self.begin_step();
                actions.push(Action::Retoken { ask, held });
            }
        }
    }

    /// Takes in the rows, after a commit that was stale somewhere: a partition whose row differs from the
    /// fence by its generation alone is this node's still.
    pub(super) fn compared(
        &mut self,
        of: Ask,
        rows: Result<Vec<PartitionRow>, StoreError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(in_flight) = self.in_flight(of) else { return };
        let rows = rows.unwrap_or_else(|error| {
            actions.push(Action::Report(Report::NotCompared(error)));
            Vec::new()
        });
        let Phase::Comparing(committed) = std::mem::replace(&mut in_flight.phase, Phase::Sent) else {
            for row in rows {
                if let Some(fence) = in_flight.fences.iter_mut().find(|fence| fence.partition == row.partition) {
                    (fence.number, fence.outbox_head) = (row.batch + 1, row.outbox_head);
                }
            }
            let fences = in_flight.fences.clone();
            let ask = self.begin_step();
            return actions.push(Action::CommitAgain { ask, fences });
        };
        let is_outdated = |row: &&PartitionRow| {
            let fence = in_flight.fences.iter().find(|fence| fence.partition == row.partition);
            let is_ours = |fence: &Fence| {
                row.generation != fence.generation && row.batch + 1 == fence.number && row.token == Some(fence.token)
            };
            committed.stale.contains(&row.partition) && fence.is_some_and(is_ours)
        };
        let outdated = rows.iter().filter(is_outdated).map(|row| row.partition).collect();
        self.settle(committed, &outdated, now, actions);
    }

    /// The next question about the plan in flight.
    fn begin_step(&mut self) -> Ask {
        let ask = self.asks.next();
        if let Some(in_flight) = self.plans.front_mut().and_then(|plan| plan.in_flight.as_mut()) {
            in_flight.step.ask = Some(ask);
        }
        ask
    }

    /// A commit has happened, but for stale partitions.
    fn settle(&mut self, committed: Committed, outdated: &BTreeSet<PartitionId>, now: Now, actions: &mut Vec<Action>) {
        let Some(plan) = self.plans.pop_front() else { return };
        let Some(InFlight { fences, .. }) = &plan.in_flight else { return };
        self.moved += 1;
        let happened = |partition: &PartitionId| committed.heads.contains_key(partition);
        for partition in committed.stale.iter().filter(|partition| !outdated.contains(partition)) {
            if plan.terms.get(partition).is_some_and(|term| self.is_held(*partition, *term)) {
                self.lose(*partition, Loss::Fenced, actions);
            }
        }
        for fence in fences {
            let (partition, batch) = (fence.partition, fence.number);
            let is_held = plan.terms.get(&partition).is_some_and(|term| self.is_held(partition, *term));
            if let (Some(head), true) = (committed.heads.get(&partition), is_held)
                && let Some(owned) = self.partitions.get_mut(&partition)
            {
                let (last, before) = (owned.batch, owned.outbox_head);
                (owned.batch, owned.outbox_head) = (batch, *head);
                let what = || format!("batch {batch} of {partition} follows {last}");
                check(Invariant::OneHistory, batch == last + 1, what, actions);
                let what = || format!("the outbox of {partition} ends at {head}, after {before}");
                check(Invariant::Order, *head >= before, what, actions);
                actions.push(Action::Remember { partition, batch });
            }
        }
        // First the actors advance.
        let branch = |part: usize| match committed.granted.get(part) {
            Some(true) => Branch::Granted,
            _ => Branch::Refused,
        };
        for decided in &plan.decided {
            let delivery = decided.delivery;
            actions.push(if happened(&decided.partition) {
                Action::Advance { delivery, branch: branch(decided.part) }
            } else {
                Action::Undo { delivery }
            });
        }
        self.note_mailboxes(&plan, happened, actions);
        for decided in plan.decided.iter().filter(|decided| happened(&decided.partition)) {
            self.note_claims(decided, branch(decided.part));
        }
        // Then callers are answered.
        for decided in plan.decided.iter().filter(|decided| happened(&decided.partition)) {
            let (delivery, branch) = (decided.delivery, branch(decided.part));
            let term = plan.terms.get(&decided.partition).copied().unwrap_or_default();
            actions.push(Action::Conclude { delivery, branch, term });
            let timers = &decided.timers[usize::from(branch == Branch::Refused)];
            if !timers.is_empty() && self.is_held(decided.partition, term) {
                self.outlive(decided.slot, timers, actions);
            }
        }
        // Then what was caused is published, and offsets are noted.
        actions.push(Action::Publish);
        let mut again = Vec::new();
        for number in &plan.messages {
            let Some(entry) = self.backlog.get(*number) else { continue };
            let partition = entry.partition;
            if happened(&partition) {
                let state = entry.state;
                let what = || format!("{number:?} is done, and was {}", state.name());
                check(Invariant::Durable, state == State::Committing, what, actions);
                self.finish(*number, None, actions);
            } else if outdated.contains(&partition) {
                again.push(*number);
            } else {
                self.abandon(*number, actions);
            }
        }
        self.mark_done(&plan, happened);
        for fence in fences.iter().filter(|fence| happened(&fence.partition)) {
            for (topic, next) in &fence.consumed {
                self.check_note(&plan, fence.partition, topic, *next, actions);
                actions.push(Action::Note { topic: topic.clone(), partition: fence.partition, next: *next });
            }
        }
        if !outdated.is_empty() {
            for partition in outdated {
                if let Some(owned) = self.partitions.get_mut(partition) {
                    owned.outdated_until = Some(now.awake + NEWS_PATIENCE);
                }
            }
            self.undo(again, false, actions);
        }
    }

    /// I7: the log gets an offset to note only if all before it is done.
    pub(super) fn check_note(
        &self,
        plan: &Plan,
        partition: PartitionId,
        topic: &str,
        next: u64,
        actions: &mut Vec<Action>,
    ) {
        let owned = self.partitions.get(&partition).filter(|owned| plan.terms.get(&partition) == Some(&owned.term));
        let low = owned.and_then(|owned| owned.marks.get(topic)).map(Watermark::low);
        let what = || format!("{topic}-{partition} is consumed up to {next}, and done up to {low:?}");
        check(Invariant::NothingVanishes, low.is_none_or(|low| next <= low), what, actions);
    }

    /// Notes offsets as done.
    fn mark_done(&mut self, plan: &Plan, happened: impl Fn(&PartitionId) -> bool) {
        for (partition, topics) in plan.consumed.iter().filter(|(partition, _)| happened(partition)) {
            let term = plan.terms.get(partition);
            let Some(owned) = self.partitions.get_mut(partition).filter(|owned| term == Some(&owned.term)) else {
                continue;
            };
            for (topic, offsets) in topics {
                let Some(mark) = owned.marks.get_mut(topic) else { continue };
                let low = mark.low();
                for offset in offsets {
                    mark.done(*offset);
                }
                self.is_late_due |= mark.low() > low;
            }
        }
    }

    /// Notes the claims of an aggregate after a commit. What that pushed out may be in no table yet as the
    /// batch that gathers meanwhile has seen them.
    fn note_claims(&mut self, decided: &Decided, branch: Branch) {
        let Some(Claims { has_spilled, .. }) = self.backlog.live.claims(decided.slot) else { return };
        let Pushed { ring, out, spills } = &decided.claims[usize::from(branch == Branch::Refused)];
        let claims = Claims { ring: ring.clone(), has_spilled: *has_spilled || *spills };
        self.backlog.live.set_claims(decided.slot, claims);
        if self.batch.is_some() && self.settings.rules.knows_what_commits_push_out {
            self.pushed_out.extend(out.iter().map(|claim| (claim.key, claim.clone())));
        }
    }

    /// Notes how a commit has changed the durable mailboxes.
    fn note_mailboxes(&mut self, plan: &Plan, happened: impl Fn(&PartitionId) -> bool, actions: &mut Vec<Action>) {
        for (partition, hash, id, change) in plan.waiting.iter().filter(|(partition, ..)| happened(partition)) {
            // A record that strayed was put in a mailbox of its home.
            let Some(count) = self.partitions.get(partition).map(|owned| owned.count) else { continue };
            let Some(slot) = self.backlog.find(hash.home(count), id) else { continue };
            match self.backlog.live.waiting(slot) {
                Some(waiting) => self.backlog.live.set_waiting(slot, waiting.saturating_add_signed(*change)),
                None => _ = self.batch.as_mut().map(|batch| batch.stale.insert(slot)),
            }
        }
        for (partition, id) in plan.deferred.iter().filter(|(partition, _)| happened(partition)) {
            self.drop_mail(*partition, id, actions);
        }
    }

    /// Drops the mail of an aggregate that is here: what stands before it in its mailbox is due later, and it
    /// comes again with that.
    pub(super) fn drop_mail(&mut self, partition: PartitionId, id: &AggregateId, actions: &mut Vec<Action>) {
        if let Some(slot) = self.backlog.find(partition, id) {
            self.drop_where(slot, |entry| entry.mail.is_some(), actions);
        }
    }

    /// Drops firings of timers that were set again, or cancelled, since they were read: as they are set now
    /// they are in their table.
    pub(super) fn outlive(&mut self, slot: Slot, timers: &[String], actions: &mut Vec<Action>) {
        let is_outlived = |entry: &Entry| is_timer(entry, |name| timers.iter().any(|timer| timer == name));
        if self.backlog.holds(slot).is_some() {
            self.drop_where(slot, is_outlived, actions);
        }
    }

    /// Drops messages of a queue, but none that is being committed.
    fn drop_where(&mut self, slot: Slot, is_meant: impl Fn(&Entry) -> bool, actions: &mut Vec<Action>) {
        let queue = self.backlog.queue(slot);
        let is_dropped = |entry: &Entry| entry.state != State::Committing && is_meant(entry);
        let dropped: Vec<Number> = queue.filter(|(_, entry)| is_dropped(entry)).map(|(number, _)| number).collect();
        for number in dropped {
            self.finish(number, None, actions);
        }
    }
}
