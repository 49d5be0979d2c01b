//! The laws of [`Publisher`] (I3: first occurrences are in order).
//!
//! ```ignore
//! holdfast_testkit::publisher_conformance! {
//!     #[tokio::test(flavor = "multi_thread")]
//!     async || KafkaPublisherHarness::fresh().await
//! }
//! ```

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{join_all, poll_immediate};
use holdfast_core::{
    Headers, PartitionId, Record,
    batch::{OutboxDraft, OutboxRow},
    port::log::{Landed, PublishError, Publisher},
};
use tokio::time::timeout;
use uuid::Uuid;

/// Long enough for a real broker; a law that waits this long fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// One publisher under test.
#[async_trait]
pub trait PublisherHarness: Send + Sync {
    /// A node's own producer.
    async fn connect(&self) -> Arc<dyn Publisher>;

    /// Creates a topic with a name never used before, and waits until it is usable.
    async fn create_topic(&self, partitions: u32) -> Arc<str>;

    /// Sets the largest record batch that `topic` takes, and waits until that holds.
    async fn set_bytes_max(&self, topic: &str, bytes: u64);

    /// Everything that is in the partition now, from its start.
    async fn read(&self, topic: &str, partition: PartitionId) -> Vec<Record>;
}

/// Rows from `first` on, in turn to the first `spread` partitions; each says its number.
fn rows(topic: &Arc<str>, spread: u32, first: u64, n: u64) -> Arc<[OutboxRow]> {
    let row = |sequence: u64| OutboxRow {
        partition: PartitionId(0),
        sequence,
        draft: OutboxDraft {
            id: Uuid::now_v7(),
            topic: Arc::clone(topic),
            target: PartitionId(u32::try_from(sequence % u64::from(spread)).expect("below a u32")),
            key: Some(Bytes::from(format!("k{}", sequence % 7))),
            headers: Headers::default(),
            value: Some(Bytes::from(sequence.to_string())),
        },
    };
    (first..first + n).map(row).collect()
}

async fn publish(publisher: &Arc<dyn Publisher>, rows: Arc<[OutboxRow]>) -> Result<Landed, PublishError> {
    timeout(PATIENCE, publisher.publish(rows)).await.expect("an answer in time")
}

/// The numbers that are readable in one partition.
async fn read(harness: &dyn PublisherHarness, topic: &str, partition: u32) -> Vec<u64> {
    let records = harness.read(topic, PartitionId(partition)).await;
    let number = |record: &Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).parse();
    records.iter().map(|record| number(record).expect("a number")).collect()
}

/// Whatever their keys hash to.
pub async fn rows_arrive_in_order_in_the_partition_written_in_them(harness: &dyn PublisherHarness) {
    const N: u64 = 3_000;
    let (publisher, topic) = (harness.connect().await, harness.create_topic(3).await);
    for first in (0..N).step_by(1_000) {
        publish(&publisher, rows(&topic, 3, first, 1_000)).await.expect("published");
    }
    for partition in 0..3 {
        let expected: Vec<u64> = (0..N).filter(|n| n % 3 == u64::from(partition)).collect();
        assert_eq!(read(harness, &topic, partition).await, expected, "partition {partition}");
    }
}

/// The relay has several batches under way.
pub async fn overlapping_calls_keep_call_order(harness: &dyn PublisherHarness) {
    let (publisher, topic) = (harness.connect().await, harness.create_topic(2).await);
    let calls = (0..40).map(|n| publish(&publisher, rows(&topic, 2, n * 25, 25)));
    for outcome in join_all(calls).await {
        outcome.expect("published");
    }
    for partition in 0..2 {
        let expected: Vec<u64> = (0..1_000).filter(|n| n % 2 == u64::from(partition)).collect();
        assert_eq!(read(harness, &topic, partition).await, expected, "partition {partition}");
    }
}

/// I1: the cursor moves on the strength of it.
pub async fn an_acknowledged_row_can_be_read(harness: &dyn PublisherHarness) {
    let (publisher, topic) = (harness.connect().await, harness.create_topic(1).await);
    for n in 0..10 {
        publish(&publisher, rows(&topic, 1, n, 1)).await.expect("published");
        assert_eq!(read(harness, &topic, 0).await.last(), Some(&n));
    }
    publish(&publisher, Arc::from([])).await.expect("nothing is acknowledged at once");
}

