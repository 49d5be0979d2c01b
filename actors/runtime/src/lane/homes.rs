//! What a lane does when the partition count changes: keys whose home is elsewhere are let go, then that is put on record.
//!
//! In this order (I5): the actors of moved keys stop, and nothing for them is accepted any more; *then* the acknowledgement is committed, with
//! the outbox head up to which events of theirs may still be published from here. A home that is new serves only once all earlier ones
//! have done so (see [`holdfast_core::growth`]); what came for it before that is held, in order.

use std::{sync::atomic::Ordering, time::Duration};

use futures::StreamExt as _;
use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    batch::OutboxDraft,
    epoch::{PartitionRow, Token},
    growth::Growth,
    port::store::StoreError,
};

use holdfast_machine::ownership::Loss;

use super::{DATABASE, Lane};
use crate::{
    growth,
    owned::Owned,
    partition::PartitionMessage,
    relay::{Home, RelayMessage},
    work::Input,
};

/// A refused commit waits at most so long for the news that explain it, before it is tried again.
const NEWS_PATIENCE: Duration = Duration::from_secs(1);
/// Each takes a connection for a round trip, of the few that are not for commits or reads.
const ACKNOWLEDGED_AT_ONCE: usize = 2;

/// A partition that is about to acknowledge a generation.
struct Move {
    partition: PartitionId,
    token: Token,
    mark: Option<OutboxDraft>,
    /// Whom it let go.
    moved: Vec<AggregateId>,
}

impl Lane {
    /// Brings the owned partitions to the generation in force, and opens those that need wait no longer.
    pub(super) async fn follow_counts(&mut self, batch: &mut Vec<Input>) {
        if std::mem::take(&mut self.is_outdated) {
            let known = self.owned.values().map(|owned| owned.generation).min();
            let is_news = |growth: &Growth| known.is_none_or(|known| growth.current().0 > known);
            let mut homes = self.env.homes.clone();
            let news = tokio::time::timeout(NEWS_PATIENCE, async move { homes.until(is_news).await });
            let _ = self.hearing(batch, news).await;
        }
        let growth = self.env.homes.now();
        let behind = |lane: &Self| -> Vec<PartitionId> {
            let is_behind = |owned: &&Owned| owned.generation < growth.current().0;
            lane.owned.values().filter(is_behind).map(|owned| owned.partition).collect()
        };
        if !behind(self).is_empty() {
            self.settle_all(batch).await;
            self.move_to(behind(self), &growth, batch).await;
        }
        let mut is_waiting = false;
        for owned in self.owned.values_mut().filter(|owned| !owned.is_serving()) {
            if self.env.config.serves(&growth, owned.partition, owned.generation) {
                owned.serving.store(true, Ordering::Release);
                let home = Home { count: owned.count, serves: true };
                let _ = self.relay.send(RelayMessage::Home { partition: owned.partition, home });
                if !owned.held.is_empty() {
                    self.undone.push(std::mem::take(&mut owned.held));
                    self.is_disturbed = true;
                }
            } else {
                is_waiting = true;
            }
        }
        if is_waiting {
            self.env.homes.hurry();
        }
    }

    /// Lets go of the keys of `partitions` that have moved, and puts that on record, a few at a time.
    async fn move_to(&mut self, partitions: Vec<PartitionId>, growth: &Growth, batch: &mut Vec<Input>) {
        let (generation, _) = growth.current();
        let moves: Vec<_> = partitions.into_iter().filter_map(|partition| self.let_go(partition, growth)).collect();
        let store = self.env.store.clone();
        let acknowledge = |Move { partition, token, mark, moved }| {
            let store = store.clone();
            async move { (partition, token, moved, store.acknowledge(partition, token, generation, mark).await) }
        };
        let mut answers = futures::stream::iter(moves).map(acknowledge).buffered(ACKNOWLEDGED_AT_ONCE);
        self.pulse.waits(DATABASE);
        while let Some((partition, token, moved, answer)) = self.hearing(batch, answers.next()).await {
            // It may have been dropped meanwhile, and owned again.
            if self.owned.get(&partition).is_none_or(|owned| owned.token != token) {
                continue;
            }
            self.pulse.moved();
            self.moved(partition, token, moved, growth, answer).await;
        }
    }

    /// Stops the actors of keys whose home is elsewhere now. From here on nothing for them is accepted.
    fn let_go(&mut self, partition: PartitionId, growth: &Growth) -> Option<Move> {
        let (_, count) = growth.current();
        let owned = self.owned.get_mut(&partition)?;
        let before = std::mem::replace(&mut owned.count, count);
        let moved = owned.live.remove_where(|id| KeyHash::of(id.key.as_bytes()).home(count) != partition);
        if !moved.is_empty() && self.env.config.rules.passivates_before_acknowledging {
            let _ = owned.supervisor.send_message(PartitionMessage::Passivate { ids: moved.clone() });
        }
        // Whoever stays where he is goes on being served; a key that is new here must wait.
        if partition.0 >= before || count % before.max(1) != 0 {
            owned.serving.store(false, Ordering::Release);
        }
        let mark =
            growth::mark(self.env.context.name(), &self.env.emit.events_topic, partition, count, self.env.clock.now());
        Some(Move { partition, token: owned.token, mark, moved })
    }

    /// Takes in how an acknowledgement ended.
    async fn moved(
        &mut self,
        partition: PartitionId,
        token: Token,
        moved: Vec<AggregateId>,
        growth: &Growth,
        answer: Result<Option<PartitionRow>, StoreError>,
    ) {
        let (generation, count) = growth.current();
        match answer {
            Ok(Some(row)) => {
                let Some(owned) = self.owned.get_mut(&partition) else { return };
                owned.generation = generation;
                owned.outbox_head = row.outbox_head;
                let _ = self.relay.send(RelayMessage::Reload { partition, token, head: row.outbox_head });
                let home = Home { count, serves: owned.is_serving() };
                let _ = self.relay.send(RelayMessage::Home { partition, home });
                if !self.env.config.rules.passivates_before_acknowledging {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    let _ = owned.supervisor.send_message(PartitionMessage::Passivate { ids: moved });
                }
                tracing::info!(
                    context = self.env.context.name(),
                    partition = partition.0,
                    generation = generation.0,
                    count,
                    "partition count acknowledged"
                );
            }
            // Fenced, or another generation follows at once; and after a lost answer the row is not what we think it is. The next owner,
            // most likely this node, begins with an acknowledgement.
            Ok(None) => self.lose(partition, Loss::Fenced),
            Err(error) => {
                tracing::warn!(context = self.env.context.name(), partition = partition.0, %error,
                    "a partition count could not be acknowledged; the partition is given up");
                self.lose(partition, Loss::AcknowledgementFailed);
            }
        }
    }
}
