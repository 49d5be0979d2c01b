//! Which aggregates of a lane have an actor in memory, with their claims, and which of them to let go.
//!
//! The machine keeps this list, the supervisors keep the actors; an actor is let go only when nothing of it
//! is in the backlog (I11).

use std::{collections::VecDeque, time::Duration};

use holdfast_core::ring::Ring;

use super::message::Slot;

/// Uses in the queue that are no actor's last one, at most, beside one for each actor.
const OUTDATED_MAX: usize = 1024;

/// What is known of the claims of an aggregate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The last ones.
    pub ring: Ring,
    /// Whether there may be others, in the tables of the store.
    pub has_spilled: bool,
}

/// One actor in memory.
#[derive(Clone, Debug)]
struct Actor {
    /// The number of this use of its place, from 1.
    use_number: u64,
    /// The number of its last use.
    used: u64,
    at: Duration,
    /// Messages in its durable mailbox.
    waiting: u64,
    /// [`Growth::ended_steps`](holdfast_core::growth::Growth::ended_steps) when the store was asked for that.
    as_of: usize,
    claims: Claims,
}

/// The actors in memory, by the slot of their aggregate.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// By place.
    actors: Vec<Option<Actor>>,
    len: usize,
    /// Uses in order, the last one of each actor among them.
    uses: VecDeque<(u64, Slot)>,
    clock: u64,
}

impl Live {
    pub const fn len(&self) -> usize {
        self.len
    }

    fn get(&self, slot: Slot) -> Option<&Actor> {
        self.actors.get(slot.at)?.as_ref().filter(|actor| actor.use_number == slot.use_number)
    }

    fn get_mut(&mut self, slot: Slot) -> Option<&mut Actor> {
        self.actors.get_mut(slot.at)?.as_mut().filter(|actor| actor.use_number == slot.use_number)
    }

    pub fn contains(&self, slot: Slot) -> bool {
        self.get(slot).is_some()
    }

    /// Notes a use. A new actor comes with its number of waiting messages and its claims, and the number of
    /// steps of growth that had ended when the store was asked for them.
    pub fn touch(&mut self, slot: Slot, at: Duration, as_of: usize, stored: impl FnOnce() -> (u64, Claims)) {
        self.clock += 1;
        let (used, use_number) = (self.clock, slot.use_number);
        if self.actors.len() <= slot.at {
            self.actors.resize(slot.at + 1, None);
        }
        match &mut self.actors[slot.at] {
            Some(actor) => {
                debug_assert_eq!(actor.use_number, use_number, "a place with an actor is not given away");
                (actor.used, actor.at) = (used, at);
            }
            none => {
                let (waiting, claims) = stored();
                *none = Some(Actor { use_number, used, at, waiting, as_of, claims });
                self.len += 1;
            }
        }
        self.uses.push_back((used, slot));
        if self.uses.len() > 2 * self.len + OUTDATED_MAX {
            let mut uses = std::mem::take(&mut self.uses);
            uses.retain(|(used, slot)| self.get(*slot).is_some_and(|actor| actor.used == *used));
            self.uses = uses;
        }
    }

    pub fn waiting(&self, slot: Slot) -> Option<u64> {
        self.get(slot).map(|actor| actor.waiting)
    }

    pub fn claims(&self, slot: Slot) -> Option<&Claims> {
        self.get(slot).map(|actor| &actor.claims)
    }

    pub fn set_claims(&mut self, slot: Slot, claims: Claims) {
        if let Some(actor) = self.get_mut(slot) {
            actor.claims = claims;
        }
    }

    pub fn set_waiting(&mut self, slot: Slot, waiting: u64) {
        if let Some(actor) = self.get_mut(slot) {
            actor.waiting = waiting;
        }
    }

    /// Whether the actor is in memory, and the store was asked for its mail when that number of steps of
    /// growth had ended.
    pub fn knows_mail(&self, slot: Slot, as_of: usize) -> bool {
        self.get(slot).is_some_and(|actor| actor.as_of >= as_of)
    }

    /// The store had no mail of the actor when that number of steps of growth had ended.
    pub fn note_no_mail(&mut self, slot: Slot, as_of: usize) {
        if let Some(actor) = self.get_mut(slot) {
            actor.as_of = actor.as_of.max(as_of);
        }
    }

    /// Removes the actor; returns whether it was in memory.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let is_there = self.contains(slot);
        if is_there {
            self.actors[slot.at] = None;
            self.len -= 1;
        }
        is_there
    }

    /// Takes out what has been idle since before `idle_before`, and the idlest beyond `max`, but nothing that
    /// is busy.
    pub fn passivate(&mut self, idle_before: Duration, max: usize, is_busy: impl Fn(Slot) -> bool) -> Vec<Slot> {
        let (mut gone, mut busy) = (Vec::new(), Vec::new());
        while let Some((used, slot)) = self.uses.pop_front() {
            let Some(actor) = self.get(slot).filter(|actor| actor.used == used) else { continue };
            if actor.at >= idle_before && self.len <= max {
                self.uses.push_front((used, slot));
                break;
            }
            if is_busy(slot) {
                busy.push((used, slot));
            } else {
                self.remove(slot);
                gone.push(slot);
            }
        }
        for of in busy.into_iter().rev() {
            self.uses.push_front(of);
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
            live.touch(slot(n), Duration::from_secs(n as u64), 0, Default::default);
        }
        live.touch(slot(0), Duration::from_secs(9), 0, Default::default);
        let gone = live.passivate(Duration::from_secs(3), 100, |of| of == slot(1));
        assert_eq!(gone, [slot(2)], "0 was used again, 1 is busy, 3 and 4 are not idle");
        let gone = live.passivate(Duration::ZERO, 2, |_| false);
        assert_eq!(gone, [slot(1), slot(3)]);
        assert_eq!(live.len(), 2);
        assert!((0..10_000).all(|_| {
            live.touch(slot(0), Duration::from_secs(10), 0, Default::default);
            live.uses.len() <= 2 * live.len() + OUTDATED_MAX
        }));
        assert_eq!(
            live.passivate(Duration::MAX, 100, |_| false),
            [slot(4), slot(0)],
            "each once, however often it was used"
        );
    }
}
