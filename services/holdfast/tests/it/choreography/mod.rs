//! Contexts together, over events alone: orders and inventory on the runtime, and an order's whole life in
//! every interleaving.
//!
//! In memory and, but for the one test over real gRPC, in paused time. Deliberately absent: Kafka and
//! Postgres, which the demo exercises.

mod interleavings;
mod thousand;
mod wire;
mod world;

use std::time::Duration;

use holdfast_core::pool::Pool;
use holdfast_inventory_domain::reservation;
use holdfast_money::{Currency, Money};
use holdfast_orders::prices::StaticPrices;
use holdfast_orders_domain::{CancellationCause, Status};
use uuid::Uuid;

use self::world::World;

const HOLD: Duration = Duration::from_mins(15);

/// Every sku costs one euro.
fn one_euro() -> StaticPrices {
    StaticPrices::all(Money::new(100, Currency::EUR))
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

fn cause(world: &World, order_id: &str) -> Option<CancellationCause> {
    match world.stored_order(order_id)?.status {
        Status::Cancelled(cancellation) => Some(cancellation.cause),
        _ => None,
    }
}

fn status(world: &World, order_id: &str) -> Option<reservation::Status> {
    world.stored_reservation(order_id).map(|details| details.status)
}

#[tokio::test(start_paused = true)]
async fn order_is_placed_with_stock_and_cancelled_without() {
    let world = World::new(HOLD);
    let (_orders, _inventory) = (world.start_orders(one_euro()).await, world.start_inventory().await);
    world.receive("A", 5);
    world.receive("B", 1);
    world.settled().await;
    let (first, second) = (new_id(), new_id());
    world.order(&first, &[("A", 3), ("B", 1)], true);
    world.settled().await;
    world.order(&second, &[("A", 1), ("B", 1)], true);
    world.settled().await;

    let until = world.stored_reservation(&first).unwrap().expires_at;
    assert!(until.is_some());
    assert_eq!(world.stored_order(&first).unwrap().status, Status::Placed { reserved_until: until });
    assert_eq!(cause(&world, &second), Some(CancellationCause::OutOfStock));
    assert_eq!(status(&world, &second), Some(reservation::Status::Refused));
    let [a, b] = ["A", "B"].map(|sku| world.pool(sku));
    assert_eq!((a, b), (Pool { total: 5, held: 3 }, Pool { total: 1, held: 1 }), "all lines or none");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn expired_hold_is_given_back_and_its_order_is_cancelled() {
    let world = World::new(HOLD);
    let (_orders, inventory) = (world.start_orders(one_euro()).await, world.start_inventory().await);
    world.receive("A", 5);
    world.settled().await;
    let order = new_id();
    world.order(&order, &[("A", 5)], true);
    world.settled().await;
    tokio::time::sleep(Duration::from_mins(14)).await;
    assert_eq!((status(&world, &order), world.pool("A").held), (Some(reservation::Status::Held), 5));

    // The timer is durable: it fires although the node that set it is gone.
    inventory.node.stop().await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(world.pool("A").held, 5);
    let _inventory = world.start_inventory().await;
    world::eventually("the order is cancelled", || cause(&world, &order).is_some()).await;
    assert_eq!(cause(&world, &order), Some(CancellationCause::ReservationExpired));
    assert_eq!((status(&world, &order), world.pool("A").held), (Some(reservation::Status::Expired), 0));

    let next = new_id();
    world.order(&next, &[("A", 5)], true);
    world.settled().await;
    assert_eq!(status(&world, &next), Some(reservation::Status::Held), "what was given back can be sold again");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_gives_the_stock_back_whenever_it_comes() {
    let world = World::new(HOLD);
    let (_orders, _inventory) = (world.start_orders(one_euro()).await, world.start_inventory().await);
    world.receive("A", 30);
    world.settled().await;
    let (draft, at_once, later) = (new_id(), new_id(), new_id());
    world.order(&draft, &[("A", 1)], false);
    world.cancel(&draft);
    world.order(&at_once, &[("A", 2)], true);
    world.cancel(&at_once);
    world.order(&later, &[("A", 3)], true);
    world.settled().await;
    assert_eq!(world.pool("A").held, 3);
    world.cancel(&later);
    world.settled().await;

    for (order, lines) in [(&draft, 0), (&at_once, 1), (&later, 1)] {
        assert_eq!(cause(&world, order), Some(CancellationCause::Requested));
        let released = world.stored_reservation(order).unwrap();
        assert!(matches!(released.status, reservation::Status::Released(_)), "{released:?}");
        assert_eq!(released.lines.len(), lines);
    }
    assert_eq!(world.pool("A"), Pool { total: 30, held: 0 });
    assert!(world.inventory.store.contents().timers.is_empty(), "a hold that ended takes its timer along");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_flash_sale_sells_exactly_what_there_is() {
    let world = World::new(HOLD);
    let (_orders, _inventory) = (world.start_orders(one_euro()).await, world.start_inventory().await);
    world.receive("HOT", 100);
    world.receive("COLD", 100);
    world.settled().await;
    let hot: Vec<String> = (0..300).map(|_| new_id()).collect();
    for order in &hot {
        world.order(order, &[("HOT", 1)], true);
    }
    let cold = new_id();
    world.order(&cold, &[("COLD", 1)], true);
    world.settled().await;

    let sold = hot.iter().filter(|order| status(&world, order) == Some(reservation::Status::Held)).count();
    let out = hot.iter().filter(|order| cause(&world, order) == Some(CancellationCause::OutOfStock)).count();
    assert_eq!((sold, out), (100, 200));
    assert_eq!(world.pool("HOT"), Pool { total: 100, held: 100 });
    assert_eq!(status(&world, &cold), Some(reservation::Status::Held));
    world.check();
}
