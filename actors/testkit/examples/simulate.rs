//! Runs seeds of the simulator, for a night or for one look: `simulate --seeds N [--from S]`, or `simulate
//! --seed S`; or shows what it takes to notice that a rule is left out: `simulate --mutants`.
//!
//! Prints progress, and the first seed that breaks a promise, with the trace of a shorter run that breaks the
//! same one. Deliberately absent: the shortest such run.

#![allow(clippy::print_stdout, reason = "it is a program for people")]

use std::{process::ExitCode, time::Instant};

use holdfast_testkit::simulator::{self, Fault, Setup};

const USAGE: &str = "usage: simulate --seeds N [--from S]                          run seeds until one breaks a promise
       simulate --seed S [--trace] [--shrink] [--mutant NAME]  run one; --shrink shortens it if it breaks a promise
       simulate --mutants [--seeds N]                          show what notices that NAME is left out or done wrong";
/// Seeds between two lines of progress.
const SEEDS_AT_ONCE: usize = 1_000;
/// Lines of the trace that are shown of a seed that fails.
const LAST_LINES: usize = 120;
/// Columns of such a line.
const COLUMNS: usize = 400;
/// Seeds within which each mutant is to be noticed, unless it is said otherwise.
const SEEDS_OF_A_MUTANT: u64 = 3_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let text = |name: &str| arguments.get(arguments.iter().position(|argument| argument == name)? + 1);
    let value = |name: &str| text(name)?.replace('_', "").parse::<u64>().ok();
    let setup = match text("--mutant") {
        Some(mutant) => simulator::mutants().find(|(name, _)| name == mutant).map(|(_, setup)| setup),
        None => Some(Setup::default()),
    };
    match (value("--seed"), value("--seeds"), setup) {
        (_, seeds, _) if has("--mutants") => mutants(seeds.unwrap_or(SEEDS_OF_A_MUTANT)),
        (Some(seed), _, Some(setup)) => one(seed, &setup, has("--trace"), has("--shrink")),
        (None, Some(seeds), Some(setup)) => many(value("--from").unwrap_or(0), seeds, &setup),
        _ => {
            println!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, setup: &Setup, is_traced: bool, is_shrunk: bool) -> ExitCode {
    let (outcome, trace) = simulator::run(seed, setup, is_traced);
    for line in trace {
        println!("{line}");
    }
    let inputs = outcome.coverage.total();
    println!("seed {seed}: {inputs} inputs, digest {:016x}, {:?}", outcome.digest, outcome.violation);
    if is_shrunk {
        show_shorter(seed, setup);
    }
    if outcome.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(from: u64, seeds: u64, setup: &Setup) -> ExitCode {
    let (started, mut inputs, end) = (Instant::now(), 0, from.saturating_add(seeds));
    for begin in (from..end).step_by(SEEDS_AT_ONCE) {
        let next = end.min(begin + SEEDS_AT_ONCE as u64);
        let survey = simulator::survey(begin..next, setup);
        inputs += survey.coverage.total();
        if let Some((seed, violation)) = survey.violation {
            show_shorter(seed, setup);
            println!("seed {seed} breaks {}: {}", violation.invariant, violation.detail);
            println!("the whole trace: simulate --seed {seed} --trace");
            return ExitCode::FAILURE;
        }
        let (done, seconds) = (next - from, started.elapsed().as_secs().max(1));
        println!("{done} seeds, {inputs} inputs, {} seeds/s: every promise kept", done / seconds);
    }
    ExitCode::SUCCESS
}

/// The end of a shorter run that breaks the same promise.
fn show_shorter(seed: u64, setup: &Setup) {
    let Some(shorter) = simulator::shrink(seed, setup) else { return };
    let (outcome, trace) = simulator::run(seed, &shorter, true);
    for line in &trace[trace.len().saturating_sub(LAST_LINES)..] {
        println!("{line:.COLUMNS$}");
    }
    let needed: Vec<Fault> = outcome.faults.into_keys().collect();
    let steps = shorter.steps as usize - shorter.skipped.range(..shorter.steps).count();
    println!("shorter: {steps} steps before faults end, {} inputs, faults: {needed:?}", outcome.coverage.total());
}

/// What is left out, and by which broken promise of which seed that is noticed.
fn mutants(seeds: u64) -> ExitCode {
    let mut survived = 0;
    println!("{:34} {:8} {:>6} {:>7}", "left out, or done wrong", "promise", "seed", "inputs");
    for (name, caught) in simulator::catch_all(&(0..seeds)) {
        if let Some(caught) = caught {
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
