//! What the checks look at, and where it comes from.

use std::{collections::BTreeMap, time::Duration};

use holdfast_core::{PartitionId, Timestamp, growth::Growth, port::clock::Clock as _, port::store::Store as _};
use holdfast_kafka::admin::{KafkaAdmin, TopicSpec, TopicState};
use holdfast_payments::projection::{self, Stopped};
use holdfast_platform::{Config, Context, config::GroupProtocol};
use holdfast_postgres::{
    outbox::{StuckRecord, Which},
    survey::{Stray, Unfiled},
};
use holdfast_runtime::SystemClock;

use crate::{
    compose,
    failure::Failure,
    infrastructure::Infrastructure,
    operator::survey::{self, Misrouted, Partition, Survey},
};

use crate::contexts;

/// An outbox that has not moved within this time does not drain: a relay stores its cursors four times a
/// second.
const OUTBOX_MAX: Duration = Duration::from_secs(3);

/// Stopped payments that are shown one by one.
const STOPPED_MAX: u32 = 20;
/// Stuck records that are looked at.
const STUCK_MAX: u32 = 1000;

/// The settings of brokers that matter to a group.
pub(super) const BROKER_SETTINGS: [&str; 4] = [
    "group.min.session.timeout.ms",
    "group.max.session.timeout.ms",
    "group.consumer.session.timeout.ms",
    "message.max.bytes",
];

/// Everything there is to know.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When it was gathered, by this machine's clock.
    pub now: Timestamp,
    /// `partitions`.
    pub partitions: u32,
    /// `kafka.group_protocol`.
    pub group_protocol: GroupProtocol,
    /// `kafka.session_timeout`.
    pub session_timeout: Duration,
    /// `lease`.
    pub lease: Duration,
    /// `kafka.producers_max_age`.
    pub producers_max_age: Duration,
    /// `retry_budget`.
    pub retry_budget: u32,
    /// The cluster, or why it can't be asked.
    pub brokers: Result<Brokers, String>,
    /// By context: those that are deployed.
    pub contexts: Vec<ContextFacts>,
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Brokers {
    /// How many there are.
    pub count: usize,
    /// [`BROKER_SETTINGS`] of one of them.
    pub settings: BTreeMap<String, String>,
}

/// What is known of a context.
#[derive(Clone, Debug)]
pub struct ContextFacts {
    /// Which.
    pub context: Context,
    /// The topics it reads, its commands first.
    pub inputs: Vec<String>,
    /// Its topics as they should be.
    pub wanted: Vec<TopicSpec>,
    /// Its topics, and those it reads, as they are; empty if the cluster can't be asked.
    pub topics: Vec<TopicState>,
    /// What its tables and the log say, or why they can't be asked.
    pub stored: Result<Stored, String>,
}

/// What a context's tables and the log say.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Migrations applied.
    pub applied: Vec<i64>,
    /// Migrations of this build.
    pub known: Vec<i64>,
    /// The format that the schema is written in; 0 if that could not be asked.
    pub format: u32,
    /// The partition rows and what is around them. Empty while the log can't be asked, or the tables can't be
    /// read.
    pub partitions: Vec<Partition>,
    /// What is known of counts and homes.
    pub growth: Growth,
    /// Partitions whose outbox held rows and did not move.
    pub stuck: Vec<PartitionId>,
    /// Loops that make no progress, as their nodes say it, by address.
    pub stalled: Vec<(String, String)>,
    /// What no other table would take.
    pub unfiled: Vec<Unfiled>,
    /// Records that the brokers refuse, and those that queue behind them; the first [`STUCK_MAX`].
    pub refused: Vec<StuckRecord>,
    /// Who sent what waits to be taken home.
    pub strays: Vec<Stray>,
    /// Who sent what lies astray among the newest records.
    pub misrouted: Vec<Misrouted>,
    /// The latest payments that are stopped, at most [`STOPPED_MAX`]; none but in payments.
    pub stopped: Vec<Stopped>,
    /// How many payments are stopped.
    pub stopped_in_all: u64,
    /// The database's clock minus this machine's, in milliseconds.
    pub database_ahead_ms: i64,
    /// The newest record's timestamp minus this machine's clock, in milliseconds; only where that is
    /// positive.
    pub records_ahead_ms: u64,
}

impl Stored {
    /// Whether this build can read the tables.
    pub fn is_current(&self) -> bool {
        self.known.iter().all(|version| self.applied.contains(version))
    }
}

