//! Keeps the partition counts of one context: notices growth of any cause, puts it in force, ends
//! transitions, and passes the counts to the node.
//!
//! Every node runs this; what it does is conditional in the store, so any number may do it at once, and each
//! can take over from one that died on the way. The rules are pure and stand in [`holdfast_core::growth`]
//! (I3). Deliberately absent: moving anything. Homes move when their owners acknowledge (see
//! [`holdfast_machine::lane`]), records wait at their gate (see [`crate::gate`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_core::{
    PartitionId, Record, Timestamp,
    batch::OutboxDraft,
    envelope::{EnvelopeOut, header},
    epoch::Generation,
    growth::{Act, Growth, Topics},
    port::{
        log::{Log, LogError},
        store::{Store, StoreError},
    },
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use uuid::Uuid;

use crate::{config::Config, context::BoundedContext, progress::Pulse, telemetry};

/// Counts are asked of the log this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While a task waits for news, the store is read this often at most.
const HURRY_EVERY: Duration = Duration::from_millis(50);

/// The counts as last heard, for the tasks of this node. Clones hear the same news.
#[derive(Clone)]
pub(crate) struct Homes {
    news: watch::Receiver<Arc<Growth>>,
    hurry: Arc<Notify>,
}

impl Homes {
    /// As last heard.
    pub fn now(&self) -> Arc<Growth> {
        self.news.borrow().clone()
    }

    /// The count in force, as last heard.
    pub fn count(&self) -> u32 {
        self.news.borrow().current().1
    }

    /// What the last look at the store brought, if it has not been taken yet.
    pub fn news(&mut self) -> Option<Arc<Growth>> {
        self.news.has_changed().unwrap_or(false).then(|| self.news.borrow_and_update().clone())
    }

    /// Waits for the next look at the store, whatever it brings.
    pub async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await; // the node is going
        }
    }

    /// Asks for a look at the store soon.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }
}

/// Why the counts could not be read at the start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks, acts and tells.
pub(crate) struct Watcher {
    context: Arc<BoundedContext>,
    config: Arc<Config>,
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    outputs: [String; 2],
    counts: BTreeMap<String, u32>,
    counted: Option<Instant>,
    bumping: Option<JoinHandle<()>>,
    news: watch::Sender<Arc<Growth>>,
    hurry: Arc<Notify>,
}

impl Watcher {
    /// Registers what is there, and reads how it stands.
    pub async fn start(
        context: Arc<BoundedContext>,
        config: Arc<Config>,
        log: Arc<dyn Log>,
        store: Arc<dyn Store>,
    ) -> Result<(Self, Homes), Error> {
        let count = log.partition_count(context.commands_topic()).await?;
        store.register_partitions(count).await?;
        let outputs = [format!("{}.events", context.name()), format!("{}.dlq", context.name())];
        let (news, heard) = watch::channel(Arc::new(Growth::default()));
        let hurry = Arc::new(Notify::new());
        let homes = Homes { news: heard, hurry: hurry.clone() };
        let (counts, counted) = (BTreeMap::new(), None);
        let mut watcher = Self { context, config, log, store, outputs, counts, counted, bumping: None, news, hurry };
        watcher.count().await;
        let growth = watcher.read().await?;
        watcher.news.send_replace(Arc::new(growth));
        Ok((watcher, homes))
    }

    /// Runs until the node drops its handles.
    pub async fn run(mut self, pulse: Pulse) {
        while !self.news.is_closed() {
            let begun = Instant::now();
            pulse.idle();
            tokio::select! {
                () = tokio::time::sleep_until(begun + LOOK_EVERY) => {}
                () = self.hurry.notified() => tokio::time::sleep_until(begun + HURRY_EVERY).await,
            }
            pulse.waits("the database and the broker");
            match self.look().await {
                Ok(growth) => _ = self.news.send_replace(Arc::new(growth)),
                Err(error) => {
                    tracing::warn!(context = self.context.name(), %error, "partition counts could not be read; trying again");
                }
            }
        }
    }

