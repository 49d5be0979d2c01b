//! A partition assigned but not owned is always taken in the end, one not assigned never, and an input that
//! stops is read on.

use std::time::Duration;

use holdfast_core::{
    KeyHash, PartitionId,
    batch::{Batch, Fence},
    epoch::{Generation, Token},
    port::store::Store as _,
};
use holdfast_runtime::Config;
use holdfast_testkit::{
    Gate,
    store::{CommitFault, Stage},
};

use crate::cluster::{Cluster, Member, PARTITIONS, TOPICS, eventually, home};

fn flood(cluster: &Cluster, from: i64, to: i64) {
    for n in from..=to {
        cluster.send(&format!("k{}", n % 7), "add", &n.to_string());
    }
}

fn total(cluster: &Cluster) -> i64 {
    (0..7).filter_map(|k| cluster.sum(&format!("k{k}"))).sum()
}

fn epochs(cluster: &Cluster) -> Vec<u64> {
    (0..PARTITIONS).filter_map(|p| cluster.store.partition(PartitionId(p))).map(|row| row.epoch.0).collect()
}

fn config() -> Config {
    Config { address: "memory".into(), ..Config::default() }
}

#[tokio::test(start_paused = true)]
async fn a_take_over_that_panics_is_begun_again() {
    let cluster = Cluster::new();
    let store = cluster.store.node();
    store.panic_on_take(3);
    let member = cluster.start_on(store, config()).await;
    eventually("all are owned all the same", || member.node.owned_partitions() == PARTITIONS as usize).await;
    flood(&cluster, 1, 50);
    cluster.assert_converged().await;
}

/// It waits for a store that is away while the group gives the partition to another: when the store is back
/// it must not take it.
#[tokio::test(start_paused = true)]
async fn a_taker_whose_assignment_has_gone_robs_nobody() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    eventually("the first has all", || first.node.owned_partitions() == PARTITIONS as usize).await;
    let store = cluster.store.node();
    let second = cluster.start_on(store.clone(), Config { release_grace: Duration::from_mins(10), ..config() }).await;
    store.set_unavailable(true);
    eventually("the first gave some up", || first.node.owned_partitions() == 2).await;
    cluster.group.expel(&second.membership);
    eventually("the first has all again", || first.node.owned_partitions() == PARTITIONS as usize).await;
    let before = epochs(&cluster);
    store.set_unavailable(false);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(epochs(&cluster), before, "a taker without an assignment raised an epoch");
    flood(&cluster, 1, 50);
    cluster.assert_converged().await;
    // And what is assigned to it later it takes.
    cluster.group.readmit(&second.membership);
    eventually("shared", || second.node.owned_partitions() == 2 && first.node.owned_partitions() == 2).await;
}

/// The assignment goes while the taker waits out the lease, and comes back at once.
#[tokio::test(start_paused = true)]
async fn an_assignment_that_flickers_ends_in_ownership() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    eventually("the first has all", || first.node.owned_partitions() == PARTITIONS as usize).await;
    first.node.kill();
    let second = cluster.start().await;
    for round in 0..20_u64 {
        cluster.group.expel(&first.membership);
        tokio::time::sleep(Duration::from_millis(400 + round * 211 % 3_000)).await;
        cluster.group.expel(&second.membership);
        tokio::time::sleep(Duration::from_millis(round * 97 % 900)).await;
        cluster.group.readmit(&second.membership);
    }
    eventually("all are owned", || second.node.owned_partitions() == PARTITIONS as usize).await;
    flood(&cluster, 1, 50);
    cluster.assert_converged().await;
}

/// A bug in the adapter of the log: the input must not end without a word, and the process is not what it
/// was.
#[tokio::test(start_paused = true)]
async fn a_reader_that_panics_costs_time_and_no_record() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    flood(&cluster, 1, 20);
    cluster.assert_converged().await;
    member.log.panic_on_reads(2);
    flood(&cluster, 21, 50);
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 1275);
    assert_eq!(member.node.owned_partitions(), PARTITIONS as usize);
    let stalled = member.node.stalled();
    assert!(!member.node.is_live() && stalled.iter().all(|one| one.class == "reader"), "{stalled:?}");
}

