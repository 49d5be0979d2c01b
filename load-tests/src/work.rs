//! The load: orders, their commands, and what must become of each command.
//!
//! Deterministic: the same [`Mix`] gives the same records, ids included. The benchmark's work is
//! [`Mix::benchmark`]: four commands an order (create, add, add, place), interleaved in windows, 200-byte
//! values. [`Mix::demo`] adds what real life adds. Values are padded to the wanted size. [`Mix::shop`] is
//! orders that go all the way ([`life`]); [`existing`] has commands to orders that exist. Deliberately
//! absent: Kafka.

use holdfast_proto::{
    inventory::v1::{ReceiveStock, SetPrice},
    money::v1::Money,
    orders::v1::{AddItem, CancelOrder, CreateOrder, PlaceOrder},
};
use prost::{Message, Name};
use serde::Serialize;
use uuid::Uuid;

pub mod existing;
mod form;
pub mod life;

pub use self::form::Form;
use self::life::Life;
use crate::random::Random;

/// The sku that sells out in [`Mix::demo`].
pub const SCARCE_SKU: &str = "scarce";
/// The sku of [`Mix::flash_sale`].
pub const HOT_SKU: &str = "hot";
/// A sku that nobody has ever priced.
pub const UNKNOWN_SKU: &str = "no-such-sku";
/// How many customers share the orders of a mix that brings none of its own ([`Mix::life`]): so few that a
/// context that asks for them may remember all.
pub const REGULARS: u32 = 100;
/// The `ce_source` of all commands made here.
pub const SOURCE: &str = "load";

/// How orders and messages are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// By random UUIDs: the next one may be anywhere in an index.
    V4,
    /// By UUIDs that begin with the time.
    V7,
}

impl Ids {
    /// One never used before.
    pub fn fresh(self) -> Uuid {
        match self {
            Self::V4 => Uuid::new_v4(),
            Self::V7 => Uuid::now_v7(),
        }
    }

    /// The `number`th id of `time_ms`.
    fn id(self, time_ms: u64, number: u64, random: u64) -> Uuid {
        let ordered = id(time_ms, number, random);
        match self {
            Self::V7 => ordered,
            Self::V4 => {
                let (high, low) = ordered.as_u64_pair();
                // Mixed as `Random` does; that two are the same is as unlikely as with any random ids.
                let high = Random(high ^ random).next();
                uuid::Builder::from_random_bytes(Uuid::from_u64_pair(high, Random(low ^ high).next()).into_bytes())
                    .into_uuid()
            }
        }
    }
}

/// What to make.
#[derive(Clone, Debug)]
pub struct Mix {
    /// How many orders.
    pub orders: u32,
    /// Everything random follows from it.
    pub seed: u64,
    /// The version of ids.
    pub ids: Ids,
    /// The time inside ids of version 7, ms since 1970.
    pub time_ms: u64,
    /// Orders whose commands are interleaved.
    pub window: u32,
    /// Ordinary skus are `sku-0` to `sku-<n-1>`.
    pub skus: u32,
    /// How values are written.
    pub form: Form,
    /// Values are padded to this size; 0 leaves them as they are.
    pub value_bytes: usize,
    /// How many of 1,000 orders are cancelled by the customer after they were placed.
    pub cancelled: u16,
    /// How many of 1,000 want [`SCARCE_SKU`].
    pub scarce: u16,
    /// How many of 1,000 also ask for [`UNKNOWN_SKU`].
    pub unknown_sku: u16,
    /// How many of 1,000 are placed empty.
    pub empty: u16,
    /// How many of 1,000 have one of their commands sent twice.
    pub repeated: u16,
    /// For how many of 1,000 a bad record is sent besides.
    pub bad: u16,
    /// In a flash sale: each order whose number is a multiple of this is a bystander, all others want
    /// [`HOT_SKU`].
    pub bystander_every: Option<u32>,
    /// If orders are to go all the way: who places them, and what becomes of them then.
    pub life: Option<Life>,
}

