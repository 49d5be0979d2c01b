//! Offsets noted for lag tools, until the client's thread commits them.
//!
//! They are never read back: what is consumed is known by Postgres alone (I1). So all is best effort: one
//! commit a second at most, asynchronous, a failed one is not repeated, and only the newest offset of a
//! partition is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
};

/// At most one commit in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Offsets not committed yet, by topic and partition.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    noted: Mutex<HashMap<Arc<str>, HashMap<u32, u64>>>,
}

impl Hints {
    /// Notes that everything below `next` is consumed.
    pub(crate) fn note(&self, topic: &str, partition: u32, next: u64) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        match noted.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition, next);
            }
            None => {
                noted.insert(topic.into(), HashMap::from([(partition, next)]));
            }
        }
    }

    fn take(&self) -> HashMap<Arc<str>, HashMap<u32, u64>> {
        std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends what was noted for the partitions that `keep` lets through, and forgets it all.
    pub(crate) fn commit<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>, keep: impl Fn(u32) -> bool) {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in self.take() {
            for (partition, next) in partitions {
                if keep(partition) {
                    add(&mut list, &topic, partition, next);
                }
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "hint offsets were not committed");
        }
    }
}

/// Adds a partition and an offset to a list; numbers beyond Kafka's range don't occur and are left out.
pub(crate) fn add(list: &mut TopicPartitionList, topic: &str, partition: u32, offset: u64) {
    if let (Ok(partition), Ok(offset)) = (i32::try_from(partition), i64::try_from(offset)) {
        let _ = list.add_partition_offset(topic, partition, Offset::Offset(offset));
    }
}

/// Says when the next commit is due.
#[derive(Debug)]
pub(crate) struct Pace(Instant);

impl Pace {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Whether an interval has passed since it last was due.
    pub(crate) fn due(&mut self) -> bool {
        let due = self.0.elapsed() >= INTERVAL;
        if due {
            self.0 = Instant::now();
        }
        due
    }
}
