//! What gRPC services read from the store.
//!
//! Invariant: at most [`READS_MAX`] reads at once, so that a burst of questions, whose number is not ours to
//! choose, never keeps the loop's own reads waiting for a connection. Who waits here waits in order, and
//! within the caller's deadline. Deliberately absent: the reads of `Router`, which are one aggregate each.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_core::{
    AggregateId,
    pool::Pool,
    port::store::{self, StateRow, Store, StoreError, Wanted},
};
use tokio::sync::Semaphore;
use tonic::Status;

use crate::status;

/// Reads at once; half of what a store has connections for, unless configured otherwise.
const READS_MAX: usize = 2;

/// The store, for callers.
#[derive(Clone)]
pub struct Reads {
    store: Arc<dyn Store>,
    gate: Arc<Semaphore>,
}

impl Reads {
    /// Of `store`. Clones share the bound.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, gate: Arc::new(Semaphore::new(READS_MAX)) }
    }

    /// The stored states of `aggregates` that exist, in their order.
    pub async fn states(&self, aggregates: Vec<AggregateId>) -> Result<Vec<Option<StateRow>>, Status> {
        let wanted: Vec<Wanted> = aggregates.into_iter().map(Wanted::state).collect();
        let rows = self.read(async { store::states(self.store.find(&wanted).await?) }).await?;
        Ok(rows.into_iter().map(|row| row.filter(|row| row.version > 0)).collect())
    }

    /// The pools of these names that exist.
    pub async fn pools(&self, names: &[String]) -> Result<BTreeMap<String, Pool>, Status> {
        self.read(self.store.pools(names)).await
    }

    async fn read<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, Status> {
        let _turn = self.gate.acquire().await.map_err(|error| status::internal(&error))?;
        read.await.map_err(|error| status::store(&error))
    }
}