impl Mix {
    /// The benchmark's work: nothing but good orders.
    pub fn benchmark(orders: u32, seed: u64) -> Self {
        Self {
            orders,
            seed,
            ids: Ids::V7,
            time_ms: now_ms(),
            window: 5_000,
            skus: 100,
            form: Form::Protobuf,
            value_bytes: 200,
            cancelled: 0,
            scarce: 0,
            unknown_sku: 0,
            empty: 0,
            repeated: 0,
            bad: 0,
            bystander_every: None,
            life: None,
        }
    }

    /// Orders as a shop sees them: most are good, some are cancelled, sell out, are rejected, come twice, or
    /// are garbage.
    pub fn demo(orders: u32, seed: u64) -> Self {
        Self {
            value_bytes: 0,
            cancelled: 50,
            scarce: 20,
            unknown_sku: 10,
            empty: 10,
            repeated: 20,
            bad: 5,
            ..Self::benchmark(orders, seed)
        }
    }

    /// Orders of one line and one unit. Every `bystander_every`th wants an ordinary sku, all others
    /// [`HOT_SKU`].
    pub fn flash_sale(orders: u32, bystander_every: u32, seed: u64) -> Self {
        Self {
            window: 500,
            value_bytes: 0,
            bystander_every: Some(bystander_every.max(1)),
            ..Self::benchmark(orders, seed)
        }
    }

    /// The same orders without the sale: all want ordinary skus.
    #[must_use]
    pub fn without_hot_sku(self) -> Self {
        Self { bystander_every: Some(1), ..self }
    }

    /// The orders whose number is a multiple of `every`.
    pub fn every(&self, every: u32) -> impl Iterator<Item = Uuid> + '_ {
        (0..self.orders).step_by(every.max(1) as usize).map(|n| self.order_id(n).0)
    }

    /// The n-th order, and what else is random about it.
    pub(crate) fn order_id(&self, n: u32) -> (Uuid, Random) {
        let mut random = Random(self.seed ^ (u64::from(n) << 20));
        (self.ids.id(self.time_ms, u64::from(n), random.next()), random)
    }

    /// The name of the n-th ordinary sku.
    pub fn sku(n: u32) -> String {
        format!("sku-{n}")
    }

    /// All records, window by window.
    pub fn windows(&self) -> impl Iterator<Item = Vec<Planned>> + Send + use<> {
        let mix = self.clone();
        let window = mix.window.max(1);
        (0..mix.orders.div_ceil(window)).map(move |n| {
            let first = n * window;
            mix.window_of(first, (first + window).min(mix.orders))
        })
    }

    /// The orders from `first` on, interleaved step by step.
    fn window_of(&self, first: u32, end: u32) -> Vec<Planned> {
        let orders: Vec<Vec<Planned>> = (first..end).map(|n| self.order(n)).collect();
        let longest = orders.iter().map(Vec::len).max().unwrap_or(0);
        let mut all: Vec<Planned> = Vec::with_capacity(orders.iter().map(Vec::len).sum());
        let mut orders: Vec<_> = orders.into_iter().map(Vec::into_iter).collect();
        for _ in 0..longest {
            all.extend(orders.iter_mut().filter_map(Iterator::next));
        }
        all
    }

    fn order(&self, n: u32) -> Vec<Planned> {
        let (order, mut random) = self.order_id(n);
        let mut steps = Steps { mix: self, n, order, key: order.to_string(), records: Vec::with_capacity(6) };
        let roll = |share: u16, random: &mut Random| random.below(1_000) < u64::from(share);
        let customer_id = self.life.as_ref().map_or(regular(n).0, |life| life.customer_of(n)).to_string();
        let create = CreateOrder { order_id: steps.key.clone(), customer_id, currency: "EUR".into() };
        steps.push(&create, Expect::Event);
        if let Some(every) = self.bystander_every {
            let sku = Self::sku(u32::try_from(random.below(u64::from(self.skus.max(1)))).unwrap_or(0));
            steps.add(if n.is_multiple_of(every) { &sku } else { HOT_SKU }, 1, Expect::Event);
            steps.place(Expect::Event);
            return steps.records;
        }
        if roll(self.empty, &mut random) {
            steps.place(Expect::Rejection("EMPTY_ORDER"));
        } else {
            let sku = Self::sku(u32::try_from(random.below(u64::from(self.skus.max(1)))).unwrap_or(0));
            let is_scarce = roll(self.scarce, &mut random);
            let first = if is_scarce { SCARCE_SKU.to_owned() } else { sku };
            steps.add(&first, 1, Expect::Event);
            if roll(self.unknown_sku, &mut random) {
                steps.add(UNKNOWN_SKU, 1, Expect::Rejection("UNKNOWN_SKU"));
            } else {
                let sku = Self::sku(u32::try_from(random.below(u64::from(self.skus.max(1)))).unwrap_or(0));
                steps.add(&sku, 1 + random.below(3).cast_signed(), Expect::Event);
            }
            let goes_nowhere = self.life.as_ref().is_some_and(|life| life.fate(self.seed, n).goes_nowhere);
            steps.place(if goes_nowhere { Expect::Rejection("UNKNOWN_ADDRESS") } else { Expect::Event });
            if roll(self.cancelled, &mut random) && !goes_nowhere {
                let cancel = CancelOrder { order_id: steps.key.clone(), reason: "changed my mind".into() };
                // Running out of stock may have cancelled it before, or it may be on its way.
                let may_fail = is_scarce || self.life.is_some();
                steps.push(&cancel, if may_fail { Expect::Whatever } else { Expect::Event });
            }
        }
        if roll(self.repeated, &mut random) {
            let at = usize::try_from(random.below(steps.records.len() as u64)).unwrap_or(0);
            let again = Planned { is_repeat: true, ..steps.records[at].clone() };
            steps.records.push(again);
        }
        if roll(self.bad, &mut random) {
            let bad = steps.bad(&mut random);
            steps.records.push(bad);
        }
        steps.records
    }
}

