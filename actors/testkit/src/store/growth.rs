//! Counts, generations and acknowledgements in memory.

use std::collections::btree_map::Entry;

use holdfast_core::{
    PartitionId,
    batch::{OutboxDraft, OutboxRow},
    epoch::{Generation, PartitionRow, Token},
    growth::{Counts, Growth, Step},
};
use tokio::time::Instant;

use super::Contents;

impl Contents {
    /// A first generation, if there is none, and its rows.
    pub(super) fn register(&mut self, count: u32) {
        if self.generations.is_empty() {
            self.generations.insert(Generation(1), count);
        }
        self.make_rows(count);
    }

    /// Rows for the first `count` partitions. A partition nobody has owned counts as released: there is no
    /// lease to wait out.
    fn make_rows(&mut self, count: u32) {
        let generation = self.generations.last_key_value().map_or(Generation(1), |(generation, _)| *generation);
        let halted = self.partitions.values().find_map(|row| row.halted.clone());
        for partition in (0..count).map(PartitionId) {
            let row = || PartitionRow { halted: halted.clone(), ..PartitionRow::new(partition, generation) };
            self.partitions.entry(partition).or_insert_with(row);
        }
    }

    pub(super) fn note_count(&mut self, topic: &str, count: u32, now: Instant) {
        match self.topics.get_mut(topic) {
            None => {
                self.topics.insert(topic.to_owned(), (count, Vec::new()));
            }
            Some((first, steps)) => {
                if count > steps.last().map_or(*first, |(step, _)| step.count) {
                    steps.push((Step { count, ..Step::default() }, now));
                }
            }
        }
        self.make_rows(count);
    }

    /// All of it, as of `now`.
    pub fn growth(&self, now: Instant) -> Growth {
        let marked = |topic: &str, count: u32| {
            let of = self.marks.iter().filter(|((marked, _), known)| marked == topic && **known >= count);
            of.map(|((_, partition), _)| *partition).collect()
        };
        let counts = |topic: &str, (first, steps): &(u32, Vec<(Step, Instant)>)| {
            let step = |(step, at): &(Step, Instant)| Step {
                age: now.duration_since(*at),
                marked: marked(topic, step.count),
                ..step.clone()
            };
            Counts { first: *first, steps: steps.iter().map(step).collect() }
        };
        Growth {
            topics: self.topics.iter().map(|(topic, known)| (topic.clone(), counts(topic, known))).collect(),
            generations: self.generations.clone(),
            acknowledged: self.acknowledged.clone(),
            rows: self.partitions.values().cloned().collect(),
        }
    }

    pub(super) fn bump(&mut self, from: Generation, count: u32) {
        if self.generations.last_key_value().is_none_or(|(last, _)| *last != from) {
            return;
        }
        self.make_rows(count);
        let next = Generation(from.0 + 1);
        self.generations.insert(next, count);
        for row in self.partitions.values_mut() {
            row.generation = next;
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        partition: PartitionId,
        token: Token,
        generation: Generation,
        mark: Option<OutboxDraft>,
    ) -> Option<PartitionRow> {
        let row = self.partitions.get_mut(&partition)?;
        if row.token != Some(token) || row.generation != generation {
            return None;
        }
        if let Entry::Vacant(vacant) = self.acknowledged.entry((partition, generation)) {
            if let Some(draft) = mark {
                row.outbox_head += 1;
                self.staged.insert(draft.id);
                let staged = OutboxRow { partition, sequence: row.outbox_head, draft };
                self.outbox.insert((partition, row.outbox_head), staged);
            }
            vacant.insert(row.outbox_head);
        }
        row.has_begun = true;
        Some(row.clone())
    }

    fn step(&mut self, topic: &str, count: u32) -> Option<&mut Step> {
        let (_, steps) = self.topics.get_mut(topic)?;
        steps.iter_mut().map(|(step, _)| step).find(|step| step.count == count)
    }

    pub(super) fn note_mark(&mut self, topic: &str, partition: PartitionId, count: u32) {
        let known = self.marks.entry((topic.to_owned(), partition)).or_default();
        *known = count.max(*known);
    }

    pub(super) fn note_ends(&mut self, topic: &str, count: u32, ends: &[u64]) {
        if let Some(step) = self.step(topic, count).filter(|step| step.ends.is_empty()) {
            step.ends = ends.to_vec();
        }
    }

    pub(super) fn end_transition(&mut self, topic: &str, count: u32) {
        if let Some(step) = self.step(topic, count) {
            step.ended = true;
        }
    }

    /// All partitions in order, which is the order to lock their rows in.
    pub(super) fn all_partitions(&self) -> Vec<PartitionId> {
        self.partitions.keys().copied().collect()
    }
}
