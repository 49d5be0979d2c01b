//! What is sent through Kafka while things break: many commands to few orders, a handful of them hot, and a
//! share of repeats.
//!
//! Deterministic: the same [`Crowd`] gives the same records. Every command's effect is known beforehand,
//! because an order's commands lie in one partition in the order in which they are made here. Deliberately
//! absent: Kafka, and what a good shop would do.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::orders::v1::{AddItem, CancelOrder, CreateOrder, PlaceOrder, RemoveItem};
use prost::{Message, Name};
use uuid::Uuid;

use crate::{
    random::Random,
    work::{Expect, Form, Planned, UNKNOWN_SKU, id, regular},
};

/// Skus that orders ask for.
pub const SKUS: u32 = 20;
/// The largest number of records from a record to its repeat.
const REPEAT_WITHIN: u64 = 3_000;

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// How many commands; placing and cancelling the orders in the end comes on top.
    pub commands: u32,
    /// How many orders they go to.
    pub orders: u32,
    /// How many of those get half of all commands.
    pub hot: u32,
    /// How many of 1,000 records are sent twice.
    pub repeated: u16,
    /// Everything random follows from it.
    pub seed: u64,
    /// The time inside the ids, ms since 1970.
    pub time_ms: u64,
}

/// One order in the making.
struct Making {
    number: u32,
    id: Uuid,
    key: String,
    is_created: bool,
    lines: BTreeSet<u32>,
}

impl Crowd {
    /// The n-th sku.
    pub fn sku(n: u32) -> String {
        format!("crowd-{n}")
    }

    /// All records, in the order in which they are to be sent.
    pub fn records(&self) -> Vec<Planned> {
        let mut random = Random(self.seed);
        let mut orders: Vec<Making> = (0..self.orders.max(1)).map(|n| self.order(n, &mut random)).collect();
        let mut made = Made { crowd: *self, number: 0, records: Vec::new(), later: BTreeMap::new() };
        for _ in 0..self.commands {
            let at = self.pick(&mut random);
            let order = &mut orders[at];
            let record = made.next_of(order, &mut random);
            made.put(record, &mut random);
        }
        for order in orders.iter().filter(|order| !order.lines.is_empty()) {
            let (payment_method, address_id) = ("pm_card_visa".into(), regular(order.number).1.to_string());
            let place = PlaceOrder { order_id: order.key.clone(), payment_method, address_id };
            let record = made.record(order, &place, Expect::Event, &mut random);
            made.put(record, &mut random);
        }
        for (n, order) in orders.iter().enumerate() {
            if order.is_created && n % 10 == 0 {
                let cancel = CancelOrder { order_id: order.key.clone(), reason: "enough".into() };
                let record = made.record(order, &cancel, Expect::Event, &mut random);
                made.put(record, &mut random);
            }
        }
        made.finish()
    }

    fn order(&self, n: u32, random: &mut Random) -> Making {
        let id = id(self.time_ms, u64::from(n), random.next());
        Making { number: n, id, key: id.to_string(), is_created: false, lines: BTreeSet::new() }
    }

    fn pick(&self, random: &mut Random) -> usize {
        let hot = u64::from(self.hot.min(self.orders));
        let all = u64::from(self.orders.max(1));
        let at = if hot > 0 && random.below(2) == 0 { random.below(hot) } else { hot + random.below(all - hot) };
        usize::try_from(at.min(all - 1)).unwrap_or(0)
    }
}

struct Made {
    crowd: Crowd,
    number: u64,
    records: Vec<Planned>,
    /// Repeats, by the place from which on they are due.
    later: BTreeMap<u64, Vec<Planned>>,
}

impl Made {
    /// The next command of an order, and what must become of it.
    fn next_of(&mut self, order: &mut Making, random: &mut Random) -> Planned {
        let key = order.key.clone();
        if !order.is_created {
            order.is_created = true;
            let customer_id = regular(order.number).0.to_string();
            let create = CreateOrder { order_id: key, customer_id, currency: "EUR".into() };
            return self.record(order, &create, Expect::Event, random);
        }
        let sku = u32::try_from(random.below(u64::from(SKUS))).unwrap_or(0);
        match random.below(20) {
            0 => {
                let add = AddItem { order_id: key, sku: UNKNOWN_SKU.into(), quantity: 1 };
                self.record(order, &add, Expect::Rejection("UNKNOWN_SKU"), random)
            }
            1..=3 => {
                // One line always stays, so that the order can be placed.
                let is_there = order.lines.contains(&sku);
                if is_there && order.lines.len() == 1 {
                    return self.add(order, sku, random);
                }
                order.lines.remove(&sku);
                let expect = if is_there { Expect::Event } else { Expect::Rejection("ITEM_NOT_IN_ORDER") };
                self.record(order, &RemoveItem { order_id: key, sku: Crowd::sku(sku) }, expect, random)
            }
            _ => self.add(order, sku, random),
        }
    }

