//! The benchmark: commands in Kafka to events in Kafka, beside the article's design and beside the bare group
//! commit, in one run on one machine.
//!
//! *Drain*: the commands lie in the topic already; counted from the first event that is readable in the
//! events topic to the last. *Live*: the producer runs at the same time, on the same cores. *Latency*: the
//! producer sends at a fixed rate; from its hands to the event's append time in the log. Each contender is
//! warmed up first, and runs alone. Afterwards the checkers account for every command that Holdfast was
//! given. Deliberately absent: the context itself, which the caller brings.

mod outcome;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use holdfast_runtime::Config;
use holdfast_stack::{Stack, StackOptions};
use sqlx::{Connection as _, PgConnection};

pub use outcome::{Contender, Latency, Outcome, Rate};

use super::{
    Error, ceiling,
    cpu::{Cpu, Pids},
    failed,
    holdfast::{Contestant, Serving},
};
use crate::{
    baseline::{self, Baseline},
    checkers::{self, Latencies, Report, Target},
    kafka::{self, Ends},
    producer::{self, Ledger},
    work::Mix,
};

/// What to measure.
#[derive(Clone)]
pub struct Options {
    /// Makes the orders context. Its prices must know `sku-0` to `sku-99` in EUR.
    pub contestant: Arc<dyn Fn() -> Contestant + Send + Sync>,
    /// The node's limits.
    pub config: Config,
    /// Commands in each measured run of Holdfast, and of the ceiling.
    pub commands: u32,
    /// Commands in each measured run of the baseline: its rate is what counts.
    pub baseline_commands: u32,
    /// Commands a second when Holdfast's latency is measured, and the baseline's.
    pub rates: (u32, u32),
    /// How long latency is measured.
    pub latency_for: Duration,
}

impl Options {
    /// The published benchmark.
    pub fn new(contestant: impl Fn() -> Contestant + Send + Sync + 'static) -> Self {
        Self {
            contestant: Arc::new(contestant),
            config: Config { address: "load".into(), ..Config::default() },
            commands: 200_000,
            baseline_commands: 20_000,
            rates: (4_000, 400),
            latency_for: Duration::from_secs(15),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The phase of the run.
    pub phase: &'static str,
    /// Steps of the phase that are done.
    pub done: u64,
    /// Steps of the phase in all.
    pub of: u64,
}

/// A callback that gets each [`Progress`] of a run.
pub type Watcher = Arc<dyn Fn(Progress) + Send + Sync>;

/// Runs everything on a fresh embedded stack, which is gone afterwards.
pub fn run(options: Options, progress: Watcher) -> BoxFuture<'static, Result<Outcome, Error>> {
    Box::pin(async move {
        let stack = Stack::start(StackOptions::default()).await.map_err(failed("starting the stack"))?;
        let outcome = measure(&stack, options, progress).await;
        stack.stop().await.map_err(failed("stopping the stack"))?;
        outcome
    })
}

const COMMANDS: &str = "orders.commands";
const EVENTS: &str = "orders.events";
const PARTITIONS: i32 = 12;
const COMMANDS_PER_ORDER: u32 = 4;
/// A run that stands still for so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);

async fn measure(stack: &Stack, options: Options, progress: Watcher) -> Result<Outcome, Error> {
    let brokers = stack.brokers().to_owned();
    let append_time = [("message.timestamp.type", "LogAppendTime")];
    kafka::create_topics(&brokers, &[COMMANDS, "orders.dlq", baseline::COMMANDS], PARTITIONS).await?;
    kafka::create_topics_with(&brokers, &[EVENTS, baseline::EVENTS], PARTITIONS, &append_time).await?;
    let bench = Bench {
        url: stack.postgres_url("postgres"),
        pids: Pids { kafka: stack.kafka_pid().await, postgres: stack.postgres_pid().await },
        ends: Ends::new(&brokers)?,
        brokers,
        options,
        progress,
    };
    let (holdfast, report) = bench.holdfast().await?;
    let ceiling = bench.ceiling().await?;
    let baseline = bench.baseline().await?;
    Ok(Outcome { holdfast, baseline, ceiling, report })
}

struct Bench {
    brokers: String,
    url: String,
    pids: Pids,
    ends: Ends,
    options: Options,
    progress: Watcher,
}

/// A measured stretch.
struct Stretch {
    count: u64,
    elapsed: Duration,
    cpu: Cpu,
}

impl Stretch {
    fn rate(&self) -> Rate {
        Rate::of(self.count, self.elapsed, self.cpu)
    }
}

impl Bench {
    async fn holdfast(&self) -> Result<(Contender, Report), Error> {
        let commands = self.options.commands;
        let mut ledger = self.produce(COMMANDS, "holdfast: load for warming up", commands / 4, 0, 1).await?;
        let serving = self.serve().await?;
        self.stretch("holdfast: warming up", EVENTS, 0, ledger.records).await?;
        serving.stop().await;

        let before = ledger.records;
        ledger.absorb(self.produce(COMMANDS, "holdfast: load to drain", commands, 0, 2).await?);
        self.checkpoint().await?;
        let serving = self.serve().await?;
        let drain = self.stretch("holdfast: drain", EVENTS, before, ledger.records).await?;

        serving.ready(PATIENCE).await?;
        self.checkpoint().await?;
        let before = ledger.records;
        let until = before + u64::from(orders(commands) * COMMANDS_PER_ORDER);
        let (load, live) = tokio::try_join!(
            self.produce(COMMANDS, "holdfast: live load", commands, 0, 3),
            self.stretch("holdfast: live", EVENTS, before, until),
        )?;
        ledger.absorb(load);

        let (rate, seconds) = (self.options.rates.0, self.seconds());
        let load = self.produce(COMMANDS, "holdfast: latency", rate * seconds, rate, 4).await?;
        let target = Target::new(&self.brokers, &self.url).orders_only();
        checkers::settled(&target, PATIENCE, |_| {}).await?;
        let evidence = checkers::gather(&target).await?;
        serving.stop().await;
        let latency = Latency { rate, times: steady(&load, &evidence.orders.events) };
        ledger.absorb(load);
        let report = checkers::audit(&ledger, &evidence);
        Ok((Contender { drain: drain.rate(), live: live.rate(), latency }, report))
    }