/// The broker acknowledges nothing while a partition is revoked: its owner gives it up within the bound, and
/// the next one waits out a lease.
#[tokio::test(start_paused = true)]
async fn a_revoke_ends_within_its_bound_whatever_hangs() {
    let cluster = Cluster::new();
    let drain = Duration::from_secs(3);
    let first = cluster.start_with(|config| config.drain = drain).await;
    let gate = Gate::closed();
    first.publisher.hold_acks(Some(gate.clone()));
    flood(&cluster, 1, 50);
    eventually("committed", || total(&cluster) == 1275).await;
    let before = tokio::time::Instant::now();
    let second = cluster.start().await;
    eventually("taken", || second.node.owned_partitions() == 2).await;
    let bound = drain + Config::default().lease + Config::default().drift + Duration::from_secs(3);
    assert!(before.elapsed() < bound, "it took {:?}", before.elapsed());
    gate.open();
    flood(&cluster, 51, 100);
    cluster.assert_converged().await;
}

/// One partition of a lane can't acknowledge the new count, since its row is locked: another one is taken,
/// and served, meanwhile.
#[tokio::test(start_paused = true)]
async fn locked_partition_keeps_no_other_of_its_lane_waiting() {
    let cluster = Cluster::new();
    let first = cluster.start_with(|config| config.lanes = 1).await;
    let second = cluster.start().await;
    eventually("shared", || first.node.owned_partitions() == 2 && second.node.owned_partitions() == 2).await;
    let owned_by = |member: &Member| {
        let assignment = cluster.group.assignment();
        let of = |(partition, id): (PartitionId, u32)| (id == member.membership.id()).then_some(partition);
        assignment.into_iter().find_map(of).expect("it has two")
    };
    let (busy, moving) = (owned_by(&first), owned_by(&second));
    let stays =
        |key: &String| [PARTITIONS, 2 * PARTITIONS].iter().all(|n| KeyHash::of(key.as_bytes()).home(*n) == moving);
    let key = (0..100).map(|n| format!("k{n}")).find(stays).expect("one in eight");
    // The first node hears late of the growth; by then a zombie's commit has locked the row that the node has
    // to write.
    first.store.set_latency(Duration::from_secs(5));
    for topic in TOPICS {
        cluster.grow(topic, 2 * PARTITIONS);
    }
    eventually("in force", || cluster.store.contents().generations.len() == 2).await;
    let (gate, zombie) = (Gate::closed(), cluster.store.node());
    zombie.next_commit(CommitFault::Slow(Stage::BeforeCommit, gate.clone()));
    let late =
        tokio::spawn(async move { zombie.commit(&Batch { fences: vec![stale(busy)], entries: Vec::new() }).await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    first.store.set_latency(Duration::ZERO);
    cluster.send(&key, "add", "1");
    eventually("done by its old owner", || cluster.sum(&key) == Some(1)).await;
    let before = epochs(&cluster)[moving.0 as usize];
    cluster.group.assign(moving, &first.membership);
    eventually("taken", || epochs(&cluster)[moving.0 as usize] > before).await;
    cluster.send(&key, "add", "2");
    eventually("the lane goes on", || cluster.sum(&key) == Some(3)).await;
    assert!(!late.is_finished(), "the lock is held, and another partition of the lane waits for it");
    gate.open();
    assert_eq!(late.await.expect("no panic").expect("it is only stale").stale, [busy]);
    cluster.assert_converged().await;
}

/// One that no row has ever matched.
fn stale(partition: PartitionId) -> Fence {
    let (token, generation, consumed) = (Token::draw(), Generation(1), Vec::new());
    Fence { partition, token, generation, number: 1, outbox_head: 0, consumed, cursor: None }
}

/// rust-rdkafka#638, #665: a lost wake-up. The stream reports no error, and no record comes.
#[tokio::test(start_paused = true)]
async fn an_input_that_fell_silent_is_opened_again() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    flood(&cluster, 1, 50);
    cluster.assert_converged().await;
    let opened = member.log.opened();
    // Silence alone is no reason.
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(member.log.opened(), opened);
    for _ in 0..2 {
        assert!(member.log.strand("counter.commands", home("k1")));
        let sum = cluster.sum("k1").unwrap_or(0);
        cluster.send("k1", "add", "1000");
        eventually("read on", || cluster.sum("k1") == Some(sum + 1000)).await;
    }
    assert_eq!(member.log.opened(), opened + 2, "one input, once each time");
    // Offsets without records at the end look the same from outside: they cost a look now and then, and
    // nothing else.
    cluster.log.skip_offsets("counter.commands", home("k1"), 2);
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(member.log.opened() < opened + 2 + 40);
    flood(&cluster, 51, 60);
    eventually("goes on", || total(&cluster) == 60 * 61 / 2 + 2000).await;
}
