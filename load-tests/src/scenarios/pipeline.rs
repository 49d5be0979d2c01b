//! The benchmark: commands in Kafka to events in Kafka, by Holdfast and by its rivals in turn, in one run on
//! one machine.
//!
//! *Drain*: two loads lie in the topic before a design is started; the first is drained *cold*, the second
//! *warm*. *Live*: the producer runs at the same time, on the same cores. *Latency*: the producer sends at a
//! fixed rate; from the broker's append to the reading of the event. An event counts when the counter, the
//! same for all, has read it. The designs take turns, in another order each round; what is printed is the
//! median of the rounds. Each command's event is looked for, and what Holdfast stored is checked besides.
//! Deliberately absent: the context itself, which the caller brings.

mod bench;
mod curves;
mod designs;
mod found;
mod outcome;
mod stages;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use holdfast_runtime::Config;
use holdfast_stack::{Stack, StackOptions};

pub use curves::Curves;
pub use outcome::{Contender, Latency, Outcome, Rate, Tally, Turn};
pub use stages::Stage;

use self::{
    bench::Bench,
    designs::{COMMANDS, Design, EVENT_TOPICS, Place},
    stages::Stages,
};
use super::{Error, cpu::Pids, failed, holdfast::Contestant};
use crate::{
    baseline,
    checkers::{self, Target},
    counter::Counter,
    kafka::{self, Ends},
    report::number::grouped,
    rivals::{
        echo,
        streams::{self, Settings},
    },
    work::{Form, Ids},
};

/// What this scenario asks, for help texts and the report.
pub const QUESTION: &str = "How many commands a second become events, at which latency and at what cost, beside Kafka Streams, \
                            one transaction per command, a bare group commit and an echo?";

/// What to measure.
#[derive(Clone)]
pub struct Options {
    /// Makes the orders context. Its prices must know `sku-0` to `sku-99` in EUR.
    pub contestant: Arc<dyn Fn() -> Contestant + Send + Sync>,
    /// The node's limits.
    pub config: Config,
    /// How often each design is measured.
    pub rounds: u32,
    /// Whether Holdfast alone is measured, for comparing two builds of it.
    pub is_alone: bool,
    /// How orders and commands are named.
    pub ids: Ids,
    /// How commands are written. Events are protobuf.
    pub form: Form,
    /// Partitions of each topic.
    pub partitions: i32,
    /// Commands in each measured stretch.
    pub commands: u32,
    /// Likewise of the baseline: its rate is what counts.
    pub baseline_commands: u32,
    /// Commands a second when latency is measured, one after the other.
    pub rates: Vec<u32>,
    /// Likewise of the baseline.
    pub baseline_rate: u32,
    /// How long latency is measured.
    pub latency_for: Duration,
    /// Settings of Streams: the one that drains fastest competes.
    pub streams: Vec<Settings>,
}

impl Options {
    /// The published benchmark.
    pub fn new(contestant: impl Fn() -> Contestant + Send + Sync + 'static) -> Self {
        Self {
            contestant: Arc::new(contestant),
            config: Config { address: "load".into(), ..Config::default() },
            rounds: 3,
            is_alone: false,
            ids: Ids::V4,
            form: Form::Protobuf,
            partitions: 12,
            commands: 100_000,
            baseline_commands: 10_000,
            rates: vec![1_000, 4_000],
            baseline_rate: 400,
            latency_for: Duration::from_secs(15),
            streams: Settings::TRIED.to_vec(),
        }
    }

    /// The same in less time: latency for a shorter while, and half of the settings of Streams to try.
    #[must_use]
    pub fn short(mut self) -> Self {
        self.latency_for = Duration::from_secs(10);
        self.streams.truncate(2);
        self
    }

    /// What is measured, in words.
    fn setup(&self) -> Vec<(String, String)> {
        let ids = if self.ids == Ids::V7 { "by time (v7)" } else { "random (v4)" };
        let rounds = format!("{}, in each of which each design has a turn; medians count", self.rounds);
        let [commands, baseline] = [self.commands, self.baseline_commands].map(|count| grouped(count.into()));
        let all = [
            ("commands in each stretch", format!("{commands}; of one transaction per command {baseline}")),
            ("rounds", rounds),
            ("ids", ids.to_owned()),
            ("commands written as", self.form.content_type().to_owned()),
            ("partitions", self.partitions.to_string()),
            ("lanes", self.config.lanes.to_string()),
            ("latency measured for", format!("{:?} at each rate", self.latency_for)),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The phase of the run.
    pub phase: String,
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
        let stack = StackOptions { kafka_runs_long: true, ..StackOptions::default() };
        let stack = Stack::start(stack).await.map_err(failed("starting the stack"))?;
        let outcome = measure(&stack, &options, progress).await;
        stack.stop().await.map_err(failed("stopping the stack"))?;
        outcome
    })
}

async fn measure(stack: &Stack, options: &Options, progress: Watcher) -> Result<Outcome, Error> {
    let brokers = stack.brokers();
    let topics = [COMMANDS, "orders.dlq", streams::COMMANDS, baseline::COMMANDS, echo::COMMANDS];
    let append_time = [("message.timestamp.type", "LogAppendTime")];
    kafka::create_topics_with(brokers, &topics, options.partitions, &append_time).await?;
    kafka::create_topics(brokers, &EVENT_TOPICS, options.partitions).await?;
    let bench = Bench {
        servers: Pids { kafka: stack.kafka_pid().await, postgres: stack.postgres_pid().await, ..Pids::default() },
        counter: Counter::start(stack.java(), stack.data_dir(), brokers, &EVENT_TOPICS)?,
        ends: Ends::new(brokers)?,
        place: Place { stack, url: stack.postgres_url("postgres") },
        options,
        stages: Stages::of_process()?,
        progress,
        loads: 1.into(),
    };
    // The broker compiles what it does often; that is not to be measured.
    let (_, mut ledger) = bench.trial(Design::Holdfast, options.commands).await?;
    let settings = bench.settings().await?;
    let mut outcome = Outcome::new((!options.is_alone).then_some(settings), options.setup());
    for round in 0..options.rounds {
        let mut designs = [Design::Holdfast, Design::Streams(settings), Design::Baseline, Design::Echo];
        let first = usize::try_from(round).unwrap_or(0) % designs.len();
        designs.rotate_left(first);
        for design in designs.into_iter().filter(|design| !options.is_alone || *design == Design::Holdfast) {
            let (turn, load) = bench.turn(design).await?;
            outcome.contender(design.name()).turns.push(turn);
            if design == Design::Holdfast {
                ledger.absorb(load);
            }
        }
        if !options.is_alone {
            outcome.ceiling.push(bench.ceiling().await?);
        }
    }
    let evidence = checkers::gather(&Target::new(brokers, &bench.place.url).orders_only()).await?;
    outcome.report = checkers::audit(&ledger, &evidence);
    bench.counter.stop().await?;
    Ok(outcome)
}

impl Bench<'_> {
    /// The settings with which Streams drains fastest, once warm.
    async fn settings(&self) -> Result<Settings, Error> {
        let none = || Error::Wrong("there are no settings for Streams".into());
        let mut best = (0.0, *self.options.streams.first().ok_or_else(none)?);
        let is_tried = self.options.streams.len() > 1 && !self.options.is_alone;
        for settings in self.options.streams.iter().filter(|_| is_tried) {
            let (rate, _) = self.trial(Design::Streams(*settings), self.options.commands / 2).await?;
            if rate.per_second > best.0 {
                best = (rate.per_second, *settings);
            }
        }
        Ok(best.1)
    }
}
