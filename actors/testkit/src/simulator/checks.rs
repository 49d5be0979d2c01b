//! What is checked of a whole run.
//!
//! Deliberately absent: what nodes, the store and the log check as things happen.

use std::collections::BTreeMap;

use holdfast_core::PartitionId;

use super::{
    question::{Asked, Question},
    world::World,
};

impl World {
    pub fn is_done(&self) -> bool {
        let is_read = |input| self.around.store.next_offset(input) >= self.around.log.end(input);
        let is_deciding =
            |asked: &Asked| matches!(asked.question, Question::Decide { .. }) && self.nodes[asked.node].is_alive;
        self.around.log.inputs().all(is_read)
            && !self.around.asked.iter().any(is_deciding)
            && self.around.store.is_done()
            && self.around.store.unsettled(&self.around.log).is_none()
            && self.alive().into_iter().all(|node| self.nodes[node].waits_for_nothing())
    }

    /// I5: of all who hold a partition, or believe so, one at a time has a lease.
    pub fn check_leases(&mut self) {
        if !self.setup.rules.checks_lease {
            return; // leases have no end then
        }
        let mut leased: BTreeMap<PartitionId, usize> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.is_alive) {
            for partition in node.leased(self.around.now) {
                if let Some(other) = leased.insert(partition, node.number) {
                    let detail = format!("nodes {other} and {} have leases of {partition}", node.number);
                    return self.around.fail("I5", detail);
                }
            }
        }
    }

    pub fn check_end(&mut self) {
        if !self.is_done() {
            let offsets = self.around.log.inputs().map(|input| {
                let (consumed, end) = (self.around.store.next_offset(input), self.around.log.end(input));
                format!("{input:?}: {consumed} of {end}")
            });
            let unsettled = self.around.store.unsettled(&self.around.log);
            let left: Vec<String> = offsets.chain(self.around.store.left_over()).chain(unsettled).collect();
            let waiting: Vec<String> = self.alive().into_iter().map(|node| self.nodes[node].left_over()).collect();
            return self.around.fail("I8", format!("not done: {left:?}; {waiting:?}"));
        }
        for node in self.alive() {
            if let Some(detail) = self.nodes[node].never_ended() {
                self.around.fail("I8", format!("node {node} is done, and these have not ended: {detail}"));
            }
        }
        if let Some((invariant, detail)) = self.around.store.check_order(&self.around.log) {
            self.around.fail(invariant, detail);
        }
    }
}
