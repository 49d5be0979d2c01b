//! Counts, generations and transitions.
//!
//! Deliberately absent: when any of it is done, which [`holdfast_core::growth`] says.

use std::time::Duration;

use holdfast_core::{
    PartitionId,
    epoch::{Generation, PartitionRow},
    growth::{Counts, Growth, Step},
};

use super::{COMMANDS, Log, Store};

/// A growth of a topic, and when it was noticed.
pub(super) type Noticed = (Step, Duration);

impl Store {
    /// Registers the inputs with the count that they begin with.
    pub(super) fn register(&mut self, topics: &[&'static str], count: u32) {
        self.generations.insert(Generation(1), count);
        self.topics.extend(topics.iter().map(|topic| (*topic, (count, Vec::new()))));
        self.make_rows(count);
    }

    fn make_rows(&mut self, count: u32) {
        let in_force = self.generations.last_key_value().map_or(Generation(1), |(generation, _)| *generation);
        for partition in (0..count).map(PartitionId) {
            self.rows.entry(partition).or_insert_with(|| PartitionRow::new(partition, in_force));
        }
    }

    /// The counts that are, or were, in force.
    pub fn counts(&self) -> Vec<u32> {
        self.generations.values().copied().collect()
    }

    pub fn note_count(&mut self, topic: &str, count: u32, now: Duration) {
        if let Some((first, steps)) = self.topics.get_mut(topic)
            && count > steps.last().map_or(*first, |(step, _)| step.count)
        {
            steps.push((Step { count, ..Step::default() }, now));
        }
        self.make_rows(count);
    }

    /// Puts a count in force, on all rows at once, unless another node has.
    pub fn bump(&mut self, from: Generation, count: u32) {
        if self.generations.last_key_value().is_none_or(|(last, _)| *last != from) {
            return;
        }
        self.make_rows(count);
        let generation = Generation(from.0 + 1);
        self.generations.insert(generation, count);
        for row in self.rows.values_mut() {
            row.generation = generation;
        }
    }

    fn step(&mut self, topic: &str, count: u32) -> Option<&mut Step> {
        let (_, steps) = self.topics.get_mut(topic)?;
        steps.iter_mut().map(|(step, _)| step).find(|step| step.count == count)
    }

    pub fn note_mark(&mut self, topic: &'static str, partition: PartitionId, count: u32) {
        let known = self.marks.entry((topic, partition)).or_default();
        *known = count.max(*known);
    }

    pub fn note_ends(&mut self, topic: &str, count: u32, ends: Vec<u64>) {
        if let Some(step) = self.step(topic, count).filter(|step| step.ends.is_empty()) {
            step.ends = ends;
        }
    }

    pub fn end_transition(&mut self, topic: &str, count: u32) {
        if let Some(step) = self.step(topic, count) {
            step.ended = true;
        }
    }

    /// What is not done about counts: a growth that is not noticed, in force, acknowledged or over.
    pub fn unsettled(&self, log: &Log) -> Option<String> {
        for (topic, (first, steps)) in &self.topics {
            if steps.last().map_or(*first, |(step, _)| step.count) != log.count(topic) {
                return Some(format!("{topic} has {} partitions, and that is not noted", log.count(topic)));
            }
            if let Some((step, _)) = steps.iter().find(|(step, _)| !step.ended) {
                return Some(format!("{topic} is in transition: {step:?}"));
            }
        }
        let (generation, count) = self.generations.last_key_value()?;
        if *count != log.count(COMMANDS) {
            return Some(format!("{count} partitions are in force, and {COMMANDS} has {}", log.count(COMMANDS)));
        }
        let is_behind = |partition: &&PartitionId| !self.acknowledged.contains_key(&(**partition, *generation));
        self.rows.keys().find(is_behind).map(|partition| format!("{partition} has not acknowledged {generation:?}"))
    }

    pub fn growth(&self, now: Duration) -> Growth {
        let marked = |topic: &str, count: u32| {
            let of = self.marks.iter().filter(|((marked, _), known)| *marked == topic && **known >= count);
            of.map(|((_, partition), _)| *partition).collect()
        };
        let counts = |topic: &str, (first, steps): &(u32, Vec<Noticed>)| {
            let step = |(step, at): &Noticed| Step {
                age: now.saturating_sub(*at),
                marked: marked(topic, step.count),
                ..step.clone()
            };
            Counts { first: *first, steps: steps.iter().map(step).collect() }
        };
        Growth {
            topics: self.topics.iter().map(|(topic, known)| ((*topic).to_owned(), counts(topic, known))).collect(),
            generations: self.generations.clone(),
            acknowledged: self.acknowledged.clone(),
            rows: self.rows(),
        }
    }
}