/// Offsets below the one that a call returns are taken as known; so it must be exact.
pub async fn a_call_tells_where_its_rows_landed(harness: &dyn PublisherHarness) {
    let (publisher, topic) = (harness.connect().await, harness.create_topic(3).await);
    let other = harness.create_topic(1).await;
    let mut all = rows(&topic, 2, 0, 100).to_vec();
    all.extend(rows(&other, 1, 100, 7).iter().cloned());
    for round in 1..=3_u64 {
        let mut landed = publish(&publisher, all.clone().into()).await.expect("published").0;
        landed.sort_by_key(|landing| (landing.topic != topic, landing.partition));
        let ends: Vec<_> =
            landed.iter().map(|landing| (&*landing.topic, landing.partition.0, landing.offset + 1)).collect();
        assert_eq!(ends, [(&*topic, 0, 50 * round), (&*topic, 1, 50 * round), (&*other, 0, 7 * round)]);
    }
    assert_eq!(publish(&publisher, Arc::from([])).await, Ok(Landed::default()));
}

/// A dead letter goes out as it came in.
pub async fn records_arrive_byte_for_byte(harness: &dyn PublisherHarness) {
    let (publisher, topic) = (harness.connect().await, harness.create_topic(1).await);
    let mut sent = rows(&topic, 1, 0, 3).to_vec();
    sent[0].draft.headers = Headers(vec![
        ("twice".into(), Some(Bytes::from_static(b"1"))),
        ("twice".into(), Some(Bytes::from_static(b"\xff\x00"))),
        ("null".into(), None),
        ("empty".into(), Some(Bytes::new())),
    ]);
    sent[0].draft.key = Some(Bytes::from_static(b"\x00\xfe"));
    sent[0].draft.value = Some(Bytes::from((0..=255).collect::<Vec<u8>>()));
    (sent[1].draft.key, sent[1].draft.value) = (None, None);
    (sent[2].draft.key, sent[2].draft.value) = (Some(Bytes::new()), Some(Bytes::new()));
    publish(&publisher, sent.clone().into()).await.expect("published");
    let records = harness.read(&topic, PartitionId(0)).await;
    assert_eq!(records.len(), 3);
    for (record, OutboxRow { draft, .. }) in records.into_iter().zip(sent) {
        assert_eq!((record.key, record.headers, record.value), (draft.key, draft.headers, draft.value));
    }
}

/// Infrastructure trouble is the caller's to repeat, from the first row that isn't known to be out.
pub async fn a_row_that_cannot_go_out_is_an_error_and_a_reset_heals(harness: &dyn PublisherHarness) {
    let (publisher, topic) = (harness.connect().await, harness.create_topic(1).await);
    publish(&publisher, rows(&topic, 1, 0, 5)).await.expect("published");
    let mut bad = rows(&topic, 1, 5, 1).to_vec();
    bad[0].draft.target = PartitionId(99);
    assert!(publish(&publisher, bad.into()).await.is_err(), "there is no partition 99");
    publisher.reset().await;
    publish(&publisher, rows(&topic, 1, 5, 5)).await.expect("published");
    assert_eq!(read(harness, &topic, 0).await, (0..10).collect::<Vec<u64>>());
}

/// With nothing wrong, too.
pub async fn publishing_goes_on_after_a_reset(harness: &dyn PublisherHarness) {
    let (publisher, topic) = (harness.connect().await, harness.create_topic(1).await);
    for n in 0..3 {
        publish(&publisher, rows(&topic, 1, n * 4, 4)).await.expect("published");
        publisher.reset().await;
    }
    assert_eq!(read(harness, &topic, 0).await, (0..12).collect::<Vec<u64>>());
}

/// And what was under way at a reset ends with an answer, and can be sent again: repeats may appear, first
/// occurrences are in order. The reset waits for no call: its caller may be the one that polls them.
pub async fn a_reset_answers_what_is_under_way(harness: &dyn PublisherHarness) {
    const N: u64 = 500;
    // A publisher that knows nothing of a topic may have to ask before it hands rows over.
    for knows_topic in [false, true] {
        let (publisher, topic) = (harness.connect().await, harness.create_topic(1).await);
        let all = rows(&topic, 1, 0, N);
        if knows_topic {
            publish(&publisher, rows(&topic, 1, 0, 1)).await.expect("published");
        }
        let mut first = Box::pin(publish(&publisher, Arc::clone(&all)));
        let answered = poll_immediate(&mut first).await;
        timeout(PATIENCE, publisher.reset()).await.expect("it waits for no call");
        if answered.is_none() {
            // Published or given up, but not left hanging.
            let _ = first.await;
        }
        publish(&publisher, all).await.expect("published");
        let mut seen = std::collections::BTreeSet::new();
        let firsts: Vec<u64> = read(harness, &topic, 0).await.into_iter().filter(|n| seen.insert(*n)).collect();
        assert_eq!(firsts, (0..N).collect::<Vec<u64>>());
    }
}

/// What no topic of [`OTHERS_MAX`] takes, as row `at` of `rows`.
fn with_large(rows: &[OutboxRow], at: usize) -> Vec<OutboxRow> {
    let mut rows = rows.to_vec();
    rows[at].draft.headers.push("large", "x".repeat(2 * OTHERS_MAX));
    rows
}