/// Asks everybody. What does not answer is a fact, too.
///
/// # Errors
/// Only for a configuration with which nobody can be asked.
pub async fn gather(config: &Config, at: &Infrastructure, contexts: &[Context]) -> Result<Facts, Failure> {
    let admin = KafkaAdmin::new(&compose::kafka(config, at.brokers(), Context::Orders)).map_err(Failure::usage)?;
    let brokers = brokers(&admin).await;
    let mut facts = Facts {
        now: SystemClock.now(),
        partitions: config.partitions,
        group_protocol: config.kafka.group_protocol,
        session_timeout: config.kafka.session_timeout,
        lease: config.lease,
        producers_max_age: config.kafka.producers_max_age,
        retry_budget: config.retry_budget,
        brokers,
        contexts: Vec::new(),
    };
    for context in contexts {
        let inputs: Vec<String> = survey::inputs(*context).iter().map(ToString::to_string).collect();
        let count = facts.brokers.as_ref().map_or(1, |brokers| brokers.count);
        let wanted = TopicSpec::of_context(context.as_str(), config.partitions, count);
        let mut names: Vec<String> = wanted.iter().map(|spec| spec.name.clone()).collect();
        names.extend(inputs.iter().skip(1).cloned());
        let topics = match &facts.brokers {
            Ok(_) => admin.describe(&names).await.map_err(Failure::unreachable)?,
            Err(_) => Vec::new(),
        };
        let stored = match Survey::open(config, at, *context).await? {
            Ok(survey) => look(&survey, facts.brokers.is_ok()).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        facts.contexts.push(ContextFacts { context: *context, inputs, wanted, topics, stored });
    }
    Ok(facts)
}

async fn brokers(admin: &KafkaAdmin) -> Result<Brokers, String> {
    let count = admin.broker_count().await.map_err(|error| error.to_string())?;
    let settings = admin.broker_config(&BROKER_SETTINGS).await.map_err(|error| error.to_string())?;
    Ok(Brokers { count, settings })
}

async fn look(survey: &Survey, brokers_answer: bool) -> Result<Stored, survey::Error> {
    let migrations = contexts::about(survey.context).migrations;
    let (applied, known) = survey.store.schema_versions(migrations).await?;
    let before = SystemClock.now().unix_ms();
    let there = survey.store.clock().await?.unix_ms();
    let here = i64::midpoint(before, SystemClock.now().unix_ms());
    let mut stored = Stored { applied, known, database_ahead_ms: there - here, ..Stored::default() };
    if !stored.is_current() {
        return Ok(stored);
    }
    stored.format = survey.store.format().await?;
    stored.stalled = survey.store.stalled().await?;
    stored.unfiled = survey.store.unfiled().await?;
    if survey.context == Context::Payments {
        (stored.stopped, stored.stopped_in_all) = projection::stopped(&survey.store, STOPPED_MAX).await?;
    }
    if !brokers_answer {
        return Ok(stored);
    }
    stored.partitions = survey.partitions().await?;
    stored.growth = survey.store.growth().await?;
    stored.stuck = stuck(survey, &stored.partitions).await?;
    let (_, count) = stored.growth.current();
    stored.refused = survey.store.stuck_records(&Which::default(), count, STUCK_MAX).await?;
    stored.strays = survey.store.strays().await?;
    let records = survey.sample(&stored.partitions).await?;
    stored.misrouted = survey::misrouted(&records, &survey.counts().await?);
    let newest = records.iter().filter_map(|record| record.timestamp).max().unwrap_or_default();
    stored.records_ahead_ms = newest.ms_since(SystemClock.now());
    Ok(stored)
}

/// Partitions whose outbox holds rows, and the same ones a while later.
async fn stuck(survey: &Survey, partitions: &[Partition]) -> Result<Vec<PartitionId>, survey::Error> {
    let pending: Vec<&Partition> = partitions.iter().filter(|partition| partition.outbox_pending() > 0).collect();
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    tokio::time::sleep(OUTBOX_MAX).await;
    let rows = survey.store.partitions().await?;
    let cursor = |id| rows.iter().find(|row| row.partition == id).map(|row| row.outbox_cursor);
    let stands = |partition: &&&Partition| cursor(partition.row.partition) == Some(partition.row.outbox_cursor);
    Ok(pending.iter().filter(stands).map(|partition| partition.row.partition).collect())
}
