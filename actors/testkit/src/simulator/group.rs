//! The consumer group of a simulation: it says which node is to take which partition, and is no fence.
//!
//! Nodes hear of it late, so two may believe that a partition is theirs. Deliberately absent: sessions; the
//! world says when a dead node is noticed.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::PartitionId;

use crate::Dice;

#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    members: BTreeSet<usize>,
    owners: BTreeMap<PartitionId, usize>,
    /// The assignment that each member has heard of last.
    heard: BTreeMap<usize, BTreeSet<PartitionId>>,
}

impl Group {
    /// A node joins, unless it has.
    pub fn join(&mut self, node: usize) {
        self.members.insert(node);
    }

    /// A node leaves, or its session is over. It hears that it has nothing, if it hears at all.
    pub fn remove(&mut self, node: usize) {
        self.members.remove(&node);
        self.owners.retain(|_, owner| *owner != node);
    }

    pub fn has(&self, node: usize) -> bool {
        self.members.contains(&node)
    }

    pub fn owner(&self, partition: PartitionId) -> Option<usize> {
        self.owners.get(&partition).copied()
    }

    /// Gives partitions without an owner to any member.
    pub fn assign(&mut self, count: u32, dice: &mut Dice) {
        let members: Vec<usize> = self.members.iter().copied().collect();
        for partition in (0..count).map(PartitionId) {
            if !members.is_empty() && !self.owners.contains_key(&partition) {
                self.owners.insert(partition, members[dice.index(members.len())]);
            }
        }
    }

    /// Moves a partition to a member.
    pub fn give(&mut self, partition: PartitionId, node: usize) {
        self.owners.insert(partition, node);
    }

    /// The assignment of a node, if it has not heard of it.
    pub fn news(&self, node: usize) -> Option<BTreeSet<PartitionId>> {
        let has = |(partition, owner): (&PartitionId, &usize)| (*owner == node).then_some(*partition);
        let assigned: BTreeSet<PartitionId> = self.owners.iter().filter_map(has).collect();
        let is_known = self.heard.get(&node).map_or(assigned.is_empty(), |heard| *heard == assigned);
        (!is_known).then_some(assigned)
    }

    /// A node has heard of its assignment.
    pub fn heard(&mut self, node: usize, assigned: BTreeSet<PartitionId>) {
        self.heard.insert(node, assigned);
    }
}
