//! The one consumer that a log and its streams share, and what is known beside it.
//!
//! Invariant: a partition has at most one open stream, which holds its slot; a record that reaches the main
//! queue all the same is known to be astray, and its stream is notified. Deliberately absent: reading, which
//! is [`crate::stream`]'s, and serving the main queue, which is [`crate::log`]'s.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_core::{partition::PartitionId, port::log::LogError};
use rdkafka::{
    ClientConfig, ClientContext, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use tokio::sync::Notify;

use crate::{
    client::{blocking, log_line},
    config::KafkaConfig,
    error::unavailable,
    hints::Hints,
};

/// That a topic exists is believed this long.
const COUNT_BELIEVED: Duration = Duration::from_secs(10);

/// Logs what the data consumer says.
pub(crate) struct DataContext;

impl ClientContext for DataContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for DataContext {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "hint offsets were not committed");
        }
    }
}

pub(crate) type DataConsumer = BaseConsumer<DataContext>;

/// An open stream, as the main queue's thread sees it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Woken when the partition's queue gets something.
    pub(crate) wake: Notify,
    /// A record of this partition came by the main queue: open again.
    pub(crate) astray: AtomicBool,
}

type Slots = HashMap<(Arc<str>, u32), Arc<Slot>>;

/// What the log and its streams share.
pub(crate) struct Shared {
    pub(crate) consumer: Arc<DataConsumer>,
    pub(crate) context: String,
    slots: Mutex<Slots>,
    counts: Mutex<HashMap<Arc<str>, (u32, Instant)>>,
    pub(crate) hints: Hints,
    /// The commands topic, and where its offsets are noted instead: with the member, under the group that lag
    /// tools look at.
    pub(crate) member: Option<(String, Arc<Hints>)>,
    /// For end offsets, made when first asked for one.
    measure: OnceLock<Arc<BaseConsumer>>,
    config: ClientConfig,
    pub(crate) timeout: Duration,
}

impl Shared {
    /// Around `consumer`. `member` has the commands topic's hints, if there is one.
    pub(crate) fn new(config: &KafkaConfig, consumer: Arc<DataConsumer>, member: Option<(String, Arc<Hints>)>) -> Self {
        Self {
            consumer,
            context: config.context.clone(),
            slots: Mutex::default(),
            counts: Mutex::default(),
            hints: Hints::default(),
            member,
            measure: OnceLock::new(),
            config: config.measure(),
            timeout: config.request_timeout,
        }
    }

    pub(crate) fn measure(&self) -> Result<Arc<BaseConsumer>, LogError> {
        if let Some(consumer) = self.measure.get() {
            return Ok(Arc::clone(consumer));
        }
        let consumer: BaseConsumer = self.config.create().map_err(|error| unavailable("making a client", &error))?;
        Ok(Arc::clone(self.measure.get_or_init(|| Arc::new(consumer))))
    }

    /// Why the client can't go on, if so. Asked of the client: which queue the news comes by, and whether as
    /// an event or as a poll's error, differs.
    pub(crate) fn fatal(&self) -> Option<LogError> {
        let (code, reason) = self.consumer.client().fatal_error()?;
        Some(LogError::Fatal(format!("{code}: {reason}")))
    }

    /// Takes the slot of a partition; `None` if its stream is open.
    pub(crate) fn claim(&self, topic: &Arc<str>, partition: PartitionId) -> Option<Arc<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(topic), partition.0);
        if slots.contains_key(&key) {
            return None;
        }
        let slot = Arc::new(Slot::default());
        slots.insert(key, Arc::clone(&slot));
        Some(slot)
    }

    /// Gives a slot back.
    pub(crate) fn release(&self, topic: &Arc<str>, partition: PartitionId) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&(Arc::clone(topic), partition.0));
    }

    /// A record came by the main queue.
    pub(crate) fn astray(&self, topic: &str, partition: i32, offset: i64) {
        metrics::counter!("holdfast_kafka_stray_records_total", "context" => self.context.clone()).increment(1);
        tracing::error!(topic, partition, offset, "a record reached the main queue; its partition is opened again");
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = u32::try_from(partition).ok().and_then(|partition| slots.get(&(Arc::from(topic), partition)));
        if let Some(slot) = slot {
            slot.astray.store(true, Ordering::Release);
            slot.wake.notify_one();
        }
    }

    /// How many partitions the topic has, from the brokers.
    pub(crate) async fn ask_count(&self, topic: &str) -> Result<u32, LogError> {
        let (consumer, timeout, name) = (Arc::clone(&self.consumer), self.timeout, topic.to_owned());
        let count = blocking("reading the topic's metadata", timeout * 2, move || count(&consumer, &name, timeout));
        let count = count.await?;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.insert(topic.into(), (count, Instant::now()));
        Ok(count)
    }

    /// Fails unless the partition exists. Belief is enough, so that opening many partitions asks once.
    pub(crate) async fn check(&self, topic: &str, partition: PartitionId) -> Result<(), LogError> {
        let believed = {
            let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.get(topic).is_some_and(|(count, at)| partition.0 < *count && at.elapsed() < COUNT_BELIEVED)
        };
        if believed || partition.0 < self.ask_count(topic).await? {
            return Ok(());
        }
        Err(LogError::Unavailable(format!("{topic}-{partition} is not known to the brokers yet")))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.hints.commit(&self.consumer, |_| true);
    }
}

fn count(consumer: &DataConsumer, topic: &str, timeout: Duration) -> Result<u32, LogError> {
    let metadata =
        consumer.fetch_metadata(Some(topic), timeout).map_err(|error| unavailable("reading metadata", &error))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Err(LogError::NoSuchTopic(topic.to_owned()));
    };
    match found.error() {
        None => u32::try_from(found.partitions().len())
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| LogError::NoSuchTopic(topic.to_owned())),
        Some(
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
        ) => Err(LogError::NoSuchTopic(topic.to_owned())),
        Some(error) => Err(LogError::Unavailable(format!("metadata of {topic}: {error:?}"))),
    }
}
