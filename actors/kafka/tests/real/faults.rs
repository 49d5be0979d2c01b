//! A broker that dies and comes back: nothing lost, nothing reordered, nobody needs a restart.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_core::{
    partition::PartitionId,
    port::log::{Membership, Publisher},
};
use holdfast_kafka::{KafkaLog, KafkaMembership, KafkaPublisher};
use tokio::sync::Mutex;

use crate::rig::{context, next, number, open, own_broker, patiently, rows, until};

/// Brokers of one's own, one at a time: they are heavy.
static ALONE: Mutex<()> = Mutex::const_new(());

/// One stream and one publisher live through three deaths of the broker while calls overlap. Kafka
/// acknowledges from its page cache, which survives SIGKILL, so every row must be there once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_costs_time_but_no_record_and_no_order() {
    let _alone = ALONE.lock().await;
    let stack = Arc::new(own_broker().await);
    let config = context(stack.brokers(), 1).await;
    let topic = config.commands_topic();
    let done = Arc::new(AtomicU64::new(0));
    let publishing = tokio::spawn({
        let (config, topic, done) = (config.clone(), topic.clone(), Arc::clone(&done));
        async move {
            let publisher = Arc::new(KafkaPublisher::new(&config).expect("publisher"));
            let mut at = 0_u64;
            let mut ahead = std::collections::VecDeque::new();
            while at < 6_000 || !ahead.is_empty() {
                while ahead.len() < 5 && at < 6_000 {
                    // Polled once before the next is made, so that the calls' order is known.
                    let mut call = Box::pin({
                        let (publisher, all) = (Arc::clone(&publisher), rows(&topic, 0, at..at + 20));
                        async move { publisher.publish(all).await }
                    });
                    let early = futures::poll!(&mut call);
                    assert!(early.is_pending());
                    ahead.push_back((at + 20, call));
                    at += 20;
                }
                let (end, call) = ahead.pop_front().expect("not empty");
                call.await.expect("a broker that is away is waited for");
                done.store(end, Ordering::Release);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    let killing = tokio::spawn({
        let (stack, done) = (Arc::clone(&stack), Arc::clone(&done));
        async move {
            for at in [1_000, 2_500, 4_000] {
                while done.load(Ordering::Acquire) < at {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                stack.kill_kafka().await;
                tokio::time::sleep(Duration::from_millis(700)).await;
                stack.start_kafka().await.expect("it comes back");
            }
        }
    });
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    for expected in 0..6_000 {
        let record = next(&mut stream).await;
        assert_eq!((record.offset, number(&record)), (expected, expected), "lost, doubled or out of order");
    }
    publishing.await.expect("published");
    killing.await.expect("killed");
    assert_eq!(log.watermarks(&topic, PartitionId(0)).await.map(|(_, end)| end), Ok(6_000));
}

/// Rows not acknowledged when the producer is replaced in the middle of an outage go out again, and first
/// occurrences keep their order.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_during_an_outage_keeps_first_occurrences_in_order() {
    let _alone = ALONE.lock().await;
    let stack = own_broker().await;
    let config = context(stack.brokers(), 1).await;
    let topic = config.commands_topic();
    let publisher = Arc::new(KafkaPublisher::new(&config).expect("publisher"));
    patiently(publisher.publish(rows(&topic, 0, 0..100))).await.expect("published");
    stack.kill_kafka().await;
    let waiting = tokio::spawn({
        let (publisher, all) = (Arc::clone(&publisher), rows(&topic, 0, 100..200));
        async move { publisher.publish(all).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    patiently(publisher.reset()).await;
    patiently(waiting).await.expect("joined").expect_err("its producer is gone");
    let again = tokio::spawn({
        let (publisher, all) = (Arc::clone(&publisher), rows(&topic, 0, 100..300));
        async move { publisher.publish(all).await }
    });
    stack.start_kafka().await.expect("it comes back");
    patiently(again).await.expect("joined").expect("published");
    let log = KafkaLog::new(&config).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    let (mut first, mut seen) = (Vec::new(), BTreeSet::new());
    while seen.len() < 300 {
        let n = number(&next(&mut stream).await);
        if seen.insert(n) {
            first.push(n);
        }
    }
    assert!(first.iter().copied().eq(0..300));
}

/// Members outlive a broker's restart without losing their partitions for long.
#[tokio::test(flavor = "multi_thread")]
async fn members_outlive_a_broker_restart() {
    let _alone = ALONE.lock().await;
    let stack = own_broker().await;
    let config = context(stack.brokers(), 4).await;
    let member = KafkaMembership::join(&config).expect("join");
    let all = (0..4).map(PartitionId).collect::<BTreeSet<_>>();
    assert_eq!(patiently(member.changed()).await.expect("assigned"), all);
    stack.kill_kafka().await;
    assert!(!patiently(member.confirm(PartitionId(0))).await, "nobody is there to confirm it");
    stack.start_kafka().await.expect("it comes back");
    until("it is confirmed again", async || member.confirm(PartitionId(0)).await).await;
    patiently(member.leave()).await;
}

/// Leaving while the coordinator is away ends in time (rust-rdkafka#509, librdkafka#5327: closing then hangs
/// or crashes).
#[tokio::test(flavor = "multi_thread")]
async fn leaving_without_a_coordinator_ends_in_time() {
    let _alone = ALONE.lock().await;
    let stack = own_broker().await;
    let config = context(stack.brokers(), 4).await;
    let member = KafkaMembership::join(&config).expect("join");
    patiently(member.changed()).await.expect("assigned");
    stack.kill_kafka().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = std::time::Instant::now();
    member.leave().await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert!(!member.joined());
}
