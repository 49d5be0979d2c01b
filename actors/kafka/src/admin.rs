//! Topics: what a context needs, what is there, and the difference.
//!
//! Invariant: applying a plan twice changes nothing the second time; nothing is ever shrunk, deleted or
//! reconfigured behind an operator's back: a topic that differs from what is wanted is *reported* as drift.
//! Growing is a plan's own kind of step, made only when asked for, since it moves keys. Deliberately absent:
//! deleting topics, moving replicas.

use std::{collections::BTreeMap, fmt, time::Duration};

use holdfast_core::port::log::LogError;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::ClientContext,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::KafkaError,
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};

use crate::{
    client::{blocking, log_line},
    config::KafkaConfig,
    error::{ConfigError, unavailable},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MIB: u64 = 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(15);
/// Kafka's own default, said explicitly: a cluster's default may be another. Subscribers refuse bodies over 1
/// MiB anyway.
const EVENT_BYTES_MAX: u64 = holdfast_core::size::TOPIC_BYTES_DEFAULT as u64;

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// At least this many partitions.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication: u32,
    /// Topic configuration, by Kafka's names.
    pub config: BTreeMap<String, String>,
}

impl TopicSpec {
    /// The three topics of a context, on a cluster of `brokers` brokers: three copies where there are three
    /// brokers, and a write counts once all but one of the copies have it.
    pub fn of_context(context: &str, partitions: u32, brokers: usize) -> Vec<Self> {
        let replication = u32::try_from(brokers.clamp(1, 3)).unwrap_or(3);
        let spec = |suffix: &str, retention_ms: Option<u64>, bytes_max: Option<u64>| {
            let mut config = BTreeMap::from([
                ("cleanup.policy".to_owned(), "delete".to_owned()),
                ("min.insync.replicas".to_owned(), replication.saturating_sub(1).max(1).to_string()),
            ]);
            if let Some(ms) = retention_ms {
                config.insert("retention.ms".to_owned(), ms.to_string());
            }
            if let Some(bytes) = bytes_max {
                config.insert("max.message.bytes".to_owned(), bytes.to_string());
            }
            Self { name: format!("{context}.{suffix}"), partitions, replication, config }
        };
        vec![
            spec("commands", None, Some(8 * MIB)),
            spec("events", Some(7 * DAY_MS), Some(EVENT_BYTES_MAX)),
            // What was too large for the events' limits still fits, with the headers that say why.
            spec("dlq", Some(30 * DAY_MS), Some(9 * MIB)),
        ]
    }
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: u32,
    /// Copies of its first partition.
    pub replication: u32,
    /// The configuration in effect, defaults included.
    pub config: BTreeMap<String, String>,
}

/// One difference between what is and what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The topic is missing.
    Create(TopicSpec),
    /// It has too few partitions.
    Grow {
        /// The topic.
        topic: String,
        /// Partitions now.
        from: u32,
        /// Partitions wanted.
        to: u32,
    },
    /// Something else differs. Reported only.
    Drift {
        /// The topic.
        topic: String,
        /// What differs.
        property: String,
        /// As it is.
        is: String,
        /// As wanted.
        wanted: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(spec) => {
                write!(f, "create {}: {} partitions, {} copies", spec.name, spec.partitions, spec.replication)?;
                spec.config.iter().try_for_each(|(key, value)| write!(f, ", {key}={value}"))
            }
            Self::Grow { topic, from, to } => write!(f, "grow {topic} from {from} to {to} partitions"),
            Self::Drift { topic, property, is, wanted } => {
                write!(f, "drift {topic}: {property} is {is}, wanted {wanted}")
            }
        }
    }
}

/// What separates `existing` from `wanted`, in the order of `wanted`.
pub fn plan(existing: &[TopicState], wanted: &[TopicSpec]) -> Vec<Step> {
    let mut steps = Vec::new();
    for spec in wanted {
        let Some(state) = existing.iter().find(|state| state.name == spec.name) else {
            steps.push(Step::Create(spec.clone()));
            continue;
        };
        let drift = |property: &str, is: String, wanted: String| Step::Drift {
            topic: spec.name.clone(),
            property: property.to_owned(),
            is,
            wanted,
        };
        if state.partitions < spec.partitions {
            steps.push(Step::Grow { topic: spec.name.clone(), from: state.partitions, to: spec.partitions });
        } else if state.partitions > spec.partitions {
            steps.push(drift("partitions", state.partitions.to_string(), spec.partitions.to_string()));
        }
        if state.replication != spec.replication {
            steps.push(drift("replication", state.replication.to_string(), spec.replication.to_string()));
        }
        for (key, value) in &spec.config {
            let is = state.config.get(key);
            if is != Some(value) {
                steps.push(drift(key, is.cloned().unwrap_or_else(|| "unset".to_owned()), value.clone()));
            }
        }
    }
    steps
}

