//! Deadlines: read from `grpc-timeout`, kept for the task, written for the next hop.
//!
//! Invariant: a deadline only ever comes nearer on its way down.
//!
//! Deliberately absent: actors. A task-local ends at a mailbox; who sends a message sends the deadline with
//! it.

use std::{future::Future, time::Duration};

use http::HeaderValue;
use tokio::time::Instant;

tokio::task_local! {
    static DEADLINE: Instant;
}

/// The deadline of the call that this task serves.
pub fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok()
}

/// The nearer of the given deadline and the task's.
pub fn nearest(deadline: Instant) -> Instant {
    current().map_or(deadline, |inherited| inherited.min(deadline))
}

/// Runs the future under the nearer of the given deadline and the task's. It says so to calls made inside; it
/// does not cut the future itself.
pub async fn within<F: Future>(deadline: Instant, future: F) -> F::Output {
    DEADLINE.scope(nearest(deadline), future).await
}

/// The value of a `grpc-timeout` header: up to eight digits and a unit.
pub(super) fn parse(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let unit = text.chars().last().filter(char::is_ascii_alphabetic)?;
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(amount * 3600),
        'M' => Duration::from_secs(amount * 60),
        'S' => Duration::from_secs(amount),
        'm' => Duration::from_millis(amount),
        'u' => Duration::from_micros(amount),
        'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The header's value for what is left, rounded down so that the peer gives up no later than we do.
pub(super) fn format(left: Duration) -> HeaderValue {
    const EIGHT_DIGITS: u128 = 99_999_999;
    let text = [(left.as_micros(), 'u'), (left.as_millis(), 'm')]
        .into_iter()
        .find(|(amount, _)| *amount <= EIGHT_DIGITS)
        .map_or_else(|| format!("{}S", u128::from(left.as_secs()).min(EIGHT_DIGITS)), |(n, unit)| format!("{n}{unit}"));
    HeaderValue::try_from(text).expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        parse(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn timeouts_read_as_the_protocol_says() {
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("1H"), Some(Duration::from_hours(1)));
        assert_eq!(read("99999999H"), Some(Duration::from_hours(99_999_999)));
        for bad in ["", "m", "5", "-5m", "123456789m", "5x", "5 m"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_reads_back_and_never_grows() {
        for left in [0, 1, 999, 1_000_000, 99_999_999, 123_456_789_123] {
            let left = Duration::from_micros(left);
            let back = parse(&format(left)).unwrap();
            assert!(back <= left && left.saturating_sub(back) < Duration::from_secs(1), "{left:?} {back:?}");
        }
    }

    #[tokio::test]
    async fn an_inner_deadline_can_only_be_nearer() {
        let now = Instant::now();
        let (near, far) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        within(near, async {
            within(far, async { assert_eq!(current(), Some(near)) }).await;
        })
        .await;
        assert_eq!(current(), None);
    }
}
