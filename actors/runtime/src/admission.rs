//! Credits: how many bytes of records this node holds in memory (I11).
//!
//! Actor mailboxes have no bound of their own, so everything that leads to them has: a record's bytes are taken from the budget when it is read
//! and given back when its message is done; while nothing is left, no partition is polled.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A byte budget.
#[derive(Clone)]
pub(crate) struct Budget {
    credits: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        Self { credits: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits until `bytes` are free and takes them. Something larger than the whole budget takes all of it, so that it passes alone.
    pub async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        self.credits.clone().acquire_many_owned(bytes).await.expect("the budget's semaphore is never closed")
    }

    pub fn used_bytes(&self) -> usize {
        self.total as usize - self.credits.available_permits()
    }
}
