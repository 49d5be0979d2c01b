//! The scenarios of the load-tests crate that measure one context alone, a node of it in a process of its own
//! ([`super::apart`]), with the real orders context.
//!
//! Deliberately absent: measuring.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use holdfast_load_tests::{
    findings::Findings,
    scenarios::{
        Error, catch_up, cold_start, data, hot_order,
        pipeline::{Progress, Watcher},
        poison,
    },
};
use holdfast_platform::Config;
use indicatif::{ProgressBar, ProgressStyle};

use super::apart::launch;
use crate::{cli::Load, failure::Failure};

pub(super) async fn data(config: Config, load: Load) -> Result<Findings, Failure> {
    let [small, large] = data::Options::SIZES;
    let large = if load.short { large / 5 } else { large };
    let sizes = [small, large].into_iter().chain(load.full.then_some(data::Options::FULL)).collect();
    found(data::run(data::Options { launch: launch(&config)?, commands: load.commands(), sizes }, watcher()).await)
}

pub(super) async fn hot_order(config: Config, load: Load) -> Result<Findings, Failure> {
    let (commands, rounds) = (load.commands(), load.rounds());
    found(hot_order::run(hot_order::Options { launch: launch(&config)?, commands, rounds }, watcher()).await)
}

pub(super) async fn cold_start(config: Config, load: Load) -> Result<Findings, Failure> {
    found(cold_start::run(cold_start::Options::new(launch(&config)?, load.stored()), watcher()).await)
}

pub(super) async fn catch_up(config: Config, load: Load) -> Result<Findings, Failure> {
    let records = load.commands().saturating_mul(10);
    found(catch_up::run(catch_up::Options::new(launch(&config)?, records), watcher()).await)
}

pub(super) async fn poison(config: Config, load: Load) -> Result<Findings, Failure> {
    let (commands, rounds) = (load.commands(), load.rounds());
    found(poison::run(poison::Options { launch: launch(&config)?, commands, rounds }, watcher()).await)
}

fn found(found: Result<Findings, Error>) -> Result<Findings, Failure> {
    found.context("the scenario").map_err(Failure::Check)
}

/// One bar for each phase.
pub(super) fn watcher() -> Watcher {
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
