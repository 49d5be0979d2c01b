//! Which aggregates of a partition are in memory, and which of them to let go.
//!
//! The lane keeps this list, the supervisor keeps the actors; an actor is let go only when nothing of it is in flight or gathered.

use std::{collections::VecDeque, time::Duration};

use holdfast_core::AggregateId;

use crate::ids::{IdMap, IdSet};

/// Outdated uses that are kept however few the slots, so that a directory of one is not tidied at every second use.
const USES_SPARE: usize = 64;

#[derive(Default)]
pub(crate) struct Directory {
    slots: IdMap<AggregateId, Slot>,
    /// Uses, oldest first; a slot's last use is the one that counts. At most twice as many as slots, and a few: a hot aggregate is used without end
    /// (I11).
    uses: VecDeque<(AggregateId, u64)>,
    clock: u64,
}

struct Slot {
    used: u64,
    at: Duration,
    /// Messages in its durable mailbox.
    waiting: u64,
}

impl Directory {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn contains(&self, id: &AggregateId) -> bool {
        self.slots.contains_key(id)
    }

    /// Notes a use; a new aggregate comes with its number of waiting messages.
    pub fn touch(&mut self, id: &AggregateId, at: Duration, waiting: impl FnOnce() -> u64) {
        self.clock += 1;
        match self.slots.get_mut(id) {
            Some(slot) => (slot.used, slot.at) = (self.clock, at),
            None => {
                self.slots.insert(id.clone(), Slot { used: self.clock, at, waiting: waiting() });
            }
        }
        self.uses.push_back((id.clone(), self.clock));
        if self.uses.len() > 2 * self.slots.len() + USES_SPARE {
            let slots = &self.slots;
            self.uses.retain(|(id, used)| slots.get(id).is_some_and(|slot| slot.used == *used));
        }
    }

    pub fn waiting(&self, id: &AggregateId) -> Option<u64> {
        self.slots.get(id).map(|slot| slot.waiting)
    }

    pub fn set_waiting(&mut self, id: &AggregateId, waiting: u64) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.waiting = waiting;
        }
    }

    pub fn remove(&mut self, id: &AggregateId) {
        self.slots.remove(id);
    }

    /// Takes out all that `is_gone` says of.
    pub fn remove_where(&mut self, is_gone: impl Fn(&AggregateId) -> bool) -> Vec<AggregateId> {
        let gone: Vec<AggregateId> = self.slots.keys().filter(|id| is_gone(id)).cloned().collect();
        for id in &gone {
            self.slots.remove(id);
        }
        gone
    }

    /// Takes out what has been idle since before `idle_before`, and the idlest beyond `max`, but nothing in `busy`.
    pub fn passivate(&mut self, idle_before: Duration, max: usize, busy: &IdSet<&AggregateId>) -> Vec<AggregateId> {
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        while let Some((id, used)) = self.uses.pop_front() {
            let Some(slot) = self.slots.get(&id).filter(|slot| slot.used == used) else { continue };
            if slot.at >= idle_before && self.slots.len() <= max {
                self.uses.push_front((id, used));
                break;
            }
            if busy.contains(&id) {
                kept.push((id, used));
                continue;
            }
            self.slots.remove(&id);
            gone.push(id);
        }
        for entry in kept.into_iter().rev() {
            self.uses.push_front(entry);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> AggregateId {
        AggregateId { kind: "k", key: n.to_string().into() }
    }

    #[test]
    fn hot_aggregate_keeps_directory_small() {
        let mut directory = Directory::default();
        for n in 0..10 {
            directory.touch(&id(n), Duration::from_secs(u64::from(n)), || 0);
        }
        for n in 0..100_000 {
            directory.touch(&id(3), Duration::from_secs(100 + n), || 0);
            assert!(directory.uses.len() <= 2 * 10 + USES_SPARE);
        }
        let gone = directory.passivate(Duration::from_secs(5), 100, &IdSet::default());
        assert_eq!(gone, [id(0), id(1), id(2), id(4)], "the order of the others is kept");
    }

    #[test]
    fn the_idlest_go_first_and_the_busy_stay() {
        let mut directory = Directory::default();
        for n in 0..5 {
            directory.touch(&id(n), Duration::from_secs(u64::from(n)), || 0);
        }
        directory.touch(&id(0), Duration::from_secs(9), || 0);
        let busy = id(1);
        let gone = directory.passivate(Duration::from_secs(3), 100, &IdSet::from_iter([&busy]));
        assert_eq!(gone, [id(2)], "0 was used again, 1 is busy, 3 and 4 are not idle");
        let gone = directory.passivate(Duration::ZERO, 2, &IdSet::default());
        assert_eq!(gone, [id(1), id(3)]);
        assert_eq!(directory.len(), 2);
    }
}
