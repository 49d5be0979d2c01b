//! A flash sale: thousands of orders for one sku of which there is little, among orders that want something
//! else.
//!
//! Two questions. Is exactly the stock sold (I2)? Are the bystanders as quick as without the sale (I6)? For
//! the second the same orders are sent first with ordinary skus throughout, at the same rate, so that load
//! alone makes no difference; each run must be counted without its beginning, in which caches warm up. Works
//! on a shop that runs already: brokers and schemas are given.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures::future::BoxFuture;
use serde::Serialize;
use uuid::Uuid;

use super::Error;
use crate::{
    checkers::{self, Evidence, Latencies, News, Report, Target},
    producer::{self, Ledger},
    work::{HOT_SKU, Mix, shelves},
};

/// How the sale is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shop. Both contexts must run, and nobody else may have ordered the hot sku before.
    pub target: Target,
    /// Orders of the hot sku.
    pub hot_orders: u32,
    /// Units of it.
    pub stock: u32,
    /// Orders of other skus, evenly among them.
    pub bystanders: u32,
    /// Commands a second, in both runs.
    pub rate: u32,
    /// How long the shop may take to come to rest after each run.
    pub patience: Duration,
}

impl Options {
    /// 10,000 orders of a sku with 1,000 in stock, 2,000 bystanders.
    pub fn new(target: Target) -> Self {
        let patience = Duration::from_mins(2);
        Self { target, hot_orders: 10_000, stock: 1_000, bystanders: 2_000, rate: 1_500, patience }
    }

    fn every(&self) -> u32 {
        self.hot_orders / self.bystanders.max(1) + 1
    }
}

/// How long bystanders waited.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Waits {
    /// From each of their commands to its event.
    pub command: Latencies,
    /// From placing the order to its knowing that its stock is held.
    pub reserved: Latencies,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Orders of the hot sku.
    pub hot_orders: u64,
    /// Those of them that got it.
    pub sold: u64,
    /// Those that were cancelled because it was gone.
    pub refused: u64,
    /// Orders of other skus during the sale.
    pub bystanders: u64,
    /// Those of them that got what they wanted.
    pub bystanders_served: u64,
    /// Bystanders' waits without the sale.
    pub before: Waits,
    /// Their waits during the sale.
    pub during: Waits,
    /// The account of both runs.
    pub report: Report,
}

impl Outcome {
    /// How many times longer the slowest hundredth of bystanders waited: for their commands' events, and for
    /// their stock.
    #[allow(clippy::cast_precision_loss)] // milliseconds of a wait
    pub fn slowdown(&self) -> (f64, f64) {
        let ratio = |before: Latencies, during: Latencies| during.p99_ms as f64 / before.p99_ms.max(1) as f64;
        (ratio(self.before.command, self.during.command), ratio(self.before.reserved, self.during.reserved))
    }
}

/// Fills the shelves, sends both runs, waits for rest after each, and accounts for everything.
pub fn run(options: &Options) -> BoxFuture<'_, Result<Outcome, Error>> {
    Box::pin(async move {
        let Options { target, patience, .. } = options;
        let inventory = target.inventory.as_ref().map_or("inventory", |schema| schema.name.as_str());
        let orders = options.every() * options.bystanders;
        let sale = Mix::flash_sale(orders, options.every(), 22);
        let ordinary = (0..sale.skus).map(|n| (Mix::sku(n), i64::from(orders) * 2));
        let all = ordinary.chain([(HOT_SKU.to_owned(), i64::from(options.stock))]);
        producer::produce_records(&target.brokers, &format!("{inventory}.commands"), shelves(all)).await?;
        checkers::settled(target, *patience, |_| {}).await?;

        let calm = Mix { seed: 21, ..sale.clone() }.without_hot_sku();
        let without = send(options, &calm).await?;
        let with = send(options, &sale).await?;
        let evidence = checkers::gather(target).await?;
        let fates = fates(&evidence);
        let (bystanders, before): (HashSet<Uuid>, HashSet<Uuid>) =
            (sale.every(options.every()).collect(), calm.every(options.every()).collect());
        let during = waits(&with, &evidence, &fates, &bystanders);
        let before = waits(&without, &evidence, &fates, &before);
        let count = |is_bystander: bool, held: bool| {
            let of_sale = |order: &&Uuid| bystanders.contains(*order) == is_bystander;
            let orders: HashSet<Uuid> = with.commands.values().map(|sent| sent.order).collect();
            orders
                .iter()
                .filter(of_sale)
                .filter_map(|order| fates.get(order))
                .filter(|fate| fate.is_held == held)
                .count()
        };
        let (sold, refused, bystanders_served) = (count(false, true), count(false, false), count(true, true));
        let mut ledger = without;
        let (hot_orders, bystanders) = ((with.orders() - bystanders.len()) as u64, bystanders.len() as u64);
        ledger.absorb(with);
        let report = checkers::audit(&ledger, &evidence);
        Ok(Outcome {
            hot_orders,
            sold: sold as u64,
            refused: refused as u64,
            bystanders,
            bystanders_served: bystanders_served as u64,
            before,
            during,
            report,
        })
    })
}

