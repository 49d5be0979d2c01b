//! The few things that load and checkers ask of Kafka: make topics and grow them, know their ends, read them
//! to the end.
//!
//! Everything is bounded in time. Deliberately absent: groups, offsets that are kept, and the runtime's own
//! Kafka crate.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
    producer::{BaseProducer, BaseRecord, ProducerContext},
    topic_partition_list::TopicPartitionListElem,
};

/// What can go wrong between us and the broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client or the broker.
    #[error("kafka: {what}")]
    Kafka {
        /// While doing what.
        what: String,
        /// What the client said.
        #[source]
        source: KafkaError,
    },
    /// The broker refused.
    #[error("kafka refused: {0}")]
    Refused(String),
    /// It took too long.
    #[error("gave up after {0:?}: {1}")]
    Timeout(Duration, String),
    /// A blocking task ended early.
    #[error("a task ended early")]
    Task(#[from] tokio::task::JoinError),
}

pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(KafkaError) -> Error {
    let what = what.into();
    move |source| Error::Kafka { what, source }
}

const METADATA: Duration = Duration::from_secs(10);
/// How long reports are waited for while a queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// A client configuration for `brokers`.
pub fn client(brokers: &str, id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", id).set_log_level(RDKafkaLogLevel::Error);
    config
}

/// A configuration for producers whose records are acknowledged once, and lie where Java's partitioner puts
/// them.
pub(crate) fn producer(brokers: &str, id: &str) -> ClientConfig {
    let mut config = client(brokers, id);
    config.set("acks", "all").set("enable.idempotence", "true").set("partitioner", "murmur2_random");
    config
}

/// Hands a record to the client, and serves its reports while its queue is full.
pub(crate) fn hand_over<C: ProducerContext>(
    producer: &BaseProducer<C>,
    mut record: BaseRecord<'_, [u8], [u8], C::DeliveryOpaque>,
) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(FULL_PAUSE);
                record = back;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Makes topics that aren't there yet, each with `partitions` partitions, and waits until clients find them.
pub async fn create_topics(brokers: &str, names: &[&str], partitions: i32) -> Result<(), Error> {
    create_topics_with(brokers, names, partitions, &[]).await
}

/// Likewise, with this configuration.
pub async fn create_topics_with(
    brokers: &str,
    names: &[&str],
    partitions: i32,
    config: &[(&str, &str)],
) -> Result<(), Error> {
    let admin: AdminClient<DefaultClientContext> =
        client(brokers, "holdfast-load-admin").create().map_err(failed("admin client"))?;
    let topic = |name| {
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        config.iter().fold(new, |new, (key, value)| new.set(key, value))
    };
    let topics: Vec<_> = names.iter().map(|name| topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(METADATA)).operation_timeout(Some(METADATA));
    for answer in admin.create_topics(&topics, &options).await.map_err(failed("creating topics"))? {
        match answer {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::Refused(format!("creating {topic}: {code}"))),
        }
    }
    let (brokers, names): (String, Vec<String>) =
        (brokers.to_owned(), names.iter().map(|name| (*name).to_owned()).collect());
    tokio::task::spawn_blocking(move || until_known(&brokers, &names)).await?
}

