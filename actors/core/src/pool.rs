//! Shared quantities: amounts that many aggregates draw on, such as the stock of a sku.
//!
//! A pool is a row, not an actor, so one hot pool does not serialise the aggregates that want it. The rule
//! that upholds I2 here: `0 <= held <= total` after every change, and a set of changes is granted whole or
//! not at all. Deliberately absent: locking (the store's business) and what the quantity means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One shared quantity. `total - held` is what is still available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All there is.
    pub total: i64,
    /// The part of it that is spoken for.
    pub held: i64,
}

impl Pool {
    /// What can still be held.
    pub const fn available(self) -> i64 {
        self.total - self.held
    }

    /// This pool after `change`, or `None` if that would break `0 <= held <= total` or overflow.
    pub fn after(self, change: &PoolChange) -> Option<Self> {
        let total = self.total.checked_add(change.total)?;
        let held = self.held.checked_add(change.held)?;
        (0 <= held && held <= total).then_some(Self { total, held })
    }
}

/// A wanted change of one pool, as differences. A pool that does not exist counts as empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolChange {
    /// The pool's name.
    pub pool: String,
    /// Added to `total`.
    pub total: i64,
    /// Added to `held`.
    pub held: i64,
}

impl PoolChange {
    /// Adds `by` (which may be negative) to what there is.
    pub fn supply(pool: impl Into<String>, by: i64) -> Self {
        Self { pool: pool.into(), total: by, held: 0 }
    }

    /// Holds `by` of what is available; negative gives it back.
    pub fn hold(pool: impl Into<String>, by: i64) -> Self {
        Self { pool: pool.into(), total: 0, held: by }
    }
}

/// Grants `wants` on `pools`: applies all changes in order and returns `true`, or leaves `pools` as they were
/// and returns `false`.
pub fn grant(pools: &mut BTreeMap<String, Pool>, wants: &[PoolChange]) -> bool {
    let mut changed: Vec<(&str, Pool)> = Vec::with_capacity(wants.len());
    for want in wants {
        let known = changed.iter().rev().find(|(name, _)| *name == want.pool).map(|(_, pool)| *pool);
        let before = known.unwrap_or_else(|| pools.get(&want.pool).copied().unwrap_or_default());
        match before.after(want) {
            Some(pool) => changed.push((&want.pool, pool)),
            None => return false,
        }
    }
    for (name, pool) in changed {
        pools.insert(name.to_owned(), pool);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refused_set_leaves_every_pool_as_it_was() {
        let mut pools = BTreeMap::from([("a".to_owned(), Pool { total: 5, held: 0 })]);
        let before = pools.clone();
        assert!(!grant(&mut pools, &[PoolChange::hold("a", 5), PoolChange::hold("b", 1)]));
        assert_eq!(pools, before);
        assert!(
            !grant(&mut pools, &[PoolChange::hold("a", 3), PoolChange::hold("a", 3)]),
            "the same pool twice adds up"
        );
        assert_eq!(pools, before);
    }

    proptest! {
        #[test]
        fn held_never_leaves_its_bounds(changes in proptest::collection::vec((0..3_u8, -20..20_i64, -20..20_i64), 0..200)) {
            let mut pools = BTreeMap::new();
            for (name, total, held) in changes {
                grant(&mut pools, &[PoolChange { pool: name.to_string(), total, held }]);
                for pool in pools.values() {
                    prop_assert!(0 <= pool.held && pool.held <= pool.total);
                }
            }
        }
    }
}
