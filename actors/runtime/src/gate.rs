//! Where the records of one partition wait, while counts grow, for whatever may have been sent before them.
//!
//! Upholds I3 (see [`holdfast_core::growth`]). A record passes once every partition in which an older one of the same producer and key can
//! lie has committed past the end that it had *after* this record was there; and once the keys at home here are served. Nothing is
//! held meanwhile but the one record that was read: no credit, so a wait takes no memory from others. A gate that is open stays
//! open: what makes a partition wait is older than the partition.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use holdfast_core::{PartitionId, growth::Growth, port::log::Log};

use holdfast_machine::Rules;

use crate::{backoff::Backoff, growth::Homes};

pub(crate) struct Gate {
    topic: Arc<str>,
    partition: PartitionId,
    log: Arc<dyn Log>,
    homes: Homes,
    /// Set by the lane: whether this home serves its keys.
    serving: Arc<AtomicBool>,
    /// Records below this offset have waited.
    open_below: u64,
    rules: Rules,
}

impl Gate {
    pub fn new(
        topic: Arc<str>,
        partition: PartitionId,
        log: Arc<dyn Log>,
        homes: Homes,
        serving: Arc<AtomicBool>,
        rules: Rules,
    ) -> Self {
        Self { topic, partition, log, homes, serving, open_below: 0, rules }
    }

    /// Whether the record at `offset` may go on at once.
    pub fn is_open(&self, offset: u64) -> bool {
        offset < self.open_below && self.serving.load(Ordering::Acquire)
    }

    /// Waits until the record at `offset`, which has been read, may go on.
    pub async fn pass(&mut self, offset: u64) {
        if offset >= self.open_below {
            self.wait_for_ancestors(offset).await;
        }
        if !self.serving.load(Ordering::Acquire) {
            let serving = self.serving.clone();
            self.homes.until(|_| serving.load(Ordering::Acquire)).await;
        }
    }

    async fn wait_for_ancestors(&mut self, offset: u64) {
        let mut backoff = Backoff::infrastructure();
        let (topic, partition) = (self.topic.clone(), self.partition);
        // A partition that was never heard of has come with a transition that was never heard of.
        let growth = self.homes.until(|growth| growth.topic_count(&topic) > partition.0).await;
        let ancestors = self.ancestors(&growth);
        if ancestors.is_empty() {
            self.open_below = u64::MAX;
            return;
        }
        loop {
            // In this order: whatever lies here by now was sent before the ends of the others are read.
            match self.measure(&ancestors).await {
                Ok((own, ends)) => {
                    let ends: Vec<(PartitionId, u64)> = ancestors.into_iter().zip(ends).collect();
                    self.homes.until(|growth| growth.is_past(&topic, &ends)).await;
                    self.open_below = own.max(offset + 1);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%topic, %partition, %error, "end offsets could not be read; holding");
                    backoff.wait().await;
                }
            }
        }
    }

    fn ancestors(&self, growth: &Growth) -> Vec<PartitionId> {
        let all = growth.ancestors(&self.topic, self.partition);
        if !self.rules.waits_for_ancestors {
            return Vec::new();
        }
        if !self.rules.waits_for_all_ancestors {
            // It is the highest: counts are multiples.
            return all.into_iter().next_back().into_iter().collect();
        }
        all
    }

    async fn measure(&self, ancestors: &[PartitionId]) -> Result<(u64, Vec<u64>), holdfast_core::port::log::LogError> {
        if !self.rules.measures_ends_after_fetch {
            let ends = self.log.ends(&self.topic, ancestors).await?;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let own = self.log.ends(&self.topic, &[self.partition]).await?;
            return Ok((own.first().copied().unwrap_or(0), ends));
        }
        let own = self.log.ends(&self.topic, &[self.partition]).await?;
        let ends = self.log.ends(&self.topic, ancestors).await?;
        Ok((own.first().copied().unwrap_or(0), ends))
    }
}
