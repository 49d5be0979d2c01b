//! The backlog counted again, for tests and simulation.
//!
//! Deliberately absent: mending what is found.

use std::collections::BTreeSet;

use holdfast_core::invariant::Invariant;

use super::{Backlog, Entry, Number, State};
use crate::lane::Violations;

impl Backlog {
    /// Counts everything again. I3: a queue's messages are taken from its head on. I6: whatever is ready, and
    /// behind nothing that waits, can be taken.
    pub fn audit(&self) -> Violations {
        let mut wrong = Vec::new();
        let (mut ready, mut takeable, mut queued) = (BTreeSet::new(), 0, 0);
        for (at, aggregate) in self.slots.iter().enumerate().filter_map(|(at, (_, of))| Some((at, of.as_ref()?))) {
            let entry =
                |number: &Number| self.entries.get(number).filter(|entry| entry.slot.is_some_and(|slot| slot.at == at));
            let Some(queue) = aggregate.queue.iter().map(entry).collect::<Option<Vec<_>>>() else {
                wrong.push((
                    Invariant::Order,
                    format!("the queue of {} names a message that does not stand in it", aggregate.id),
                ));
                continue;
            };
            queued += queue.len() + aggregate.reads;
            let taken = queue.iter().take_while(|entry| entry.state.is_taken()).count();
            let run = queue[taken..].iter().take_while(|entry| entry.state == State::Ready).count();
            let mail = queue.iter().filter(|entry| entry.mail.is_some()).count();
            let head = aggregate.queue.get(taken).filter(|_| run > 0).copied();
            if (taken, run, mail, head) != (aggregate.taken, aggregate.run, aggregate.mail, aggregate.head) {
                wrong.push((
                    Invariant::Order,
                    format!("the queue of {} has {taken} taken and {run} ready: {aggregate:?}", aggregate.id),
                ));
            }
            takeable += run;
            ready.extend(head);
        }
        let in_none = |entry: &Entry| entry.slot.is_none() || entry.is_read();
        for (number, entry) in self.entries().filter(|(_, entry)| in_none(entry)) {
            queued += usize::from(entry.slot.is_none());
            if entry.state == State::Ready {
                takeable += 1;
                ready.insert(number);
            }
        }
        if queued != self.entries.len() {
            wrong.push((
                Invariant::Order,
                format!("{queued} messages stand in queues or follow nobody, of {}", self.entries.len()),
            ));
        }
        if (takeable, &ready) != (self.takeable, &self.ready) {
            wrong.push((
                Invariant::Isolation,
                format!("{takeable} could be taken, first {ready:?}, not {}, first {:?}", self.takeable, self.ready),
            ));
        }
        wrong
    }
}
