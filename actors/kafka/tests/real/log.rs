//! Streams: from exactly the offset asked for, in order, once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_core::{
    batch::{OutboxDraft, OutboxRow},
    envelope::Headers,
    partition::PartitionId,
    port::log::{Log, LogError, Publisher},
};
use holdfast_kafka::{KafkaAdmin, KafkaLog, KafkaPublisher};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::rig::{PATIENCE, broker, context, fill, next, number, open, patiently, rows, silent, take, until};

#[tokio::test]
async fn records_come_in_order_from_the_offset_asked_for() {
    let config = context(broker().await.brokers(), 2).await;
    let topic = config.commands_topic();
    fill(&config, &topic, 1, 0..1_000).await;
    let log = KafkaLog::new(&config).expect("log");
    assert_eq!(log.partition_count(&topic).await, Ok(2));
    for (from, first) in [(None, 0), (Some(0), 0), (Some(1), 1), (Some(500), 500), (Some(999), 999)] {
        let mut stream = open(&log, &topic, 1, from).await;
        let count = usize::try_from(1_000 - first).expect("small");
        for (at, record) in take(&mut stream, count).await.iter().enumerate() {
            let expected = first + at as u64;
            assert_eq!((record.offset, number(record)), (expected, expected), "from {from:?}");
            assert_eq!((record.partition, &*record.topic), (PartitionId(1), topic.as_str()));
        }
        assert_eq!(stream.end_offset(), Some(1_000));
    }
    assert_eq!(log.watermarks(&topic, PartitionId(1)).await, Ok((0, 1_000)));
}

/// rust-rdkafka#535: dropping a split queue strands its partition. Here the partition is unassigned with it,
/// and what was prefetched for one stream never shows up in the next.
#[tokio::test]
async fn reopened_partition_yields_exactly_from_the_given_offset() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    fill(&config, &topic, 0, 0..5_000).await;
    let log = KafkaLog::new(&config).expect("log");
    for (round, from) in [0_u64, 4_000, 100, 100, 4_999, 0, 2_500].into_iter().cycle().take(40).enumerate() {
        let mut stream = open(&log, &topic, 0, Some(from)).await;
        // Some streams are dropped before, some while, some long after the first fetch arrives.
        let count = [0, 1, 50, 1_000][round % 4].min(5_000 - usize::try_from(from).expect("small"));
        for (at, record) in take(&mut stream, count).await.iter().enumerate() {
            assert_eq!(record.offset, from + at as u64, "round {round} from {from}");
        }
    }
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    let all = take(&mut stream, 5_000).await;
    assert!(all.iter().enumerate().all(|(at, record)| record.offset == at as u64));
}

#[tokio::test]
async fn streams_of_partitions_and_topics_do_not_disturb_each_other() {
    let config = context(broker().await.brokers(), 8).await;
    let topics = [config.commands_topic(), format!("{}.events", config.context)];
    for topic in &topics {
        let all: Arc<[OutboxRow]> = (0..8).flat_map(|p| rows(topic, p, 0..300).to_vec()).collect();
        KafkaPublisher::new(&config).expect("publisher").publish(all).await.expect("published");
    }
    let log = Arc::new(KafkaLog::new(&config).expect("log"));
    let mut tasks = tokio::task::JoinSet::new();
    for topic in topics {
        for partition in 0..8 {
            let (log, topic) = (Arc::clone(&log), topic.clone());
            tasks.spawn(async move {
                let mut from = 0;
                // Opening and closing one partition must not make another lose or repeat a record.
                while from < 300 {
                    let mut stream = open(&log, &topic, partition, Some(from)).await;
                    for record in take(&mut stream, 50).await {
                        assert_eq!((record.offset, number(&record)), (from, from));
                        from += 1;
                    }
                }
            });
        }
    }
    patiently(async { while tasks.join_next().await.transpose().expect("reads").is_some() {} }).await;
}

