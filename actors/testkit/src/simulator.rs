//! Lanes on one thread: the machine of production (`holdfast_machine::lane`) over a store, a log, actors and clocks in memory, and one seed that decides
//! everything.
//!
//! The seed decides what arrives, what each question is answered and when, in what order, who loses a partition and who dies. Each question has two
//! moments: when it takes effect in the store, and when its answer comes; anything may happen between them, and the asker may be gone. The same seed gives the
//! same trace, which [`Outcome::digest`] stands for. Invariants are checked at every commit, answer and reply; once faults have ended, everything must come to an
//! end (I8). Deliberately absent so far: the takers and gates (an oracle stands for both: it assigns partitions, and lets a new
//! partition be read once its parent is consumed as far as it went before the growth), relays, timers, effects and other contexts' events.

mod node;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{KeyHash, PartitionId, port::store::CommitError};
use holdfast_machine::{Rules, lane::Input};

use self::{
    node::{Asked, Node, Question},
    store::Store,
};
use crate::Dice;

/// Partitions of the simulated topic before it grows, and afterwards.
const FIRST: u32 = 2;
const GROWN: u32 = 4;
/// Aggregates.
const KEYS: u64 = 6;
/// What happens before faults end.
const STEPS: u32 = 700;
/// What may happen after that until everything is done.
const STEPS_TO_CONVERGE: u32 = 20_000;

/// What a message does when it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It is applied.
    Plain,
    /// It is rejected.
    Rejected,
    /// It is applied if one of a shared quantity is left.
    Conditional,
    /// It needs a look-up in another context, which may fail.
    NeedsLookUp,
    /// Its handler fails this often.
    Flaky(u32),
    /// Its handler fails always.
    Poison,
    /// The store refuses its rows.
    Refused,
    /// No aggregate sees it.
    Junk,
    /// It holds an offset and nothing else.
    Ignored,
}

/// A message of the simulation.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub id: u64,
    pub key: Arc<str>,
    pub nature: Nature,
}

impl Letter {
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.key.as_bytes())
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

/// What one seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first broken promise, if any.
    pub violation: Option<Violation>,
    /// Stands for the whole trace.
    pub digest: u64,
    /// Inputs that machines have handled.
    pub inputs: u64,
    /// The changes of state that messages went through, by name.
    pub edges: BTreeSet<(&'static str, &'static str)>,
    /// How often each kind of input was handled.
    pub seen: BTreeMap<&'static str, u64>,
}

/// One run.
struct World {
    dice: Dice,
    now: Duration,
    store: Store,
    topic: BTreeMap<PartitionId, Vec<Letter>>,
    nodes: Vec<Node>,
    /// The topic's count, and where its first partitions ended when it grew.
    count: u32,
    grown_at: BTreeMap<PartitionId, u64>,
    /// Who is to own what, by number of node; the oracle's word.
    owners: BTreeMap<PartitionId, usize>,
    asked: Vec<Asked>,
    /// Commits of which nobody hears any more, and which may still take effect.
    ghosts: Vec<Question>,
    letters: u64,
    terms: u64,
    rules: Rules,
    has_faults: bool,
    outcome: Outcome,
    trace: Option<Vec<String>>,
}

/// Runs one seed; `trace` keeps every step as a line.
pub fn run(seed: u64, rules: Rules, trace: bool) -> (Outcome, Vec<String>) {
    let outcome = Outcome {
        violation: None,
        digest: 0xcbf2_9ce4_8422_2325,
        inputs: 0,
        edges: BTreeSet::new(),
        seen: BTreeMap::new(),
    };
    let mut world = World {
        dice: Dice::new(seed),
        now: Duration::from_secs(1),
        store: Store::new(FIRST),
        topic: (0..FIRST).map(|n| (PartitionId(n), Vec::new())).collect(),
        count: FIRST,
        grown_at: BTreeMap::new(),
        nodes: Vec::new(),
        owners: BTreeMap::new(),
        asked: Vec::new(),
        ghosts: Vec::new(),
        letters: 0,
        terms: 0,
        rules,
        has_faults: true,
        outcome,
        trace: trace.then(Vec::new),
    };
    world.run();
    (world.outcome, world.trace.unwrap_or_default())
}

impl World {
    fn run(&mut self) {
        for _ in 0..=self.dice.below(2) {
            self.start_node();
        }
        self.assign_all();
        for _ in 0..STEPS {
            if self.outcome.violation.is_some() {
                return;
            }
            self.step();
        }
        self.has_faults = false;
        for _ in 0..STEPS_TO_CONVERGE {
            if self.outcome.violation.is_some() || self.is_done() {
                break;
            }
            self.step();
        }
        if self.outcome.violation.is_none() {
            self.check_end();
        }
    }

