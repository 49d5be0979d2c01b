//! A site: the orders context on an embedded stack of its own, with a counter, and a node apart that comes
//! and goes. What most scenarios about one context are made of: produce a load, drain it, account for it.
//!
//! Invariant: everything that was ever produced here is in one ledger, and the account at the end is of all
//! of it. Deliberately absent: what is asked, and which loads answer it.

use std::time::{Duration, UNIX_EPOCH};

use holdfast_stack::{Stack, StackOptions};
use uuid::Uuid;

use super::{
    Error, PATIENCE,
    apart::{Apart, Launch},
    cpu::{Cpu, Pids},
    database::{Database, Mark, settle},
    failed,
    memory::Memory,
    pipeline::{Progress, Watcher},
    precise,
    seed::{self, Stored},
};
use crate::{
    checkers::{self, Report, Target},
    counter::{Counted, Counter},
    findings::Findings,
    kafka,
    producer::{self, Ledger},
    work::{Ids, Mix, Planned},
};

const COMMANDS: &str = "orders.commands";
const EVENTS: &str = "orders.events";
const LETTERS: &str = "orders.dlq";
const PARTITIONS: i32 = 12;
/// Between two samples of a curve.
const SAMPLE: Duration = Duration::from_millis(500);

/// How far a drain was at some time, and the node's memory then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Since the node's start.
    pub seconds: f64,
    /// Events read.
    pub events: u64,
    /// Bytes.
    pub resident: u64,
}

/// What it took to drain a load that lay in the topic before a node was started.
#[derive(Clone, Debug, Default)]
pub struct Drained {
    /// Events that were waited for.
    pub events: u64,
    /// Events a second, from the first to the last.
    pub per_second: f64,
    /// CPU time for each, in µs: the node has its own process.
    pub cpu_us: Cpu,
    /// What Postgres counted for each, from the node's start to its end.
    pub database: Database,
    /// Bytes for each of the log that are whole pages (see [`Mark::full_page_bytes`]).
    pub full_page_bytes: f64,
    /// From the node's start until it owned every partition.
    pub ready: Duration,
    /// From the node's start until the first event was read.
    pub first_event: Duration,
    /// The node's memory at the end.
    pub memory: Memory,
    /// How it went.
    pub samples: Vec<Sample>,
}

/// See the module.
pub struct Site {
    stack: Stack,
    counter: Counter,
    servers: Pids,
    url: String,
    launch: Launch,
    watcher: Watcher,
    /// Everything that was produced here.
    ledger: Ledger,
    loads: u64,
    /// Orders that stood in the tables.
    pub stored: Stored,
}

/// From one event to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// When the first was read, µs since 1970.
    pub first_us: u64,
    /// Events a second.
    pub per_second: f64,
}

impl Site {
    /// Starts the servers, and drains `commands` unmeasured: that makes the tables, and the broker compiles
    /// what it does often.
    pub async fn open(launch: &Launch, watcher: &Watcher, commands: u32) -> Result<Self, Error> {
        let options = StackOptions { kafka_runs_long: true, ..StackOptions::default() };
        let stack = Stack::start(options).await.map_err(failed("starting the stack"))?;
        let append_time = [("message.timestamp.type", "LogAppendTime")];
        kafka::create_topics_with(stack.brokers(), &[COMMANDS, LETTERS], PARTITIONS, &append_time).await?;
        kafka::create_topics(stack.brokers(), &[EVENTS], PARTITIONS).await?;
        let counter = Counter::start(stack.java(), stack.data_dir(), stack.brokers(), &[EVENTS])?;
        let servers = Pids {
            kafka: stack.kafka_pid().await,
            postgres: stack.postgres_pid().await,
            counter: counter.pid(),
            design: None,
        };
        let mut site = Self {
            url: stack.postgres_url("postgres"),
            stack,
            counter,
            servers,
            launch: launch.clone(),
            watcher: watcher.clone(),
            ledger: Ledger::default(),
            loads: 0,
            stored: Stored::new(4_711),
        };
        site.produce_new(commands).await?;
        site.drain("warming up").await?;
        Ok(site)
    }

    /// A seed that no other load here has.
    pub const fn seed(&mut self) -> u64 {
        self.loads += 1;
        self.loads
    }

    /// Where Postgres is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends about `commands` of the benchmark's commands, in whole orders, to new ones.
    pub async fn produce_new(&mut self, commands: u32) -> Result<(), Error> {
        let mix = Mix { ids: Ids::V4, ..Mix::benchmark(commands.div_ceil(4), self.seed()) };
        self.produce(mix.windows()).await
    }

    /// Sends these records, as fast as it goes.
    pub async fn produce(&mut self, windows: impl Iterator<Item = Vec<Planned>> + Send + 'static) -> Result<(), Error> {
        self.tell("producing", 0, 1);
        let options = producer::Options::to(COMMANDS);
        let load = producer::produce_windows(self.stack.brokers(), windows, options, |_| {}).await?;
        self.ledger.absorb(load);
        Ok(())
    }

    /// Has `count` orders stored in all, beside those that loads have made.
    pub async fn store(&mut self, count: u32) -> Result<(), Error> {
        let (watcher, phase) = (self.watcher.clone(), format!("storing {count} orders"));
        let tell = |done: u32| watcher(Progress { phase: phase.clone(), done: done.into(), of: count.into() });
        self.stored.write(&self.url, count, tell).await
    }

    /// Has `count` further orders stored whose state can't be read.
    pub async fn store_unreadable(&mut self, count: u32) -> Result<Vec<Uuid>, Error> {
        self.stored.write_unreadable(&self.url, count).await
    }

