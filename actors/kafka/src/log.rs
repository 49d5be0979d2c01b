//! Reads partitions from explicit offsets: the [`Log`] port.
//!
//! One consumer, assigned by hand, shared by all streams of a context; see the crate's documentation for why
//! it does not subscribe. Invariant: a partition is split off before it is assigned, and every open stream
//! has a slot, so whatever arrives on the main queue is known to be astray. The main queue is served by a
//! thread of its own, which is also the one that closes the consumer (closing can block) once the log and its
//! streams are gone. Deliberately absent: subscribing, seeking, pausing (which throws prefetched records
//! away; a stream that isn't polled slows down by itself).

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_core::{
    partition::PartitionId,
    port::log::{Log, LogError, RecordStream},
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use crate::{
    admin::KafkaAdmin,
    client::blocking,
    config::KafkaConfig,
    describe,
    error::{ConfigError, unavailable},
    hints::{Hints, Pace},
    membership::KafkaMembership,
    shared::{DataConsumer, DataContext, Shared},
    stream::KafkaStream,
};

/// The main queue's thread looks up this often.
const POLL: Duration = Duration::from_millis(100);

/// One request for all of them. The end offsets are those of the high watermark, below which everything
/// acknowledged lies.
fn ends(consumer: &BaseConsumer, topic: &str, wanted: &[PartitionId], timeout: Duration) -> Result<Vec<u64>, LogError> {
    let failed = |error: KafkaError| unavailable("reading end offsets", &error);
    // Partitions that this client has not heard of can't be asked for.
    consumer.fetch_metadata(Some(topic), timeout).map_err(failed)?;
    let mut asked = TopicPartitionList::new();
    for partition in wanted {
        let number = i32::try_from(partition.0).unwrap_or(i32::MAX);
        asked.add_partition_offset(topic, number, Offset::End).map_err(failed)?;
    }
    // The client answers "unknown partition" for all while its own metadata is being refreshed.
    let answers = consumer.offsets_for_times(asked, timeout).unwrap_or_default();
    wanted
        .iter()
        .map(|partition| {
            let number = i32::try_from(partition.0).unwrap_or(i32::MAX);
            let found = answers.find_partition(topic, number);
            let end = if let Some((Ok(()), Offset::Offset(end))) = found.map(|found| (found.error(), found.offset())) {
                end
            } else {
                consumer.fetch_watermarks(topic, number, timeout).map_err(failed)?.1
            };
            Ok(u64::try_from(end).unwrap_or(0))
        })
        .collect()
}

/// The [`Log`] port on Kafka. Cheap to make; one per context and node.
pub struct KafkaLog {
    config: KafkaConfig,
    /// The client of the moment: one that failed for good is replaced when the next stream is opened.
    shared: Mutex<Arc<Shared>>,
    /// For what topics take, made when first asked.
    admin: OnceLock<KafkaAdmin>,
}

impl KafkaLog {
    /// Makes the data consumer. Does not wait for a broker.
    pub fn new(config: &KafkaConfig) -> Result<Self, ConfigError> {
        Self::make(config, None)
    }

    /// The same, and offsets of the commands topic are noted by the member, so that lag tools see them under
    /// the group's own name.
    pub fn with_member(config: &KafkaConfig, member: &KafkaMembership) -> Result<Self, ConfigError> {
        Self::make(config, Some((config.commands_topic(), member.hints())))
    }

    fn make(config: &KafkaConfig, member: Option<(String, Arc<Hints>)>) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config: config.clone(), shared: Mutex::new(Self::client(config, member)?), admin: OnceLock::new() })
    }

    fn client(config: &KafkaConfig, member: Option<(String, Arc<Hints>)>) -> Result<Arc<Shared>, ConfigError> {
        let consumer = Arc::new(DataConsumer::from_config_and_context(&config.data_consumer(), DataContext)?);
        let shared = Arc::new(Shared::new(config, Arc::clone(&consumer), member));
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name(format!("kafka-{}", config.context))
            .spawn(move || serve(consumer, &weak))
            .map_err(|error| ConfigError::Invalid(format!("no thread for the Kafka consumer: {error}")))?;
        Ok(shared)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A client that can go on. The streams of a client that can't end with its error, and their readers open
    /// them again.
    fn sound(&self) -> Result<Arc<Shared>, LogError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = shared.fatal() {
            tracing::error!(%error, context = self.config.context, "the Kafka consumer failed; it is replaced");
            metrics::counter!("holdfast_kafka_consumer_replaced_total", "context" => self.config.context.clone())
                .increment(1);
            *shared = Self::client(&self.config, shared.member.clone())?;
        }
        Ok(Arc::clone(&shared))
    }

    /// The first offset and the end offset of a partition, asked of the broker now: an end offset that is no
    /// older than this call. Slow (a round trip); [`RecordStream::end_offset`] is the cheap one.
    pub async fn watermarks(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64), LogError> {
        let (shared, name) = (self.shared(), topic.to_owned());
        let (consumer, timeout) = (Arc::clone(&shared.consumer), shared.timeout);
        blocking("reading the partition's end", timeout * 2, move || {
            let number = i32::try_from(partition.0).unwrap_or(i32::MAX);
            let (low, high) = consumer
                .fetch_watermarks(&name, number, timeout)
                .map_err(|error| unavailable("reading the partition's end", &error))?;
            Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
        })
        .await
    }
}

