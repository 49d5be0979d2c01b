//! The promises over many seeds, that what is left out is noticed, and that runs reach what they are meant to
//! reach.
//!
//! Deliberately absent: more seeds than a test run has time for; `deploy/dev.sh simulate` has no end.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use holdfast_machine::Rules;

use super::{
    Coverage, Death, Fault, Setup, Survey, UNSEEN, catch_all,
    coverage::{INPUTS, STATES},
    mutants,
    mutants::{LEFT_OUT, catch},
    run, shrink, survey,
};

/// Seeds in a test run.
const SEEDS: u64 = 10_000;
/// A rule left out, or a step of the shell done wrong, has to show within this many.
const SEEDS_OF_A_MUTANT: u64 = 20_000;
const SEED: &str = "HOLDFAST_DIGEST_SEEDS";

/// For each kind of input the states in which a message is to meet it. No commit is in flight while actors
/// decide, and nothing is decided or committed while the store is asked what is due; an answer that comes
/// twice may do so at any time.
const PAIRS: [(&str, &[&str]); 21] = [
    ("arrived", &STATES),
    ("turn", &STATES),
    ("found", &STATES),
    ("find failed", &STATES),
    ("asked", &STATES),
    ("decided", &STATES),
    ("supervisor died", &["Ready", "Asking", "Deciding", "Committing", "Late", "Held"]),
    ("committed", &STATES),
    ("commit unavailable", &["Ready", "LookingUp", "Asking", "Committing", "Late", "Held"]),
    ("commit refused", &["Ready", "LookingUp", "Asking", "Committing", "Late", "Held"]),
    ("commit slow", &["Ready", "LookingUp", "Asking", "Committing", "Late", "Held"]),
    ("commit unknown", &["Ready", "LookingUp", "Asking", "Committing", "Late", "Held"]),
    ("compared", &["Ready", "LookingUp", "Asking", "Committing", "Late", "Held"]),
    ("retokened", &["Ready", "LookingUp", "Asking", "Committing", "Late", "Held"]),
    ("retoken failed", &["Ready", "LookingUp", "Asking", "Committing", "Late", "Held"]),
    ("due", &["Ready", "LookingUp", "Asking", "Late", "Held"]),
    ("own", &STATES),
    ("drop", &STATES),
    ("release", &STATES),
    ("counted", &STATES),
    ("acknowledged", &STATES),
];

/// The phases of a taker, each of which is to meet every kind of input.
const PHASES: [&str; 12] = [
    "Looking",
    "Raising",
    "Waiting",
    "Beating",
    "Reading",
    "Verifying",
    "Counting",
    "Acknowledging",
    "Serving",
    "HandingOver",
    "Releasing",
    "Doubted",
];

/// For each state of a gate the kinds of input that it is to meet.
const GATES: [(&str, &[&str]); 5] = [
    ("Passed", &["Counted", "Read", "Measured"]),
    ("Counting", &["Counted"]),
    ("Measuring", &["Counted", "Measured", "Tick"]),
    ("Waiting", &["Counted", "Measured"]),
    ("Serving", &["Counted", "Measured"]),
];

/// How often a message is to meet an input in each state of [`PAIRS`].
const TIMES: u64 = 5;

#[test]
fn seeds_keep_every_promise_and_reach_every_input() {
    let Survey { violation, coverage, faults, reads } = survey(0..SEEDS, &Setup::default());
    if let Some((seed, violation)) = violation {
        let shorter = shrink(seed, &Setup::default()).expect("it breaks a promise");
        let (_, trace) = run(seed, &shorter, true);
        let last: Vec<String> = trace.iter().rev().take(80).rev().map(|line| format!("{line:.400}")).collect();
        panic!("seed {seed}: {violation:?}\n{}", last.join("\n"));
    }
    println!("{SEEDS} seeds, {} inputs, {reads} reads: {:?}", coverage.total(), coverage.inputs());
    println!("faults: {faults:?}");
    let seen = coverage.inputs();
    let missed: Vec<&str> = INPUTS.into_iter().filter(|name| *name != "commit conflict" && seen[name] == 0).collect();
    assert!(missed.is_empty(), "never handled: {missed:?}");
    let missed: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| !faults.contains_key(fault)).collect();
    assert!(missed.is_empty(), "never injected: {missed:?}");
    assert!(reads > SEEDS, "hardly a read was answered: {reads}");
    check_edges(&coverage);
    check_pairs(&coverage);
    check_deaths(&coverage);
}

