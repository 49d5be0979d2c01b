//! Records that are too large for their topic, and records that the broker refuses for their own sake: each
//! holds up its topic and key alone (I3, I6, I7), across take-over and growth, and its queue comes out in
//! order.
//!
//! The rules left out that the model finds (`stores_stuck_before_cursor`, `reads_stuck_before_sending`,
//! sending on behind a record that may be refused) are found here too.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use holdfast_core::{
    KeyHash,
    batch::OutboxRow,
    disposition::{DeadLetterReason, Refused},
    envelope::{EnvelopeOut, Headers},
    stuck::{DISCARDED_TYPE, Order},
};
use holdfast_runtime::{Config, RouteError, Router as _, Rules};
use holdfast_testkit::Gate;
use uuid::Uuid;

use crate::cluster::{Cluster, Member, PARTITIONS, TOPICS, call, eventually, home, text};

/// An event with this body is refused.
const BAD: &str = "13";

fn is_bad(row: &OutboxRow) -> bool {
    row.draft.value.as_deref() == Some(BAD.as_bytes())
}

/// Another key with the home of `key`.
fn neighbour(key: &str) -> String {
    (0..1000).map(|n| format!("n{n}")).find(|other| home(other) == home(key) && other != key).expect("one of four")
}

fn bodies(cluster: &Cluster, key: &str) -> Vec<String> {
    cluster.events().remove(key).unwrap_or_default().into_iter().map(|(_, body)| body).collect()
}

fn stuck(cluster: &Cluster) -> usize {
    cluster.store.contents().stuck.len()
}

async fn owned(member: &Member, count: u32) {
    eventually("owned", || member.node.owned_partitions() == count as usize).await;
}

/// A node that refuses one event of "a", and what was sent behind it.
async fn refusing(cluster: &Cluster, change: impl FnOnce(&mut Config)) -> Member {
    let member = cluster.start_with(change).await;
    owned(&member, PARTITIONS).await;
    member.publisher.refuse(is_bad);
    for body in ["1", BAD, "5"] {
        cluster.send("a", "add", body);
    }
    eventually("set aside", || stuck(cluster) == 2).await;
    member
}

