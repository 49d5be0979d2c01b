//! The store of a simulation: rows, aggregates, claims, mail, timers, effects and dead letters, with every
//! answer a commit can have.
//!
//! Invariants checked as it is written to: a version is the one expected (I3), a stale fence writes nothing
//! (I4), nothing is applied, claimed, put or made a dead letter twice (I2), and what leaves no claim goes
//! with its offset (I2). Deliberately absent: SQL.

mod growth;
mod owners;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    batch::Fence,
    dedup::Claim,
    epoch::{Beat, Generation, PartitionRow, Token},
    port::store::{CommitError, Committed},
    ring::{Pushed, Ring},
};
use holdfast_machine::lane::Claims;

use self::growth::Noticed;
pub(super) use self::owners::draw;
use super::{
    EVENT, Letter,
    log::{COMMANDS, Events, Input, Log, SALES},
};

/// How long an attempt at an effect may take before it is made again.
const EFFECT_HOLD: Duration = Duration::from_secs(1);

/// Where a message came from, if that is written with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Record(Input, u64),
    Mail(i64),
}

/// What a commit does to an aggregate's timer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    Set(Duration),
    /// This setting has fired.
    Fired(u64),
    PutOff(u64, Duration),
}

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
    /// What stands of the aggregate's claims from then on, and the same if the condition is refused.
    pub kept: Option<[Pushed; 2]>,
    pub removed: Vec<i64>,
    pub put: Option<(Letter, u32, Duration)>,
    pub deferred: Option<(i64, u32, Duration)>,
    pub dead: Option<u64>,
    /// Where a message that is put or dead came from.
    pub source: Option<Source>,
    pub timers: Vec<Timer>,
    /// Effects that are intended, and those that have ended.
    pub intended: Vec<u64>,
    pub ended: Vec<u64>,
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
            kept: None,
            removed: Vec::new(),
            put: None,
            deferred: None,
            dead: None,
            source: None,
            timers: Vec::new(),
            intended: Vec::new(),
            ended: Vec::new(),
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

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    rows: BTreeMap<PartitionId, PartitionRow>,
    beats: BTreeMap<String, Beat>,
    /// For each aggregate the messages that it has applied, in order.
    pub aggregates: BTreeMap<Arc<str>, Vec<u64>>,
    /// Each claim that was ever made, and whether what is claimed was applied.
    pub claims: BTreeMap<u64, bool>,
    /// The rings of aggregates, also of those that have only refused.
    rings: BTreeMap<Arc<str>, Ring>,
    /// What was pushed out of them, and out of whose.
    pub pushed_out: BTreeMap<u64, Claim>,
    spilled: BTreeSet<Arc<str>>,
    mailbox: BTreeMap<i64, Row>,
    position: i64,
    dead: BTreeSet<u64>,
    /// What was put into a mailbox, or has become a dead letter.
    disposed: BTreeSet<Source>,
    /// Each aggregate's timer: the number of its setting, and when it is due.
    timers: BTreeMap<Arc<str>, (u64, Duration)>,
    serial: u64,
    /// Effects that have not ended: whose they are, and when they are attempted again.
    effects: BTreeMap<u64, (Arc<str>, Duration)>,
    stock: u64,
    pub away_until: Duration,
    /// By how much the store's clock is ahead.
    pub is_ahead: Duration,
    topics: BTreeMap<&'static str, (u32, Vec<Noticed>)>,
    marks: BTreeMap<Input, u32>,
    generations: BTreeMap<Generation, u32>,
    acknowledged: BTreeMap<(PartitionId, Generation), u64>,
    /// Rows of the outbox, one for each event; that of an acknowledgement has none.
    outbox: BTreeMap<(PartitionId, u64), Events>,
}

impl Store {
    pub fn new(count: u32) -> Self {
        let mut store = Self { stock: 10, is_ahead: Duration::from_secs(10), ..Self::default() };
        store.register(&[COMMANDS, SALES], count);
        store
    }

    pub fn next_offset(&self, (topic, partition): Input) -> u64 {
        self.rows.get(&partition).and_then(|row| row.next_offset(topic)).unwrap_or(0)
    }

    pub fn version(&self, key: &str) -> usize {
        self.aggregates.get(key).map_or(0, Vec::len)
    }

    pub fn outbox(&self, partition: PartitionId, sequence: u64) -> Option<&Events> {
        self.outbox.get(&(partition, sequence))
    }

    /// A row behind `head` that has events, if the partition is still held under `token`. One without is the
    /// mark of an acknowledgement whose answer has not come, and the next owner's to publish.
    pub fn events_after(&self, partition: PartitionId, head: u64, token: Token) -> Option<u64> {
        let is_held = self.token(partition) == Some(token);
        let rows = self.outbox.range((partition, head + 1)..=(partition, u64::MAX)).filter(|_| is_held);
        rows.filter(|(_, events)| !events.is_empty()).map(|((_, row), _)| *row).next()
    }

