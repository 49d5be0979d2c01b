//! `holdfast load`: benchmarks. Each runs on an embedded stack of its own, which is gone afterwards.
//!
//! Deliberately absent: measuring the pipeline and all else that needs one context alone, which the
//! load-tests crate does; here the real context is handed to it.

mod apart;
mod life;
mod query;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use holdfast_load_tests::{
    findings::Findings,
    scenarios::{
        self, catch_up, cold_start, data,
        holdfast::Contestant,
        hot_order,
        pipeline::{self, Progress},
        poison,
    },
    work::Ids,
};
use holdfast_money::{Currency, Money};
use holdfast_orders::{app, customers::StaticCustomers, prices::StaticPrices};
use holdfast_platform::Config;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{cli::Load, failure::Failure};

/// Runs one scenario; 1 if a check failed in it.
pub async fn run(config: Config, load: Load) -> Result<u8, Failure> {
    let (commands, rounds) = (load.commands.unwrap_or(COMMANDS), load.rounds);
    match load.scenario.as_str() {
        "pipeline" => pipeline(config, load).await,
        "data" => {
            let full = load.full.then_some(data::Options::FULL);
            let sizes = data::Options::SIZES.into_iter().chain(full).collect();
            let options = data::Options { launch: apart::launch(&config)?, commands, sizes };
            shown(data::run(options, watcher()).await, load.json)
        }
        "hot-order" => {
            let options = hot_order::Options { launch: apart::launch(&config)?, commands, rounds };
            shown(hot_order::run(options, watcher()).await, load.json)
        }
        "cold-start" => {
            let options = cold_start::Options::new(apart::launch(&config)?, load.stored);
            shown(cold_start::run(options, watcher()).await, load.json)
        }
        "catch-up" => {
            let records = load.commands.unwrap_or(catch_up::Options::RECORDS);
            let options = catch_up::Options::new(apart::launch(&config)?, records);
            shown(catch_up::run(options, watcher()).await, load.json)
        }
        "poison" => {
            let options = poison::Options { launch: apart::launch(&config)?, commands, rounds };
            shown(poison::run(options, watcher()).await, load.json)
        }
        "life" => stopped_or_shown(Box::pin(life::run(config, commands / COMMANDS_PER_LIFE)).await?, load.json),
        "query" => {
            let calls = usize::try_from(commands / 10).unwrap_or(usize::MAX);
            stopped_or_shown(Box::pin(query::run(config, calls)).await?, load.json)
        }
        apart::VERB => apart::serve(&config).await,
        other => Err(Failure::usage(anyhow::anyhow!("no scenario is called {other}; there are: {NAMES}"))),
    }
}

/// All scenarios.
const NAMES: &str = "pipeline, data, hot-order, cold-start, catch-up, life, query, poison";
/// Commands in a measured stretch, unless another number is asked for.
const COMMANDS: u32 = 100_000;
/// About as many commands to orders as one order gets that lives its whole life.
const COMMANDS_PER_LIFE: u32 = 5;

/// Prints what was found, unless a signal came before.
fn stopped_or_shown(found: Option<Findings>, json: bool) -> Result<u8, Failure> {
    let Some(findings) = found else {
        eprintln!("stopped before the end");
        return Ok(130);
    };
    shown(Ok(findings), json)
}

/// Prints what was found; 1 if it broke a promise.
fn shown(found: Result<Findings, scenarios::Error>, json: bool) -> Result<u8, Failure> {
    let findings = found.context("the scenario").map_err(Failure::Check)?;
    if json {
        println!("{}", serde_json::to_string(&findings).context("findings as JSON").map_err(Failure::Check)?);
    } else {
        println!("{}", findings.table());
    }
    for breach in &findings.breaches {
        eprintln!("{breach}");
    }
    Ok(u8::from(!findings.is_clean()))
}

async fn pipeline(config: Config, load: Load) -> Result<u8, Failure> {
    let (defaults, commands) = (pipeline::Options::new(orders), load.commands.unwrap_or(COMMANDS));
    let options = pipeline::Options {
        config: node(&config, "load"),
        rounds: load.rounds,
        is_alone: load.alone,
        ids: if load.ids == "v7" { Ids::V7 } else { Ids::V4 },
        commands,
        baseline_commands: (commands / 10).clamp(4_000, 40_000),
        ..defaults
    };
    let outcome = pipeline::run(options, watcher()).await.context("the benchmark").map_err(Failure::Check)?;
    if load.json {
        println!("{}", outcome.json());
    } else {
        println!("{}", outcome.table());
        if let Some(settings) = outcome.streams {
            println!(
                "Kafka Streams had the best of the settings tried: {settings}; for latency, {}",
                settings.prompt()
            );
        }
    }
    if outcome.is_clean() {
        Ok(0)
    } else {
        eprintln!("{}", outcome.report);
        for (round, turn) in
            outcome.contenders.iter().filter(|one| one.name == "holdfast").flat_map(|one| one.turns.iter().enumerate())
        {
            eprintln!("round {}: {:?}", round + 1, turn.tally);
        }
        Ok(1)
    }
}

/// The limits of the node that is measured, by the address that it gives.
fn node(config: &Config, address: &str) -> holdfast_runtime::Config {
    holdfast_runtime::Config {
        address: address.to_owned(),
        lanes: config.lanes,
        batch_items_max: config.batch_max,
        ..holdfast_runtime::Config::default()
    }
}

/// The orders context as in production, but for prices and customers, which never change and are never asked
/// for over the network.
fn orders() -> Contestant {
    Contestant {
        context: app::context(StaticPrices::all(Money::new(1_999, Currency::EUR)), StaticCustomers::all()),
        views: app::VIEWS.to_vec(),
        migrations: app::MIGRATIONS.to_vec(),
    }
}

/// One bar for each phase.
fn watcher() -> pipeline::Watcher {
    let style = ProgressStyle::with_template("  {msg:<48} [{bar:30}] {human_pos}/{human_len}, {elapsed}")
        .expect("the template is a constant that parses")
        .progress_chars("=> ");
    let current: Mutex<Option<(String, ProgressBar)>> = Mutex::new(None);
    Arc::new(move |Progress { phase, done, of }| {
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(shown, _)| *shown != phase) {
            if let Some((_, bar)) = current.take() {
                bar.finish();
            }
            let bar = ProgressBar::new(of).with_style(style.clone()).with_message(phase.clone());
            *current = Some((phase, bar));
        }
        if let Some((_, bar)) = &*current {
            bar.set_length(of);
            bar.set_position(done);
        }
    })
}
