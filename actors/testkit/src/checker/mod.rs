//! Checks a run of the loop on the in-memory ports: what the log and the store hold is compared with what
//! must hold.
//!
//! Shares no code with the runtime beyond reading envelopes: it looks only at records and rows. I1–I4, I7, I8
//! and I10 are checked. Deliberately absent: I5 and I6 (a matter of when, not of what is left), I9 (that is
//! what [`crate::store::Sabotage`] is for), what an event means (a test compares sums itself), and anything
//! across two contexts.

mod history;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
};

use holdfast_core::{
    AggregateId, Message, PartitionId, Record,
    batch::OutboxRow,
    dedup::{ClaimKey, body_digest},
    invariant::Invariant,
    ring::Ring,
};
use uuid::Uuid;

use self::history::History;
pub use self::watch::Watch;
use crate::{
    log::MemoryLog,
    store::{Contents, MemoryStore},
};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of what.
    pub invariant: Invariant,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records of the commands topic that count as consumed.
    pub consumed: u64,
    /// Claims, which is commands with an effect (a rejection included).
    pub claims: u64,
    /// Events in the store's outbox.
    pub events: u64,
    /// Records in the events topic beyond the first occurrence of each.
    pub repeats: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Messages in the durable mailbox.
    pub waiting: u64,
}

/// The checks of one context.
#[derive(Clone, Debug)]
pub struct Checker<'a> {
    log: &'a MemoryLog,
    contents: Contents,
    commands: String,
    events: String,
    dlq: String,
    kinds: Vec<&'static str>,
    foreign: Vec<(String, Vec<String>)>,
    acknowledged: Vec<Uuid>,
    settled: bool,
    found: Vec<Violation>,
}