/// The customer of the n-th order of a mix without customers of its own, and its address. The same in every
/// mix.
pub fn regular(n: u32) -> (Uuid, Uuid) {
    let number = u64::from(n % REGULARS);
    (id(0, number, 0), id(1, number, 0))
}

/// All of them.
pub fn regulars() -> impl Iterator<Item = (Uuid, Uuid)> {
    (0..REGULARS).map(regular)
}

/// Records for inventory's commands topic: a price and a number of units for each sku.
pub fn shelves(stock: impl IntoIterator<Item = (String, i64)>) -> Vec<Planned> {
    let price = Some(Money { minor: 1_999, currency: "EUR".into() });
    let record = |sku: &str, r#type: String, value| Planned {
        id: Uuid::now_v7(),
        order: Uuid::nil(),
        key: sku.to_owned(),
        r#type,
        subject: sku.to_owned(),
        is_complete: true,
        form: Form::Protobuf,
        value,
        expect: Expect::Event,
        is_repeat: false,
    };
    let both = |(sku, quantity): (String, i64)| {
        let priced = SetPrice { sku: sku.clone(), price: price.clone() }.encode_to_vec();
        let received = ReceiveStock { sku: sku.clone(), quantity }.encode_to_vec();
        [record(&sku, SetPrice::full_name(), priced), record(&sku, ReceiveStock::full_name(), received)]
    };
    stock.into_iter().flat_map(both).collect()
}

