//! When a call is tried again.
//!
//! Invariant: retries end with the deadline, the number of attempts or the budget, whichever is first; the
//! budget is shared by all calls to a peer, so that a peer in trouble sees at most a fifth more calls, not
//! three times as many.
//!
//! The waiting and the budget are tower's (`tower::retry`); the runtime's `backoff` crate is not for
//! services.
//!
//! Deliberately absent: knowing what is idempotent. Reads are, and mutations are by their request id.

use std::{sync::Arc, time::Duration};

use tonic::{Code, Status};
use tower::{
    retry::{
        backoff::{ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff as _},
        budget::{Budget as _, TpsBudget},
    },
    util::rng::HasherRng,
};

use super::CIRCUIT_OPEN;
use crate::errors;

/// How calls to a peer are retried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts at a call, the first included.
    pub attempts_max: u32,
    /// First wait.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
    /// Retries per 100 calls, beyond ten a second that are always allowed.
    pub budget_percent: u8,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            first: Duration::from_millis(25),
            longest: Duration::from_millis(500),
            budget_percent: 20,
        }
    }
}

/// Settings that can't be.
#[derive(Debug, thiserror::Error)]
#[error("the retry waits are not in order: 0 < first <= longest")]
pub struct Invalid;

/// [`Retry`] at work for one peer.
#[derive(Debug, Clone)]
pub(super) struct Retries {
    policy: Retry,
    maker: ExponentialBackoffMaker,
    budget: Arc<TpsBudget>,
}

/// Share of a wait that is added at random.
const JITTER: f64 = 1.0;
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
const RETRIES_ALWAYS_PER_SECOND: u32 = 10;

impl Retries {
    pub(super) fn new(policy: Retry) -> Result<Self, Invalid> {
        let maker = ExponentialBackoffMaker::new(policy.first, policy.longest, JITTER, HasherRng::default())
            .map_err(|_| Invalid)?;
        if policy.first.is_zero() {
            return Err(Invalid);
        }
        let share = f32::from(policy.budget_percent) / 100.0;
        let budget = Arc::new(TpsBudget::new(BUDGET_WINDOW, RETRIES_ALWAYS_PER_SECOND, share));
        Ok(Self { policy, maker, budget })
    }

    /// A new call begins.
    pub(super) fn begin(&mut self) -> ExponentialBackoff {
        self.budget.deposit();
        self.maker.make_backoff()
    }

    /// Whether the call that failed at this attempt may be tried once more.
    pub(super) fn again(&self, attempt: u32, status: &Status) -> bool {
        attempt < self.policy.attempts_max && is_transient(status) && self.budget.withdraw()
    }
}

/// Whether a repeat may succeed. UNAVAILABLE is transient, unless the circuit is open (it stays so for longer
/// than a call); overload is, if the peer says when to come back. ABORTED is not: the caller has to read
/// again first.
fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => errors::reason(status).as_deref() != Some(CIRCUIT_OPEN),
        Code::ResourceExhausted => errors::retry_after(status).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::Problem;

    #[test]
    fn only_what_can_pass_is_tried_again() {
        let mut retries = Retries::new(Retry::default()).unwrap();
        let _ = retries.begin();
        let now = Duration::from_millis(1);
        assert!(retries.again(1, &Problem::unavailable("X", "", now).into_status()));
        assert!(retries.again(1, &Problem::exhausted("X", "", now).into_status()));
        assert!(!retries.again(3, &Problem::unavailable("X", "", now).into_status()));
        for status in [
            Problem::unavailable(CIRCUIT_OPEN, "", now).into_status(),
            Problem::rejected("X", "").into_status(),
            Problem::deadline().into_status(),
            Status::resource_exhausted(""),
            Status::aborted(""),
        ] {
            assert!(!retries.again(1, &status), "{status:?}");
        }
    }

    #[test]
    fn the_budget_bounds_retries_across_calls() {
        let mut retries = Retries::new(Retry::default()).unwrap();
        let down = Status::unavailable("");
        let granted = (0..1000)
            .filter(|_| {
                let _ = retries.begin();
                retries.again(1, &down)
            })
            .count();
        assert!((200..=320).contains(&granted), "{granted}");
    }

    #[test]
    fn waits_out_of_order_are_refused() {
        assert!(Retries::new(Retry { first: Duration::from_secs(9), ..Retry::default() }).is_err());
        assert!(Retries::new(Retry { first: Duration::ZERO, ..Retry::default() }).is_err());
    }
}
