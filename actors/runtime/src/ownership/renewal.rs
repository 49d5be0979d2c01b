//! Renewing the leases of all that is owned, with one beat and one look at the rows.
//!
//! Upholds I5: a lease counts from before the beat was sent, and the look comes after it ([`crate::beats`]). Deliberately absent: the first lease,
//! which a take-over begins.

use std::time::Duration;

use holdfast_core::{
    PartitionId,
    epoch::Token,
    port::store::{Store, StoreError},
};

use super::{Chore, Done, Ownership, State, Work};
use crate::{
    beats::Beats,
    lane::{Loss, Report},
    mutant::Mutant,
};

impl Ownership {
    pub(super) fn renew(&self, state: &State, work: &mut Work) {
        let (store, clock, beats) = (self.store.clone(), self.clock.clone(), self.beats.clone());
        let held: Vec<PartitionId> = state.held.keys().copied().collect();
        let mutant = self.config.mutant;
        work.spawn(Chore::Renew, async move {
            let mut sent = clock.boot(); // before anything is sent: the lease counts from here
            let tokens = if mutant == Some(Mutant::LookThenBeat) {
                let tokens = store.tokens(&held).await;
                tokio::spawn(async move { beats.say(&*store).await });
                tokens
            } else {
                look_after_beat(&*store, &beats, &held).await
            };
            if mutant == Some(Mutant::LeaseFromAnswer) {
                sent = clock.boot();
            }
            Done::Renewed { sent, tokens }
        });
    }

    pub(super) fn renewed(
        &self,
        state: &mut State,
        sent: Duration,
        tokens: Result<Vec<(PartitionId, Option<Token>)>, StoreError>,
    ) {
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(error) => {
                tracing::warn!(context = self.fetcher.context.name(), %error, "leases could not be renewed");
                return;
            }
        };
        for (partition, token) in tokens {
            let Some(held) = state.held.get(&partition) else { continue };
            if token.is_some_and(|token| held.tokens.contains(token)) {
                held.lease.renew(sent, self.config.lease);
            } else {
                // The answer may be older than this ownership; a fence will tell. Only then is it certain.
                let term = held.term;
                self.lost(state, Report { partition, term, cause: Loss::Fenced });
            }
        }
    }
}

/// In this order: a taker that has not heard of the beat yet is seen here, and one that comes later knows that this node lives.
async fn look_after_beat(
    store: &dyn Store,
    beats: &Beats,
    held: &[PartitionId],
) -> Result<Vec<(PartitionId, Option<Token>)>, StoreError> {
    beats.say(store).await?;
    if held.is_empty() { Ok(Vec::new()) } else { store.tokens(held).await }
}
