//! The records of one partition, in offset order: the [`RecordStream`] port.
//!
//! Invariants: records come in ascending offsets, from exactly the offset asked for, whatever was fetched for
//! an earlier stream of the partition; gaps (transaction markers, compaction) are passed over. The end of the
//! log or an absent broker is waiting, never an end. A wait is woken by librdkafka, but never relies on it
//! alone: it looks again twice a second, and a partition that has records by its watermark but delivers none
//! is opened again (lost wake-ups and stranded queues were seen: rust-rdkafka#535, #638, #665). Deliberately
//! absent: prefetching of our own; librdkafka's queue is the buffer, and polling it is the back-pressure.

use std::{
    ffi::CString,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use holdfast_core::{
    envelope::Record,
    partition::PartitionId,
    port::log::{LogError, RecordStream},
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{Consumer, base_consumer::PartitionQueue},
    error::KafkaError,
};

mod unreadable;

use self::unreadable::Unreadable;
use crate::{
    error::{Trouble, trouble, unavailable},
    headers, native,
    shared::{DataContext, Shared, Slot},
};

/// A wait looks again after this time, woken or not.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Records that should be there but aren't are waited for this long before the partition is opened again;
/// doubled each time, so that one that waits for a transaction's end is not opened for ever.
const STALL_MIN: Duration = Duration::from_secs(5);
const STALL_MAX: Duration = Duration::from_mins(1);
/// Between attempts to open again.
const REPAIR_PAUSE: Duration = Duration::from_millis(250);

type Queue = PartitionQueue<DataContext>;

/// One open partition.
pub(crate) struct KafkaStream {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    topic: Arc<str>,
    c_topic: CString,
    partition: PartitionId,
    /// Kafka's type for the same number.
    number: i32,
    /// The lowest offset to deliver next; `None` at the log's start, before the first record.
    expected: Option<u64>,
    queue: Option<Queue>,
    /// Whether librdkafka's position is one of this fetching, and none that an earlier one left behind.
    is_position_ours: bool,
    repair: Repair,
    /// Since when polls found nothing.
    empty_since: Option<Instant>,
    stall_after: Duration,
    dead: Option<LogError>,
    unreadable: Unreadable,
}

/// What has to be done before records can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    None,
    /// Attach the queue again.
    Reopen,
    /// First ask whether the topic is still there.
    Verify,
}

/// What a poll found.
enum Polled {
    Record(Record),
    Empty,
    Trouble(KafkaError),
}

impl KafkaStream {
    /// Opens the partition at `from`. Does not block on the network.
    pub(crate) fn open(
        shared: &Arc<Shared>,
        topic: Arc<str>,
        partition: PartitionId,
        from: Option<u64>,
    ) -> Result<Self, LogError> {
        let number = i32::try_from(partition.0)
            .map_err(|_| LogError::Unavailable(format!("{topic}-{partition}: no such partition")))?;
        let slot = shared
            .claim(&topic, partition)
            .ok_or_else(|| LogError::Unavailable(format!("{topic}-{partition}: its last stream is still open")))?;
        let mut stream = Self {
            shared: Arc::clone(shared),
            slot,
            c_topic: native::c_name(&topic),
            topic,
            partition,
            number,
            expected: from,
            queue: None,
            is_position_ours: false,
            repair: Repair::None,
            empty_since: None,
            stall_after: STALL_MIN,
            dead: None,
            unreadable: Unreadable::default(),
        };
        stream.attach(from)?;
        Ok(stream)
    }

