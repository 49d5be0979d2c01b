//! Measures the adapter alone on the embedded broker: records published, and records read back, per second
//! and per CPU second, with different settings. `cargo run --release -p holdfast-kafka --example measure`

#![allow(clippy::cast_precision_loss)]

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast_core::{
    batch::{OutboxDraft, OutboxRow},
    envelope::EnvelopeOut,
    partition::PartitionId,
    port::log::{Log, Publisher},
    time::Timestamp,
};
use holdfast_kafka::{
    Compression, KafkaAdmin, KafkaConfig, KafkaLog, KafkaPublisher,
    admin::{TopicSpec, plan},
};
use holdfast_stack::{Stack, StackOptions};
use uuid::Uuid;

const PARTITIONS: u32 = 12;
const ROWS: u64 = 400_000;

fn rows(topic: &Arc<str>, from: u64, count: u64) -> Arc<[OutboxRow]> {
    (from..from + count)
        .map(|n| {
            let id = Uuid::from_u128(u128::from(n));
            let key = id.to_string();
            let headers = EnvelopeOut {
                id,
                source: "holdfast/orders",
                r#type: "holdfast.orders.v1.OrderPlaced",
                time: Timestamp::from_unix_ms(1_795_305_599_999),
                subject: &key,
                sequence: Some(n),
                correlation: Some(&key),
                causation: Some(id),
                schema: Some(1),
                traceparent: None,
                tracestate: None,
            }
            .headers();
            let target = PartitionId(u32::try_from(n % u64::from(PARTITIONS)).unwrap_or(0));
            let draft = OutboxDraft {
                id,
                topic: Arc::clone(topic),
                target,
                key: Some(Bytes::from(key)),
                headers,
                value: Some(Bytes::from_static(&[7; 200])),
            };
            OutboxRow { partition: target, sequence: n, draft }
        })
        .collect()
}

/// CPU time of this process, without its children.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat.split(' ').skip(13).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

async fn publish(config: &KafkaConfig, topic: &Arc<str>, batch: u64, depth: usize, total: u64) {
    let all: Vec<_> = (0..total / batch).map(|n| rows(topic, n * batch, batch)).collect();
    let publisher = Arc::new(KafkaPublisher::new(config).expect("publisher"));
    publisher.publish(rows(topic, 0, u64::from(PARTITIONS))).await.expect("published");
    let (start, cpu_start) = (Instant::now(), cpu());
    let (mut flying, mut waits) = (VecDeque::new(), Vec::new());
    for batch in all {
        if flying.len() == depth {
            let call: tokio::task::JoinHandle<Duration> = flying.pop_front().expect("not empty");
            waits.push(call.await.expect("joined"));
        }
        let publisher = Arc::clone(&publisher);
        flying.push_back(tokio::spawn(async move {
            let start = Instant::now();
            publisher.publish(batch).await.expect("published");
            start.elapsed()
        }));
    }
    for call in flying {
        waits.push(call.await.expect("joined"));
    }
    waits.sort_unstable();
    let (took, used) = (start.elapsed(), cpu().saturating_sub(cpu_start));
    println!(
        "publish batch {batch:5} depth {depth:2} linger {:?} {:?}: {:8.0}/s, {:5.2} us CPU/row, call p50 {:?} p99 {:?}",
        config.linger,
        config.compression,
        total as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / total as f64,
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
    );
}

async fn read(config: &KafkaConfig, topic: &str, rows: u64) {
    let log = Arc::new(KafkaLog::new(config).expect("log"));
    let (start, cpu_start) = (Instant::now(), cpu());
    let mut tasks = tokio::task::JoinSet::new();
    let mut opening = Duration::ZERO;
    for partition in 0..PARTITIONS {
        let opened = Instant::now();
        let mut stream = log.open(topic, PartitionId(partition), Some(0)).await.expect("open");
        opening += opened.elapsed();
        let (_, end) = log.watermarks(topic, PartitionId(partition)).await.expect("end");
        tasks.spawn(async move {
            let mut bytes = 0;
            loop {
                let record = stream.next().await.expect("a record");
                bytes += record.size_bytes();
                if record.offset + 1 == end {
                    return bytes;
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let (took, used) = (start.elapsed(), cpu().saturating_sub(cpu_start));
    println!(
        "read prefetch {:4} KiB, fetch wait {:?}: {:8.0}/s, {:5.2} us CPU/record, open {:?} each",
        config.prefetch_bytes / 1024,
        config.fetch_wait,
        rows as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / rows as f64,
        opening / PARTITIONS,
    );
}

/// From the call of `publish` for one row to its record at a stream that waits for it.
async fn latency(config: &KafkaConfig, topic: &Arc<str>) {
    let log = KafkaLog::new(config).expect("log");
    let (_, end) = log.watermarks(topic, PartitionId(0)).await.expect("end");
    let mut streams = Vec::new();
    for partition in 0..PARTITIONS {
        let from = if partition == 0 { Some(end) } else { None };
        streams.push(log.open(topic, PartitionId(partition), from).await.expect("open"));
    }
    let publisher = KafkaPublisher::new(config).expect("publisher");
    let (mut acknowledged, mut read) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let start = Instant::now();
        publisher.publish(rows(topic, 0, 1)).await.expect("published");
        acknowledged.push(start.elapsed());
        streams[0].next().await.expect("a record");
        read.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    acknowledged.sort_unstable();
    read.sort_unstable();
    println!(
        "latency linger {:?}, fetch wait {:?}: acknowledged p50 {:?} p99 {:?}, read p50 {:?} p99 {:?}",
        config.linger, config.fetch_wait, acknowledged[150], acknowledged[297], read[150], read[297]
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let options = StackOptions { postgres: false, ..StackOptions::default() };
    let stack = Stack::start(options).await.expect("the broker starts");
    let base = KafkaConfig::new(stack.brokers(), "measure");
    let wanted = TopicSpec::of_context("measure", PARTITIONS, 1);
    KafkaAdmin::new(&base).expect("admin").apply(&plan(&[], &wanted), false).await.expect("topics");
    let commands: Arc<str> = "measure.commands".into();
    let events: Arc<str> = "measure.events".into();
    publish(&base, &commands, 256, 4, ROWS).await;
    for linger in [0, 1, 2, 5] {
        for (batch, depth) in [(64, 1), (64, 8), (512, 2), (512, 8)] {
            let config = KafkaConfig { linger: Duration::from_millis(linger), ..base.clone() };
            publish(&config, &events, batch, depth, ROWS / 4).await;
        }
    }
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        publish(&KafkaConfig { compression, ..base.clone() }, &events, 512, 8, ROWS / 2).await;
    }
    for prefetch_kib in [256, 1024, 2048, 4096] {
        let config = KafkaConfig { prefetch_bytes: prefetch_kib * 1024, ..base.clone() };
        read(&config, &commands, ROWS).await;
    }
    for (linger, wait) in [(0, 50), (1, 50), (1, 500), (1, 10)] {
        let (linger, fetch_wait) = (Duration::from_millis(linger), Duration::from_millis(wait));
        latency(&KafkaConfig { linger, fetch_wait, ..base.clone() }, &commands).await;
    }
    stack.stop().await.expect("stopped");
}
