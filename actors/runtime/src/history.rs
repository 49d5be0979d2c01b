//! Whether the database and the topics remember the same past.
//!
//! Upholds I10 and I7 against what no fence sees: a database restored from an older backup, a topic deleted
//! and made again. Three marks are compared, all before a partition is served:
//!
//! - *The tail of the events topic.* Each row tells up to where its partition of the topic is known:
//!   everything of ours below was committed here. At take-over what lies beyond is read, to the end as it is
//!   then, and every event must be of a version that the store has. One it has not was published from a
//!   history that this database lost. The mark is stored with the relay's cursor, so the tail is a fraction
//!   of a second's worth of events, or nothing. What a fenced owner's producer repeats later is of a version
//!   that the store has, whatever its age, which distinguishes it from an event of a lost history; outbox
//!   rows may be long gone by then, states stay.
//! - *Batch numbers.* A node remembers the last one it committed in each partition; a row that is behind it
//!   was put back.
//! - *The marks of topics* (Kafka's topic ids), noted when a topic is first seen. Offsets mean nothing in a
//!   topic of another mark, even where they are in range.
//!
//! A lost history halts the context, everywhere, in the store. A lost input halts that input. Deliberately
//! absent: any repair ([`crate::recover`] is an operator's decision).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    AggregateId, PartitionId, Record,
    envelope::header,
    epoch::{Halt, HaltReason, PartitionRow},
    port::{
        log::{Log, LogError},
        store::{Store, StoreError, Wanted},
    },
};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use crate::{activation, context::BoundedContext, emit::Emit, stretch::Stretch, telemetry};

/// Where an operator reads what to do about a lost history.
pub(crate) const HISTORY_RUNBOOK: &str = "deploy/runbooks/history-lost.md";
/// Where an operator reads what to do about a lost topic or lost offsets.
pub(crate) const OFFSETS_RUNBOOK: &str = "deploy/runbooks/offsets-out-of-range.md";

/// Events looked up at a time.
const CHUNK: usize = 1024;
/// A tail that has not been read after this long without a record is tried again.
const TAIL_PATIENCE: Duration = Duration::from_secs(10);
/// Marks are believed this long where a partition is taken or an input is opened.
pub(crate) const MARKS_BELIEVED: Duration = Duration::from_secs(2);
/// And looked at this often in any case.
const MARKS_EVERY: Duration = Duration::from_secs(10);

/// Why a partition can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Not before an operator has spoken.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// Not now.
    #[error("{0}")]
    Away(String),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Away(error.to_string())
    }
}

/// The aggregate and the version by which a record identifies an event of this context.
pub(crate) struct EventIdentity {
    pub aggregate: AggregateId,
    pub version: u64,
}

/// What one node knows of its context's past.
pub(crate) struct History {
    context: Arc<BoundedContext>,
    emit: Arc<Emit>,
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    /// When the marks of topics were last compared.
    compared: Mutex<Option<Instant>>,
    /// Topics that are not the ones they were, and what was seen.
    recreated: watch::Sender<BTreeMap<Arc<str>, String>>,
    halt: watch::Sender<Option<Halt>>,
}

impl History {
    pub fn new(context: Arc<BoundedContext>, emit: Arc<Emit>, log: Arc<dyn Log>, store: Arc<dyn Store>) -> Self {
        let (recreated, halt) = (watch::Sender::default(), watch::Sender::default());
        Self { context, emit, log, store, compared: Mutex::default(), recreated, halt }
    }

    /// Why the context stands still, if it does.
    pub fn halt(&self) -> Option<Halt> {
        self.halt.borrow().clone()
    }

    /// Notes what a partition row says. Said once for each change.
    pub fn saw(&self, halt: Option<&Halt>) {
        let changed = self.halt.send_if_modified(|known| {
            let changed = known.as_ref() != halt;
            if changed {
                if let Some(old) = known {
                    self.gauge(old.reason, 0.0);
                }
                *known = halt.cloned();
            }
            changed
        });
        match halt {
            Some(halt) if changed => {
                self.gauge(halt.reason, 1.0);
                let runbook = if halt.reason == HaltReason::TopicLost { OFFSETS_RUNBOOK } else { HISTORY_RUNBOOK };
                tracing::error!(
                    context = self.context.name(),
                    reason = halt.reason.as_str(),
                    detail = halt.detail,
                    runbook,
                    "the context is halted: nothing of it is served, consumed or published until an operator has spoken"
                );
            }
            None if changed => tracing::info!(context = self.context.name(), "the context is no longer halted"),
            _ => {}
        }
    }

