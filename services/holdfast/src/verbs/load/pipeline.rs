//! `holdfast load pipeline`: the benchmark of the load-tests crate, with the real orders context.
//!
//! Deliberately absent: measuring.

use std::fmt::Write as _;

use anyhow::Context as _;
use holdfast_load_tests::{
    scenarios::pipeline::{self, Options},
    work::{Form, Ids},
};
use holdfast_platform::Config;

use super::{found::Found, orders, single};
use crate::{cli::Load, failure::Failure};

/// Runs it.
pub(super) async fn run(config: Config, load: Load) -> Result<Found, Failure> {
    let defaults = Options::new(orders::context);
    let options = Options {
        config: orders::node(&config, "load"),
        rounds: load.rounds(),
        partitions: i32::from(load.partitions),
        is_alone: load.alone,
        ids: if load.ids == "v7" { Ids::V7 } else { Ids::V4 },
        form: if load.form == "json" { Form::Json } else { Form::Protobuf },
        commands: load.commands(),
        baseline_commands: (load.commands() / 10).clamp(4_000, 40_000),
        ..defaults
    };
    let options = if load.short { options.short() } else { options };
    let outcome = pipeline::run(options, single::watcher()).await.context("the benchmark").map_err(Failure::Check)?;
    let mut table = format!("{}\n{}", outcome.table(), outcome.stages());
    if let Some(settings) = outcome.streams {
        let prompt = settings.prompt();
        let _ = write!(table, "\nKafka Streams had the best of the settings tried: {settings}; for latency, {prompt}");
    }
    Ok(Found { findings: outcome.findings(), json: outcome.json().to_string(), table: Some(table) })
}
