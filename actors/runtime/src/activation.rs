//! One look-up per batch: states of aggregates that aren't in memory, and claims.
//!
//! Upholds I6: a question that the store refuses for a value in it is split until that value stands alone,
//! and a row that can't be read is an error in its own place. So a look-up fails whole only where the store
//! itself is away or broken. Deliberately absent: waiting and trying again, which is the lane's.

use std::sync::Arc;

use holdfast_core::{
    AggregateId,
    dedup::{Claim, ClaimKey},
    port::store::{Found, StateRow, Store, StoreError, Wanted},
};

use holdfast_machine::lane::Failure;

use crate::ids::IdMap;

/// Stored states, or what keeps them from being used; and how many messages wait in the mailboxes.
pub(crate) type Cold = IdMap<AggregateId, (Result<Option<StateRow>, Failure>, u64)>;

/// What the store knew when the batch was gathered.
#[derive(Default)]
pub(crate) struct Known {
    /// Aggregates that were asked for.
    pub cold: Cold,
    pub claims: IdMap<ClaimKey, Result<Claim, Failure>>,
}

impl Known {
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