#[tokio::test(start_paused = true)]
async fn refused_record_holds_up_its_key_alone() {
    let cluster = Cluster::new();
    let member = refusing(&cluster, |_| {}).await;
    let other = neighbour("a");
    for n in 1..=50 {
        cluster.send(&other, "add", &(100 + n).to_string());
        cluster.send("a", "add", &n.to_string());
    }
    eventually("the neighbour's events are out", || bodies(&cluster, &other).len() == 50).await;
    eventually("at rest", || cluster.is_at_rest()).await;
    assert_eq!(bodies(&cluster, "a"), ["1"], "nothing overtakes the refused record");
    assert_eq!(stuck(&cluster), 52);
    member.publisher.refuse_nothing();
    assert_eq!(cluster.store.order_stuck(&Order::Retry), 1);
    eventually("all released", || stuck(&cluster) == 0).await;
    cluster.assert_converged().await;
    member.node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retried_record_that_is_refused_again_stays_stuck() {
    let cluster = Cluster::new();
    let member = refusing(&cluster, |_| {}).await;
    cluster.store.order_stuck(&Order::Retry);
    eventually("refused again", || cluster.store.contents().stuck.values().any(|stuck| stuck.attempts == 2)).await;
    cluster.send(&neighbour("a"), "add", "7");
    eventually("the neighbour goes on", || bodies(&cluster, &neighbour("a")) == ["7"]).await;
    assert_eq!((bodies(&cluster, "a"), stuck(&cluster)), (vec!["1".to_owned()], 2));
    member.publisher.refuse_nothing();
    cluster.store.order_stuck(&Order::Retry);
    eventually("all released", || stuck(&cluster) == 0).await;
    cluster.assert_converged().await;
}

#[tokio::test(start_paused = true)]
async fn stuck_queue_survives_take_over() {
    let cluster = Cluster::new();
    let first = refusing(&cluster, |_| {}).await;
    first.node.kill();
    cluster.group.expel(&first.membership);
    let second = cluster.start().await;
    owned(&second, PARTITIONS).await;
    cluster.send("a", "add", "7");
    eventually("queued behind", || stuck(&cluster) == 3).await;
    assert_eq!(bodies(&cluster, "a"), ["1"]);
    cluster.store.order_stuck(&Order::Retry);
    eventually("all released", || stuck(&cluster) == 0).await;
    cluster.assert_converged().await;
    assert_eq!(bodies(&cluster, "a"), ["1", BAD, "5", "7"]);
}

#[tokio::test(start_paused = true)]
async fn stuck_queue_moves_with_its_key() {
    let cluster = Cluster::new();
    let to = PARTITIONS * 2;
    let key =
        (0..1000).map(|n| format!("m{n}")).find(|key| KeyHash::of(key.as_bytes()).home(to) != home(key)).expect("one");
    let member = cluster.start().await;
    owned(&member, PARTITIONS).await;
    member.publisher.refuse(is_bad);
    for body in ["1", BAD, "5"] {
        cluster.send(&key, "add", body);
    }
    eventually("set aside", || stuck(&cluster) == 2).await;
    for topic in TOPICS {
        cluster.grow(topic, to);
    }
    eventually("grown", || member.node.partition_count() == to).await;
    owned(&member, to).await;
    cluster.send(&key, "add", "7");
    eventually("queued behind, at its new home", || stuck(&cluster) == 3).await;
    assert_eq!(bodies(&cluster, &key), ["1"]);
    member.publisher.refuse_nothing();
    cluster.store.order_stuck(&Order::Retry);
    eventually("all released", || stuck(&cluster) == 0).await;
    cluster.assert_converged().await;
    let moved = KeyHash::of(key.as_bytes()).home(to);
    let there: Vec<String> = cluster
        .log
        .records("counter.events", moved)
        .iter()
        .filter(|record| record.key.is_some())
        .map(|record| text(record, "ce_sequence"))
        .collect();
    assert_eq!(there, ["2", "3", "4"], "released to where the key is at home now");
}

#[tokio::test(start_paused = true)]
async fn discarded_event_leaves_no_hole() {
    let cluster = Cluster::new();
    let _member = refusing(&cluster, |_| {}).await;
    cluster.store.order_stuck(&Order::Discard("nobody needs it".into()));
    eventually("all released", || stuck(&cluster) == 0).await;
    let records = cluster.log.records("counter.events", home("a"));
    let published: Vec<(String, String)> =
        records.iter().map(|record| (text(record, "ce_sequence"), text(record, "ce_type"))).collect();
    let of = |sequence: &str, r#type: &str| (sequence.to_owned(), r#type.to_owned());
    assert_eq!(published, [of("1", "added"), of("2", DISCARDED_TYPE), of("3", "added")]);
    assert_eq!(cluster.sum("a"), Some(19), "the effect stands");
}

/// Another context's placeholder is passed over by its subscribers.
#[tokio::test(start_paused = true)]
async fn subscribers_pass_over_a_discarded_event() {
    let cluster = Cluster::new();
    let _member = cluster.start().await;
    cluster.send_event("a", "other.added", 1, "1");
    cluster.send_event("a", DISCARDED_TYPE, 2, "whatever");
    cluster.send_event("a", "other.added", 3, "5");
    cluster.assert_converged().await;
    assert_eq!((cluster.sum("a"), cluster.dead_letters().len()), (Some(6), 0));
}

#[tokio::test(start_paused = true)]
async fn many_refusals_hold_the_topic() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    owned(&member, PARTITIONS).await;
    member.publisher.refuse(|row| &*row.draft.topic == "counter.events");
    for n in 0..60 {
        cluster.send(&format!("k{n}"), "add", "1");
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    // Eight for each lane.
    let lanes = Config::default().lanes;
    let refused = cluster.store.contents().stuck.values().filter(|stuck| stuck.attempts > 0).count();
    assert!(refused > 0 && refused <= 8 * lanes, "{refused}");
    member.publisher.refuse_nothing();
    cluster.store.order_stuck(&Order::Retry);
    eventually("all released", || stuck(&cluster) == 0).await;
    cluster.assert_converged().await;
}

#[tokio::test(start_paused = true)]
async fn refused_mark_of_growth_holds_its_partition() {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| config.producers_max_age = Duration::from_secs(5)).await;
    owned(&member, PARTITIONS).await;
    member.publisher.refuse(|row| row.draft.key.is_none());
    for topic in TOPICS {
        cluster.grow(topic, PARTITIONS * 2);
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(stuck(&cluster), 0);
    assert!(!cluster.is_at_rest(), "the marks are in the outbox still");
    member.publisher.refuse_nothing();
    owned(&member, PARTITIONS * 2).await;
    cluster.send("a", "add", "1");
    cluster.assert_converged().await;
}

fn large(key: &str, r#type: &str, correlation: usize) -> (Headers, Uuid) {
    let id = Uuid::now_v7();
    let correlation = "c".repeat(correlation);
    let out = EnvelopeOut {
        correlation: Some(&correlation),
        ..EnvelopeOut::new(id, "producer", r#type, holdfast_core::Timestamp::from_unix_ms(0), key)
    };
    (out.headers(), id)
}

#[tokio::test(start_paused = true)]
async fn message_with_an_oversize_event_is_a_dead_letter() {
    let cluster = Cluster::new();
    cluster.log.set_bytes_max("counter.events", 1200);
    let member = cluster.start().await;
    owned(&member, PARTITIONS).await;
    let other = neighbour("a");
    cluster.send("a", "add", "1");
    cluster.append("counter.commands", "a", large("a", "add", 1000).0, "2");
    cluster.append("counter.commands", &other, large(&other, "tell", 1000).0, "2");
    cluster.send("a", "add", "4");
    cluster.send(&other, "add", "8");
    cluster.assert_converged().await;
    assert_eq!((cluster.sum("a"), cluster.sum(&other)), (Some(5), Some(8)));
    let reasons: Vec<String> = cluster.dead_letters().iter().map(|record| text(record, "dlt-reason")).collect();
    assert_eq!(reasons, ["TOO_LARGE", "TOO_LARGE"]);
    let mut message = call("a", "add", "16");
    message.correlation = Some("c".repeat(1000));
    let refused = member.node.command(message).await.expect_err("too large");
    assert!(matches!(&refused, RouteError::Refused(Refused { reason: DeadLetterReason::TooLarge, .. })), "{refused:?}");
    assert_eq!((cluster.sum("a"), stuck(&cluster)), (Some(5), 0));
}

#[tokio::test(start_paused = true)]
async fn oversize_dead_letter_is_cut_and_its_lane_goes_on() {
    let cluster = Cluster::new();
    cluster.log.set_bytes_max("counter.dlq", 5000);
    let member = cluster.start().await;
    owned(&member, PARTITIONS).await;
    let value = Bytes::from(vec![0; 3_000_000]);
    cluster
        .log
        .append("counter.commands", None, Some(Bytes::from("a")), Headers::default(), Some(value))
        .expect("there");
    cluster.send("a", "add", "1");
    cluster.assert_converged().await;
    let dead = cluster.dead_letters().remove(0);
    assert!(text(&dead, "dlt-cut").contains("value=3000000 "), "{}", text(&dead, "dlt-cut"));
    for (name, value) in [
        ("dlt-reason", "TOO_LARGE"),
        ("dlt-original-offset", "0"),
        ("__dlq.errors.topic", "counter.commands"),
        ("__dlq.errors.group", "holdfast-counter"),
    ] {
        assert_eq!(text(&dead, name), value, "{name}");
    }
    assert_eq!(dead.headers.get("kafka_dlt-original-offset"), Some(&[0; 8][..]));
    assert!(dead.value.expect("the beginning").len() > 1000);
    assert_eq!((cluster.sum("a"), stuck(&cluster)), (Some(1), 0));
}

/// Dead letters of strangers have no key, or any; a stuck one blocks no event and no other stranger's.
#[tokio::test(start_paused = true)]
async fn stuck_dead_letter_blocks_no_event() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    owned(&member, PARTITIONS).await;
    member.publisher.refuse(|row| row.draft.value.as_deref() == Some(b"garbage"));
    let append = |key: Option<&str>, body: &'static str| {
        let key = key.map(|key| Bytes::from(key.to_owned()));
        let partition = Some(home("a"));
        cluster.log.append("counter.commands", partition, key, Headers::default(), Some(body.into())).expect("there");
    };
    append(None, "garbage");
    append(Some("a"), "garbage");
    append(None, "litter");
    append(Some("a"), "litter");
    cluster.send("a", "add", "1");
    eventually("the event is out", || bodies(&cluster, "a") == ["1"]).await;
    eventually("at rest", || cluster.is_at_rest()).await;
    let dead: Vec<Option<Bytes>> = cluster.dead_letters().into_iter().map(|record| record.value).collect();
    assert_eq!(dead, [Some(Bytes::from("litter"))], "the keyless one; the other queues behind its key's");
    assert_eq!(stuck(&cluster), 3);
    cluster.store.order_stuck(&Order::Discard("strangers' garbage".into()));
    eventually("released", || stuck(&cluster) == 0).await;
    assert_eq!(cluster.dead_letters().len(), 2, "a discarded dead letter leaves nothing");
}

