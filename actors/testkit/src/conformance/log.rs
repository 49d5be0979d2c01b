//! The laws of [`Log`] and its streams (I3, I7).
//!
//! ```ignore
//! holdfast_testkit::log_conformance! {
//!     #[tokio::test(flavor = "multi_thread")]
//!     async || KafkaLogHarness::fresh().await
//! }
//! ```

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    Headers, PartitionId, Record,
    port::log::{Log, LogError, RecordStream},
};
use tokio::time::timeout;

/// Long enough for a real broker; a law that waits this long fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough to see that nothing comes.
const A_WHILE: Duration = Duration::from_millis(500);

/// What an adapter's harness can do beyond the port itself.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// [`LogHarness::delete_before`] works.
    pub deletion: bool,
}

impl Features {
    /// Everything.
    pub const ALL: Self = Self { deletion: true };
}

/// One log under test.
#[async_trait]
pub trait LogHarness: Send + Sync {
    /// A node's own client.
    async fn connect(&self) -> Arc<dyn Log>;

    /// What the methods below can do.
    fn features(&self) -> Features;

    /// Creates a topic with a name never used before, and waits until it is usable.
    async fn create_topic(&self, partitions: u32) -> Arc<str>;

    /// Appends a record durably, not by way of the port; returns its offset.
    async fn append(
        &self,
        topic: &str,
        partition: PartitionId,
        key: Option<Bytes>,
        headers: Headers,
        value: Option<Bytes>,
    ) -> u64;

    /// Deletes the topic and makes it again, empty, with as many partitions, and waits until it is usable.
    async fn recreate(&self, topic: &str);

    /// Leaves a gap behind the last record, as a transaction does that wrote something and was aborted.
    async fn leave_gap(&self, topic: &str, partition: PartitionId);

    /// Deletes what is below `offset`.
    async fn delete_before(&self, topic: &str, partition: PartitionId, offset: u64);
}

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);

async fn append(harness: &dyn LogHarness, topic: &str, partition: PartitionId, texts: &[&str]) -> Vec<u64> {
    let mut offsets = Vec::new();
    for text in texts {
        let value = Some(Bytes::copy_from_slice(text.as_bytes()));
        offsets.push(harness.append(topic, partition, None, Headers::default(), value).await);
    }
    offsets
}

async fn open(log: &Arc<dyn Log>, topic: &str, partition: PartitionId, from: Option<u64>) -> Box<dyn RecordStream> {
    log.open(topic, partition, from).await.expect("the log is there")
}

/// The next record; an outage that the stream reports is waited out.
async fn next(stream: &mut Box<dyn RecordStream>) -> Result<Record, LogError> {
    let patient = async {
        loop {
            match stream.next().await {
                Err(LogError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                other => return other,
            }
        }
    };
    timeout(PATIENCE, patient).await.expect("something comes in time")
}

async fn texts(stream: &mut Box<dyn RecordStream>, n: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..n {
        let record = next(stream).await.expect("a record");
        texts.push(String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned());
    }
    texts
}

async fn nothing_comes(stream: &mut Box<dyn RecordStream>) {
    if let Ok(Ok(record)) = timeout(A_WHILE, stream.next()).await {
        panic!("unexpected record at offset {}", record.offset);
    }
}

/// Whatever was sent: nulls, empty values, repeated and binary headers.
pub async fn records_come_in_offset_order_as_they_were_written(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(2).await);
    let headers = Headers(vec![
        ("twice".into(), Some(Bytes::from_static(b"1"))),
        ("twice".into(), Some(Bytes::from_static(b"\xff\x00"))),
        ("null".into(), None),
        ("empty".into(), Some(Bytes::new())),
    ]);
    let sent = [
        (Some(Bytes::from_static(b"\x00\xfe")), headers, Some(Bytes::from((0..=255).collect::<Vec<u8>>()))),
        (None, Headers::default(), None),
        (Some(Bytes::new()), Headers::default(), Some(Bytes::new())),
    ];
    let mut stream = open(&log, &topic, P1, None).await;
    for (key, headers, value) in sent {
        let offset = harness.append(&topic, P1, key.clone(), headers.clone(), value.clone()).await;
        let record = next(&mut stream).await.expect("a record");
        assert_eq!((&*record.topic, record.partition, record.offset), (&*topic, P1, offset));
        assert_eq!((record.key, record.headers, record.value), (key, headers, value));
        assert!(record.timestamp.is_some_and(|time| time.unix_ms() > 1_500_000_000_000));
    }
}

