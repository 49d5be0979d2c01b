//! Publishing: rows go out in call order, and nothing counts behind a row that failed.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use holdfast_core::{
    batch::OutboxRow,
    port::log::{Log as _, PublishError, Publisher, Publishers as _},
    size,
};
use holdfast_kafka::{KafkaLog, KafkaPublisher, KafkaPublishers};

use crate::{
    rig::{broker, broker_behind, context, number, open, patiently, row, rows, take},
    unsteady::Unsteady,
};

#[tokio::test]
async fn overlapping_calls_go_out_in_call_order() {
    let config = context(broker().await.brokers(), 3).await;
    let topic = config.commands_topic();
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    // Polled in this order by `join_all`; each call has rows for every partition.
    let calls = (0..200_u64).map(|call| {
        let all: Arc<[OutboxRow]> =
            (0..3).flat_map(|target| rows(&topic, target, call * 10..call * 10 + 10).to_vec()).collect();
        publisher.publish(all)
    });
    for answer in patiently(join_all(calls)).await {
        answer.expect("published");
    }
    let log = KafkaLog::new(&config).expect("log");
    for partition in 0..3 {
        let mut stream = open(&log, &topic, partition, Some(0)).await;
        let seen = take(&mut stream, 2_000).await.iter().map(number).collect::<Vec<_>>();
        assert!(seen.iter().copied().eq(0..2_000), "partition {partition}");
        assert_eq!(stream.end_offset(), Some(2_000), "nothing twice");
    }
}

#[tokio::test]
async fn a_call_without_rows_is_done_at_once() {
    let config = context(broker().await.brokers(), 1).await;
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    patiently(publisher.publish(Arc::from([]))).await.expect("published");
}

/// A partition unknown here is the infrastructure's fault, and whatever follows it in the call order must
/// wait for a reset.
#[tokio::test]
async fn nothing_counts_behind_a_failed_row() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    patiently(publisher.publish(rows(&topic, 0, 0..10))).await.expect("published");
    let (failing, behind) = patiently(async {
        tokio::join!(publisher.publish(rows(&topic, 7, 10..11)), publisher.publish(rows(&topic, 0, 11..20)))
    })
    .await;
    let error = failing.expect_err("there is no such partition");
    assert!(error.to_string().contains("not known"), "{error}");
    behind.expect_err("it was called later");
    patiently(publisher.publish(rows(&topic, 0, 20..21))).await.expect_err("no reset yet");
    publisher.reset().await;
    patiently(publisher.publish(rows(&topic, 0, 10..30))).await.expect("published");
}

#[tokio::test]
async fn row_too_large_for_the_client_is_refused_before_what_follows() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    let mut all = rows(&topic, 0, 0..10).to_vec();
    all[5].draft.value = Some(Bytes::from(vec![0; 20 * 1024 * 1024]));
    let error = patiently(publisher.publish(all.into())).await.expect_err("too large");
    assert!(matches!(error, PublishError::Refused { sequence: 5, .. }), "{error}");
    publisher.reset().await;
    patiently(publisher.publish(rows(&topic, 0, 100..101))).await.expect("published");
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    let seen = take(&mut stream, 6).await.iter().map(number).collect::<Vec<_>>();
    assert_eq!(seen, [0, 1, 2, 3, 4, 100]);
}

/// Incompressible, and larger than a producer's batch: the DLQ takes it, and records around it keep their
/// order.
#[tokio::test]
async fn large_record_that_its_topic_takes_goes_out() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = format!("{}.dlq", config.context);
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    let mut all = rows(&topic, 0, 0..10).to_vec();
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let left = size::CLIENT_BYTES_MAX - size::of_draft(&all[5].draft) - 16;
    all[5].draft.headers.0.push(("noise".into(), Some(noise.take(left).collect::<Vec<u8>>().into())));
    patiently(publisher.publish(all.into())).await.expect("published");
    let log = KafkaLog::new(&config).expect("log");
    assert_eq!(log.bytes_max(&topic).await, Ok(Some(9 * 1024 * 1024)));
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    assert!(take(&mut stream, 10).await.iter().map(number).eq(0..10));
}

/// One lane's failure is no other's.
#[tokio::test]
async fn reset_of_one_publisher_leaves_others_alone() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let publishers = KafkaPublishers::new(&config).expect("publishers");
    let (one, other) = (publishers.publisher().expect("one"), publishers.publisher().expect("other"));
    patiently(one.publish(rows(&topic, 7, 0..1))).await.expect_err("there is no such partition");
    patiently(other.publish(rows(&topic, 0, 0..10))).await.expect("published");
    one.reset().await;
    patiently(other.publish(rows(&topic, 0, 10..20))).await.expect("published");
    patiently(one.publish(rows(&topic, 0, 20..21))).await.expect("published");
}

/// A future dropped while it waits for acknowledgements leaves the order as it is.
#[tokio::test]
async fn a_dropped_call_does_not_disturb_the_order() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    // Only the first call asks what the topic takes, and is not enqueued by one poll.
    patiently(publisher.publish(rows(&topic, 0, 0..10))).await.expect("published");
    for n in 1..50 {
        let call = publisher.publish(rows(&topic, 0, n * 10..n * 10 + 10));
        // Polled once, which enqueues it.
        let _ = tokio::time::timeout(std::time::Duration::ZERO, call).await;
    }
    patiently(publisher.publish(Arc::from([row(&topic, 0, 500)]))).await.expect("published");
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    let seen = take(&mut stream, 501).await.iter().map(number).collect::<Vec<_>>();
    assert!(seen.iter().copied().eq(0..=500));
}

/// The window is bounded: more rows than fit in it wait for room, in order.
#[tokio::test]
async fn a_full_window_is_waited_for() {
    let mut config = context(broker().await.brokers(), 1).await;
    config.properties.insert("queue.buffering.max.messages".to_owned(), "100".to_owned());
    let topic = config.commands_topic();
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    let calls = (0..10).map(|n| publisher.publish(rows(&topic, 0, n * 500..n * 500 + 500)));
    for answer in patiently(join_all(calls)).await {
        answer.expect("published");
    }
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    let seen = take(&mut stream, 5_000).await.iter().map(number).collect::<Vec<_>>();
    assert!(seen.iter().copied().eq(0..5_000));
}

/// A broker that knows nothing of a producer takes any record as its first, and librdkafka then takes the one
/// before it for delivered, though the broker has refused it (confluent-kafka-go#921).
#[tokio::test]
async fn first_record_refused_is_not_lost_behind_the_next() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its port").port();
    let (stack, broker) = broker_behind(port).await;
    let mut config = context(stack.brokers(), 2).await;
    let topic = config.commands_topic();
    let unsteady = Unsteady::serve(listener, broker, &topic, 1);
    let log = KafkaLog::new(&config).expect("log");
    config.brokers = format!("127.0.0.1:{port}");
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    let first = publisher.publish(rows(&topic, 1, 0..1));
    let next = async {
        unsteady.held.notified().await;
        publisher.publish(rows(&topic, 1, 1..2)).await
    };
    let (first, next) = patiently(async { tokio::join!(first, next) }).await;
    first.expect("published");
    next.expect("published");
    let mut stream = open(&log, &topic, 1, Some(0)).await;
    assert!(take(&mut stream, 2).await.iter().map(number).eq(0..2));
    stack.stop().await.expect("stopped");
}
