//! What a watcher of an order sees.

use std::time::Duration;

use holdfast_core::pool::Pool;
use holdfast_platform::errors::reason;
use holdfast_proto::{
    orders::v1::{self, OrderStatus},
    read::v1::Consistency,
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::shop::{Shop, id};

async fn watch(shop: &mut Shop, order_id: &str, after_version: u64) -> Streaming<v1::WatchOrderResponse> {
    let request = v1::WatchOrderRequest { order_id: order_id.into(), after_version };
    shop.client.watch_order(request).await.expect("watches").into_inner()
}

/// The next message; `None` at the end.
async fn next(stream: &mut Streaming<v1::WatchOrderResponse>) -> Result<Option<v1::Order>, Status> {
    let next = timeout(Duration::from_secs(20), stream.message()).await.expect("within 20 s")?;
    Ok(next.map(|next| {
        let (order, read) = (next.order.unwrap(), next.read.unwrap());
        assert_eq!((read.version, read.consistency()), (order.version, Consistency::Local));
        order
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn watcher_sees_the_current_order_then_each_state_then_the_end() {
    for mut shop in [Shop::in_memory().await, Shop::on_postgres().await] {
        let order_id = shop.draft().await;
        let mut changes = watch(&mut shop, &order_id, 0).await;
        assert_eq!(next(&mut changes).await.unwrap().unwrap().version, 1);
        for n in 2..=4 {
            shop.add(&order_id, "A", 1).await.unwrap();
            assert_eq!(next(&mut changes).await.unwrap().unwrap().version, n);
        }
        shop.place(&order_id).await.unwrap();
        assert_eq!(next(&mut changes).await.unwrap().unwrap().status(), OrderStatus::Placed);
        shop.refuse(&order_id);
        let last = next(&mut changes).await.unwrap().unwrap();
        assert_eq!((last.version, last.status()), (6, OrderStatus::Cancelled));
        assert_eq!(next(&mut changes).await.unwrap(), None, "nothing follows a final state");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_only_grow_for_every_watcher_of_a_busy_order() {
    let mut shop = Shop::in_memory().await;
    let order_id = shop.draft().await;
    let mut watchers = Vec::new();
    for _ in 0..20 {
        let mut changes = watch(&mut shop, &order_id, 0).await;
        watchers.push(tokio::spawn(async move {
            let mut versions = Vec::new();
            while let Some(order) = next(&mut changes).await.unwrap() {
                versions.push(order.version);
            }
            versions
        }));
        shop.add(&order_id, "A", 1).await.unwrap();
    }
    shop.cancel(&order_id).await.unwrap();
    for watcher in watchers {
        let versions = watcher.await.unwrap();
        assert!(versions.is_sorted_by(|earlier, later| earlier < later), "{versions:?}");
        assert_eq!(versions.last(), Some(&22), "the final state is seen by all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_comes_back_goes_on_where_it_was() {
    let mut shop = Shop::in_memory().await;
    let order_id = shop.draft().await;
    shop.add(&order_id, "A", 1).await.unwrap();
    let mut changes = watch(&mut shop, &order_id, 2).await;
    shop.add(&order_id, "A", 1).await.unwrap();
    assert_eq!(next(&mut changes).await.unwrap().unwrap().version, 3, "version 2 is known");
    shop.cancel(&order_id).await.unwrap();
    assert_eq!(next(&mut changes).await.unwrap().unwrap().version, 4);
    let mut over = watch(&mut shop, &order_id, 4).await;
    assert_eq!(next(&mut over).await.unwrap(), None, "it knows the end already");
    let mut late = watch(&mut shop, &order_id, 0).await;
    assert_eq!(next(&mut late).await.unwrap().unwrap().version, 4);
    assert_eq!(next(&mut late).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_can_not_be_watched() {
    let mut shop = Shop::in_memory().await;
    let request = v1::WatchOrderRequest { order_id: id(), after_version: 0 };
    assert_eq!(shop.client.watch_order(request).await.unwrap_err().code(), Code::NotFound);
    let request = v1::WatchOrderRequest { order_id: "x".into(), after_version: 0 };
    assert_eq!(shop.client.watch_order(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_starts_again_after_everybody_had_left() {
    let mut shop = Shop::in_memory().await;
    let order_id = shop.draft().await;
    for version in 1..4 {
        let mut changes = watch(&mut shop, &order_id, 0).await;
        assert_eq!(next(&mut changes).await.unwrap().unwrap().version, version);
        shop.add(&order_id, "A", 1).await.unwrap();
        assert_eq!(next(&mut changes).await.unwrap().unwrap().version, version + 1);
        drop(changes);
        // Longer than the pause between two look-outs: the one of before has ended.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_get_unavailable_if_look_ups_fail_for_long() {
    let mut shop = Shop::in_memory().await;
    let order_id = shop.draft().await;
    let mut changes = watch(&mut shop, &order_id, 0).await;
    assert_eq!(next(&mut changes).await.unwrap().unwrap().version, 1);
    shop.memory.set_pool("down", Pool::default());
    let status = next(&mut changes).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_deref()), (Code::Unavailable, Some("UNAVAILABLE")));
}
