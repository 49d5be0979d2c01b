//! How the clients are configured.
//!
//! Invariant: a property that safety rests on can't be set from outside; it is refused by name. Everything
//! else that librdkafka knows can be (`HOLDFAST_KAFKA_PROPERTIES`), and is applied last. Deliberately absent:
//! reading the environment.

use std::{collections::BTreeMap, fmt, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::error::ConfigError;

/// Records of this size pass: dead letters of too large commands (8 MiB and their headers) included.
const MESSAGE_BYTES_MAX: usize = holdfast_core::size::CLIENT_BYTES_MAX;
/// A batch of several records is no larger than this: a little less than what Kafka's topics take by default.
pub(crate) const BATCH_BYTES: usize = 1_000_000;

/// Who assigns partitions to members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Members, by the cooperative-sticky assignor. The session timeout is ours.
    #[default]
    Classic,
    /// The broker (KIP-848). The session timeout is the broker's; 45 s unless it was changed there.
    Consumer,
}

/// Compression of what is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// The configuration of all clients of one context on one node.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Bootstrap servers: `host:port`, separated by commas.
    pub brokers: String,
    /// The context: its commands topic is `<context>.commands`, its group `holdfast-<context>`.
    pub context: String,
    /// Shown in the brokers' logs and quotas.
    pub client_id: String,
    /// Further librdkafka properties (security, for instance), applied last. See [`KafkaConfig::validate`]
    /// for the refused ones.
    pub properties: BTreeMap<String, String>,
    /// Who assigns partitions.
    pub group_protocol: GroupProtocol,
    /// A silent member is dropped from the group after this time. Classic protocol only; the broker sets a
    /// minimum (6 s).
    pub session_timeout: Duration,
    /// Static membership: a restart within the session timeout moves no partition. Unique to the node.
    pub group_instance_id: Option<String>,
    /// How much of each open partition is fetched ahead; a single larger record still passes.
    pub prefetch_bytes: usize,
    /// How long the broker may hold a fetch for data. A stream that is just opened waits that long at worst
    /// for its first fetch.
    pub fetch_wait: Duration,
    /// How long rows may wait for others to share their request. Not at all, unless set: rows of a commit
    /// share requests as it is, and those of a single command would be the only ones to wait.
    pub linger: Duration,
    /// Compression of what is published.
    pub compression: Compression,
    /// Rows published but not acknowledged take at most about this much memory.
    pub window_bytes: usize,
    /// How long a blocking request (metadata, offsets, confirmation) may take.
    pub request_timeout: Duration,
}

/// Property names that safety or this crate's bookkeeping rests on, with what would break.
const REFUSED: &[(&str, &str)] = &[
    ("enable.auto.commit", "consumed offsets are committed in Postgres; Kafka's are hints that follow them"),
    ("enable.auto.offset.store", "consumed offsets are committed in Postgres; Kafka's are hints that follow them"),
    ("auto.offset.reset", "a lost offset must halt the partition, never skip or repeat records silently"),
    ("enable.partition.eof", "the end of a partition is not an error"),
    ("isolation.level", "aborted transactions must not be read"),
    ("enable.idempotence", "without it a retry doubles or reorders events"),
    ("enable.gapless.guarantee", "without it later events overtake a failed one"),
    ("acks", "an event counts as published once all in-sync replicas have it"),
    ("request.required.acks", "an event counts as published once all in-sync replicas have it"),
    ("message.timeout.ms", "a timed-out event is lost from the order: the producer must not give up"),
    ("delivery.timeout.ms", "a timed-out event is lost from the order: the producer must not give up"),
    ("retries", "the producer must not give up"),
    ("message.send.max.retries", "the producer must not give up"),
    ("transactional.id", "the outbox makes publication reliable, not Kafka transactions"),
    ("partitioner", "the outbox row names the partition"),
    ("allow.auto.create.topics", "`holdfast topics apply` creates topics"),
    ("bootstrap.servers", "set the brokers instead"),
    ("metadata.broker.list", "set the brokers instead"),
    ("client.id", "set the client id instead"),
    ("group.id", "it follows from the context"),
    ("group.protocol", "set the group protocol instead"),
    ("group.instance.id", "set the group instance id instead"),
    ("partition.assignment.strategy", "only the cooperative-sticky assignor leaves the partitions that stay alone"),
    ("session.timeout.ms", "set the session timeout instead"),
    ("queued.max.messages.kbytes", "set the prefetch instead"),
    ("queue.buffering.max.kbytes", "set the window instead"),
    ("message.max.bytes", "the client must send what topics take: dead letters are up to 9 MiB"),
    ("batch.size", "a batch must fit in what topics take by default"),
];