/// Not one sooner, not one later, for each offset.
pub async fn reading_starts_at_the_offset_asked_for(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(1).await);
    let all = ["a", "b", "c", "d"];
    let offsets = append(harness, &topic, P0, &all).await;
    for (n, offset) in offsets.iter().enumerate() {
        let mut stream = open(&log, &topic, P0, Some(*offset)).await;
        assert_eq!(texts(&mut stream, 4 - n).await, all[n..]);
    }
    let mut stream = open(&log, &topic, P0, None).await;
    assert_eq!(texts(&mut stream, 4).await, all);
}

/// Asked of the broker, not remembered.
pub async fn bounds_are_those_of_now(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(2).await);
    assert_eq!(log.bounds(&topic, P0).await, Ok((0, 0)));
    let offsets = append(harness, &topic, P0, &["a", "b", "c"]).await;
    let end = offsets[2] + 1;
    assert_eq!(log.bounds(&topic, P0).await, Ok((0, end)));
    assert_eq!(log.bounds(&topic, P1).await, Ok((0, 0)));
    if harness.features().deletion {
        harness.delete_before(&topic, P0, offsets[1]).await;
        assert_eq!(log.bounds(&topic, P0).await, Ok((offsets[1], end)));
    }
}

/// By its name and its offsets it would be the same.
pub async fn a_topic_made_again_has_another_mark(harness: &dyn LogHarness) {
    let (log, topic, other) = (harness.connect().await, harness.create_topic(1).await, harness.create_topic(1).await);
    let mark = log.incarnation(&topic).await.expect("the log is there").expect("it has marks");
    append(harness, &topic, P0, &["a", "b"]).await;
    assert_eq!(log.incarnation(&topic).await, Ok(Some(mark.clone())), "records don't change it");
    assert_eq!(harness.connect().await.incarnation(&topic).await, Ok(Some(mark.clone())), "nor who asks");
    harness.recreate(&topic).await;
    append(harness, &topic, P0, &["c", "d"]).await;
    assert_ne!(log.incarnation(&topic).await, Ok(Some(mark)));
    assert!(log.incarnation(&other).await.is_ok());
    assert!(matches!(log.incarnation("no.such.topic").await, Err(LogError::NoSuchTopic(_))));
}

/// A new partition is read whole: never from its end.
pub async fn reading_from_nowhere_starts_where_the_log_does(harness: &dyn LogHarness) {
    if !harness.features().deletion {
        return;
    }
    let (log, topic) = (harness.connect().await, harness.create_topic(1).await);
    let offsets = append(harness, &topic, P0, &["a", "b", "c"]).await;
    harness.delete_before(&topic, P0, offsets[1]).await;
    let mut stream = open(&log, &topic, P0, None).await;
    assert_eq!(texts(&mut stream, 2).await, ["b", "c"]);
}

/// At the end there is nothing wrong, only nothing yet.
pub async fn a_stream_waits_for_what_is_appended_later(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(1).await);
    let offsets = append(harness, &topic, P0, &["a"]).await;
    let mut stream = open(&log, &topic, P0, Some(offsets[0] + 1)).await;
    nothing_comes(&mut stream).await;
    append(harness, &topic, P0, &["b"]).await;
    assert_eq!(texts(&mut stream, 1).await, ["b"]);
    nothing_comes(&mut stream).await;
    append(harness, &topic, P0, &["c", "d"]).await;
    assert_eq!(texts(&mut stream, 2).await, ["c", "d"]);
}

/// A loop that selects over many streams drops `next` all the time.
pub async fn next_is_cancel_safe(harness: &dyn LogHarness) {
    const N: usize = 200;
    let (log, topic) = (harness.connect().await, harness.create_topic(1).await);
    let all: Vec<String> = (0..N).map(|n| n.to_string()).collect();
    let mut stream = open(&log, &topic, P0, None).await;
    let reading = async {
        let mut seen = Vec::new();
        let mut patience = 0_u64;
        while seen.len() < N {
            patience += 1;
            let wait = Duration::from_micros(patience * 97 % 1_000);
            if let Ok(Ok(record)) = timeout(wait, stream.next()).await {
                seen.push(String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned());
            }
        }
        seen
    };
    let writing = async {
        for text in &all {
            append(harness, &topic, P0, &[text]).await;
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    };
    let (seen, ()) = timeout(PATIENCE, async { tokio::join!(reading, writing) }).await.expect("all arrive");
    assert_eq!(seen, all);
}

/// As after a take-over that comes back.
pub async fn a_stream_can_be_dropped_and_opened_again(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(2).await);
    let offsets = append(harness, &topic, P0, &["a", "b", "c"]).await;
    append(harness, &topic, P1, &["x", "y"]).await;
    let mut other = open(&log, &topic, P1, None).await;
    assert_eq!(texts(&mut other, 1).await, ["x"]);
    for _ in 0..3 {
        let mut stream = open(&log, &topic, P0, Some(offsets[1])).await;
        assert_eq!(texts(&mut stream, 1).await, ["b"]);
        drop(stream);
    }
    assert_eq!(texts(&mut other, 1).await, ["y"], "the neighbour's stream isn't touched");
}

