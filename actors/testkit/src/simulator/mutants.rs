//! The rules and the steps of the shell that are left out, one at a time, to see that a run notices (I9).
//!
//! Invariant: a seed counts only if it keeps every promise when nothing is left out. Deliberately absent:
//! rules that neither a lane nor its shell obeys, which the models of ownership and gates leave out.

use std::ops::Range;

use holdfast_machine::Rules;

use super::{Sabotage, Setup, Violation, run};

/// One rule that is left out.
#[derive(Clone, Copy, Debug)]
pub struct LeftOut {
    /// The rule's name.
    pub rule: &'static str,
    /// All rules but this one.
    pub rules: Rules,
}

/// Names a rule and leaves it out.
macro_rules! without {
    ($($rule:ident),* $(,)?) => {
        [$(LeftOut { rule: stringify!($rule), rules: Rules { $rule: false, ..Rules::SOUND } }),*]
    };
}

/// Rules that a lane obeys, and that a run notices the absence of.
pub const LANE_RULES: [LeftOut; 8] = without![
    claims_count_within_batch,
    settles_unknown_commits,
    applies_mail_before_records,
    reads_mail_after_wait,
    waits_for_acknowledgement,
    waits_for_all_earlier_homes,
    passivates_before_acknowledging,
    drops_actors_when_fenced,
];

/// Rules that the shell of a lane obeys, here the simulated node.
pub const SHELL_RULES: [LeftOut; 2] = without![reads_wait_for_commits, checks_lease];

/// Rules that a lane obeys and no run notices the absence of, each with the reason.
pub const UNSEEN: [(&str, &str); 0] = [];

/// How it was noticed that something is left out or done wrong.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The seed.
    pub seed: u64,
    /// The broken promise.
    pub violation: Violation,
    /// Inputs that machines handled in that run until then.
    pub inputs: u64,
}

/// The first of `seeds` that breaks a promise with `setup`, and none without.
pub fn catch(seeds: Range<u64>, setup: &Setup) -> Option<Caught> {
    seeds.into_iter().find_map(|seed| {
        let (outcome, _) = run(seed, setup, false);
        let violation = outcome.violation?;
        let sound = Setup { rules: Rules::SOUND, sabotage: None, ..setup.clone() };
        let is_clean = run(seed, &sound, false).0.violation.is_none();
        is_clean.then(|| Caught { seed, violation, inputs: outcome.coverage.total() })
    })
}

/// Everything that can be left out or done wrong, by name.
pub fn mutants() -> impl Iterator<Item = (String, Setup)> {
    let of_rule = |left_out: LeftOut| (left_out.rule.to_owned(), Setup { rules: left_out.rules, ..Setup::default() });
    let of_shell =
        |sabotage: Sabotage| (format!("shell: {sabotage:?}"), Setup { sabotage: Some(sabotage), ..Setup::default() });
    let rules = LANE_RULES.into_iter().chain(SHELL_RULES).map(of_rule);
    rules.chain(Sabotage::ALL.into_iter().map(of_shell))
}