/// Enough for every other row.
const OTHERS_MAX: usize = 10_000;

/// Publishes all of `rows` as a relay does, and returns the sequences of those that were refused; they are
/// left out.
async fn publish_all(publisher: &Arc<dyn Publisher>, rows: &[OutboxRow]) -> Vec<u64> {
    let (mut refused, mut next) = (Vec::new(), 0);
    let publishing = async {
        while next < rows.len() {
            match publisher.publish(rows[next..].into()).await {
                Ok(_) => break,
                Err(PublishError::Stopped(_)) => {}
                Err(PublishError::Refused { sequence, .. }) => {
                    refused.push(sequence);
                    next = rows.iter().position(|row| row.sequence == sequence).expect("one of them") + 1;
                }
            }
            publisher.reset().await;
        }
    };
    timeout(PATIENCE, publishing).await.expect("it ends");
    refused
}

/// I7: the one at fault is named, what is before it is out, what is behind it is not.
pub async fn a_row_larger_than_its_topic_takes_is_refused_alone(harness: &dyn PublisherHarness) {
    let (publisher, topic) = (harness.connect().await, harness.create_topic(1).await);
    harness.set_bytes_max(&topic, OTHERS_MAX as u64).await;
    let all = with_large(&rows(&topic, 1, 0, 20), 7);
    let (answer, behind) = tokio::join!(publish(&publisher, all.into()), publish(&publisher, rows(&topic, 1, 20, 5)));
    let refused = answer.expect_err("it is too large");
    assert!(matches!(&refused, PublishError::Refused { sequence: 7, partition: PartitionId(0), .. }), "{refused:?}");
    assert!(matches!(behind, Err(PublishError::Stopped(_))), "{behind:?}");
    assert_eq!(read(harness, &topic, 0).await, (0..7).collect::<Vec<u64>>());
    publisher.reset().await;
    publish(&publisher, rows(&topic, 1, 8, 17)).await.expect("published");
    assert_eq!(read(harness, &topic, 0).await, (0..7).chain(8..25).collect::<Vec<u64>>());
}

/// A topic's limit may be lowered while rows go there: the row at fault is found among those of its batch,
/// and no other is refused.
pub async fn a_row_that_a_topic_takes_no_longer_is_found(harness: &dyn PublisherHarness) {
    const N: u64 = 200;
    let (publisher, topic) = (harness.connect().await, harness.create_topic(1).await);
    assert_eq!(publish_all(&publisher, &rows(&topic, 1, 0, 5)).await, [] as [u64; 0]);
    harness.set_bytes_max(&topic, OTHERS_MAX as u64).await;
    let mut all = with_large(&rows(&topic, 1, 5, N), 100);
    all = with_large(&all, 150);
    assert_eq!(publish_all(&publisher, &all).await, [105, 155]);
    let mut seen = std::collections::BTreeSet::new();
    let firsts: Vec<u64> = read(harness, &topic, 0).await.into_iter().filter(|n| seen.insert(*n)).collect();
    assert_eq!(firsts, (0..N + 5).filter(|n| *n != 105 && *n != 155).collect::<Vec<u64>>());
}

/// A topic that takes less than a batch of a producer: every row fits, so every row goes out.
pub async fn batches_fit_in_what_a_topic_takes(harness: &dyn PublisherHarness) {
    let (publisher, topic) = (harness.connect().await, harness.create_topic(1).await);
    harness.set_bytes_max(&topic, 1_000).await;
    for first in [0, 300] {
        publish(&publisher, rows(&topic, 1, first, 300)).await.expect("published");
    }
    assert_eq!(read(harness, &topic, 0).await, (0..600).collect::<Vec<u64>>());
}

/// Makes one test of each law of [`holdfast_core::port::log::Publisher`]. Takes the attribute of the tests
/// (`#[tokio::test]` if left out) and something to call without arguments whose future gives a
/// [`PublisherHarness`].
#[macro_export]
macro_rules! publisher_conformance {
    (#[$test:meta] $fresh:expr) => {
        $crate::conformance_laws! { #[$test] $crate::conformance::publisher, $fresh;
            rows_arrive_in_order_in_the_partition_written_in_them
            overlapping_calls_keep_call_order
            an_acknowledged_row_can_be_read
            a_call_tells_where_its_rows_landed
            records_arrive_byte_for_byte
            a_row_that_cannot_go_out_is_an_error_and_a_reset_heals
            publishing_goes_on_after_a_reset
            a_reset_answers_what_is_under_way
            a_row_larger_than_its_topic_takes_is_refused_alone
            a_row_that_a_topic_takes_no_longer_is_found
            batches_fit_in_what_a_topic_takes
        }
    };
    ($fresh:expr) => {
        $crate::publisher_conformance! { #[tokio::test] $fresh }
    };
}
