//! Through each fault of the store and the log: nothing lost, nothing doubled, nothing out of order.

use std::time::Duration;

use holdfast_runtime::{Consistency, Router};
use holdfast_testkit::{
    Gate,
    store::{CommitFault, Stage},
};

use crate::cluster::{Cluster, call, eventually, text, within};

fn flood(cluster: &Cluster, from: i64, to: i64) {
    for n in from..=to {
        cluster.send(&format!("k{}", n % 7), "add", &n.to_string());
    }
}

fn total(cluster: &Cluster) -> i64 {
    (0..7).filter_map(|k| cluster.sum(&format!("k{k}"))).sum()
}

#[tokio::test(start_paused = true)]
async fn an_unknown_commit_that_happened_is_not_done_again() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    for _ in 0..5 {
        member.store.next_commit(CommitFault::UnknownCommitted);
    }
    flood(&cluster, 1, 100);
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 5050);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_commit_that_did_not_happen_is_done_once() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    for _ in 0..5 {
        member.store.next_commit(CommitFault::UnknownNotCommitted);
        member.store.next_commit(CommitFault::Unavailable);
    }
    flood(&cluster, 1, 100);
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 5050);
}

#[tokio::test(start_paused = true)]
async fn a_lost_transaction_that_still_travels_takes_no_effect_later() {
    for stage in [Stage::BeforeFence, Stage::BeforeCommit] {
        let cluster = Cluster::new();
        let member = cluster.start_with(|config| config.lanes = 1).await;
        let gate = Gate::closed();
        member.store.next_commit(CommitFault::Late(stage, gate.clone()));
        flood(&cluster, 1, 50);
        tokio::time::sleep(Duration::from_secs(1)).await;
        gate.open();
        flood(&cluster, 51, 100);
        cluster.assert_converged().await;
        assert_eq!(total(&cluster), 5050);
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_commit_of_rejections_and_dead_letters_runs_once() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    member.store.next_commit(CommitFault::UnknownCommitted);
    member.store.next_commit(CommitFault::UnknownCommitted);
    for n in 0..10 {
        cluster.send(&format!("k{n}"), "add", "0");
        cluster.send(&format!("k{n}"), "add", "junk");
    }
    cluster.assert_converged().await;
    assert_eq!(cluster.dead_letters().len(), 10);
    assert_eq!(cluster.store.contents().claims.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn caller_with_commit_in_doubt_gets_the_committed_answer() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    for fault in [CommitFault::UnknownCommitted, CommitFault::UnknownNotCommitted] {
        let before = cluster.sum("a").unwrap_or(0);
        member.store.next_commit(fault);
        let answer = member.node.command(call("a", "add", "3")).await.expect("answered");
        assert_eq!(answer.version(), cluster.version("a"));
        assert_eq!(cluster.sum("a"), Some(before + 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_strong_read_waits_for_the_commit_in_flight() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    member.node.command(call("a", "add", "1")).await.expect("applied");
    let gate = Gate::closed();
    member.store.next_commit(CommitFault::Slow(Stage::BeforeCommit, gate.clone()));
    let node = member.node.clone();
    let command = tokio::spawn(async move { node.command(call("a", "add", "1")).await });
    within("the commit is on its way", gate.arrivals(1)).await;
    let read = member.node.read("counter", "a", Consistency::Strong, 0);
    tokio::pin!(read);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), &mut read).await.is_err(),
        "answered while a commit was in flight"
    );
    gate.open();
    assert_eq!(read.await.expect("owned").version, 2);
    command.await.expect("runs").expect("applied");
}

#[tokio::test(start_paused = true)]
async fn data_the_store_refuses_is_isolated_and_neighbours_keep_order() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    member.store.refuse("22003", |writes| {
        writes.outbox.iter().any(|draft| draft.value.as_deref() == Some(b"13") && draft.topic.ends_with("events"))
    });
    for n in 1..=60 {
        cluster.send(&format!("k{}", n % 3), "add", &n.to_string());
    }
    cluster.assert_converged().await;
    let letters = cluster.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((text(&letters[0], "dlt-reason").as_str(), letters[0].value.as_deref()), ("POISON", Some(&b"13"[..])));
    for (key, events) in cluster.events() {
        let bodies: Vec<u64> = events.iter().map(|(_, body)| body.parse().expect("number")).collect();
        assert!(bodies.is_sorted(), "{key}: {bodies:?}");
    }
    let total: i64 = (0..3).filter_map(|k| cluster.sum(&format!("k{k}"))).sum();
    assert_eq!(total, 60 * 61 / 2 - 13);
}

#[tokio::test(start_paused = true)]
async fn store_outage_is_waited_out_and_counts_against_no_message() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    flood(&cluster, 1, 50);
    eventually("some are done", || total(&cluster) > 0).await;
    member.store.set_unavailable(true);
    flood(&cluster, 51, 100);
    tokio::time::sleep(Duration::from_mins(1)).await;
    member.store.set_unavailable(false);
    cluster.assert_converged().await;
    assert_eq!((total(&cluster), cluster.dead_letters().len()), (5050, 0));
}

#[tokio::test(start_paused = true)]
async fn failed_publishing_restarts_at_first_unacknowledged_row() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    for n in 0..10 {
        flood(&cluster, n * 10 + 1, n * 10 + 10);
        member.publisher.fail_after(3);
        tokio::time::sleep(Duration::from_millis(50)).await;
        member.publisher.lose_acks(1);
    }
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 5050);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_its_commit() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    let gate = Gate::closed();
    member.store.next_commit(CommitFault::Slow(Stage::BeforeCommit, gate.clone()));
    cluster.send("a", "add", "1");
    within("the commit is on its way", gate.arrivals(1)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.log.all_records("counter.events").is_empty());
    gate.open();
    cluster.assert_converged().await;
}
