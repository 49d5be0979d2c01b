//! Clocks: one that a test moves, and one that follows tokio's (paused) time.
//!
//! Each node of a simulated cluster gets its own, so that clocks may disagree; nothing may depend on their
//! agreement. Deliberately absent: the machine's clock, which is the runtime's.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use holdfast_core::{Timestamp, port::clock::Clock};
use tokio::time::Instant;

/// 2026-01-01T00:00:00Z, where the clocks of tests start.
const START: Timestamp = Timestamp::from_unix_ms(1_767_225_600_000);

/// Stands still until it is moved.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    elapsed: Arc<Mutex<Duration>>,
}

impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        START.plus(self.boot())
    }

    fn boot(&self) -> Duration {
        *self.elapsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows tokio's time, so that it moves with `tokio::time::sleep` under `start_paused`; may run fast or
/// slow, and be set ahead.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    started: Instant,
    drift_ppm: i32,
    ahead: Arc<Mutex<Duration>>,
}

impl VirtualClock {
    /// A clock in step with tokio's, reading zero now.
    pub fn start() -> Self {
        Self::drifting(0)
    }

    /// A clock that gains `drift_ppm` millionths (loses, if negative).
    pub fn drifting(drift_ppm: i32) -> Self {
        Self { started: Instant::now(), drift_ppm, ahead: Arc::default() }
    }

    /// Jumps forward, as after the machine slept.
    pub fn jump(&self, by: Duration) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        START.plus(self.boot())
    }

    fn boot(&self) -> Duration {
        let elapsed = self.started.elapsed();
        let gained = elapsed * self.drift_ppm.unsigned_abs() / 1_000_000;
        let drifted = if self.drift_ppm < 0 { elapsed.saturating_sub(gained) } else { elapsed + gained };
        drifted + *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_follows_paused_time_with_its_drift() {
        let (exact, fast) = (VirtualClock::start(), VirtualClock::drifting(100_000));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((exact.boot().as_secs(), fast.boot().as_secs()), (10, 11));
        exact.jump(Duration::from_mins(1));
        assert_eq!(exact.boot().as_secs(), 70);
        assert_eq!(exact.now(), START.plus(Duration::from_secs(70)));
    }
}
