//! The outbox as a relay reads it, and its stuck records: what one transaction does.
//!
//! Deliberately absent: locks, faults, time.

use std::collections::BTreeMap;

use holdfast_core::{
    PartitionId, Timestamp,
    batch::OutboxRow,
    epoch::Token,
    port::store::{Slice, StoreError},
    stuck::{Order, Queue, Release, SetAside, Stuck},
};

use super::Contents;

/// What a row holds of its record, as the database measures it.
fn bytes(row: &OutboxRow) -> usize {
    let draft = &row.draft;
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    draft.headers.to_bytes().len() + length(&draft.key) + length(&draft.value)
}

impl Contents {
    pub(super) fn outbox(&self, partition: PartitionId, after: u64, limit: u32, bytes_max: usize) -> Vec<OutboxRow> {
        let rows = self.outbox.range((partition, after.saturating_add(1))..=(partition, u64::MAX));
        let mut before = 0_usize;
        let fits = |(_, row): &(&(PartitionId, u64), &OutboxRow)| {
            let fits = before < bytes_max.max(1);
            before = before.saturating_add(bytes(row));
            fits
        };
        rows.take(limit as usize).take_while(fits).map(|(_, row)| row.clone()).collect()
    }

    pub(super) fn set_aside(
        &mut self,
        partition: PartitionId,
        token: Token,
        rows: &[SetAside],
    ) -> Result<bool, StoreError> {
        let Some(row) = self.partitions.get_mut(&partition).filter(|row| row.token == Some(token)) else {
            return Ok(false);
        };
        let cursor = row.outbox_cursor;
        let aside: Vec<&SetAside> = rows.iter().filter(|aside| aside.sequence > cursor).collect();
        if aside.iter().any(|aside| !self.outbox.contains_key(&(partition, aside.sequence))) {
            return Err(StoreError::Broken("a row to set aside is not in the outbox".into()));
        }
        row.outbox_cursor = aside.iter().map(|aside| aside.sequence).max().unwrap_or(cursor);
        for aside in aside {
            self.last_position += 1;
            let stuck = Stuck {
                position: self.last_position,
                row: self.outbox[&(partition, aside.sequence)].clone(),
                hash: aside.hash,
                attempts: aside.attempts,
                error: aside.error.clone(),
                since: Timestamp::default(),
                order: None,
            };
            self.stuck.insert(self.last_position, stuck);
        }
        Ok(true)
    }

    pub(super) fn queues(&self) -> BTreeMap<Queue, u64> {
        let mut queues = BTreeMap::new();
        for stuck in self.stuck.values() {
            *queues.entry(Queue::of(&stuck.row.draft)).or_default() += 1;
        }
        queues
    }

    /// The first record of each queue.
    fn heads(&self) -> BTreeMap<Queue, i64> {
        let mut heads = BTreeMap::new();
        for (position, stuck) in &self.stuck {
            heads.entry(Queue::of(&stuck.row.draft)).or_insert(*position);
        }
        heads
    }

    pub(super) fn released(&self, slice: &Slice, limit: u32) -> Vec<Stuck> {
        let mut heads: Vec<&Stuck> = self.heads().values().map(|position| &self.stuck[position]).collect();
        heads.sort_by_key(|stuck| stuck.position);
        let is_released = |stuck: &&&Stuck| {
            slice.partitions.contains(&stuck.hash.home(slice.count.max(1)))
                && (stuck.attempts == 0 || stuck.order.is_some())
        };
        heads.iter().filter(is_released).take(limit as usize).map(|stuck| (*stuck).clone()).collect()
    }

    pub(super) fn end_release(&mut self, partition: PartitionId, token: Token, position: i64, end: &Release) -> bool {
        if self.partitions.get(&partition).is_none_or(|row| row.token != Some(token)) {
            return false;
        }
        match end {
            Release::Done => _ = self.stuck.remove(&position),
            Release::Refused(error) => {
                if let Some(stuck) = self.stuck.get_mut(&position) {
                    (stuck.attempts, stuck.error, stuck.order) = (stuck.attempts + 1, error.clone(), None);
                }
            }
        }
        true
    }

    pub(super) fn order_stuck(&mut self, order: &Order) -> usize {
        let heads = self.heads();
        for position in heads.values() {
            if let Some(stuck) = self.stuck.get_mut(position) {
                stuck.order = Some(order.clone());
            }
        }
        heads.len()
    }
}
