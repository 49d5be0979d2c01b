//! `holdfast demo`: real orders through a real Kafka and a real Postgres, and then an account of every one of them.
//!
//! Invariant: what the table says comes from the topics and the schemas, read by checkers that share no code with the runtime.
//! Deliberately absent: anything that a production process does differently.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table};
use holdfast_load_tests::{
    checkers::{self, Backlog, Latencies, Report, Schema, Target},
    kafka::Ends,
    producer::{self, Ledger, Options},
    work::{Mix, SCARCE_SKU},
};
use holdfast_platform::{Config, Context};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::{
    cli::Demo,
    compose::{self, App, Listeners},
    failure::Failure,
    infrastructure::{Infrastructure, ORDERING},
    shelves::{self, Shelf},
    verbs::serve::Process,
};

/// Commands a second of the second part, in which latency is measured: far below what the machine can do.
const CALM_RATE: u32 = 400;
/// Orders of the second part.
const CALM_ORDERS: u32 = 500;
/// After the last record was sent, how long may pass without anything moving before the demo gives up.
const PATIENCE: Duration = Duration::from_mins(2);
/// Units in stock of the sku that is to sell out, per thousand orders.
const SCARCE_PER_MILLE: i64 = 10;

/// Runs it; 1 if anything was lost, doubled or reordered.
pub async fn run(mut config: Config, demo: Demo) -> Result<u8, Failure> {
    if config.render().iter().any(|line| line.key == "log.filter" && line.source == "default") {
        "error,librdkafka=off".clone_into(&mut config.log_filter);
    }
    let process = Process::begin(&config, &ORDERING)?;
    let stage = Stage::begin("starting Kafka and Postgres (the first time they are downloaded)");
    let at = Infrastructure::embedded(&config, None).await?;
    stage.done();
    let result = async {
        compose::prepare(&config, &at, &ORDERING).await?;
        let listeners = Listeners::ephemeral().await?;
        process
            .run(&config, &at, &ORDERING, listeners, async |app| show(&config, &at, app, demo.orders, demo.rate).await)
            .await
    }
    .await;
    at.stop().await?;
    let (exit, Some(outcome)) = result? else {
        eprintln!("stopped before the end");
        return Ok(130);
    };
    if demo.json {
        println!("{}", outcome.json());
    } else {
        println!("{}", outcome.table());
    }
    if !outcome.report.is_clean() {
        eprintln!("{}", outcome.report);
        return Ok(1);
    }
    Ok(exit)
}

/// What came of it.
struct Outcome {
    orders: u32,
    partitions: u32,
    /// From the first record sent to the last effect published.
    took: Duration,
    /// Records of the first part, which `took` is about.
    records: u64,
    /// Of the second part.
    calm: Latencies,
    report: Report,
}

async fn show(
    config: &Config,
    at: &Infrastructure,
    app: &App,
    orders: u32,
    rate: Option<u32>,
) -> Result<Outcome, Failure> {
    let stage = Stage::begin("taking the partitions and filling the shelves");
    app.owned().await;
    let mix = Mix::demo(orders, 1);
    let calm_mix = Mix { time_ms: mix.time_ms + 1, ..Mix::demo(CALM_ORDERS, 2) };
    fill(app, &mix).await?;
    stage.done();

    let target = target(config, at)?;
    let (ledger, took) = push(at, &target, &mix, rate.unwrap_or(0), "orders").await?;
    let (calm_ledger, _) = push(at, &target, &calm_mix, CALM_RATE, "a calm trickle").await?;

    let stage = Stage::begin("accounting for every command");
    let evidence = checkers::gather(&target).await.map_err(checked)?;
    let calm = checkers::latencies(&calm_ledger, &evidence, |_, _| true);
    let records = ledger.records;
    let report = checkers::audit(&both(ledger, calm_ledger), &evidence);
    stage.done();
    Ok(Outcome { orders: orders + CALM_ORDERS, partitions: config.partitions, took, records, calm, report })
}

fn checked(error: checkers::Error) -> Failure {
    Failure::Check(error.into())
}

/// Stock without end, but for one sku.
async fn fill(app: &App, mix: &Mix) -> Result<(), Failure> {
    let inventory = shelves::inventory(&format!("http://{}", app.grpc)).context("inventory").map_err(Failure::Check)?;
    let scarce = (i64::from(mix.orders) * SCARCE_PER_MILLE / 1_000).max(1);
    let plenty = i64::from(mix.orders.max(1_000)) * 10;
    let shelf = |sku: String, quantity: i64, price_minor: i64| Shelf { sku, quantity, price_minor };
    let ordinary = (0..mix.skus).map(|n| shelf(Mix::sku(n), plenty, 199 + i64::from(n) * 100));
    let shelves = ordinary.chain([shelf(SCARCE_SKU.to_owned(), scarce, 99_900)]);
    let filled = shelves::fill(&inventory, "demo", shelves).await;
    filled.context("inventory did not take the stock").map_err(Failure::Check)
}