#[tokio::test]
async fn a_partition_is_open_once_at_a_time() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let log = KafkaLog::new(&config).expect("log");
    let stream = open(&log, &topic, 0, None).await;
    assert!(matches!(log.open(&topic, PartitionId(0), None).await, Err(LogError::Unavailable(_))));
    drop(stream);
    drop(open(&log, &topic, 0, None).await);
}

#[tokio::test]
async fn stream_waits_at_log_end_and_cancelled_wait_loses_nothing() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    assert!(silent(&mut stream).await);
    let producing = tokio::spawn({
        let (config, topic) = (config.clone(), topic.clone());
        async move {
            let publisher = KafkaPublisher::new(&config).expect("publisher");
            for n in 0..200 {
                publisher.publish(rows(&topic, 0, n..n + 1)).await.expect("published");
            }
        }
    });
    let mut seen = 0;
    while seen < 200 {
        // Cancelled over and over, also between the wake-up and the read.
        if let Ok(record) = tokio::time::timeout(Duration::from_micros(300), stream.next()).await {
            assert_eq!(number(&record.expect("a record")), seen);
            seen += 1;
        }
    }
    producing.await.expect("produced");
}

#[tokio::test]
async fn a_deleted_or_future_offset_halts_the_stream() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    fill(&config, &topic, 0, 0..100).await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create().expect("admin");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, Offset::Offset(60)).expect("valid");
    admin.delete_records(&before, &AdminOptions::new()).await.expect("deleted");
    let log = KafkaLog::new(&config).expect("log");
    for gone in [0, 59, 101, 5_000] {
        let mut stream = open(&log, &topic, 0, Some(gone)).await;
        let expected = LogError::OffsetOutOfRange { topic: topic.clone(), partition: PartitionId(0), offset: gone };
        for _ in 0..2 {
            let error = patiently(async {
                loop {
                    match stream.next().await {
                        Err(LogError::Unavailable(_)) => {}
                        other => return other.expect_err("the offset is not there"),
                    }
                }
            });
            assert_eq!(error.await, expected, "a dead stream stays dead");
        }
    }
    let mut stream = open(&log, &topic, 0, Some(60)).await;
    assert_eq!(next(&mut stream).await.offset, 60);
    drop(stream);
    assert_eq!(next(&mut open(&log, &topic, 0, None).await).await.offset, 60, "the log's start");
    let mut end = open(&log, &topic, 0, Some(100)).await;
    assert!(silent(&mut end).await, "the end is not out of range");
}

#[tokio::test]
async fn missing_topic_and_missing_partition_give_distinct_errors() {
    let config = context(broker().await.brokers(), 1).await;
    let log = KafkaLog::new(&config).expect("log");
    let missing = "nowhere.commands";
    let no_topic = LogError::NoSuchTopic(missing.to_owned());
    assert_eq!(log.partition_count(missing).await, Err(no_topic.clone()));
    assert_eq!(log.open(missing, PartitionId(0), None).await.map(|_| ()).expect_err("missing"), no_topic);
    let beyond = log.open(&config.commands_topic(), PartitionId(1), None).await.map(|_| ());
    assert!(matches!(beyond, Err(LogError::Unavailable(_))), "{beyond:?}");
}

/// A topic deleted under an open stream ends it, once the brokers say so.
#[tokio::test]
async fn a_deleted_topic_ends_its_stream() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    fill(&config, &topic, 0, 0..10).await;
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, None).await;
    take(&mut stream, 10).await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create().expect("admin");
    admin.delete_topics(&[&topic], &AdminOptions::new()).await.expect("deleted");
    // librdkafka believes it a few metadata refreshes later.
    let ended = tokio::time::timeout(PATIENCE * 2, async {
        loop {
            match stream.next().await {
                Err(LogError::Unavailable(_)) => {}
                other => return other,
            }
        }
    });
    assert_eq!(ended.await.expect("in time").map(drop), Err(LogError::NoSuchTopic(topic)));
}

