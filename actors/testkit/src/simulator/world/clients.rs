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
        log::{COMMANDS, Input, SALES},
        node::Node,
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

    /// A key whose home is this one by the newest count of the topic, which its producer does not know yet;
    /// or any if there is none.
    fn any_key_of(&mut self, home: PartitionId) -> usize {
        let count = self.around.log.count(COMMANDS);
        let is_there = |at: &usize| {
            let is_home = KeyHash::of(self.keys[*at].as_bytes()).home(count) == home;
            is_home && self.producers[*at % self.producers.len()] < count
        };
        let there: Vec<usize> = (0..self.keys.len()).filter(is_there).collect();
        self.any_of(&there).unwrap_or_else(|| self.any_key())
    }

    /// A producer sends a record, or one that it has sent before. It may learn of a count then, and the next
    /// record of the same key goes elsewhere: rather to where a reader is just asking for ends.
    pub(super) fn send(&mut self) -> bool {
        let asked = self.of_awake(Node::asked_for_ends);
        let (at, learns) = match self.any_of(&asked) {
            Some((_, home)) if self.around.dice.one_in(2) => (self.any_key_of(home), true),
            _ => {
                // The first to learn of a count does so soon, and the other later.
                let seldom = if self.producers[0] == self.producers[1] { 2 } else { 16 };
                (self.any_key(), self.around.dice.one_in(seldom))
            }
        };
        let producer = at % self.producers.len();
        let count = self.around.log.count(COMMANDS);
        let is_news = self.known_count(producer) < count;
        let older = self.send_of(at);
        if is_news && learns {
            // The older record is read late, if the dice have it so.
            let is_late = self.around.dice.one_in(2);
            self.read_late(older, is_late);
            self.producers[producer] = count;
            self.send_of(at);
        }
        true
    }

    /// Sends a record of a key by the count that its producer knows; returns where to.
    pub(super) fn send_of(&mut self, at: usize) -> Input {
        let key = self.keys[at].clone();
        let count = self.known_count(at % self.producers.len());
        let input = (COMMANDS, KeyHash::of(key.as_bytes()).home(count));
        self.append(input, |dice, number| Letter { id: number, key, nature: any_nature(dice) });
        input
    }

    /// A record is appended: a new one, by its number, or one that was before.
    fn append(&mut self, input: Input, new: impl FnOnce(&mut Dice, u64) -> Letter) {
        let records = self.around.log.records(input);
        let is_repeat = !records.is_empty() && self.around.dice.one_in(10);
        let repeat = self.around.faults.inject(Fault::SentTwice, is_repeat);
        let repeat = repeat.then(|| records[self.around.dice.index(records.len())].clone());
        let letter = repeat.filter(|letter| !letter.nature.is_ignored()).unwrap_or_else(|| {
            self.letters += 1;
            new(&mut self.around.dice, self.letters)
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
        self.append(input, |dice, number| {
            let nature = match any_nature(dice) {
                Nature::Rejected | Nature::Conditional => Nature::Plain,
                nature => nature,
            };
            Letter { id: EVENT | number, key, nature }
        });
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
        self.any_awake(|node| node.holds(partition))
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
