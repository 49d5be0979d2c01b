//! The shop at work: orders are sent, and it is waited until every one of them has come to its end.
//!
//! Invariant: never more orders are under way than [`UNDER_WAY`], unless a pace is asked for: a crowd waits
//! at the door, not with its stock held. Deliberately absent: judging what came of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use holdfast_load_tests::{
    checkers::{self, Schema, Target},
    floor::{Done, Floor, Tally},
    kafka::Ends,
    producer::{self, Ledger, Options},
    scenarios::cpu::{Cpu, Pids},
    work::{Mix, Planned},
};
use holdfast_platform::{Config, Context};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::checked;
use crate::{
    failure::Failure,
    infrastructure::{CONTEXTS, Infrastructure},
};

/// Orders that may be between their creation and their end.
const UNDER_WAY: u64 = 2_000;
/// Commands to orders a second of the second part: far below what the machine can do.
pub const CALM_RATE: u32 = 400;
/// How long may pass without an order that ends before the demo gives up.
const PATIENCE: Duration = Duration::from_mins(2);
/// Rates are taken between these two parts of all ends, in per mille: while everything is busy with
/// everything.
const MEASURED: (u64, u64) = (100, 900);
/// Once this share of the crowd's orders has ended, per mille, the rest is waited for beside the second part.
const NEARLY_ALL: u64 = 980;

/// What came of the first part.
pub struct Crowd {
    pub ledger: Ledger,
    /// How long it took from the first record to the end of nearly all orders.
    pub took: Duration,
    /// Ends a second.
    pub orders_per_s: f64,
    /// Records a second, in all topics together.
    pub messages_per_s: f64,
    /// CPU time for each of them, in µs: of this process, in which everything runs but the servers, and of
    /// these.
    pub message_us: Cpu,
}

/// A shop that is open.
pub struct Shop {
    target: Target,
    floor: Floor,
    ends: Ends,
    topics: Vec<String>,
    pids: Pids,
    /// Orders that will end of those that were sent so far.
    ending: u64,
    closing: CancellationToken,
    /// Nobody waits at the door of a shop that is gone.
    _closed: DropGuard,
}

/// How far everything was at a moment.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    ended: u64,
    records: u64,
    cpu: Cpu,
}

impl Shop {
    /// Opens; `mixes` are all orders that will be sent.
    pub async fn open(config: &Config, at: &Infrastructure, mixes: &[&Mix]) -> Result<Self, Failure> {
        let mixes: Vec<Mix> = mixes.iter().map(|mix| (*mix).clone()).collect();
        let ends = Ends::new(at.brokers()).context("kafka").map_err(Failure::Check)?;
        let kinds = ["commands", "events", "dlq"];
        let topics = CONTEXTS.iter().flat_map(|context| kinds.map(|kind| format!("{context}.{kind}"))).collect();
        let (target, floor) = (target(config, at)?, Floor::open(at.brokers(), &mixes));
        let closing = CancellationToken::new();
        let pids = at.pids().await;
        Ok(Self { target, floor, ends, topics, pids, ending: 0, _closed: closing.clone().drop_guard(), closing })
    }

    /// Sends the orders of `mix` as fast as the shop takes them, or at this pace; until nearly all have
    /// ended.
    pub async fn crowd(&mut self, mix: &Mix, rate: Option<u32>) -> Result<Crowd, Failure> {
        let ending = u64::from(mix.ending());
        let begun = Instant::now();
        let tally = self.floor.tally();
        let door = Door {
            tally: Arc::clone(&tally),
            closing: self.closing.clone(),
            is_open: rate.is_some(),
            ending,
            orders: u64::from(mix.orders),
        };
        let options = Options { rate: rate.unwrap_or(0), ..Options::to("orders.commands") };
        let sending = self.send(mix, options, Some(door));
        self.ending += ending;
        let bar = bar(ending, "orders");
        let mut patience = Patience::of(&tally);
        let mut marks: Vec<Mark> = Vec::new();
        while tally.ended() < ending * NEARLY_ALL / 1_000 {
            let ended = tally.ended();
            bar.set_position(ended);
            let due = if marks.is_empty() { MEASURED.0 } else { MEASURED.1 };
            if marks.len() < 2 && ended >= ending * due / 1_000 {
                marks.push(self.mark().await?);
            }
            self.wait(&mut patience).await?;
        }
        bar.finish();
        let took = begun.elapsed();
        if marks.len() < 2 {
            marks.push(self.mark().await?);
        }
        let sent = sending.await.context("the producer").map_err(Failure::Check)?;
        let ledger = sent.context("the producer").map_err(Failure::Check)?;
        let (orders_per_s, messages_per_s, message_us) = match marks[..] {
            [first, last, ..] => {
                let seconds = (last.at - first.at).as_secs_f64();
                let records = last.records - first.records;
                let each = last.cpu.per_command_us(first.cpu, per(records, 1.0));
                (per(last.ended - first.ended, seconds), per(records, seconds), each)
            }
            _ => (per(tally.ended(), took.as_secs_f64()), 0.0, Cpu::default()),
        };
        Ok(Crowd { ledger, took, orders_per_s, messages_per_s, message_us })
    }

