//! The readers of a node, one for each input of each partition that it holds, each behind its gate.
//!
//! Deliberately absent: streams; a reader looks at the topic as it is.

use std::sync::Arc;

use holdfast_core::{KeyHash, PartitionId, port::log::LogError};
use holdfast_machine::{
    Ask,
    gate::{Action, Input as Happened, Machine},
    lane::{Arrival, Content, Input as OfLane, Origin, Source},
};

use super::{
    Node, id,
    kept::{Held, Reader},
    message,
};
use crate::simulator::{
    Fault, Nature,
    log::{COMMANDS, Input, SALES},
    question::{Answer, Question},
    surroundings::Surroundings,
};

impl Node {
    pub(super) fn begin_reading(&mut self, input: Input, term: u64, next: u64) {
        let gate = Machine::new(input.0.into(), input.1, self.setup.rules);
        self.readers.insert(input, Reader { term, gate, next, waits: false });
    }

    /// What can be read on: there is a record, and room for it.
    pub fn readable(&self, around: &Surroundings) -> Vec<Input> {
        let is_readable = |(input, reader): &(&Input, &Reader)| {
            !reader.waits && reader.next < around.log.end(**input) && !around.is_unread(**input)
        };
        let readable = self.readers.iter().filter(|_| self.lane.takes_more()).filter(is_readable);
        readable.map(|(input, _)| *input).collect()
    }

    /// The partitions of commands before which a record waits for end offsets.
    pub fn asked_for_ends(&self) -> Vec<PartitionId> {
        let is_asked =
            |((topic, _), reader): &(&Input, &Reader)| *topic == COMMANDS && reader.gate.state() == "Measuring";
        self.readers.iter().filter(is_asked).map(|((_, partition), _)| *partition).collect()
    }

    /// The next record of an input is read.
    pub fn fetch(&mut self, input: Input, around: &mut Surroundings) {
        let is_serving = self.is_serving(input.1);
        let Some(reader) = self.readers.get_mut(&input) else { return };
        let offset = reader.next;
        if reader.gate.is_open(offset) && is_serving {
            return self.hand_on(input, around);
        }
        reader.waits = true;
        let counted = Happened::Counted { growth: self.growth.clone(), is_serving };
        self.tell_gate(input, counted, around);
        self.tell_gate(input, Happened::Read(offset), around);
    }

    /// Tells those readers that wait of the counts as they are known now.
    pub(super) fn tell_gates(&mut self, around: &mut Surroundings) {
        let waiting = self.readers.iter().filter(|(_, reader)| reader.waits).map(|(input, _)| *input);
        for input in waiting.collect::<Vec<_>>() {
            let counted = Happened::Counted { growth: self.growth.clone(), is_serving: self.is_serving(input.1) };
            self.tell_gate(input, counted, around);
        }
    }

    pub(super) fn tell_gate(&mut self, input: Input, happened: Happened, around: &mut Surroundings) {
        let now = self.clock.now(around.now);
        let Some(reader) = self.readers.get_mut(&input).filter(|_| self.is_alive) else { return };
        let term = reader.term;
        around.journal.note(format_args!("gate of {input:?} at node {}: {happened:?}", self.number));
        around.coverage.met_gate(reader.gate.state(), &happened);
        let mut actions = Vec::new();
        reader.gate.handle(happened, now, &mut actions);
        around.journal.note(format_args!("-> {actions:?}"));
        for action in actions {
            let perform = |node: &mut Self, action, around: &mut Surroundings| match action {
                Action::Measure { ask, partitions } => {
                    around.ask(node.number, Question::Measure { input, term, ask, partitions });
                }
                Action::HurryCounts => node.wants_counts = true,
                Action::Pass => node.hand_on(input, around),
                Action::Report(_) => {}
            };
            if !self.lives_through("gate", action, around, perform) {
                return;
            }
        }
    }

    /// The record that was read goes to the lane.
    fn hand_on(&mut self, input: Input, around: &mut Surroundings) {
        let Some(term) = self.held.get(&input.1).map(|held| held.term) else { return };
        let Some(reader) = self.readers.get_mut(&input) else { return };
        let offset = reader.next;
        (reader.next, reader.waits) = (offset + 1, false);
        let letter = around.log.records(input)[usize::try_from(offset).expect("small")].clone();
        let place = (Arc::from(input.0), offset);
        let content = match letter.nature {
            Nature::Junk => Content::Refused(Source::Log(place)),
            Nature::Mark(count) => {
                around.store.note_mark(SALES, input.1, count);
                Content::Ignored(place)
            }
            Nature::Ignored => Content::Ignored(place),
            _ => Content::Message(message(&letter, Origin::Log(place))),
        };
        let (number, body) = self.keep(input.1, term, Some(letter));
        body.record = Some((input, offset));
        self.tell_lane(OfLane::Arrived(Arrival { number, partition: input.1, term, content }), around);
    }

    /// A strong read: its actor answers it, at once or once its delivery has ended, or it goes to the lane.
    pub fn read(&mut self, partition: PartitionId, key: &Arc<str>, around: &mut Surroundings) {
        let at_least = around.store.version(key);
        let Some(&Held { term, is_serving: true, .. }) = self.held.get(&partition) else { return };
        let place = (term, key.clone());
        if self.memory.actors.contains_key(&place) {
            if self.memory.busy.contains_key(&place) && self.setup.rules.reads_wait_for_commits {
                self.memory.awaiting.entry(place).or_default().push(at_least);
            } else {
                self.show(&place, at_least, around);
            }
            return;
        }
        let content = Content::Read { aggregate: id(key), hash: KeyHash::of(key.as_bytes()) };
        let (number, body) = self.keep(partition, term, None);
        body.at_least = at_least;
        self.tell_lane(OfLane::Arrived(Arrival { number, partition, term, content }), around);
    }

    /// The ends of partitions are read, or can't be.
    pub(super) fn measure(
        input: Input,
        term: u64,
        ask: Ask,
        partitions: &[PartitionId],
        around: &mut Surroundings,
    ) -> Answer {
        let fails = around.dice.one_in(20);
        let ends = if around.faults.inject(Fault::MeasureFailed, fails) {
            Err(LogError::Unavailable("away".into()))
        } else {
            Ok(partitions.iter().map(|partition| around.log.end((input.0, *partition))).collect())
        };
        Answer::Gate(input, term, Happened::Measured { ask, ends })
    }
}
