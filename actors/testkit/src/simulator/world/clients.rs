//! Producers, callers and readers: which message or read comes next, and where it goes.
//!
//! Deliberately absent: what becomes of it.

use std::sync::Arc;

use holdfast_core::{KeyHash, PartitionId};
use holdfast_machine::lane::Input;

use super::World;
use crate::simulator::{Fault, Letter, Nature, node::Happened};

/// The homes of the aggregates once there are eight partitions: one never moves, two move when there are
/// four, one when there are eight, and two both times.
const HOMES: [u32; 6] = [0, 2, 3, 4, 6, 7];

impl World {
    /// The home of a key, by the count in force or by an older one, which is all that a caller knows for a
    /// while.
    fn any_home(&mut self, key: &str) -> PartitionId {
        let counts = self.store.counts();
        let newest = counts.len() - 1;
        let known = if self.dice.one_in(3) { self.dice.index(counts.len()) } else { newest };
        KeyHash::of(key.as_bytes()).home(counts[known])
    }

    fn any_key(&mut self) -> Arc<str> {
        self.keys[self.dice.index(self.keys.len())].clone()
    }

    fn any_nature(&mut self) -> Nature {
        match self.dice.below(40) {
            0..=1 => Nature::Rejected,
            2..=5 => Nature::Conditional,
            6..=9 => Nature::NeedsLookUp,
            10 => Nature::Flaky(1 + u32::try_from(self.dice.below(2)).expect("small")),
            11 => Nature::Poison,
            12 => Nature::Refused,
            13 => Nature::Junk,
            14 => Nature::Ignored,
            _ => Nature::Plain,
        }
    }

    /// A producer sends a record, or one that it has sent before.
    pub(super) fn send(&mut self) {
        let key = self.any_key();
        let partition = KeyHash::of(key.as_bytes()).home(self.count);
        let records = self.topic.entry(partition).or_default();
        let is_repeat = !records.is_empty() && self.dice.one_in(10);
        let repeat = self.faults.inject(Fault::SentTwice, is_repeat);
        let repeat = repeat.then(|| records[self.dice.index(records.len())].clone());
        let offset = records.len() as u64;
        let letter = repeat.unwrap_or_else(|| {
            self.letters += 1;
            Letter { id: self.letters, key, nature: self.any_nature() }
        });
        self.journal.note(format_args!("sent to {partition} at {offset}: {letter:?}"));
        self.topic.entry(partition).or_default().push(letter);
    }

    /// A caller calls the owner of a key, for the first time or again.
    pub(super) fn call(&mut self) {
        let key = self.any_key();
        let is_repeat = !self.calls.is_empty() && self.dice.one_in(5);
        let letter = if self.faults.inject(Fault::CalledTwice, is_repeat) {
            let last = self.calls.len().saturating_sub(5);
            self.calls[last + self.dice.index(self.calls.len() - last)].clone()
        } else {
            self.letters += 1;
            let nature = match self.any_nature() {
                Nature::Junk | Nature::Ignored => Nature::Plain,
                nature => nature,
            };
            let letter = Letter { id: self.letters, key, nature };
            self.calls.push(letter.clone());
            letter
        };
        let partition = self.any_home(&letter.key);
        let Some(node) = self.owners.get(&partition).copied() else { return };
        self.journal.note(format_args!("called at {partition}: {letter:?}"));
        let arrival = self.nodes[node].called(partition, letter);
        self.hand_in(node, Input::Arrived(arrival));
    }

    /// A reader asks an owner of a key for its state: the one that is, or one that was and may not know.
    pub(super) fn read(&mut self) {
        let key = self.any_key();
        let partition = self.any_home(&key);
        let alive = self.alive();
        let owners: Vec<usize> = alive.into_iter().filter(|node| self.nodes[*node].term(partition).is_some()).collect();
        if owners.is_empty() {
            return;
        }
        let node = owners[self.dice.index(owners.len())];
        self.journal.note(format_args!("read {key} from {partition} at node {node}"));
        let mut happened = Happened::default();
        let arrival = self.nodes[node].read(partition, &key, &self.store, &mut happened);
        self.reads += happened.reads;
        for (invariant, detail) in happened.violations {
            self.fail(invariant, detail);
        }
        if let Some(arrival) = arrival {
            self.hand_in(node, Input::Arrived(arrival));
        }
    }
}

/// The aggregates.
pub(super) fn keys() -> Vec<Arc<str>> {
    HOMES.into_iter().map(key_of).collect()
}

/// A key whose home is this one of eight.
fn key_of(home: u32) -> Arc<str> {
    let is_there = |key: &String| KeyHash::of(key.as_bytes()).home(8) == PartitionId(home);
    (0..1_000).map(|n| format!("k{n}")).find(is_there).expect("hashes spread").into()
}
