//! The rules of a sku, one test each.

mod world;

use std::time::Duration;

use holdfast_core::TimerChange;
use holdfast_inventory_domain::{
    StockItem,
    stock_item::{CHECK_EVERY, Command, Event, REORDER_TIMER, Rejection},
};
use holdfast_money::{Currency, Money};
use world::{NOW, Pools, handle, pools};

const PRICE: Money = Money::new(1_250, Currency::EUR);

fn adjust(delta: i64) -> Command {
    Command::AdjustStock { delta, reason: "counted".into() }
}

/// What a command to a new sku `a` leads to, and what becomes of the pools.
fn when(mut stock: Pools, command: &Command) -> (Result<Vec<Event>, Rejection>, Pools) {
    let outcome = handle(&mut StockItem::default(), &mut stock, "a", command);
    (outcome.map(|outcome| outcome.events), stock)
}

#[test]
fn a_delivery_adds_to_the_pool_of_its_sku_alone() {
    let event = Event::StockReceived { at: NOW, quantity: 7 };
    let (events, stock) = when(pools([("b", 1, 0)]), &Command::ReceiveStock { quantity: 7 });
    assert_eq!((events, stock), (Ok(vec![event]), pools([("a", 7, 0), ("b", 1, 0)])));
}

#[test]
fn a_delivery_is_at_least_one_unit_and_can_be_counted() {
    for quantity in [0, -1, i64::MIN] {
        assert_eq!(when(Pools::new(), &Command::ReceiveStock { quantity }).0, Err(Rejection::QuantityNotPositive));
    }
    let full = pools([("a", i64::MAX, 0)]);
    assert_eq!(
        when(full.clone(), &Command::ReceiveStock { quantity: 1 }),
        (Err(Rejection::StockTooLarge), full.clone())
    );
    assert_eq!(when(full.clone(), &adjust(1)), (Err(Rejection::StockTooLarge), full));
}

#[test]
fn a_correction_never_takes_what_is_reserved() {
    let event = |delta| Event::StockAdjusted { at: NOW, delta, reason: "counted".into() };
    let stock = || pools([("a", 10, 6)]);
    assert_eq!(when(stock(), &adjust(-4)), (Ok(vec![event(-4)]), pools([("a", 6, 6)])));
    assert_eq!(when(stock(), &adjust(3)), (Ok(vec![event(3)]), pools([("a", 13, 6)])));
    for delta in [-5, -11, i64::MIN] {
        assert_eq!(when(stock(), &adjust(delta)), (Err(Rejection::InsufficientStock), stock()));
    }
    assert_eq!(when(Pools::new(), &adjust(-1)).0, Err(Rejection::InsufficientStock));
    assert_eq!(when(stock(), &adjust(0)), (Err(Rejection::DeltaIsZero), stock()));
}

#[test]
fn a_price_is_set_once_for_each_change_and_is_never_negative() {
    let mut item = StockItem::default();
    let mut set = |price| handle(&mut item, &mut Pools::new(), "a", &Command::SetPrice { price }).map(|o| o.events);
    assert_eq!(set(PRICE), Ok(vec![Event::PriceSet { at: NOW, price: PRICE }]));
    assert_eq!(set(PRICE), Ok(vec![]), "the same again");
    assert!(set(Money::zero(Currency::EUR)).is_ok_and(|events| events.len() == 1), "free, but not negative");
    assert_eq!(set(Money::new(-1, Currency::EUR)), Err(Rejection::PriceNegative));
    assert_eq!(item.details().and_then(|details| details.price), Some(Money::zero(Currency::EUR)));
}

