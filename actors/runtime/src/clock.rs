//! The machine's clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_core::{Timestamp, port::clock::Clock};
use rustix::time::{ClockId, clock_gettime};

/// The wall clock, and `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn boot(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
        Duration::new(seconds, nanos)
    }
}

/// Waits until `due`, or for ever.
pub(crate) async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
