//! Orders asks inventory what things cost, as in production: through the client stack, over a socket,
//! answered from inventory's store.

use std::{net::SocketAddr, sync::Arc};

use holdfast_core::{CallEnvelope, dedup::Answer};
use holdfast_money::{Currency, Money};
use holdfast_orders::prices::grpc::{GrpcPrices, settings};
use holdfast_orders_domain::Status;
use holdfast_platform::{
    Health, Shutdown,
    grpc::{Peer, Server},
};
use holdfast_proto::{inventory::v1 as inventory, money::v1 as money, orders::v1 as orders};
use holdfast_runtime::{RouteError, Router};
use prost::Name;
use tokio::{net::TcpListener, task::JoinHandle};
use uuid::Uuid;

use super::{
    HOLD, new_id,
    world::{Member, PARTITIONS, World, eventually},
};

async fn serve(member: &Member) -> (SocketAddr, Shutdown, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = Health::new();
    let (node, store) = (member.node.clone(), Arc::new(member.store.node()));
    let server = holdfast_inventory::grpc::register(Server::new(health.clone()), node, store);
    let shutdown = Shutdown::new(health);
    let stop = shutdown.clone();
    (address, shutdown, tokio::spawn(async move { server.serve(listener, &stop).await.unwrap() }))
}

async fn call<C: Name>(member: &Member, key: &str, command: &C) -> Result<Answer, RouteError> {
    let call = CallEnvelope::new(Uuid::now_v7(), C::full_name(), key, command.encode_to_vec().into());
    member.node.command(call).await
}

fn add(order_id: &str, sku: &str, quantity: i64) -> orders::AddItem {
    orders::AddItem { order_id: order_id.to_owned(), sku: sku.to_owned(), quantity }
}

#[tokio::test]
async fn prices_come_from_inventory_and_without_it_no_old_one_is_used() {
    let world = World::new(HOLD);
    let inventory = world.start_inventory().await;
    let (address, shutdown, serving) = serve(&inventory).await;
    let peer = Peer::new("inventory", &format!("http://{address}"), settings(), None).unwrap();
    let orders = world.start_orders(GrpcPrices::new(peer)).await;
    eventually("both own everything", || {
        [&inventory, &orders].iter().all(|member| member.node.owned_partitions() == PARTITIONS as usize)
    })
    .await;

    let price = Some(money::Money { minor: 1999, currency: "EUR".to_owned() });
    world.send("inventory", "A", &inventory::SetPrice { sku: "A".to_owned(), price });
    world.receive("A", 10);
    world.receive("UNPRICED", 10);
    world.settled().await;

    let order = new_id();
    world.order(&order, &[("A", 2)], false);
    world.settled().await;
    for sku in ["UNPRICED", "GONE"] {
        let answer = call(&orders, &order, &add(&order, sku, 1)).await.unwrap();
        assert!(matches!(&answer, Answer::Rejected { rejection, .. } if rejection.code == "UNKNOWN_SKU"), "{answer:?}");
    }
    world.place(&order);
    world.settled().await;
    let placed = world.stored_order(&order).unwrap();
    assert_eq!(placed.lines.total(), Money::new(2 * 1999, Currency::EUR));
    assert!(matches!(placed.status, Status::Placed { reserved_until: Some(_) }));

    shutdown.begin();
    shutdown.stopping().cancel();
    serving.await.unwrap();
    let next = new_id();
    world.order(&next, &[], false);
    world.settled().await;
    let refused = call(&orders, &next, &add(&next, "NEVER-ASKED", 1)).await;
    assert!(matches!(refused, Err(RouteError::Downstream(_))), "{refused:?}");
}
