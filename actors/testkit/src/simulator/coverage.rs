//! What runs have reached: inputs by kind, changes of state, and which kind of input met a message in which
//! state.
//!
//! Deliberately absent: what they should have reached, which the tests write down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use holdfast_core::{PartitionId, port::store::CommitError};
use holdfast_machine::{
    gate::Input as Gate,
    lane::{Input, Number},
    ownership::Input as Takers,
};

/// The states of a message, as in the diagram of `actors/README.md`.
pub(super) const STATES: [&str; 7] = ["Ready", "LookingUp", "Asking", "Deciding", "Committing", "Late", "Held"];

/// The kinds of input that a lane's machine knows; a commit by how it ended.
pub(super) const INPUTS: [&str; 22] = [
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

/// The place of an input's kind in [`INPUTS`].
const fn kind(input: &Input) -> usize {
    match input {
        Input::Arrived(_) => 0,
        Input::Turn => 1,
        Input::Found { found: Ok(_), .. } => 2,
        Input::Found { .. } => 3,
        Input::Asked { .. } => 4,
        Input::Decided(_) => 5,
        Input::SupervisorDied { .. } => 6,
        Input::Committed { result: Ok(_), .. } => 7,
        Input::Committed { result: Err(error), .. } => match error {
            CommitError::Unavailable(_) => 8,
            CommitError::Data { .. } => 9,
            CommitError::Slow(_) => 10,
            CommitError::Unknown(_) => 11,
            CommitError::Conflict => 12,
        },
        Input::Compared { .. } => 13,
        Input::Retokened { rows: Some(_), .. } => 14,
        Input::Retokened { .. } => 15,
        Input::Due { .. } => 16,
        Input::Own(_) => 17,
        Input::Drop { .. } => 18,
        Input::Release { .. } => 19,
        Input::Counted(_) => 20,
        Input::Acknowledged { .. } => 21,
    }
}

/// When a node dies, of something that it is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Death {
    /// Before it.
    Before,
    /// After it.
    After,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// How often each kind of input was handled, by its place in [`INPUTS`].
    inputs: [u64; INPUTS.len()],
    /// Inputs of takers and gates.
    others: u64,
    /// How many inputs of each kind met a message in each state.
    pairs: [[u64; STATES.len()]; INPUTS.len()],
    /// The changes of state that messages went through, by name.
    pub edges: BTreeSet<(&'static str, &'static str)>,
    /// How many inputs of a kind met a taker in a phase.
    pub takers: BTreeMap<(&'static str, &'static str), u64>,
    /// How many inputs of a kind met a gate in a state.
    pub gates: BTreeMap<(&'static str, &'static str), u64>,
    /// Which machine's actions a node has died before, and after.
    pub deaths: BTreeSet<(&'static str, String, Death)>,
}

/// Messages in order of their numbers, and the state of each.
pub(super) type States = Vec<(Number, &'static str)>;

impl Coverage {
    /// Notes an input that is about to be handled; returns its kind.
    pub(super) fn met(&mut self, input: &Input, before: &States) {
        let kind = kind(input);
        self.inputs[kind] += 1;
        let mut is_met = [false; STATES.len()];
        for (_, state) in before {
            is_met[place(state)] = true;
        }
        for (count, is_met) in self.pairs[kind].iter_mut().zip(is_met) {
            *count += u64::from(is_met);
        }
    }

    /// Notes the changes of state that an input has led to.
    pub(super) fn changed(&mut self, before: &States, after: &States) {
        let (mut left, mut right) = (before.iter().peekable(), after.iter().peekable());
        loop {
            let edge = match (left.peek(), right.peek()) {
                (Some((number, from)), Some((other, to))) if number == other => {
                    let edge = (*from, *to);
                    left.next();
                    right.next();
                    edge
                }
                (one, Some((other, to))) if one.is_none_or(|(number, _)| other < number) => {
                    right.next();
                    ("[*]", *to)
                }
                (Some((_, from)), _) => {
                    left.next();
                    (*from, "[*]")
                }
                (None, _) => return,
            };
            if edge.0 != edge.1 {
                self.edges.insert(edge);
            }
        }
    }

    /// Notes what takers in these phases are about to handle.
    pub(super) fn met_takers(&mut self, phases: impl Iterator<Item = (PartitionId, &'static str)>, input: &Takers) {
        let kind = kind_of_takers(input);
        self.others += 1;
        for (_, phase) in phases {
            *self.takers.entry((phase, kind)).or_default() += 1;
        }
    }

    /// Notes what a gate in this state is about to handle.
    pub(super) fn met_gate(&mut self, state: &'static str, input: &Gate) {
        let kind = match input {
            Gate::Read(_) => "Read",
            Gate::Counted { .. } => "Counted",
            Gate::Measured { .. } => "Measured",
            Gate::Tick => "Tick",
        };
        self.others += 1;
        *self.gates.entry((state, kind)).or_default() += 1;
    }

    /// Notes that a node has died before or after something that it was to do.
    pub(super) fn died(&mut self, death: Death, of: &'static str, action: &impl Debug) {
        let text = format!("{action:?}");
        let name: String = text.chars().take_while(|letter| letter.is_alphanumeric()).collect();
        self.deaths.insert((of, name, death));
    }

    /// Adds what another run has reached.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.inputs.iter_mut().zip(other.inputs) {
            *count += more;
        }
        for (count, more) in self.pairs.iter_mut().flatten().zip(other.pairs.iter().flatten()) {
            *count += more;
        }
        self.edges.extend(&other.edges);
        self.others += other.others;
        for (pair, more) in &other.takers {
            *self.takers.entry(*pair).or_default() += more;
        }
        for (pair, more) in &other.gates {
            *self.gates.entry(*pair).or_default() += more;
        }
        self.deaths.extend(other.deaths.iter().cloned());
    }

    /// All inputs.
    pub fn total(&self) -> u64 {
        self.inputs.iter().sum::<u64>() + self.others
    }

    /// How often each kind of input was handled.
    pub fn inputs(&self) -> BTreeMap<&'static str, u64> {
        INPUTS.into_iter().zip(self.inputs).collect()
    }

    /// For each kind of input, and each state in which a message met it, how many inputs did.
    pub fn pairs(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let row = |(input, counts): (&'static str, [u64; STATES.len()])| {
            STATES.into_iter().zip(counts).map(move |(state, count)| ((state, input), count))
        };
        INPUTS.into_iter().zip(self.pairs).flat_map(row).filter(|(_, count)| *count > 0).collect()
    }
}

const fn kind_of_takers(input: &Takers) -> &'static str {
    match input {
        Takers::Assigned(_) => "Assigned",
        Takers::Counted(_) => "Counted",
        Takers::RowsRead { .. } => "RowsRead",
        Takers::Raised { .. } => "Raised",
        Takers::Beaten { .. } => "Beaten",
        Takers::Verified { .. } => "Verified",
        Takers::Acknowledged { .. } => "Acknowledged",
        Takers::Looked { .. } => "Looked",
        Takers::Confirmed { .. } => "Confirmed",
        Takers::HandedOver { .. } => "HandedOver",
        Takers::Released { .. } => "Released",
        Takers::Lost { .. } => "Lost",
        Takers::Tick => "Tick",
        Takers::Stop => "Stop",
    }
}

/// The place of a state in [`STATES`].
fn place(state: &str) -> usize {
    STATES.iter().position(|name| *name == state).expect("a state of the diagram")
}