impl KafkaConfig {
    /// The defaults, for `context` on `brokers`.
    pub fn new(brokers: impl Into<String>, context: impl Into<String>) -> Self {
        let context = context.into();
        Self {
            brokers: brokers.into(),
            client_id: format!("holdfast-{context}"),
            context,
            properties: BTreeMap::new(),
            group_protocol: GroupProtocol::Classic,
            session_timeout: Duration::from_secs(10),
            group_instance_id: None,
            prefetch_bytes: 1024 * 1024,
            fetch_wait: Duration::from_millis(50),
            linger: Duration::ZERO,
            compression: Compression::None,
            window_bytes: 32 * 1024 * 1024,
            request_timeout: Duration::from_secs(5),
        }
    }

    /// The topic whose partitions the group shares.
    pub fn commands_topic(&self) -> String {
        format!("{}.commands", self.context)
    }

    /// The group whose members share the commands topic.
    pub fn group(&self) -> String {
        format!("holdfast-{}", self.context)
    }

    /// The group under which positions in other contexts' topics are noted. It never has members, so it takes
    /// commits from any node.
    pub fn inputs_group(&self) -> String {
        format!("holdfast-{}-inputs", self.context)
    }

    /// Refuses properties that safety rests on, unknown ones, bad values, and sizes out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for key in self.properties.keys() {
            if let Some((name, reason)) = REFUSED.iter().find(|(name, _)| name.eq_ignore_ascii_case(key.trim())) {
                return Err(ConfigError::Refused { property: (*name).to_owned(), reason });
            }
        }
        if self.brokers.trim().is_empty() {
            return Err(ConfigError::Invalid("no Kafka brokers are configured".to_owned()));
        }
        if !(64 * 1024..=1024 * 1024 * 1024).contains(&self.prefetch_bytes) {
            return Err(ConfigError::Invalid("the prefetch per partition is between 64 KiB and 1 GiB".to_owned()));
        }
        if !(2 * MESSAGE_BYTES_MAX..=1024 * 1024 * 1024).contains(&self.window_bytes) {
            return Err(ConfigError::Invalid("the window of the publisher is between 18 MiB and 1 GiB".to_owned()));
        }
        self.data_consumer().create_native_config()?;
        self.member().create_native_config()?;
        self.producer().create_native_config()?;
        Ok(())
    }

    /// What all clients share.
    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            // New partitions are noticed by then: nobody owns them before, and what is sent there waits. One
            // small request a second.
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.keepalive.enable", "true")
            // Nagle would hold small requests for an acknowledgement.
            .set("socket.nagle.disable", "true")
            .set("message.max.bytes", (MESSAGE_BYTES_MAX + 512 * 1024).to_string())
            .set_log_level(RDKafkaLogLevel::Info);
        config
    }

    fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.base();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "false")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false");
        config
    }

    /// Reads the records of partitions assigned by hand.
    pub(crate) fn data_consumer(&self) -> ClientConfig {
        let mut config = self.consumer(&self.inputs_group());
        config
            .set("queued.max.messages.kbytes", (self.prefetch_bytes / 1024).to_string())
            .set("queued.min.messages", "1000000")
            .set("fetch.message.max.bytes", self.prefetch_bytes.min(1024 * 1024).to_string())
            .set("fetch.max.bytes", (16 * 1024 * 1024).to_string())
            .set("receive.message.max.bytes", (64 * 1024 * 1024).to_string())
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", self.fetch_wait.as_millis().to_string())
            // By default a partition whose queue is full is left alone for a second, however fast it is
            // drained.
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "100")
            // A topic is believed gone after this time; whether it is gets checked then.
            .set("topic.metadata.propagation.max.ms", "10000");
        self.applied(config)
    }

    /// Asks for end offsets; reads nothing. An end counts whether or not its transaction is decided.
    pub(crate) fn measure(&self) -> ClientConfig {
        let mut config = self.consumer(&self.inputs_group());
        config.set("isolation.level", "read_uncommitted");
        self.applied(config)
    }

    /// Takes part in the group; reads nothing.
    pub(crate) fn member(&self) -> ClientConfig {
        let mut config = self.consumer(&self.group());
        config
            .set("queued.max.messages.kbytes", "64")
            .set("fetch.message.max.bytes", "65536")
            // The statistics alone show whether a member without partitions has joined.
            .set("statistics.interval.ms", "1000");
        match self.group_protocol {
            GroupProtocol::Classic => {
                let session_ms = self.session_timeout.as_millis();
                config
                    .set("group.protocol", "classic")
                    .set("partition.assignment.strategy", "cooperative-sticky")
                    .set("session.timeout.ms", session_ms.to_string())
                    // Members hear of a rebalance with a heartbeat: most of the time of a clean hand-over.
                    .set("heartbeat.interval.ms", (session_ms / 5).clamp(200, 500).to_string());
            }
            // The broker refuses members that bring an assignor or a session timeout.
            GroupProtocol::Consumer => {
                config.set("group.protocol", "consumer");
            }
        }
        if let Some(id) = &self.group_instance_id {
            config.set("group.instance.id", id);
        }
        self.applied(config)
    }

    /// Publishes the outbox.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            .set("max.in.flight.requests.per.connection", "5")
            .set("linger.ms", self.linger.as_millis().to_string())
            .set("batch.num.messages", "10000")
            .set("batch.size", BATCH_BYTES.to_string())
            .set("queue.buffering.max.kbytes", (self.window_bytes / 1024).to_string())
            .set("queue.buffering.max.messages", "200000")
            .set("retry.backoff.ms", "50")
            .set(
                "compression.codec",
                match self.compression {
                    Compression::None => "none",
                    Compression::Lz4 => "lz4",
                    Compression::Zstd => "zstd",
                },
            );
        self.applied(config)
    }

    /// Makes topics.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.applied(self.base())
    }

    fn applied(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.properties {
            config.set(key.trim(), value);
        }
        config
    }
}

