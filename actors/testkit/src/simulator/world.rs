//! The world of one seed: what happens, when, and to whom.
//!
//! Invariant: everything comes from the dice, and nothing from the order of a hash table, a clock or a
//! thread. Deliberately absent: what is checked, but for what nodes and the store see themselves.

mod clients;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_core::{PartitionId, port::store::CommitError};
use holdfast_machine::lane::Input;

use super::{
    Coverage, Fault, Letter, Outcome, Setup, Violation,
    faults::Faults,
    journal::Journal,
    node::{Asked, Node, Question},
    store::Store,
};
use crate::Dice;

/// Partitions of the simulated topic before it grows.
pub(super) const FIRST: u32 = 2;
/// The number of the first step after faults have ended, however many there were before.
const FIRST_OF_THE_END: u32 = 1_000_000;
/// What may happen after faults have ended, until everything is done.
const STEPS_TO_CONVERGE: u32 = 20_000;

/// What can happen in a step.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Send,
    Call,
    Read,
    Disturb,
    Count,
    ArriveLate,
    Fetch,
    Publish,
    PassTime,
    Answer,
}

/// How often each happens; and how a run is, throughout.
#[derive(Debug)]
struct Habits {
    weights: Vec<(Happening, u64)>,
    /// What the topic grows to, at most.
    grows_to: u32,
    /// Whether time passes to what is due, for the most part.
    leaps: bool,
    /// A node hears of the counts once in this many times that they change, and once in this many times that
    /// it asks.
    hears: (u64, u64),
}

impl Habits {
    fn any(dice: &mut Dice) -> Self {
        let weights = vec![
            (Happening::Send, dice.pick(&[6, 12])),
            (Happening::Call, dice.pick(&[3, 3, 10])),
            (Happening::Read, dice.pick(&[2, 8])),
            (Happening::Disturb, dice.pick(&[0, 1, 1])),
            (Happening::Count, dice.pick(&[1, 4, 8])),
            (Happening::ArriveLate, 2),
            (Happening::Fetch, dice.pick(&[5, 20, 20])),
            (Happening::Publish, dice.pick(&[1, 5])),
            (Happening::PassTime, dice.pick(&[1, 7, 7])),
            (Happening::Answer, 53),
        ];
        Self {
            weights,
            grows_to: dice.pick(&[4, 4, 8]),
            leaps: !dice.one_in(4),
            hears: dice.pick(&[(2, 20), (6, 100)]),
        }
    }

    /// Nothing new comes, and all of it comes to its end.
    fn at_the_end(grows_to: u32) -> Self {
        let weights = vec![
            (Happening::Count, 1),
            (Happening::ArriveLate, 2),
            (Happening::Fetch, 20),
            (Happening::Publish, 5),
            (Happening::PassTime, 7),
            (Happening::Answer, 53),
        ];
        Self { weights, grows_to, leaps: true, hears: (2, 20) }
    }
}

/// One run.
pub(super) struct World {
    pub dice: Dice,
    pub now: Duration,
    pub store: Store,
    pub topic: BTreeMap<PartitionId, Vec<Letter>>,
    pub nodes: Vec<Node>,
    habits: Habits,
    /// The topic's count.
    count: u32,
    /// For each partition that came with a growth, where those before it ended then.
    ends: BTreeMap<PartitionId, Vec<(PartitionId, u64)>>,
    /// Who is to own what, by number of node; the oracle's word.
    owners: BTreeMap<PartitionId, usize>,
    asked: Vec<Asked>,
    /// Commits of which nobody hears any more, and which may still take effect.
    ghosts: Vec<Question>,
    calls: Vec<Letter>,
    keys: Vec<Arc<str>>,
    letters: u64,
    terms: u64,
    setup: Setup,
    faults: Faults,
    violation: Option<Violation>,
    coverage: Coverage,
    reads: u64,
    /// The number of the next step.
    steps: u32,
    seed: u64,
    journal: Journal,
}

impl World {
    pub fn new(seed: u64, setup: &Setup, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        Self {
            habits: Habits::any(&mut dice),
            dice,
            now: Duration::from_secs(1),
            store: Store::new(FIRST),
            topic: (0..FIRST).map(|n| (PartitionId(n), Vec::new())).collect(),
            count: FIRST,
            ends: BTreeMap::new(),
            nodes: Vec::new(),
            owners: BTreeMap::new(),
            asked: Vec::new(),
            ghosts: Vec::new(),
            calls: Vec::new(),
            keys: clients::keys(),
            letters: 0,
            terms: 0,
            setup: setup.clone(),
            faults: Faults { are_on: true, without: setup.without.clone(), seen: BTreeMap::new() },
            violation: None,
            coverage: Coverage::default(),
            reads: 0,
            steps: 0,
            seed,
            journal: Journal::new(trace),
        }
    }