/// New partitions are read from their first record on (KAFKA-12261: `auto.offset.reset=latest` would lose
/// some).
#[tokio::test]
async fn partitions_added_live_are_read_from_their_first_record() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let log = KafkaLog::new(&config).expect("log");
    let _old = open(&log, &topic, 0, None).await;
    KafkaAdmin::new(&config).expect("admin").grow(&topic, 3).await.expect("grown");
    until("the partition is known", async || log.partition_count(&topic).await == Ok(3)).await;
    fill(&config, &topic, 2, 0..10).await;
    let mut stream = open(&log, &topic, 2, None).await;
    assert_eq!(number(&next(&mut stream).await), 0);
}

/// Offsets jump over transaction markers; aborted records are not read.
#[tokio::test]
async fn gaps_in_the_offsets_are_passed_over() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let (brokers, name) = (config.brokers.clone(), topic.clone());
    let producing = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("transactional.id", &name)
            .create()
            .expect("producer");
        let wait = Duration::from_secs(20);
        producer.init_transactions(wait).expect("init");
        for n in 0..6 {
            producer.begin_transaction().expect("begin");
            let value = n.to_string();
            producer.send(BaseRecord::to(&name).partition(0).key("k").payload(&value)).expect("sent");
            producer.flush(wait).expect("flushed");
            if n % 2 == 0 { producer.commit_transaction(wait) } else { producer.abort_transaction(wait) }.expect("end");
        }
    });
    producing.await.expect("produced");
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    let read = take(&mut stream, 3).await;
    assert_eq!(read.iter().map(|r| (r.offset, number(r))).collect::<Vec<_>>(), [(0, 0), (4, 2), (8, 4)]);
    drop(stream);
    // An offset inside a gap is a good place to start.
    assert_eq!(next(&mut open(&log, &topic, 0, Some(1)).await).await.offset, 4);
}

/// Sends one batch of `records` records of `bytes` zeros each, compressed.
async fn send_compressed(brokers: &str, topic: &str, records: usize, bytes: usize) {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let sent = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("compression.codec", "zstd")
            .set("message.max.bytes", "1000000000")
            .set("batch.size", "1000000000")
            .set("batch.num.messages", "1000000")
            .set("linger.ms", "200000")
            .create()
            .expect("producer");
        let zeros = vec![0; bytes];
        for _ in 0..records {
            let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(0).payload(&zeros);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(PATIENCE)
    });
    sent.await.expect("it ends").expect("the broker takes it");
}

