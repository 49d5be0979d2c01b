//! What a lane does when the partition count changes: keys whose home is elsewhere are let go, then that is
//! put on record.
//!
//! In this order (I5): the actors of moved keys stop, and nothing for them is accepted any more; *then* the
//! acknowledgement is committed, with the outbox head up to which events of theirs may still be published
//! from here. A home that is new serves only once all earlier ones have done so (see
//! [`holdfast_core::growth`]); what came for it before that is held, in order. Deliberately absent: when a
//! count is put in force.

#[cfg(test)]
mod model;

use std::time::Duration;

use holdfast_core::{
    AggregateId, PartitionId,
    epoch::{Generation, PartitionRow},
    growth::Growth,
    port::store::StoreError,
};

use super::{
    Action, Machine, Owned, Report,
    message::{Number, State},
};
use crate::{Ask, Now, Rules, ownership::Loss};

/// Each acknowledgement takes a connection for a round trip, of the few that are not for commits or reads.
const ACKNOWLEDGED_AT_ONCE: usize = 2;
/// How late actors are stopped where the rule about that is left out.
const TOO_LATE: Duration = Duration::from_secs(5);

/// A generation that is being acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Move {
    ask: Ask,
    generation: Generation,
    count: u32,
    /// Whom the partition has let go, if they are stopped too late.
    late: Vec<AggregateId>,
}

/// Whether the keys at home in `partition` are served under `generation`: [`Growth::serves`], but for rules
/// that are left out.
pub fn serves(rules: Rules, growth: &Growth, partition: PartitionId, generation: Generation) -> bool {
    if !rules.waits_for_acknowledgement {
        return true;
    }
    if !rules.waits_for_all_earlier_homes {
        let mut parents = growth.clone();
        parents.generations = parents.generations.into_iter().rev().take(2).collect();
        return parents.serves(partition, generation);
    }
    growth.serves(partition, generation)
}

impl Owned {
    /// Whether nothing of it is taken into a batch: it is behind the generation in force, or a commit was
    /// refused for its generation.
    pub fn is_paused(&self, current: Generation) -> bool {
        self.generation < current || self.moving.is_some() || self.outdated_until.is_some()
    }
}

impl Machine {
    /// Brings partitions to the generation in force, and opens those that need wait no longer.
    pub(super) fn follow_counts(&mut self, now: Now, actions: &mut Vec<Action>) {
        let (current, _) = self.growth.current();
        let mut is_waiting = false;
        for owned in self.partitions.values_mut() {
            let is_news = |until: &mut Duration| current > owned.generation || *until <= now.awake;
            self.is_late_due |= owned.outdated_until.take_if(is_news).is_some();
            is_waiting |= owned.outdated_until.is_some();
        }
        let behind: Vec<PartitionId> =
            self.partitions.iter().filter(|(_, owned)| owned.generation < current).map(|(p, _)| *p).collect();
        for partition in behind {
            let under_way = self.partitions.values().filter(|owned| owned.moving.is_some()).count();
            let is_busy = self.is_committing(partition)
                || self.batch.as_ref().is_some_and(|batch| batch.is_deciding() && batch.is_with(partition));
            if !is_busy && under_way < ACKNOWLEDGED_AT_ONCE && self.partitions[&partition].moving.is_none() {
                self.let_go(partition, actions);
            }
        }
        let (rules, growth) = (self.settings.rules, self.growth.clone());
        let mut opened = Vec::new();
        for (partition, owned) in self.partitions.iter_mut().filter(|(_, owned)| !owned.is_serving) {
            if owned.moving.is_none() && serves(rules, &growth, *partition, owned.generation) {
                owned.is_serving = true;
                opened.push(*partition);
                actions.push(Action::Serve { partition: *partition, is_serving: true });
                actions.push(Action::Home { partition: *partition, count: owned.count, serves: true });
            } else {
                is_waiting = true;
            }
        }
        for partition in opened {
            self.spoil(partition);
        }
        self.wake_held();
        if is_waiting {
            actions.push(Action::HurryCounts);
        }
    }

