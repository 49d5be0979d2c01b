//! The relay of a node: rows go out in order, partition by partition, and the cursor follows what has
//! arrived.
//!
//! What is sent arrives later, in order; where sending fails, some of it has arrived and the rest is sent
//! again. Deliberately absent: rows that the broker refuses, which the runtime's own tests see to.

use std::collections::{BTreeMap, VecDeque};

use holdfast_core::{PartitionId, epoch::Token};
use holdfast_machine::Ask;

use crate::simulator::{Fault, surroundings::Surroundings};

/// Rows of a partition that are under way, in order.
pub(in crate::simulator) type Flight = (PartitionId, VecDeque<u64>);

#[derive(Clone, Debug)]
struct Line {
    /// The ownership. What is said under another is void.
    term: u64,
    token: Token,
    sent: u64,
    /// Up to here rows have arrived.
    published: u64,
    /// Up to here the store knows that.
    stored: u64,
    head: u64,
    flight: VecDeque<u64>,
    /// The hand-over that waits for its end.
    finish: Option<Ask>,
}

#[derive(Clone, Debug, Default)]
pub(in crate::simulator) struct Relay {
    lines: BTreeMap<PartitionId, Line>,
    /// What is under way of partitions that it has let go of.
    left: Vec<Flight>,
}

impl Relay {
    /// Takes on a partition; returns the hand-over that waited for the end of an earlier ownership.
    pub fn own(&mut self, partition: PartitionId, term: u64, token: Token, cursor: u64, head: u64) -> Option<Ask> {
        let flight = VecDeque::new();
        let line = Line { term, token, sent: cursor, published: cursor, stored: cursor, head, flight, finish: None };
        let before = self.lines.insert(partition, line)?;
        self.left.push((partition, before.flight));
        before.finish
    }

    fn line(&mut self, partition: PartitionId, term: u64) -> Option<&mut Line> {
        self.lines.get_mut(&partition).filter(|line| line.term == term)
    }

    /// There are rows up to `head`.
    pub fn reach(&mut self, partition: PartitionId, head: u64) {
        if let Some(line) = self.lines.get_mut(&partition) {
            line.head = line.head.max(head);
        }
    }

    pub fn reload(&mut self, partition: PartitionId, term: u64, token: Token, head: u64) {
        if let Some(line) = self.line(partition, term) {
            (line.token, line.head) = (token, line.head.max(head));
        }
    }

    /// Lets go of a partition; returns the hand-over that waited for its end.
    pub fn drop(&mut self, partition: PartitionId, term: u64) -> Option<Ask> {
        self.line(partition, term)?;
        let line = self.lines.remove(&partition)?;
        self.left.push((partition, line.flight));
        line.finish
    }

    /// Tells a hand-over once everything up to `head` is published. Returns whether that will be.
    pub fn finish(&mut self, partition: PartitionId, term: u64, token: Token, head: u64, ask: Ask) -> bool {
        self.reload(partition, term, token, head);
        let line = self.line(partition, term);
        line.map(|line| line.finish = Some(ask)).is_some()
    }

    /// How far a partition is published.
    pub fn cursor(&self, partition: PartitionId) -> Option<u64> {
        self.lines.get(&partition).map(|line| line.published)
    }

    /// Partitions of which something is to be sent, or stored, or has not arrived.
    pub fn busy(&self) -> Vec<PartitionId> {
        let is_busy = |line: &Line| line.stored < line.head || line.finish.is_some();
        self.lines.iter().filter(|(_, line)| is_busy(line)).map(|(partition, _)| *partition).collect()
    }

    /// What is under way and waited for no more: of partitions that it has let go of, and of all once it is
    /// not alive.
    pub fn flights(&mut self, is_alive: bool) -> Vec<Flight> {
        let mut left = std::mem::take(&mut self.left);
        if !is_alive {
            left.extend(std::mem::take(&mut self.lines).into_iter().map(|(partition, line)| (partition, line.flight)));
        }
        left.retain(|(_, rows)| !rows.is_empty());
        left
    }

    /// Something of a partition goes on: a row is sent, or arrives, or the cursor is stored. Returns the
    /// hand-over whose end this is.
    pub fn go_on(&mut self, partition: PartitionId, around: &mut Surroundings) -> Option<(Ask, Token)> {
        let line = self.lines.get_mut(&partition)?;
        let is_free = line.sent < line.head && around.store.outbox(partition, line.sent + 1).is_some();
        if is_free && (line.flight.is_empty() || around.dice.one_in(2)) {
            line.sent += 1;
            line.flight.push_back(line.sent);
        } else if let Some(row) = line.flight.pop_front() {
            let fails = around.dice.one_in(20);
            if around.faults.inject(Fault::PublishFailed, fails) {
                if around.dice.one_in(2) {
                    around.land(partition, row);
                }
                // What was sent behind it is abandoned, and none of it comes before what is sent next.
                line.flight.clear();
                line.sent = line.published;
            } else {
                around.land(partition, row);
                line.published = row;
            }
        } else if line.published > line.stored && !around.is_away() {
            around.store.advance(partition, line.token, line.published);
            line.stored = line.published;
        }
        if line.finish.is_some() && line.published >= line.head {
            let line = self.lines.remove(&partition)?;
            if !around.is_away() {
                around.store.advance(partition, line.token, line.published);
            }
            return Some((line.finish?, line.token));
        }
        None
    }
}
