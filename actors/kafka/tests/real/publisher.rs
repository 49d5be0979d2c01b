//! Publishing: rows go out in call order, and nothing counts behind a row that failed.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use holdfast_core::{batch::OutboxRow, port::log::Publisher};
use holdfast_kafka::{KafkaLog, KafkaPublisher};

use crate::rig::{broker, context, number, open, patiently, row, rows, take};

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
    publisher.flush().await;
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

/// A partition unknown here is the infrastructure's fault, and whatever follows it in the call order must wait for a reset.
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
    assert!(error.0.contains("not known"), "{error}");
    behind.expect_err("it was called later");
    patiently(publisher.publish(rows(&topic, 0, 20..21))).await.expect_err("no reset yet");
    publisher.reset().await;
    patiently(publisher.publish(rows(&topic, 0, 10..30))).await.expect("published");
    publisher.flush().await;
}

#[tokio::test]
async fn a_row_too_large_stops_what_follows_it_before_it_is_sent() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    let mut all = rows(&topic, 0, 0..10).to_vec();
    all[5].draft.value = Some(Bytes::from(vec![0; 20 * 1024 * 1024]));
    let error = patiently(publisher.publish(all.into())).await.expect_err("too large");
    assert!(error.0.contains("row 5"), "{error}");
    publisher.reset().await;
    patiently(publisher.publish(rows(&topic, 0, 100..101))).await.expect("published");
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&100) {
        seen.extend(take(&mut stream, 1).await.iter().map(number));
    }
    assert!(seen.iter().all(|n| *n < 5 || *n == 100), "{seen:?}");
}

/// A future dropped while it waits for acknowledgements leaves the order as it is.
#[tokio::test]
async fn a_dropped_call_does_not_disturb_the_order() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let publisher = KafkaPublisher::new(&config).expect("publisher");
    for n in 0..50 {
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
