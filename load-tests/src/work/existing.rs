//! Commands to orders that exist already, and to one order alone.
//!
//! Deterministic like the rest of [`super`]: orders and a seed give the records. Each is valid when all
//! before it of the same order were applied, and causes one event. Deliberately absent: making the orders.

use holdfast_proto::orders::v1::{AddItem, CreateOrder, RemoveItem};
use prost::{Message, Name};
use serde::Serialize;
use uuid::Uuid;

use super::{Expect, Form, Ids, Mix, Planned, now_ms, regular};
use crate::random::Random;

/// Records whose sending is one window, and orders whose commands are interleaved.
const WINDOW: usize = 5_000;
/// Values are padded to this size, as the benchmark's are.
const VALUE_BYTES: usize = 200;

/// Numbers the commands of one load.
struct Numbering {
    seed: u64,
    time_ms: u64,
    next: u64,
}

impl Numbering {
    fn new(seed: u64) -> Self {
        // A mix of that seed, made within the same millisecond, must not have these ids.
        Self { seed: !seed, time_ms: now_ms(), next: 0 }
    }

    fn record<M: Message + Name + Serialize>(&mut self, order: Uuid, command: &M) -> Planned {
        let number = self.next;
        self.next += 1;
        let random = Random(self.seed.wrapping_add(number).wrapping_mul(0x9e37)).next();
        let key = order.to_string();
        Planned {
            id: Ids::V4.id(self.time_ms, number, random),
            order,
            subject: key.clone(),
            key,
            r#type: M::full_name(),
            is_complete: true,
            form: Form::Protobuf,
            value: Form::Protobuf.write(command, VALUE_BYTES),
            expect: Expect::Event,
            is_repeat: false,
        }
    }

    fn add(&mut self, order: Uuid, sku: String) -> Planned {
        self.record(order, &AddItem { order_id: order.to_string(), sku, quantity: 1 })
    }
}

/// `each` times `AddItem` to each of these orders, which are drafts: to `sku-0` and `sku-1` in turn. Orders
/// are interleaved step by step.
pub fn adds(orders: Vec<Uuid>, each: u32, seed: u64) -> impl Iterator<Item = Vec<Planned>> + Send {
    let mut numbering = Numbering::new(seed);
    let windows: Vec<(usize, u32)> =
        (0..orders.len()).step_by(WINDOW).flat_map(|first| (0..each).map(move |step| (first, step))).collect();
    windows.into_iter().map(move |(first, step)| {
        let of_window = &orders[first..orders.len().min(first + WINDOW)];
        of_window.iter().map(|order| numbering.add(*order, Mix::sku(step % 2))).collect()
    })
}

/// One order: created, and then `commands` times `AddItem` and `RemoveItem` in turn.
pub fn hot(order: Uuid, commands: u32, seed: u64) -> impl Iterator<Item = Vec<Planned>> + Send {
    let mut numbering = Numbering::new(seed);
    let key = order.to_string();
    let create =
        CreateOrder { order_id: key.clone(), customer_id: regular(0).0.to_string(), currency: "EUR".to_owned() };
    let first = vec![numbering.record(order, &create)];
    let windows = (0..commands).step_by(WINDOW).map(move |first| {
        let end = commands.min(first.saturating_add(u32::try_from(WINDOW).unwrap_or(u32::MAX)));
        let one = |n: u32| match n % 2 {
            0 => numbering.add(order, Mix::sku(0)),
            _ => numbering.record(order, &RemoveItem { order_id: key.clone(), sku: Mix::sku(0) }),
        };
        (first..end).map(one).collect()
    });
    std::iter::once(first).chain(windows)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn additions_reach_each_order_equally_with_unique_ids() {
        let orders: Vec<Uuid> = (0..12_000).map(|_| Ids::V4.fresh()).collect();
        let all: Vec<Planned> = adds(orders.clone(), 3, 1).flatten().collect();
        assert_eq!(all.iter().map(|record| record.id).collect::<HashSet<_>>().len(), 36_000);
        let mut counts: BTreeMap<Uuid, u32> = BTreeMap::new();
        for record in &all {
            *counts.entry(record.order).or_default() += 1;
        }
        assert_eq!(counts.len(), orders.len());
        assert!(counts.values().all(|count| *count == 3));
        assert!(all.iter().all(|record| record.value.len() == VALUE_BYTES && record.key == record.order.to_string()));
    }

    #[test]
    fn ids_differ_from_those_of_a_mix_of_that_seed() {
        let order = Ids::V4.fresh();
        let mut numbering = Numbering::new(1);
        let ids: HashSet<Uuid> = (0..800).map(|_| numbering.add(order, Mix::sku(0)).id).collect();
        let mix = Mix { ids: Ids::V4, time_ms: numbering.time_ms, ..Mix::benchmark(100, 1) };
        assert!(mix.windows().flatten().all(|record| !ids.contains(&record.id)));
    }

    #[test]
    fn hot_order_is_created_and_then_changed_in_turn() {
        let order = Ids::V4.fresh();
        let all: Vec<Planned> = hot(order, 12_001, 1).flatten().collect();
        assert_eq!(all.len(), 12_002);
        assert!(all.iter().all(|record| record.order == order));
        assert!(all[0].r#type.ends_with("CreateOrder"));
        for (n, record) in all[1..].iter().enumerate() {
            assert!(record.r#type.ends_with(if n % 2 == 0 { "AddItem" } else { "RemoveItem" }), "{n}");
        }
    }
}
