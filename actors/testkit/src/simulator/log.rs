//! The log of a simulation: two topics that the context reads, and the one that its relays write to.
//!
//! Invariant checked as it is written to (I3): for each aggregate, what is published for the first time is of
//! the version after the last. Deliberately absent: retention, and partitions of the topic that is written
//! to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_core::PartitionId;

use super::Letter;

/// The context's own commands.
pub(super) const COMMANDS: &str = "t.commands";
/// Events of another context.
pub(super) const SALES: &str = "sales.events";
/// What the context writes to; they have as many partitions as is known of them, and no records.
pub(super) const OUTPUTS: [&str; 2] = ["t.events", "t.dlq"];

/// A partition of a topic.
pub(super) type Input = (&'static str, PartitionId);

/// Aggregates, and the version that each event gave its own.
pub(super) type Events = Vec<(Arc<str>, usize)>;

#[derive(Clone, Debug)]
struct Topic {
    records: Vec<Vec<Letter>>,
    grown_at: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Log {
    topics: BTreeMap<&'static str, Topic>,
    /// The count of the topics that are written to.
    pub outputs: u32,
    /// The version up to which each aggregate's events are published.
    published: BTreeMap<Arc<str>, usize>,
    /// Until when a partition can't be read.
    pub unread_until: BTreeMap<Input, Duration>,
}

impl Log {
    pub fn new(count: u32) -> Self {
        let topic = || Topic { records: vec![Vec::new(); count as usize], grown_at: Duration::ZERO };
        let topics = BTreeMap::from([(COMMANDS, topic()), (SALES, topic())]);
        Self { topics, outputs: count, published: BTreeMap::new(), unread_until: BTreeMap::new() }
    }

    pub fn count(&self, topic: &str) -> u32 {
        u32::try_from(self.topics[topic].records.len()).expect("small")
    }

    /// An input by its name.
    pub fn name(&self, topic: &str) -> &'static str {
        self.topics.keys().find(|name| **name == topic).expect("a topic of the simulation")
    }

    pub fn grown_at(&self, topic: &str) -> Duration {
        self.topics[topic].grown_at
    }

    /// The counts of all topics, as a node asks for them.
    pub fn counts(&self) -> BTreeMap<String, u32> {
        let inputs = self.topics.keys().map(|topic| ((*topic).to_owned(), self.count(topic)));
        inputs.chain(OUTPUTS.map(|topic| (topic.to_owned(), self.outputs))).collect()
    }

    pub fn grow(&mut self, topic: &str, count: u32, now: Duration) {
        let topic = self.topics.get_mut(topic).expect("a topic of the simulation");
        topic.records.resize(count as usize, Vec::new());
        topic.grown_at = now;
    }

    /// Appends a record; returns its offset.
    pub fn append(&mut self, (topic, partition): Input, letter: Letter) -> u64 {
        let topic = self.topics.get_mut(topic).expect("a topic of the simulation");
        let records = &mut topic.records[partition.0 as usize];
        records.push(letter);
        records.len() as u64 - 1
    }

    /// All records of a partition; none if the topic has no such partition.
    pub fn records(&self, (topic, partition): Input) -> &[Letter] {
        self.topics[topic].records.get(partition.0 as usize).map_or(&[], Vec::as_slice)
    }

    pub fn end(&self, input: Input) -> u64 {
        self.records(input).len() as u64
    }

    /// All partitions of all inputs.
    pub fn inputs(&self) -> impl Iterator<Item = Input> {
        self.topics.keys().flat_map(|topic| (0..self.count(topic)).map(|n| (*topic, PartitionId(n))))
    }

    /// The version up to which an aggregate's events are published.
    pub fn published(&self, key: &str) -> usize {
        self.published.get(key).copied().unwrap_or(0)
    }

    /// A row of an outbox arrives. A row may come again, after a failure or from an owner that was.
    pub fn publish(&mut self, partition: PartitionId, events: &Events) -> Option<(&'static str, String)> {
        for (key, version) in events {
            let before = self.published.entry(key.clone()).or_default();
            if *version == *before + 1 {
                *before = *version;
            } else if *version > *before {
                return Some(("I3", format!("{partition} publishes version {version} of {key} after {before}")));
            }
        }
        None
    }
}