/// Messages, takers and gates in every state have met what they are meant to meet.
fn check_pairs(coverage: &Coverage) {
    let seen = coverage.pairs();
    let meant = PAIRS.iter().flat_map(|(input, states)| states.iter().map(move |state| (*state, *input)));
    let meant: BTreeSet<(&str, &str)> = meant.collect();
    let beside: Vec<_> = seen.iter().filter(|(pair, _)| !meant.contains(*pair)).collect();
    println!(
        "{} pairs of a message's state and an input, {} of them meant; beside these: {beside:?}",
        seen.len(),
        meant.len()
    );
    let missed: Vec<_> = meant.iter().filter(|pair| seen.get(*pair).is_none_or(|times| *times < TIMES)).collect();
    assert!(missed.is_empty(), "met fewer than {TIMES} times: {missed:?}");
    let inputs: BTreeSet<&str> = coverage.takers.keys().map(|(_, input)| *input).collect();
    let known = variants("ownership/interface.rs", "Input");
    assert!(inputs.iter().copied().eq(known.iter().map(String::as_str)), "takers know {known:?}, and met {inputs:?}");
    let meant = PHASES.iter().flat_map(|phase| inputs.iter().map(move |input| (*phase, *input)));
    let missed: Vec<_> = meant.filter(|pair| !coverage.takers.contains_key(pair)).collect();
    assert!(missed.is_empty(), "takers never met: {missed:?}");
    let meant = GATES.iter().flat_map(|(state, inputs)| inputs.iter().map(move |input| (*state, *input)));
    let missed: Vec<_> = meant.filter(|pair| !coverage.gates.contains_key(pair)).collect();
    assert!(missed.is_empty(), "gates never met: {missed:?}");
}

/// Nodes have died before and after everything that machines say is to be done.
fn check_deaths(coverage: &Coverage) {
    for (of, file) in [("lane", "lane/interface.rs"), ("takers", "ownership/interface.rs"), ("gate", "gate.rs")] {
        for action in variants(file, "Action") {
            let seen = |death| coverage.deaths.contains(&(of, action.clone(), death));
            // A node leaves once, and nothing follows.
            let is_seen = action == "Leave" || seen(Death::Before) && seen(Death::After);
            assert!(is_seen, "no node has died before {action} of its {of}, and another after it");
        }
    }
}

/// The variants of an enum in a source file of the machines.
fn variants(file: &str, name: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../machine/src").join(file);
    let source = fs::read_to_string(path).expect("a source file");
    let begin = format!("pub enum {name} {{\n");
    let (_, from) = source.split_once(&begin).expect("the enum");
    let (body, _) = from.split_once("\n}\n").expect("its end");
    let variant = |line: &str| {
        let name = line.strip_prefix("    ")?.split(|letter: char| !letter.is_alphanumeric()).next()?;
        name.starts_with(char::is_uppercase).then(|| name.to_owned())
    };
    body.lines().filter_map(variant).collect()
}

/// The changes of state are those of the diagram, and all of them.
fn check_edges(coverage: &Coverage) {
    // What is void leaves from any state.
    let is_meant = |(_, to): &(String, String)| to != "[*]";
    let drawn: BTreeSet<_> = drawn().into_iter().filter(is_meant).collect();
    let seen: BTreeSet<(String, String)> =
        coverage.edges.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).filter(is_meant).collect();
    let (extra, lacking): (Vec<_>, Vec<_>) = (seen.difference(&drawn).collect(), drawn.difference(&seen).collect());
    assert!(extra.is_empty() && lacking.is_empty(), "not drawn: {extra:?}; never seen: {lacking:?}");
}

