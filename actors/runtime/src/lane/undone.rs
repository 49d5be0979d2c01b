//! What becomes of work whose commit did not happen, or may have.
//!
//! It goes round again in its old order, before anything that came later (I3), and is never executed blindly: what was committed after all
//! shows as consumed, as a claim or as an event sequence (I2).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use holdfast_core::{
    PartitionId,
    disposition::{DeadLetterReason, Refused},
    epoch::PartitionRow,
};

use holdfast_machine::ownership::Loss;

use super::{InFlight, Lane, asking::mail_of};
use crate::{
    commit::Reloaded,
    partition::PartitionMessage,
    plan::Plan,
    relay::RelayMessage,
    router::RouteError,
    work::{Failure, Input, RefusedRecord, UnfiledRecord, Work},
};

/// Why a batch was refused.
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

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(error) | Self::Slow(error) => f.write_str(error),
        }
    }
}

impl Lane {
    /// The store refused the batch, for some row's data or for the time it took: it is cut in halves until the culprit stands alone.
    pub(super) fn bisect(&mut self, in_flight: InFlight, refusal: &Refusal) {
        let InFlight { plan, .. } = in_flight;
        self.advance_unchanged(&plan, |_| true);
        let mut work = plan.work;
        if work.len() > 1 {
            // What stands behind other mail may not pass it in a part of its own. It is in its table still, and comes again in its turn.
            let mut heads = HashSet::new();
            work.retain(|input| mail_of(input).is_none_or(|aggregate| heads.insert(aggregate.clone())));
            let half = work.split_off(work.len() / 2);
            return self.redo([work, half]);
        }
        if let Some(input) = work.pop()
            && let Some(input) = self.refused_alone(input, refusal)
        {
            self.redo([vec![input]]);
        }
    }

    /// What becomes of a message whose commit was refused though it stood alone. Each step writes less that could be refused, and none is taken
    /// twice, so that nothing goes round for ever: the message fails as if its handler had; then its record alone becomes a dead letter of no
    /// aggregate; then it is kept as raw bytes, where no column refuses anything.
    ///
    /// One that took too long goes to the mailbox, to be tried again less and less often, and that is never counted against it. If the store does not
    /// take that either it is the store that is slow, and the commit is held as in an outage ([`crate::commit`]).
    fn refused_alone(&mut self, input: Input, refusal: &Refusal) -> Option<Input> {
        let Input { partition, term, work } = input;
        let work = match (work, refusal) {
            (Work::Item(item), refusal) if item.failure.set(refusal.failure()).is_ok() => Work::Item(item),
            (Work::Item(item), Refusal::Data(error)) => {
                let error = format!("the store refused its data: {error}");
                let refused = Refused { reason: DeadLetterReason::Poison, error, field: None };
                let Some(refused) = item.refused(refused) else {
                    tracing::error!(aggregate = %item.aggregate, error = %refusal, "what follows from a failed message was refused; it is left as it is");
                    item.answer(Err(RouteError::Failed));
                    return None;
                };
                Work::Refused(Box::new(refused))
            }
            (Work::Refused(refused), Refusal::Data(error)) => {
                let RefusedRecord { record, refused, mail, .. } = *refused;
                let error = format!("{}; its dead letter was refused: {error}", refused.error);
                Work::Unfiled(Box::new(UnfiledRecord { record, error, mail }))
            }
            (work @ (Work::Item(_) | Work::Refused(_)), Refusal::Slow(_)) => work,
            (Work::Unfiled(_) | Work::Ignored { .. } | Work::Activate { .. }, _) => {
                tracing::error!(context = self.env.context.name(), partition = partition.0, error = %refusal,
                    "the store refused to consume an offset, whatever was written with it; the partition is given up");
                self.lose(partition, Loss::Refused);
                return None;
            }
        };
        Some(Input { partition, term, work })
    }

    /// Notes work that a commit left undone; [`Self::reorder`] puts it where it belongs.
    pub(super) fn redo(&mut self, parts: impl IntoIterator<Item = Vec<Input>>) {
        self.undone.extend(parts);
        self.is_disturbed = true;
    }

    /// If a commit left work undone: that comes first, then what its batch had left over, then `batch`, which was gathered after it, then
    /// the parts that were waiting already.
    pub(super) fn reorder(&mut self, batch: &mut Vec<Input>) -> bool {
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

    /// The generation of some of its partitions has changed: their part of the plan did not happen, nothing of them is lost, and it goes round
    /// again under the new one.
    pub(super) fn redo_outdated(&mut self, plan: &mut Plan, outdated: &BTreeSet<PartitionId>) {
        if outdated.is_empty() {
            return;
        }
        self.advance_unchanged(plan, |partition| outdated.contains(&partition));
        plan.answers.retain(|(partition, ..)| !outdated.contains(partition));
        let again = plan.work.extract_if(.., |input| outdated.contains(&input.partition)).collect();
        self.redo([again]);
        self.is_outdated = true;
    }

    /// Tells actors that their delivery did not happen.
    fn advance_unchanged(&mut self, plan: &Plan, is_undone: impl Fn(PartitionId) -> bool) {
        let mut snapshots: BTreeMap<PartitionId, Vec<_>> = BTreeMap::new();
        for settle in plan.settles.iter().filter(|settle| is_undone(settle.partition)) {
            snapshots.entry(settle.partition).or_default().push((settle.aggregate.clone(), None));
        }
        for (partition, snapshots) in snapshots {
            if let Some(owned) = self.owned.get(&partition).filter(|owned| plan.is_of(owned)) {
                let _ = owned.supervisor.send_message(PartitionMessage::Settle { snapshots });
            }
        }
    }

    /// The commit may have happened or not. Actors and counters are read again from the store, and the work goes round again: what
    /// was committed shows as consumed, as a claim or as an event sequence.
    pub(super) fn reloaded(&mut self, in_flight: InFlight, reloaded: Reloaded) {
        let Reloaded { rows, is_known, is_split } = reloaded;
        let cause = if is_known { Loss::Fenced } else { Loss::OutcomeUnknown };
        let rows: HashMap<PartitionId, PartitionRow> = rows.into_iter().map(|row| (row.partition, row)).collect();
        for fence in &in_flight.batch.fences {
            let Some(row) = rows.get(&fence.partition) else {
                self.lose_if(&in_flight.plan, fence.partition, cause);
                continue;
            };
            let owned = self.owned.get_mut(&fence.partition).filter(|owned| in_flight.plan.is_of(owned));
            let Some(owned) = owned else { continue };
            let token = row.token.unwrap_or(owned.token);
            (owned.token, owned.batch, owned.outbox_head) = (token, row.batch, row.outbox_head);
            owned.remembered.store(row.batch, std::sync::atomic::Ordering::Release);
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
                // Mail, timers and effects come again from their tables; calls go round and meet their claim.
                return matches!(&input.work, Work::Item(item) if item.wants_reply());
            };
            let consumed = row.next_offset(topic).is_some_and(|next| offset < next);
            if consumed
                && let Some(owned) = self.owned.get_mut(&input.partition).filter(|owned| owned.term == input.term)
                && let Some(mark) = owned.marks.get_mut(topic)
            {
                mark.done(offset);
            }
            !consumed
        });
        let mut undone: Vec<Input> = undone.collect();
        // It may have been too large to be answered in time.
        let half = if is_split { undone.split_off(undone.len() / 2) } else { Vec::new() };
        self.redo([undone, half]);
    }
}
