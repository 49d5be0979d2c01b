//! Partition rows: who owns what, and the beats of nodes.
//!
//! Deliberately absent: waiting for a lock; each question takes effect at one moment.

use std::collections::BTreeMap;

use holdfast_core::{
    PartitionId,
    epoch::{Beat, Epoch, Generation, PartitionRow, Token},
    port::store::Taken,
};
use uuid::Uuid;

use super::{Events, Store};
use crate::Dice;

impl Store {
    pub fn rows(&self) -> Vec<PartitionRow> {
        self.rows.values().cloned().collect()
    }

    pub fn token(&self, partition: PartitionId) -> Option<Token> {
        self.rows.get(&partition)?.token
    }

    /// Raises the epoch of a partition under a new token, if it is the expected one.
    pub fn take(&mut self, partition: PartitionId, expected: Epoch, token: Token, address: &str) -> Option<Taken> {
        let row = self.rows.get_mut(&partition).filter(|row| row.epoch == expected)?;
        row.epoch = Epoch(row.epoch.0 + 1);
        row.token = Some(token);
        let last = std::mem::replace(&mut row.address, address.to_owned());
        let released = std::mem::replace(&mut row.released, false);
        let has_begun = std::mem::replace(&mut row.has_begun, false);
        let beat = self.beats.get(&last).filter(|_| has_begun).copied();
        Some(Taken { row: PartitionRow { released, has_begun, ..row.clone() }, beat })
    }

    /// Writes a beat; returns the beats that were there before.
    pub fn beat(&mut self, address: &str, beat: Beat) -> BTreeMap<String, Beat> {
        let before = self.beats.clone();
        self.beats.insert(address.to_owned(), beat);
        before
    }

    pub fn release(&mut self, partition: PartitionId, token: Token) -> bool {
        let row = self.rows.get_mut(&partition).filter(|row| row.token == Some(token));
        row.map(|row| row.released = true).is_some()
    }

    /// Draws new tokens for partitions that are held under these.
    pub fn retoken(&mut self, held: &[(PartitionId, Token)], dice: &mut Dice) -> Vec<PartitionRow> {
        let mut rows = Vec::new();
        for (partition, token) in held {
            let fresh = draw(dice);
            let row = self.rows.get_mut(partition).expect("a partition of the topic");
            if row.token == Some(*token) {
                row.token = Some(fresh);
                rows.push(row.clone());
            }
        }
        rows
    }

    /// Puts on record that a partition is under a generation. The mark in the events topic is a row of the
    /// outbox without events.
    pub fn acknowledge(
        &mut self,
        partition: PartitionId,
        token: Token,
        generation: Generation,
    ) -> Option<PartitionRow> {
        let row = self.rows.get_mut(&partition).expect("a partition of the topic");
        if row.token != Some(token) || row.generation != generation {
            return None;
        }
        row.has_begun = true;
        if !self.acknowledged.contains_key(&(partition, generation)) {
            if generation > Generation(1) {
                row.outbox_head += 1;
                self.outbox.insert((partition, row.outbox_head), Events::new());
            }
            self.acknowledged.insert((partition, generation), row.outbox_head);
        }
        Some(row.clone())
    }

    /// The relay of a partition stores how far it is.
    pub fn advance(&mut self, partition: PartitionId, token: Token, cursor: u64) {
        if let Some(row) = self.rows.get_mut(&partition).filter(|row| row.token == Some(token)) {
            row.outbox_cursor = row.outbox_cursor.max(cursor);
        }
    }
}

pub(in crate::simulator) fn draw(dice: &mut Dice) -> Token {
    Token(Uuid::from_u64_pair(dice.next(), dice.next()))
}
