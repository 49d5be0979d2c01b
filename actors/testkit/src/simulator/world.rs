//! The world of one seed: what happens, when, and to whom.
//!
//! Invariant: everything comes from the dice, and nothing from the order of a hash table, a clock or a
//! thread. Deliberately absent: what is checked, but for what nodes, the store and the log see themselves.

mod clients;
mod habits;
mod troubles;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_core::{PartitionId, port::store::CommitError};
use holdfast_machine::{lane::Input, ownership};

use self::habits::{Habits, Happening};
use super::{
    Fault, Letter, Outcome, Setup,
    journal::Journal,
    log::COMMANDS,
    node::{Flight, Node},
    question::{Answer, Asked, Question},
    surroundings::Surroundings,
};
use crate::Dice;

/// Partitions of the simulated topics before they grow.
pub(super) const FIRST: u32 = 2;
/// The number of the first step after faults have ended, however many there were before.
const FIRST_OF_THE_END: u32 = 1_000_000;
/// What may happen after faults have ended, until everything is done.
const STEPS_TO_CONVERGE: u32 = 40_000;

/// One run.
pub(super) struct World {
    pub nodes: Vec<Node>,
    pub around: Surroundings,
    habits: Habits,
    /// What a topic is to grow to.
    grows_to: u32,
    lease: Duration,
    /// Commits and rows whose ends no node hears of any more, and which may still take effect.
    lost_commits: Vec<Question>,
    lost_rows: Vec<Flight>,
    calls: Vec<Letter>,
    keys: Vec<Arc<str>>,
    letters: u64,
    /// The count by which each producer sends, and by which each partition of the other context does.
    producers: [u32; 2],
    theirs: BTreeMap<PartitionId, u32>,
    pub setup: Setup,
    /// The number of the next step.
    steps: u32,
    seed: u64,
}

impl World {
    pub fn new(seed: u64, setup: &Setup, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let habits = Habits::any(&mut dice);
        Self {
            grows_to: habits.grows_to,
            lease: habits.lease,
            habits,
            around: Surroundings::new(dice, setup, FIRST, Journal::new(trace)),
            nodes: Vec::new(),
            lost_commits: Vec::new(),
            lost_rows: Vec::new(),
            calls: Vec::new(),
            keys: clients::keys(),
            letters: 0,
            producers: [FIRST; 2],
            theirs: (0..FIRST).map(|n| (PartitionId(n), FIRST)).collect(),
            setup: setup.clone(),
            steps: 0,
            seed,
        }
    }

    pub fn run(mut self) -> (Outcome, Vec<String>) {
        for _ in 0..=self.around.dice.below(2) {
            self.start_node();
        }
        self.assign();
        self.bury(); // one that was assigned may have died of it
        for step in 0..self.setup.steps {
            if self.around.violation.is_none() && !self.setup.skipped.contains(&step) {
                self.throw(step);
            }
        }
        self.around.faults.are_on = false;
        self.habits = Habits::at_the_end();
        for step in 0..STEPS_TO_CONVERGE {
            if self.around.violation.is_some() || self.is_done() {
                break;
            }
            self.throw(FIRST_OF_THE_END + step);
        }
        if self.around.violation.is_none() {
            self.check_end();
        }
        let Self { around: Surroundings { violation, coverage, reads, journal, faults, .. }, steps, .. } = self;
        let (digest, faults) = (journal.digest, faults.seen);
        let outcome = Outcome { violation, digest, coverage, faults, reads, steps };
        (outcome, journal.lines.unwrap_or_default())
    }

