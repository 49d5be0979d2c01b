//! One way to explore a model, for the tests of all machines.
//!
//! Invariant: a model in which nothing is found has all its properties. Deliberately absent: depth; what a
//! model leaves out is its own to bound.

use std::{fmt::Debug, hash::Hash};

use stateright::{Checker as _, Model};

/// Explores all states; returns their number, and how the first of `promises` that is broken came to be:
/// what `wrong` says of the last state, and the way there.
pub(crate) fn explore<M>(
    model: &M,
    promises: &[&'static str],
    wrong: impl Fn(&M::State) -> String,
) -> (usize, Option<String>)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let checker = model.clone().checker().threads(2).spawn_bfs().join();
    let found = promises.iter().find_map(|promise| checker.discovery(promise));
    let found = found.map(|path| format!("{}{:?}", wrong(path.last_state()), path.into_actions()));
    if found.is_none() {
        checker.assert_properties();
    }
    (checker.unique_state_count(), found)
}