    async fn serve(&self) -> Result<Serving, Error> {
        let (contestant, config) = ((self.options.contestant)(), self.options.config.clone());
        Serving::start(contestant, config, &self.brokers, &self.url, "orders").await
    }

    async fn baseline(&self) -> Result<Contender, Error> {
        baseline::migrate(&self.url).await?;
        let mut running: Option<Baseline> = None;
        let commands = self.options.baseline_commands;
        let mut total = 0;
        let mut drain = None;
        for (what, commands, seed) in [("baseline: warming up", commands / 4, 11), ("baseline: drain", commands, 12)] {
            running = None; // the last one ends
            let before = total;
            total += self.produce(baseline::COMMANDS, what, commands, 0, seed).await?.records;
            self.checkpoint().await?;
            let started = running.insert(Baseline::start(&self.brokers, &self.url).await?);
            drain = Some(or_failed(started, self.stretch(what, baseline::EVENTS, before, total)).await?);
        }
        let (Some(mut running), Some(drain)) = (running, drain) else {
            return Err(Error::Wrong("the baseline did not run".into()));
        };
        self.checkpoint().await?;
        let until = total + u64::from(orders(commands) * COMMANDS_PER_ORDER);
        let live = async {
            tokio::try_join!(
                self.produce(baseline::COMMANDS, "baseline: live load", commands, 0, 13),
                self.stretch("baseline: live", baseline::EVENTS, total, until),
            )
        };
        let (_, live) = or_failed(&mut running, live).await?;

        let (rate, seconds) = (self.options.rates.1, self.seconds());
        let latency = async {
            let load = self.produce(baseline::COMMANDS, "baseline: latency", rate * seconds, rate, 14).await?;
            self.reached(baseline::EVENTS, until + load.records, |_| {}).await?;
            let events = checkers::events(&self.brokers, baseline::EVENTS, PATIENCE).await?;
            Ok(Latency { rate, times: steady(&load, &events) })
        };
        let latency = or_failed(&mut running, latency).await?;
        Ok(Contender { drain: drain.rate(), live: live.rate(), latency })
    }