/// Values of properties may be secrets, so only their names are shown.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("context", &self.context)
            .field("client_id", &self.client_id)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("group_protocol", &self.group_protocol)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> Result<(), ConfigError> {
        let mut config = KafkaConfig::new("localhost:9092", "orders");
        config.properties.insert(key.to_owned(), value.to_owned());
        config.validate()
    }

    #[test]
    fn defaults_are_valid_under_both_protocols() {
        for group_protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
            let config = KafkaConfig { group_protocol, ..KafkaConfig::new("localhost:9092", "orders") };
            config.validate().expect("valid");
        }
    }

    #[test]
    fn properties_that_safety_rests_on_are_refused_by_name() {
        for (name, _) in REFUSED {
            let error = with(&format!(" {} ", name.to_uppercase()), "1").expect_err(name);
            assert!(matches!(&error, ConfigError::Refused { property, .. } if property == name), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn unknown_properties_and_bad_values_name_themselves() {
        for (key, value) in [("enable.idempotenz", "true"), ("linger.ms", "soon")] {
            let error = with(key, value).expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn other_properties_are_applied_last() {
        let mut config = KafkaConfig::new("localhost:9092", "orders");
        config.properties.insert("linger.ms".to_owned(), "7".to_owned());
        config.validate().expect("valid");
        assert_eq!(config.producer().get("linger.ms"), Some("7"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut config = KafkaConfig::new("localhost:9092", "orders");
        config.properties.insert("sasl.password".to_owned(), "hunter2".to_owned());
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