/// A broker that is away is a warning: the caller of a request gets its error.
struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka admin");
    }
}

/// Looks at topics and makes them.
pub struct KafkaAdmin {
    client: std::sync::Arc<AdminClient<Context>>,
}

impl KafkaAdmin {
    /// Makes the client. Does not wait for a broker.
    pub fn new(config: &KafkaConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { client: std::sync::Arc::new(AdminClient::from_config_and_context(&config.admin(), Context)?) })
    }

    /// How many brokers the cluster has.
    pub async fn broker_count(&self) -> Result<usize, LogError> {
        self.metadata(|metadata| metadata.brokers().len()).await
    }

    /// Settings of a broker by Kafka's names, defaults included, as far as it knows them.
    pub async fn broker_config(&self, names: &[&str]) -> Result<BTreeMap<String, String>, LogError> {
        let failed = |error: KafkaError| unavailable("reading a broker's configuration", &error);
        let Some(id) =
            self.metadata(|metadata| metadata.brokers().first().map(rdkafka::metadata::MetadataBroker::id)).await?
        else {
            return Ok(BTreeMap::new());
        };
        let answers =
            self.client.describe_configs([&ResourceSpecifier::Broker(id)], &options()).await.map_err(failed)?;
        let mut config = BTreeMap::new();
        for answer in answers {
            let resource = answer.map_err(|code| failed(KafkaError::AdminOp(code)))?;
            let asked = resource.entries.into_iter().filter(|entry| names.contains(&entry.name.as_str()));
            config.extend(asked.filter_map(|entry| Some((entry.name, entry.value?))));
        }
        Ok(config)
    }

    /// The topics among `names` that exist, with their configuration.
    pub async fn describe(&self, names: &[String]) -> Result<Vec<TopicState>, LogError> {
        let wanted = names.to_vec();
        let mut found = self
            .metadata(move |metadata| {
                let topics = metadata.topics().iter().filter(|topic| wanted.iter().any(|name| name == topic.name()));
                topics
                    .filter(|topic| topic.error() != Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART))
                    .map(|topic| TopicState {
                        name: topic.name().to_owned(),
                        partitions: u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX),
                        replication: topic
                            .partitions()
                            .first()
                            .map_or(0, |partition| u32::try_from(partition.replicas().len()).unwrap_or(u32::MAX)),
                        config: BTreeMap::new(),
                    })
                    .collect::<Vec<_>>()
            })
            .await?;
        for state in &mut found {
            state.config = self.topic_config(&state.name).await?;
        }
        Ok(found)
    }

    /// The largest record batch that a topic takes.
    pub(crate) async fn bytes_max(&self, topic: &str) -> Result<Option<u64>, LogError> {
        let config = self.topic_config(topic).await?;
        Ok(config.get("max.message.bytes").and_then(|bytes| bytes.parse().ok()))
    }

    async fn topic_config(&self, topic: &str) -> Result<BTreeMap<String, String>, LogError> {
        let failed = |error: KafkaError| unavailable("reading a topic's configuration", &error);
        let answers =
            self.client.describe_configs([&ResourceSpecifier::Topic(topic)], &options()).await.map_err(failed)?;
        let mut config = BTreeMap::new();
        for answer in answers {
            let resource = answer.map_err(|code| failed(KafkaError::AdminOp(code)))?;
            config.extend(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))));
        }
        Ok(config)
    }

    /// Makes what `steps` says is missing, and waits until it can be used. Topics are grown only if `grow`;
    /// drift is left alone. What another node made meanwhile is fine.
    pub async fn apply(&self, steps: &[Step], grow: bool) -> Result<(), LogError> {
        let mut made = BTreeMap::new();
        for step in steps {
            match step {
                Step::Create(spec) => {
                    self.create(spec).await?;
                    made.insert(spec.name.clone(), spec.partitions);
                }
                Step::Grow { topic, to, .. } if grow => {
                    self.grow(topic, *to).await?;
                    made.insert(topic.clone(), *to);
                }
                Step::Grow { .. } | Step::Drift { .. } => {}
            }
        }
        self.usable(made).await
    }

    /// Waits until every partition has a leader: brokers answer before their metadata shows what was made.
    async fn usable(&self, mut missing: BTreeMap<String, u32>) -> Result<(), LogError> {
        let give_up = tokio::time::Instant::now() + TIMEOUT;
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !missing.is_empty() {
            look.tick().await;
            missing = self
                .metadata(move |metadata| {
                    for topic in metadata.topics() {
                        let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
                        if missing.get(topic.name()).is_some_and(|wanted| led >= *wanted as usize) {
                            missing.remove(topic.name());
                        }
                    }
                    missing
                })
                .await?;
            if let Some(topic) = missing.keys().next().filter(|_| tokio::time::Instant::now() > give_up) {
                return Err(LogError::Unavailable(format!("{topic} was made, but its partitions have no leaders yet")));
            }
        }
        Ok(())
    }

    async fn create(&self, spec: &TopicSpec) -> Result<(), LogError> {
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let replication = i32::try_from(spec.replication).unwrap_or(i32::MAX);
        let mut topic = NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(replication));
        for (key, value) in &spec.config {
            topic = topic.set(key, value);
        }
        let answers = self.client.create_topics([&topic], &options()).await;
        settle("creating a topic", answers, RDKafkaErrorCode::TopicAlreadyExists)
    }

    /// Grows a topic to `to` partitions. A topic that has as many or more stays as it is.
    pub async fn grow(&self, topic: &str, to: u32) -> Result<(), LogError> {
        let count = usize::try_from(to).unwrap_or(usize::MAX);
        let answers = self.client.create_partitions([&NewPartitions::new(topic, count)], &options()).await;
        settle("growing a topic", answers, RDKafkaErrorCode::InvalidPartitions)
    }

    async fn metadata<T: Send + 'static>(
        &self,
        read: impl FnOnce(&rdkafka::metadata::Metadata) -> T + Send + 'static,
    ) -> Result<T, LogError> {
        let client = std::sync::Arc::clone(&self.client);
        blocking("reading the cluster's metadata", TIMEOUT * 2, move || {
            let metadata = client.inner().fetch_metadata(None, TIMEOUT);
            metadata
                .map(|metadata| read(&metadata))
                .map_err(|error| unavailable("reading the cluster's metadata", &error))
        })
        .await
    }
}

