//! What is wrong with one key, one row or one record costs nobody else anything, and orders are heard
//! whatever is pending (I6, I7).

use std::time::Duration;

use bytes::Bytes;
use holdfast_core::{AggregateId, Headers, KeyHash, PartitionId, Record, Timestamp, disposition::WaitReason};
use holdfast_runtime::{Consistency, RouteError, Router as _};
use holdfast_testkit::{
    Gate,
    store::{CommitFault, Mail, Stage, Timer},
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cluster::{Cluster, Member, PARTITIONS, call, eventually, headers, home, id, text, within};

const KIND: &str = "counter";

async fn owned() -> (Cluster, Member) {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    (cluster, member)
}

/// A command on every partition is answered.
async fn assert_every_partition_answers(cluster: &Cluster, member: &Member) {
    for partition in (0..PARTITIONS).map(PartitionId) {
        let key = (0..1000).map(|n| format!("k{n}")).find(|key| home(key) == partition).expect("some key");
        let before = cluster.sum(&key).unwrap_or(0);
        let answer = within("an answer", member.node.command(call(&key, "add", "1"))).await;
        answer.unwrap_or_else(|error| panic!("{partition}: {error}"));
        assert_eq!(cluster.sum(&key), Some(before + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn read_of_hostile_key_stops_no_lane() {
    let (cluster, member) = owned().await;
    for key in ["\0x", "\0", "a\0b"] {
        for consistency in [Consistency::Strong, Consistency::Local] {
            let read = within("an answer", member.node.read(KIND, key, consistency, 0)).await;
            assert!(
                matches!(&read, Err(RouteError::Refused(refused)) if refused.field.as_deref() == Some("key")),
                "{read:?}"
            );
        }
        let called = within("an answer", member.node.command(call(key, "add", "1"))).await;
        assert!(matches!(called, Err(RouteError::Refused(_))), "{called:?}");
        assert_every_partition_answers(&cluster, &member).await;
    }
    cluster.assert_converged().await;
}

#[tokio::test(start_paused = true)]
async fn record_of_hostile_key_becomes_dead_letter() {
    let (cluster, member) = owned().await;
    for n in 0..60 {
        cluster.send(&format!("k{}", n % 7), "add", "1");
        if n % 20 == 0 {
            cluster.send(&format!("k{n}\0"), "add", "1");
        }
    }
    cluster.assert_converged().await;
    let letters = cluster.dead_letters();
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|letter| text(letter, "dlt-reason") == "INVALID"));
    assert_eq!((0..7).filter_map(|n| cluster.sum(&format!("k{n}"))).sum::<i64>(), 60);
    assert_every_partition_answers(&cluster, &member).await;
}

#[tokio::test(start_paused = true)]
async fn unreadable_claim_fails_its_message_alone() {
    let (cluster, member) = owned().await;
    let repeated = cluster.send("a", "add", "1");
    for _ in 0..32 {
        cluster.send("a", "add", "1"); // until the first claim is pushed out of the ring
    }
    cluster.assert_converged().await;
    cluster.send("a", "add", "1"); // the lane's own memory of what was pushed out ends with the next batch
    cluster.assert_converged().await;
    cluster.store.spoil_claim(repeated);
    cluster.send_as(repeated, "a", "add", "1");
    cluster.send("a", "add", "2");
    let mut again = call("a", "add", "1");
    again.id = repeated;
    let called = within("an answer", member.node.command(again)).await;
    assert_eq!(called, Err(RouteError::Failed));
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(36));
    assert_eq!(cluster.dead_letters().iter().map(|letter| text(letter, "dlt-reason")).collect::<Vec<_>>(), ["POISON"]);
    assert_every_partition_answers(&cluster, &member).await;
}

#[tokio::test(start_paused = true)]
async fn unreadable_state_fails_its_aggregate_alone() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    let applied = cluster.send("a", "add", "1");
    cluster.assert_converged().await;
    first.node.stop().await;
    cluster.store.spoil(&id("a"));
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    cluster.send_as(applied, "a", "add", "1"); // a repeat, and no dead letter
    for _ in 0..3 {
        cluster.send("a", "add", "2");
    }
    for consistency in [Consistency::Strong, Consistency::Local] {
        let read = within("an answer", member.node.read(KIND, "a", consistency, 0)).await;
        assert_eq!(read, Err(RouteError::Failed));
    }
    assert_eq!(within("an answer", member.node.command(call("a", "add", "1"))).await, Err(RouteError::Failed));
    assert_every_partition_answers(&cluster, &member).await;
    eventually("the letters are written", || cluster.dead_letters().len() == 3).await;
    assert!(cluster.dead_letters().iter().all(|letter| text(letter, "dlt-error").contains("unreadable")));
    eventually("at rest", || cluster.is_at_rest()).await;
    assert_eq!(cluster.dead_letters().len(), 3);
}

/// A row as another build, or a damaged table, may hold it.
fn mail(cluster: &Cluster, position: i64, kind: &'static str, key: &str, reason: Option<WaitReason>, headers: Headers) {
    let record = Record {
        topic: "counter.commands".into(),
        partition: home(key),
        offset: 1_000_000 + u64::try_from(position).expect("positive"),
        timestamp: None,
        key: Some(Bytes::from(key.to_owned())),
        headers,
        value: Some(Bytes::from_static(b"1")),
    };
    cluster.store.tamper(|contents| {
        let id = AggregateId { kind, key: key.into() };
        let hash = KeyHash::of(key.as_bytes());
        let since = Timestamp::from_unix_ms(0);
        let error = String::new();
        contents.mailbox.insert(position, Mail { id, hash, reason, attempts: 1, due: None, since, error, record });
    });
}

fn sound(key: &str) -> Headers {
    headers(Uuid::now_v7(), key, "add", "producer", None)
}

#[tokio::test(start_paused = true)]
async fn unreadable_mail_becomes_dead_letter_in_its_turn() {
    let (cluster, member) = owned().await;
    let waits = Some(WaitReason::Retrying);
    // Before all others by position, and more than one look takes.
    for n in 0..300 {
        mail(&cluster, n + 1, KIND, &format!("u{n}"), None, sound(&format!("u{n}")));
    }
    mail(&cluster, 1_001, KIND, "a", waits, sound("a"));
    mail(&cluster, 1_002, KIND, "a", waits, Headers::default());
    mail(&cluster, 1_003, "another", "a", waits, sound("a"));
    mail(&cluster, 1_004, KIND, "a", waits, headers(Uuid::now_v7(), "a", "a type of yesterday", "producer", None));
    mail(&cluster, 1_005, KIND, "a", waits, sound("a"));
    eventually("the sound ones are applied", || cluster.sum("a") == Some(2)).await;
    cluster.assert_converged().await;
    let mut reasons: Vec<String> = cluster.dead_letters().iter().map(|letter| text(letter, "dlt-reason")).collect();
    reasons.sort_unstable();
    assert_eq!(reasons.len(), 303);
    assert_eq!(reasons.iter().filter(|reason| *reason == "UNDECODABLE").count(), 301);
    assert_eq!(reasons.iter().filter(|reason| *reason == "UNKNOWN_TYPE").count(), 2);
    assert_every_partition_answers(&cluster, &member).await;
}

#[tokio::test(start_paused = true)]
async fn unknown_timers_displace_no_known_timer() {
    let (cluster, _member) = owned().await;
    let due = Instant::now();
    cluster.store.tamper(|contents| {
        for n in 0..300 {
            let key = format!("t{n}");
            let id = AggregateId { kind: if n % 2 == 0 { KIND } else { "another" }, key: key.as_str().into() };
            let timer = Timer { hash: KeyHash::of(key.as_bytes()), due, misses: 0, serial: -1 };
            contents.timers.insert((id, "of yesterday".to_owned()), timer);
        }
    });
    cluster.send("a", "later", "");
    eventually("the known timer fires", || cluster.sum("a") == Some(1000)).await;
    let contents = cluster.store.contents();
    assert_eq!(contents.timers.len(), 300, "they are kept for a build that knows them");
    assert!(contents.timers.values().all(|timer| (2..12).contains(&timer.misses)), "and asked for ever less often");
}

#[tokio::test(start_paused = true)]
async fn refused_dead_letter_is_kept_as_raw_bytes() {
    let (cluster, member) = owned().await;
    let is_bad = |value: Option<&Bytes>| value.is_some_and(|value| value.starts_with(b"junk"));
    member.store.refuse("22021", move |writes| {
        writes.outbox.iter().any(|draft| is_bad(draft.value.as_ref()))
            || writes.mailbox.iter().any(|change| {
                matches!(change, holdfast_core::batch::MailboxWrite::Put { record, .. } if is_bad(record.value.as_ref()))
            })
    });
    cluster.send("a", "add", "1");
    cluster.send("a", "add", "junk"); // can't be decoded, and its dead letter is refused
    cluster.send("a", "add", "2");
    cluster.send("a", "panic", "junk"); // fails, and its mail is refused, and its dead letter
    cluster.send("a", "add", "3");
    cluster.assert_converged().await;
    assert_eq!((cluster.sum("a"), cluster.dead_letters().len()), (Some(6), 0));
    let unfiled = cluster.store.contents().unfiled;
    assert_eq!(unfiled.len(), 2);
    assert!(unfiled.iter().all(|row| is_bad(row.record.value.as_ref()) && row.error.contains("22021")), "{unfiled:?}");
    assert_every_partition_answers(&cluster, &member).await;
}

#[tokio::test(start_paused = true)]
async fn batch_that_takes_too_long_is_split() {
    let (cluster, member) = owned().await;
    member.store.end_commits_over(Some(3));
    for n in 1..=60 {
        cluster.send(&format!("k{}", n % 20), "add", &n.to_string());
    }
    cluster.assert_converged().await;
    assert_eq!((0..20).filter_map(|n| cluster.sum(&format!("k{n}"))).sum::<i64>(), 60 * 61 / 2);
    assert_eq!(cluster.dead_letters().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn message_that_takes_too_long_waits_and_is_not_poison() {
    let (cluster, member) = owned().await;
    member.store.refuse("57014", |writes| {
        writes.outbox.iter().any(|draft| draft.value.as_deref() == Some(b"13") && draft.topic.ends_with("events"))
    });
    for n in 10..20 {
        cluster.send("a", "add", &n.to_string());
        cluster.send("b", "add", "1");
    }
    eventually("what stands before it is done", || cluster.sum("a") == Some(10 + 11 + 12)).await;
    eventually("bystanders go on", || cluster.sum("b") == Some(10)).await;
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(cluster.dead_letters().len(), 0, "however often it was tried");
    assert_every_partition_answers(&cluster, &member).await;
    member.store.refuse_nothing();
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some((10..20).sum()));
    let bodies: Vec<i64> = cluster.events()["a"].iter().map(|(_, body)| body.parse().expect("number")).collect();
    assert!(bodies.is_sorted(), "in its order: {bodies:?}");
}

/// Where the store stands still.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hangs {
    LookUp,
    Commit,
}

async fn hung(how: Hangs) -> (Cluster, Member, Gate) {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| (config.lanes, config.drain) = (1, Duration::from_secs(5))).await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    let gate = Gate::closed();
    match how {
        Hangs::LookUp => member.store.hang_reads(Some(gate.clone())),
        Hangs::Commit => member.store.next_commit(CommitFault::Slow(Stage::BeforeFence, gate.clone())),
    }
    (cluster, member, gate)
}

