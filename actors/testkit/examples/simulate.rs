//! Runs seeds of the simulator, for a night or for one look: `simulate --seeds N [--from S]`, or `simulate
//! --seed S --trace`.
//!
//! Prints progress, and the first seed that breaks a promise with the end of its trace. Deliberately absent:
//! making a trace smaller.

#![allow(clippy::print_stdout, reason = "it is a program for people")]

use std::{process::ExitCode, time::Instant};

use holdfast_machine::Rules;
use holdfast_testkit::simulator;

const USAGE: &str = "usage: simulate --seeds N [--from S] | simulate --seed S [--trace]";
/// Lines of the trace that are shown of a seed that fails.
const LAST_LINES: usize = 60;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.replace('_', "").parse::<u64>().ok()
    };
    match (value("--seed"), value("--seeds")) {
        (Some(seed), _) => one(seed, arguments.iter().any(|argument| argument == "--trace")),
        (None, Some(seeds)) => many(value("--from").unwrap_or(0), seeds),
        (None, None) => {
            println!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, is_traced: bool) -> ExitCode {
    let (outcome, trace) = simulator::run(seed, Rules::SOUND, is_traced);
    for line in trace {
        println!("{line}");
    }
    println!("seed {seed}: {} inputs, digest {:016x}, {:?}", outcome.inputs, outcome.digest, outcome.violation);
    if outcome.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(from: u64, seeds: u64) -> ExitCode {
    let (started, mut inputs) = (Instant::now(), 0);
    for seed in from..from.saturating_add(seeds) {
        let (outcome, _) = simulator::run(seed, Rules::SOUND, false);
        inputs += outcome.inputs;
        if let Some(violation) = outcome.violation {
            let (_, trace) = simulator::run(seed, Rules::SOUND, true);
            for line in &trace[trace.len().saturating_sub(LAST_LINES)..] {
                println!("{line}");
            }
            println!("seed {seed} breaks {}: {}", violation.invariant, violation.detail);
            println!("the whole trace: simulate --seed {seed} --trace");
            return ExitCode::FAILURE;
        }
        if (seed + 1 - from).is_multiple_of(1_000) {
            let (done, seconds) = (seed + 1 - from, started.elapsed().as_secs().max(1));
            println!("{done} seeds, {inputs} inputs, {} seeds/s: every promise kept", done / seconds);
        }
    }
    ExitCode::SUCCESS
}
