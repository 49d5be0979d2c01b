//! How long this node may answer strong reads for a partition without asking anybody (I5).
//!
//! When a lease begins and how long it lasts is decided by the ownership machine; here is its end, where
//! actors and the router look at it at the moment of an answer. Time is `CLOCK_BOOTTIME` of this machine,
//! never compared with another's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_core::port::clock::Clock;

/// The lease of one ownership of one partition.
#[derive(Clone)]
pub struct Lease {
    clock: Arc<dyn Clock>,
    until_ms: Arc<AtomicU64>,
}

impl Lease {
    /// A lease that has not begun.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, until_ms: Arc::default() }
    }

    /// Lasts until `until` by the boot clock, or longer if it did already. An ended lease stays ended.
    pub fn extend(&self, until: Duration) {
        let until = u64::try_from(until.as_millis()).unwrap_or(ENDED - 1);
        let _ = self
            .until_ms
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| (old != ENDED).then(|| until.max(old)));
    }

    /// Ends the lease for good: from here on [`Self::valid`] is false.
    pub fn end(&self) {
        self.until_ms.store(ENDED, Ordering::SeqCst);
    }

    /// Whether a strong read may be answered at this moment.
    pub fn valid(&self) -> bool {
        let until = self.until_ms.load(Ordering::SeqCst);
        until != ENDED && self.clock.boot().as_millis() < u128::from(until)
    }
}

const ENDED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::Timestamp;

    struct Fixed(AtomicU64);

    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }
        fn boot(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn ended_lease_stays_ended() {
        let clock = Arc::new(Fixed(AtomicU64::new(1_000)));
        let lease = Lease::new(clock.clone());
        assert!(!lease.valid());
        lease.extend(Duration::from_millis(1_400));
        clock.0.store(1_399, Ordering::SeqCst);
        assert!(lease.valid());
        clock.0.store(1_400, Ordering::SeqCst);
        assert!(!lease.valid());
        lease.end();
        lease.extend(Duration::from_millis(1_900));
        assert!(!lease.valid());
    }
}