    fn start_node(&mut self) {
        let batch = self.dice.pick(&[1, 3, 32]);
        let live = self.dice.pick(&[2, 100]);
        let growth = Arc::new(self.store.growth());
        self.nodes.push(Node::new(batch, live, self.rules, growth));
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        for byte in line.bytes() {
            self.outcome.digest = (self.outcome.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    fn fail(&mut self, invariant: &'static str, detail: String) {
        self.note(|| format!("violated {invariant}: {detail}"));
        self.outcome.violation.get_or_insert(Violation { invariant, detail });
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_alive).collect()
    }

    /// The oracle gives every partition without an owner to a node that lives.
    fn assign_all(&mut self) {
        for partition in self.store.partitions() {
            if !self.owners.contains_key(&partition) {
                let alive = self.alive();
                if alive.is_empty() {
                    self.start_node();
                }
                let alive = self.alive();
                let node = alive[self.dice.index(alive.len())];
                self.take(partition, node);
            }
        }
    }

    /// A node takes a partition: its token is drawn, and whoever held it before is fenced.
    fn take(&mut self, partition: PartitionId, node: usize) {
        self.terms += 1;
        let own = self.store.take(partition, self.terms, self.rules, &mut self.dice);
        self.note(|| format!("node {node} takes {partition}, term {}", own.term));
        self.owners.insert(partition, node);
        self.nodes[node].read_from(partition, self.terms, self.store.next_offset(partition), own.is_serving);
        self.hand_in(node, Input::Own(own));
    }

    /// One thing happens.
    fn step(&mut self) {
        let what = self.dice.below(100);
        match what {
            0..=11 if self.has_faults => self.send(),
            12..=14 if self.has_faults => self.call(),
            15 if self.has_faults => self.read(),
            16 if self.has_faults => self.disturb(),
            17 => self.change_counts(),
            18..=19 => self.haunt(),
            20..=39 => self.fetch(),
            40..=46 => self.pass_time(),
            _ => self.answer(),
        }
    }

    /// The topic grows; then the count is put in force; and nodes hear of either, sooner or later.
    fn change_counts(&mut self) {
        if self.has_faults && self.count == FIRST && self.dice.one_in(4) {
            self.count = GROWN;
            self.grown_at = self.topic.iter().map(|(partition, records)| (*partition, records.len() as u64)).collect();
            self.topic.extend((FIRST..GROWN).map(|n| (PartitionId(n), Vec::new())));
            self.store.grow(GROWN);
            self.note(|| "the topic grows".to_owned());
            self.assign_all();
        } else if self.count == GROWN && self.dice.one_in(3) {
            self.store.bump(GROWN);
            self.note(|| "the count is in force".to_owned());
        }
        self.tell_counts();
    }

    fn tell_counts(&mut self) {
        let growth = Arc::new(self.store.growth());
        for node in self.alive() {
            if self.dice.one_in(2) {
                self.hand_in(node, Input::Counted(growth.clone()));
            }
        }
    }

    /// The home of a key, by the count in force.
    fn home(&self, key: &str) -> PartitionId {
        KeyHash::of(key.as_bytes()).home(self.store.count())
    }

    fn any_key(&mut self) -> Arc<str> {
        format!("k{}", self.dice.below(KEYS)).into()
    }

    fn any_nature(&mut self) -> Nature {
        match self.dice.below(40) {
            0..=1 => Nature::Rejected,
            2..=5 => Nature::Conditional,
            6..=9 => Nature::NeedsLookUp,
            10 => Nature::Flaky(1 + u32::try_from(self.dice.below(2)).expect("small")),
            11 => Nature::Poison,
            12 => Nature::Refused,
            13 => Nature::Junk,
            14 => Nature::Ignored,
            _ => Nature::Plain,
        }
    }

    /// A producer sends a record, or one that it has sent before.
    fn send(&mut self) {
        let key = self.any_key();
        let partition = KeyHash::of(key.as_bytes()).home(self.count);
        let records = self.topic.entry(partition).or_default();
        let repeat =
            (!records.is_empty() && self.dice.one_in(10)).then(|| records[self.dice.index(records.len())].clone());
        let offset = records.len() as u64;
        let letter = repeat.unwrap_or_else(|| {
            self.letters += 1;
            Letter { id: self.letters, key, nature: self.any_nature() }
        });
        self.note(|| format!("sent to {partition} at {offset}: {letter:?}"));
        self.topic.entry(partition).or_default().push(letter);
    }

    /// Somebody calls the owner of a key.
    fn call(&mut self) {
        let key = self.any_key();
        let partition = self.home(&key);
        let Some(node) = self.owners.get(&partition).copied() else { return };
        self.letters += 1;
        let nature = match self.any_nature() {
            Nature::Junk | Nature::Ignored => Nature::Plain,
            nature => nature,
        };
        let letter = Letter { id: self.letters, key, nature };
        self.note(|| format!("called {letter:?}"));
        let arrival = self.nodes[node].called(partition, letter);
        self.hand_in(node, Input::Arrived(arrival));
    }

    /// Somebody asks for the state of an aggregate that is not in memory.
    fn read(&mut self) {
        let key = self.any_key();
        let partition = self.home(&key);
        let Some(node) = self.owners.get(&partition).copied() else { return };
        self.note(|| format!("read {key}"));
        let arrival = self.nodes[node].asked_for(partition, &key);
        self.hand_in(node, Input::Arrived(arrival));
    }

    /// A reader hands on the next record of a partition.
    fn fetch(&mut self) {
        let alive = self.alive();
        let Some(node) = (!alive.is_empty()).then(|| alive[self.dice.index(alive.len())]) else { return };
        let readers = self.nodes[node].readers();
        let Some(partition) = (!readers.is_empty()).then(|| readers[self.dice.index(readers.len())]) else { return };
        // What the gate says.
        let parent = PartitionId(partition.0 % FIRST);
        let is_open = partition.0 < FIRST
            || self.store.next_offset(parent).unwrap_or(0) >= self.grown_at.get(&parent).copied().unwrap_or(0)
                && self.nodes[node].is_serving(partition);
        if !is_open {
            return;
        }
        if let Some(arrival) = self.nodes[node].fetch(partition, &self.topic[&partition]) {
            self.hand_in(node, Input::Arrived(arrival));
        }
    }

    fn pass_time(&mut self) {
        let due = self.alive().into_iter().filter_map(|node| self.nodes[node].due()).min();
        let by = match due {
            Some(due) if self.dice.chance(70) => due.saturating_sub(self.now),
            _ => Duration::from_millis(self.dice.below(400)),
        };
        self.now += by;
        for node in self.alive() {
            self.turn(node);
        }
    }

    /// A partition moves, a node dies or comes, or the store goes away for a while.
    fn disturb(&mut self) {
        let partition = PartitionId(u32::try_from(self.dice.below(u64::from(self.count))).expect("small"));
        match self.dice.below(6) {
            0 => {
                // The group has moved it; the old owner does not know yet.
                let alive = self.alive();
                let node = alive[self.dice.index(alive.len())];
                if self.owners.get(&partition) != Some(&node) {
                    self.take(partition, node);
                }
            }
            1 | 2 => {
                // In good order: the old owner finishes first, or is told to drop.
                if let Some(node) = self.owners.get(&partition).copied()
                    && let Some(term) = self.nodes[node].term(partition)
                {
                    let is_released = self.dice.one_in(2);
                    self.note(|| format!("node {node} lets go of {partition}, in good order: {is_released}"));
                    self.nodes[node].stop_reading(partition);
                    if is_released {
                        self.hand_in(node, Input::Release { partition, term });
                    } else {
                        self.owners.remove(&partition);
                        self.hand_in(node, Input::Drop { partition, term });
                        self.assign_all();
                    }
                }
            }
            3 if self.alive().len() > 1 || self.dice.one_in(2) => {
                let alive = self.alive();
                let node = alive[self.dice.index(alive.len())];
                self.note(|| format!("node {node} dies"));
                self.nodes[node].is_alive = false;
                self.owners.retain(|_, owner| *owner != node);
                self.start_node();
                self.assign_all();
            }
            4 => {
                self.start_node();
            }
            _ => {
                self.store.away_until = self.now + Duration::from_millis(self.dice.below(2_000));
                self.note(|| "the store is away".to_owned());
            }
        }
    }

    /// A question takes effect, or its answer comes.
    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let at = self.dice.index(self.asked.len());
        let mut asked = self.asked.swap_remove(at);
        match asked.answer.take() {
            None => {
                self.take_effect(&mut asked);
                if self.nodes[asked.node].is_alive {
                    self.asked.push(asked);
                }
            }
            Some(input) => {
                if self.nodes[asked.node].is_alive {
                    self.hand_in(asked.node, input);
                }
            }
        }
    }

    /// A commit that was lost on its way arrives after all.
    fn haunt(&mut self) {
        if self.ghosts.is_empty() {
            return;
        }
        let ghost = self.ghosts.swap_remove(self.dice.index(self.ghosts.len()));
        if let Question::Commit { fences, writes, .. } = ghost {
            let mut violations = Vec::new();
            let result = self.store.commit(&fences, &writes, self.now, &mut violations);
            self.note(|| format!("a lost commit arrives: {result:?}"));
            for (invariant, detail) in violations {
                self.fail(invariant, detail);
            }
            self.check_consumed();
        }
    }

    fn take_effect(&mut self, asked: &mut Asked) {
        let is_away = self.has_faults && self.now < self.store.away_until;
        let node = &mut self.nodes[asked.node];
        let (answer, violations) =
            node.take_effect(asked, &mut self.store, &mut self.dice, self.has_faults, is_away, self.now);
        self.note(|| format!("took effect: {answer:?}"));
        if let Input::Committed { result: Err(CommitError::Unknown(_)), .. } = &answer
            && self.dice.one_in(2)
        {
            self.ghosts.push(asked.question.clone());
        }
        asked.answer = Some(answer);
        for (invariant, detail) in violations {
            self.fail(invariant, detail);
        }
        self.check_consumed();
    }

    fn hand_in(&mut self, node: usize, input: Input) {
        self.handle(node, input);
        // The shell always says so in the end; what else is at hand may come first.
        if self.dice.chance(75) {
            self.turn(node);
        }
    }

    fn turn(&mut self, node: usize) {
        self.handle(node, Input::Turn);
    }

    fn handle(&mut self, node: usize, input: Input) {
        self.outcome.inputs += 1;
        *self.outcome.seen.entry(node::name(&input)).or_default() += 1;
        let shown = format!("node {node} at {:?}: {input:?}", self.now);
        let happened = self.nodes[node].handle(input, self.now, &self.store, &mut self.outcome.edges);
        self.note(|| format!("{shown} -> {:?}", happened.actions));
        for (invariant, detail) in happened.violations {
            self.fail(invariant, detail);
        }
        self.asked.extend(happened.asked.into_iter().map(|question| Asked { node, question, answer: None }));
        let mut is_free = false;
        for (partition, term) in happened.lost {
            if self.nodes[node].term(partition) != Some(term) {
                continue; // it is owned again
            }
            self.nodes[node].forget(partition);
            self.nodes[node].stop_reading(partition);
            if self.owners.get(&partition) == Some(&node) {
                self.owners.remove(&partition);
                is_free = true;
            }
        }
        if is_free {
            self.assign_all();
        }
        if happened.wants_counts && self.dice.one_in(20) {
            let growth = Arc::new(self.store.growth());
            self.note(|| format!("node {node} hears of the counts"));
            self.handle(node, Input::Counted(growth));
        }
    }

    /// I7: every offset below the consumed one was applied, rejected, put in a mailbox, or became a dead letter.
    fn check_consumed(&mut self) {
        for (partition, records) in &self.topic {
            let next = self.store.next_offset(*partition).unwrap_or(0);
            let lost = records
                .iter()
                .take(usize::try_from(next).expect("small"))
                .find(|letter| !matches!(letter.nature, Nature::Ignored) && !self.store.knows(letter));
            if let Some(letter) = lost {
                let detail = format!("{letter:?} was passed, and nothing knows it");
                return self.fail("I7", detail);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.topic
            .iter()
            .all(|(partition, records)| self.store.next_offset(*partition).unwrap_or(0) >= records.len() as u64)
            && self.store.mail_is_empty()
            && self.alive().into_iter().all(|node| self.nodes[node].waits_for_nothing())
    }

    fn check_end(&mut self) {
        if !self.is_done() {
            let offsets: Vec<_> = self
                .topic
                .iter()
                .map(|(partition, records)| (*partition, self.store.next_offset(*partition), records.len()))
                .collect();
            let waiting: Vec<String> = self.alive().into_iter().map(|node| self.nodes[node].left_over()).collect();
            return self.fail("I8", format!("not done: {offsets:?}, {}; {waiting:?}", self.store.mail()));
        }
        if let Some((invariant, detail)) = self.store.check_order(&self.topic) {
            self.fail(invariant, detail);
        }
    }
}