fn target(config: &Config, at: &Infrastructure) -> Result<Target, Failure> {
    let schema = |context: Context| {
        Ok::<_, Failure>(Schema {
            role: at.role(config, context),
            ..Schema::new(at.database_url(config, context)?, context.as_str())
        })
    };
    let (orders, inventory) = (schema(Context::Orders)?, Some(schema(Context::Inventory)?));
    Ok(Target { orders, inventory, ..Target::new(at.brokers(), "") })
}

/// Sends everything and waits until it is done; how long that took from the first record on.
async fn push(
    at: &Infrastructure,
    target: &Target,
    mix: &Mix,
    rate: u32,
    what: &'static str,
) -> Result<(Ledger, Duration), Failure> {
    let bar = ProgressBar::new(u64::from(mix.orders) * 4).with_message(what);
    bar.set_style(style());
    let begun = Instant::now();
    let options = Options { rate, ..Options::to("orders.commands") };
    let sending = tokio::spawn({
        let (brokers, mix) = (at.brokers().to_owned(), mix.clone());
        async move { producer::produce(&brokers, &mix, options, |_| {}).await }
    });
    // The bar shows what is done, not what is sent.
    let ends = Ends::new(at.brokers()).context("kafka").map_err(Failure::Check)?;
    let before = ends.total("orders.events").await.unwrap_or(0);
    while !sending.is_finished() {
        let done = ends.total("orders.events").await.unwrap_or(before) - before;
        bar.set_position(done.min(u64::from(mix.orders) * 4));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sent = sending.await.context("the producer").map_err(Failure::Check)?;
    let ledger = sent.context("the producer").map_err(Failure::Check)?;
    bar.set_length(ledger.records);
    let progress = |backlog: &Backlog| {
        let left = backlog.records.get("orders.commands").copied().unwrap_or(0);
        bar.set_position(ledger.records.saturating_sub(left.cast_unsigned()));
    };
    let patience = PATIENCE + Duration::from_millis(ledger.records);
    checkers::settled(target, patience, progress).await.map_err(checked)?;
    let took = begun.elapsed();
    bar.finish();
    Ok((ledger, took))
}

fn both(mut first: Ledger, second: Ledger) -> Ledger {
    first.records += second.records;
    first.commands.extend(second.commands);
    first.bad.extend(second.bad);
    first
}

fn style() -> ProgressStyle {
    let template = "  {msg:<16} [{bar:40}] {human_pos}/{human_len} commands, {elapsed}";
    ProgressStyle::with_template(template).expect("the template is a constant that parses").progress_chars("=> ")
}

/// One line of what is going on.
struct Stage {
    what: &'static str,
    begun: Instant,
}

impl Stage {
    fn begin(what: &'static str) -> Self {
        eprintln!("  {what} ...");
        Self { what, begun: Instant::now() }
    }

    fn done(self) {
        eprintln!("  {}: {:.1} s", self.what, self.begun.elapsed().as_secs_f64());
    }
}

impl Outcome {
    fn commands_per_s(&self) -> f64 {
        f64::from(u32::try_from(self.records).unwrap_or(u32::MAX)) / self.took.as_secs_f64()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "orders": self.orders,
            "partitions": self.partitions,
            "seconds": self.took.as_secs_f64(),
            "commands_per_s": self.commands_per_s(),
            "calm_commands_per_s": CALM_RATE,
            "latency": self.calm,
            "lost": self.report.lost(),
            "doubled": self.report.doubled(),
            "out_of_order": self.report.out_of_order(),
            "clean": self.report.is_clean(),
            "report": self.report,
        })
    }

    fn table(&self) -> Table {
        let report = &self.report;
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        let count = |number: u64| HumanCount(number).to_string();
        let mut row = |name: String, value: String| {
            table.add_row([name, value]);
        };
        row("orders".into(), count(report.orders.values().sum()));
        for (state, number) in &report.orders {
            row(format!("  {state}"), count(*number));
            if state == "CANCELLED" {
                for (cause, number) in &report.cancelled {
                    row(format!("    {cause}"), count(*number));
                }
            }
        }
        row("commands sent".into(), count(report.records));
        row("  applied".into(), count(report.applied));
        for (name, number) in &report.rejected {
            row(format!("  rejected: {name}"), count(*number));
        }
        row(
            "  repeats, dropped".into(),
            format!("{} of {}", count(report.repeats_dropped), count(report.repeats_sent)),
        );
        for (reason, number) in &report.dead_letters {
            row(format!("  dead letters: {reason}"), count(*number));
        }
        row("events".into(), count(report.events));
        let stock = &report.stock;
        let units = |number: i64| count(number.unsigned_abs());
        row("stock received, reserved".into(), format!("{}, {}", units(stock.received), units(stock.reserved)));
        row("commands/s, all published".into(), format!("{:.0}", self.commands_per_s()));
        let calm = &self.calm;
        row(format!("p50, p99 at {CALM_RATE} commands/s"), format!("{} ms, {} ms", calm.p50_ms, calm.p99_ms));
        row("lost".into(), count(report.lost()));
        row("doubled".into(), count(report.doubled()));
        row("out of order".into(), count(report.out_of_order()));
        let other: u64 = report.violations().map(|(_, found)| found.count).sum::<u64>()
            - report.lost()
            - report.doubled()
            - report.out_of_order();
        row("other contradictions".into(), count(other));
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}
