//! The suites that every log and every publisher passes, on Kafka. Both harnesses write and read by plain
//! rdkafka, not by the adapter.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    envelope::{Headers, Record},
    partition::PartitionId,
    port::log::{Log, Publisher},
    time::Timestamp,
};
use holdfast_kafka::{
    KafkaAdmin, KafkaConfig, KafkaLog, KafkaPublisher,
    admin::{Step, TopicSpec},
    headers::to_kafka,
};
use holdfast_testkit::conformance::{
    log::{Features, LogHarness},
    publisher::PublisherHarness,
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::Headers as _,
    producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer},
};
use uuid::Uuid;

use crate::rig::broker;

/// Deletes `topic` and makes it again with as many partitions, once the brokers let that happen.
pub async fn recreate(config: &KafkaConfig, topic: &str) {
    let admin = KafkaAdmin::new(config).expect("admin");
    let names = [topic.to_owned()];
    let found = admin.describe(&names).await.expect("described").pop().expect("it is there");
    let native: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create().expect("admin");
    native.delete_topics(&[topic], &AdminOptions::new()).await.expect("deleted");
    while !admin.describe(&names).await.is_ok_and(|found| found.is_empty()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let spec = TopicSpec {
        name: topic.to_owned(),
        partitions: found.partitions,
        replication: 1,
        config: std::iter::empty().collect(),
    };
    admin.apply(&[Step::Create(spec)], false).await.expect("made again");
}

struct Kafka {
    config: KafkaConfig,
    producer: FutureProducer,
}

impl Kafka {
    async fn fresh() -> Self {
        let brokers = broker().await.brokers();
        let producer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "0").create().expect("producer");
        Self { config: KafkaConfig::new(brokers, format!("t{}", Uuid::new_v4().simple())), producer }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.config.brokers);
        config
    }

    async fn topic(&self, partitions: u32) -> Arc<str> {
        let name = format!("{}.{}", self.config.context, Uuid::new_v4().simple());
        let spec = TopicSpec { name: name.clone(), partitions, replication: 1, config: std::iter::empty().collect() };
        KafkaAdmin::new(&self.config).expect("admin").apply(&[Step::Create(spec)], false).await.expect("created");
        name.into()
    }
}

#[async_trait]
impl LogHarness for Kafka {
    async fn connect(&self) -> Arc<dyn Log> {
        Arc::new(KafkaLog::new(&self.config).expect("log"))
    }

    fn features(&self) -> Features {
        Features::ALL
    }

    async fn create_topic(&self, partitions: u32) -> Arc<str> {
        self.topic(partitions).await
    }

    async fn append(
        &self,
        topic: &str,
        partition: PartitionId,
        key: Option<Bytes>,
        headers: Headers,
        value: Option<Bytes>,
    ) -> u64 {
        let record = FutureRecord::<[u8], [u8]> {
            topic,
            partition: i32::try_from(partition.0).ok(),
            payload: value.as_deref(),
            key: key.as_deref(),
            timestamp: None,
            headers: to_kafka(&headers),
        };
        let sent = self.producer.send(record, Duration::from_secs(30)).await;
        u64::try_from(sent.map_err(|(error, _)| error).expect("sent").offset).expect("an offset")
    }

    async fn recreate(&self, topic: &str) {
        recreate(&self.config, topic).await;
    }

    async fn leave_gap(&self, topic: &str, partition: PartitionId) {
        let (mut client, topic) = (self.client(), topic.to_owned());
        client.set("transactional.id", Uuid::new_v4().to_string());
        let aborted = tokio::task::spawn_blocking(move || {
            let patience = Duration::from_secs(30);
            let producer: BaseProducer = client.create()?;
            producer.init_transactions(patience)?;
            producer.begin_transaction()?;
            let partition = i32::try_from(partition.0).expect("small");
            let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(partition).payload(b"never");
            producer.send(record).map_err(|(error, _)| error)?;
            producer.flush(patience)?;
            producer.abort_transaction(patience)
        });
        aborted.await.expect("no panic").expect("aborted");
    }

    async fn delete_before(&self, topic: &str, partition: PartitionId, offset: u64) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("admin");
        let offset = Offset::Offset(i64::try_from(offset).expect("small"));
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, i32::try_from(partition.0).expect("small"), offset).expect("valid");
        admin.delete_records(&before, &AdminOptions::new()).await.expect("deleted");
    }
}

#[async_trait]
impl PublisherHarness for Kafka {
    async fn connect(&self) -> Arc<dyn Publisher> {
        Arc::new(KafkaPublisher::new(&self.config).expect("publisher"))
    }

    async fn create_topic(&self, partitions: u32) -> Arc<str> {
        self.topic(partitions).await
    }

    async fn set_bytes_max(&self, topic: &str, bytes: u64) {
        crate::rig::set_bytes_max(&self.config, topic, bytes).await;
    }

    async fn read(&self, topic: &str, partition: PartitionId) -> Vec<Record> {
        let (mut client, topic) = (self.client(), Arc::<str>::from(topic));
        let reading = tokio::task::spawn_blocking(move || {
            let number = i32::try_from(partition.0).expect("small");
            let consumer: BaseConsumer =
                client.set("group.id", "reader").set("enable.auto.commit", "false").create().expect("consumer");
            let (_, end) = consumer.fetch_watermarks(&topic, number, Duration::from_secs(20)).expect("end");
            let end = u64::try_from(end).expect("an offset");
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic, number, Offset::Beginning).expect("valid");
            consumer.assign(&list).expect("assigned");
            let mut records = Vec::new();
            while end > 0 && records.last().is_none_or(|last: &Record| last.offset + 1 < end) {
                let message = consumer.poll(Duration::from_secs(20)).expect("in time").expect("a record");
                records.push(Record {
                    topic: Arc::clone(&topic),
                    partition,
                    offset: u64::try_from(message.offset()).expect("an offset"),
                    timestamp: message.timestamp().to_millis().map(Timestamp::from_unix_ms),
                    key: message.key().map(Bytes::copy_from_slice),
                    headers: Headers(message.headers().map_or_else(Vec::new, |headers| {
                        let each = headers.iter();
                        each.map(|h| (h.key.to_owned().into(), h.value.map(Bytes::copy_from_slice))).collect()
                    })),
                    value: message.payload().map(Bytes::copy_from_slice),
                });
            }
            records
        });
        reading.await.expect("read")
    }
}

mod log {
    holdfast_testkit::log_conformance! {
        #[tokio::test(flavor = "multi_thread")]
        async || super::Kafka::fresh().await
    }
}

mod publisher {
    holdfast_testkit::publisher_conformance! {
        #[tokio::test(flavor = "multi_thread")]
        async || super::Kafka::fresh().await
    }
}
