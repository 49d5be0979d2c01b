//! The rules and the steps of the shell that are left out, one at a time, to see that a run notices (I9).
//!
//! Invariant: a seed counts only if it keeps every promise when nothing is left out. Deliberately absent: the
//! two rules of the relay about rows that a broker refuses, which the runtime's own tests leave out.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use holdfast_machine::Rules;

use super::{Sabotage, Setup, Violation, on_all_cores, run};

/// One rule that is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftOut {
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

/// Rules whose absence a run notices.
pub(super) const LEFT_OUT: [LeftOut; 25] = without![
    raises_before_waiting,
    lease_counts_from_sending,
    beats_before_looking,
    beats_before_beginning,
    asks_for_last_beat,
    gives_up_silently,
    acknowledges_when_begun,
    ends_lease_before_releasing,
    checks_lease,
    drops_actors_when_fenced,
    settles_unknown_commits,
    reads_wait_for_commits,
    forgets_actors_of_unknown_commits,
    claims_count_within_batch,
    knows_what_commits_push_out,
    looks_for_claims_of_actors,
    waits_for_ancestors,
    measures_ends_after_fetch,
    waits_for_all_ancestors,
    transition_ends_when_consumed,
    reads_mail_after_wait,
    applies_mail_before_records,
    waits_for_acknowledgement,
    waits_for_all_earlier_homes,
    passivates_before_acknowledging,
];

/// Rules whose absence no run notices, each with the reason.
pub const UNSEEN: [(&str, &str); 2] = [
    ("stores_stuck_before_cursor", "no broker refuses a row here: the runtime's core_loop leaves it out"),
    ("reads_stuck_before_sending", "no broker refuses a row here: the runtime's core_loop leaves it out"),
];

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
pub(super) fn catch(seeds: Range<u64>, setup: &Setup) -> Option<Caught> {
    seeds.into_iter().find_map(|seed| {
        let (outcome, _) = run(seed, setup, false);
        let violation = outcome.violation?;
        let sound = Setup { rules: Rules::SOUND, sabotage: None, ..setup.clone() };
        let is_clean = run(seed, &sound, false).0.violation.is_none();
        is_clean.then(|| Caught { seed, violation, inputs: outcome.coverage.total() })
    })
}

/// For each thing that can be left out or done wrong, how that was noticed; on all cores.
pub fn catch_all(seeds: &Range<u64>) -> Vec<(String, Option<Caught>)> {
    let mutants: Vec<(String, Setup)> = mutants().collect();
    let (next, caught) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    on_all_cores(|| {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, setup)) = mutants.get(at) else { return };
            let by = catch(seeds.clone(), setup);
            caught.lock().unwrap_or_else(PoisonError::into_inner).insert(at, by);
        }
    });
    let caught = caught.into_inner().unwrap_or_else(PoisonError::into_inner);
    mutants.into_iter().zip(caught).map(|((name, _), (_, by))| (name, by)).collect()
}

/// Everything that can be left out or done wrong, by name.
pub fn mutants() -> impl Iterator<Item = (String, Setup)> {
    let of_rule = |left_out: LeftOut| (left_out.rule.to_owned(), Setup { rules: left_out.rules, ..Setup::default() });
    let of_shell =
        |sabotage: Sabotage| (format!("shell: {sabotage:?}"), Setup { sabotage: Some(sabotage), ..Setup::default() });
    LEFT_OUT.into_iter().map(of_rule).chain(Sabotage::ALL.into_iter().map(of_shell))
}