fn options() -> AdminOptions {
    // The operation timeout makes the broker answer only once all brokers know of the topic.
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

/// What the brokers say of each topic.
type Answers = Result<Vec<Result<String, (String, RDKafkaErrorCode)>>, KafkaError>;

/// All went well, or had been done before.
fn settle(what: &str, answers: Answers, done_before: RDKafkaErrorCode) -> Result<(), LogError> {
    for answer in answers.map_err(|error| unavailable(what, &error))? {
        match answer {
            Ok(_) => {}
            Err((_, code)) if code == done_before => {}
            Err((topic, code @ (RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))) => {
                tracing::debug!(%code, what, "no such topic");
                return Err(LogError::NoSuchTopic(topic));
            }
            Err((topic, code)) => return Err(LogError::Unavailable(format!("{what}: {topic}: {code}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(spec: &TopicSpec) -> TopicState {
        TopicState {
            name: spec.name.clone(),
            partitions: spec.partitions,
            replication: spec.replication,
            config: spec.config.clone(),
        }
    }

    #[test]
    fn what_is_as_wanted_needs_no_step() {
        let wanted = TopicSpec::of_context("orders", 12, 3);
        assert_eq!(plan(&wanted.iter().map(state).collect::<Vec<_>>(), &wanted), []);
        assert_eq!(plan(&[], &wanted).len(), 3);
    }

    #[test]
    fn fewer_partitions_grow_and_more_only_drift() {
        let wanted = TopicSpec::of_context("orders", 12, 1);
        let mut existing = wanted.iter().map(state).collect::<Vec<_>>();
        existing[0].partitions = 6;
        existing[1].partitions = 24;
        existing[2].config.insert("retention.ms".to_owned(), "1".to_owned());
        let steps = plan(&existing, &wanted);
        assert_eq!(steps[0], Step::Grow { topic: "orders.commands".to_owned(), from: 6, to: 12 });
        assert!(matches!(&steps[1], Step::Drift { property, is, .. } if property == "partitions" && is == "24"));
        assert!(matches!(&steps[2], Step::Drift { property, .. } if property == "retention.ms"));
        assert_eq!(steps.len(), 3);
    }

    #[test]
    fn copies_follow_the_brokers() {
        for (brokers, copies, in_sync) in [(0, 1, "1"), (1, 1, "1"), (2, 2, "1"), (3, 3, "2"), (9, 3, "2")] {
            for spec in TopicSpec::of_context("orders", 1, brokers) {
                assert_eq!((spec.replication, spec.config["min.insync.replicas"].as_str()), (copies, in_sync));
            }
        }
    }
}