#[test]
fn reorder_point_is_set_once_per_change_and_is_never_negative() {
    let mut item = StockItem::default();
    let mut set = |reorder_point| {
        handle(&mut item, &mut Pools::new(), "a", &Command::SetReorderPoint { reorder_point }).map(|o| o.events)
    };
    assert_eq!(set(40), Ok(vec![Event::ReorderPointSet { at: NOW, reorder_point: 40 }]));
    assert_eq!(set(40), Ok(vec![]), "the same again");
    for negative in [-1, i64::MIN] {
        assert_eq!(set(negative), Err(Rejection::ReorderPointNegative));
    }
    assert!(set(0).is_ok_and(|events| events.len() == 1), "none, but not negative");
    handle(&mut item, &mut Pools::new(), "a", &Command::SetReorderPoint { reorder_point: 7 }).expect("accepted");
    handle(&mut item, &mut Pools::new(), "a", &Command::SetPrice { price: PRICE }).expect("accepted");
    assert_eq!(item.details().map(|details| (details.reorder_point, details.price)), Some((7, Some(PRICE))));
}

#[test]
fn stock_without_a_price_has_none() {
    let (mut item, mut stock) = (StockItem::default(), Pools::new());
    assert_eq!(item.details(), None);
    handle(&mut item, &mut stock, "a", &Command::ReceiveStock { quantity: 1 }).expect("accepted");
    assert_eq!(item.details().map(|details| details.price), Some(None));
    assert_eq!(item.details().copied().map(StockItem::rehydrate), Some(item));
}

#[test]
fn rejections_keep_their_published_names() {
    let names = [
        (Rejection::QuantityNotPositive, "QUANTITY_NOT_POSITIVE", "the quantity must be at least 1"),
        (Rejection::DeltaIsZero, "DELTA_IS_ZERO", "the delta must not be 0"),
        (Rejection::PriceNegative, "PRICE_NEGATIVE", "the price must not be negative"),
        (Rejection::ReorderPointNegative, "REORDER_POINT_NEGATIVE", "the reorder point must not be negative"),
        (Rejection::InsufficientStock, "INSUFFICIENT_STOCK", "less stock would remain than is reserved"),
        (Rejection::StockTooLarge, "STOCK_TOO_LARGE", "the stock would be too large"),
    ];
    for (rejection, code, text) in names {
        assert_eq!((rejection.code(), rejection.to_string().as_str()), (code, text));
    }
}

#[test]
fn more_is_asked_for_once_for_each_fall_below_the_reorder_point() {
    let mut item = StockItem::default();
    let look = |item: &mut StockItem, stock: &mut Pools| {
        let before = stock.clone();
        let outcome = handle(item, stock, "a", &Command::CheckDue).expect("not rejected");
        assert_eq!(*stock, before, "it only looks");
        assert_eq!(outcome.timers, [TimerChange::Set { name: REORDER_TIMER, after: CHECK_EVERY }]);
        outcome.events
    };
    let set = handle(&mut item, &mut Pools::new(), "a", &Command::SetReorderPoint { reorder_point: 4 });
    let soon = TimerChange::Set { name: REORDER_TIMER, after: Duration::ZERO };
    assert_eq!(set.map(|outcome| outcome.timers), Ok(vec![soon]));
    let asked = [Event::ReplenishmentRequested { at: NOW, reorder_point: 4 }];
    let (mut enough, mut few) = (pools([("a", 10, 6)]), pools([("a", 10, 7)]));
    assert_eq!(look(&mut item, &mut enough), []);
    assert_eq!(look(&mut item, &mut few), asked);
    assert_eq!(look(&mut item, &mut few), [], "asked for already");
    assert_eq!(look(&mut item, &mut enough), [Event::ReplenishmentEnded { at: NOW }]);
    assert_eq!(look(&mut item, &mut Pools::new()), asked, "and again");
}

#[test]
fn without_a_reorder_point_nobody_looks() {
    let mut item = StockItem::default();
    for (reorder_point, few) in [(4, pools([("a", 1, 0)])), (0, Pools::new())] {
        handle(&mut item, &mut few.clone(), "a", &Command::SetReorderPoint { reorder_point }).expect("not rejected");
        handle(&mut item, &mut few.clone(), "a", &Command::CheckDue).expect("not rejected");
    }
    let last = handle(&mut item, &mut Pools::new(), "a", &Command::CheckDue).expect("not rejected");
    assert_eq!((last.events, last.timers), (vec![], vec![]));
    assert!(item.details().is_some_and(|details| !details.is_replenishing));
}
