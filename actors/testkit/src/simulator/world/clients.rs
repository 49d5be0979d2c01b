//! Producers, callers and readers: which message or read comes next, and where it goes.
//!
//! Deliberately absent: what becomes of it.

use std::sync::Arc;

use holdfast_core::{KeyHash, PartitionId};

use super::{FIRST, World};
use crate::{
    Dice,
    simulator::{
        EVENT, Fault, Letter, Nature,
        log::{COMMANDS, SALES},
    },
};

/// The homes of the aggregates once there are eight partitions: one never moves, two move when there are
/// four, one when there are eight, and two both times.
const HOMES: [u32; 6] = [0, 2, 3, 4, 6, 7];

impl World {
    /// The home of a key, by the count in force or by an older one, which is all that a caller knows for a
    /// while.
    fn any_home(&mut self, key: &str) -> PartitionId {
        let counts = self.around.store.counts();
        let newest = counts.len() - 1;
        let known = if self.around.dice.one_in(3) { self.around.dice.index(counts.len()) } else { newest };
        KeyHash::of(key.as_bytes()).home(counts[known])
    }

    fn any_key(&mut self) -> usize {
        self.around.dice.index(self.keys.len())
    }

    /// A producer sends a record, or one that it has sent before. It may learn of a count then, and the next
    /// record of the same key goes elsewhere.
    pub(super) fn send(&mut self) -> bool {
        let (at, learns) = (self.any_key(), self.around.dice.one_in(4));
        let producer = at % self.producers.len();
        let count = self.around.log.count(COMMANDS);
        let is_news = self.known_count(producer) < count;
        self.send_of(at);
        if is_news && learns {
            self.producers[producer] = count;
            self.send_of(at);
        }
        true
    }

    pub(super) fn send_of(&mut self, at: usize) {
        let key = self.keys[at].clone();
        let count = self.known_count(at % self.producers.len());
        let input = (COMMANDS, KeyHash::of(key.as_bytes()).home(count));
        let records = self.around.log.records(input);
        let is_repeat = !records.is_empty() && self.around.dice.one_in(10);
        let repeat = self.around.faults.inject(Fault::SentTwice, is_repeat);
        let repeat = repeat.then(|| records[self.around.dice.index(records.len())].clone());
        let letter = repeat.unwrap_or_else(|| {
            self.letters += 1;
            Letter { id: self.letters, key, nature: any_nature(&mut self.around.dice) }
        });
        self.around.journal.note(format_args!("sent to {input:?}: {letter:?}"));
        self.around.log.append(input, letter);
    }

    /// Another context's relay publishes an event, or one that it has published before.
    pub(super) fn send_theirs(&mut self) -> bool {
        let at = self.any_key();
        let key = self.keys[at].clone();
        let hash = KeyHash::of(key.as_bytes());
        let input = (SALES, hash.home(self.theirs[&hash.home(FIRST)]));
        let records = self.around.log.records(input);
        let is_repeat = !records.is_empty() && self.around.dice.one_in(10);
        let repeat = self.around.faults.inject(Fault::SentTwice, is_repeat);
        let repeat = repeat.then(|| records[self.around.dice.index(records.len())].clone());
        let repeat = repeat.filter(|letter| !letter.nature.is_ignored());
        let letter = repeat.unwrap_or_else(|| {
            self.letters += 1;
            let nature = match any_nature(&mut self.around.dice) {
                Nature::Rejected | Nature::Conditional => Nature::Plain,
                nature => nature,
            };
            Letter { id: EVENT | self.letters, key, nature }
        });
        self.around.journal.note(format_args!("sent to {input:?}: {letter:?}"));
        self.around.log.append(input, letter);
        true
    }

    /// A caller calls the owner of a key, or the node that was, for the first time or again.
    pub(super) fn call(&mut self) -> bool {
        let at = self.any_key();
        let key = self.keys[at].clone();
        let is_repeat = !self.calls.is_empty() && self.around.dice.one_in(5);
        let letter = if self.around.faults.inject(Fault::CalledTwice, is_repeat) {
            let last = self.calls.len().saturating_sub(5);
            self.calls[last + self.around.dice.index(self.calls.len() - last)].clone()
        } else {
            self.letters += 1;
            let nature = match any_nature(&mut self.around.dice) {
                Nature::Junk | Nature::Ignored => Nature::Plain,
                nature => nature,
            };
            let outlived = if self.around.dice.one_in(3) { self.any_outlived() } else { None };
            let key = outlived.map_or(key, |(_, _, key)| key);
            let letter = Letter { id: self.letters, key, nature };
            self.calls.push(letter.clone());
            letter
        };
        let partition = self.any_home(&letter.key);
        let Some(node) = self.any_holder(partition) else { return false };
        self.around.journal.note(format_args!("called at {partition} of node {node}: {letter:?}"));
        self.nodes[node].call(partition, letter, &mut self.around);
        self.turn_mostly(node);
        true
    }

    /// A reader asks an owner of a key for its state: the one that is, or one that was and may not know.
    pub(super) fn read(&mut self) -> bool {
        let outlived = if self.around.dice.one_in(2) { self.any_outlived() } else { None };
        let (node, partition, key) = if let Some(outlived) = outlived {
            outlived
        } else {
            let at = self.any_key();
            let key = self.keys[at].clone();
            let partition = self.any_home(&key);
            let Some(node) = self.any_holder(partition) else { return false };
            (node, partition, key)
        };
        self.around.journal.note(format_args!("read {key} from {partition} at node {node}"));
        self.nodes[node].read(partition, &key, &mut self.around);
        self.turn_mostly(node);
        true
    }

    /// An actor of an owner that has been fenced and does not know it.
    fn any_outlived(&mut self) -> Option<(usize, PartitionId, Arc<str>)> {
        let outlived = self.of_awake(|node| node.outlived(&self.around.store));
        let (node, (partition, key)) = self.any_of(&outlived)?;
        Some((node, partition, key))
    }

    /// Any node that holds a partition, or believes so, and whose process is not stopped.
    fn any_holder(&mut self, partition: PartitionId) -> Option<usize> {
        let holders = self.of_awake(|node| node.holds(partition).then_some(()).into_iter().collect());
        self.any_of(&holders).map(|(node, ())| node)
    }
}

fn any_nature(dice: &mut Dice) -> Nature {
    match dice.below(44) {
        0..=1 => Nature::Rejected,
        2..=5 => Nature::Conditional,
        6..=9 => Nature::NeedsLookUp,
        10 => Nature::Flaky(1 + u32::try_from(dice.below(2)).expect("small")),
        11 => Nature::Poison,
        12 => Nature::Refused,
        13 => Nature::Junk,
        14 => Nature::Ignored,
        15..=17 => Nature::SetsTimer(dice.millis(2_000)),
        18..=19 => Nature::Intends,
        20 => Nature::TooLarge,
        _ => Nature::Plain,
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
