//! The in-memory log and publisher keep the laws of their ports; the publisher's faults do what they say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    Headers, PartitionId, Record,
    batch::OutboxRow,
    port::log::{Log, Publisher},
};
use holdfast_testkit::{
    Gate, MemoryLog, MemoryPublisher,
    conformance::{
        log::{Features, LogHarness},
        publisher::PublisherHarness,
    },
    sample,
};

#[derive(Default)]
struct Memory {
    log: MemoryLog,
    topics: AtomicU32,
}

impl Memory {
    fn create(&self, partitions: u32) -> Arc<str> {
        let name = format!("topic-{}", self.topics.fetch_add(1, Ordering::Relaxed));
        self.log.create_topic(&name, partitions);
        name.into()
    }
}

#[async_trait]
impl LogHarness for Memory {
    async fn connect(&self) -> Arc<dyn Log> {
        Arc::new(self.log.node())
    }

    fn features(&self) -> Features {
        Features::ALL
    }

    async fn create_topic(&self, partitions: u32) -> Arc<str> {
        self.create(partitions)
    }

    async fn append(
        &self,
        topic: &str,
        partition: PartitionId,
        key: Option<Bytes>,
        headers: Headers,
        value: Option<Bytes>,
    ) -> u64 {
        self.log.append(topic, Some(partition), key, headers, value).expect("the topic exists").1
    }

    async fn recreate(&self, topic: &str) {
        self.log.recreate_topic(topic);
    }

    async fn leave_gap(&self, topic: &str, partition: PartitionId) {
        self.log.skip_offsets(topic, partition, 2);
    }

    async fn delete_before(&self, topic: &str, partition: PartitionId, offset: u64) {
        self.log.delete_before(topic, partition, offset);
    }
}

#[async_trait]
impl PublisherHarness for Memory {
    async fn connect(&self) -> Arc<dyn Publisher> {
        Arc::new(MemoryPublisher::new(self.log.node()))
    }

    async fn create_topic(&self, partitions: u32) -> Arc<str> {
        self.create(partitions)
    }

    async fn set_bytes_max(&self, topic: &str, bytes: u64) {
        self.log.set_bytes_max(topic, bytes);
    }

    async fn read(&self, topic: &str, partition: PartitionId) -> Vec<Record> {
        self.log.records(topic, partition)
    }
}

mod log_in_paused_time {
    holdfast_testkit::log_conformance! {
        #[tokio::test(start_paused = true)]
        async || super::Memory::default()
    }
}

mod log_on_two_threads {
    holdfast_testkit::log_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || super::Memory::default()
    }
}

mod publisher_in_paused_time {
    holdfast_testkit::publisher_conformance! {
        #[tokio::test(start_paused = true)]
        async || super::Memory::default()
    }
}

mod publisher_on_two_threads {
    holdfast_testkit::publisher_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || super::Memory::default()
    }
}

fn rows(texts: &[&str]) -> Arc<[OutboxRow]> {
    let row = |(text, sequence): (&&str, u64)| OutboxRow {
        partition: PartitionId(0),
        sequence,
        draft: sample::draft("t", "k", text),
    };
    texts.iter().zip(1..).map(row).collect()
}

fn setup() -> (MemoryLog, MemoryPublisher) {
    let log = MemoryLog::new();
    log.create_topic("t", 1);
    let publisher = MemoryPublisher::new(log.node());
    (log, publisher)
}

fn texts(log: &MemoryLog) -> Vec<String> {
    log.all_records("t")
        .iter()
        .map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_failure_lets_nothing_out_until_the_reset() {
    let (log, publisher) = setup();
    publisher.fail_after(2);
    let (first, second) = tokio::join!(publisher.publish(rows(&["a", "b", "c"])), publisher.publish(rows(&["d"])));
    assert!(first.is_err() && second.is_err());
    assert!(publisher.publish(rows(&["e"])).await.is_err());
    assert_eq!(texts(&log), ["a", "b"]);
    publisher.reset().await;
    publisher.publish(rows(&["c", "d", "e"])).await.unwrap();
    assert_eq!(texts(&log), ["a", "b", "c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn lost_acknowledgements_leave_the_rows_out() {
    let (log, publisher) = setup();
    publisher.lose_acks(1);
    assert!(publisher.publish(rows(&["a", "b"])).await.is_err());
    assert_eq!(texts(&log), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn held_acknowledgements_wait_for_the_test() {
    let (log, publisher) = setup();
    let gate = Gate::closed();
    publisher.hold_acks(Some(gate.clone()));
    let publishing = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(rows(&["a"])).await }
    });
    gate.arrivals(1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!publishing.is_finished() && texts(&log) == ["a"]);
    gate.open();
    publishing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_zombie_publishes_late_what_its_successor_has_published() {
    let (log, publisher) = setup();
    let (sends, grave) = (Gate::closed(), Gate::closed());
    publisher.hold_sends(Some(sends.clone()));
    sends.let_through(1);
    let first = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(rows(&["a", "b", "c"])).await }
    });
    sends.arrivals(2).await;
    publisher.leave_zombie(grave.clone());
    publisher.reset().await;
    assert!(first.await.unwrap().is_err(), "answered at once");
    publisher.hold_sends(None);
    publisher.publish(rows(&["b", "c", "d"])).await.unwrap();
    grave.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(texts(&log), ["a", "b", "c", "d", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_log_only_delays() {
    let log = MemoryLog::new();
    log.create_topic("t", 1);
    let node = log.node();
    let publisher = MemoryPublisher::new(node.clone());
    node.set_unavailable(true);
    let publishing = tokio::spawn(async move { publisher.publish(rows(&["a"])).await });
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!publishing.is_finished() && texts(&log).is_empty());
    node.set_unavailable(false);
    publishing.await.unwrap().unwrap();
    assert_eq!(texts(&log), ["a"]);
}
