//! Whose an order is: a bounded memory of hints.
//!
//! Invariant: what an order's state says replaces what a command says, never the other way round. A hint
//! proves nothing: a command may name a customer and be rejected, so the decision compares the hint with the
//! order's own customer. Deliberately absent: a look-up of what was forgotten.
//!
//! Its hasher, foldhash, does not claim to resist attackers; accepted, since keys are UUIDs and the halves
//! are bounded.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use foldhash::fast::RandomState;
use uuid::Uuid;

/// Orders in each of the two halves of the memory: as many as a node keeps in memory by default, so that what
/// is live is remembered.
const HALF_MAX: usize = 50_000;

/// The customers of the orders that were seen last.
#[derive(Default)]
pub(super) struct Holders(Mutex<Halves>);

/// When the younger half is full, the older one is forgotten.
#[derive(Default)]
struct Halves {
    younger: HashMap<Uuid, Uuid, RandomState>,
    older: HashMap<Uuid, Uuid, RandomState>,
}

impl Holders {
    /// The order's state says so.
    pub fn belongs(&self, order: Uuid, customer: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(order, customer);
    }

    /// A command to create the order says so.
    pub fn may_belong(&self, order: Uuid, customer: Uuid) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if halves.get(order).is_none() {
            halves.insert(order, customer);
        }
    }

    /// Whose the order seems to be.
    pub fn of(&self, order: Uuid) -> Option<Uuid> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(order)
    }
}

impl Halves {
    fn get(&self, order: Uuid) -> Option<Uuid> {
        self.younger.get(&order).or_else(|| self.older.get(&order)).copied()
    }

    fn insert(&mut self, order: Uuid, customer: Uuid) {
        if self.younger.len() >= HALF_MAX {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(order, customer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_believed_before_a_command() {
        let [order, jane, joan] = [1, 2, 3].map(Uuid::from_u128);
        let holders = Holders::default();
        assert_eq!(holders.of(order), None);
        holders.may_belong(order, joan);
        holders.belongs(order, jane);
        holders.may_belong(order, joan);
        assert_eq!(holders.of(order), Some(jane));
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_youngest() {
        let holders = Holders::default();
        let count = 5 * HALF_MAX / 2;
        (0..count).for_each(|n| holders.belongs(Uuid::from_u128(n as u128), Uuid::nil()));
        let halves = holders.0.lock().unwrap();
        assert!(halves.younger.len() + halves.older.len() <= 2 * HALF_MAX);
        assert!((count - HALF_MAX..count).all(|n| halves.get(Uuid::from_u128(n as u128)).is_some()));
    }
}
