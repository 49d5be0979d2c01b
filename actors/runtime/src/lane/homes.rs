//! What a lane does when the partition count changes: keys whose home is elsewhere are let go, then that is put on record.
//!
//! In this order (I5): the actors of moved keys stop, and nothing for them is accepted any more; *then* the acknowledgement is committed, with
//! the outbox head up to which events of theirs may still be published from here. A home that is new serves only once all earlier ones
//! have done so (see [`holdfast_core::growth`]); what came for it before that is held, in order.

use std::{sync::atomic::Ordering, time::Duration};

use holdfast_core::{KeyHash, PartitionId, growth::Growth};

use super::Lane;
use crate::{growth, mutant::Mutant, partition::PartitionMessage, relay::RelayMessage};

/// A refused commit waits at most so long for the news that explain it, before it is tried again.
const NEWS_PATIENCE: Duration = Duration::from_secs(1);

impl Lane {
    /// Brings the owned partitions to the generation in force, and opens those that need wait no longer.
    pub(super) async fn follow_counts(&mut self) {
        if std::mem::take(&mut self.is_outdated) {
            let known = self.owned.values().map(|owned| owned.generation).min();
            let is_news = |growth: &Growth| known.is_none_or(|known| growth.current().0 > known);
            let _ = tokio::time::timeout(NEWS_PATIENCE, self.env.homes.until(is_news)).await;
        }
        let growth = self.env.homes.now();
        let behind = |lane: &Self| -> Vec<PartitionId> {
            let is_behind = |owned: &&super::Owned| owned.generation < growth.current().0;
            lane.owned.values().filter(is_behind).map(|owned| owned.partition).collect()
        };
        if !behind(self).is_empty() {
            self.settle_all().await;
            for partition in behind(self) {
                self.move_to(partition, &growth).await;
            }
        }
        let mut is_waiting = false;
        for owned in self.owned.values_mut().filter(|owned| !owned.is_serving()) {
            if self.env.config.serves(&growth, owned.partition, owned.generation) {
                owned.serving.store(true, Ordering::Release);
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

    /// Lets go of the keys of `partition` that have moved, and puts that on record.
    async fn move_to(&mut self, partition: PartitionId, growth: &Growth) {
        let (generation, count) = growth.current();
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        let before = std::mem::replace(&mut owned.count, count);
        let is_late = self.env.config.is(Mutant::PassivatedAfterwards);
        let moved = owned.live.remove_where(|id| KeyHash::of(id.key.as_bytes()).home(count) != partition);
        if !moved.is_empty() && !is_late {
            let _ = owned.supervisor.send_message(PartitionMessage::Passivate { ids: moved.clone() });
        }
        // Whoever stays where he is goes on being served; a key that is new here must wait.
        if partition.0 >= before || count % before.max(1) != 0 {
            owned.serving.store(false, Ordering::Release);
        }
        let mark =
            growth::mark(self.env.context.name(), &self.env.emit.events_topic, partition, count, self.env.clock.now());
        let token = owned.token;
        match self.env.store.acknowledge(partition, token, generation, Some(mark)).await {
            Ok(Some(row)) => {
                owned.generation = generation;
                owned.outbox_head = row.outbox_head;
                let _ = self.relay.send(RelayMessage::Reload { partition, token, head: row.outbox_head });
                if is_late {
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
            Ok(None) => self.lose(partition),
            Err(error) => {
                tracing::warn!(context = self.env.context.name(), partition = partition.0, %error,
                    "a partition count could not be acknowledged; the partition is given up");
                self.lose(partition);
            }
        }
    }
}