#[tokio::test(start_paused = true)]
async fn release_is_heard_while_store_hangs() {
    for how in [Hangs::LookUp, Hangs::Commit] {
        let (cluster, member, gate) = hung(how).await;
        cluster.send("a", "add", "1");
        within("it hangs", gate.arrivals(1)).await;
        let second = cluster.start().await;
        let began = Instant::now();
        // A partition that no commit is under way for is handed over without a lease to wait out.
        eventually("a partition has moved", || second.node.owned_partitions() >= 1).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{how:?}: {:?}, a release was not heard", began.elapsed());
        gate.open();
        member.store.hang_reads(None);
        cluster.assert_converged().await;
        assert_eq!(cluster.sum("a"), Some(1), "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn caller_is_answered_when_partition_leaves_hung_lane() {
    for how in [Hangs::LookUp, Hangs::Commit] {
        let (cluster, member, gate) = hung(how).await;
        if how == Hangs::Commit {
            cluster.send("a", "add", "1");
            within("it hangs", gate.arrivals(1)).await;
        }
        let node = member.node.clone();
        let called = tokio::spawn(async move { node.command(call("a", "add", "5")).await });
        within("it hangs", gate.arrivals(1)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        cluster.group.expel(&member.membership);
        let answer = within("an answer", called).await.expect("runs");
        assert!(matches!(answer, Err(RouteError::NotOwner(_))), "{how:?}: {answer:?}");
        assert!(began.elapsed() < Duration::from_secs(1), "{how:?}: {:?}", began.elapsed());
        gate.open();
        member.node.kill();
    }
}

#[tokio::test(start_paused = true)]
async fn cold_read_is_unavailable_while_store_is_away() {
    let (cluster, member) = owned().await;
    member.store.set_unavailable(true);
    let began = Instant::now();
    let read = within("an answer", member.node.read(KIND, "a", Consistency::Strong, 0)).await;
    assert!(matches!(read, Err(RouteError::Unavailable { .. })), "{read:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    member.store.set_unavailable(false);
    within("an answer", member.node.read(KIND, "a", Consistency::Strong, 0)).await.expect("read");
    cluster.assert_converged().await;
}

/// A read counts until the loop has let go of it, not until its caller has (I11).
#[tokio::test(start_paused = true)]
async fn abandoned_reads_are_bounded() {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| config.calls_max = 10).await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    let gate = Gate::closed();
    member.store.hang_reads(Some(gate.clone()));
    let read = async |key: &str| {
        let read = member.node.read(KIND, key, Consistency::Strong, 0);
        tokio::time::timeout(Duration::from_millis(10), read).await
    };
    let mut refused = 0;
    for n in 0..30 {
        match read(&format!("k{n}")).await {
            Err(_) => {}
            Ok(answer) => {
                assert_eq!(answer, Err(RouteError::Overloaded), "{n}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 20, "{refused}");
    member.store.hang_reads(None);
    gate.open();
    let again = async {
        while !matches!(read("a").await, Ok(Ok(_))) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("an answer", again).await;
}
