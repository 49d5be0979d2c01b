//! How often and how soon something that failed is tried again. Policy only; timers are the runtime's.

use std::time::Duration;

/// A budget of attempts with exponential backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. At least 1.
    pub budget: u32,
    /// The wait after the first failure.
    pub base: Duration,
    /// No wait is longer.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { budget: 3, base: Duration::from_millis(100), max: Duration::from_secs(30) }
    }
}

impl RetryPolicy {
    /// The wait after failure number `attempts` (from 1), or `None` if the budget is spent.
    pub fn wait_after(&self, attempts: u32) -> Option<Duration> {
        (attempts < self.budget).then(|| self.backoff(attempts))
    }

    /// The wait after failure number `attempts` (from 1) where attempts have no end.
    pub fn backoff(&self, attempts: u32) -> Duration {
        self.base.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(20))).min(self.max)
    }
}

/// `wait`, shortened by up to a quarter as `seed` says, so that what began to wait together doesn't come back
/// together.
pub fn spread(wait: Duration, seed: u8) -> Duration {
    wait / 1024 * (1024 - u32::from(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spent_budget_gives_no_wait_and_waits_never_exceed_maximum() {
        let policy = RetryPolicy { budget: 4, base: Duration::from_millis(100), max: Duration::from_millis(300) };
        let waits: Vec<_> = (1..=5).map(|n| policy.wait_after(n).map(|d| d.as_millis())).collect();
        assert_eq!(waits, [Some(100), Some(200), Some(300), None, None]);
        assert_eq!(policy.backoff(u32::MAX), policy.max);
    }
}
