//! The store of a simulation: rows, aggregates, claims, mail, timers and dead letters, with every answer a
//! commit can have.
//!
//! Invariants checked as it is written to: a version is the one expected (I2, I3), a stale fence writes
//! nothing (I4), and what the relays publish is in version order for each aggregate (I3). Deliberately
//! absent: SQL, and relays that fail.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    batch::Fence,
    epoch::{Epoch, Generation, PartitionRow, Token},
    growth::{Counts, Growth, Step},
    port::store::{CommitError, Committed},
};
use holdfast_machine::{
    Rules,
    lane::{Own, serves},
};
use uuid::Uuid;

use super::{Letter, Nature};
use crate::Dice;

pub(super) const TOPIC: &str = "commands";

/// Aggregates, and the version that each event gave its own.
type Events = Vec<(Arc<str>, usize)>;

/// What one part of a commit writes.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub partition: PartitionId,
    pub key: Arc<str>,
    /// The version that the actor decided on, and what it applied.
    pub applied: Option<(u64, Vec<u64>)>,
    /// The same if the condition is refused.
    pub refused: Option<Vec<u64>>,
    /// Claims, and whether what is claimed was applied. If there is a condition, the last one was applied if
    /// it is granted.
    pub claims: Vec<(u64, bool)>,
    pub removed: Vec<i64>,
    pub put: Option<(Letter, u32, Duration)>,
    pub deferred: Option<(i64, u32, Duration)>,
    pub dead: Option<u64>,
    /// The offset of a record that is put or dead.
    pub offset: Option<u64>,
    /// The store refuses it, unless it is the raw bytes.
    pub is_refused: bool,
}