/// Batches that decompress to 80 MB, which librdkafka gives as an error for ever, are passed by name, each
/// without a fetch for each of its records; what lies between and behind them is read.
#[tokio::test]
async fn batches_that_cannot_be_decompressed_are_passed() {
    const RECORDS: u64 = 20_000;
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    fill(&config, &topic, 0, 0..3).await;
    for (records, bytes) in [(1, 80_000_000), (20_000, 4_000), (20_000, 4_000)] {
        send_compressed(&config.brokers, &topic, records, bytes).await;
        fill(&config, &topic, 0, 3..5).await;
    }
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    let began = std::time::Instant::now();
    let (mut passed, mut read) = (Vec::new(), Vec::new());
    while read.len() < 9 {
        match patiently(stream.next()).await {
            Ok(record) => read.push((record.offset, number(&record))),
            Err(LogError::Unreadable { offset, .. }) => passed.push(offset),
            Err(LogError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let (second, third) = (6, 8 + RECORDS);
    let unreadable = (3..4).chain(second..second + RECORDS).chain(third..third + RECORDS);
    assert!(passed.iter().copied().eq(unreadable), "{} passed", passed.len());
    let behind = |offset| [(offset, 3), (offset + 1, 4)];
    let readable =
        [[(0, 0), (1, 1)].as_slice(), &[(2, 2)], &behind(4), &behind(second + RECORDS), &behind(third + RECORDS)];
    assert_eq!(read, readable.concat());
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

/// Whatever a producer puts in a record arrives, and nothing in it can bring the reader down.
#[tokio::test]
async fn foreign_records_arrive_as_they_are() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let headers = Headers(vec![
        ("twice".into(), Some(Bytes::from_static(b"1"))),
        ("null".into(), None),
        ("empty".into(), Some(Bytes::new())),
        ("twice".into(), Some(Bytes::from_static(&[0, 159, 146, 150]))),
    ]);
    let parts = [
        (None, None, Headers::default()),
        (Some(Bytes::new()), Some(Bytes::new()), headers.clone()),
        (Some(Bytes::from_static(&[255, 0])), Some(Bytes::from(vec![7; 100_000])), headers),
        (None, Some(Bytes::from(vec![8; 8 * 1024 * 1024 - 2_000])), Headers::default()),
    ];
    let all: Arc<[OutboxRow]> = parts
        .iter()
        .map(|(key, value, headers)| OutboxRow {
            partition: PartitionId(0),
            sequence: 1,
            draft: OutboxDraft {
                id: uuid::Uuid::nil(),
                topic: topic.as_str().into(),
                target: PartitionId(0),
                key: key.clone(),
                headers: headers.clone(),
                value: value.clone(),
            },
        })
        .collect();
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    patiently(publisher.publish(all)).await.expect("published");
    raw_header_name(&config.brokers, &topic).await;
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, None).await;
    for (key, value, headers) in parts {
        let record = next(&mut stream).await;
        assert_eq!((record.key, record.headers), (key, headers));
        assert!(record.value == value, "another value of {:?} bytes", record.value.map(|v| v.len()));
        assert!(record.timestamp.is_some());
    }
    // rust-rdkafka's own iterator panics on this one.
    let record = next(&mut stream).await;
    assert_eq!(record.headers.0, [("\u{fffd}\u{fffd}".into(), Some(Bytes::from_static(b"v")))]);
}

/// Sends a record with a header whose name isn't UTF-8; rust-rdkafka's types don't allow one, so the bytes go
/// in by the back door.
async fn raw_header_name(brokers: &str, topic: &str) {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let sending = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("producer");
        let headers = rdkafka::message::OwnedHeaders::new();
        let native = std::ptr::from_ref(headers.as_borrowed()).cast_mut().cast();
        #[allow(unsafe_code)]
        // SAFETY: a borrowed list of headers is librdkafka's own list by another type; name and value are
        // copied.
        unsafe {
            rdkafka::bindings::rd_kafka_header_add(native, [0xff_u8, 0xfe].as_ptr().cast(), 2, b"v".as_ptr().cast(), 1);
        }
        let record = BaseRecord::<(), str>::to(&topic).partition(0).payload("x").headers(headers);
        producer.send(record).map_err(|(error, _)| error).expect("sent");
        producer.flush(Duration::from_secs(20)).expect("flushed");
    });
    sending.await.expect("sent");
}

/// Offsets stored are hints: they reach the group for lag tools, and are never where reading starts.
#[tokio::test]
async fn stored_offsets_reach_the_inputs_group() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = format!("{}.events", config.context);
    fill(&config, &topic, 0, 0..10).await;
    let log = KafkaLog::new(&config).expect("log");
    log.store_offset(&topic, PartitionId(0), 3);
    log.store_offset(&topic, PartitionId(0), 7);
    let group = config.inputs_group();
    until("the hint is committed", async || committed(&config.brokers, &group, &topic).await == Some(7)).await;
    let mut stream = open(&log, &topic, 0, None).await;
    assert_eq!(next(&mut stream).await.offset, 0);
}

/// What a lag tool sees.
pub async fn committed(brokers: &str, group: &str, topic: &str) -> Option<i64> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let (brokers, group, topic) = (brokers.to_owned(), group.to_owned(), topic.to_owned());
    let asking = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", group).create().expect("consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let answer = consumer.committed_offsets(list, Duration::from_secs(10)).ok()?;
        match answer.find_partition(&topic, 0)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    });
    asking.await.expect("asked")
}