/// A broker may answer that a topic is made before it knows of it itself.
fn until_known(brokers: &str, names: &[String]) -> Result<(), Error> {
    let (consumer, give_up) = (reader(brokers)?, Instant::now() + METADATA);
    for name in names {
        while partitions(&consumer, name)?.is_empty() {
            if Instant::now() > give_up {
                return Err(Error::Timeout(METADATA, format!("the broker does not know {name}, which was made")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Adds partitions to a topic by Kafka's own means. Producers and consumers of the topic get no notice.
pub async fn grow_topic(brokers: &str, name: &str, partitions: usize) -> Result<(), Error> {
    let failed = |source| Error::Kafka { what: format!("growing {name}"), source };
    let admin: AdminClient<DefaultClientContext> = client(brokers, "holdfast-load").create().map_err(failed)?;
    let grown = admin.create_partitions(&[NewPartitions::new(name, partitions)], &AdminOptions::new()).await;
    match grown.map_err(failed)?.into_iter().next() {
        Some(Err((name, code))) => Err(Error::Refused(format!("{name}: {code}"))),
        _ => Ok(()),
    }
}

/// Deletes topics; one that isn't there is fine.
pub async fn delete_topics(brokers: &str, names: &[&str]) -> Result<(), Error> {
    let admin: AdminClient<DefaultClientContext> =
        client(brokers, "holdfast-load-admin").create().map_err(failed("admin client"))?;
    let options = AdminOptions::new().request_timeout(Some(METADATA)).operation_timeout(Some(METADATA));
    for answer in admin.delete_topics(names, &options).await.map_err(failed("deleting topics"))? {
        match answer {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
            Err((topic, code)) => return Err(Error::Refused(format!("deleting {topic}: {code}"))),
        }
    }
    Ok(())
}

/// Deletes a topic and makes it again, empty, as soon as the broker lets that happen.
pub async fn recreate_topic(brokers: &str, name: &str, partitions: i32) -> Result<(), Error> {
    delete_topics(brokers, &[name]).await?;
    let admin: AdminClient<DefaultClientContext> =
        client(brokers, "holdfast-load-admin").create().map_err(failed("admin client"))?;
    let options = AdminOptions::new().request_timeout(Some(METADATA)).operation_timeout(Some(METADATA));
    let give_up = Instant::now() + METADATA * 3;
    loop {
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        match admin.create_topics(&[new], &options).await.map_err(failed("creating a topic"))?.pop() {
            Some(Ok(_)) => return Ok(()),
            answer if Instant::now() > give_up => return Err(Error::Refused(format!("{name} again: {answer:?}"))),
            // The old one is not quite gone.
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Deletes what lies below `before` in each partition given, as retention does.
pub async fn delete_records(brokers: &str, topic: &str, before: &BTreeMap<i32, i64>) -> Result<(), Error> {
    let admin: AdminClient<DefaultClientContext> =
        client(brokers, "holdfast-load-admin").create().map_err(failed("admin client"))?;
    let mut list = TopicPartitionList::new();
    for (partition, offset) in before {
        let added = list.add_partition_offset(topic, *partition, Offset::Offset(*offset));
        added.map_err(failed("an offset"))?;
    }
    let options = AdminOptions::new().request_timeout(Some(METADATA)).operation_timeout(Some(METADATA));
    admin.delete_records(&list, &options).await.map_err(failed("deleting records")).map(drop)
}

/// Asks again and again how far topics reach, over one connection.
pub struct Ends {
    consumer: std::sync::Arc<BaseConsumer>,
}

impl Ends {
    /// Connects.
    pub fn new(brokers: &str) -> Result<Self, Error> {
        Ok(Self { consumer: std::sync::Arc::new(reader(brokers)?) })
    }

    /// The offset after the last readable record of each partition of `topic`.
    pub async fn of(&self, topic: &str) -> Result<BTreeMap<i32, i64>, Error> {
        let (consumer, topic) = (std::sync::Arc::clone(&self.consumer), topic.to_owned());
        tokio::task::spawn_blocking(move || ends(&consumer, &topic)).await?
    }

    /// Records in `topic`, if none was ever deleted.
    pub async fn total(&self, topic: &str) -> Result<u64, Error> {
        Ok(self.of(topic).await?.values().map(|end| end.cast_unsigned()).sum())
    }
}

/// All partitions by one request where that works, so that looking often costs the broker little; otherwise
/// one after the other. (The client answers the one request with "unknown partition" while its own metadata
/// is being refreshed.)
fn ends(consumer: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, i64>, Error> {
    let partitions = partitions(consumer, topic)?;
    let mut wanted = TopicPartitionList::new();
    for partition in &partitions {
        wanted.add_partition_offset(topic, *partition, Offset::End).map_err(failed(format!("ends of {topic}")))?;
    }
    if let Ok(found) = consumer.offsets_for_times(wanted, METADATA)
        && let Some(ends) = found.elements().iter().map(end).collect::<Option<BTreeMap<i32, i64>>>()
    {
        return Ok(ends);
    }
    let one = |partition: i32| {
        let marks = consumer.fetch_watermarks(topic, partition, METADATA);
        Ok((partition, marks.map_err(failed(format!("end of {topic}")))?.1))
    };
    partitions.into_iter().map(one).collect()
}

fn end(found: &TopicPartitionListElem<'_>) -> Option<(i32, i64)> {
    match (found.error(), found.offset()) {
        (Ok(()), Offset::Offset(end)) => Some((found.partition(), end)),
        _ => None,
    }
}

pub(crate) fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, Error> {
    let metadata = consumer.fetch_metadata(Some(topic), METADATA).map_err(failed(format!("metadata of {topic}")))?;
    let found = metadata.topics().iter().filter(|found| found.name() == topic && found.error().is_none());
    Ok(found.flat_map(|found| found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id)).collect())
}

pub(crate) fn reader(brokers: &str) -> Result<BaseConsumer, Error> {
    let mut config = client(brokers, "holdfast-load-reader");
    config
        .set("group.id", "holdfast-load-reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "20")
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", "65536");
    config.create().map_err(failed("reader"))
}

/// A record as it lies in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When it was written, ms since 1970.
    pub time_ms: i64,
    /// Its key, as text; empty if there is none.
    pub key: String,
    /// Its headers, those that are text.
    pub headers: HashMap<String, String>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Seen {
    /// A header's text, empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        let mut headers = HashMap::new();
        if let Some(found) = message.headers() {
            for header in found.iter() {
                if let Some(text) = header.value.and_then(|value| std::str::from_utf8(value).ok()) {
                    headers.insert(header.key.to_owned(), text.to_owned());
                }
            }
        }
        Self {
            partition: message.partition(),
            offset: message.offset(),
            time_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(String::from_utf8_lossy).unwrap_or_default().into_owned(),
            headers,
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }
}

/// Every record of `topic`, from its start to its end as of now, as `read` makes it: each partition's in
/// offset order, partitions mixed. A topic that isn't there has no records.
pub async fn read_all<T: Send + 'static>(
    brokers: &str,
    topic: &str,
    patience: Duration,
    read: impl Fn(&Seen) -> T + Send + 'static,
) -> Result<Vec<T>, Error> {
    read_each(brokers, topic, BTreeMap::new(), patience, move |message| read(&Seen::of(message))).await
}

/// The same, of the client's own messages, from these offsets on; where there is none, from the start.
pub(crate) async fn read_each<T: Send + 'static>(
    brokers: &str,
    topic: &str,
    from: BTreeMap<i32, i64>,
    patience: Duration,
    read: impl Fn(&BorrowedMessage<'_>) -> T + Send + 'static,
) -> Result<Vec<T>, Error> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || read_blocking(&brokers, &topic, &from, patience, read)).await?
}

fn read_blocking<T>(
    brokers: &str,
    topic: &str,
    from: &BTreeMap<i32, i64>,
    patience: Duration,
    read: impl Fn(&BorrowedMessage<'_>) -> T,
) -> Result<Vec<T>, Error> {
    let consumer = reader(brokers)?;
    let mut left: BTreeMap<i32, i64> = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in partitions(&consumer, topic)? {
        let marks = consumer.fetch_watermarks(topic, partition, METADATA);
        let (low, high) = marks.map_err(failed(format!("ends of {topic}")))?;
        let first = from.get(&partition).map_or(low, |from| low.max(*from));
        if high > first {
            left.insert(partition, high);
            let at = assignment.add_partition_offset(topic, partition, Offset::Offset(first));
            at.map_err(failed("assignment"))?;
        }
    }
    consumer.assign(&assignment).map_err(failed("assignment"))?;
    let deadline = Instant::now() + patience;
    let mut all = Vec::new();
    while !left.is_empty() {
        if Instant::now() > deadline {
            return Err(Error::Timeout(patience, format!("reading {topic}, {} partitions left", left.len())));
        }
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(error)) => return Err(failed(format!("reading {topic}"))(error)),
            Some(Ok(message)) => {
                let (partition, next) = (message.partition(), message.offset() + 1);
                if left.get(&partition).is_some_and(|end| message.offset() < *end) {
                    all.push(read(&message));
                }
                if left.get(&partition).is_some_and(|end| next >= *end) {
                    left.remove(&partition);
                }
            }
        }
    }
    Ok(all)
}
