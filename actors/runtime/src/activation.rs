//! One look-up per batch: states of aggregates that aren't in memory, and claims.

use std::collections::{HashMap, HashSet};

use holdfast_core::{
    AggregateId,
    dedup::{Claim, ClaimKey},
    port::store::{Found, StateRow, Store, StoreError, Wanted},
};

use crate::{
    passivation::Directory,
    work::{Input, Item, Origin, Work},
};

/// What the store knew when the batch was gathered.
#[derive(Default)]
pub(crate) struct Known {
    /// Aggregates that were not in memory then.
    pub cold: HashMap<AggregateId, (Option<StateRow>, u64)>,
    pub claims: HashMap<ClaimKey, Claim>,
}

impl Known {
    /// How many messages wait in the mailbox of the item's aggregate, by `live` if it is live. What comes from a log goes by the store if that
    /// knows of more: while counts grow, others may have put mail there for an aggregate that is live here.
    pub fn waiting(&self, item: &Item, live: &Directory) -> u64 {
        let stored = || self.stored_waiting(&item.aggregate);
        match live.waiting(&item.aggregate) {
            Some(waiting) if matches!(item.origin, Origin::Log { .. }) => waiting.max(stored()),
            Some(waiting) => waiting,
            None => stored(),
        }
    }

    /// How many the store knows of; none for an aggregate that it was not asked about.
    pub fn stored_waiting(&self, aggregate: &AggregateId) -> u64 {
        self.cold.get(aggregate).map_or(0, |(_, waiting)| *waiting)
    }
}

/// Asks the store, in one round trip, for whatever `batch` needs beyond what `is_live`.
pub(crate) async fn look_up(
    store: &dyn Store,
    batch: &[Input],
    is_live: impl Fn(&Input, &AggregateId) -> bool,
) -> Result<Known, StoreError> {
    let mut seen = HashSet::new();
    let mut wanted = Wanted::default();
    for input in batch {
        let aggregate = match &input.work {
            Work::Item(item) => {
                wanted.claims.extend(item.claim_key());
                &item.aggregate
            }
            Work::Activate { aggregate, .. } => aggregate,
            Work::Refused(_) | Work::Ignored { .. } => continue,
        };
        if !is_live(input, aggregate) && seen.insert(aggregate) {
            wanted.aggregates.push(aggregate.clone());
        }
    }
    if wanted == Wanted::default() {
        return Ok(Known::default());
    }
    let Found { aggregates, claims } = store.find(&wanted).await?;
    if aggregates.len() != wanted.aggregates.len() || claims.len() != wanted.claims.len() {
        return Err(StoreError::Broken("a look-up answered for another number of things than was asked".into()));
    }
    Ok(Known {
        cold: wanted.aggregates.into_iter().zip(aggregates).collect(),
        claims: claims.into_iter().flatten().map(|claim| (claim.key, claim)).collect(),
    })
}
