use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use holdfast_machine::Rules;

use super::{Outcome, run};

/// Seeds in a test run.
const SEEDS: u64 = 10_000;
/// A rule left out has to show within so many.
const SEEDS_OF_A_RULE: u64 = 3_000;
const SEED: &str = "HOLDFAST_DIGEST_SEEDS";

/// Every input that a lane's machine knows.
const INPUTS: [&str; 22] = [
    "arrived",
    "turn",
    "found",
    "find failed",
    "asked",
    "decided",
    "supervisor died",
    "committed",
    "commit unavailable",
    "commit refused",
    "commit slow",
    "commit unknown",
    "commit conflict",
    "compared",
    "retokened",
    "retoken failed",
    "due",
    "own",
    "drop",
    "release",
    "counted",
    "acknowledged",
];

fn all_of(seeds: std::ops::Range<u64>, rules: Rules) -> impl Iterator<Item = (u64, Outcome)> {
    seeds.map(move |seed| (seed, run(seed, rules, false).0))
}

#[test]
fn seeds_keep_every_promise_and_reach_every_input() {
    let (mut inputs, mut seen, mut edges) = (0, BTreeMap::<&str, u64>::new(), BTreeSet::new());
    for (seed, outcome) in all_of(0..SEEDS, Rules::SOUND) {
        if let Some(violation) = outcome.violation {
            let (_, trace) = run(seed, Rules::SOUND, true);
            let last: Vec<String> = trace.iter().rev().take(40).rev().map(|line| format!("{line:.400}")).collect();
            panic!("seed {seed}: {violation:?}\n{}", last.join("\n"));
        }
        inputs += outcome.inputs;
        for (name, count) in outcome.seen {
            *seen.entry(name).or_default() += count;
        }
        edges.extend(outcome.edges);
    }
    println!("{SEEDS} seeds, {inputs} inputs: {seen:?}");
    let missed: Vec<&&str> =
        INPUTS.iter().filter(|name| **name != "commit conflict" && !seen.contains_key(**name)).collect();
    assert!(missed.is_empty(), "never handled: {missed:?}");
    let drawn = drawn();
    // What is void leaves from any state.
    let is_meant = |(_, to): &(String, String)| to != "[*]";
    let drawn: BTreeSet<_> = drawn.into_iter().filter(is_meant).collect();
    let seen: BTreeSet<(String, String)> =
        edges.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).filter(is_meant).collect();
    let (extra, lacking): (Vec<_>, Vec<_>) = (seen.difference(&drawn).collect(), drawn.difference(&seen).collect());
    assert!(extra.is_empty() && lacking.is_empty(), "not drawn: {extra:?}; never seen: {lacking:?}");
}

/// The changes of state in the diagram of `actors/README.md`. A message that is done, or void, leaves from any state.
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
        all_of(seeds, Rules::SOUND).map(|(_, outcome)| outcome.digest).collect()
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

/// How many seeds it takes to see that a rule is left out, each time by a broken promise on a seed that the sound rules keep.
#[test]
fn rule_left_out_breaks_a_promise() {
    let rules = [
        ("claims_count_within_batch", Rules { claims_count_within_batch: false, ..Rules::SOUND }),
        ("settles_unknown_commits", Rules { settles_unknown_commits: false, ..Rules::SOUND }),
        ("applies_mail_before_records", Rules { applies_mail_before_records: false, ..Rules::SOUND }),
    ];
    let mut survived = Vec::new();
    for (name, rules) in rules {
        match all_of(0..SEEDS_OF_A_RULE, rules).find(|(_, outcome)| outcome.violation.is_some()) {
            Some((seed, outcome)) => {
                println!("{name}: seed {seed}, {:?}", outcome.violation);
                let sound = run(seed, Rules::SOUND, false).0.violation;
                assert_eq!(sound, None, "seed {seed} is not clean");
            }
            None => survived.push(name),
        }
    }
    assert!(survived.is_empty(), "nobody noticed: {survived:?}");
}
