//! The limit on a caller's requests: a number of requests a second, and twice that number at once.
//!
//! Each caller has a limit of its own, so that only a caller that sends too much notices it. Invariant: what
//! is kept is bounded by the callers of the last minute or so. Deliberately absent: limits across processes;
//! each has its own.

use std::{
    num::NonZeroU32,
    sync::{Arc, Weak},
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use http::StatusCode;
use uuid::Uuid;

use crate::{identity::Caller, problem::Problem};

/// Between two times of forgetting callers who have not called for a while.
const SWEPT_EVERY: Duration = Duration::from_mins(1);

/// Counts requests. Clones count together.
#[derive(Clone, Debug)]
pub struct Limit {
    buckets: Arc<DefaultKeyedRateLimiter<Uuid>>,
    clock: DefaultClock,
}

impl Limit {
    /// A limit of `rate` requests a second for each caller. Call it inside a tokio runtime.
    pub fn per_second(rate: NonZeroU32) -> Self {
        let quota = Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
        let buckets = Arc::new(RateLimiter::keyed(quota));
        tokio::spawn(sweep(Arc::downgrade(&buckets)));
        Self { buckets, clock: DefaultClock::default() }
    }

    /// Counts a request of `caller`.
    ///
    /// # Errors
    /// 429, with when to come again.
    pub fn admit(&self, caller: &Caller) -> Result<(), Problem> {
        let name = Uuid::new_v5(&Uuid::NAMESPACE_OID, caller.subject().as_bytes());
        self.buckets.check_key(&name).map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            let detail = "too many requests; send fewer, or come again when Retry-After says";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", detail).retry_after(wait)
        })
    }
}

async fn sweep(buckets: Weak<DefaultKeyedRateLimiter<Uuid>>) {
    loop {
        tokio::time::sleep(SWEPT_EVERY).await;
        let Some(buckets) = buckets.upgrade() else { return };
        buckets.retain_recent();
        buckets.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_who_hammers_is_the_only_one_to_notice() {
        let limit = Limit::per_second(NonZeroU32::new(2).unwrap());
        let (ada, bob) = (Caller::staff("ada"), Caller::staff("bob"));
        let admitted = (0..100).filter(|_| limit.admit(&ada).is_ok()).count();
        assert!((4..10).contains(&admitted), "{admitted}");
        let refused = limit.admit(&ada).unwrap_err();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(limit.admit(&bob).is_ok());
    }
}
