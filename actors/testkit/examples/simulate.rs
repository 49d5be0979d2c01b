//! Runs seeds of the simulator, for a night or for one look: `simulate --seeds N [--from S]`, or `simulate
//! --seed S --trace`; or shows what it takes to notice that a rule is left out: `simulate --mutants`.
//!
//! Prints progress, and the first seed that breaks a promise with the end of its trace. Deliberately absent:
//! making a trace smaller.

#![allow(clippy::print_stdout, reason = "it is a program for people")]

use std::{process::ExitCode, time::Instant};

use holdfast_testkit::simulator::{self, Setup};

const USAGE: &str =
    "usage: simulate --seeds N [--from S] | simulate --seed S [--trace] | simulate --mutants [--seeds N]";
/// Lines of the trace that are shown of a seed that fails.
const LAST_LINES: usize = 60;
/// Seeds within which each mutant is to be noticed, unless it is said otherwise.
const SEEDS_OF_A_MUTANT: u64 = 3_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.replace('_', "").parse::<u64>().ok()
    };
    match (value("--seed"), value("--seeds")) {
        (_, seeds) if has("--mutants") => mutants(seeds.unwrap_or(SEEDS_OF_A_MUTANT)),
        (Some(seed), _) => one(seed, has("--trace")),
        (None, Some(seeds)) => many(value("--from").unwrap_or(0), seeds),
        (None, None) => {
            println!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, is_traced: bool) -> ExitCode {
    let (outcome, trace) = simulator::run(seed, &Setup::default(), is_traced);
    for line in trace {
        println!("{line}");
    }
    let inputs = outcome.coverage.total();
    println!("seed {seed}: {inputs} inputs, digest {:016x}, {:?}", outcome.digest, outcome.violation);
    if outcome.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(from: u64, seeds: u64) -> ExitCode {
    let (started, mut inputs) = (Instant::now(), 0);
    let setup = Setup::default();
    for seed in from..from.saturating_add(seeds) {
        let (outcome, _) = simulator::run(seed, &setup, false);
        inputs += outcome.coverage.total();
        if let Some(violation) = outcome.violation {
            let (_, trace) = simulator::run(seed, &setup, true);
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

/// What is left out, and by which broken promise of which seed that is noticed.
fn mutants(seeds: u64) -> ExitCode {
    let mut survived = 0;
    println!("{:34} {:8} {:>6} {:>7}", "left out, or done wrong", "promise", "seed", "inputs");
    for (name, setup) in simulator::mutants() {
        if let Some(caught) = simulator::catch(0..seeds, &setup) {
            println!("{name:34} {:8} {:6} {:7}", caught.violation.invariant, caught.seed, caught.inputs);
        } else {
            survived += 1;
            println!("{name:34} not noticed in {seeds} seeds");
        }
    }
    for (rule, reason) in simulator::UNSEEN {
        println!("{rule:34} can't be noticed: {reason}");
    }
    if survived == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
