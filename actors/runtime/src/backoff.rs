//! Waits between attempts at what is away: exponential, with jitter. The only module that names the `backoff`
//! crate.
//!
//! `backoff` is unmaintained (RUSTSEC-2025-0012) and stays at the wish of this project's user; nothing of it
//! shows outside.

use std::time::Duration;

use ::backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// A growing, jittered wait without end.
pub(crate) struct Backoff(ExponentialBackoff);

impl Backoff {
    /// Starts at about `base` and doubles up to about `max`.
    pub fn new(base: Duration, max: Duration) -> Self {
        let builder = ExponentialBackoffBuilder::new()
            .with_initial_interval(base)
            .with_multiplier(2.0)
            .with_max_interval(max)
            .with_max_elapsed_time(None)
            .build();
        Self(builder)
    }

    /// For our own broker and database.
    pub fn infrastructure() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }

    /// Sleeps for the next wait.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// How long the next wait is.
    pub fn next(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}
