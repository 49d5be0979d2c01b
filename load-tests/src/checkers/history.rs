//! Each aggregate's events as its topic tells them (I3, I10).
//!
//! First occurrences must have the versions 1, 2, 3 …, in that order. The same record again is a repeat,
//! which consumers drop; another record at a version that was there already is a second history. All are in
//! one partition; if partitions have grown, later ones may be in another, which is one that the first was
//! split into.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{Breach, ContextEvidence, EventRecord, Report};

/// Kind and key.
pub(super) type Name<'a> = (&'static str, &'a str);

/// First occurrences, by aggregate and version.
pub(super) struct History<'a> {
    pub(super) of: HashMap<Name<'a>, BTreeMap<u64, &'a EventRecord>>,
    grown_from: Option<i32>,
}

impl<'a> History<'a> {
    pub(super) fn of(evidence: &'a ContextEvidence, report: &mut Report) -> Self {
        for (place, why) in &evidence.unreadable {
            report.breach(Breach::Unreadable, place, why.clone());
        }
        let mut records: Vec<&EventRecord> = evidence.events.iter().collect();
        records.sort_by_key(|record| (record.partition, record.offset));
        let mut history = Self { of: HashMap::new(), grown_from: evidence.grown_from };
        let mut versions_of: HashMap<Uuid, u64> = HashMap::with_capacity(records.len());
        for record in records {
            if history.add(record, report) {
                let before = versions_of.insert(record.id, record.sequence);
                if let Some(before) = before.filter(|before| *before != record.sequence) {
                    let what = format!("one event at versions {before} and {}", record.sequence);
                    report.breach(Breach::Doubled, record.id, what);
                }
            }
        }
        report.events += history.events().count() as u64;
        history
    }

    /// Whether it is a first occurrence.
    fn add(&mut self, record: &'a EventRecord, report: &mut Report) -> bool {
        let grown_from = self.grown_from;
        let seen = self.of.entry((record.news.kind(), &record.key)).or_default();
        let last = seen.last_key_value().map(|(version, last)| (*version, *last));
        if let Some((_, last)) = last
            && last.partition != record.partition
            && grown_from.is_none_or(|count| (record.partition - last.partition) % count != 0)
        {
            let what = format!("events in partitions {} and {}", last.partition, record.partition);
            report.breach(Breach::OutOfOrder, &record.key, what);
        }
        if let Some(first) = seen.get(&record.sequence) {
            if first.id == record.id && first.digest == record.digest {
                report.republished += 1;
            } else {
                let what = format!("version {} at {} and at {}", record.sequence, first.place(), record.place());
                report.breach(Breach::TwoHistories, &record.key, what);
            }
            return false;
        }
        let expected = last.map_or(1, |(version, _)| version + 1);
        if record.sequence != expected {
            let what = format!("version {} where {expected} was due, {}", record.sequence, record.place());
            report.breach(Breach::OutOfOrder, &record.key, what);
        }
        seen.insert(record.sequence, record);
        true
    }

    /// All first occurrences.
    pub(super) fn events(&self) -> impl Iterator<Item = &'a EventRecord> + '_ {
        self.of.values().flat_map(|events| events.values().copied())
    }

    /// The keys of all aggregates of this kind.
    pub(super) fn keys(&self, kind: &'static str) -> impl Iterator<Item = &'a str> + '_ {
        self.of.keys().filter(move |(of, _)| *of == kind).map(|(_, key)| *key)
    }

    /// The events of one aggregate, by version.
    pub(super) fn get(&self, kind: &'static str, key: &'a str) -> Option<&BTreeMap<u64, &'a EventRecord>> {
        self.of.get(&(kind, key))
    }
}
