//! Look-ups that take their time: they hold up their own aggregates, in order, and nobody else.

use std::{sync::atomic::Ordering, time::Duration};

use holdfast_runtime::{RouteError, Router as _};
use tokio::time::Instant;

use crate::cluster::{Cluster, call, eventually, home};

/// What an answer takes.
const SLOW: Duration = Duration::from_millis(800);

async fn slow() -> (Cluster, crate::cluster::Member) {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| config.lanes = 1).await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    cluster.oracle.takes_ms.store(u64::try_from(SLOW.as_millis()).expect("small"), Ordering::SeqCst);
    (cluster, member)
}

/// A key, not `a`, whose home is that of `a`.
fn neighbour() -> String {
    (0..100).map(|n| format!("n{n}")).find(|key| home(key) == home("a")).expect("one of four")
}

#[tokio::test(start_paused = true)]
async fn bystanders_go_on_while_a_look_up_takes_its_time() {
    let (cluster, member) = slow().await;
    let began = Instant::now();
    cluster.send("a", "ask", "");
    eventually("asked", || cluster.oracle.calls.load(Ordering::SeqCst) == 1).await;
    for n in 1..=20 {
        cluster.send(&neighbour(), "add", "1");
        member.node.command(call("c", "add", "1")).await.expect("applied");
        eventually("the neighbour is done", || cluster.sum(&neighbour()) == Some(n)).await;
    }
    let took = began.elapsed();
    assert!(took < SLOW, "they waited for it: {took:?}");
    assert_eq!(cluster.sum("a"), None);
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(42));
}

#[tokio::test(start_paused = true)]
async fn messages_behind_a_look_up_wait_in_order_not_in_the_mailbox() {
    let (cluster, member) = slow().await;
    for _ in 0..3 {
        cluster.send("a", "add", "1");
        cluster.send("a", "ask", "");
        cluster.send("a", "add", "2");
    }
    eventually("asked", || cluster.oracle.calls.load(Ordering::SeqCst) == 1).await;
    cluster.send("a", "add", "3");
    let began = Instant::now();
    member.node.command(call("a", "add", "4")).await.expect("applied in its turn");
    assert!(began.elapsed() < SLOW * 3);
    cluster.assert_converged().await;
    let mut bodies: Vec<String> = cluster.events()["a"].iter().map(|(_, body)| body.clone()).collect();
    // The caller's comes from elsewhere: only that it isn't first is certain.
    assert!(bodies[0] != "4" && bodies.contains(&"4".to_owned()));
    bodies.retain(|body| body != "4");
    assert_eq!(bodies, ["1", "42", "2", "1", "42", "2", "1", "42", "2", "3"]);
    assert!(cluster.store.contents().mailbox.is_empty());
}

#[tokio::test(start_paused = true)]
async fn messages_of_different_batches_are_looked_up_at_the_same_time() {
    let (cluster, member) = slow().await;
    let began = Instant::now();
    let calls = (0..5).map(|n| {
        let node = member.node.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20 * n)).await;
            node.command(call(&format!("c{n}"), "ask", "")).await
        })
    });
    for called in calls.collect::<Vec<_>>() {
        called.await.expect("runs").expect("applied");
    }
    assert!(began.elapsed() < SLOW + Duration::from_millis(300), "one after the other: {:?}", began.elapsed());
    assert_eq!(cluster.oracle.calls.load(Ordering::SeqCst), 5);
}