    /// Nodes that are alive.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_alive).collect()
    }

    /// One thing happens, as the dice of this step have it, whatever steps there were before.
    fn throw(&mut self, step: u32) {
        self.steps = step + 1;
        self.around.dice = Dice::new(Dice::new(self.seed ^ (u64::from(step) << 32)).next());
        let has_happened = match self.habits.any_happening(&mut self.around.dice) {
            Happening::Send => self.send(),
            Happening::SendTheirs => self.send_theirs(),
            Happening::Call => self.call(),
            Happening::Read => self.read(),
            Happening::Trouble => self.trouble(),
            Happening::Grow => self.grow(),
            Happening::Assign => self.assign(),
            Happening::ArriveLate => self.arrive_late(),
            Happening::Fetch => self.fetch(),
            Happening::Relay => self.relay(),
            Happening::PassOn => self.pass_on(),
            Happening::PassTime => self.pass_time(),
            Happening::Answer => false,
        };
        if !has_happened && !self.answer() {
            self.pass_time();
        }
        self.check_leases();
        self.bury();
    }

    /// What a node that has died or left had asked for may still take effect, and its rows arrive.
    fn bury(&mut self) {
        for node in &mut self.nodes {
            if node.is_alive && node.has_left() {
                node.is_alive = false;
                self.around.group.remove(node.number);
            }
            self.lost_rows.extend(node.relay.flights(node.is_alive));
        }
        if self.alive().is_empty() {
            self.start_node();
        }
    }

    fn start_node(&mut self) {
        let (number, living) = (self.nodes.len(), self.alive());
        let is_free = |address: &usize| !living.iter().any(|at| self.nodes[*at].address == *address);
        let address = (0..=living.len()).find(is_free).expect("there are fewer nodes than numbers");
        let node = Node::new(number, address, self.lease, &self.setup, &mut self.around);
        self.nodes.push(node);
        self.around.group.join(number);
        self.around.journal.note(format_args!("node {number} starts at {address}"));
    }

    /// One of these, if there is any.
    fn any_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.around.dice.index(all.len())].clone())
    }

    /// What those nodes have of something whose processes are not stopped.
    fn of_awake<T>(&self, of: impl Fn(&Node) -> Vec<T>) -> Vec<(usize, T)> {
        let is_awake = |node: &&Node| node.is_awake(self.around.now);
        let of = |node: &Node| of(node).into_iter().map(|one| (node.number, one)).collect::<Vec<_>>();
        self.nodes.iter().filter(is_awake).flat_map(of).collect()
    }

    /// Any node that is meant, and whose process is not stopped.
    fn any_awake(&mut self, is_meant: impl Fn(&Node) -> bool) -> Option<usize> {
        let meant = self.of_awake(|node| is_meant(node).then_some(()).into_iter().collect());
        self.any_of(&meant).map(|(node, ())| node)
    }

    /// What those of them have that are not cut off.
    fn of_connected<T>(&self, of: impl Fn(&Node) -> Vec<T>) -> Vec<(usize, T)> {
        self.of_awake(|node| if node.is_connected(self.around.now) { of(node) } else { Vec::new() })
    }

    /// A reader of a node reads on.
    fn fetch(&mut self) -> bool {
        let readable = self.of_connected(|node| node.readable(&self.around));
        let Some((node, input)) = self.any_of(&readable) else { return false };
        self.nodes[node].fetch(input, &mut self.around);
        self.turn_mostly(node);
        true
    }

    /// A relay goes on.
    fn relay(&mut self) -> bool {
        let busy = self.of_connected(|node| node.relay.busy());
        let Some((node, partition)) = self.any_of(&busy) else { return false };
        self.nodes[node].publish_on(partition, &mut self.around);
        true
    }

    /// A part of a node hears what another part has said; or the node reads the counts, since it wants them.
    fn pass_on(&mut self) -> bool {
        let Some(node) = self.any_awake(|node| node.has_news() || node.wants_counts) else { return false };
        if self.nodes[node].has_news() {
            self.nodes[node].pass_on(&mut self.around);
            self.turn_mostly(node);
        } else if self.around.dice.one_in(self.habits.hurries) {
            self.nodes[node].count(&mut self.around);
        }
        true
    }

    fn pass_time(&mut self) -> bool {
        let due = self.alive().into_iter().map(|node| self.nodes[node].due()).min();
        self.around.now += match due {
            Some(due) if self.habits.leaps && self.around.dice.chance(70) => due.saturating_sub(self.around.now),
            _ if self.habits.leaps => self.around.dice.millis(400),
            // In bursts: long silence, and then much in little time.
            _ if self.around.dice.one_in(8) => self.around.dice.millis(2_000),
            _ => self.around.dice.millis(60),
        };
        for node in self.alive() {
            if self.nodes[node].is_awake(self.around.now) {
                self.nodes[node].pass_time(&mut self.around);
            }
        }
        true
    }

    /// A question takes effect, or its answer comes.
    fn answer(&mut self) -> bool {
        let now = self.around.now;
        let is_open = |asked: &Asked| {
            let node = &self.nodes[asked.node];
            let is_local = matches!(asked.question, Question::Decide { .. } | Question::Attempt { .. });
            let cut_off_until = if is_local { Duration::ZERO } else { node.cut_off_until };
            let hangs = self.around.faults.are_on && asked.hangs_until.max(cut_off_until) > now;
            !hangs && (asked.answer.is_none() || !node.is_alive || node.is_awake(now))
        };
        let open: Vec<usize> = (0..self.around.asked.len()).filter(|at| is_open(&self.around.asked[*at])).collect();
        let Some(at) = self.any_of(&open) else { return false };
        // Beats more often than others: a node that is not heard of may be at work all the same.
        let is_beat = matches!(self.around.asked[at].question, Question::Own(ownership::Action::Beat { .. }));
        let is_beat = is_beat && self.habits.is_contended;
        let hangs = self.around.dice.one_in(if is_beat { 6 } else { self.habits.hangs });
        if self.around.faults.inject(Fault::Hung, hangs) {
            self.around.asked[at].hangs_until = now + self.around.dice.millis(4_000);
            return true;
        }
        let mut asked = self.around.asked.swap_remove(at);
        match asked.answer.take() {
            None => {
                self.take_effect(&mut asked);
                if self.nodes[asked.node].is_alive {
                    self.around.asked.push(asked);
                }
            }
            Some(answer) if self.nodes[asked.node].is_alive => {
                let again = self.around.dice.one_in(50) && is_numbered(&answer);
                if self.around.faults.inject(Fault::AnsweredTwice, again) {
                    self.around.asked.push(Asked { answer: Some(answer.clone()), ..asked });
                }
                self.nodes[asked.node].hear(answer, &mut self.around);
                self.turn_mostly(asked.node);
            }
            Some(_) => {}
        }
        true
    }

    fn take_effect(&mut self, asked: &mut Asked) {
        let answer = self.nodes[asked.node].take_effect(asked, &mut self.around);
        self.around.journal.note(format_args!("took effect for node {}: {answer:?}", asked.node));
        if let Answer::Lane(Input::Committed { result: Err(CommitError::Unknown(_)), .. }) = &answer
            && self.around.dice.one_in(2)
            && self.around.faults.inject(Fault::ArrivedLate, true)
        {
            self.lost_commits.push(asked.question.clone());
        }
        asked.answer = Some(answer);
        self.around.check_consumed();
    }

    /// A commit that was lost on its way arrives after all, or a row of a relay that is gone.
    fn arrive_late(&mut self) -> bool {
        if self.around.dice.one_in(2) && !self.lost_rows.is_empty() {
            let at = self.around.dice.index(self.lost_rows.len());
            let (partition, rows) = &mut self.lost_rows[at];
            match rows.pop_front() {
                Some(row) if !self.around.dice.one_in(4) => self.around.land(*partition, row),
                _ => _ = self.lost_rows.swap_remove(at), // the rest never comes
            }
        } else if !self.lost_commits.is_empty() {
            let at = self.around.dice.index(self.lost_commits.len());
            if let Question::Commit { fences, writes, .. } = self.lost_commits.swap_remove(at) {
                let (mut violations, now) = (Vec::new(), self.around.now);
                let result = self.around.store.commit(&fences, &writes, now, &mut violations);
                self.around.journal.note(format_args!("a lost commit arrives: {result:?}"));
                self.around.fail_all(violations);
                self.around.check_consumed();
            }
        } else {
            return false;
        }
        true
    }

    /// The lane always goes on in the end; what else is at hand may come first.
    fn turn_mostly(&mut self, node: usize) {
        if self.nodes[node].wants_turn() && self.around.dice.chance(75) {
            self.nodes[node].tell_lane(Input::Turn, &mut self.around);
        }
    }

    fn any_partition(&mut self) -> PartitionId {
        let count = self.around.log.count(COMMANDS);
        PartitionId(u32::try_from(self.around.dice.below(u64::from(count))).expect("small"))
    }
}

/// Whether an answer names the question that it is of, so that a second one is void.
const fn is_numbered(answer: &Answer) -> bool {
    match answer {
        Answer::Lane(input) => {
            !matches!(input, Input::Decided(_) | Input::Due { .. } | Input::Arrived(_) | Input::SupervisorDied { .. })
        }
        Answer::Takers(_) | Answer::Gate(..) => true,
        Answer::Counts(..) | Answer::NotCounted | Answer::Nothing => false,
    }
}