/// What is wrong with the topic after a refused event was retried, if something is.
async fn retried(rules: Rules, sends_behind: bool) -> Option<String> {
    let cluster = Cluster::new();
    let first = cluster.start_with(|config| config.rules = rules).await;
    owned(&first, PARTITIONS).await;
    first.publisher.refuse(is_bad);
    if sends_behind {
        first.publisher.send_behind_refused();
    }
    // All three are with the publisher before the first goes out.
    let gate = Gate::closed();
    first.publisher.hold_sends(Some(gate.clone()));
    for body in ["1", BAD, "5"] {
        cluster.send("a", "add", body);
    }
    let head = || cluster.store.partition(home("a")).map_or(0, |row| row.outbox_head);
    eventually("committed", || head() == 3).await;
    gate.open();
    let cursor = || cluster.store.partition(home("a")).map_or(0, |row| row.outbox_cursor);
    eventually("the refused one is passed", || cursor() >= 2).await;
    first.node.kill();
    cluster.group.expel(&first.membership);
    let second = cluster.start_with(|config| config.rules = rules).await;
    owned(&second, PARTITIONS).await;
    cluster.send("a", "add", "7");
    eventually("at rest", || cluster.is_at_rest()).await;
    let release = async {
        while stuck(&cluster) > 0 {
            cluster.store.order_stuck(&Order::Retry);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), release).await.expect("released");
    let out = bodies(&cluster, "a");
    let lost: BTreeSet<&str> = ["1", BAD, "5", "7"].into_iter().filter(|body| !out.iter().any(|o| o == body)).collect();
    (out != ["1", BAD, "5", "7"]).then(|| format!("{out:?}, without {lost:?}"))
}