    /// Reads how things stand; an input topic that was never seen is noted with the count it has.
    async fn read(&self) -> Result<Growth, StoreError> {
        let growth = self.store.growth().await?;
        let unknown: Vec<(String, u32)> = self
            .context
            .inputs()
            .iter()
            .filter(|topic| !growth.topics.contains_key(&***topic))
            .filter_map(|topic| Some((topic.to_string(), *self.counts.get(&**topic)?)))
            .collect();
        if unknown.is_empty() {
            return Ok(growth);
        }
        for (topic, count) in &unknown {
            self.store.note_count(topic, *count).await?;
        }
        self.store.growth().await
    }

    /// Reads how things stand, and does what can be done.
    async fn look(&mut self) -> Result<Growth, StoreError> {
        if self.counted.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.count().await;
        }
        let mut growth = self.read().await?;
        if !self.config.rules.transition_ends_when_consumed {
            self.end_by_age(&growth).await?;
        }
        let acts = growth.next(self.topics(), &self.counts, self.config.producers_max_age);
        if !acts.is_empty() {
            for act in acts {
                self.act(&growth, act).await?;
            }
            growth = self.store.growth().await?;
        }
        metrics::gauge!(telemetry::IN_TRANSITION, "context" => self.context.name()).set(if growth.is_in_transition() {
            1.0
        } else {
            0.0
        });
        Ok(growth)
    }

    /// [`Rules::transition_ends_when_consumed`] left out.
    async fn end_by_age(&self, growth: &Growth) -> Result<(), StoreError> {
        for (topic, counts) in &growth.topics {
            for step in counts.steps.iter().filter(|step| step.age >= self.config.producers_max_age) {
                self.store.end_transition(topic, step.count).await?;
            }
        }
        Ok(())
    }

    fn topics(&self) -> Topics<'_> {
        let [events, dlq] = &self.outputs;
        Topics { commands: self.context.commands_topic(), outputs: [events.as_str(), dlq.as_str()] }
    }

    /// Asks the log for the counts of all topics. One that is not there, or not now, keeps its last count.
    async fn count(&mut self) {
        self.counted = Some(Instant::now());
        let inputs = self.context.inputs().iter().map(ToString::to_string);
        let topics: Vec<String> = inputs.chain(self.outputs.iter().cloned()).collect();
        for topic in topics {
            match self.log.partition_count(&topic).await {
                Ok(count) => _ = self.counts.insert(topic, count),
                Err(error) => tracing::debug!(context = self.context.name(), topic, %error, "partition count unknown"),
            }
        }
    }

    /// In a task of its own: it waits for every commit in flight, and the news must not wait for it.
    fn bump(&mut self, from: Generation, count: u32) {
        if self.bumping.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (store, context) = (self.store.clone(), self.context.name());
        self.bumping = Some(tokio::spawn(async move {
            match store.bump(from, count).await {
                Ok(()) => tracing::info!(context, generation = from.0 + 1, count, "a new partition count is in force"),
                Err(error) => tracing::warn!(context, %error, "a new count could not be put in force; trying again"),
            }
        }));
    }

    async fn act(&mut self, growth: &Growth, act: Act) -> Result<(), StoreError> {
        let context = self.context.name();
        match act {
            Act::Note { topic, count } => {
                let before = growth.topic_count(&topic);
                if count % before.max(1) == 0 {
                    tracing::info!(context, topic, before, count, "a topic has grown");
                } else {
                    metrics::counter!(telemetry::IRREGULAR_GROWTH_TOTAL, "context" => context).increment(1);
                    tracing::error!(
                        context,
                        topic,
                        before,
                        count,
                        "a topic has grown to a count that is no multiple of the one before: while producers change over, order is promised \
                         only to records with ce_sequence"
                    );
                }
                self.store.note_count(&topic, count).await
            }
            Act::Bump { from, count } => {
                self.bump(from, count);
                Ok(())
            }
            Act::Measure { topic, count } => {
                let all: Vec<PartitionId> = (0..growth.topic_count(&topic)).map(PartitionId).collect();
                match self.log.ends(&topic, &all).await {
                    Ok(ends) => self.store.note_ends(&topic, count, &ends).await,
                    Err(error) => {
                        tracing::warn!(context, topic, %error, "end offsets could not be read; trying again");
                        Ok(())
                    }
                }
            }
            Act::End { topic, count } => {
                tracing::info!(context, topic, count, "the topic's transition is over");
                self.store.end_transition(&topic, count).await
            }
        }
    }
}

