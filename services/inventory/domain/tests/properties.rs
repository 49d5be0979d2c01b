//! Laws of stock over random interleavings of orders, cancellations, timers, deliveries and corrections, each
//! of which may come late, twice, or without what should have come before.

mod world;

use std::collections::BTreeMap;

use holdfast_core::Aggregate;
use holdfast_inventory_domain::{
    Line, Reservation, StockItem,
    reservation::{self, HOLD_DEFAULT, Status},
    stock_item,
};
use proptest::prelude::*;
use world::{Pools, handle, line};

const SKUS: [&str; 3] = ["a", "b", "c"];

/// One step of the world: a command to one of a few orders, or to one of the skus.
#[derive(Clone, Debug)]
enum Step {
    Order(u8, reservation::Command),
    Stock(&'static str, stock_item::Command),
}

fn sku() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&SKUS[..])
}

fn quantity() -> impl Strategy<Value = i64> {
    prop_oneof![20 => 1_i64..30, 1 => any::<i64>(), 1 => Just(0)]
}

fn step() -> impl Strategy<Value = Step> {
    let lines = proptest::collection::vec((sku(), quantity()).prop_map(|(name, quantity)| line(name, quantity)), 1..4);
    let news = prop_oneof![
        3 => lines.prop_map(|lines| reservation::Command::OrderPlaced { lines, hold_for: HOLD_DEFAULT }),
        1 => Just(reservation::Command::OrderCancelled),
        1 => Just(reservation::Command::HoldElapsed),
        1 => Just(reservation::Command::OrderPaid),
        1 => Just(reservation::Command::OrderShipped),
    ];
    let stock = prop_oneof![
        2 => quantity().prop_map(|quantity| stock_item::Command::ReceiveStock { quantity }),
        1 => quantity().prop_map(|delta| stock_item::Command::AdjustStock { delta: delta.wrapping_neg(), reason: "lost".into() }),
    ];
    prop_oneof![
        (0_u8..12, news).prop_map(|(order, news)| Step::Order(order, news)),
        (sku(), stock).prop_map(|(sku, command)| Step::Stock(sku, command)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 0..150)
}

/// The context in small: pools, actors, and a ledger of events that the pools are checked against.
#[derive(Default)]
struct World {
    pools: Pools,
    reservations: BTreeMap<u8, Reservation>,
    items: BTreeMap<&'static str, StockItem>,
    reservation_events: BTreeMap<u8, Vec<reservation::Event>>,
    received: BTreeMap<&'static str, i128>,
}

impl World {
    /// Whether anything happened.
    fn take(&mut self, step: &Step) -> bool {
        match step {
            Step::Order(order, news) => {
                let reservation = self.reservations.entry(*order).or_default();
                let outcome = handle(reservation, &mut self.pools, "order", news).expect("news is never rejected");
                let happened = !outcome.events.is_empty();
                for event in &outcome.events {
                    let reservation::Event::ReservationShipped { lines, .. } = event else { continue };
                    for line in lines.iter() {
                        let sku = SKUS.into_iter().find(|sku| *sku == line.sku.as_str()).expect("one of ours");
                        *self.received.entry(sku).or_default() -= i128::from(line.quantity);
                    }
                }
                self.reservation_events.entry(*order).or_default().extend(outcome.events);
                happened
            }
            Step::Stock(sku, command) => {
                let outcome = handle(self.items.entry(sku).or_default(), &mut self.pools, sku, command);
                let events = outcome.map(|outcome| outcome.events).unwrap_or_default();
                for event in &events {
                    *self.received.entry(sku).or_default() += match event {
                        stock_item::Event::StockReceived { quantity, .. } => i128::from(*quantity),
                        stock_item::Event::StockAdjusted { delta, .. } => i128::from(*delta),
                        _ => 0,
                    };
                }
                !events.is_empty()
            }
        }
    }

    fn held(&self, sku: &str) -> i128 {
        let is_held = |status| matches!(status, Status::Held | Status::Confirmed);
        let held = self.reservations.values().filter_map(Reservation::details).filter(|d| is_held(d.status));
        let lines = held.flat_map(|details| details.lines.iter());
        lines.filter(|line: &&Line| line.sku.as_str() == sku).map(|line| i128::from(line.quantity)).sum()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for sku in SKUS {
            let pool = self.pools.get(sku).copied().unwrap_or_default();
            prop_assert!(0 <= pool.held && pool.held <= pool.total && pool.available() >= 0, "{sku}: {pool:?}");
            prop_assert_eq!(i128::from(pool.total), self.received.get(sku).copied().unwrap_or_default());
            prop_assert_eq!(i128::from(pool.held), self.held(sku));
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn stock_is_never_negative_and_always_accounted_for(steps in steps()) {
        let mut world = World::default();
        for step in &steps {
            world.take(step);
            world.check()?;
        }
    }

    #[test]
    fn news_delivered_twice_has_one_effect(steps in steps()) {
        let (mut once, mut twice) = (World::default(), World::default());
        for step in &steps {
            once.take(step);
            twice.take(step);
            if matches!(step, Step::Order(..)) {
                prop_assert!(!twice.take(step));
            }
        }
        prop_assert_eq!(once.pools, twice.pools);
        prop_assert_eq!(once.reservations, twice.reservations);
    }

    #[test]
    fn once_every_order_ends_nothing_is_held(steps in steps(), expire in any::<bool>()) {
        let mut world = World::default();
        for step in &steps {
            world.take(step);
        }
        let end = if expire { reservation::Command::HoldElapsed } else { reservation::Command::OrderCancelled };
        for order in 0..12 {
            // What was paid does not expire: it is cancelled or shipped.
            world.take(&Step::Order(order, end.clone()));
            world.take(&Step::Order(order, reservation::Command::OrderShipped));
        }
        world.check()?;
        prop_assert!(world.pools.values().all(|pool| pool.held == 0));
    }

    #[test]
    fn replay_equals_live(steps in steps()) {
        let mut world = World::default();
        for step in &steps {
            world.take(step);
        }
        for (order, events) in &world.reservation_events {
            let mut replayed = Reservation::default();
            for event in events {
                replayed.evolve(event);
            }
            prop_assert_eq!(Some(&replayed), world.reservations.get(order));
        }
    }

    #[test]
    fn order_ends_the_same_if_placed_or_cancelled_first(name in sku(), wanted in 1_i64..20, stock in 0_i64..20) {
        let place = Step::Order(0, reservation::Command::OrderPlaced { lines: vec![line(name, wanted)], hold_for: HOLD_DEFAULT });
        let cancel = Step::Order(0, reservation::Command::OrderCancelled);
        for steps in [[&place, &cancel], [&cancel, &place]] {
            let mut world = World::default();
            if stock > 0 {
                world.take(&Step::Stock(name, stock_item::Command::ReceiveStock { quantity: stock }));
            }
            for step in steps {
                world.take(step);
            }
            world.check()?;
            prop_assert_eq!(world.held(name), 0);
        }
    }
}
