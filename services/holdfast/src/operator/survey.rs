//! The facts about a context: its partition rows, its inputs in Kafka, its waiting messages.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_core::{
    PartitionId, Record, Timestamp,
    envelope::header,
    epoch::PartitionRow,
    port::{
        log::{Log as _, LogError},
        store::{Store as _, StoreError},
    },
};
use holdfast_kafka::KafkaLog;
use holdfast_platform::{Config, Context};
use holdfast_postgres::{PgStore, survey::Mail};

use crate::{compose, contexts, failure::Failure, infrastructure::Infrastructure};

/// Questions to the brokers at a time.
const CONCURRENCY: usize = 16;
/// How long a record that must be there is waited for.
const RECORD_MAX: Duration = Duration::from_secs(5);
/// The newest records of a partition that are looked at.
pub const SAMPLE_RECORDS: u64 = 200;

/// Why there are no facts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Kafka.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            // Not migrated: nothing is away, something is left to do.
            Error::Store(StoreError::Broken(_)) => Self::Check(error.into()),
            _ => Self::unreachable(error),
        }
    }
}

/// The topics that `context` reads, its commands first.
pub fn inputs(context: Context) -> Vec<Arc<str>> {
    let follows = contexts::about(context).follows;
    let commands = format!("{context}.commands");
    std::iter::once(commands.as_str()).chain(follows.iter().copied()).map(Arc::from).collect()
}

/// One input of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its topic.
    pub topic: Arc<str>,
    /// The offset of the next record to consume; `None` if none ever was.
    pub consumed: Option<u64>,
    /// The first offset in the log.
    pub start: u64,
    /// The offset after the last one in the log.
    pub end: u64,
    /// When the oldest record that is not consumed was written, by its own timestamp; `None` where there is
    /// none.
    pub waiting_since: Option<Timestamp>,
}

impl Input {
    /// The offset from which on nothing is consumed.
    pub fn next(&self) -> u64 {
        self.consumed.unwrap_or(self.start)
    }

    /// Records that are not consumed yet.
    pub fn lag(&self) -> u64 {
        self.end.saturating_sub(self.next().max(self.start))
    }

    /// How long the oldest of them has waited, in milliseconds; 0 where there is none.
    pub fn lag_ms(&self, now: Timestamp) -> u64 {
        self.waiting_since.map_or(0, |since| now.ms_since(since))
    }

    /// Whether what comes next is, or will be, in the log. Where it is not, the input is halted.
    pub const fn is_in_log(&self) -> bool {
        match self.consumed {
            None => true,
            Some(next) => self.start <= next && next <= self.end,
        }
    }
}

/// One partition of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its row.
    pub row: PartitionRow,
    /// Its inputs, as far as their topics have such a partition.
    pub inputs: Vec<Input>,
    /// What waits in its mailboxes, by reason.
    pub mail: Vec<Mail>,
}

impl Partition {
    /// Whether a node holds it, as far as Postgres knows.
    pub const fn is_owned(&self) -> bool {
        self.row.token.is_some() && !self.row.released
    }

    /// Outbox rows that the brokers have not acknowledged, as far as the cursor says.
    pub const fn outbox_pending(&self) -> u64 {
        self.row.outbox_head.saturating_sub(self.row.outbox_cursor)
    }

    /// Records that are not consumed yet, over all inputs.
    pub fn lag(&self) -> u64 {
        self.inputs.iter().map(Input::lag).sum()
    }

    /// How long the oldest of them has waited, in milliseconds.
    pub fn lag_ms(&self, now: Timestamp) -> u64 {
        self.inputs.iter().map(|input| input.lag_ms(now)).max().unwrap_or(0)
    }

    /// Messages in its mailboxes.
    pub fn waiting(&self) -> u64 {
        self.mail.iter().map(|mail| mail.messages).sum()
    }

    /// Sorts the worst first: what stands still, then what is late, then what has much to do.
    pub fn badness(&self, now: Timestamp) -> impl Ord + use<> {
        let halted = self.inputs.iter().any(|input| !input.is_in_log());
        let idle = !self.is_owned();
        (halted, idle, self.lag_ms(now), self.lag(), self.outbox_pending(), self.waiting())
    }
}

/// Records that lie in a partition that is not their key's home, by one sender in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misrouted {
    /// Where.
    pub topic: Arc<str>,
    /// Their `ce_source`; empty if they have none that can be read.
    pub source: String,
    /// How many of those looked at.
    pub records: u64,
    /// When the first of those looked at was written.
    pub since: Option<Timestamp>,
}

/// Where the facts of one context are.
pub struct Survey {
    /// The context.
    pub context: Context,
    /// Its tables.
    pub store: PgStore,
    /// Its topics.
    pub log: KafkaLog,
    /// What it reads.
    pub inputs: Vec<Arc<str>>,
}

