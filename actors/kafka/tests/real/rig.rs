//! A broker, topics of one's own, rows to publish and streams to read.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use holdfast_core::{
    batch::{OutboxDraft, OutboxRow},
    envelope::{Headers, Record},
    partition::PartitionId,
    port::log::{Log, LogError, Publisher, RecordStream},
};
use holdfast_kafka::{
    KafkaConfig, KafkaLog, KafkaPublisher,
    admin::{KafkaAdmin, TopicSpec, plan},
};
use holdfast_stack::{KafkaListener, Stack, StackOptions};
use rdkafka::{
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Long enough for a slow machine; reached only by a failing test.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// One broker for all tests but those that hurt it. It lives on a runtime of its own, since each test's
/// runtime ends with the test.
pub async fn broker() -> &'static Stack {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    static SHARED: OnceCell<Stack> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let runtime = RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().expect("runtime"));
            runtime.spawn(own_broker()).await.expect("the broker's task")
        })
        .await
}

/// A broker of one's own.
pub async fn own_broker() -> Stack {
    let options = StackOptions { postgres: false, ..StackOptions::default() };
    Stack::start(options).await.expect("the broker starts")
}

/// A broker of one's own, and a further way to it that tells its clients to come back through `port`.
pub async fn broker_behind(port: u16) -> (Stack, SocketAddr) {
    let listener = KafkaListener { name: "PROXY".to_owned(), advertised_port: port };
    let options = StackOptions { postgres: false, kafka_listeners: vec![listener], ..StackOptions::default() };
    let stack = Stack::start(options).await.expect("the broker starts");
    let broker = stack.kafka_listener("PROXY").expect("the listener");
    (stack, broker)
}

/// A context with topics of `partitions` partitions that no other test uses.
pub async fn context(brokers: &str, partitions: u32) -> KafkaConfig {
    let config = KafkaConfig::new(brokers, format!("t{}", Uuid::new_v4().simple()));
    let admin = KafkaAdmin::new(&config).expect("admin");
    let wanted = TopicSpec::of_context(&config.context, partitions, 1);
    admin.apply(&plan(&[], &wanted), false).await.expect("topics");
    config
}

/// Row `sequence` for `target`, recognizable.
pub fn row(topic: &str, target: u32, sequence: u64) -> OutboxRow {
    let mut headers = Headers::default();
    headers.push("ce_sequence", sequence.to_string());
    OutboxRow {
        partition: PartitionId(target),
        sequence,
        draft: OutboxDraft {
            id: Uuid::nil(),
            topic: topic.into(),
            target: PartitionId(target),
            key: Some(Bytes::from(format!("key-{target}"))),
            headers,
            value: Some(Bytes::from(sequence.to_string())),
        },
    }
}

/// Rows `range` for `target`.
pub fn rows(topic: &str, target: u32, range: std::ops::Range<u64>) -> Arc<[OutboxRow]> {
    range.map(|sequence| row(topic, target, sequence)).collect()
}

/// What [`row`] numbered.
pub fn number(record: &Record) -> u64 {
    std::str::from_utf8(record.value.as_deref().expect("a value")).expect("text").parse().expect("a number")
}

/// Publishes rows `range`.
pub async fn fill(config: &KafkaConfig, topic: &str, target: u32, range: std::ops::Range<u64>) {
    let publisher = KafkaPublisher::new(config).expect("publisher");
    patiently(publisher.publish(rows(topic, target, range))).await.expect("published");
}

/// Opens a stream, once the last one of the partition has gone.
pub async fn open(log: &KafkaLog, topic: &str, partition: u32, from: Option<u64>) -> Box<dyn RecordStream> {
    patiently(log.open(topic, PartitionId(partition), from)).await.expect("open")
}

/// The next record, waiting through outages.
pub async fn next(stream: &mut Box<dyn RecordStream>) -> Record {
    patiently(async {
        loop {
            match stream.next().await {
                Ok(record) => return record,
                Err(LogError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

/// The next `count` records.
pub async fn take(stream: &mut Box<dyn RecordStream>, count: usize) -> Vec<Record> {
    let mut records = Vec::with_capacity(count);
    while records.len() < count {
        records.push(next(stream).await);
    }
    records
}

/// Whether nothing comes for a while.
pub async fn silent(stream: &mut Box<dyn RecordStream>) -> bool {
    tokio::time::timeout(Duration::from_millis(700), stream.next()).await.is_err()
}

/// Fails instead of hanging.
pub async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("did not happen in time")
}

/// Waits until `check` holds.
pub async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// Sets the largest record batch that `topic` takes, and waits until the broker says so.
pub async fn set_bytes_max(config: &KafkaConfig, topic: &str, bytes: u64) {
    let mut client = rdkafka::ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> =
        client.set("bootstrap.servers", &config.brokers).create().expect("admin");
    let bytes = bytes.to_string();
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
    admin.alter_configs([&change], &AdminOptions::new()).await.expect("asked").remove(0).expect("altered");
    let own = KafkaAdmin::new(config).expect("admin");
    let holds = async {
        let names = [topic.to_owned()];
        loop {
            let states = own.describe(&names).await.expect("described");
            if states[0].config.get("max.message.bytes") == Some(&bytes) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.expect("the limit holds");
}