async fn send(options: &Options, mix: &Mix) -> Result<Ledger, Error> {
    let Options { target, rate, patience, .. } = options;
    let to = producer::Options { rate: *rate, ..producer::Options::to(format!("{}.commands", target.orders.name)) };
    let ledger = producer::produce(&target.brokers, mix, to, |_| {}).await?;
    checkers::settled(target, *patience, |_| {}).await?;
    Ok(ledger)
}

/// How an order's wish for stock ended.
struct Fate {
    is_held: bool,
    at_ms: i64,
}

/// By order.
fn fates(evidence: &Evidence) -> HashMap<Uuid, Fate> {
    let mut fates = HashMap::new();
    for event in &evidence.orders.events {
        let is_held = match &event.news {
            News::Reserved => true,
            News::Cancelled(_) => false,
            _ => continue,
        };
        if let Ok(order) = Uuid::try_parse(&event.key) {
            fates.entry(order).or_insert(Fate { is_held, at_ms: event.time_ms });
        }
    }
    fates
}

/// The waits of these orders in a run, without its first fifth.
fn waits(ledger: &Ledger, evidence: &Evidence, fates: &HashMap<Uuid, Fate>, orders: &HashSet<Uuid>) -> Waits {
    let from = ledger.elapsed / 5;
    let command = checkers::latencies(ledger, evidence, |_, sent| sent.after >= from && orders.contains(&sent.order));
    // An order's last command places it.
    let mut placed: HashMap<Uuid, Duration> = HashMap::new();
    for sent in ledger.commands.values().filter(|sent| orders.contains(&sent.order)) {
        let last = placed.entry(sent.order).or_default();
        *last = sent.after.max(*last);
    }
    let reserved = placed.iter().filter(|(_, after)| **after >= from).filter_map(|(order, after)| {
        let fate = fates.get(order).filter(|fate| fate.is_held)?;
        let sent = ledger.started_ms + u64::try_from(after.as_millis()).ok()?;
        Some(u64::try_from(fate.at_ms).ok()?.saturating_sub(sent))
    });
    Waits { command, reserved: checkers::percentiles(reserved) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::{ContextEvidence, EventRecord},
        work::{Expect, Planned},
    };

    fn event(order: Uuid, news: News, time_ms: i64) -> EventRecord {
        EventRecord {
            partition: 0,
            offset: 0,
            time_ms,
            key: order.to_string(),
            id: Uuid::now_v7(),
            sequence: 1,
            causation: None,
            digest: 0,
            news,
        }
    }

    #[test]
    fn default_sale_has_10000_hot_orders_besides_its_bystanders() {
        let options = Options::new(Target::new("", "postgres://localhost"));
        let (every, bystanders) = (options.every(), options.bystanders);
        assert_eq!((every * bystanders, every * bystanders - bystanders), (12_000, 10_000));
    }

    #[test]
    fn stock_wait_runs_from_last_command_for_reserved_orders_only() {
        let records: Vec<Planned> = Mix::flash_sale(2, 1, 1).windows().flatten().collect();
        let mut ledger = Ledger::default();
        for record in &records {
            ledger.note(record);
        }
        for (number, record) in (0..).zip(&records) {
            let sent = ledger.commands.get_mut(&record.id).expect("noted");
            assert_eq!(sent.expect, Expect::Event);
            sent.after = Duration::from_millis(10 * number);
        }
        let orders = [records[0].order, records[1].order];
        let at = |ms: i64| i64::try_from(ledger.started_ms).expect("a time") + ms;
        let events =
            vec![event(orders[0], News::Reserved, at(90)), event(orders[1], News::Cancelled(String::new()), at(500))];
        let evidence =
            Evidence { orders: ContextEvidence { events, ..ContextEvidence::default() }, ..Evidence::default() };
        let waits = waits(&ledger, &evidence, &fates(&evidence), &orders.into_iter().collect());
        // The windows are step by step: the first order's third command is the fifth record.
        assert_eq!((waits.reserved.count, waits.reserved.max_ms), (1, 50));
    }
}