/// What must become of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Exactly one event.
    Event,
    /// A rejection of this name, and no event.
    Rejection(&'static str),
    /// A dead letter for this reason, and no event.
    DeadLetter(&'static str),
    /// Exactly one effect, whichever.
    Any,
    /// It is taken, and changes nothing.
    Nothing,
    /// One effect, whichever, or none.
    Whatever,
}

/// One record to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// `ce_id`.
    pub id: Uuid,
    /// Which order.
    pub order: Uuid,
    /// The record's key.
    pub key: String,
    /// `ce_type`.
    pub r#type: String,
    /// `ce_subject`.
    pub subject: String,
    /// Whether the required headers are there.
    pub is_complete: bool,
    /// How the value is written.
    pub form: Form,
    /// The value.
    pub value: Vec<u8>,
    /// What must become of it.
    pub expect: Expect,
    /// Sent before, byte for byte.
    pub is_repeat: bool,
}

struct Steps<'a> {
    mix: &'a Mix,
    n: u32,
    order: Uuid,
    key: String,
    records: Vec<Planned>,
}

impl Steps<'_> {
    fn push<M: Message + Name + Serialize>(&mut self, command: &M, expect: Expect) {
        let record = self.record(command, expect);
        self.records.push(record);
    }

    fn record<M: Message + Name + Serialize>(&self, command: &M, expect: Expect) -> Planned {
        let number = u64::from(self.n) * 8 + self.records.len() as u64;
        let random = Random(self.mix.seed.wrapping_add(number).wrapping_mul(0x9e37)).next();
        Planned {
            id: self.mix.ids.id(self.mix.time_ms, number, random),
            order: self.order,
            key: self.key.clone(),
            r#type: M::full_name(),
            subject: self.key.clone(),
            is_complete: true,
            form: self.mix.form,
            value: self.mix.form.write(command, self.mix.value_bytes),
            expect,
            is_repeat: false,
        }
    }

    fn add(&mut self, sku: &str, quantity: i64, expect: Expect) {
        self.push(&AddItem { order_id: self.key.clone(), sku: sku.to_owned(), quantity }, expect);
    }

    fn place(&mut self, expect: Expect) {
        let (payment_method, address_id) = ("pm_1KkzP2eZvKYlo2C".into(), regular(self.n).1.to_string());
        let mut place = PlaceOrder { order_id: self.key.clone(), payment_method, address_id };
        if let Some(life) = &self.mix.life {
            let fate = life.fate(self.mix.seed, self.n);
            place.payment_method = fate.payment_method.into();
            place.address_id = fate.address_id.to_string();
        }
        self.push(&place, expect);
    }

    /// A record that must end as a dead letter, under a key of its own.
    fn bad(&self, random: &mut Random) -> Planned {
        let key = id(self.mix.time_ms, u64::from(self.n), random.next()).to_string();
        let good = AddItem { order_id: key.clone(), sku: Mix::sku(0), quantity: 1 };
        let at = |record: Planned| Planned { key: key.clone(), subject: key.clone(), ..record };
        match random.below(5) {
            0 => Planned { is_complete: false, ..at(self.record(&good, Expect::DeadLetter("UNDECODABLE"))) },
            1 => Planned { value: vec![0xff; 40], ..at(self.record(&good, Expect::DeadLetter("UNDECODABLE"))) },
            2 => {
                let record = at(self.record(&good, Expect::DeadLetter("UNKNOWN_TYPE")));
                Planned { r#type: "holdfast.orders.v1.EatOrder".into(), ..record }
            }
            3 => Planned { subject: "another".into(), ..at(self.record(&good, Expect::DeadLetter("INVALID"))) },
            _ => at(self.record(&AddItem { quantity: 0, ..good }, Expect::DeadLetter("INVALID"))),
        }
    }
}

