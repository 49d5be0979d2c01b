//! What a test does with the store in memory beside the port: faults, and looks at what is stored.
//!
//! Faults are those of one handle, which is one node's; what is stored is the same for all, and so is
//! sabotage. Deliberately absent: what a fault does, which the port says.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use holdfast_core::{
    AggregateId, PartitionId,
    batch::Writes,
    epoch::{Generation, PartitionRow},
    pool::Pool,
    port::store::StateRow,
    stuck::Order,
};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::{CommitFault, Contents, MemoryStore, Sabotage};
use crate::{gate::Gate, log::MemoryLog};

/// Row locks held by a test.
#[derive(Debug)]
pub struct HeldRows {
    _guards: Vec<OwnedMutexGuard<()>>,
}

impl MemoryStore {
    /// Cuts this node off from the store, or joins it again.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.faults.set_unavailable(unavailable);
    }

    /// Does what the next `n` calls that write (other than commits) ask, but loses the answers.
    pub fn lose_answers(&self, n: u32) {
        self.faults.lose_answers(n);
    }

    /// Cuts this node off from the store after `calls` more calls.
    pub fn fail_after(&self, calls: u32) {
        self.faults.fail_after(calls);
    }

    /// Panics in the next `n` take-overs of this node: a bug in the adapter.
    pub fn panic_on_take(&self, n: u32) {
        self.faults.panic_on_take(n);
    }

    /// Makes each of this node's calls take this long, in tokio's time.
    pub fn set_latency(&self, latency: Duration) {
        self.faults.set_latency(latency);
    }

    /// Makes the answers to this node's questions for tokens take this long on their way back.
    pub fn set_answer_latency(&self, latency: Duration) {
        self.faults.set_answer_latency(latency);
    }

    /// Makes this node's beats take this long on their way to the store.
    pub fn set_beat_latency(&self, latency: Duration) {
        self.faults.set_beat_latency(latency);
    }

    /// Queues the fault that this node's next commit without one meets.
    pub fn next_commit(&self, fault: CommitFault) {
        self.faults.next_commit(fault);
    }

    /// Refuses this node's batches that hold writes for which `bad` is true, with `sqlstate`.
    pub fn refuse(&self, sqlstate: &str, bad: impl Fn(&Writes) -> bool + Send + Sync + 'static) {
        let sqlstate = sqlstate.to_owned();
        self.faults.set_refusal(Some(Arc::new(move |writes| {
            bad(writes).then(|| (sqlstate.clone(), "refused as the test asked".to_owned()))
        })));
    }

    /// Ends this node's commits of more than `max` entries for their time.
    pub fn end_commits_over(&self, max: Option<usize>) {
        self.faults.set_entries_max(max);
    }

    /// Keeps the answers to this node's look-ups, and to its other reads of the loop, back until `gate`
    /// opens: a store that hangs.
    pub fn hang_reads(&self, gate: Option<Gate>) {
        self.faults.hang_reads(gate);
    }

    /// Makes the stored state of `id` unreadable, for every node.
    pub fn spoil(&self, id: &AggregateId) {
        self.lock().unreadable.insert(id.clone());
    }

    /// Makes the claims of this message id unreadable, for every node.
    pub fn spoil_claim(&self, id: Uuid) {
        self.lock().unreadable_claims.insert(id);
    }

    /// Changes what is stored, behind every node's back.
    pub fn tamper(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.lock());
    }

    /// Ends [`Self::refuse`].
    pub fn refuse_nothing(&self) {
        self.faults.set_refusal(None);
    }

    /// Ends all faults of this node, queued ones included. What is on its way stays there until its gate
    /// opens.
    pub fn heal(&self) {
        self.faults.heal();
    }

    /// Makes the store break its contract, for every node (I9).
    pub fn sabotage(&self, change: impl FnOnce(&mut Sabotage)) {
        change(&mut self.shared.sabotage.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes every node publish what a batch would write before it commits (I9).
    pub fn publish_first(&self, log: MemoryLog) {
        *self.shared.publish_first.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }

    /// A copy of everything stored.
    pub fn contents(&self) -> Contents {
        self.lock().clone()
    }

    /// Replaces everything stored, as a restore from a backup does.
    pub fn restore(&self, contents: Contents) {
        *self.lock() = contents;
    }

    /// The row of `partition`.
    pub fn partition(&self, partition: PartitionId) -> Option<PartitionRow> {
        self.lock().partitions.get(&partition).cloned()
    }

    /// The state of `id`.
    pub fn state(&self, id: &AggregateId) -> Option<StateRow> {
        self.lock().states.get(id).cloned()
    }

    /// The read model's row of `id`.
    pub fn view(&self, id: &AggregateId) -> Option<Value> {
        self.lock().views.get(id).cloned()
    }

    /// Whether an outbox row with this id was ever written.
    pub fn staged(&self, id: &Uuid) -> bool {
        self.lock().staged(id)
    }

    /// Sets a shared quantity.
    pub fn set_pool(&self, name: impl Into<String>, pool: Pool) {
        self.lock().pools.insert(name.into(), pool);
    }

    /// What an operator says of the first stuck record of each queue; returns how many there are.
    pub fn order_stuck(&self, order: &Order) -> usize {
        self.lock().order_stuck(order)
    }

    /// Puts another generation in force on every row.
    pub fn set_generation(&self, generation: Generation) {
        for row in self.lock().partitions.values_mut() {
            row.generation = generation;
        }
    }

    /// Holds the rows of `partitions` as a transaction that hangs would, until the answer is dropped.
    pub async fn hold_rows(&self, partitions: &[PartitionId]) -> HeldRows {
        HeldRows { _guards: self.lock_rows(partitions.iter().copied()).await }
    }
}
