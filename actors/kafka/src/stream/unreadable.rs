//! Batches that can't be decompressed, passed record by record.
//!
//! Such a batch was damaged on its way, or decompresses to more than `receive.message.max.bytes`
//! (librdkafka's limit for both): the first may pass, the second never does. So what fails [`TRIES`] times in
//! a row is passed, each of its offsets by name. How many records a batch has is its sender's choice, and
//! each fetch of it costs a decompression: its end is searched first, by doubling steps and then by halves,
//! and its offsets are answered from memory. Invariant: only offsets of that batch are passed. An error names
//! its batch's first offset, so another batch of the kind, behind good ones, is not taken for the same. State
//! is kept in the stream: a caller that gives up waiting goes on later. Deliberately absent: reading such a
//! batch in pieces.

use std::time::{Duration, Instant};

use holdfast_core::port::log::LogError;
use rdkafka::{consumer::Consumer as _, error::KafkaError};

use super::{KafkaStream, Repair};
use crate::native::{self, Head};

/// A batch is asked for this many times before it is passed; behind one that was, once is enough.
const TRIES: u32 = 3;
/// An offset that brings nothing in this time ends the search: what is known of the batch by then is passed.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the queue.
const PROBE_EVERY: Duration = Duration::from_millis(5);

/// What a stream knows of a batch that it can't read.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    /// The offset at which decompressing failed last, and how often in a row.
    failed: Option<(u64, u32)>,
    search: Option<Search>,
    /// The offset below which all is unreadable, and why.
    until: Option<(u64, String)>,
}

/// The search for the end of a batch.
#[derive(Debug)]
struct Search {
    /// The batch's first offset, once an answer has named it.
    batch: Option<u64>,
    /// An offset in the batch; the first one to pass, to begin with.
    inside: u64,
    /// An offset behind it.
    behind: u64,
    step: u64,
    /// The offset that is fetched, and since when.
    probe: Option<(u64, Instant)>,
    error: String,
}

impl Unreadable {
    /// A record came.
    pub(super) fn read(&mut self) {
        self.failed = None;
    }
}

impl Search {
    /// Takes in what came when `probe` was fetched; `false` if the search can't go on.
    fn learn(&mut self, probe: u64, head: Head) -> bool {
        match (head, self.batch) {
            (Head::Record(offset), _) if offset < probe => return true, // a leftover of an earlier fetch
            (Head::Compressed(first), None) => self.batch = Some(first),
            (Head::Compressed(first), Some(batch)) if first == batch => {
                self.inside = probe;
                self.step = self.step.saturating_mul(2);
            }
            (Head::Compressed(_) | Head::Record(_), Some(_)) => self.behind = probe,
            (Head::Record(_), None) | (Head::Other, _) => return false,
        }
        self.probe = None;
        true
    }

    /// The offset to fetch next; `None` at the end.
    fn next(&self) -> Option<u64> {
        let gap = self.behind - self.inside;
        match self.batch {
            None => Some(self.inside),
            Some(_) => (gap > 1).then(|| self.inside + self.step.min(gap / 2)),
        }
    }
}

impl KafkaStream {
    /// Takes in that the next batch could not be decompressed.
    pub(super) fn failed_to_decompress(&mut self, error: &KafkaError) {
        self.repair = Repair::Reopen;
        let client = self.shared.consumer.client();
        let (low, high) = native::cached_watermarks(client, &self.c_topic, self.number).unwrap_or_default();
        let Some(offset) = self.expected.or(low) else { return };
        let tries = match self.unreadable.failed {
            Some((failed, tries)) if failed == offset => tries + 1,
            _ => 1,
        };
        self.unreadable.failed = Some((offset, tries));
        if tries >= TRIES {
            let behind = high.unwrap_or(0).max(offset + 1);
            let error = error.to_string();
            self.unreadable.search = Some(Search { batch: None, inside: offset, behind, step: 1, probe: None, error });
        }
    }

    /// The next offset of a batch that is passed, if there is one. Cancel-safe.
    pub(super) async fn pass_unreadable(&mut self) -> Option<LogError> {
        self.search().await;
        let (until, error) = self.unreadable.until.as_ref()?;
        let Some(offset) = self.expected.filter(|offset| offset < until) else {
            self.unreadable.until = None;
            return None;
        };
        let (topic, error) = (self.topic.to_string(), error.clone());
        self.expected = Some(offset + 1);
        Some(LogError::Unreadable { topic, partition: self.partition, offset, error })
    }

    /// Finds the end of a batch, if that is to be done. Cancel-safe.
    async fn search(&mut self) {
        while let Some(search) = &mut self.unreadable.search {
            let Some(probe) = search.next() else { return self.end_search(None) };
            let since = match search.probe {
                Some((fetched, since)) if fetched == probe => since,
                _ => {
                    let now = Instant::now();
                    search.probe = Some((probe, now));
                    self.detach();
                    if self.attach(Some(probe)).is_err() {
                        return self.end_search(None);
                    }
                    now
                }
            };
            match native::take_head(self.shared.consumer.client(), &self.c_topic, self.number) {
                None if since.elapsed() < PROBE_MAX => tokio::time::sleep(PROBE_EVERY).await,
                None => return self.end_search(None),
                Some(head) => {
                    let goes_on = self.unreadable.search.as_mut().is_some_and(|search| search.learn(probe, head));
                    if !goes_on {
                        return self.end_search(Some(head));
                    }
                }
            }
        }
    }

    /// Passes what is known to be in the batch; nothing if `last` shows that it can be read after all.
    fn end_search(&mut self, last: Option<Head>) {
        self.repair = Repair::Reopen;
        let Some(Search { batch, inside, error, .. }) = self.unreadable.search.take() else { return };
        if batch.is_none() && matches!(last, Some(Head::Record(_))) {
            self.unreadable.failed = None;
            return;
        }
        let first = *self.expected.get_or_insert(inside);
        self.unreadable.until = Some((inside + 1, error));
        self.unreadable.failed = Some((inside + 1, TRIES - 1));
        tracing::warn!(topic = %self.topic, partition = %self.partition, first, last = inside,
            "a batch could not be decompressed; its records are passed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a batch of `records` from 100 on, with another of the kind behind ten good records; and how
    /// many fetches it took.
    fn found(records: u64) -> (u64, u32) {
        let end = 100 + records;
        let mut search =
            Search { batch: None, inside: 100, behind: 1_000_000, step: 1, probe: None, error: String::new() };
        let mut fetches = 0;
        while let Some(probe) = search.next() {
            fetches += 1;
            let head = match probe {
                _ if probe < end => Head::Compressed(90),
                _ if probe < end + 10 || probe >= end + 500_000 => Head::Record(probe),
                _ => Head::Compressed(end + 10),
            };
            assert!(search.learn(probe, head));
        }
        (search.inside + 1, fetches)
    }

    #[test]
    fn end_of_batch_is_found_in_few_fetches() {
        for records in [1, 2, 3, 7, 8, 64, 1_000, 50_000, 65_537] {
            let (end, fetches) = found(records);
            assert_eq!(end, 100 + records);
            assert!(fetches <= 2 * records.ilog2() + 5, "{fetches} for {records}");
        }
    }
}