    async fn ceiling(&self) -> Result<Rate, Error> {
        let mut cpu = self.pids.used();
        let mut count = 0;
        let mut elapsed = Duration::ZERO;
        for commands in [self.options.commands / 4, self.options.commands] {
            self.tell("ceiling", 0, u64::from(commands));
            self.checkpoint().await?;
            cpu = self.pids.used();
            (count, elapsed) = ceiling::run(&self.url, u64::from(commands)).await?;
        }
        let cpu = self.pids.used().per_command_us(cpu, precise(count));
        Ok(Rate::of(count, elapsed, cpu))
    }

    fn seconds(&self) -> u32 {
        u32::try_from(self.options.latency_for.as_secs()).unwrap_or(u32::MAX)
    }

    fn tell(&self, phase: &'static str, done: u64, of: u64) {
        (self.progress)(Progress { phase, done, of });
    }

    /// So that no checkpoint of earlier work falls into a measurement.
    async fn checkpoint(&self) -> Result<(), Error> {
        let mut connection = PgConnection::connect(&self.url).await?;
        sqlx::query("checkpoint").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    async fn produce(
        &self,
        topic: &str,
        phase: &'static str,
        commands: u32,
        rate: u32,
        seed: u64,
    ) -> Result<Ledger, Error> {
        let mix = Mix::benchmark(orders(commands), seed);
        let progress = Arc::clone(&self.progress);
        let of = u64::from(mix.orders * COMMANDS_PER_ORDER);
        let options = producer::Options { rate, ..producer::Options::to(topic) };
        let tell = move |done| progress(Progress { phase, done, of });
        Ok(producer::produce(&self.brokers, &mix, options, tell).await?)
    }

    /// Watches `topic` grow from `before` records to `until`, and measures from the first new one on.
    async fn stretch(&self, phase: &'static str, topic: &str, before: u64, until: u64) -> Result<Stretch, Error> {
        let mut first = None;
        let last = self.reached(topic, until, |total| {
            self.tell(phase, total.saturating_sub(before), until - before);
            if total > before && first.is_none() {
                first = Some((Instant::now(), total, self.pids.used()));
            }
        });
        let total = last.await?;
        let (began, skipped, cpu) =
            first.ok_or_else(|| Error::Wrong(format!("{phase}: all events were there before the first look")))?;
        let (elapsed, count) = (began.elapsed(), total - skipped);
        let cpu = self.pids.used().per_command_us(cpu, precise(count));
        Ok(Stretch { count, elapsed, cpu })
    }

    /// Waits until `topic` has `until` records; tells `look` how many it has each time. Fails if it stands
    /// still.
    async fn reached(&self, topic: &str, until: u64, mut look: impl FnMut(u64)) -> Result<u64, Error> {
        let mut moved = (Instant::now(), 0);
        loop {
            let total = self.ends.total(topic).await?;
            look(total);
            if total >= until {
                return Ok(total);
            }
            if total > moved.1 {
                moved = (Instant::now(), total);
            }
            if moved.0.elapsed() > PATIENCE {
                return Err(Error::Timeout(PATIENCE, format!("{topic}, which stands still at {total} of {until}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// `work`, unless the baseline fails before it is done.
async fn or_failed<T>(running: &mut Baseline, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        error = running.failed() => Err(error),
    }
}

/// Latencies without the first fifth of the load: connections and caches warm up there.
fn steady(load: &Ledger, events: &[checkers::EventRecord]) -> Latencies {
    let from = load.elapsed / 5;
    checkers::latencies_to(load, events, |_, sent| sent.after >= from)
}

const fn orders(commands: u32) -> u32 {
    commands.div_ceil(COMMANDS_PER_ORDER)
}

/// Counts here are far below 2^52.
#[allow(clippy::cast_precision_loss)]
const fn precise(count: u64) -> f64 {
    count as f64
}