    fn add(&mut self, order: &mut Making, sku: u32, random: &mut Random) -> Planned {
        order.lines.insert(sku);
        let quantity = 1 + random.below(3).cast_signed();
        let add = AddItem { order_id: order.key.clone(), sku: Crowd::sku(sku), quantity };
        self.record(order, &add, Expect::Event, random)
    }

    fn record<M: Message + Name>(
        &mut self,
        order: &Making,
        command: &M,
        expect: Expect,
        random: &mut Random,
    ) -> Planned {
        self.number += 1;
        Planned {
            id: id(self.crowd.time_ms, self.number, random.next()),
            order: order.id,
            key: order.key.clone(),
            r#type: M::full_name(),
            subject: order.key.clone(),
            is_complete: true,
            form: Form::Protobuf,
            value: command.encode_to_vec(),
            expect,
            is_repeat: false,
        }
    }

    /// Puts a record, and the repeats that are due behind it.
    fn put(&mut self, record: Planned, random: &mut Random) {
        if random.below(1_000) < u64::from(self.crowd.repeated) {
            let due = self.records.len() as u64 + 1 + random.below(REPEAT_WITHIN);
            self.later.entry(due).or_default().push(Planned { is_repeat: true, ..record.clone() });
        }
        self.records.push(record);
        let not_due = self.later.split_off(&(self.records.len() as u64 + 1));
        let due = std::mem::replace(&mut self.later, not_due);
        self.records.extend(due.into_values().flatten());
    }

    fn finish(mut self) -> Vec<Planned> {
        self.records.extend(std::mem::take(&mut self.later).into_values().flatten());
        self.records
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const CROWD: Crowd = Crowd { commands: 20_000, orders: 500, hot: 5, repeated: 100, seed: 1, time_ms: 1 };

    #[test]
    fn a_tenth_is_repeated_byte_for_byte_and_behind_the_first() {
        let records = CROWD.records();
        assert_eq!(records, CROWD.records());
        let mut first: HashMap<Uuid, &Planned> = HashMap::new();
        let mut repeats = 0;
        for record in &records {
            match first.get(&record.id) {
                None => {
                    assert!(!record.is_repeat, "a repeat before the first");
                    first.insert(record.id, record);
                }
                Some(earlier) => {
                    repeats += 1;
                    assert_eq!(Planned { is_repeat: false, ..record.clone() }, **earlier);
                }
            }
        }
        assert!((first.len() / 12..first.len() / 8).contains(&repeats), "{repeats} of {}", first.len());
    }

    #[test]
    fn five_of_the_orders_get_half_of_the_commands() {
        let records = CROWD.records();
        let mut of: HashMap<Uuid, usize> = HashMap::new();
        for record in &records {
            *of.entry(record.order).or_default() += 1;
        }
        assert_eq!(of.len(), 500);
        let mut counts: Vec<usize> = of.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let hot: usize = counts[..5].iter().sum();
        assert!(hot * 10 > records.len() * 4 && hot * 10 < records.len() * 6, "{hot} of {}", records.len());
    }

    #[test]
    fn load_has_rejections_and_places_every_order_with_a_line_once() {
        let records = CROWD.records();
        let firsts = || records.iter().filter(|record| !record.is_repeat);
        let placed: Vec<Uuid> =
            firsts().filter(|record| record.r#type.ends_with("PlaceOrder")).map(|record| record.order).collect();
        assert_eq!(placed.iter().collect::<HashSet<_>>().len(), placed.len());
        assert!(placed.len() > 490);
        for code in ["UNKNOWN_SKU", "ITEM_NOT_IN_ORDER"] {
            assert!(firsts().filter(|record| record.expect == Expect::Rejection(code)).count() > 100, "{code}");
        }
    }
}