    /// Splits the partition's queue off, then assigns the partition at the offset `from`: in this order, or
    /// records could reach the main queue.
    fn attach(&mut self, from: Option<u64>) -> Result<(), LogError> {
        let failed = |error: KafkaError| unavailable("opening the partition", &error);
        let mut queue = self
            .shared
            .consumer
            .split_partition_queue(&self.topic, self.number)
            .ok_or_else(|| LogError::Unavailable(format!("{}-{}: no queue", self.topic, self.partition)))?;
        let slot = Arc::clone(&self.slot);
        queue.set_nonempty_callback(move || slot.wake.notify_one());
        // Not assigned, so whatever is in the queue was fetched for an earlier stream.
        while queue.poll(Duration::ZERO).is_some() {}
        let from = match from {
            None => Offset::Beginning,
            Some(offset) => Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)),
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.number, from).map_err(failed)?;
        // Kept whatever follows: detaching undoes what was half done.
        self.queue = Some(queue);
        self.is_position_ours = false;
        if let Err(error) = self.shared.consumer.incremental_assign(&list) {
            self.detach();
            return Err(failed(error));
        }
        self.repair = Repair::None;
        self.empty_since = None;
        if self.assigned()? {
            return Ok(());
        }
        self.detach();
        Err(LogError::Unavailable(format!("{}-{} was not assigned", self.topic, self.partition)))
    }

    fn assigned(&self) -> Result<bool, LogError> {
        let all = self.shared.consumer.assignment().map_err(|error| unavailable("reading the assignment", &error))?;
        Ok(all.find_partition(&self.topic, self.number).is_some())
    }

    /// Stops fetching and lets go of the queue.
    fn detach(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, self.number);
        if let Err(error) = self.shared.consumer.incremental_unassign(&list) {
            tracing::warn!(%error, topic = %self.topic, partition = %self.partition, "closing a partition");
        }
        // Frees what was prefetched: now outdated, it is discarded rather than returned.
        while queue.poll(Duration::ZERO).is_some() {}
    }

    /// Opens the partition again at the expected offset.
    async fn reopen(&mut self) -> Result<(), LogError> {
        if self.repair == Repair::Verify {
            match self.shared.ask_count(&self.topic).await {
                Ok(count) if self.partition.0 < count => self.repair = Repair::Reopen,
                Ok(_) => {
                    tokio::time::sleep(REPAIR_PAUSE).await;
                    return Err(LogError::Unavailable(format!("{}-{} is gone", self.topic, self.partition)));
                }
                Err(error @ LogError::NoSuchTopic(_)) => {
                    self.dead = Some(error.clone());
                    return Err(error);
                }
                Err(error) => {
                    tokio::time::sleep(REPAIR_PAUSE).await;
                    return Err(error);
                }
            }
        }
        metrics::counter!("holdfast_kafka_reopened_total", "context" => self.shared.context.clone()).increment(1);
        self.detach();
        let attached = self.attach(self.expected);
        if attached.is_err() {
            tokio::time::sleep(REPAIR_PAUSE).await;
        }
        attached
    }

    /// Takes the next record off the queue, if there is one.
    fn poll(&mut self) -> Polled {
        let Some(queue) = &self.queue else { return Polled::Empty };
        // When fetching ends the position is forgotten, in librdkafka's own time; from then on only what is
        // polled here sets it.
        self.is_position_ours = self.is_position_ours || self.native_position().is_none();
        loop {
            let message = match queue.poll(Duration::ZERO) {
                None => return Polled::Empty,
                Some(Err(error)) => return Polled::Trouble(error),
                Some(Ok(message)) => message,
            };
            let offset = u64::try_from(message.offset()).unwrap_or(0);
            // Below what was asked for: a leftover, or a batch of which only the end is wanted.
            if self.expected.is_some_and(|expected| offset < expected) {
                continue;
            }
            let record = headers::record(&self.topic, self.partition, offset, &message);
            self.expected = Some(offset + 1);
            self.unreadable.read();
            self.is_position_ours = true;
            self.empty_since = None;
            self.stall_after = STALL_MIN;
            return Polled::Record(record);
        }
    }

    /// Turns an error on the queue into what the caller gets, and notes what must be done before the next
    /// read.
    fn failed(&mut self, error: &KafkaError) -> LogError {
        let error = match trouble(error) {
            Trouble::OutOfRange => LogError::OffsetOutOfRange {
                topic: self.topic.to_string(),
                partition: self.partition,
                offset: self.expected.unwrap_or(0),
            },
            Trouble::Fatal => LogError::Fatal(error.to_string()),
            Trouble::Unknown => {
                self.repair = Repair::Verify;
                return unavailable("reading the partition", error);
            }
            Trouble::Reopen | Trouble::Compression => {
                self.repair = Repair::Reopen;
                return unavailable("reading the partition", error);
            }
            Trouble::Passing => return unavailable("reading the partition", error),
        };
        self.dead = Some(error.clone());
        error
    }

    fn native_position(&self) -> Option<u64> {
        native::position(self.shared.consumer.client(), &self.topic, self.number)
    }

    /// Whether records are known to be there that don't come.
    fn stalled(&mut self) -> bool {
        let since = *self.empty_since.get_or_insert_with(Instant::now);
        let behind = self.end_offset().is_some_and(|end| self.position().unwrap_or(0) < end);
        if !behind || since.elapsed() < self.stall_after {
            return false;
        }
        tracing::info!(topic = %self.topic, partition = %self.partition, offset = self.expected,
            "no record for a while though the log goes on; the partition is opened again");
        metrics::counter!("holdfast_kafka_stalls_total", "context" => self.shared.context.clone()).increment(1);
        self.stall_after = (self.stall_after * 2).min(STALL_MAX);
        true
    }
}

#[async_trait]
impl RecordStream for KafkaStream {
    async fn next(&mut self) -> Result<Record, LogError> {
        loop {
            if let Some(error) = &self.dead {
                return Err(error.clone());
            }
            if let Some(unreadable) = self.pass_unreadable().await {
                return Err(unreadable);
            }
            if self.slot.astray.load(Ordering::Acquire) && self.slot.astray.swap(false, Ordering::AcqRel) {
                self.repair = Repair::Reopen;
            }
            if self.repair != Repair::None || self.queue.is_none() {
                self.reopen().await?;
            }
            match self.poll() {
                Polled::Record(record) => return Ok(record),
                Polled::Trouble(error) if trouble(&error) == Trouble::Compression => {
                    self.failed_to_decompress(&error);
                    // Tried again by this stream, since another one would count from the beginning.
                    tokio::time::sleep(REPAIR_PAUSE).await;
                    continue;
                }
                Polled::Trouble(error) => return Err(self.failed(&error)),
                Polled::Empty => {}
            }
            if let Some(error) = self.shared.fatal() {
                self.dead = Some(error.clone());
                return Err(error);
            }
            self.empty_since.get_or_insert_with(Instant::now);
            let woken = tokio::time::timeout(LOOK_AGAIN, self.slot.wake.notified()).await;
            if woken.is_err() && self.stalled() {
                self.repair = Repair::Reopen;
            }
        }
    }

