//! Giving partitions up in good order, so that the next owner need not wait.
//!
//! Upholds I5: the lease ends before anything else does, and the row is marked as released last, once all that was committed is published.
//! Deliberately absent: what is lost to a fence, which has nothing to hand over.

use std::{sync::PoisonError, time::Duration};

use holdfast_core::{PartitionId, port::store::Store};
use tokio::sync::oneshot;

use super::{Chore, Done, Held, LaneEnds, Ownership, State, Work};
use crate::{lane::Control, mutant::Mutant, relay::RelayMessage};

impl Ownership {
    /// Ends this node's serving of a partition: first the lease, so that no strong read is answered from here on.
    pub(super) fn close(&self, partition: PartitionId, held: &Held) {
        held.lease.end();
        self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        held.stop.cancel();
    }

    pub(super) fn release(&self, state: &mut State, work: &mut Work, partition: PartitionId) {
        let Some(held) = state.held.remove(&partition) else { return };
        if self.config.is(Mutant::ReleaseFirst) {
            return self.release_first(state, work, partition, held);
        }
        self.close(partition, &held);
        state.releasing.insert(partition);
        let (lane, store, drain) = (self.lane_of(partition).clone(), self.store.clone(), self.config.drain);
        let context = self.fetcher.context.name();
        work.spawn(Chore::Release(partition, held.term), async move {
            let handed_over = tokio::time::timeout(drain, hand_over(&lane, &*store, partition, held.term)).await;
            let partition_index = partition.0;
            if handed_over == Ok(true) {
                tracing::info!(context, partition = partition_index, "partition released");
            } else {
                tracing::warn!(
                    context,
                    partition = partition_index,
                    "partition given up without release; its next owner waits out a lease"
                );
                lane.forget(partition, held.term);
            }
            Done::Released { partition }
        });
    }

    /// [`Mutant::ReleaseFirst`]: serves on for a second.
    fn release_first(&self, state: &mut State, work: &mut Work, partition: PartitionId, held: Held) {
        state.releasing.insert(partition);
        let (lane, store, handles) = (self.lane_of(partition).clone(), self.store.clone(), self.handles.clone());
        work.spawn(Chore::Release(partition, held.term), async move {
            if let Some(token) = held.tokens.last() {
                let _ = store.release(partition, token).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            held.lease.end();
            handles.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
            held.stop.cancel();
            let _ = hand_over(&lane, &*store, partition, held.term).await;
            Done::Released { partition }
        });
    }

    pub(super) async fn release_all(&self, mut state: State, mut work: Work) {
        let ids: Vec<PartitionId> = state.held.keys().copied().collect();
        for partition in ids {
            self.release(&mut state, &mut work, partition);
        }
        while !state.releasing.is_empty() {
            match work.next().await {
                Some(Ok(Done::Released { partition }) | Err(Chore::Release(partition, _))) => {
                    state.releasing.remove(&partition);
                }
                Some(_) => {}
                None => break,
            }
        }
        work.abort_all();
        self.membership.leave().await;
    }
}

/// Finishes what is in flight, publishes it, and marks the row as released.
async fn hand_over(lane: &LaneEnds, store: &dyn Store, partition: PartitionId, term: u64) -> bool {
    let (done, finished) = oneshot::channel();
    if lane.control.send(Control::Release { partition, term, done }).is_err() {
        return false;
    }
    let Ok((token, head)) = finished.await else { return false };
    let (done, published) = oneshot::channel();
    let _ = lane.relay.send(RelayMessage::Finish { partition, token, head, done });
    if published.await.is_err() {
        return false;
    }
    store.release(partition, token).await.unwrap_or(false)
}