    /// Sends the orders of `mix` at a calm pace, until all orders that were ever sent have ended.
    pub async fn calm(&mut self, mix: &Mix) -> Result<Ledger, Failure> {
        let options = Options { rate: CALM_RATE, ..Options::to("orders.commands") };
        let sending = self.send(mix, options, None);
        self.ending += u64::from(mix.ending());
        let tally = self.floor.tally();
        let bar = bar(self.ending, "the last of them");
        let mut patience = Patience::of(&tally);
        while tally.ended() < self.ending {
            bar.set_position(tally.ended());
            self.wait(&mut patience).await?;
        }
        bar.finish();
        let sent = sending.await.context("the producer").map_err(Failure::Check)?;
        sent.context("the producer").map_err(Failure::Check)
    }

    /// Waits until nothing is left to do, and sends everybody home.
    pub async fn close(self) -> Result<(Target, Done), Failure> {
        let done = self.floor.close().await.context("the warehouse").map_err(Failure::Check)?;
        checkers::settled(&self.target, PATIENCE, |_| {}).await.map_err(checked)?;
        Ok((self.target, done))
    }

    fn send(
        &self,
        mix: &Mix,
        options: Options,
        door: Option<Door>,
    ) -> tokio::task::JoinHandle<Result<Ledger, producer::Error>> {
        let brokers = self.target.brokers.clone();
        let size = u64::from(mix.window);
        let windows = mix.windows().enumerate().map_while(move |(n, window)| match &door {
            Some(door) => door.pass(n as u64 * size, window),
            None => Some(window),
        });
        tokio::spawn(async move { producer::produce_windows(&brokers, windows, options, |_| {}).await })
    }

    async fn mark(&self) -> Result<Mark, Failure> {
        let mut records = 0;
        for topic in &self.topics {
            records += self.ends.total(topic).await.context("kafka").map_err(Failure::Check)?;
        }
        Ok(Mark { at: Instant::now(), ended: self.floor.tally().ended(), records, cpu: self.pids.used() })
    }

    /// A moment, unless nothing has ended for too long.
    async fn wait(&self, patience: &mut Patience) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if self.floor.is_closed() {
            return Err(Failure::Check(anyhow!("the warehouse has gone home; Kafka failed it")));
        }
        if patience.is_over() {
            let (ended, of) = (self.floor.tally().ended(), self.ending);
            return Err(Failure::Check(anyhow!("{ended} of {of} orders ended, and none for {PATIENCE:?}")));
        }
        Ok(())
    }
}

/// Where a crowd waits.
struct Door {
    tally: Arc<Tally>,
    closing: CancellationToken,
    is_open: bool,
    ending: u64,
    orders: u64,
}

impl Door {
    /// Lets in a window of orders, before which `before` orders were let in, once there is room; `None` if no
    /// order ends any more, or if the door is closing.
    fn pass(&self, before: u64, window: Vec<Planned>) -> Option<Vec<Planned>> {
        let mut patience = Patience::of(&self.tally);
        // Those that are placed empty never end.
        let ending = before * self.ending / self.orders.max(1);
        while !self.is_open && ending.saturating_sub(self.tally.ended()) > UNDER_WAY {
            if patience.is_over() || self.closing.is_cancelled() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(window)
    }
}

/// Lasts as long as orders end.
struct Patience {
    tally: Arc<Tally>,
    ended: u64,
    until: Instant,
}

impl Patience {
    fn of(tally: &Arc<Tally>) -> Self {
        Self { tally: Arc::clone(tally), ended: tally.ended(), until: Instant::now() + PATIENCE }
    }

    fn is_over(&mut self) -> bool {
        let ended = self.tally.ended();
        if ended > self.ended {
            (self.ended, self.until) = (ended, Instant::now() + PATIENCE);
        }
        Instant::now() > self.until
    }
}

fn target(config: &Config, at: &Infrastructure) -> Result<Target, Failure> {
    let schema = |context: Context| {
        let url = at.database_url(config, context)?;
        Ok::<_, Failure>(Schema { role: at.role(config, context), ..Schema::new(url, context.as_str()) })
    };
    Ok(Target {
        orders: schema(Context::Orders)?,
        inventory: Some(schema(Context::Inventory)?),
        payments: Some(schema(Context::Payments)?),
        fulfillment: Some(schema(Context::Fulfillment)?),
        customers: Some(schema(Context::Customers)?),
        ..Target::new(at.brokers(), "")
    })
}

fn per(count: u64, seconds: f64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds.max(0.001)
}

fn bar(length: u64, what: &'static str) -> ProgressBar {
    let template = "  {msg:<16} [{bar:40}] {human_pos}/{human_len} ended, {elapsed}";
    let style = ProgressStyle::with_template(template).expect("the template is a constant that parses");
    ProgressBar::new(length).with_message(what).with_style(style.progress_chars("=> "))
}