impl Survey {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Store`] if the database is away or its schema not there; a wrong configuration of Kafka is a
    /// usage failure of its own.
    pub async fn open(config: &Config, at: &Infrastructure, context: Context) -> Result<Result<Self, Error>, Failure> {
        let settings = compose::database(config, at, context)?;
        let log = KafkaLog::new(&compose::kafka(config, at.brokers(), context)).map_err(Failure::usage)?;
        Ok(match PgStore::connect(settings).await {
            Ok(store) => Ok(Self { context, store, log, inputs: inputs(context) }),
            Err(error) => Err(error.into()),
        })
    }

    /// How many partitions a topic has; 0 if there is no such topic.
    async fn count(&self, topic: &str) -> Result<u32, LogError> {
        match self.log.partition_count(topic).await {
            Err(LogError::NoSuchTopic(_)) => Ok(0),
            answer => answer,
        }
    }

    /// The partition counts that have been in force, the one that is now last.
    pub async fn counts(&self) -> Result<Vec<u32>, Error> {
        Ok(self.store.growth().await?.generations.into_values().collect())
    }

    /// The partition rows with everything around them, in order.
    pub async fn partitions(&self) -> Result<Vec<Partition>, Error> {
        let growth = self.store.growth().await?;
        let mail = self.store.mail(growth.current().1).await?;
        let mut partitions: Vec<Partition> = growth
            .rows
            .into_iter()
            .map(|row| {
                let mail = mail.iter().filter(|mail| mail.partition == row.partition).cloned().collect();
                Partition { row, inputs: Vec::new(), mail }
            })
            .collect();
        let mut asked = Vec::new();
        for topic in &self.inputs {
            let count = self.count(topic).await?;
            for (at, partition) in partitions.iter().enumerate() {
                if partition.row.partition.0 < count {
                    let consumed = partition.row.next_offset(topic);
                    asked.push((at, topic.clone(), partition.row.partition, consumed));
                }
            }
        }
        let ask = |(at, topic, partition, consumed)| async move {
            Ok::<_, LogError>((at, self.input(topic, partition, consumed).await?))
        };
        let mut inputs: Vec<(usize, Input)> =
            stream::iter(asked).map(ask).buffer_unordered(CONCURRENCY).try_collect().await?;
        inputs.sort_by_key(|(_, input)| self.inputs.iter().position(|topic| *topic == input.topic));
        for (at, input) in inputs {
            partitions[at].inputs.push(input);
        }
        Ok(partitions)
    }

    async fn input(&self, topic: Arc<str>, partition: PartitionId, consumed: Option<u64>) -> Result<Input, LogError> {
        let (start, end) = self.log.watermarks(&topic, partition).await?;
        let mut input = Input { topic, consumed, start, end, waiting_since: None };
        if input.lag() > 0 {
            let first = self.records(&input.topic, partition, input.next().max(start), end, 1).await?;
            input.waiting_since = first.first().and_then(|record| record.timestamp);
        }
        Ok(input)
    }

    /// At most `max` records of a partition in `[from, end)`. Fewer if the log ends in something else than
    /// records, or the brokers take too long.
    async fn records(
        &self,
        topic: &str,
        partition: PartitionId,
        from: u64,
        end: u64,
        max: usize,
    ) -> Result<Vec<Record>, LogError> {
        let mut stream = self.log.open(topic, partition, Some(from)).await?;
        let mut records = Vec::new();
        while records.len() < max {
            match tokio::time::timeout(RECORD_MAX, stream.next()).await {
                Ok(record) => {
                    let record = record?;
                    let is_last = record.offset + 1 >= end;
                    records.push(record);
                    if is_last {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        Ok(records)
    }

    /// The newest records of every input's every partition, as far as the rows know it.
    pub async fn sample(&self, partitions: &[Partition]) -> Result<Vec<Record>, Error> {
        let places = partitions.iter().flat_map(|partition| {
            let of = |input: &Input| (partition.row.partition, input.topic.clone(), input.start, input.end);
            partition.inputs.iter().map(of).filter(|(_, _, start, end)| start < end)
        });
        let read = |(partition, topic, start, end): (PartitionId, Arc<str>, u64, u64)| async move {
            let from = end.saturating_sub(SAMPLE_RECORDS).max(start);
            self.records(&topic, partition, from, end, usize::try_from(SAMPLE_RECORDS).unwrap_or(usize::MAX)).await
        };
        let places: Vec<_> = places.collect();
        let found: Vec<Vec<Record>> =
            stream::iter(places).map(read).buffer_unordered(CONCURRENCY).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Those of `records` that lie where their keys belong under none of `counts`, by topic and sender. A record
/// that was sent before a growth lies where it belonged then.
pub fn misrouted(records: &[Record], counts: &[u32]) -> Vec<Misrouted> {
    let mut found: Vec<Misrouted> = Vec::new();
    for record in records.iter().filter(|record| record.key.is_some()) {
        if counts.iter().any(|count| record.key_hash().home(*count) == record.partition) {
            continue;
        }
        let source = String::from_utf8_lossy(record.headers.get(header::SOURCE).unwrap_or_default()).into_owned();
        match found.iter_mut().find(|known| known.topic == record.topic && known.source == source) {
            Some(known) => {
                known.records += 1;
                known.since = known.since.into_iter().chain(record.timestamp).min();
            }
            None => {
                found.push(Misrouted { topic: record.topic.clone(), source, records: 1, since: record.timestamp });
            }
        }
    }
    found
}
