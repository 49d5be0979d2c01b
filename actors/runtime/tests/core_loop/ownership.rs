//! Two nodes on one set of partitions: hand-over, crash, zombies, late publishers.

use std::time::Duration;

use holdfast_runtime::{Consistency, RouteError, Router};
use holdfast_testkit::{
    Gate,
    store::{CommitFault, Stage},
};

use crate::cluster::{Cluster, PARTITIONS, call, eventually, home, within};

fn flood(cluster: &Cluster, from: i64, to: i64) {
    for n in from..=to {
        cluster.send(&format!("k{}", n % 7), "add", &n.to_string());
    }
}

fn total(cluster: &Cluster) -> i64 {
    (0..7).filter_map(|k| cluster.sum(&format!("k{k}"))).sum()
}

#[tokio::test(start_paused = true)]
async fn second_node_takes_and_returns_its_share_without_lease_wait() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    flood(&cluster, 1, 50);
    let second = cluster.start().await;
    flood(&cluster, 51, 100);
    eventually("shared", || first.node.owned_partitions() == 2 && second.node.owned_partitions() == 2).await;
    let before = tokio::time::Instant::now();
    second.node.stop().await;
    eventually("taken back", || first.node.owned_partitions() == 4).await;
    assert!(before.elapsed() < Duration::from_secs(2), "a clean hand-over took {:?}", before.elapsed());
    flood(&cluster, 101, 150);
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 150 * 151 / 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_next_owner_waits_out_the_lease_and_goes_on() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    flood(&cluster, 1, 50);
    eventually("some are done", || total(&cluster) > 0).await;
    first.node.kill();
    cluster.group.expel(&first.membership);
    let before = tokio::time::Instant::now();
    let second = cluster.start().await;
    eventually("taken", || second.node.owned_partitions() == PARTITIONS as usize).await;
    assert!(before.elapsed() >= Duration::from_secs(5), "took over after {:?}", before.elapsed());
    flood(&cluster, 51, 100);
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 5050);
}

/// Others have heard nothing of it for as long as its leases could last.
#[tokio::test(start_paused = true)]
async fn taker_does_not_wait_for_the_lease_of_a_long_silent_node() {
    for is_silent in [true, false] {
        let cluster = Cluster::new();
        let first = cluster.start().await;
        eventually("the first has all", || first.node.owned_partitions() == PARTITIONS as usize).await;
        let second = cluster.start().await;
        eventually("shared", || second.node.owned_partitions() == 2 && first.node.owned_partitions() == 2).await;
        flood(&cluster, 1, 50);
        if is_silent {
            first.node.kill();
        }
        tokio::time::sleep(Duration::from_secs(8)).await; // before the group notices
        first.membership.set_deaf(true);
        cluster.group.expel(&first.membership);
        let before = tokio::time::Instant::now();
        eventually("taken", || second.node.owned_partitions() == PARTITIONS as usize).await;
        let (took, lease) = (before.elapsed(), Duration::from_secs(5));
        assert_eq!(took < lease, is_silent, "it took {took:?}");
        assert!(!is_silent || took < Duration::from_millis(500), "it took {took:?}");
        flood(&cluster, 51, 100);
        cluster.assert_converged().await;
        assert_eq!(total(&cluster), 5050);
    }
}

#[tokio::test(start_paused = true)]
async fn a_zombie_commits_nothing_and_answers_no_strong_read() {
    for stage in [Stage::BeforeFence, Stage::BeforeCommit] {
        let cluster = Cluster::new();
        let first = cluster.start_with(|config| config.lanes = 1).await;
        eventually("owned", || first.node.owned_partitions() == 4).await;
        first.node.command(call("a", "add", "1")).await.expect("applied");
        // Its commit stands still, its group gives up on it, and it hears nothing of that.
        let gate = Gate::closed();
        first.store.next_commit(CommitFault::Slow(stage, gate.clone()));
        cluster.send("a", "add", "10");
        within("the commit stands still", gate.arrivals(1)).await;
        first.store.set_unavailable(true);
        first.membership.set_deaf(true);
        cluster.group.expel(&first.membership);
        let second = cluster.start().await;
        if stage == Stage::BeforeCommit {
            tokio::time::sleep(Duration::from_secs(3)).await;
            gate.open(); // it holds the row: the taker waits for it
        }
        eventually("taken over", || second.node.owned_partitions() == 4).await;
        let read = first.node.read("counter", "a", Consistency::Strong, 0);
        let read = tokio::time::timeout(Duration::from_millis(100), read).await;
        assert!(matches!(read, Err(_) | Ok(Err(RouteError::NotOwner(_)))), "a zombie answered: {read:?}");
        second.node.command(call("a", "add", "100")).await.expect("applied");
        first.store.set_unavailable(false);
        gate.open();
        cluster.assert_converged().await;
        assert_eq!(cluster.sum("a"), Some(111), "{stage:?}");
        first.node.kill();
    }
}

#[tokio::test(start_paused = true)]
async fn late_publish_of_a_fenced_node_repeats_and_never_reorders() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    let gate = Gate::closed();
    first.publisher.hold_sends(Some(gate.clone()));
    flood(&cluster, 1, 50);
    eventually("committed", || total(&cluster) == 50 * 51 / 2).await;
    first.node.kill();
    cluster.group.expel(&first.membership);
    let second = cluster.start().await;
    eventually("taken over", || second.node.owned_partitions() == 4).await;
    flood(&cluster, 51, 100);
    eventually("published", || cluster.events().values().map(Vec::len).sum::<usize>() == 100).await;
    gate.open();
    cluster.assert_converged().await;
}

#[tokio::test(start_paused = true)]
async fn fenced_node_takes_again_only_after_the_group_confirms() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    eventually("owned", || first.node.owned_partitions() == 4).await;
    // The group moves one partition; the old owner does not hear of it.
    first.membership.set_deaf(true);
    let second = cluster.start().await;
    eventually("the second has its share", || second.node.owned_partitions() == 2).await;
    eventually("the first has noticed", || first.node.owned_partitions() == 2).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(second.node.owned_partitions(), 2, "robbed by a stale belief");
    flood(&cluster, 1, 100);
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 5050);
}

#[tokio::test(start_paused = true)]
async fn partitions_that_wander_lose_and_double_nothing() {
    let cluster = Cluster::new();
    let members = [cluster.start().await, cluster.start().await, cluster.start().await];
    for round in 0..30_i64 {
        flood(&cluster, round * 10 + 1, round * 10 + 10);
        let partition = holdfast_core::PartitionId(u32::try_from(round).expect("small") % PARTITIONS);
        cluster.group.assign(partition, &members[usize::try_from(round * 7).expect("small") % 3].membership);
        tokio::time::sleep(Duration::from_millis(u64::try_from(round * 37 % 900).expect("positive"))).await;
    }
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 300 * 301 / 2);
    assert!(home("a").0 < PARTITIONS);
}
