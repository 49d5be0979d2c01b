//! What the service reads from the store.
//!
//! Invariant: at most [`READS_MAX`] reads at once, so that a burst of questions, whose number is not ours to choose, never keeps the loop's own
//! reads waiting for a connection. Who waits here waits in order, and within the caller's deadline.

use std::sync::Arc;

use holdfast_adapter::status;
use holdfast_core::{
    AggregateId,
    port::store::{StateRow, Store, Wanted},
};
use tokio::sync::Semaphore;
use tonic::Status;

/// Reads at once; half of what a store has connections for, unless configured otherwise.
const READS_MAX: usize = 2;

/// The store, for callers.
pub(super) struct Reads {
    store: Arc<dyn Store>,
    gate: Semaphore,
}

impl Reads {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, gate: Semaphore::new(READS_MAX) }
    }

    /// The stored states of `aggregates`, in their order.
    pub(super) async fn states(&self, aggregates: Vec<AggregateId>) -> Result<Vec<Option<StateRow>>, Status> {
        let wanted = Wanted { aggregates, claims: Vec::new() };
        let _turn = self.gate.acquire().await.map_err(|error| status::internal(&error))?;
        let found = self.store.find(&wanted).await.map_err(|error| status::store(&error))?;
        Ok(found.aggregates.into_iter().map(|(row, _)| row).collect())
    }
}
