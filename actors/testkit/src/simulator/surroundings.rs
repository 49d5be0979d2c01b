//! What the nodes of a simulation have in common: the time, the dice, the store, the log, the group, and what
//! is asked of them.
//!
//! Deliberately absent: nodes.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    mem::discriminant,
    time::Duration,
};

use holdfast_core::PartitionId;

use super::{
    Coverage, Fault, Setup, Violation,
    coverage::Death,
    faults::Faults,
    group::Group,
    journal::Journal,
    log::{Input, Log},
    question::{Asked, Question},
    store::Store,
};
use crate::Dice;

/// A node dies of the first thing of a kind once in this many runs, of the second once in twice as many, and
/// so on, and of any once in [`DEADLY_AT_LEAST_ONCE_IN`].
const DEADLY_ONCE_IN: u64 = 100;
const DEADLY_AT_LEAST_ONCE_IN: u64 = 2_000;

#[derive(Debug)]
pub(super) struct Surroundings {
    pub now: Duration,
    pub dice: Dice,
    pub store: Store,
    pub log: Log,
    pub group: Group,
    pub asked: Vec<Asked>,
    pub faults: Faults,
    pub coverage: Coverage,
    pub journal: Journal,
    /// How often the machines have said each kind of thing that is to be done.
    said: BTreeMap<(&'static str, u64), u64>,
    /// Strong reads that were answered with a state.
    pub reads: u64,
    /// The first broken promise.
    pub violation: Option<Violation>,
}

impl Surroundings {
    pub fn new(dice: Dice, setup: &Setup, count: u32, journal: Journal) -> Self {
        Self {
            now: Duration::from_secs(1),
            dice,
            store: Store::new(count),
            log: Log::new(count),
            group: Group::default(),
            asked: Vec::new(),
            faults: Faults { are_on: true, without: setup.without.clone(), seen: BTreeMap::new() },
            coverage: Coverage::default(),
            journal,
            said: BTreeMap::new(),
            reads: 0,
            violation: None,
        }
    }

    pub fn fail(&mut self, invariant: &'static str, detail: String) {
        self.journal.note(format_args!("violated {invariant}: {detail}"));
        self.violation.get_or_insert(Violation { invariant, detail });
    }

    pub fn fail_all(&mut self, violations: Vec<(&'static str, String)>) {
        for (invariant, detail) in violations {
            self.fail(invariant, detail);
        }
    }

    /// Whether the store is away.
    pub fn is_away(&self) -> bool {
        self.faults.are_on && self.now < self.store.away_until
    }

    /// Whether a partition can't be read for now.
    pub fn is_unread(&self, input: Input) -> bool {
        self.faults.are_on && self.log.unread_until.get(&input).is_some_and(|until| self.now < *until)
    }

    /// Whether a question fails, for this reason or because the store is away.
    pub fn fails(&mut self, fault: Fault) -> bool {
        let is_ill = self.dice.one_in(20);
        self.faults.inject(fault, is_ill) || self.is_away()
    }

    pub fn ask(&mut self, node: usize, question: Question) {
        self.asked.push(Asked { node, question, answer: None, hangs_until: Duration::ZERO });
    }

    /// Whether a node dies before something that a machine, one `of` these, says is to be done, or after it.
    /// What is to be done for the first time is likelier to be its last, or what is rare would end no node.
    pub fn death<A: Debug>(&mut self, node: usize, of: &'static str, action: &A) -> Option<Death> {
        let mut kind = DefaultHasher::new();
        discriminant(action).hash(&mut kind);
        let times = self.said.entry((of, kind.finish())).or_insert(0);
        *times += 1;
        let rarely = DEADLY_ONCE_IN.saturating_mul(*times).min(DEADLY_AT_LEAST_ONCE_IN);
        let (dies, is_before) = (self.dice.one_in(rarely), self.dice.one_in(2));
        if !self.faults.inject(Fault::DiedWithin, dies) {
            return None;
        }
        let death = if is_before { Death::Before } else { Death::After };
        self.journal.note(format_args!("node {node} dies, {death:?} {action:?}"));
        self.coverage.died(death, of, action);
        Some(death)
    }

    /// A row that a relay has sent arrives.
    pub fn land(&mut self, partition: PartitionId, row: u64) {
        let Some(events) = self.store.outbox(partition, row) else { return };
        self.journal.note(format_args!("row {row} of {partition} arrives: {events:?}"));
        if let Some((invariant, detail)) = self.log.publish(partition, events) {
            self.fail(invariant, detail);
        }
    }

    /// I7: every offset below the consumed one was applied, rejected, put in a mailbox, or became a dead
    /// letter.
    pub fn check_consumed(&mut self) {
        let lost = self.log.inputs().find_map(|input| {
            let next = usize::try_from(self.store.next_offset(input)).expect("small");
            let mut passed = self.log.records(input).iter().take(next).filter(|letter| !letter.nature.is_ignored());
            passed.find(|letter| !self.store.knows(letter))
        });
        if let Some(letter) = lost {
            let detail = format!("{letter:?} was passed, and nothing knows it");
            self.fail("I7", detail);
        }
    }
}
