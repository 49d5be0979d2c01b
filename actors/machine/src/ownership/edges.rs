//! The changes of phase that tests have seen, for the comparison with the state diagram.
//!
//! Deliberately absent: a use outside of tests.

use std::{collections::BTreeSet, sync::Mutex};

/// From one phase to another.
pub(super) type Edge = (&'static str, &'static str);

static SEEN: Mutex<BTreeSet<Edge>> = Mutex::new(BTreeSet::new());

pub(super) fn note(from: &'static str, to: &'static str) {
    if from != to {
        SEEN.lock().expect("nobody panics with it").insert((from, to));
    }
}

/// Those seen in this process so far.
pub(super) fn seen() -> BTreeSet<Edge> {
    SEEN.lock().expect("nobody panics with it").clone()
}
