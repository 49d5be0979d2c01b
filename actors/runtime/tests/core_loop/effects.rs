//! Calls out of the system, and messages to other aggregates: once each, whatever is lost on the way.

use std::{sync::atomic::Ordering, time::Duration};

use holdfast_runtime::{Config, Router};

use crate::cluster::{Cluster, PARTITIONS, call, eventually, id, text};

#[tokio::test(start_paused = true)]
async fn a_call_is_made_after_the_commit_and_its_end_is_a_message() {
    let cluster = Cluster::new();
    let _member = cluster.start().await;
    cluster.send("a", "charge", "7");
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(7));
    assert_eq!(cluster.oracle.bank_calls.load(Ordering::SeqCst), 1);
    let (begun, ended) = (&cluster.log.all_records("counter.events")[0], &cluster.log.all_records("counter.events")[1]);
    assert_eq!((text(begun, "ce_type"), text(ended, "ce_type")), ("charging".into(), "charged".into()));
    assert_eq!(text(begun, "ce_correlationid"), text(ended, "ce_correlationid"), "one flow");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_called_before_the_commit() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    cluster.send("a", "add", "1");
    cluster.assert_converged().await;
    member.store.set_unavailable(true);
    cluster.send("a", "charge", "7");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(cluster.oracle.bank_calls.load(Ordering::SeqCst), 0);
    member.store.set_unavailable(false);
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(8));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_is_made_again_until_it_has_one() {
    let cluster = Cluster::new();
    let _member = cluster.start().await;
    cluster.oracle.answers_lost.store(3, Ordering::SeqCst);
    cluster.send("a", "charge", "7");
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(7));
    assert_eq!(cluster.oracle.bank_calls.load(Ordering::SeqCst), 4);
    assert_eq!(cluster.oracle.bank.lock().expect("sound").len(), 1, "under one name");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_away_is_asked_ever_less_often() {
    let cluster = Cluster::new();
    let _member = cluster.start().await;
    cluster.oracle.is_away.store(true, Ordering::SeqCst);
    cluster.send("a", "charge", "7");
    tokio::time::sleep(Duration::from_mins(10)).await;
    let calls = cluster.oracle.bank_calls.load(Ordering::SeqCst);
    assert!((15..60).contains(&calls), "{calls} calls in ten minutes");
    let stored = cluster.store.contents().effects;
    assert_eq!(stored.values().map(|effect| effect.error.as_str()).collect::<Vec<_>>(), ["the bank is away"]);
    cluster.oracle.is_away.store(false, Ordering::SeqCst);
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(7));
}

#[tokio::test(start_paused = true)]
async fn whoever_owns_the_key_next_ends_what_a_dead_owner_began() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    cluster.oracle.answers_lost.store(1, Ordering::SeqCst);
    cluster.send("a", "charge", "7");
    eventually("called", || cluster.oracle.bank_calls.load(Ordering::SeqCst) == 1).await;
    first.node.kill();
    cluster.group.expel(&first.membership);
    let second = cluster.start().await;
    cluster.assert_converged().await;
    assert_eq!((cluster.sum("a"), second.node.owned_partitions()), (Some(7), PARTITIONS as usize));
}

/// With one slot and a bank that never answers in time, the others wait their turn, and the loop goes on.
#[tokio::test(start_paused = true)]
async fn slow_calls_are_bounded_and_hold_up_nothing_else() {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config: &mut Config| config.effects_max = 1).await;
    cluster.oracle.answers_lost.store(2, Ordering::SeqCst);
    for n in 0..5 {
        cluster.send(&format!("k{n}"), "charge", "7");
    }
    eventually("one is under way", || cluster.oracle.bank_calls.load(Ordering::SeqCst) == 1).await;
    let answer = member.node.command(call("k1", "add", "1"));
    tokio::time::timeout(Duration::from_secs(1), answer).await.expect("at once").expect("applied");
    cluster.assert_converged().await;
    assert_eq!((0..5).filter_map(|n| cluster.sum(&format!("k{n}"))).sum::<i64>(), 36);
}

#[tokio::test(start_paused = true)]
async fn a_message_to_another_aggregate_comes_to_its_home_once() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    let again = cluster.send("abc", "tell", "5");
    cluster.send_as(again, "abc", "tell", "5");
    cluster.assert_converged().await;
    member.node.stop().await;
    let _next = cluster.start().await;
    cluster.send("abc", "tell", "10");
    cluster.assert_converged().await;
    assert_eq!((cluster.sum("abc"), cluster.sum("ABC")), (Some(0), Some(15)));
    assert!(cluster.store.state(&id("ABC")).is_some_and(|row| row.version == 2));
    assert_eq!(cluster.store.contents().mailbox.len(), 0);
}
