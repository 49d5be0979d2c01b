//! What goes wrong in the world: nodes that die, stop or sleep, a group that changes its mind, a store that
//! is away, clocks that jump, and topics that grow.
//!
//! Deliberately absent: what goes wrong with one question, which its node sees to.

use std::time::Duration;

use holdfast_core::PartitionId;
use holdfast_machine::ownership::{Input, Loss};

use super::{FIRST, World};
use crate::simulator::{
    Fault, Letter, Nature, PRODUCERS_MAX_AGE,
    log::{self, COMMANDS, SALES},
};

/// Nodes that live, at most.
const NODES_MAX: usize = 4;

impl World {
    pub(super) fn trouble(&mut self) -> bool {
        let alive = self.alive();
        let node = alive[self.around.dice.index(alive.len())];
        let (partition, time) = (self.any_partition(), self.around.dice.millis(4_000));
        let is_early = self.around.dice.one_in(2);
        let now = self.around.now;
        let is_awake = self.nodes[node].is_awake(now);
        let around = &mut self.around;
        let what = around.dice.below(18);
        // A move, a join, a stop or a cut in place of everything else.
        let what = if self.habits.is_contended { [0, 0, 0, 6, 8, 9, 10, 10][(what % 8) as usize] } else { what };
        match what {
            0..=3 => {
                let moves = around.group.has(node) && around.group.owner(partition) != Some(node);
                if around.faults.inject(Fault::Moved, moves) {
                    around.group.give(partition, node);
                    around.journal.note(format_args!("{partition} is moved to node {node}"));
                }
            }
            4 => {
                if around.faults.inject(Fault::Died, true) {
                    around.journal.note(format_args!("node {node} dies"));
                    self.nodes[node].is_alive = false;
                }
            }
            5 => {
                if around.faults.inject(Fault::Stopped, is_awake && alive.len() > 1) {
                    self.nodes[node].tell_takers(Input::Stop, around);
                }
            }
            6 | 7 => {
                if around.faults.inject(Fault::Joined, alive.len() < NODES_MAX) {
                    self.start_node();
                }
            }
            8 | 9 => {
                let fault = if is_early { Fault::Suspended } else { Fault::Paused };
                if around.faults.inject(fault, is_awake) {
                    around.journal.note(format_args!("node {node}: {fault:?} for {time:?}"));
                    self.nodes[node].clock.stop(now, time, fault == Fault::Suspended);
                }
            }
            10..=12 => {
                let time = time + self.lease / 2;
                if around.faults.inject(Fault::CutOff, alive.len() > 1) {
                    around.journal.note(format_args!("node {node} is cut off for {time:?}"));
                    self.nodes[node].cut_off_until = now + time;
                }
            }
            13 => {
                let terms = self.nodes[node].terms();
                if around.faults.inject(Fault::ReaderDied, !terms.is_empty()) {
                    let (partition, term) = terms[around.dice.index(terms.len())];
                    self.nodes[node].lose(partition, term, Loss::ReaderDied);
                }
            }
            14 | 15 => {
                let inputs: Vec<_> = around.log.inputs().collect();
                let input = inputs[around.dice.index(inputs.len())];
                self.read_late(input, true);
            }
            16 => {
                if around.faults.inject(Fault::ClockJumped, true) {
                    around.store.is_ahead = time * 4;
                    around.journal.note(format_args!("the store's clock is ahead by {:?}", time * 4));
                }
            }
            _ => {
                if around.faults.inject(Fault::Away, true) {
                    around.store.away_until = around.now + time / 2;
                    around.journal.note(format_args!("the store is away for {:?}", time / 2));
                }
            }
        }
        true
    }

    /// A partition can't be read for a while.
    pub(super) fn read_late(&mut self, input: log::Input, is_so: bool) {
        let around = &mut self.around;
        let time = around.dice.millis(4_000);
        if around.faults.inject(Fault::ReadLate, is_so) {
            around.log.unread_until.insert(input, around.now + time);
            around.journal.note(format_args!("{input:?} can't be read for {time:?}"));
        }
    }

    /// The group notices which members are gone, gives free partitions to the others, and one node hears of
    /// its assignment.
    pub(super) fn assign(&mut self) -> bool {
        for node in 0..self.nodes.len() {
            let is_member = self.around.group.has(node);
            let (is_heard, is_long) = (self.nodes[node].is_connected(self.around.now), self.around.dice.one_in(3));
            if is_member && !self.nodes[node].is_alive
                || !is_heard && is_long && self.around.faults.inject(Fault::Expelled, is_member)
            {
                self.around.journal.note(format_args!("the group notices that node {node} is gone"));
                self.around.group.remove(node);
            } else if is_heard {
                self.around.group.join(node);
            }
        }
        let count = self.around.log.count(COMMANDS);
        self.around.group.assign(count, &mut self.around.dice);
        let news = self.of_connected(|node| self.around.group.news(node.number).into_iter().collect());
        let Some((node, assigned)) = self.any_of(&news) else { return false };
        self.around.group.heard(node, assigned.clone());
        self.nodes[node].tell_takers(Input::Assigned(assigned), &mut self.around);
        true
    }

    /// A topic grows, or those that send to it come to know that it has.
    pub(super) fn grow(&mut self) -> bool {
        let (count, theirs) = (self.around.log.count(COMMANDS), self.around.log.count(SALES));
        let (grows, which) = (self.around.dice.one_in(4), self.around.dice.below(3));
        let now = self.around.now;
        match which {
            0 => {
                // One growth at a time is still being heard of.
                let is_heard = self.producers.iter().all(|known| *known == count);
                let grows = grows && count < self.grows_to && is_heard;
                if self.around.faults.inject(Fault::Grown, grows) {
                    self.around.log.grow(COMMANDS, 2 * count, now);
                    self.around.journal.note(format_args!("{COMMANDS} grows to {}", 2 * count));
                }
            }
            1 => {
                let is_heard = self.theirs.values().all(|known| *known == theirs);
                let grows = grows && theirs < self.grows_to && is_heard;
                if self.around.faults.inject(Fault::TheirsGrown, grows) {
                    self.around.log.grow(SALES, 2 * theirs, now);
                    self.around.journal.note(format_args!("{SALES} grows to {}", 2 * theirs));
                }
            }
            _ => self.around.log.outputs = count,
        }
        self.learn_counts();
        true
    }

    /// A partition of the other context learns of a count.
    fn learn_counts(&mut self) {
        let theirs = self.around.log.count(SALES);
        let home = PartitionId(u32::try_from(self.around.dice.below(u64::from(FIRST))).expect("small"));
        let before = self.theirs.insert(home, theirs).unwrap_or(theirs);
        if before < theirs {
            // Said in every partition that its keys may have been sent to.
            for partition in (0..before).filter(|n| n % FIRST == home.0).map(PartitionId) {
                let mark = Letter { id: 0, key: "".into(), nature: Nature::Mark(theirs) };
                self.around.journal.note(format_args!("{SALES}-{partition} is marked: {theirs}"));
                self.around.log.append((SALES, partition), mark);
            }
        }
    }

    /// The count by which a producer sends. It does not go on for ever by one that has changed.
    pub(super) fn known_count(&mut self, producer: usize) -> u32 {
        let age = self.around.now.saturating_sub(self.around.log.grown_at(COMMANDS));
        if age + Duration::from_millis(1) >= PRODUCERS_MAX_AGE {
            self.producers[producer] = self.around.log.count(COMMANDS);
        }
        self.producers[producer]
    }
}
