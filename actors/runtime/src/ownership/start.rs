//! Beginning to serve a partition that has been taken: its lease, supervisor, relay, lane and readers, and
//! the router's way to it.
//!
//! Deliberately absent: taking, which is the machine's.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use holdfast_core::{AggregateId, PartitionId};
use holdfast_machine::{
    lane::{Own, serves},
    ownership::{Grant, Loss},
};
use ractor::Actor as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Held, Ownership, State};
use crate::{
    entity::Shared,
    guard::guarded_future,
    handles::Handle,
    lane::{Control, Lost},
    lease::Lease,
    owned::{Owned, Tokens},
    partition::{Partition, PartitionArguments},
    relay::{Home, RelayMessage},
    work::{Input, ReadReply, Work},
};

impl Ownership {
    /// Begins to serve a partition that has been taken.
    pub(super) async fn start(&self, state: &mut State, grant: Grant) -> Result<(), ractor::SpawnErr> {
        let Grant { row, term, count, token, known, lease_until } = grant;
        let partition = row.partition;
        let lane = self.lane_of(partition).clone();
        let lease = Lease::new(self.clock.clone());
        lease.extend(lease_until);
        let shared = Arc::new(Shared {
            emit: self.emit.clone(),
            lease: lease.clone(),
            clock: self.clock.clone(),
            rules: self.config.rules,
        });
        let arguments = PartitionArguments { context: self.fetcher.context.name(), shared };
        let (supervisor, _) = Partition::spawn_linked(None, Partition, arguments, self.root.clone()).await?;
        let tokens = Tokens::default();
        tokens.add(token);
        let serving =
            Arc::new(AtomicBool::new(serves(self.config.rules, &self.homes.now(), partition, row.generation)));
        let published = Arc::new(AtomicU64::new(row.outbox_cursor));
        let remembered = state.remembered(partition);
        remembered.store(row.batch, Ordering::Release);
        let _ = lane.relay.send(RelayMessage::Own {
            partition,
            term,
            token,
            cursor: row.outbox_cursor,
            head: row.outbox_head,
            published: published.clone(),
            known,
            home: Home { count, serves: serving.load(Ordering::Acquire) },
        });
        let own = Own {
            partition,
            term,
            token,
            generation: row.generation,
            count,
            is_serving: serving.load(Ordering::Acquire),
            batch: row.batch,
            outbox_head: row.outbox_head,
        };
        let owned = Owned {
            own,
            tokens: tokens.clone(),
            serving: serving.clone(),
            remembered,
            supervisor: supervisor.clone(),
            published,
            cursor_stored: row.outbox_cursor,
            done: None,
        };
        let _ = lane.control.send(Control::Own(Box::new(owned)));
        let stop = CancellationToken::new();
        for topic in self.fetcher.context.inputs() {
            let (fetcher, inputs) = (self.fetcher.clone(), lane.inputs.clone());
            let (serving, stop, from) = (serving.clone(), stop.clone(), row.next_offset(topic));
            let reading = fetcher.run(topic.clone(), partition, term, from, inputs, serving, stop);
            let (board, losses, name) = (self.board.clone(), self.losses.clone(), format!("{topic}-{partition}"));
            tokio::spawn(async move {
                // An input without a reader would stop without a log line. Once taken again, the partition is
                // read from what was committed.
                if let Err(panicked) = guarded_future("reading", reading).await {
                    board.ended("reader", name, &panicked.to_string());
                    let _ = losses.send(Lost { partition, term, cause: Loss::ReaderDied });
                }
            });
        }
        let cold = forward_cold(partition, term, lane.inputs.clone());
        let handle = Handle { term, supervisor, lane: lane.inputs, lease: lease.clone(), serving, cold };
        self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(partition, handle);
        state.held.insert(partition, Held { term, tokens, lease, stop });
        tracing::info!(
            context = self.fetcher.context.name(),
            partition = partition.0,
            epoch = row.epoch.0,
            "partition owned"
        );
        Ok(())
    }
}

/// Sends reads that found no live actor to the lane, which activates one.
fn forward_cold(
    partition: PartitionId,
    term: u64,
    lane: mpsc::Sender<Input>,
) -> mpsc::UnboundedSender<(AggregateId, ReadReply)> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(AggregateId, ReadReply)>();
    tokio::spawn(async move {
        while let Some((aggregate, reply)) = receiver.recv().await {
            if reply.is_abandoned() {
                continue;
            }
            let work = Work::Activate { aggregate, reply };
            if lane.send(Input { partition, term, work }).await.is_err() {
                return;
            }
        }
    });
    sender
}