    /// What was looked up of a partition before its homes changed says nothing any more: the next batch looks
    /// it up again.
    fn spoil(&mut self, partition: PartitionId) {
        if let Some(batch) = &mut self.batch {
            batch.stale.extend(self.backlog.slots_of(partition));
        }
    }

    /// What was held is ready once its partition is not paused any more, and records once it serves.
    fn wake_held(&mut self) {
        let current = self.growth.current().0;
        let partitions = &self.partitions;
        let may_go_on = |(partition, is_record): &(PartitionId, bool)| {
            partitions.get(partition).is_none_or(|owned| !owned.is_paused(current) && (owned.is_serving || !is_record))
        };
        let woken: Vec<Number> = self.held.extract_if(.., |of, _| may_go_on(of)).flat_map(|(_, held)| held).collect();
        self.backlog.set_all(&woken, State::Ready);
    }

    /// Holds a message until its partition is not paused, and a record until it serves besides.
    pub(super) fn hold(&mut self, number: Number) {
        if let Some(entry) = self.backlog.get(number) {
            self.held.entry((entry.partition, entry.place.is_some())).or_default().insert(number);
        }
    }

    /// Stops the actors of keys whose home is elsewhere now, and acknowledges. From here on nothing for them
    /// is accepted.
    fn let_go(&mut self, partition: PartitionId, actions: &mut Vec<Action>) {
        let (generation, count) = self.growth.current();
        let mut moved = Vec::new();
        for slot in self.backlog.slots_of(partition) {
            let aggregate = self.backlog.aggregate(slot);
            let (hash, id) = (aggregate.hash, aggregate.id.clone());
            if hash.home(count) != partition && self.backlog.forget(slot) {
                moved.push(id);
            }
        }
        let Some(owned) = self.partitions.get_mut(&partition) else { return };
        let before = std::mem::replace(&mut owned.count, count);
        let is_sound = self.settings.rules.passivates_before_acknowledging;
        let (stopped, late) = if is_sound { (moved, Vec::new()) } else { (Vec::new(), moved) };
        if !stopped.is_empty() {
            actions.push(Action::Passivate { partition, aggregates: stopped });
        }
        // A key that is at home here as before goes on being served; one that is new here must wait.
        if partition.0 >= before || count % before.max(1) != 0 {
            owned.is_serving = false;
            actions.push(Action::Serve { partition, is_serving: false });
        }
        let ask = self.asks.next();
        let token = owned.token;
        owned.moving = Some(Move { ask, generation, count, late });
        self.spoil(partition);
        actions.push(Action::Acknowledge { ask, partition, token, generation, count });
    }

    /// Takes in how an acknowledgement ended.
    pub(super) fn acknowledged(
        &mut self,
        of: Ask,
        row: Result<Option<PartitionRow>, StoreError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let is_of = |owned: &Owned| owned.moving.as_ref().is_some_and(|moving| moving.ask == of);
        let Some((partition, owned)) = self.partitions.iter_mut().find(|(_, owned)| is_of(owned)) else { return };
        let partition = *partition;
        match (row, owned.moving.take()) {
            (Ok(Some(row)), Some(Move { generation, count, late, .. })) => {
                owned.generation = generation;
                owned.outbox_head = row.outbox_head;
                let (token, head, serves) = (owned.token, row.outbox_head, owned.is_serving);
                actions.push(Action::Reload { partition, token, head });
                actions.push(Action::Home { partition, count, serves });
                actions.push(Action::Report(Report::Acknowledged(partition, generation, count)));
                if !late.is_empty() {
                    self.lingering.push((now.awake + TOO_LATE, partition, late));
                }
                (self.moved, self.is_late_due) = (self.moved + 1, true);
            }
            // Fenced, or another generation follows at once; and after a lost answer the row is not what it
            // is thought to be. The next owner, most likely this node, begins with an acknowledgement.
            (Ok(_), _) => self.lose(partition, Loss::Fenced, actions),
            (Err(error), _) => {
                actions.push(Action::Report(Report::NotAcknowledged(partition, error)));
                self.lose(partition, Loss::AcknowledgementFailed, actions);
            }
        }
    }
}
