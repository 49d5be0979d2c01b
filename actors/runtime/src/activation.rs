//! One look-up per batch: states of aggregates that aren't in memory, and claims.
//!
//! Upholds I6: a question that the store refuses for a value in it is split until that value stands alone, and a row that can't be read is told
//! in its own place. So a look-up fails whole only where the store itself is away or broken. Deliberately absent: waiting and trying again,
//! which is the lane's.

use std::sync::Arc;

use holdfast_core::{
    AggregateId,
    dedup::{Claim, ClaimKey},
    port::store::{Found, StateRow, Store, StoreError, Wanted},
};

use crate::{
    ids::{IdMap, IdSet},
    passivation::Directory,
    work::{Failure, Input, Item, Origin, Work},
};

/// A stored state, or what keeps it from being used; and how many messages wait in the mailbox.
type Cold = (Result<Option<StateRow>, Failure>, u64);

/// What the store knew when the batch was gathered.
#[derive(Default)]
pub(crate) struct Known {
    /// Aggregates that were not in memory then.
    pub cold: IdMap<AggregateId, Cold>,
    pub claims: IdMap<ClaimKey, Result<Claim, Failure>>,
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

    /// What keeps the stored state of `aggregate` from being used, if anything does.
    pub fn unusable(&self, aggregate: &AggregateId) -> Option<&Failure> {
        self.cold.get(aggregate).and_then(|(state, _)| state.as_ref().err())
    }

    fn add(&mut self, wanted: Wanted, found: Found) -> Result<(), StoreError> {
        let Found { aggregates, claims } = found;
        if aggregates.len() != wanted.aggregates.len() || claims.len() != wanted.claims.len() {
            return Err(StoreError::Broken("a look-up answered for another number of things than was asked".into()));
        }
        for (id, (state, waiting)) in wanted.aggregates.into_iter().zip(aggregates) {
            self.cold.insert(id, (state.map_err(|row| Failure::Unreadable(row.to_string())), waiting));
        }
        for (key, claim) in wanted.claims.into_iter().zip(claims) {
            if let Some(claim) = claim.map_err(|row| Failure::Unreadable(row.to_string())).transpose() {
                self.claims.insert(key, claim);
            }
        }
        Ok(())
    }

    /// The one value of `wanted` is what the store refuses.
    fn refuse(&mut self, wanted: Wanted, error: &StoreError) {
        let failure = || Failure::Refused(error.to_string());
        self.cold.extend(wanted.aggregates.into_iter().map(|id| (id, (Err(failure()), 0))));
        self.claims.extend(wanted.claims.into_iter().map(|key| (key, Err(failure()))));
    }
}

/// What `batch` needs of the store beyond what `is_live`.
pub(crate) fn wanted(batch: &[Input], is_live: impl Fn(&Input, &AggregateId) -> bool) -> Wanted {
    let mut seen = IdSet::default();
    let mut wanted = Wanted::default();
    for input in batch {
        let aggregate = match &input.work {
            Work::Item(item) => {
                wanted.claims.extend(item.claim_key());
                &item.aggregate
            }
            Work::Activate { aggregate, .. } => aggregate,
            Work::Refused(_) | Work::Unfiled(_) | Work::Ignored { .. } => continue,
        };
        if !is_live(input, aggregate) && seen.insert(aggregate) {
            wanted.aggregates.push(aggregate.clone());
        }
    }
    wanted
}

/// Asks the store, in one round trip unless it refuses a value.
pub(crate) async fn find(store: Arc<dyn Store>, wanted: Wanted) -> Result<Known, StoreError> {
    let mut known = Known::default();
    let mut questions = vec![wanted];
    while let Some(mut question) = questions.pop() {
        if question == Wanted::default() {
            continue;
        }
        match store.find(&question).await {
            Ok(found) => known.add(question, found)?,
            Err(error @ StoreError::Data { .. }) => {
                if question.aggregates.len() + question.claims.len() == 1 {
                    tracing::warn!(%error, "the store refused a key; what asks for it fails alone");
                    known.refuse(question, &error);
                    continue;
                }
                let half = Wanted {
                    aggregates: question.aggregates.split_off(question.aggregates.len() / 2),
                    claims: question.claims.split_off(question.claims.len().div_ceil(2)),
                };
                questions.extend([question, half]);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}