    /// What is not done: rows that are not published, mail, timers and effects.
    pub fn left_over(&self) -> Vec<String> {
        let behind = self.rows.values().filter(|row| row.outbox_cursor < row.outbox_head);
        let behind =
            behind.map(|row| format!("{}: published {} of {}", row.partition, row.outbox_cursor, row.outbox_head));
        let mail = self.mailbox.values().map(|row| format!("{row:?}"));
        let timers = self.timers.iter().map(|timer| format!("timer {timer:?}"));
        let effects = self.effects.iter().map(|effect| format!("effect {effect:?}"));
        behind.chain(mail).chain(timers).chain(effects).collect()
    }

    pub fn is_done(&self) -> bool {
        self.mailbox.is_empty()
            && self.timers.is_empty()
            && self.effects.is_empty()
            && self.rows.values().all(|row| row.outbox_cursor == row.outbox_head)
    }

    /// Whether anything of a message is on record.
    pub fn knows(&self, letter: &Letter) -> bool {
        self.is_ended(letter) || self.mailbox.values().any(|row| row.letter.id == letter.id)
    }

    /// Whether a message has come to its end.
    fn is_ended(&self, letter: &Letter) -> bool {
        self.claims.contains_key(&letter.id)
            || self.dead.contains(&letter.id)
            || letter.is_event() && self.aggregates.get(&letter.key).is_some_and(|applied| applied.contains(&letter.id))
    }

    /// What is known of the claims of an aggregate.
    pub fn claims_of(&self, key: &str) -> Claims {
        let ring = self.rings.get(key).cloned().unwrap_or_default();
        Claims { ring, has_spilled: self.spilled.contains(key) }
    }

    /// How many messages wait in the mailbox of an aggregate.
    pub fn waiting(&self, key: &str) -> u64 {
        self.mailbox.values().filter(|row| &*row.letter.key == key).count() as u64
    }

    /// The mail of mailboxes whose head is due, each from its head on, up to a limit.
    pub fn due_mail(&self, is_here: impl Fn(&str) -> bool, limit: usize, now: Duration) -> Vec<(i64, Row)> {
        let mut heads: BTreeMap<&str, bool> = BTreeMap::new();
        let mut due = Vec::new();
        for (position, row) in &self.mailbox {
            let is_due = *heads.entry(&row.letter.key).or_insert(row.due <= now + self.is_ahead);
            if is_due && is_here(&row.letter.key) && due.len() < limit {
                due.push((*position, row.clone()));
            }
        }
        due
    }

    /// Timers that are due, with the numbers of their settings.
    pub fn due_timers(&self, is_here: impl Fn(&str) -> bool, now: Duration) -> Vec<(Arc<str>, u64)> {
        let is_due = |(key, (_, due)): &(&Arc<str>, &(u64, Duration))| *due <= now + self.is_ahead && is_here(key);
        self.timers.iter().filter(is_due).map(|(key, (serial, _))| (key.clone(), *serial)).collect()
    }

