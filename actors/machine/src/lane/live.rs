//! Which aggregates of a lane have an actor in memory, and which of them to let go.
//!
//! The machine keeps this list, the supervisors keep the actors; an actor is let go only when nothing of it is in the backlog (I11).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::message::Slot;

/// One actor in memory.
#[derive(Clone, Copy, Debug)]
struct Actor {
    used: u64,
    at: Duration,
    /// Messages in its durable mailbox.
    waiting: u64,
}

/// The actors in memory, by the slot of their aggregate.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    actors: BTreeMap<Slot, Actor>,
    /// By last use, the idlest first.
    uses: BTreeMap<u64, Slot>,
    clock: u64,
}

impl Live {
    pub fn len(&self) -> usize {
        self.actors.len()
    }

    pub fn contains(&self, slot: Slot) -> bool {
        self.actors.contains_key(&slot)
    }

    /// Notes a use; a new one comes with its number of waiting messages.
    pub fn touch(&mut self, slot: Slot, at: Duration, waiting: impl FnOnce() -> u64) {
        self.clock += 1;
        let used = self.clock;
        match self.actors.get_mut(&slot) {
            Some(actor) => {
                self.uses.remove(&actor.used);
                (actor.used, actor.at) = (used, at);
            }
            None => _ = self.actors.insert(slot, Actor { used, at, waiting: waiting() }),
        }
        self.uses.insert(used, slot);
    }

    pub fn waiting(&self, slot: Slot) -> Option<u64> {
        self.actors.get(&slot).map(|actor| actor.waiting)
    }

    pub fn set_waiting(&mut self, slot: Slot, waiting: u64) {
        if let Some(actor) = self.actors.get_mut(&slot) {
            actor.waiting = waiting;
        }
    }

    /// Whether there was one.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let actor = self.actors.remove(&slot);
        if let Some(actor) = actor {
            self.uses.remove(&actor.used);
        }
        actor.is_some()
    }

    /// Takes out what has been idle since before `idle_before`, and the idlest beyond `max`, but nothing that is busy.
    pub fn passivate(&mut self, idle_before: Duration, max: usize, is_busy: impl Fn(Slot) -> bool) -> BTreeSet<Slot> {
        let mut gone = BTreeSet::new();
        for slot in self.uses.values() {
            let actor = &self.actors[slot];
            if actor.at >= idle_before && self.actors.len() - gone.len() <= max {
                break;
            }
            if !is_busy(*slot) {
                gone.insert(*slot);
            }
        }
        for slot in &gone {
            self.remove(*slot);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn slot(at: usize) -> Slot {
        Slot { at, use_number: 1 }
    }

    #[test]
    fn idlest_goes_first_and_busy_stays() {
        let mut live = Live::default();
        for n in 0..5 {
            live.touch(slot(n), Duration::from_secs(n as u64), || 0);
        }
        live.touch(slot(0), Duration::from_secs(9), || 0);
        let gone = live.passivate(Duration::from_secs(3), 100, |of| of == slot(1));
        assert_eq!(gone, BTreeSet::from([slot(2)]), "0 was used again, 1 is busy, 3 and 4 are not idle");
        let gone = live.passivate(Duration::ZERO, 2, |_| false);
        assert_eq!(gone, BTreeSet::from([slot(1), slot(3)]));
        assert_eq!(live.len(), 2);
        assert_eq!(live.uses.len(), 2, "a use is kept for each actor, and no more");
    }
}