/// A partition that nobody reads holds up no other.
pub async fn partitions_are_read_apart(harness: &dyn LogHarness) {
    let log = harness.connect().await;
    let (topic, second) = (harness.create_topic(2).await, harness.create_topic(2).await);
    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    append(harness, &topic, P0, &many).await;
    append(harness, &topic, P1, &["x"]).await;
    append(harness, &second, P1, &["y"]).await;
    let mut idle = open(&log, &topic, P0, None).await;
    let mut read = open(&log, &topic, P1, None).await;
    let mut beside = open(&log, &second, P1, None).await;
    assert_eq!((texts(&mut read, 1).await, texts(&mut beside, 1).await), (vec!["x".into()], vec!["y".into()]));
    nothing_comes(&mut read).await;
    assert_eq!(texts(&mut idle, 100).await, many);
}

/// I7: what was deleted before it was read is a reason to halt.
pub async fn a_deleted_offset_is_an_error_and_never_skipped(harness: &dyn LogHarness) {
    if !harness.features().deletion {
        return;
    }
    let (log, topic) = (harness.connect().await, harness.create_topic(1).await);
    let offsets = append(harness, &topic, P0, &["a", "b", "c"]).await;
    harness.delete_before(&topic, P0, offsets[2]).await;
    expect_out_of_range(&log, &topic, offsets[0]).await;
    let mut stream = open(&log, &topic, P0, Some(offsets[2])).await;
    assert_eq!(texts(&mut stream, 1).await, ["c"]);
}

/// Nor may a topic that was recreated pass for an old one.
pub async fn an_offset_past_the_end_is_an_error(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(1).await);
    append(harness, &topic, P0, &["a"]).await;
    expect_out_of_range(&log, &topic, 1_000).await;
}

async fn expect_out_of_range(log: &Arc<dyn Log>, topic: &str, from: u64) {
    let outcome = match log.open(topic, P0, Some(from)).await {
        Ok(mut stream) => {
            let first = next(&mut stream).await;
            if first.is_err() {
                let second = timeout(A_WHILE, stream.next()).await;
                assert!(!matches!(second, Ok(Ok(_))), "the stream is dead after its error");
            }
            first
        }
        Err(error) => Err(error),
    };
    match outcome {
        Err(LogError::OffsetOutOfRange { topic: named, partition, offset }) => {
            assert_eq!((&*named, partition, offset), (topic, P0, from));
        }
        other => panic!("expected OffsetOutOfRange, got {other:?}"),
    }
}

/// With the remedy in its text.
pub async fn an_unknown_topic_is_named(harness: &dyn LogHarness) {
    let log = harness.connect().await;
    let outcome = timeout(PATIENCE, log.partition_count("holdfast.never.created")).await.expect("an answer in time");
    assert_eq!(outcome, Err(LogError::NoSuchTopic("holdfast.never.created".into())));
}

/// Homes depend on it.
pub async fn the_partition_count_is_the_topics(harness: &dyn LogHarness) {
    let log = harness.connect().await;
    for count in [1, 5] {
        let topic = harness.create_topic(count).await;
        assert_eq!(log.partition_count(&topic).await, Ok(count));
    }
}