    fn gauge(&self, reason: HaltReason, value: f64) {
        let labels = [("context", self.context.name()), ("reason", reason.as_str())];
        metrics::gauge!(telemetry::HALTED, &labels).set(value);
    }

    /// Halts the context on every node.
    pub async fn halt_all(&self, halt: &Halt) -> Result<(), StoreError> {
        self.store.halt(Some(halt)).await?;
        self.saw(Some(halt));
        Ok(())
    }

    /// Checks the past of a partition that was just taken. `remembered` is the last batch that this node
    /// committed to it. Returns the offset up to which its partition of the events topic is now known, where
    /// there is such a partition.
    pub async fn verify(&self, row: &PartitionRow, remembered: u64) -> Result<Option<u64>, Trouble> {
        let (topic, partition) = (&self.emit.events_topic, row.partition);
        if row.batch < remembered {
            let detail = format!(
                "partition {partition} stands at batch {}, but this node has committed batch {remembered}: the database was put back",
                row.batch
            );
            return Err(Halt { reason: HaltReason::HistoryLost, detail }.into());
        }
        self.compare_marks(MARKS_BELIEVED).await?;
        if let Some(detail) = self.recreated(topic) {
            return Err(Halt { reason: HaltReason::TopicLost, detail }.into());
        }
        let (start, end) = match self.log.bounds(topic, partition).await {
            Ok(bounds) => bounds,
            // It may not have grown yet: then nothing of ours is in it.
            Err(error) => match self.log.partition_count(topic).await {
                Ok(count) if partition.0 >= count => return Ok(None),
                _ => return Err(error.into()),
            },
        };
        let from = match row.published {
            Some(known) => known,
            // Nothing was ever committed here, so nothing of ours may be there.
            None if row.batch == 0 => start,
            // Stored by a build that did not note it. What is there is taken as it is.
            None => return Ok(Some(end)),
        };
        if from > end {
            let detail = format!(
                "{topic}-{partition} ends at offset {end}, but was published to up to {from}: it was deleted, or cut short"
            );
            return Err(Halt { reason: HaltReason::TopicLost, detail }.into());
        }
        // What retention has deleted can't be compared, and is older than any backup that the runbook allows.
        self.read_tail(partition, from.max(start), end).await?;
        Ok(Some(end))
    }

    /// Reads from `from` to `end`, and finds every event of ours in the store.
    async fn read_tail(&self, partition: PartitionId, from: u64, end: u64) -> Result<(), Trouble> {
        let mut newest: HashMap<AggregateId, (u64, u64)> = HashMap::new();
        let topic = &self.emit.events_topic;
        let mut tail = Stretch::open(&*self.log, topic, partition, from..end, TAIL_PATIENCE).await?;
        while let Some(record) = tail.next().await? {
            if let Some(event) = identify(&self.context, &self.emit, &record) {
                let newest = newest.entry(event.aggregate).or_default();
                *newest = (*newest).max((event.version, record.offset));
            }
            if newest.len() >= CHUNK {
                self.find(partition, &mut newest).await?;
            }
        }
        self.find(partition, &mut newest).await
    }

