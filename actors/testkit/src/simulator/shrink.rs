//! A shorter run that breaks the same promise.
//!
//! Each step throws dice of its own, so a step that is left out leaves the others as they were, as far as
//! that can be. Steps are left out in ever smaller pieces (Zeller and Hildebrandt 2002, "Simplifying and
//! isolating failure-inducing input"), and faults by their kind. Invariant: what is returned was run, and
//! breaks the promise that it is said to. Deliberately absent: the shortest of all.

use super::{Fault, Outcome, Setup, run};

/// Leaves out what `seed` does not need to break the promise that it breaks with `setup`. `None` if it breaks
/// none.
pub fn shrink(seed: u64, setup: &Setup) -> Option<Setup> {
    let (first, _) = run(seed, setup, false);
    let invariant = first.violation.as_ref()?.invariant;
    let mut shorter = Shorter { seed, invariant, setup: setup.clone(), outcome: first };
    loop {
        let before = shorter.size();
        shorter.end_early();
        shorter.leave_faults_out();
        shorter.leave_steps_out();
        if shorter.size() == before {
            return Some(shorter.setup);
        }
    }
}

/// The shortest run so far.
struct Shorter {
    seed: u64,
    invariant: &'static str,
    setup: Setup,
    outcome: Outcome,
}

impl Shorter {
    /// What is to become less.
    fn size(&self) -> (u64, usize) {
        (self.outcome.coverage.total(), self.steps().len())
    }

    /// The steps that are taken before faults end.
    fn steps(&self) -> Vec<u32> {
        (0..self.setup.steps).filter(|step| !self.setup.skipped.contains(step)).collect()
    }

    /// Goes on with `setup` if it breaks the same promise, and no later.
    fn accepts(&mut self, setup: Setup) -> bool {
        let (outcome, _) = run(self.seed, &setup, false);
        let is_same = outcome.violation.as_ref().is_some_and(|violation| violation.invariant == self.invariant);
        let is_accepted = is_same && outcome.coverage.total() <= self.outcome.coverage.total();
        if is_accepted {
            (self.setup, self.outcome) = (setup, outcome);
        }
        is_accepted
    }

    /// Nothing comes after the promise is broken.
    fn end_early(&mut self) {
        let steps = self.setup.steps.min(self.outcome.steps);
        self.accepts(Setup { steps, ..self.setup.clone() });
    }

    fn leave_faults_out(&mut self) {
        for fault in Fault::ALL {
            let mut setup = self.setup.clone();
            if self.outcome.faults.contains_key(&fault) && setup.without.insert(fault) {
                self.accepts(setup);
            }
        }
    }

    fn leave_steps_out(&mut self) {
        let mut piece = self.steps().len().div_ceil(2);
        while piece > 0 {
            let mut from = 0;
            loop {
                let steps = self.steps();
                let Some(some) = steps.get(from..steps.len().min(from + piece)).filter(|some| !some.is_empty()) else {
                    break;
                };
                let mut setup = self.setup.clone();
                setup.skipped.extend(some);
                if !self.accepts(setup) {
                    from += piece;
                }
            }
            piece /= 2;
        }
    }
}