/// The changes of state in the diagram of `actors/README.md`. A message that is done, or void, leaves from
/// any state.
fn drawn() -> BTreeSet<(String, String)> {
    let readme = include_str!("../../../README.md");
    let from = readme.find("[*] --> Ready: arrived").expect("the diagram of a message's states");
    let diagram = &readme[from..from + readme[from..].find("```").expect("its end")];
    let edge = |line: &str| {
        let (from, rest) = line.trim().split_once(" --> ")?;
        let to = rest.split(':').next()?;
        Some((from.to_owned(), to.to_owned()))
    };
    diagram.lines().filter_map(edge).collect()
}

#[test]
fn same_seed_gives_same_trace() {
    let digests = |seeds: std::ops::Range<u64>| -> Vec<u64> {
        seeds.map(|seed| run(seed, &Setup::default(), false).0.digest).collect()
    };
    let here = digests(0..50);
    if std::env::var_os(SEED).is_some() {
        println!("digests: {here:?}");
        return;
    }
    assert_eq!(here, digests(0..50));
    let program = std::env::current_exe().expect("this test's program");
    let name = "simulator::tests::same_seed_gives_same_trace";
    let output =
        Command::new(program).args([name, "--exact", "--nocapture"]).env(SEED, "50").output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains(&format!("digests: {here:?}")), "another process has another trace: {printed}");
    assert!(here.iter().collect::<BTreeSet<_>>().len() > 40, "different seeds differ");
}

/// A trace that is kept is the one that the digest stands for.
#[test]
fn digest_is_the_same_with_a_trace() {
    for seed in 0..10 {
        let traced = run(seed, &Setup::default(), true);
        assert_eq!(run(seed, &Setup::default(), false).0.digest, traced.0.digest);
        assert!(!traced.1.is_empty(), "it has lines");
    }
}

/// Each rule that is left out, and each step of the shell that is done wrong, breaks a promise on a seed that
/// is clean without.
#[test]
fn what_is_left_out_breaks_a_promise() {
    let mut survived = Vec::new();
    for (name, caught) in catch_all(&(0..SEEDS_OF_A_MUTANT)) {
        match caught {
            Some(caught) => println!("{name}: seed {}, {} inputs, {:?}", caught.seed, caught.inputs, caught.violation),
            None => survived.push(name),
        }
    }
    assert!(survived.is_empty(), "not noticed within {SEEDS_OF_A_MUTANT} seeds: {survived:?}");
}

/// A run that was made shorter breaks the same promise, and is the same each time.
#[test]
fn shorter_run_breaks_the_same_promise() {
    let rules = ["settles_unknown_commits", "reads_wait_for_commits", "claims_count_within_batch"];
    for (name, setup) in mutants::mutants().filter(|(name, _)| rules.contains(&name.as_str())) {
        let caught = catch(0..SEEDS_OF_A_MUTANT, &setup).expect("it is noticed");
        let shorter = shrink(caught.seed, &setup).expect("it breaks a promise");
        let (outcome, trace) = run(caught.seed, &shorter, true);
        assert_eq!(outcome.violation.map(|violation| violation.invariant), Some(caught.violation.invariant));
        assert_eq!(run(caught.seed, &shorter, true).1, trace);
        let inputs = outcome.coverage.total();
        assert!(inputs < caught.inputs / 2, "{name}: {inputs} of {} inputs", caught.inputs);
    }
}

/// Every rule is left out by a run, or is on the list of those whose absence none notices.
#[test]
fn every_rule_is_listed() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../machine/src/rules.rs");
    let rules = fs::read_to_string(rules).expect("the rules");
    let field = |line: &str| Some(line.trim().strip_prefix("pub ")?.strip_suffix(": bool,")?.to_owned());
    let all: BTreeSet<String> = rules.lines().filter_map(field).collect();
    assert!(all.len() > 20, "these are all rules: {all:?}");
    let listed = LEFT_OUT.iter().map(|left_out| left_out.rule).chain(UNSEEN.iter().map(|(rule, _)| *rule));
    assert_eq!(listed.map(str::to_owned).collect::<BTreeSet<_>>(), all);
    assert!(LEFT_OUT.iter().all(|left_out| left_out.rules != Rules::SOUND), "each leaves its rule out");
}