/// Lag is measured by it.
pub async fn the_end_offset_becomes_known(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(1).await);
    let offsets = append(harness, &topic, P0, &["a", "b", "c"]).await;
    let mut stream = open(&log, &topic, P0, None).await;
    assert_eq!(texts(&mut stream, 1).await, ["a"]);
    let end = offsets[2] + 1;
    for _ in 0..100 {
        match stream.end_offset() {
            Some(known) if known == end => return,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("end offset {end} is not known after 5 s, but {:?}", stream.end_offset());
}

/// It is a hint for lag tools; the database says where to go on.
pub async fn a_stored_offset_moves_no_reader(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(1).await);
    append(harness, &topic, P0, &["a", "b", "c"]).await;
    let mut stream = open(&log, &topic, P0, None).await;
    assert_eq!(texts(&mut stream, 1).await, ["a"]);
    log.store_offset(&topic, P0, 3);
    assert_eq!(texts(&mut stream, 1).await, ["b"]);
    drop(stream);
    let mut stream = open(&log, &topic, P0, None).await;
    assert_eq!(texts(&mut stream, 3).await, ["a", "b", "c"]);
}

/// A reader may wait for all that was written by now to be passed, and the last of it may be no record.
pub async fn the_position_passes_what_is_no_record(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(2).await);
    append(harness, &topic, P0, &["a", "b", "c"]).await;
    harness.leave_gap(&topic, P0).await;
    harness.leave_gap(&topic, P1).await;
    let end = log.ends(&topic, &[P0]).await.expect("the log is there")[0];
    assert!(end > 3, "there is no gap");
    let mut stream = open(&log, &topic, P0, Some(0)).await;
    assert_eq!(texts(&mut stream, 2).await, ["a", "b"]);
    assert_eq!(stream.position(), Some(2), "the next record has not been delivered");
    assert_eq!(texts(&mut stream, 1).await, ["c"]);
    passes(&mut stream, end).await;
    let added = append(harness, &topic, P0, &["d"]).await;
    assert_eq!(next(&mut stream).await.expect("a record").offset, added[0]);
    assert_eq!(stream.position(), Some(added[0] + 1));
    drop(stream);

    // Where an earlier stream was says nothing of a later one.
    let stream = open(&log, &topic, P0, Some(1)).await;
    assert_eq!(stream.position(), Some(1));
    let mut stream = open(&log, &topic, P1, Some(0)).await;
    let end = log.ends(&topic, &[P1]).await.expect("the log is there")[0];
    passes(&mut stream, end).await;
}

async fn passes(stream: &mut Box<dyn RecordStream>, end: u64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while stream.position() != Some(end) {
        assert!(tokio::time::Instant::now() < deadline, "{:?} of {end} after {PATIENCE:?}", stream.position());
        nothing_comes(stream).await;
    }
}

/// What a waiter waits for may not be older than its question: ends are asked of the brokers, in the order of
/// the partitions asked for.
pub async fn ends_are_those_of_now(harness: &dyn LogHarness) {
    let (log, topic) = (harness.connect().await, harness.create_topic(3).await);
    let ends = async |partitions: &[PartitionId]| log.ends(&topic, partitions).await.expect("the log is there");
    assert_eq!(ends(&[P0, P1]).await, [0, 0]);
    append(harness, &topic, P1, &["a", "b"]).await;
    assert_eq!(ends(&[P1, P0]).await, [2, 0]);
    append(harness, &topic, P0, &["c"]).await;
    assert_eq!(ends(&[P0, P1, PartitionId(2)]).await, [1, 2, 0]);
    assert_eq!(ends(&[]).await, [0; 0]);
    assert!(
        matches!(log.ends(&topic, &[P0, PartitionId(3)]).await, Err(LogError::Unavailable(_))),
        "no such partition"
    );
}

/// Makes one test of each law of [`holdfast_core::port::log::Log`]. Takes the attribute of the tests
/// (`#[tokio::test]` if left out) and something to call without arguments whose future gives a
/// [`LogHarness`].
#[macro_export]
macro_rules! log_conformance {
    (#[$test:meta] $fresh:expr) => {
        $crate::conformance_laws! { #[$test] $crate::conformance::log, $fresh;
            records_come_in_offset_order_as_they_were_written
            reading_starts_at_the_offset_asked_for
            bounds_are_those_of_now
            a_topic_made_again_has_another_mark
            reading_from_nowhere_starts_where_the_log_does
            a_stream_waits_for_what_is_appended_later
            next_is_cancel_safe
            a_stream_can_be_dropped_and_opened_again
            partitions_are_read_apart
            a_deleted_offset_is_an_error_and_never_skipped
            an_offset_past_the_end_is_an_error
            an_unknown_topic_is_named
            the_partition_count_is_the_topics
            the_end_offset_becomes_known
            the_position_passes_what_is_no_record
            ends_are_those_of_now
            a_stored_offset_moves_no_reader
        }
    };
    ($fresh:expr) => {
        $crate::log_conformance! { #[tokio::test] $fresh }
    };
}
