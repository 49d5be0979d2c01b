//! The events of a context in the order in which they were seen, by source and aggregate.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_core::{Message, Record, envelope::header, invariant::Invariant};
use uuid::Uuid;

use super::Violation;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct History {
    streams: BTreeMap<Stream, Vec<Event>>,
    repeats: u64,
}

/// Where versions count: the events of one aggregate. The source tells kinds apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stream {
    source: String,
    key: String,
}

#[derive(Debug)]
struct Event {
    version: u64,
    id: Uuid,
    cause: Option<String>,
    body: Bytes,
}

impl History {
    /// Adds an event. `cut` says that the beginning may be missing.
    pub(super) fn add(&mut self, record: &Record, place: &str, cut: bool) -> Option<Violation> {
        if is_mark(record) {
            return None;
        }
        let at = format!("{place}, {}-{}@{}", record.topic, record.partition, record.offset);
        let message = match Message::decode(record) {
            Ok(message) => message,
            Err(refused) => return Some(order(format!("{at}: not an event: {refused}"))),
        };
        let Some(version) = message.sequence else {
            return Some(order(format!("{at}: no ce_sequence")));
        };
        let stream = Stream { source: message.source.to_string(), key: message.key.to_string() };
        let events = self.streams.entry(stream).or_default();
        if let Some(first) = events.iter().find(|event| event.version == version) {
            self.repeats += 1;
            let same = first.id == message.id && first.body == message.payload;
            let detail = || format!("{at}: {} has another event at version {version}", message.key);
            return (!same).then(|| Violation { invariant: Invariant::OneHistory, detail: detail() });
        }
        let expected = events.last().map_or(1, |last| last.version + 1);
        let in_order = version == expected || (cut && events.is_empty());
        events.push(Event { version, id: message.id, cause: message.causation, body: message.payload });
        (!in_order).then(|| order(format!("{at}: {} is at version {version}, expected {expected}", message.key)))
    }

    /// First occurrences.
    pub(super) fn len(&self) -> usize {
        self.streams.values().map(Vec::len).sum()
    }

    pub(super) fn repeats(&self) -> u64 {
        self.repeats
    }

    /// The number of events of each key, whatever their source.
    pub(super) fn per_key(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (stream, events) in &self.streams {
            *counts.entry(stream.key.clone()).or_default() += events.len() as u64;
        }
        counts
    }

    /// I1, I10: events here that `stored` doesn't have, or has otherwise.
    pub(super) fn not_in(&self, stored: &Self) -> Vec<Violation> {
        let mut found = Vec::new();
        for (stream, events) in &self.streams {
            let known = stored.streams.get(stream);
            for event in events {
                let kept = known.and_then(|kept| kept.iter().find(|kept| kept.version == event.version));
                let (invariant, what) = match kept {
                    None => (Invariant::Durable, "was published and is not in the outbox"),
                    Some(kept) if kept.id != event.id || kept.body != event.body => {
                        (Invariant::OneHistory, "is not the event that the outbox has there")
                    }
                    Some(_) => continue,
                };
                let detail = format!("version {} of {} ({}) {what}", event.version, stream.key, event.id);
                found.push(Violation { invariant, detail });
            }
        }
        found
    }

    /// I2: causes whose events don't stand together, so that they had an effect twice.
    pub(super) fn scattered_causes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (stream, events) in &self.streams {
            let mut done = BTreeSet::new();
            let mut current: Option<&str> = None;
            for event in events {
                let cause = event.cause.as_deref();
                if cause == current {
                    continue;
                }
                done.extend(current.take());
                current = cause;
                if cause.is_some_and(|cause| done.contains(cause)) {
                    let cause = cause.unwrap_or_default();
                    found.push(format!("message {cause} had an effect on {} again, at {}", stream.key, event.version));
                }
            }
        }
        found
    }

    /// I3: events whose causes lie in another order than they. `places` has the offsets at which a message of
    /// a key lies.
    pub(super) fn overtaken_causes(&self, places: &BTreeMap<(String, String), BTreeSet<u64>>) -> Vec<String> {
        let mut found = Vec::new();
        for (stream, events) in &self.streams {
            let mut last = 0;
            for event in events {
                let Some(cause) = &event.cause else { continue };
                let Some(offsets) = places.get(&(stream.key.clone(), cause.clone())) else { continue };
                match offsets.range(last..).next() {
                    Some(offset) => last = *offset,
                    None => found.push(format!(
                        "{} at version {}: message {cause} took effect after a later one",
                        stream.key, event.version
                    )),
                }
            }
        }
        found
    }
}

/// What a relay says of its partition count; no event of an aggregate.
pub(super) fn is_mark(record: &Record) -> bool {
    record.key.is_none() && record.headers.get(header::TYPE) == Some(b"holdfast.runtime.v1.PartitionsGrown")
}

fn order(detail: String) -> Violation {
    Violation { invariant: Invariant::Order, detail }
}
