//! `holdfast load`: benchmarks. Each runs on an embedded stack of its own, which is gone afterwards.
//!
//! Deliberately absent: measuring the pipeline, which the load-tests crate does; here the real context is
//! handed to it.

mod hops;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use holdfast_load_tests::{
    scenarios::{
        holdfast::Contestant,
        pipeline::{self, Progress},
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
    match load.scenario.as_str() {
        "pipeline" => pipeline(config, load).await,
        "hops" => {
            let calls = usize::try_from(load.commands / 10).unwrap_or(usize::MAX);
            Box::pin(hops::run(config, calls, load.json)).await
        }
        other => Err(Failure::usage(anyhow::anyhow!("no scenario is called {other}; there are: pipeline, hops"))),
    }
}

async fn pipeline(config: Config, load: Load) -> Result<u8, Failure> {
    let defaults = pipeline::Options::new(orders);
    let options = pipeline::Options {
        config: holdfast_runtime::Config {
            lanes: config.lanes,
            batch_items_max: config.batch_max,
            ..defaults.config.clone()
        },
        rounds: load.rounds,
        is_alone: load.alone,
        ids: if load.ids == "v7" { Ids::V7 } else { Ids::V4 },
        commands: load.commands,
        baseline_commands: (load.commands / 10).clamp(4_000, 40_000),
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
