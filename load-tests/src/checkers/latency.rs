//! How long commands took: from the producer's hands to the record of their event in the events topic.
//!
//! Both clocks are this machine's. The end is the record's timestamp in `orders.events`; on a topic with
//! `message.timestamp.type=LogAppendTime` that is the broker's, otherwise the relay's, taken when it hands
//! the record over.

use std::collections::HashMap;

use hdrhistogram::Histogram;
use serde::Serialize;
use uuid::Uuid;

use super::{EventRecord, Evidence, News};
use crate::producer::{Ledger, Sent};

/// Percentiles, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latencies {
    /// How many were measured.
    pub count: u64,
    /// Half were quicker.
    pub p50_ms: u64,
    /// 99 of 100 were quicker.
    pub p99_ms: u64,
    /// The slowest.
    pub max_ms: u64,
}

/// The latencies of the commands for which `of` says so, by the first event of an order that each caused.
pub fn latencies(ledger: &Ledger, evidence: &Evidence, of: impl Fn(&Uuid, &Sent) -> bool) -> Latencies {
    let times = times_to(ledger, &evidence.orders.events);
    percentiles(times.filter(|(id, sent, _)| of(id, sent)).map(|(_, _, took)| took))
}

/// Each command that caused one of these events, and how long it took to the first of them, ms.
pub fn times_to<'a>(
    ledger: &'a Ledger,
    events: &[EventRecord],
) -> impl Iterator<Item = (&'a Uuid, &'a Sent, u64)> + use<'a> {
    let mut first: HashMap<Uuid, i64> = HashMap::new();
    for event in events {
        if let Some(id) = event.causation {
            let at = first.entry(id).or_insert(event.time_ms);
            *at = (*at).min(event.time_ms);
        }
    }
    ledger.commands.iter().filter_map(move |(id, sent)| {
        let after = u64::try_from(sent.after.as_millis()).ok()?;
        let at = i64::try_from(ledger.started_ms + after).ok()?;
        Some((id, sent, u64::try_from((first.get(id)? - at).max(0)).unwrap_or(0)))
    })
}

/// Each placed order that was paid, and how long that took from its `PlaceOrder`'s sending to the record of
/// its `OrderPaid`, ms.
pub fn times_to_paid<'a>(ledger: &Ledger, events: &'a [EventRecord]) -> impl Iterator<Item = (&'a str, u64)> {
    let mut paid: HashMap<&str, i64> = HashMap::new();
    for event in events.iter().filter(|event| matches!(event.news, News::Paid(_))) {
        let at = paid.entry(&event.key).or_insert(event.time_ms);
        *at = (*at).min(event.time_ms);
    }
    let mut placed: HashMap<&str, u64> = HashMap::new();
    for event in events.iter().filter(|event| matches!(event.news, News::Placed(_))) {
        if let Some(sent) = event.causation.and_then(|id| ledger.commands.get(&id)) {
            placed.insert(&event.key, ledger.started_ms + u64::try_from(sent.after.as_millis()).unwrap_or(0));
        }
    }
    placed.into_iter().filter_map(move |(key, at)| {
        let took = paid.get(key)? - i64::try_from(at).ok()?;
        Some((key, u64::try_from(took.max(0)).unwrap_or(0)))
    })
}

/// Percentiles of times in ms.
pub fn percentiles(took: impl Iterator<Item = u64>) -> Latencies {
    const HOUR_MS: u64 = 60 * 60 * 1_000;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, HOUR_MS, 3).expect("the bounds are constants that fit");
    for ms in took {
        histogram.saturating_record(ms);
    }
    Latencies {
        count: histogram.len(),
        p50_ms: histogram.value_at_quantile(0.5),
        p99_ms: histogram.value_at_quantile(0.99),
        max_ms: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::percentiles;

    #[test]
    fn slowest_of_a_hundred_is_beyond_p99_and_is_the_maximum() {
        let found = percentiles((1..=99).chain([5_000]));
        assert_eq!((found.count, found.p50_ms, found.p99_ms), (100, 50, 99));
        assert!((5_000..5_010).contains(&found.max_ms), "{}", found.max_ms);
    }
}
