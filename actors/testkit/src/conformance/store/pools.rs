//! Laws of shared quantities (I2: they conserve exactly).

use std::{collections::BTreeMap, sync::Arc};

use holdfast_core::{
    PartitionId,
    batch::Writes,
    pool::{Pool, PoolChange},
    port::store::Store,
};

use super::{StoreHarness, published, registered};
use crate::sample::{Owner, conditional, draft, entry};

async fn pool(store: &Arc<dyn Store>, name: &str) -> Option<Pool> {
    store.pools(&[name.to_owned()]).await.expect("there").remove(name)
}

async fn supply(owner: &mut Owner, partition: u32, pools: &[(&str, i64)]) {
    let wants = pools.iter().map(|(name, by)| PoolChange::supply(*name, *by)).collect();
    let committed = owner.commit(vec![conditional(partition, wants)]).await.expect("sound");
    assert_eq!(committed.granted, [true], "more is always granted");
}

/// First come, first served; and each gets the rows of its outcome.
pub async fn grants_are_made_in_batch_order(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    supply(&mut owner, 0, &[("sku", 5)]).await;
    let plain = entry(1, Writes { outbox: vec![draft("t", "k", "plain")], ..Writes::default() });
    let want = |partition, by| conditional(partition, vec![PoolChange::hold("sku", by)]);
    let entries = vec![want(1, 3), want(0, 3), plain, want(0, 2), want(1, 1), want(0, -1), want(1, 1)];
    let committed = owner.commit(entries).await.expect("sound");
    assert_eq!(committed.granted, [true, false, true, true, false, true, true]);
    assert_eq!(published(&store, 0).await, ["granted", "refused", "granted", "granted"]);
    assert_eq!(published(&store, 1).await, ["granted", "plain", "refused", "granted"]);
    assert_eq!(pool(&store, "sku").await, Some(Pool { total: 5, held: 5 }));
}

/// All pools of a condition or none.
pub async fn a_condition_is_granted_whole_or_not_at_all(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    supply(&mut owner, 0, &[("a", 5), ("b", 1)]).await;
    let want = |a, b| conditional(0, vec![PoolChange::hold("a", a), PoolChange::hold("b", b)]);
    let committed = owner.commit(vec![want(2, 2), want(3, 1), want(3, 0)]).await.expect("sound");
    assert_eq!(committed.granted, [false, true, false]);
    let expected = [("a".to_owned(), Pool { total: 5, held: 3 }), ("b".to_owned(), Pool { total: 1, held: 1 })];
    let pools = store.pools(&["a".to_owned(), "b".to_owned()]).await.expect("there");
    assert_eq!(pools, BTreeMap::from(expected));
}

/// What isn't written isn't granted.
pub async fn stale_partitions_take_nothing_from_pools(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    supply(&mut owner, 0, &[("sku", 3)]).await;
    let _thief = Owner::take(&store, [0]).await;
    let want = |partition| conditional(partition, vec![PoolChange::hold("sku", 2)]);
    let committed = owner.commit(vec![want(0), want(1)]).await.expect("sound");
    assert_eq!((committed.stale, committed.granted), (vec![PartitionId(0)], vec![false, true]));
    assert_eq!(pool(&store, "sku").await, Some(Pool { total: 3, held: 2 }));
}

/// And count as empty in a condition.
pub async fn pools_that_do_not_exist_are_left_out(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    supply(&mut owner, 0, &[("a", 1)]).await;
    let refused = owner.commit(vec![conditional(0, vec![PoolChange::hold("none", 1)])]).await.expect("sound");
    assert_eq!(refused.granted, [false]);
    let pools = store.pools(&["none".to_owned(), "a".to_owned()]).await.expect("there");
    assert_eq!(pools, BTreeMap::from([("a".to_owned(), Pool { total: 1, held: 0 })]));
    assert!(store.pools(&[]).await.expect("there").is_empty());
}

/// Many nodes, one hot pool: exactly what there is.
pub async fn grants_never_oversell(harness: &dyn StoreHarness) {
    const NODES: u32 = 6;
    let store = registered(harness, NODES + 1).await;
    let mut stockist = Owner::take(&store, [NODES]).await;
    supply(&mut stockist, NODES, &[("sku", 100)]).await;
    let mut buyers = Vec::new();
    for partition in 0..NODES {
        let node = harness.connect().await;
        buyers.push(tokio::spawn(async move {
            let mut owner = Owner::take(&node, [partition]).await;
            let mut granted = 0;
            for _ in 0..15 {
                let entries =
                    [1, 2].map(|by| conditional(partition, vec![PoolChange::hold("sku", by)])).into_iter().collect();
                let committed = owner.commit(entries).await.expect("sound");
                granted += committed.granted.iter().zip([1, 2]).filter(|(yes, _)| **yes).map(|(_, by)| by).sum::<i64>();
                tokio::task::yield_now().await;
            }
            granted
        }));
    }
    let mut granted = 0;
    for buyer in buyers {
        granted += buyer.await.expect("no panic");
    }
    assert_eq!(granted, 100, "6 x 45 were wanted");
    assert_eq!(pool(&store, "sku").await, Some(Pool { total: 100, held: 100 }));
}

/// Locks are taken in key order, whatever order the batch names them in.
pub async fn batches_that_want_the_same_pools_in_another_order_all_end(harness: &dyn StoreHarness) {
    let store = registered(harness, 3).await;
    let mut stockist = Owner::take(&store, [2]).await;
    supply(&mut stockist, 2, &[("a", 1_000), ("b", 1_000), ("c", 1_000)]).await;
    let mut nodes = Vec::new();
    for partition in 0..2 {
        let node = harness.connect().await;
        nodes.push(tokio::spawn(async move {
            let mut owner = Owner::take(&node, [partition]).await;
            let mut names = ["a", "b", "c"];
            if partition == 1 {
                names.reverse();
            }
            for _ in 0..20 {
                let entries =
                    names.iter().map(|name| conditional(partition, vec![PoolChange::hold(*name, 1)])).collect();
                owner.commit(entries).await.expect("no deadlock");
                tokio::task::yield_now().await;
            }
        }));
    }
    for node in nodes {
        node.await.expect("no panic");
    }
    for name in ["a", "b", "c"] {
        assert_eq!(pool(&store, name).await, Some(Pool { total: 1_000, held: 40 }), "{name}");
    }
}