    fn position(&self) -> Option<u64> {
        let polled = if self.is_position_ours { self.native_position() } else { None };
        polled.max(self.expected)
    }

    fn end_offset(&self) -> Option<u64> {
        native::cached_watermarks(self.shared.consumer.client(), &self.c_topic, self.number)?.1
    }
}

impl Drop for KafkaStream {
    fn drop(&mut self) {
        self.detach();
        self.shared.release(&self.topic, self.partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::{KafkaAdmin, TopicSpec, plan},
        config::KafkaConfig,
        log::KafkaLog,
        publisher::KafkaPublisher,
    };
    use bytes::Bytes;
    use holdfast_core::{
        batch::{OutboxDraft, OutboxRow},
        envelope::Headers,
        port::log::{Log as _, Publisher},
    };
    use holdfast_stack::{Stack, StackOptions};

    const TOPIC: &str = "t.commands";

    async fn publish(config: &KafkaConfig, count: u64) {
        let draft = OutboxDraft {
            id: uuid::Uuid::nil(),
            topic: TOPIC.into(),
            target: PartitionId(0),
            key: None,
            headers: Headers::default(),
            value: Some(Bytes::from_static(b"v")),
        };
        let row = |sequence| OutboxRow { partition: PartitionId(0), sequence, draft: draft.clone() };
        let publisher = KafkaPublisher::new(config).expect("publisher");
        publisher.publish((0..count).map(row).collect()).await.expect("published");
    }

    async fn expect(stream: &mut KafkaStream, offsets: std::ops::Range<u64>) {
        for offset in offsets {
            let record = tokio::time::timeout(Duration::from_secs(40), stream.next()).await.expect("in time");
            assert_eq!(record.expect("a record").offset, offset);
        }
    }

    /// A client that can't go on is replaced, and reading goes on where it was.
    #[tokio::test]
    async fn a_consumer_that_failed_for_good_is_replaced() {
        let options = StackOptions { postgres: false, ..StackOptions::default() };
        let stack = Stack::start(options).await.expect("the broker starts");
        let config = KafkaConfig::new(stack.brokers(), "t");
        let wanted = TopicSpec::of_context("t", 1, 1);
        KafkaAdmin::new(&config).expect("admin").apply(&plan(&[], &wanted), false).await.expect("topics");
        publish(&config, 20).await;
        let log = KafkaLog::new(&config).expect("log");
        let mut stream = log.open(TOPIC, PartitionId(0), Some(0)).await.expect("open");
        assert_eq!(stream.next().await.expect("a record").offset, 0);
        native::fail_for_good(log.shared().consumer.client());
        let ended = tokio::time::timeout(Duration::from_secs(40), async {
            loop {
                match stream.next().await {
                    Ok(_) | Err(LogError::Unavailable(_)) => {}
                    Err(error) => return error,
                }
            }
        });
        assert!(matches!(ended.await.expect("in time"), LogError::Fatal(_)));
        drop(stream);
        let mut stream = log.open(TOPIC, PartitionId(0), Some(7)).await.expect("open again");
        for offset in 7..20 {
            let record = tokio::time::timeout(Duration::from_secs(40), stream.next()).await.expect("in time");
            assert_eq!(record.expect("a record").offset, offset);
        }
        drop(stream);
        stack.stop().await.expect("stopped");
    }

    /// What librdkafka did to others (records on the main queue, a queue that nobody feeds any more) is done
    /// here on purpose.
    #[tokio::test]
    async fn strays_and_stalls_are_repaired_without_loss_or_repeat() {
        let options = StackOptions { postgres: false, ..StackOptions::default() };
        let stack = Stack::start(options).await.expect("the broker starts");
        let config = KafkaConfig::new(stack.brokers(), "t");
        let wanted = TopicSpec::of_context("t", 1, 1);
        KafkaAdmin::new(&config).expect("admin").apply(&plan(&[], &wanted), false).await.expect("topics");
        publish(&config, 300).await;
        let log = KafkaLog::new(&config).expect("log");
        let shared = log.shared();
        let mut stream = KafkaStream::open(&shared, TOPIC.into(), PartitionId(0), Some(0)).expect("open");
        expect(&mut stream, 0..100).await;

        shared.astray(TOPIC, 0, 100);
        expect(&mut stream, 100..200).await;

        let mut list = TopicPartitionList::new();
        list.add_partition(TOPIC, 0);
        shared.consumer.incremental_unassign(&list).expect("unassigned");
        let stranded = Instant::now();
        expect(&mut stream, 200..300).await;
        assert!(stranded.elapsed() >= STALL_MIN, "it was not stranded at all");
        publish(&config, 50).await;
        expect(&mut stream, 300..350).await;
        stack.stop().await.expect("stopped");
    }
}
