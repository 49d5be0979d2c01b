//! What is checked of a whole run.
//!
//! Deliberately absent: what nodes and the store check as things happen.

use super::{Nature, world::World};

impl World {
    /// I7: every offset below the consumed one was applied, rejected, put in a mailbox, or became a dead
    /// letter.
    pub fn check_consumed(&mut self) {
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

    pub fn is_done(&self) -> bool {
        self.topic
            .iter()
            .all(|(partition, records)| self.store.next_offset(*partition).unwrap_or(0) >= records.len() as u64)
            && self.store.mail_is_empty()
            && self.store.outbox_is_empty()
            && self.alive().into_iter().all(|node| self.nodes[node].waits_for_nothing())
    }

    pub fn check_end(&mut self) {
        if !self.is_done() {
            let offsets: Vec<_> = self
                .topic
                .iter()
                .map(|(partition, records)| (*partition, self.store.next_offset(*partition), records.len()))
                .collect();
            let waiting: Vec<String> = self.alive().into_iter().map(|node| self.nodes[node].left_over()).collect();
            return self.fail("I8", format!("not done: {offsets:?}, {}; {waiting:?}", self.store.mail()));
        }
        for node in self.alive() {
            if let Some(detail) = self.nodes[node].never_ended() {
                self.fail("actors", format!("node {node} is done, and these have not ended: {detail}"));
            }
        }
        if let Some((invariant, detail)) = self.store.check_order(&self.topic) {
            self.fail(invariant, detail);
        }
    }
}