#[tokio::test(start_paused = true)]
async fn retried_record_comes_out_in_order() {
    assert_eq!(retried(Rules::SOUND, false).await, None);
}

#[tokio::test(start_paused = true)]
async fn cursor_before_the_stuck_row_is_caught() {
    assert!(
        retried(Rules { stores_stuck_before_cursor: false, ..Rules::SOUND }, false).await.is_some(),
        "nobody noticed"
    );
}

#[tokio::test(start_paused = true)]
async fn taker_that_reads_no_stuck_keys_is_caught() {
    assert!(
        retried(Rules { reads_stuck_before_sending: false, ..Rules::SOUND }, false).await.is_some(),
        "nobody noticed"
    );
}

#[tokio::test(start_paused = true)]
async fn sending_on_behind_a_refusable_record_is_caught() {
    assert!(retried(Rules::SOUND, true).await.is_some(), "nobody noticed");
}

#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_bounded() {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| (config.lanes, config.relay_bytes_max) = (1, 10_000)).await;
    owned(&member, PARTITIONS).await;
    let gate = Gate::closed();
    member.publisher.hold_acks(Some(gate.clone()));
    for n in 0..200 {
        cluster.append("counter.commands", &format!("k{n}"), large(&format!("k{n}"), "add", 1000).0, "1");
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let out = cluster.log.all_records("counter.events").len();
    assert!((1..10).contains(&out), "{out} events of more than 1,000 bytes each are in flight");
    gate.open();
    member.publisher.hold_acks(None);
    cluster.assert_converged().await;
}