/// A UUID of version 7 in the order of `number`.
pub(crate) fn id(time_ms: u64, number: u64, random: u64) -> Uuid {
    let high = (time_ms << 16) | 0x7000 | (number >> 20 & 0xfff);
    let low = 1 << 63 | (number & 0xf_ffff) << 42 | random >> 22;
    Uuid::from_u64_pair(high, low)
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_mix_gives_the_same_records() {
        let mix = Mix { window: 100, ..Mix::demo(1_000, 7) };
        let all = |mix: &Mix| mix.windows().flatten().collect::<Vec<_>>();
        assert_eq!(all(&mix), all(&mix));
        assert_ne!(all(&mix), all(&Mix { seed: 8, ..mix }));
    }

    #[test]
    fn benchmark_has_four_padded_commands_an_order_with_unique_ids() {
        let all: Vec<Planned> = Mix::benchmark(12_000, 1).windows().flatten().collect();
        assert_eq!(all.len(), 48_000);
        assert!(all.iter().all(|record| record.value.len() == 200 && record.expect == Expect::Event));
        assert_eq!(all.iter().map(|record| record.id).collect::<HashSet<_>>().len(), 48_000);
        assert_eq!(all.iter().map(|record| record.order).collect::<HashSet<_>>().len(), 12_000);
        assert!(all.iter().all(|record| record.id.get_version_num() == 7));
        assert!(all[..5_000].iter().all(|record| record.r#type == "holdfast.orders.v1.CreateOrder"));
        let add = AddItem::decode(&all[5_000].value[..]).expect("padding is skipped");
        assert_eq!(add.order_id, all[0].key);
        let known: HashSet<String> = regulars().map(|(customer, _)| customer.to_string()).collect();
        let creates = all[..5_000].iter().map(|record| CreateOrder::decode(&record.value[..]).expect("sound"));
        assert!(creates.into_iter().all(|create| known.contains(&create.customer_id)), "its customers fit a memory");
    }

    #[test]
    fn random_ids_are_of_version_4_and_unique() {
        let mix = Mix { ids: Ids::V4, ..Mix::benchmark(12_000, 1) };
        let all: Vec<Planned> = mix.windows().flatten().collect();
        assert_eq!(all.iter().map(|record| record.id).collect::<HashSet<_>>().len(), 48_000);
        assert_eq!(all.iter().map(|record| record.order).collect::<HashSet<_>>().len(), 12_000);
        assert!(all.iter().all(|record| record.id.get_version_num() == 4 && record.order.get_version_num() == 4));
    }

    #[test]
    fn hot_sku_goes_to_all_but_nth_sale_orders_and_no_control_order() {
        let sale = Mix::flash_sale(1_200, 6, 1);
        let wants = |mix: &Mix| {
            let adds = mix.windows().flatten().filter(|record| record.r#type.ends_with("AddItem"));
            let sku = |record: Planned| AddItem::decode(&record.value[..]).expect("sound").sku;
            adds.map(|record| (record.order, sku(record))).collect::<std::collections::HashMap<_, _>>()
        };
        let (hot, control) = (wants(&sale), wants(&sale.clone().without_hot_sku()));
        assert_eq!(hot.values().filter(|sku| *sku == HOT_SKU).count(), 1_000);
        assert_eq!(sale.every(6).filter(|order| hot[order] != HOT_SKU).count(), 200);
        assert_eq!(control.len(), 1_200);
        assert!(control.values().all(|sku| sku != HOT_SKU));
    }

    #[test]
    fn the_demo_has_some_of_everything() {
        let all: Vec<Planned> = Mix::demo(10_000, 1).windows().flatten().collect();
        let count = |expect| all.iter().filter(|record| record.expect == expect).count();
        assert!(count(Expect::Rejection("EMPTY_ORDER")) > 50);
        assert!(count(Expect::Rejection("UNKNOWN_SKU")) > 50);
        for reason in ["UNDECODABLE", "UNKNOWN_TYPE", "INVALID"] {
            assert!(count(Expect::DeadLetter(reason)) > 3, "{reason}");
        }
        assert!(all.iter().filter(|record| record.is_repeat).count() > 100);
        assert!(all.iter().filter(|record| record.r#type.ends_with("CancelOrder")).count() > 200);
        let distinct: HashSet<Uuid> = all.iter().filter(|record| !record.is_repeat).map(|record| record.id).collect();
        assert_eq!(distinct.len(), all.iter().filter(|record| !record.is_repeat).count());
    }
}