impl Write {
    pub fn new(partition: PartitionId, key: Arc<str>) -> Self {
        Self {
            partition,
            key,
            applied: None,
            refused: None,
            claims: Vec::new(),
            removed: Vec::new(),
            put: None,
            deferred: None,
            dead: None,
            offset: None,
            is_refused: false,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub letter: Letter,
    pub attempts: u32,
    pub since: Duration,
    pub due: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Store {
    rows: BTreeMap<PartitionId, PartitionRow>,
    /// For each aggregate the messages that it has applied, in order.
    pub aggregates: BTreeMap<Arc<str>, Vec<u64>>,
    /// Each claim, and whether what is claimed was applied.
    pub claims: BTreeMap<u64, bool>,
    pub mailbox: BTreeMap<i64, Row>,
    position: i64,
    pub dead: BTreeSet<u64>,
    stock: u64,
    pub away_until: Duration,
    generations: BTreeMap<Generation, u32>,
    acknowledged: BTreeMap<(PartitionId, Generation), u64>,
    /// What the topic has grown to, count by count.
    grown_to: Vec<u32>,
    /// The ownership under which each partition was taken last, by its number.
    terms: BTreeMap<PartitionId, u64>,
    /// For each partition the commits whose events are not published: aggregates and versions.
    outbox: BTreeMap<PartitionId, VecDeque<Events>>,
    /// The version up to which each aggregate's events are published.
    published: BTreeMap<Arc<str>, usize>,
}

impl Store {
    pub fn new(count: u32) -> Self {
        Self {
            rows: (0..count).map(|n| (PartitionId(n), PartitionRow::new(PartitionId(n), Generation(1)))).collect(),
            generations: BTreeMap::from([(Generation(1), count)]),
            acknowledged: BTreeMap::new(),
            grown_to: Vec::new(),
            terms: BTreeMap::new(),
            outbox: BTreeMap::new(),
            published: BTreeMap::new(),
            aggregates: BTreeMap::new(),
            claims: BTreeMap::new(),
            mailbox: BTreeMap::new(),
            position: 0,
            dead: BTreeSet::new(),
            stock: 10,
            away_until: Duration::ZERO,
        }
    }

    pub fn partitions(&self) -> Vec<PartitionId> {
        self.rows.keys().copied().collect()
    }

    /// The count in force.
    pub fn count(&self) -> u32 {
        self.generations.last_key_value().map_or(1, |(_, count)| *count)
    }

    /// Makes rows for the partitions that the topic has grown to.
    pub fn grow(&mut self, count: u32) {
        let in_force = self.generations.last_key_value().map_or(Generation(1), |(generation, _)| *generation);
        for n in 0..count {
            self.rows.entry(PartitionId(n)).or_insert_with(|| PartitionRow::new(PartitionId(n), in_force));
        }
        self.grown_to.push(count);
    }

    /// Puts a count in force, on all rows at once.
    pub fn bump(&mut self, count: u32) {
        let newest = self.generations.last_key_value().map_or(Generation(0), |(generation, _)| *generation);
        let generation = Generation(newest.0 + 1);
        self.generations.insert(generation, count);
        for row in self.rows.values_mut() {
            row.generation = generation;
        }
    }

    /// The counts that are, or were, in force.
    pub fn counts(&self) -> Vec<u32> {
        self.generations.values().copied().collect()
    }

    pub fn growth(&self) -> Growth {
        let first = self.generations[&Generation(1)];
        let step = |count| Step { count, ..Step::default() };
        let counts = Counts { first, steps: self.grown_to.iter().copied().map(step).collect() };
        Growth {
            topics: BTreeMap::from([(TOPIC.to_owned(), counts)]),
            generations: self.generations.clone(),
            acknowledged: self.acknowledged.clone(),
            rows: self.rows(),
        }
    }

    pub fn acknowledge(
        &mut self,
        partition: PartitionId,
        token: Token,
        generation: Generation,
    ) -> Option<PartitionRow> {
        let row = self.rows.get_mut(&partition).expect("a partition of the topic");
        if row.token != Some(token) || row.generation != generation {
            return None;
        }
        self.acknowledged.entry((partition, generation)).or_insert(row.outbox_head);
        Some(row.clone())
    }

    pub fn take(&mut self, partition: PartitionId, term: u64, rules: Rules, dice: &mut Dice) -> Own {
        let token = draw(dice);
        let row = self.rows.get_mut(&partition).expect("a partition of the topic");
        row.epoch = Epoch(row.epoch.0 + 1);
        row.token = Some(token);
        self.terms.insert(partition, term);
        let (generation, batch, outbox_head) = (row.generation, row.batch, row.outbox_head);
        // A taker acknowledges when it begins.
        self.acknowledged.entry((partition, generation)).or_insert(outbox_head);
        let count = self.generations[&generation];
        let is_serving = serves(rules, &self.growth(), partition, generation);
        Own { partition, term, token, generation, count, is_serving, batch, outbox_head }
    }

    pub fn rows(&self) -> Vec<PartitionRow> {
        self.rows.values().cloned().collect()
    }

    pub fn next_offset(&self, partition: PartitionId) -> Option<u64> {
        self.rows[&partition].next_offset(TOPIC)
    }

    pub fn retoken(&mut self, held: &[(PartitionId, Token)], dice: &mut Dice) -> Vec<PartitionRow> {
        let mut rows = Vec::new();
        for (partition, token) in held {
            let fresh = draw(dice);
            let row = self.rows.get_mut(partition).expect("a partition of the topic");
            if row.token == Some(*token) {
                row.token = Some(fresh);
                rows.push(row.clone());
            }
        }
        rows
    }

    /// Whether this is the ownership under which a partition was taken last. It stands for the lease, which
    /// ends before another begins.
    pub fn is_owned(&self, partition: PartitionId, term: u64) -> bool {
        self.terms.get(&partition) == Some(&term)
    }

    pub fn version(&self, key: &str) -> usize {
        self.aggregates.get(key).map_or(0, Vec::len)
    }

    pub fn outbox_is_empty(&self) -> bool {
        self.outbox.values().all(VecDeque::is_empty)
    }

    /// The relay of a partition publishes the events of its oldest commits.
    pub fn publish(&mut self, partition: PartitionId, commits: usize) -> Option<(&'static str, String)> {
        let outbox = self.outbox.get_mut(&partition)?;
        for _ in 0..commits {
            let Some(events) = outbox.pop_front() else { break };
            self.rows.get_mut(&partition).expect("a partition of the topic").outbox_cursor += 1;
            for (key, version) in events {
                let before = self.published.insert(key.clone(), version).unwrap_or(0);
                if before + 1 != version {
                    let detail = format!("{partition} publishes version {version} of {key} after {before}");
                    return Some(("I3", detail));
                }
            }
        }
        None
    }

    /// Whether anything of a message is on record.
    pub fn knows(&self, letter: &Letter) -> bool {
        self.claims.contains_key(&letter.id)
            || self.dead.contains(&letter.id)
            || self.mailbox.values().any(|row| row.letter.id == letter.id)
    }

    pub fn mail_is_empty(&self) -> bool {
        self.mailbox.is_empty()
    }

    pub fn mail(&self) -> String {
        format!("{:?}", self.mailbox)
    }

    /// How many messages wait in the mailbox of an aggregate.
    pub fn waiting(&self, key: &str) -> u64 {
        self.mailbox.values().filter(|row| &*row.letter.key == key).count() as u64
    }

    /// The mail of mailboxes whose head is due, each from its head on.
    pub fn due_mail(&self, partitions: &[PartitionId], count: u32, now: Duration) -> Vec<(i64, Row)> {
        let mut heads: BTreeMap<&str, bool> = BTreeMap::new();
        let mut due = Vec::new();
        for (position, row) in &self.mailbox {
            let is_due = *heads.entry(&row.letter.key).or_insert(row.due <= now);
            if is_due && partitions.contains(&row.letter.hash().home(count)) {
                due.push((*position, row.clone()));
            }
        }
        due
    }

    /// Commits, or doesn't. A violation is what the store itself sees.
    pub fn commit(
        &mut self,
        fences: &[Fence],
        writes: &[Write],
        now: Duration,
        violations: &mut Vec<(&'static str, String)>,
    ) -> Result<Committed, CommitError> {
        if writes.iter().any(|write| write.is_refused) {
            return Err(CommitError::Data { sqlstate: "22021".into(), message: "refused".into() });
        }
        let holds = |fence: &&Fence| {
            let row = &self.rows[&fence.partition];
            row.token == Some(fence.token) && row.generation == fence.generation && row.batch + 1 == fence.number
        };
        let (held, stale): (Vec<&Fence>, Vec<&Fence>) = fences.iter().partition(holds);
        let held: Vec<Fence> = held.into_iter().cloned().collect();
        let mut committed =
            Committed { stale: stale.iter().map(|fence| fence.partition).collect(), ..Committed::default() };
        let mut events: BTreeMap<PartitionId, Events> = BTreeMap::new();
        for write in writes {
            if !held.iter().any(|fence| fence.partition == write.partition) {
                committed.granted.push(false);
                continue;
            }
            let mut is_granted = true;
            if let Some((expected, applied)) = &write.applied {
                let state = self.aggregates.entry(write.key.clone()).or_default();
                if state.len() as u64 != *expected {
                    let detail = format!("{} has version {} and not {expected}", write.key, state.len());
                    violations.push(("I3", detail));
                    return Err(CommitError::Conflict);
                }
                is_granted = write.refused.is_none() || self.stock > 0;
                if write.refused.is_some() && is_granted {
                    self.stock -= 1;
                }
                let applied = if is_granted { applied } else { write.refused.as_ref().unwrap_or(applied) };
                for id in applied {
                    if state.contains(id) {
                        violations.push(("I2", format!("{id} is applied twice to {}", write.key)));
                    }
                    state.push(*id);
                    let event = (write.key.clone(), state.len());
                    events.entry(write.partition).or_default().push(event);
                }
            }
            committed.granted.push(is_granted);
            let conditional = write.refused.as_ref().and_then(|_| write.claims.last()).map(|(id, _)| *id);
            for (id, is_applied) in &write.claims {
                let is_applied = if conditional == Some(*id) { is_granted } else { *is_applied };
                if self.claims.insert(*id, is_applied).is_some() {
                    violations.push(("I2", format!("{id} is claimed twice")));
                }
            }
            for position in &write.removed {
                self.mailbox.remove(position);
            }
            if let Some((letter, attempts, after)) = &write.put {
                self.position += 1;
                let row = Row { letter: letter.clone(), attempts: *attempts, since: now, due: now + *after };
                self.mailbox.insert(self.position, row);
            }
            if let Some((position, attempts, after)) = &write.deferred
                && let Some(row) = self.mailbox.get_mut(position)
            {
                (row.attempts, row.due) = (*attempts, now + *after);
            }
            self.dead.extend(write.dead);
        }
        for fence in &held {
            let row = self.rows.get_mut(&fence.partition).expect("a partition of the topic");
            row.batch = fence.number;
            row.outbox_head += 1;
            let events = events.remove(&fence.partition).unwrap_or_default();
            self.outbox.entry(fence.partition).or_default().push_back(events);
            for (topic, next) in &fence.consumed {
                row.consumed.retain(|(name, _)| *name != **topic);
                row.consumed.push((topic.to_string(), *next));
            }
            committed.heads.insert(fence.partition, row.outbox_head);
        }
        // What leaves no claim goes with its offset.
        for write in writes.iter().filter(|write| committed.heads.contains_key(&write.partition)) {
            if let Some(offset) = write.offset
                && self.next_offset(write.partition).is_none_or(|next| next <= offset)
            {
                let detail = format!("{} of offset {offset} is written, and the offset is not passed", write.key);
                violations.push(("I2", detail));
            }
        }
        Ok(committed)
    }

    /// I3: an aggregate has applied its records in the order in which they were sent, but for repeats.
    pub fn check_order(&self, topic: &BTreeMap<PartitionId, Vec<Letter>>) -> Option<(&'static str, String)> {
        let sent: BTreeSet<u64> = topic.values().flatten().map(|letter| letter.id).collect();
        for (key, applied) in &self.aggregates {
            let records: Vec<u64> = applied.iter().copied().filter(|id| sent.contains(id)).collect();
            if let Some([later, earlier]) = records.windows(2).find(|pair| pair[0] > pair[1]) {
                return Some(("I3", format!("{key} has applied {later} before {earlier}")));
            }
        }
        let all = topic.values().flatten().find(|letter| {
            !matches!(letter.nature, Nature::Ignored)
                && !self.claims.contains_key(&letter.id)
                && !self.dead.contains(&letter.id)
        });
        all.map(|letter| ("I7", format!("{letter:?} has come to no end")))
    }
}

fn draw(dice: &mut Dice) -> Token {
    Token(Uuid::from_u64_pair(dice.next(), dice.next()))
}