impl<'a> Checker<'a> {
    /// Checks `context`, whose topics are `<context>.commands`, `.events` and `.dlq`, as it stands now;
    /// `kinds` are its aggregates.
    pub fn new(log: &'a MemoryLog, store: &MemoryStore, context: &str, kinds: &[&'static str]) -> Self {
        Self {
            log,
            contents: store.contents(),
            commands: format!("{context}.commands"),
            events: format!("{context}.events"),
            dlq: format!("{context}.dlq"),
            kinds: kinds.to_vec(),
            foreign: Vec::new(),
            acknowledged: Vec::new(),
            settled: false,
            found: Vec::new(),
        }
    }

    /// It also reads `topic` of another context, and handles these `ce_type`s of it.
    #[must_use]
    pub fn reading(mut self, topic: &str, handled: &[&str]) -> Self {
        self.foreign.push((topic.to_owned(), handled.iter().map(|name| (*name).to_owned()).collect()));
        self
    }

    /// Callers were answered for these message ids (I1).
    #[must_use]
    pub fn acknowledged(mut self, ids: impl IntoIterator<Item = Uuid>) -> Self {
        self.acknowledged.extend(ids);
        self
    }

    /// Faults have healed and the run has ended: everything is consumed and published (I8).
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.settled = true;
        self
    }

    /// With what was seen on the way.
    #[must_use]
    pub fn watched(mut self, watch: &Watch) -> Self {
        self.found.extend(watch.violations());
        self
    }

    /// Panics with all violations if there is one; otherwise says what the run came to.
    #[track_caller]
    pub fn assert(self) -> Counts {
        let (counts, violations) = self.check();
        let listed: Vec<String> = violations.iter().map(Violation::to_string).collect();
        assert!(listed.is_empty(), "{} violations ({counts:?}):\n{}", listed.len(), listed.join("\n"));
        counts
    }

    /// All violations, and what the run came to.
    pub fn check(mut self) -> (Counts, Vec<Violation>) {
        for breach in std::mem::take(&mut self.contents.breaches) {
            self.report(Invariant::OneOwner, breach);
        }
        let stored = self.outbox_is_one_history();
        let repeats = self.topic_is_one_history(&stored);
        self.state_agrees_with_events(&stored);
        self.one_effect_per_command(&stored);
        self.effects_keep_the_order_of_the_log(&stored);
        self.what_was_acknowledged_is_stored();
        let consumed = self.everything_is_accounted_for();
        self.dead_letters_are_whole();
        if self.settled {
            self.everything_has_converged();
        }
        let contents = &self.contents;
        let counts = Counts {
            consumed,
            claims: contents.claims.values().map(|claims| claims.len() as u64).sum(),
            events: stored.len() as u64,
            repeats,
            dead_letters: contents.dead_letters.len() as u64,
            waiting: contents.mailbox.len() as u64,
        };
        (counts, self.found)
    }

    fn report(&mut self, invariant: Invariant, detail: impl Into<String>) {
        self.found.push(Violation { invariant, detail: detail.into() });
    }

    /// I3, I10: rows are numbered without gaps, and so are each aggregate's versions.
    fn outbox_is_one_history(&mut self) -> History {
        let mut history = History::default();
        let mut last: BTreeMap<PartitionId, u64> = BTreeMap::new();
        let mut found = Vec::new();
        for ((partition, sequence), row) in &self.contents.outbox {
            let before = last.insert(*partition, *sequence).unwrap_or(0);
            if *sequence != before + 1 {
                let detail = format!("outbox of partition {partition}: row {sequence} after {before}");
                found.push(Violation { invariant: Invariant::Order, detail });
            }
            if *row.draft.topic == *self.events {
                found.extend(history.add(&as_record(row), "the outbox", false));
            }
        }
        for (partition, row) in &self.contents.partitions {
            let head = last.get(partition).copied().unwrap_or(0);
            if head != row.outbox_head {
                let detail = format!("partition {partition}: outbox head {}, last row {head}", row.outbox_head);
                found.push(Violation { invariant: Invariant::Order, detail });
            }
        }
        self.found.extend(found);
        history
    }

    /// I1, I3, I10: the topic holds what the store holds, first occurrences in order. Returns the number of
    /// repeats.
    fn topic_is_one_history(&mut self, stored: &History) -> u64 {
        let mut published = History::default();
        for partition in (0..self.log.partitions(&self.events)).map(PartitionId) {
            let cut = self.log.bounds(&self.events, partition).is_some_and(|(start, _)| start > 0);
            for record in self.log.records(&self.events, partition) {
                self.found.extend(published.add(&record, "the events topic", cut));
            }
        }
        self.found.extend(published.not_in(stored));
        published.repeats()
    }

    /// I8: an aggregate's stored version is the number of its events.
    fn state_agrees_with_events(&mut self, stored: &History) {
        let mut versions: BTreeMap<String, u64> = BTreeMap::new();
        for (id, row) in &self.contents.states {
            *versions.entry(id.key.to_string()).or_default() += row.version;
        }
        let events = stored.per_key();
        for key in versions.keys().chain(events.keys()).collect::<BTreeSet<_>>() {
            let (version, n) = (versions.get(key).unwrap_or(&0), events.get(key).unwrap_or(&0));
            if version != n {
                let detail = format!("{key}: stored version {version}, {n} events");
                self.found.push(Violation { invariant: Invariant::Convergence, detail });
            }
        }
    }

    /// I2: one claim per message, in its aggregate's ring or outside of it, one run of events per cause, and
    /// pools within their bounds.
    fn one_effect_per_command(&mut self, stored: &History) {
        let mut found = Vec::new();
        for (key, claims) in self.contents.claims.iter().filter(|(_, claims)| claims.len() > 1) {
            found.push(format!("message {} was claimed {} times", key.id, claims.len()));
        }
        let Contents { rings, pushed_out, .. } = &self.contents;
        let keys = |ring: &Ring| ring.claims().into_iter().map(|claim| claim.key);
        let in_rings: HashSet<ClaimKey> =
            rings.values().flat_map(|ring| keys(ring).filter(|key| !ring.is_elsewhere(key))).collect();
        let is_lost = |key: &&ClaimKey| !in_rings.contains(*key) && !pushed_out.contains_key(*key);
        found.extend(self.contents.claims.keys().filter(is_lost).map(|key| format!("the claim of {} is lost", key.id)));
        found.extend(stored.scattered_causes());
        for (name, pool) in &self.contents.pools {
            if pool.held < 0 || pool.held > pool.total {
                found.push(format!("pool {name}: {} held of {}", pool.held, pool.total));
            }
        }
        let mut buried = BTreeSet::new();
        for letter in &self.contents.dead_letters {
            if !buried.insert((&letter.topic, letter.partition, letter.offset)) {
                found.push(format!("{}-{}@{} is two dead letters", letter.topic, letter.partition, letter.offset));
            }
        }
        found.sort();
        for detail in found {
            self.report(Invariant::Once, detail);
        }
    }

    /// I3: commands of one aggregate that came through the log took effect in its order. Those with a copy in
    /// a partition that isn't their home are passed over: which copy came first is not to be seen here.
    fn effects_keep_the_order_of_the_log(&mut self, stored: &History) {
        let count = self.log.partitions(&self.commands);
        let mut places: BTreeMap<(String, String), BTreeSet<u64>> = BTreeMap::new();
        let mut elsewhere = BTreeSet::new();
        for record in self.log.all_records(&self.commands) {
            let Ok(message) = Message::decode(&record) else { continue };
            let of = (message.key.to_string(), message.id.to_string());
            if record.key_hash().home(count) == record.partition {
                places.entry(of).or_default().insert(record.offset);
            } else {
                elsewhere.insert(of);
            }
        }
        places.retain(|of, _| !elsewhere.contains(of));
        for detail in stored.overtaken_causes(&places) {
            self.report(Invariant::Order, detail);
        }
    }

    /// I1: no answer and no stored offset is ahead of the store.
    fn what_was_acknowledged_is_stored(&mut self) {
        let claimed: BTreeSet<Uuid> = self.contents.claims.keys().map(|key| key.id).collect();
        for id in std::mem::take(&mut self.acknowledged) {
            if !claimed.contains(&id) {
                self.report(Invariant::Durable, format!("message {id} was acknowledged and is not stored"));
            }
        }
        for topic in self.inputs() {
            for (partition, next) in self.consumed(&topic) {
                let stored = self.log.stored_offset(&topic, partition).unwrap_or(0);
                if stored > next {
                    let detail = format!("{topic}-{partition}: offset {stored} was stored, {next} is committed");
                    self.report(Invariant::Durable, detail);
                }
            }
        }
    }

    fn inputs(&self) -> Vec<String> {
        std::iter::once(&self.commands).chain(self.foreign.iter().map(|(topic, _)| topic)).cloned().collect()
    }

    /// Each partition with the offset of the next record of `topic`.
    fn consumed(&self, topic: &str) -> Vec<(PartitionId, u64)> {
        let next = |row: &holdfast_core::epoch::PartitionRow| (row.partition, row.next_offset(topic).unwrap_or(0));
        self.contents.partitions.values().map(next).collect()
    }

    /// I7: each consumed record is applied, a repeat, dead-lettered or waiting. Returns the number of
    /// consumed commands.
    fn everything_is_accounted_for(&mut self) -> u64 {
        let buried: BTreeSet<(String, PartitionId, u64)> = self
            .contents
            .dead_letters
            .iter()
            .map(|letter| (letter.topic.to_string(), letter.partition, letter.offset))
            .collect();
        let mail = self.contents.mailbox.values();
        let waiting: BTreeSet<(String, PartitionId, u64)> =
            mail.map(|mail| (mail.record.topic.to_string(), mail.record.partition, mail.record.offset)).collect();
        let mut commands = 0;
        for topic in self.inputs() {
            for (partition, next) in self.consumed(&topic) {
                for record in self.log.records(&topic, partition).iter().filter(|record| record.offset < next) {
                    commands += u64::from(topic == self.commands);
                    let place = (topic.clone(), partition, record.offset);
                    if !buried.contains(&place) && !waiting.contains(&place) && !self.is_applied(record) {
                        let detail = format!("{topic}-{partition}@{} is consumed and left no trace", record.offset);
                        self.report(Invariant::NothingVanishes, detail);
                    }
                }
            }
        }
        commands
    }

    fn is_applied(&self, record: &Record) -> bool {
        if history::is_mark(record) && *record.topic != *self.commands {
            return true; // noted, see `store::Contents::marks`
        }
        let Ok(message) = Message::decode(record) else { return false };
        let ids = self.kinds.iter().map(|kind| AggregateId { kind, key: message.key.clone() });
        if *record.topic == *self.commands {
            let body = body_digest(&message);
            let claims = |id| self.contents.claims.get(&ClaimKey::of(&id, &message));
            // The same id with another body is no repeat.
            return ids.filter_map(claims).flatten().any(|claim| claim.body == body);
        }
        let handled = self.foreign.iter().find(|(topic, _)| **topic == *record.topic);
        if !handled.is_some_and(|(_, handled)| handled.iter().any(|name| **name == *message.r#type)) {
            return true;
        }
        let applied = |id: AggregateId| self.contents.states.get(&id)?.sources.get(&*message.source).copied();
        ids.filter_map(applied).any(|sequence| message.sequence.is_some_and(|own| own <= sequence))
    }

    /// I7: each dead letter's record is on its way to the DLQ, with the bytes that came.
    fn dead_letters_are_whole(&mut self) {
        let rows: BTreeMap<Uuid, &OutboxRow> = self.contents.outbox.values().map(|row| (row.draft.id, row)).collect();
        let mut found = Vec::new();
        for letter in &self.contents.dead_letters {
            let place = format!("dead letter of {}-{}@{}", letter.topic, letter.partition, letter.offset);
            match rows.get(&letter.id).filter(|row| *row.draft.topic == *self.dlq) {
                None => found.push(format!("{place}: no row for {}", self.dlq)),
                Some(row) => {
                    let records = self.log.records(&letter.topic, letter.partition);
                    let original = records.iter().find(|record| record.offset == letter.offset);
                    if original.is_some_and(|from| (&from.key, &from.value) != (&row.draft.key, &row.draft.value)) {
                        found.push(format!("{place}: not the bytes that came"));
                    }
                }
            }
        }
        for detail in found {
            self.report(Invariant::NothingVanishes, detail);
        }
    }

    /// I8: nothing is left to read or to publish.
    fn everything_has_converged(&mut self) {
        let mut found = Vec::new();
        for (partition, row) in &self.contents.partitions {
            if row.outbox_cursor != row.outbox_head {
                found.push(format!("partition {partition}: published {} of {}", row.outbox_cursor, row.outbox_head));
            }
        }
        for topic in self.inputs() {
            for (partition, next) in self.consumed(&topic) {
                let left = self.log.records(&topic, partition).iter().filter(|record| record.offset >= next).count();
                if left > 0 {
                    found.push(format!("{topic}-{partition}: {left} records not consumed"));
                }
            }
        }
        let mut published: BTreeSet<(String, PartitionId, Uuid)> = BTreeSet::new();
        for topic in self.log.topics() {
            let records = self.log.all_records(&topic);
            published.extend(
                records.iter().filter_map(|record| Some((topic.clone(), record.partition, watch::row_id(record)?))),
            );
        }
        for row in self.contents.outbox.values() {
            let (topic, target, id) = (&row.draft.topic, row.draft.target, row.draft.id);
            let is_cut = self.log.bounds(topic, target).is_some_and(|(start, _)| start > 0);
            if !is_cut && !published.contains(&(topic.to_string(), target, id)) {
                found.push(format!("row {}/{} ({id}) is not in {topic}-{target}", row.partition, row.sequence));
            }
        }
        for detail in found {
            self.report(Invariant::Convergence, detail);
        }
    }
}

/// An outbox row as the record that it becomes.
fn as_record(row: &OutboxRow) -> Record {
    Record {
        topic: row.draft.topic.clone(),
        partition: row.draft.target,
        offset: row.sequence,
        timestamp: None,
        key: row.draft.key.clone(),
        headers: row.draft.headers.clone(),
        value: row.draft.value.clone(),
    }
}