    pub fn run(mut self) -> (Outcome, Vec<String>) {
        for _ in 0..=self.dice.below(2) {
            self.start_node();
        }
        self.assign_all();
        for step in 0..self.setup.steps {
            if self.violation.is_none() && !self.setup.skipped.contains(&step) {
                self.throw(step);
            }
        }
        self.faults.are_on = false;
        self.habits = Habits::at_the_end(self.count);
        for step in 0..STEPS_TO_CONVERGE {
            if self.violation.is_some() || self.is_done() {
                break;
            }
            self.throw(FIRST_OF_THE_END + step);
        }
        if self.violation.is_none() {
            self.check_end();
        }
        let Self { violation, coverage, reads, steps, .. } = self;
        let (digest, faults) = (self.journal.digest, self.faults.seen);
        let outcome = Outcome { violation, digest, coverage, faults, reads, steps };
        (outcome, self.journal.lines.unwrap_or_default())
    }

    fn start_node(&mut self) {
        let batch = self.dice.pick(&[1, 3, 32]);
        let live = self.dice.pick(&[2, 100]);
        let growth = Arc::new(self.store.growth());
        self.nodes.push(Node::new(batch, live, &self.setup, growth));
    }

    pub fn fail(&mut self, invariant: &'static str, detail: String) {
        self.journal.note(format_args!("violated {invariant}: {detail}"));
        self.violation.get_or_insert(Violation { invariant, detail });
    }

