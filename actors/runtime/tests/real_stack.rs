//! The README's counter on a real Kafka and a real Postgres: through the log and by call, before and after a
//! restart.

#[path = "../examples/counter.rs"]
#[allow(dead_code)]
mod counter;

use std::{sync::Arc, time::Duration};

use holdfast_core::{
    KeyHash,
    batch::{OutboxDraft, OutboxRow},
    envelope::EnvelopeOut,
    port::log::Publisher,
};
use holdfast_kafka::{KafkaConfig, KafkaPublisher};
use holdfast_runtime::{Consistency, Node, Router};
use holdfast_stack::Stack;
use uuid::Uuid;

async fn owned(node: &Node) {
    let all = async {
        while node.owned_partitions() < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), all).await.expect("all partitions owned");
}

fn command(key: &str, n: usize, sequence: u64) -> OutboxRow {
    let id = Uuid::now_v7();
    let headers =
        EnvelopeOut::new(id, "test", "example.v1.Add", holdfast_core::Timestamp::from_unix_ms(0), key).headers();
    let (key, value) = (Some(key.to_owned().into()), Some(n.to_string().into()));
    let target = KeyHash::of(key.as_deref().unwrap_or_default()).home(4);
    let draft = OutboxDraft { id, topic: "counter.commands".into(), target, key, headers, value };
    OutboxRow { partition: target, sequence, draft }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counter_counts_on_the_real_stack_and_remembers() {
    let stack = Stack::shared_for_tests().await;
    let database = stack.postgres_url("postgres");
    let node = counter::serve(stack.brokers(), &database).await.expect("serves");
    owned(&node).await;
    let producer = KafkaPublisher::new(&KafkaConfig::new(stack.brokers(), "counter")).expect("a producer");
    let rows: Vec<OutboxRow> = (1..=2000).map(|n| command(&format!("k{}", n % 50), 1, n)).collect();
    producer.publish(Arc::from(rows)).await.expect("published");
    for k in 0..50 {
        let read = tokio::time::timeout(Duration::from_mins(1), async {
            loop {
                let read = node.read("counter", &format!("k{k}"), Consistency::Strong, 0).await.expect("owned");
                if read.version == 40 {
                    return read;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert_eq!(&*read.await.expect("all applied").body, b"40");
    }
    node.command(counter::add("k1", 2)).await.expect("applied");
    node.stop().await;

    let node = counter::serve(stack.brokers(), &database).await.expect("serves again");
    owned(&node).await;
    let read = node.read("counter", "k1", Consistency::Strong, 41).await.expect("owned");
    assert_eq!((read.version, &*read.body), (41, &b"42"[..]));
    node.stop().await;
}