    /// Effects whose attempts have been lost, or are to be made again.
    pub fn due_effects(&mut self, is_here: impl Fn(&str) -> bool, now: Duration) -> Vec<(Arc<str>, u64)> {
        let now = now + self.is_ahead;
        let mut found = Vec::new();
        for (effect, (key, due)) in self.effects.iter_mut().filter(|(_, (key, due))| *due <= now && is_here(key)) {
            *due = now + EFFECT_HOLD;
            found.push((key.clone(), *effect));
        }
        found
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
            let is_held = held.iter().any(|fence| fence.partition == write.partition);
            let is_granted = is_held && self.write(write, now, &mut events, violations)?;
            committed.granted.push(is_granted);
        }
        for fence in &held {
            let row = self.rows.get_mut(&fence.partition).expect("a partition of the topic");
            row.batch = fence.number;
            row.outbox_cursor = row.outbox_cursor.max(fence.cursor.unwrap_or(0));
            for event in events.remove(&fence.partition).unwrap_or_default() {
                row.outbox_head += 1;
                self.outbox.insert((fence.partition, row.outbox_head), vec![event]);
            }
            for (topic, next) in &fence.consumed {
                row.consumed.retain(|(name, _)| *name != **topic);
                row.consumed.push((topic.to_string(), *next));
            }
            committed.heads.insert(fence.partition, row.outbox_head);
        }
        for write in writes.iter().filter(|write| committed.heads.contains_key(&write.partition)) {
            if let Some(Source::Record(input, offset)) = write.source
                && self.next_offset(input) <= offset
            {
                let detail = format!("{} of offset {offset} is written, and the offset is not passed", write.key);
                violations.push(("I2", detail));
            }
        }
        Ok(committed)
    }

    /// Writes one part, and says whether its condition is granted.
    fn write(
        &mut self,
        write: &Write,
        now: Duration,
        events: &mut BTreeMap<PartitionId, Events>,
        violations: &mut Vec<(&'static str, String)>,
    ) -> Result<bool, CommitError> {
        let mut is_granted = true;
        if let Some((expected, applied)) = &write.applied {
            let state = self.aggregates.entry(write.key.clone()).or_default();
            if state.len() as u64 != *expected {
                violations.push(("I3", format!("{} has version {} and not {expected}", write.key, state.len())));
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
                events.entry(write.partition).or_default().push((write.key.clone(), state.len()));
            }
        }
        let conditional = write.refused.as_ref().and_then(|_| write.claims.last()).map(|(id, _)| *id);
        for (id, is_applied) in &write.claims {
            let is_applied = if conditional == Some(*id) { is_granted } else { *is_applied };
            if self.claims.insert(*id, is_applied).is_some() {
                violations.push(("I2", format!("{id} is claimed twice")));
            }
        }
        if let Some(kept) = &write.kept {
            let Pushed { ring, out, spills } = &kept[usize::from(!is_granted)];
            self.rings.insert(write.key.clone(), ring.clone());
            self.pushed_out.extend(out.iter().map(|claim| (claim.key.id.as_u64_pair().1, claim.clone())));
            self.spilled.extend(spills.then(|| write.key.clone()));
        }
        if let Some(source) = write.source
            && !self.disposed.insert(source)
        {
            violations.push(("I2", format!("{source:?} is put, or dead, twice")));
        }
        for position in &write.removed {
            self.mailbox.remove(position);
        }
        if let Some((letter, attempts, after)) = &write.put {
            self.position += 1;
            let (attempts, since) = (*attempts, now + self.is_ahead);
            self.mailbox.insert(self.position, Row { letter: letter.clone(), attempts, since, due: since + *after });
        }
        if let Some((position, attempts, after)) = &write.deferred
            && let Some(row) = self.mailbox.get_mut(position)
        {
            (row.attempts, row.due) = (*attempts, now + self.is_ahead + *after);
        }
        self.dead.extend(write.dead);
        for timer in &write.timers {
            self.write_timer(&write.key, *timer, now, violations);
        }
        let due = now + self.is_ahead + EFFECT_HOLD;
        self.effects.extend(write.intended.iter().map(|effect| (*effect, (write.key.clone(), due))));
        for effect in &write.ended {
            self.effects.remove(effect);
        }
        Ok(is_granted)
    }

    fn write_timer(
        &mut self,
        key: &Arc<str>,
        timer: Timer,
        now: Duration,
        violations: &mut Vec<(&'static str, String)>,
    ) {
        let now = now + self.is_ahead;
        let known = self.timers.get_mut(key);
        match timer {
            Timer::Set(after) => {
                self.serial += 1;
                self.timers.insert(key.clone(), (self.serial, now + after));
            }
            Timer::PutOff(serial, after) => {
                if let Some((known, due)) = known
                    && *known == serial
                {
                    *due = now + after;
                }
            }
            Timer::Fired(serial) => {
                if known.is_some_and(|(known, _)| *known == serial) {
                    self.timers.remove(key);
                } else {
                    violations.push(("I2", format!("setting {serial} of {key}'s timer fires, and is not the last")));
                }
            }
        }
    }

    /// Whether an effect was ever intended.
    pub fn has_intended(&self, key: &str, effect: u64) -> bool {
        self.aggregates.get(key).is_some_and(|applied| applied.contains(&effect))
    }

    /// An effect that failed is attempted again.
    pub fn put_off_effect(&mut self, effect: u64, now: Duration, after: Duration) {
        if let Some((_, due)) = self.effects.get_mut(&effect) {
            *due = now + self.is_ahead + after;
        }
    }

    /// I3: an aggregate has applied the records of each topic in the order in which they were sent, but for
    /// repeats and for what was sent again after it had become a dead letter. I7: every record has come to
    /// its end.
    pub fn check_order(&self, log: &Log) -> Option<(&'static str, String)> {
        let of = |topic| log.inputs().filter(move |(of, _)| *of == topic).flat_map(|input| log.records(input));
        for topic in [COMMANDS, SALES] {
            let sent = of(topic).map(|letter| letter.id).filter(|id| !self.dead.contains(id));
            let sent: BTreeSet<u64> = sent.collect();
            for (key, applied) in &self.aggregates {
                let records: Vec<u64> = applied.iter().copied().filter(|id| sent.contains(id)).collect();
                if let Some([later, earlier]) = records.windows(2).find(|pair| pair[0] > pair[1]) {
                    return Some(("I3", format!("{key} has applied {later} before {earlier}")));
                }
            }
            let times = of(topic).map(|letter| letter.id).fold(BTreeMap::new(), |mut times, id| {
                *times.entry(id).or_insert(0) += 1;
                times
            });
            for (key, applied) in &self.aggregates {
                // That an event was applied shows in the state alone, which can't be read if it is a dead
                // letter.
                let is_twice = |id: &&u64| **id < EVENT && times.get(*id) == Some(&1) && self.dead.contains(*id);
                if let Some(id) = applied.iter().find(is_twice) {
                    return Some(("I2", format!("{id} is applied to {key}, and a dead letter")));
                }
                if log.published(key) != applied.len() {
                    return Some(("I8", format!("{key} is published up to {}", log.published(key))));
                }
            }
            let mut open = of(topic).filter(|letter| !letter.nature.is_ignored() && !self.is_ended(letter));
            if let Some(letter) = open.next() {
                return Some(("I7", format!("{letter:?} has come to no end")));
            }
        }
        None
    }
}