    pub fn alive(&self) -> Vec<usize> {
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

    /// A node takes a partition: its token is drawn, and the owner before it is fenced.
    fn take(&mut self, partition: PartitionId, node: usize) {
        self.terms += 1;
        let own = self.store.take(partition, self.terms, self.setup.rules, &mut self.dice);
        self.journal.note(format_args!("node {node} takes {partition}, term {}", own.term));
        self.owners.insert(partition, node);
        self.nodes[node].own(&own, self.store.next_offset(partition));
        // A taker waits until its node has heard of the generation; its lane may hear of it before or after.
        if !self.nodes[node].has_heard_of(own.generation) && self.dice.one_in(2) {
            let growth = Arc::new(self.store.growth());
            self.handle(node, Input::Counted(growth));
        }
        self.hand_in(node, Input::Own(own));
    }

    /// One thing happens, as the dice of this step have it, whatever steps there were before.
    fn throw(&mut self, step: u32) {
        self.steps = step + 1;
        self.dice = Dice::new(Dice::new(self.seed ^ (u64::from(step) << 32)).next());
        self.step();
    }

    /// One thing happens.
    fn step(&mut self) {
        let total = self.habits.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.dice.below(total);
        let is_it = |(_, weight): &&(Happening, u64)| {
            let is_below = at < *weight;
            at = at.saturating_sub(*weight);
            is_below
        };
        let (happening, _) = self.habits.weights.iter().find(is_it).expect("what is below the sum");
        match happening {
            Happening::Send => self.send(),
            Happening::Call => self.call(),
            Happening::Read => self.read(),
            Happening::Disturb => self.disturb(),
            Happening::Count => self.change_counts(),
            Happening::ArriveLate => self.arrive_late(),
            Happening::Fetch => self.fetch(),
            Happening::Publish => self.publish(),
            Happening::PassTime => self.pass_time(),
            Happening::Answer => self.answer(),
        }
    }

    /// The topic grows; then its count is put in force; and nodes hear of either, sooner or later.
    fn change_counts(&mut self) {
        let grows = self.count < self.habits.grows_to && self.dice.one_in(4);
        if self.faults.inject(Fault::Grown, grows) {
            for new in self.count..2 * self.count {
                let before = (0..new).filter(|lower| lower % FIRST == new % FIRST).map(PartitionId);
                let end = |of: PartitionId| (of, self.topic.get(&of).map_or(0, |records| records.len() as u64));
                self.ends.insert(PartitionId(new), before.map(end).collect());
            }
            self.topic.extend((self.count..2 * self.count).map(|n| (PartitionId(n), Vec::new())));
            self.count *= 2;
            self.store.grow(self.count);
            self.journal.note(format_args!("the topic grows to {}", self.count));
            self.assign_all();
        } else if self.store.count() < self.count && self.dice.one_in(3) {
            self.store.bump(self.count);
            self.journal.note(format_args!("{} partitions are in force", self.count));
        }
        let growth = Arc::new(self.store.growth());
        for node in self.alive() {
            if self.dice.one_in(self.habits.hears.0) {
                self.hand_in(node, Input::Counted(growth.clone()));
            }
        }
    }

    /// The relay of a partition publishes.
    fn publish(&mut self) {
        let partition = self.any_partition();
        let commits = 1 + self.dice.index(8);
        self.journal.note(format_args!("{commits} commits of {partition} are published"));
        if let Some((invariant, detail)) = self.store.publish(partition, commits) {
            self.fail(invariant, detail);
        }
    }

    fn any_partition(&mut self) -> PartitionId {
        PartitionId(u32::try_from(self.dice.below(u64::from(self.count))).expect("small"))
    }

    /// A reader hands on the next record of a partition.
    fn fetch(&mut self) {
        let alive = self.alive();
        let Some(node) = (!alive.is_empty()).then(|| alive[self.dice.index(alive.len())]) else { return };
        let readers = self.nodes[node].readers();
        let Some(partition) = (!readers.is_empty()).then(|| readers[self.dice.index(readers.len())]) else { return };
        // What the gate says.
        let is_past = |(of, end): &(PartitionId, u64)| self.store.next_offset(*of).unwrap_or(0) >= *end;
        let ends = self.ends.get(&partition);
        if ends.is_some_and(|ends| !ends.iter().all(is_past) || !self.nodes[node].is_serving(partition)) {
            return;
        }
        if let Some(arrival) = self.nodes[node].fetch(partition, &self.topic[&partition]) {
            self.hand_in(node, Input::Arrived(arrival));
        }
    }

    fn pass_time(&mut self) {
        let due = self.alive().into_iter().filter_map(|node| self.nodes[node].due()).min();
        let by = match due {
            Some(due) if self.dice.chance(70) && self.habits.leaps => due.saturating_sub(self.now),
            _ if self.habits.leaps => self.dice.millis(400),
            _ => self.dice.millis(20),
        };
        self.now += by;
        for node in self.alive() {
            self.turn(node);
        }
    }

    /// A partition moves, a node dies or comes, or the store goes away for a while.
    fn disturb(&mut self) {
        let partition = self.any_partition();
        let alive = self.alive();
        let node = alive[self.dice.index(alive.len())];
        match self.dice.below(6) {
            0 => {
                if self.faults.inject(Fault::Moved, self.owners.get(&partition) != Some(&node)) {
                    self.take(partition, node);
                }
            }
            1 | 2 => self.let_go(partition),
            3 => {
                let dies = alive.len() > 1 || self.dice.one_in(2);
                if self.faults.inject(Fault::Died, dies) {
                    self.journal.note(format_args!("node {node} dies"));
                    self.nodes[node].is_alive = false;
                    self.owners.retain(|_, owner| *owner != node);
                    self.start_node();
                    self.assign_all();
                }
            }
            4 => {
                if self.faults.inject(Fault::Joined, true) {
                    self.start_node();
                }
            }
            _ => {
                let until = self.now + self.dice.millis(2_000);
                if self.faults.inject(Fault::Away, true) {
                    self.store.away_until = until;
                    self.journal.note(format_args!("the store is away until {until:?}"));
                }
            }
        }
    }

    /// An owner finishes with a partition first, or is told to drop it.
    fn let_go(&mut self, partition: PartitionId) {
        let is_released = self.dice.one_in(2);
        let Some(node) = self.owners.get(&partition).copied() else { return };
        let Some(term) = self.nodes[node].term(partition) else { return };
        let fault = if is_released { Fault::Released } else { Fault::Dropped };
        if !self.faults.inject(fault, true) {
            return;
        }
        self.journal.note(format_args!("node {node} lets go of {partition}: {fault:?}"));
        self.nodes[node].close(partition);
        if is_released {
            self.hand_in(node, Input::Release { partition, term });
        } else {
            self.owners.remove(&partition);
            self.hand_in(node, Input::Drop { partition, term });
            self.assign_all();
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
    fn arrive_late(&mut self) {
        if self.ghosts.is_empty() {
            return;
        }
        let ghost = self.ghosts.swap_remove(self.dice.index(self.ghosts.len()));
        if let Question::Commit { fences, writes, .. } = ghost {
            let mut violations = Vec::new();
            let result = self.store.commit(&fences, &writes, self.now, &mut violations);
            self.journal.note(format_args!("a lost commit arrives: {result:?}"));
            for (invariant, detail) in violations {
                self.fail(invariant, detail);
            }
            self.check_consumed();
        }
    }

    fn take_effect(&mut self, asked: &mut Asked) {
        let is_away = self.faults.are_on && self.now < self.store.away_until;
        let node = &mut self.nodes[asked.node];
        let (answer, violations) =
            node.take_effect(asked, &mut self.store, &mut self.dice, &mut self.faults, is_away, self.now);
        self.journal.note(format_args!("took effect: {answer:?}"));
        if let Input::Committed { result: Err(CommitError::Unknown(_)), .. } = &answer
            && self.dice.one_in(2)
            && self.faults.inject(Fault::ArrivedLate, true)
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
        self.journal.note(format_args!("node {node} at {:?}: {input:?}", self.now));
        let happened = self.nodes[node].handle(input, self.now, &self.store, &mut self.coverage, &mut self.journal);
        self.reads += happened.reads;
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
            if self.owners.get(&partition) == Some(&node) {
                self.owners.remove(&partition);
                is_free = true;
            }
        }
        if is_free {
            self.assign_all();
        }
        if happened.wants_counts && self.dice.one_in(self.habits.hears.1) {
            let growth = Arc::new(self.store.growth());
            self.journal.note(format_args!("node {node} hears of the counts"));
            self.handle(node, Input::Counted(growth));
        }
    }
}