    /// Fails if the store lacks a version.
    async fn find(&self, partition: PartitionId, newest: &mut HashMap<AggregateId, (u64, u64)>) -> Result<(), Trouble> {
        let newest: Vec<(AggregateId, (u64, u64))> = newest.drain().collect();
        if newest.is_empty() {
            return Ok(());
        }
        let wanted = newest.iter().map(|(id, _)| Wanted::state(id.clone())).collect();
        let mut known = activation::find(self.store.clone(), wanted).await?.cold;
        // A key that the store refuses never had a state, and of one that can't be read nobody knows the
        // version: neither says that history is lost.
        let known: Vec<u64> = newest
            .iter()
            .map(|(id, _)| known.remove(id).map_or(Ok(None), |row| row.state))
            .map(|state| state.map_or(u64::MAX, |state| state.map_or(0, |state| state.version)))
            .collect();
        let lost = newest.into_iter().zip(known).filter(|((_, (version, _)), known)| version > known);
        match lost.min_by_key(|((_, (_, offset)), _)| *offset) {
            None => Ok(()),
            Some(((id, (version, offset)), known)) => {
                let topic = &self.emit.events_topic;
                let detail = format!(
                    "{topic}-{partition} holds version {version} of {id} at offset {offset}, and the database knows {known}: it was put back"
                );
                Err(Halt { reason: HaltReason::HistoryLost, detail }.into())
            }
        }
    }

    /// What is wrong with `topic`, if it is not the one it was.
    pub fn recreated(&self, topic: &str) -> Option<String> {
        self.recreated.borrow().get(topic).cloned()
    }

    /// Waits until `topic` is found not to be the one it was.
    pub async fn until_recreated(&self, topic: &str) {
        let mut recreated = self.recreated.subscribe();
        // The sender lives in `self`.
        let _ = recreated.wait_for(|topics| topics.contains_key(topic)).await;
    }

    /// Compares the marks of all topics with those noted, unless that was done just now.
    pub async fn compare_marks(&self, believed: Duration) -> Result<(), Trouble> {
        let mut compared = self.compared.lock().await;
        if compared.is_some_and(|at| at.elapsed() < believed) {
            return Ok(());
        }
        let mut seen = Vec::new();
        for topic in self.context.inputs().iter().chain([&self.emit.events_topic]) {
            match self.log.incarnation(topic).await {
                Ok(Some(mark)) => seen.push((topic.to_string(), mark)),
                // Not there, or without marks: nothing to compare. The reader of a topic reports that it is
                // not there.
                Ok(None) | Err(LogError::NoSuchTopic(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let noted = self.store.incarnations(&seen).await?;
        let other = |(topic, mark): (String, String)| {
            let noted = noted.get(&topic).filter(|noted| **noted != mark)?;
            let detail = format!("topic {topic} was deleted and made again (its id is {mark}, and was {noted})");
            Some((Arc::from(topic), detail))
        };
        let found: BTreeMap<Arc<str>, String> = seen.into_iter().filter_map(other).collect();
        self.recreated.send_if_modified(|known| {
            let changed = *known != found;
            *known = found;
            changed
        });
        *compared = Some(Instant::now());
        Ok(())
    }

    /// Looks at the marks for as long as it is polled. An events topic that was made again halts the context.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(MARKS_EVERY).await;
            if let Err(error) = self.compare_marks(Duration::ZERO).await {
                tracing::warn!(context = self.context.name(), %error, "the marks of topics could not be compared");
            }
            // A node that takes nothing hears of a halt, and of its end, here alone.
            if let Ok(rows) = self.store.partitions().await {
                self.saw(rows.iter().find_map(|row| row.halted.as_ref()));
            }
            if self.halt().is_none()
                && let Some(detail) = self.recreated(&self.emit.events_topic)
                && let Err(error) = self.halt_all(&Halt { reason: HaltReason::TopicLost, detail }).await
            {
                tracing::error!(context = self.context.name(), %error, "the context could not be halted; trying again");
            }
        }
    }
}

/// The event that a record of the events topic holds; `None` if it is no event of this context.
pub(crate) fn identify(context: &BoundedContext, emit: &Emit, record: &Record) -> Option<EventIdentity> {
    let text = |name: &str| record.headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
    let source = text(header::SOURCE)?;
    let kind = context.kinds().iter().find(|kind| emit.source_of(kind.name()) == source)?;
    let version = text(header::SEQUENCE)?.parse().ok()?;
    let key = std::str::from_utf8(record.key.as_deref()?).ok()?;
    Some(EventIdentity { aggregate: AggregateId { kind: kind.name(), key: key.into() }, version })
}
