//! Credits: how many bytes of records this node holds in memory (I11).
//!
//! Actor mailboxes have no bound of their own, so everything that leads to them has: a record's bytes are
//! taken from the budget when it is read and given back when its message is done; while nothing is left, no
//! partition is polled.

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

    /// Waits until `bytes` are free and takes them. Something larger than the whole budget takes all of it,
    /// so that it passes alone.
    pub async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        self.credits.clone().acquire_many_owned(bytes).await.expect("the budget's semaphore is never closed")
    }

    /// Takes `bytes`, or nothing if fewer are free at this moment.
    pub fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        self.credits.clone().try_acquire_many_owned(bytes).ok()
    }

    pub fn used_bytes(&self) -> usize {
        self.total as usize - self.credits.available_permits()
    }
}

/// The budget of calls: each takes its bytes, but no less than an equal share of the whole, so that number
/// and bytes are bounded at once. Calls are refused rather than kept waiting.
pub(crate) struct CallBudget {
    bytes: Budget,
    share: usize,
}

impl CallBudget {
    /// A budget for at most `calls` calls, with at most `bytes` bytes in all.
    pub fn new(calls: usize, bytes: usize) -> Self {
        let calls = calls.max(1);
        Self { bytes: Budget::new(bytes.max(calls)), share: (bytes / calls).max(1) }
    }

    /// Another budget of the same size, with nothing taken.
    pub fn twin(&self) -> Self {
        Self { bytes: Budget::new(self.bytes.total as usize), share: self.share }
    }

    /// Takes a call of `bytes`; `None` if there is no room for it.
    pub fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.bytes.try_take(bytes.max(self.share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_bounded_in_number_and_in_bytes() {
        let budget = CallBudget::new(4, 400);
        let small: Vec<_> = (0..4).map(|_| budget.try_take(1)).collect();
        assert!(small.iter().all(Option::is_some));
        assert!(budget.try_take(1).is_none(), "the fifth call");
        drop(small);
        let large = budget.try_take(301).expect("nothing is in flight");
        assert!(budget.try_take(1).is_none(), "99 bytes are left, and a share is 100");
        drop(large);
        assert!(budget.try_take(300).is_some());
    }

    #[test]
    fn call_larger_than_the_budget_passes_alone() {
        let budget = CallBudget::new(4, 400);
        let all = budget.try_take(4000).expect("alone");
        assert!(budget.try_take(1).is_none());
        drop(all);
        let _one = budget.try_take(1).expect("free again");
        assert!(budget.try_take(4000).is_none());
    }
}
