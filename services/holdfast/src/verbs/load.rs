//! `holdfast load`: benchmarks. Each runs on an embedded stack of its own, which is gone afterwards.
//!
//! Deliberately absent: measuring, which the load-tests crate does, or a scenario's own file where it takes a
//! whole node; here the real contexts are handed to it.

mod all;
mod apart;
mod found;
mod life;
mod list;
mod orders;
mod pipeline;
mod query;
mod single;

use std::ffi::OsString;

use clap::Command;
use holdfast_load_tests::report::{self, Entry};
use holdfast_platform::Config;

use self::{found::Found, list::Scenario};
use crate::{cli::Load, failure::Failure};

/// The command line with the list of scenarios in its help.
#[must_use]
pub fn with_scenarios(command: Command) -> Command {
    command.mut_subcommand("load", |load| load.mut_arg("scenario", |scenario| scenario.help(list::help())))
}

/// Runs one scenario or all of them; 1 if a check failed in one. `again` are the arguments of a process with
/// the same configuration.
pub async fn run(config: Config, load: Load, again: Vec<OsString>) -> Result<u8, Failure> {
    if load.scenario == apart::VERB {
        return apart::serve(&config).await;
    }
    let scenarios = list::chosen(&load.scenario)?;
    match scenarios[..] {
        [scenario] if load.out.is_none() => {
            if !load.compare.is_empty() {
                return Err(Failure::usage(anyhow::anyhow!("--compare needs a page; add --out DIR")));
            }
            one(scenario, config, load).await
        }
        _ => all::run(&scenarios, &load, &again).await,
    }
}

/// Runs a scenario in this process, and prints what it found.
async fn one(scenario: &Scenario, config: Config, load: Load) -> Result<u8, Failure> {
    let began = std::time::Instant::now();
    let (entry, json) = (load.entry.clone(), load.json);
    let found = (scenario.run)(config, load).await;
    if let Some(path) = entry {
        let (findings, failure) = match &found {
            Ok(found) => (found.findings.clone(), None),
            Err(failure) => (scenario.nothing(), Some(failure.to_string())),
        };
        let entry = Entry { findings, failure, seconds: began.elapsed().as_secs_f64() };
        all::write(&path, &entry)?;
    }
    let Found { findings, json: object, table } = found?;
    if json {
        println!("{object}");
    } else {
        println!("{}", table.unwrap_or_else(|| report::table(&findings).to_string()));
    }
    for breach in &findings.breaches {
        eprintln!("broken: {breach}");
    }
    Ok(u8::from(!findings.is_clean()))
}
