//! A timer that is set again while an older setting of it fires: the newer setting is never lost.

use std::time::Duration;

use crate::cluster::{Cluster, Member, eventually};

const LATER: Duration = Duration::from_mins(1);

/// A cluster in which the timer of `a` is about to fire for the first time.
async fn nearly_due() -> (Cluster, Member) {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    cluster.send("a", "later", "");
    cluster.assert_converged().await;
    assert_eq!(cluster.store.contents().timers.len(), 1);
    tokio::time::sleep(LATER.checked_sub(Duration::from_millis(500)).expect("shorter")).await;
    assert_eq!(cluster.version("a"), 0);
    (cluster, member)
}

/// The batch that sets the timer is held by an outage until the older setting is due, so that firing is read
/// before the batch commits, and decided after.
#[tokio::test(start_paused = true)]
async fn firing_read_before_timer_is_set_again_is_void() {
    let (cluster, member) = nearly_due().await;
    member.store.set_unavailable(true);
    cluster.send("a", "later", "");
    tokio::time::sleep(Duration::from_secs(1)).await;
    member.store.set_unavailable(false);
    cluster.assert_converged().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.store.contents().timers.len(), 1, "the newer setting is stored");
    assert_eq!(cluster.version("a"), 0, "nothing fired before the newer setting is due");
    tokio::time::sleep(LATER).await;
    assert_eq!((cluster.sum("a"), cluster.version("a")), (Some(1000), 1));
    assert!(cluster.store.contents().timers.is_empty());
}

/// Some of these are set again just before the older setting fires, some just after, some in one batch with
/// the firing, some while that is on its way.
#[tokio::test(start_paused = true)]
async fn timer_set_again_around_its_firing_fires_again() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    let keys: Vec<String> = (0..400).map(|n| format!("k{n}")).collect();
    for key in &keys {
        cluster.send(key, "later", "");
    }
    cluster.assert_converged().await;
    tokio::time::sleep(LATER.checked_sub(Duration::from_millis(500)).expect("shorter")).await;
    for (n, key) in keys.iter().enumerate() {
        // An outage now and then, so that several of them gather, and firings with them.
        member.store.set_unavailable(n % 20 < 5);
        cluster.send(key, "later", "");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    member.store.set_unavailable(false);
    cluster.assert_converged().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left = cluster.store.contents().timers;
    let lost: Vec<&str> =
        keys.iter().map(String::as_str).filter(|key| !left.keys().any(|(id, _)| &*id.key == *key)).collect();
    assert_eq!(lost, [""; 0], "each was set again less than a minute ago");
    let fired = keys.iter().filter(|key| cluster.version(key) > 0).count();
    assert!((1..keys.len()).contains(&fired), "{fired} fired before they were set again, the rest was too late to");
    eventually("all have fired", || cluster.store.contents().timers.is_empty()).await;
    cluster.assert_converged().await;
    assert!(keys.iter().all(|key| cluster.version(key) >= 1));
}
