//! What becomes of work whose commit did not happen, or may have.
//!
//! It goes round again in its old order, before anything that came later (I3), and is never executed blindly: what was committed after all
//! shows as consumed, as a claim or as an event sequence (I2).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_core::{PartitionId, epoch::PartitionRow};

use super::{InFlight, Lane};
use crate::{
    partition::PartitionMessage,
    plan::Plan,
    relay::RelayMessage,
    work::{Failure, Input, Work},
};

impl Lane {
    /// The store refused some row: the batch is cut in halves until the culprit stands alone, which then counts as failed.
    pub(super) fn bisect(&mut self, in_flight: InFlight, error: &str) {
        let InFlight { plan, .. } = in_flight;
        self.advance_unchanged(&plan, |_| true);
        let mut work = plan.work;
        if let [input] = work.as_slice() {
            if let Work::Item(item) = &input.work {
                let _ = item.failure.set(Failure::Handler(format!("the store refused its data: {error}")));
            }
            return self.redo([work]);
        }
        let half = work.split_off(work.len() / 2);
        self.redo([work, half]);
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
    pub(super) fn reloaded(&mut self, in_flight: InFlight, rows: Vec<PartitionRow>) {
        let rows: HashMap<PartitionId, PartitionRow> = rows.into_iter().map(|row| (row.partition, row)).collect();
        for fence in &in_flight.batch.fences {
            let Some(row) = rows.get(&fence.partition) else {
                self.lose_if(&in_flight.plan, fence.partition);
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
        let undone: Vec<Input> = undone.collect();
        self.redo([undone]);
    }
}