/// Serves the main queue until nobody else holds the consumer, then closes it.
fn serve(consumer: Arc<DataConsumer>, shared: &Weak<Shared>) {
    let mut pace = Pace::new();
    loop {
        let polled = consumer.poll(POLL);
        let Some(shared) = shared.upgrade() else {
            // Streams hold the consumer too, for as long as they live.
            if Arc::strong_count(&consumer) == 1 {
                return;
            }
            continue;
        };
        match polled {
            None => {}
            Some(Ok(message)) => shared.astray(message.topic(), message.partition(), message.offset()),
            Some(Err(error)) => tracing::debug!(%error, "kafka consumer's main queue"),
        }
        if pace.due() {
            shared.hints.commit(&consumer, |_| true);
        }
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn partition_count(&self, topic: &str) -> Result<u32, LogError> {
        self.shared().ask_count(topic).await
    }

    async fn ends(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<u64>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let shared = self.shared();
        let consumer = shared.measure()?;
        let (timeout, topic, partitions) = (shared.timeout, topic.to_owned(), partitions.to_vec());
        blocking("reading end offsets", timeout * 2, move || ends(&consumer, &topic, &partitions, timeout)).await
    }

    async fn open(
        &self,
        topic: &str,
        partition: PartitionId,
        from: Option<u64>,
    ) -> Result<Box<dyn RecordStream>, LogError> {
        let shared = self.sound()?;
        shared.check(topic, partition).await?;
        Ok(Box::new(KafkaStream::open(&shared, topic.into(), partition, from)?))
    }

    async fn bounds(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64), LogError> {
        self.watermarks(topic, partition).await
    }

    async fn incarnation(&self, topic: &str) -> Result<Option<String>, LogError> {
        let (shared, name) = (self.shared(), topic.to_owned());
        let (consumer, timeout) = (Arc::clone(&shared.consumer), shared.timeout);
        blocking("reading the topic's id", timeout * 2, move || describe::topic_id(consumer.client(), &name, timeout))
            .await
    }

    async fn bytes_max(&self, topic: &str) -> Result<Option<u64>, LogError> {
        let admin = if let Some(admin) = self.admin.get() {
            admin
        } else {
            let admin = KafkaAdmin::new(&self.config)?;
            self.admin.get_or_init(|| admin)
        };
        admin.bytes_max(topic).await
    }

    fn store_offset(&self, topic: &str, partition: PartitionId, next: u64) {
        let shared = self.shared();
        let hints = match &shared.member {
            Some((commands, hints)) if commands == topic => hints,
            _ => &shared.hints,
        };
        hints.note(topic, partition.0, next);
    }
}
