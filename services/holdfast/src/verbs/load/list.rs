//! The scenarios that there are. The help, the error for a name that is none and `all` are made of this list.
//!
//! Invariant: a name is there once, and is that of its findings. Deliberately absent: what a scenario does.

use std::fmt::Write as _;

use futures::future::BoxFuture;
use holdfast_load_tests::{
    findings::Findings,
    scenarios::{catch_up, cold_start, data, hot_order, pipeline::QUESTION, poison},
};
use holdfast_platform::Config;

use super::{found::Found, life, pipeline, query, single};
use crate::{cli::Load, failure::Failure};

/// All, in the order in which `all` runs them. A scenario is a line here and a function.
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "pipeline", question: QUESTION, run: |config, load| Box::pin(pipeline::run(config, load)) },
    Scenario { name: "query", question: query::QUESTION, run: |config, load| made(query::run(config, load)) },
    Scenario { name: "life", question: life::QUESTION, run: |config, load| made(life::run(config, load)) },
    Scenario {
        name: "hot-order",
        question: hot_order::QUESTION,
        run: |config, load| made(single::hot_order(config, load)),
    },
    Scenario {
        name: "cold-start",
        question: cold_start::QUESTION,
        run: |config, load| made(single::cold_start(config, load)),
    },
    Scenario {
        name: "catch-up",
        question: catch_up::QUESTION,
        run: |config, load| made(single::catch_up(config, load)),
    },
    Scenario { name: "poison", question: poison::QUESTION, run: |config, load| made(single::poison(config, load)) },
    Scenario { name: "data", question: data::QUESTION, run: |config, load| made(single::data(config, load)) },
];

/// Stands for all of them on the command line.
const ALL: &str = "all";

/// A scenario.
pub(super) struct Scenario {
    /// As on the command line.
    pub(super) name: &'static str,
    /// What it asks, in a line.
    pub(super) question: &'static str,
    /// Runs it. In a process that runs nothing else.
    pub(super) run: fn(Config, Load) -> BoxFuture<'static, Result<Found, Failure>>,
}

/// A scenario whose findings are all there is to print.
fn made(
    run: impl Future<Output = Result<Findings, Failure>> + Send + 'static,
) -> BoxFuture<'static, Result<Found, Failure>> {
    Box::pin(async { run.await.map(Found::from) })
}

impl Scenario {
    /// Findings without any, for one that failed.
    pub(super) fn nothing(&self) -> Findings {
        Findings::of(self.name, self.question)
    }
}

/// What the command line's name stands for.
pub(super) fn chosen(name: &str) -> Result<Vec<&'static Scenario>, Failure> {
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| name == ALL || scenario.name == name).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        let names = names.join(", ");
        return Err(Failure::usage(anyhow::anyhow!("no scenario is called {name}; there are: {names}, and {ALL}")));
    }
    Ok(chosen)
}

/// The help of the argument that names one.
pub(super) fn help() -> String {
    let mut help = format!("Which one, or `{ALL}`, one after the other:");
    for Scenario { name, question, .. } in SCENARIOS {
        let _ = write!(help, "\n{name}: {question}");
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_for_its_scenario() {
        for scenario in SCENARIOS {
            let chosen = chosen(scenario.name).expect("known");
            assert!(chosen.len() == 1 && chosen[0].name == scenario.name && scenario.name != ALL);
            assert!(help().contains(scenario.question));
            assert_eq!(scenario.nothing().scenario, scenario.name);
        }
        assert_eq!(chosen(ALL).expect("known").len(), SCENARIOS.len());
    }

    #[test]
    fn unknown_name_is_answered_with_those_there_are() {
        let Err(failure) = chosen("sideways") else { panic!("it is known") };
        assert_eq!(failure.code(), 2);
        for name in SCENARIOS.iter().map(|scenario| scenario.name).chain(["sideways", ALL]) {
            assert!(failure.to_string().contains(name), "{name} in {failure}");
        }
    }
}