/// The type of a mark (see `proto/holdfast/runtime/v1/partitions_grown.proto`).
const MARK_TYPE: &str = "holdfast.runtime.v1.PartitionsGrown";
/// Its one field's tag: number 1, a varint.
const MARK_TAG: u8 = 0x08;

/// What the relay of `partition` says in the events topic once it addresses nothing by a smaller count any
/// more, so that other contexts know when their transition is over. A partition that is no home by `count`
/// says nothing: nobody waits for it, and the events topic may lack it.
pub(crate) fn mark(
    context: &str,
    topic: &Arc<str>,
    partition: PartitionId,
    count: u32,
    now: Timestamp,
) -> Option<OutboxDraft> {
    if partition.0 >= count {
        return None;
    }
    let id = Uuid::now_v7();
    let (source, subject) = (format!("holdfast/{context}"), partition.to_string());
    let headers = EnvelopeOut::new(id, &source, MARK_TYPE, now, &subject).headers();
    let mut value = vec![MARK_TAG];
    let mut rest = count;
    while rest >= 0x80 {
        value.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    value.push(u8::try_from(rest).expect("seven bits"));
    let value = Some(Bytes::from(value));
    Some(OutboxDraft { id, topic: topic.clone(), target: partition, key: None, headers, value })
}

/// The count that a mark tells; `None` if `record` is none. As with any event of ours, its source has to be
/// the context whose topic it lies in.
pub(crate) fn marked(record: &Record) -> Option<u32> {
    if record.key.is_some() || record.headers.get(header::TYPE)? != MARK_TYPE.as_bytes() {
        return None;
    }
    let source = std::str::from_utf8(record.headers.get(header::SOURCE)?).ok()?;
    let context = record.topic.strip_suffix(".events")?;
    if source.strip_prefix("holdfast/") != Some(context) {
        return None;
    }
    let (tag, varint) = record.value.as_deref()?.split_first()?;
    let count = varint.iter().rev().fold(0_u64, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
    (*tag == MARK_TAG && varint.len() <= 5).then(|| u32::try_from(count).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_its_count_and_nothing_else_is_one() {
        for count in [1, 12, 127, 128, 300, u32::MAX] {
            let of = |partition| mark("t", &"t.events".into(), partition, count, Timestamp::from_unix_ms(0));
            assert!(of(PartitionId(count)).is_none(), "no home says anything that is none by {count}");
            let draft = of(PartitionId(count - 1)).expect("its last home says it");
            let record = Record {
                topic: draft.topic,
                partition: draft.target,
                offset: 0,
                timestamp: None,
                key: draft.key,
                headers: draft.headers,
                value: draft.value,
            };
            assert_eq!(marked(&record), Some(count));
            let elsewhere = Record { topic: "another.events".into(), ..record.clone() };
            assert_eq!(marked(&elsewhere), None, "another context can't say it");
            let mut headers = record.headers.clone();
            headers.0.retain(|(name, _)| &**name != header::SOURCE);
            headers.push(header::SOURCE, "stranger");
            let anywhere = Record { topic: "news".into(), headers, ..record.clone() };
            assert_eq!(marked(&anywhere), None, "nor anybody in a topic that is no context's");
            assert_eq!(marked(&Record { key: Some(Bytes::from_static(b"k")), ..record.clone() }), None);
            assert_eq!(marked(&Record { value: None, ..record.clone() }), None);
            assert_eq!(marked(&Record { headers: holdfast_core::Headers::default(), ..record }), None);
        }
    }
}