/// Time stands still while a task is busy, so a lane that went round and round meanwhile would never let it
/// pass.
#[tokio::test(start_paused = true)]
async fn dead_letter_bound_to_its_offset_waits_for_earlier_look_ups() {
    let (cluster, _member) = slow().await;
    cluster.send("a", "ask", "");
    cluster.send(&neighbour(), "add", "junk");
    eventually("the letter is written", || cluster.dead_letters().len() == 1).await;
    assert_eq!(cluster.sum("a"), Some(42), "what lies before it is done");
    cluster.assert_converged().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_given_up_takes_nothing_along() {
    let (cluster, member) = slow().await;
    cluster.send("a", "ask", "");
    cluster.send("a", "add", "1");
    eventually("asked", || cluster.oracle.calls.load(Ordering::SeqCst) == 1).await;
    let node = member.node.clone();
    let called = tokio::spawn(async move { node.command(call("a", "add", "5")).await });
    member.node.stop().await;
    assert!(called.await.expect("runs").is_err(), "it was not applied");
    assert_eq!(cluster.sum("a"), None);
    let _next = cluster.start().await;
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(43));
}

/// Each time half as long again as it has waited already, so an outage costs less the longer it lasts.
#[tokio::test(start_paused = true)]
async fn a_look_up_that_fails_is_made_again_less_and_less_often() {
    let cluster = Cluster::new();
    let _member = cluster.start_with(|config| config.lanes = 1).await;
    cluster.oracle.is_away.store(true, Ordering::SeqCst);
    for n in 0..30 {
        cluster.send(&format!("k{n}"), "ask", "");
    }
    let asked = || cluster.oracle.calls.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let first = asked();
    tokio::time::sleep(Duration::from_mins(10)).await;
    let later = asked() - first;
    // 30 messages, each at most every 22.5 s, some of them together.
    assert!(first < 250 && later < 30 * 600 / 22, "{first} in the first 10 s, {later} in 10 min");
    cluster.oracle.is_away.store(false, Ordering::SeqCst);
    cluster.assert_converged().await;
    assert!((0..30).all(|n| cluster.sum(&format!("k{n}")) == Some(42)));
}

#[tokio::test(start_paused = true)]
async fn stored_state_is_observed_before_its_look_up() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    member.node.command(call("a", "add", "5")).await.expect("applied");
    member.node.stop().await;
    cluster.oracle.observed.lock().expect("sound").clear();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    member.node.command(call("a", "recount", "")).await.expect("asked about the sum that is stored");
    assert_eq!(cluster.sum("a"), Some(105));
}

#[tokio::test(start_paused = true)]
async fn unprepared_message_waits_and_keeps_its_order() {
    let cluster = Cluster::new();
    let _member = cluster.start().await;
    for (r#type, body) in [("add", "5"), ("recount", ""), ("add", "1"), ("recount", "")] {
        cluster.send("a", r#type, body);
    }
    cluster.assert_converged().await;
    let bodies: Vec<String> = cluster.events()["a"].iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(bodies, ["5", "100", "1", "100"]);
    assert!(cluster.dead_letters().is_empty(), "it is never held against the message");
}

#[tokio::test(start_paused = true)]
async fn unprepared_call_is_refused_and_may_be_repeated() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    member.node.command(call("a", "add", "5")).await.expect("applied");
    let recount = call("a", "recount", "");
    let first = member.node.command(recount.clone()).await;
    assert!(matches!(first, Err(RouteError::Downstream(_))), "{first:?}");
    member.node.command(recount).await.expect("now it is known what to ask about");
    assert_eq!(cluster.sum("a"), Some(105));
}

#[tokio::test(start_paused = true)]
async fn remembered_answer_waits_for_nobody_in_its_batch() {
    let cluster = Cluster::new();
    cluster.oracle.is_remembered.store(true, Ordering::SeqCst);
    cluster.oracle.takes_ms.store(u64::try_from(SLOW.as_millis()).expect("small"), Ordering::SeqCst);
    cluster.send("a", "recount", "");
    cluster.send(&neighbour(), "ask", "");
    let _member = cluster.start_with(|config| config.lanes = 1).await;
    eventually("asked", || cluster.oracle.calls.load(Ordering::SeqCst) == 1).await;
    let began = Instant::now();
    eventually("the neighbour is done", || cluster.sum(&neighbour()) == Some(42)).await;
    assert!(began.elapsed() < SLOW / 2, "it waited: {:?}", began.elapsed());
    cluster.assert_converged().await;
}
