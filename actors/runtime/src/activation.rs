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

use holdfast_machine::lane::{Claims, Failure};

use crate::ids::IdMap;

/// What is stored of an aggregate.
pub(crate) struct Row {
    /// Its state, or what keeps it from being used.
    pub state: Result<Option<StateRow>, Failure>,
    /// How many messages wait in its mailbox.
    pub waiting: u64,
    pub claims: Claims,
}

/// Aggregates by id.
pub(crate) type Cold = IdMap<AggregateId, Row>;

/// What the store knew when the batch was gathered.
#[derive(Default)]
pub(crate) struct Known {
    /// Aggregates whose rows were asked for.
    pub cold: Cold,
    pub claims: IdMap<ClaimKey, Result<Claim, Failure>>,
}

impl Known {
    fn add(&mut self, wanted: Vec<Wanted>, found: Vec<Found>) -> Result<(), StoreError> {
        let is_answered = |(wanted, found): (&Wanted, &Found)| wanted.claims.len() == found.claims.len();
        if found.len() != wanted.len() || !wanted.iter().zip(&found).all(is_answered) {
            return Err(StoreError::Broken("a look-up answered for another number of things than was asked".into()));
        }
        for (wanted, Found { state, ring, waiting, has_spilled, claims }) in wanted.into_iter().zip(found) {
            if wanted.state {
                let state = state.map_err(|row| Failure::Unreadable(row.to_string()));
                self.cold.insert(wanted.id, Row { state, waiting, claims: Claims { ring, has_spilled } });
            }
            for (key, claim) in wanted.claims.into_iter().zip(claims) {
                if let Some(claim) = claim.map_err(|row| Failure::Unreadable(row.to_string())).transpose() {
                    self.claims.insert(key, claim);
                }
            }
        }
        Ok(())
    }

    /// `wanted` is what the store refuses.
    fn refuse(&mut self, wanted: Wanted, error: &StoreError) {
        let failure = || Failure::Refused(error.to_string());
        self.cold.insert(wanted.id, Row { state: Err(failure()), waiting: 0, claims: Claims::default() });
        self.claims.extend(wanted.claims.into_iter().map(|key| (key, Err(failure()))));
    }
}

/// Asks the store, in one question unless it refuses a value.
pub(crate) async fn find(store: Arc<dyn Store>, wanted: Vec<Wanted>) -> Result<Known, StoreError> {
    let mut known = Known::default();
    let mut questions = vec![wanted];
    while let Some(question) = questions.pop() {
        if question.is_empty() {
            continue;
        }
        match store.find(&question).await {
            Ok(found) => known.add(question, found)?,
            Err(error @ StoreError::Data { .. }) => match <[Wanted; 1]>::try_from(question) {
                Ok([alone]) => {
                    tracing::warn!(%error, "the store refused a key; what asks for it fails alone");
                    known.refuse(alone, &error);
                }
                Err(mut question) => {
                    let half = question.split_off(question.len() / 2);
                    questions.extend([half, question]);
                }
            },
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}