    /// Starts a node.
    pub fn start(&self) -> Result<Apart, Error> {
        Apart::start(&self.launch, self.stack.data_dir(), self.stack.brokers(), &self.url)
    }

    /// Events that there must be: one of each command that was produced.
    fn due(&self) -> u64 {
        self.ledger.commands.len() as u64
    }

    /// Events read so far.
    pub fn read(&self) -> u64 {
        self.counter.count(0)
    }

    /// Starts a node, waits until it has done everything that was produced, and ends it. Right after a
    /// checkpoint.
    pub async fn drain(&mut self, what: &str) -> Result<Drained, Error> {
        settle(&self.url).await?;
        self.drain_on(what).await
    }

    /// The same without a checkpoint before, so that pages that were changed since the last one are not
    /// written whole again.
    pub async fn drain_on(&mut self, what: &str) -> Result<Drained, Error> {
        let (before, until) = (self.read(), self.due());
        let mark = Mark::now(&self.url).await?;
        let counted = Database::counted(&self.url).await?;
        let began_us = now_us();
        let mut node = self.start()?;
        let pids = Pids { design: Some(node.pid()), ..self.servers };
        let (mut begun, mut samples) = (None, Vec::new());
        let look = |total: u64, node: &Apart| {
            if total > before && begun.is_none() {
                begun = Some((total, pids.used()));
            }
            let seconds = node.began().elapsed().as_secs_f64();
            let is_due = samples.last().is_none_or(|last: &Sample| seconds - last.seconds >= SAMPLE.as_secs_f64());
            if is_due && let Ok(memory) = node.memory() {
                samples.push(Sample { seconds, events: total - before, resident: memory.resident });
            }
        };
        self.reached(&mut node, what, until, look).await?;
        let used = pids.used();
        let ready = node.ready().await?;
        self.settled().await?;
        let memory = node.memory()?;
        node.stop().await?;
        let events = until - before;
        let span = self.span(before, until)?;
        // A small load may be there at the first look; its CPU time was not seen then.
        let cpu_us = match begun {
            Some((total, first)) if total < until => used.per_command_us(first, precise(until - total)),
            _ => Cpu::default(),
        };
        Ok(Drained {
            events,
            per_second: span.per_second,
            cpu_us,
            database: Database::counted(&self.url).await?.per_command(counted, precise(events)),
            full_page_bytes: (mark.full_page_bytes(&self.url).await? / precise(events)).round(),
            ready,
            first_event: Duration::from_micros(span.first_us.saturating_sub(began_us)),
            memory,
            samples,
        })
    }

    /// Waits until everything that was produced has its event; calls `look` with the number of events each
    /// time.
    pub async fn caught_up(&self, node: &mut Apart, what: &str) -> Result<(), Error> {
        self.reached(node, what, self.due(), |_, _| {}).await?;
        self.settled().await
    }

    async fn reached(
        &self,
        node: &mut Apart,
        what: &str,
        until: u64,
        mut look: impl FnMut(u64, &Apart),
    ) -> Result<(), Error> {
        let before = self.read();
        let look = |total: u64| {
            look(total, node);
            self.tell(what, total.saturating_sub(before), until.saturating_sub(before));
            node.check()
        };
        self.counter.reached(0, until, what, look).await.map(drop)
    }

    /// The events from the one after `before` to the one that makes them `until`.
    pub fn span(&self, before: u64, until: u64) -> Result<Span, Error> {
        let lost = || Error::Wrong("lost count of the events".into());
        let events: Vec<Counted> = self.counter.since(0, before);
        let last = usize::try_from(until.saturating_sub(before + 1)).ok().and_then(|at| events.get(at));
        let (first, last) = (events.first().ok_or_else(lost)?, last.ok_or_else(lost)?);
        let seconds = Duration::from_micros(last.at_us.saturating_sub(first.at_us)).as_secs_f64();
        let per_second = precise(until - before - 1) / seconds.max(1e-6);
        Ok(Span { first_us: first.at_us, per_second: per_second.round() })
    }

    async fn settled(&self) -> Result<(), Error> {
        checkers::settled(&self.target(), PATIENCE, |_| {}).await?;
        Ok(())
    }

    fn target(&self) -> Target {
        let stood_at = if self.stored.count() > 0 { seed::VERSION } else { 0 };
        Target { stood_at, ..Target::new(self.stack.brokers(), &self.url).orders_only() }
    }

    /// Accounts for everything that was ever produced here, and notes in `findings` what broke a promise.
    pub async fn account(&self, findings: &mut Findings) -> Result<Report, Error> {
        self.tell("accounting for every command", 0, 1);
        let mut evidence = checkers::gather(&self.target()).await?;
        let changed = self.stored.changed(&evidence);
        self.stored.recall(&mut evidence);
        let report = checkers::audit(&self.ledger, &evidence);
        findings.breached(&report);
        if self.stored.count() > 0 {
            findings.breaches.extend(self.stored.untouched(&self.url, changed).await?);
        }
        Ok(report)
    }

    /// Stops the servers.
    pub async fn close(self) -> Result<(), Error> {
        self.counter.stop().await?;
        self.stack.stop().await.map_err(failed("stopping the stack"))
    }

    fn tell(&self, phase: &str, done: u64, of: u64) {
        (self.watcher)(Progress { phase: phase.to_owned(), done, of });
    }
}

/// µs since 1970, by the clock that the counter reads as well.
pub fn now_us() -> u64 {
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
