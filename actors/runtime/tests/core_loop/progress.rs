//! A loop that stands still is noticed within ten seconds, with its cause; what is outside the process costs
//! no node its life.

use std::time::Duration;

use holdfast_runtime::{Router as _, STUCK_AFTER};
use holdfast_testkit::Gate;

use tokio::time::Instant;

use crate::{
    cluster::{Cluster, call, eventually, within},
    counter::DECISIONS,
};

const NOTICED: Duration = Duration::from_secs(STUCK_AFTER.as_secs() + 2);

#[tokio::test(start_paused = true)]
async fn outage_of_store_stalls_and_does_not_kill() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    for n in 0..10 {
        cluster.send(&format!("k{n}"), "add", "1");
    }
    cluster.assert_converged().await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(member.node.stalled(), [], "a loop without work is not stalled");
    member.store.set_unavailable(true);
    for n in 0..10 {
        cluster.send(&format!("k{n}"), "add", "1");
    }
    tokio::time::sleep(NOTICED).await;
    let stalled = member.node.stalled();
    let of = |class| stalled.iter().find(|stalled| stalled.class == class);
    assert_eq!(of("lane").expect("noticed").doing, "the database", "{stalled:?}");
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(member.node.is_live(), "an outage restarts nobody: {:?}", member.node.stalled());
    member.store.set_unavailable(false);
    cluster.assert_converged().await;
    eventually("nothing is stalled", || member.node.stalled().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn store_that_hangs_is_named_as_cause() {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| config.lanes = 1).await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    let gate = Gate::closed();
    member.store.hang_reads(Some(gate.clone()));
    cluster.send("a", "add", "1");
    within("it hangs", gate.arrivals(1)).await;
    tokio::time::sleep(NOTICED).await;
    let stalled = member.node.stalled();
    assert!(
        stalled.iter().any(|one| one.class == "lane" && one.doing == "the database" && !one.is_stuck()),
        "{stalled:?}"
    );
    assert!(member.node.is_live());
    // The node says so where `doctor` looks.
    eventually("noted", || cluster.store.contents().stalled.values().any(|text| text.contains("the database"))).await;
    member.store.hang_reads(None);
    gate.open();
    cluster.assert_converged().await;
    eventually("and taken back", || cluster.store.contents().stalled.values().all(String::is_empty)).await;
}

/// In real time: a thread that is blocked keeps paused time from passing.
#[expect(clippy::await_holding_lock, reason = "the decision is what waits for it")]
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn handler_that_never_returns_makes_process_not_live() {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| config.lanes = 1).await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    let held = DECISIONS.lock().expect("sound");
    cluster.send("a", "wait", "");
    let began = Instant::now();
    eventually("noticed", || !member.node.is_live()).await;
    assert!(began.elapsed() >= STUCK_AFTER, "not before its time: {:?}", began.elapsed());
    let stalled = member.node.stalled();
    assert_eq!((stalled[0].class, stalled[0].doing.as_str()), ("lane", "deciding"), "{stalled:?}");
    drop(held);
    eventually("live again", || member.node.is_live()).await;
}

/// In real time, as above. A release that is not heard ends with the drain time.
#[expect(clippy::await_holding_lock, reason = "the decision is what waits for it")]
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn release_is_heard_while_handler_never_returns() {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| (config.lanes, config.drain) = (1, Duration::from_mins(1))).await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    let held = DECISIONS.lock().expect("sound");
    cluster.send("a", "wait", "");
    eventually("it hangs", || !member.node.is_live()).await;
    let began = Instant::now();
    let second = cluster.start().await;
    eventually("its share has moved", || second.node.owned_partitions() == 2).await;
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}: a release was not heard", began.elapsed());
    drop(held);
    cluster.assert_converged().await;
}

#[tokio::test(start_paused = true)]
async fn taker_that_panics_makes_process_not_live() {
    let cluster = Cluster::new();
    let store = cluster.store.node();
    store.panic_on_take(1);
    let config = holdfast_runtime::Config { address: "a".into(), ..Default::default() };
    let member = cluster.start_on(store, config).await;
    eventually("taken in the end", || member.node.owned_partitions() == 4).await;
    member.node.command(call("a", "add", "1")).await.expect("applied");
    let stalled = member.node.stalled();
    assert_eq!((stalled.len(), stalled[0].class, member.node.is_live()), (1, "taker", false), "{stalled:?}");
}

#[tokio::test(start_paused = true)]
async fn taker_that_begins_again_and_again_is_stalled() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    eventually("all partitions owned", || first.node.owned_partitions() == 4).await;
    let second = cluster.start().await;
    eventually("its share has moved", || second.node.owned_partitions() == 2).await;
    second.log.set_unavailable(true); // so that no history can be checked
    cluster.group.expel(&first.membership);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let stalled = second.node.stalled();
    let takers = stalled.iter().filter(|one| one.class == "taker" && !one.is_stuck()).count();
    assert_eq!((takers, second.node.is_live()), (2, true), "{stalled:?}");
    second.log.set_unavailable(false);
    eventually("taken in the end", || second.node.owned_partitions() == 4).await;
    assert!(second.node.stalled().is_empty());
}

#[tokio::test(start_paused = true)]
async fn node_that_stops_or_hands_over_is_not_stalled() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    eventually("all partitions owned", || first.node.owned_partitions() == 4).await;
    let second = cluster.start().await;
    eventually("shared", || second.node.owned_partitions() == 2).await;
    cluster.send("a", "add", "1");
    cluster.assert_converged().await;
    first.node.stop().await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!((first.node.stalled(), second.node.stalled()), (Vec::new(), Vec::new()));
}
