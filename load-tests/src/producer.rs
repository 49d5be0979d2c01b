//! Sends the load, outside the runtime, and remembers what it sent.
//!
//! Upholds that the ledger holds a record only if the broker acknowledged it (`acks=all`): what is in it must
//! have an effect. One idempotent producer, Java's partitioner unless another is asked for. Deliberately
//! absent: waiting for effects.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Statistics,
    error::KafkaError,
    message::{DeliveryResult, Header, Message as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};
use uuid::Uuid;

use crate::{
    kafka,
    work::{Expect, Mix, Planned, SOURCE, now_ms},
};

/// Why the load could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The producer.
    #[error("producing")]
    Produce(#[from] KafkaError),
    /// Some records were not acknowledged.
    #[error("{0} records were not acknowledged")]
    Unacknowledged(u64),
    /// The sending task ended early.
    #[error("the sending task ended early")]
    Task(#[from] tokio::task::JoinError),
}

/// How to send.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to.
    pub topic: String,
    /// Records a second at most; 0 for as fast as it goes.
    pub rate: u32,
    /// Which partition a key belongs to.
    pub partitioner: Partitioner,
    /// How long it goes by what it knows of the topic.
    pub metadata_max_age: Duration,
    /// Whether a record waits until the one before it of the same key is acknowledged, as those must who want
    /// order while partitions grow; and until the request before its own is answered, as those must who use
    /// librdkafka and want to lose nothing meanwhile: what a partition's first leader refuses it takes for
    /// delivered, if the next leader takes what was in flight behind it (confluent-kafka-go#921).
    pub awaits: bool,
}

/// How a producer chooses a record's partition by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// Java's, and Holdfast's.
    Murmur2,
    /// librdkafka's default, and so that of kcat and most clients made of it.
    Crc32,
}

impl Partitioner {
    /// librdkafka's name for it.
    const fn name(self) -> &'static str {
        match self {
            Self::Murmur2 => "murmur2_random",
            Self::Crc32 => "consistent_random",
        }
    }
}

impl Options {
    /// As fast as it goes.
    pub fn to(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            rate: 0,
            partitioner: Partitioner::Murmur2,
            metadata_max_age: Duration::from_mins(5),
            awaits: false,
        }
    }
}

/// What must become of one command, and how often it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which order.
    pub order: Uuid,
    /// What must become of it.
    pub expect: Expect,
    /// Times it was sent.
    pub copies: u32,
    /// When first, since the ledger's start.
    pub after: Duration,
    /// Its place among all records: what was sent before has a lower one.
    pub number: u64,
}

/// Everything that was sent and acknowledged.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// By `ce_id`.
    pub commands: HashMap<Uuid, Sent>,
    /// Bad records, by their key: each has its own.
    pub bad: HashMap<String, &'static str>,
    /// Records, repeats included.
    pub records: u64,
    /// When sending began.
    pub started: Instant,
    /// The same, ms since 1970.
    pub started_ms: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        let (commands, bad) = (HashMap::new(), HashMap::new());
        Self { commands, bad, records: 0, started: Instant::now(), started_ms: now_ms(), elapsed: Duration::ZERO }
    }
}

impl Ledger {
    /// Notes one record.
    pub fn note(&mut self, record: &Planned) {
        self.note_at(record, self.started.elapsed());
    }

    /// Notes one that was sent so long after the ledger's start.
    pub fn note_at(&mut self, record: &Planned, after: Duration) {
        self.records += 1;
        if let Expect::DeadLetter(reason) = record.expect {
            self.bad.insert(record.key.clone(), reason);
            return;
        }
        let number = self.records;
        let sent = Sent { order: record.order, expect: record.expect, copies: 0, after, number };
        self.commands.entry(record.id).or_insert(sent).copies += 1;
    }

    /// Adds what was sent after all of this, or beside it to other orders.
    pub fn absorb(&mut self, later: Self) {
        let after = Duration::from_millis(later.started_ms.saturating_sub(self.started_ms));
        for (id, sent) in later.commands {
            let moved = Sent { after: after + sent.after, number: self.records + sent.number, ..sent };
            let copies = sent.copies;
            self.commands.entry(id).and_modify(|first| first.copies += copies).or_insert(moved);
        }
        self.bad.extend(later.bad);
        self.records += later.records;
        self.elapsed = after + later.elapsed;
    }

    /// Orders that at least one command was for.
    pub fn orders(&self) -> usize {
        self.commands.values().map(|sent| sent.order).collect::<std::collections::HashSet<_>>().len()
    }

    /// Copies sent beyond the first.
    pub fn repeats(&self) -> u64 {
        self.commands.values().map(|sent| u64::from(sent.copies.saturating_sub(1))).sum()
    }

    /// Commands that must end in exactly one event.
    pub fn events_expected(&self) -> u64 {
        self.commands.values().filter(|sent| sent.expect == Expect::Event).count() as u64
    }
}

#[derive(Default)]
struct Deliveries {
    done: AtomicU64,
    failed: AtomicU64,
    /// Whether the brokers have given the producer its id: nothing is sent before.
    is_ready: AtomicBool,
    /// Keys with a record under way, where that matters.
    under_way: Mutex<HashSet<String>>,
}

impl Deliveries {
    /// Whether no record of `key` is under way; from then on one is.
    fn may_send(&self, key: &str) -> bool {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned())
    }

    fn ended(&self, key: Option<&[u8]>) {
        if let Some(key) = key.and_then(|key| std::str::from_utf8(key).ok()) {
            self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
    }
}

struct Context(Arc<Deliveries>);

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        if statistics.eos.is_some_and(|eos| eos.idemp_state == "Assigned") {
            self.0.is_ready.store(true, Ordering::Release);
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.0.done } else { &self.0.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let (Ok(message) | Err((_, message))) = result;
        self.0.ended(message.key());
        if let Err((error, message)) = result {
            tracing::warn!(%error, offset = message.offset(), "a record was not acknowledged");
        }
    }
}

/// Sends these records, as fast as it goes. Fails if one isn't acknowledged.
pub async fn produce_records(brokers: &str, topic: &str, records: Vec<Planned>) -> Result<Ledger, Error> {
    let (brokers, options) = (brokers.to_owned(), Options::to(topic));
    tokio::task::spawn_blocking(move || send_all(&brokers, &mut std::iter::once(records), &options, &|_| {})).await?
}

/// Sends these records at the pace of `options`. `progress` is called with the number of records sent so far,
/// after every thousand and at the end. Fails if one isn't acknowledged.
pub async fn produce_at_pace(
    brokers: &str,
    records: Vec<Planned>,
    options: Options,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Ledger, Error> {
    let brokers = brokers.to_owned();
    tokio::task::spawn_blocking(move || send_all(&brokers, &mut std::iter::once(records), &options, &progress)).await?
}

/// Sends everything of `mix`. `progress` is called with the number of records sent so far, after every
/// thousand and at the end. Fails if a record isn't acknowledged.
pub async fn produce(
    brokers: &str,
    mix: &Mix,
    options: Options,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Ledger, Error> {
    produce_windows(brokers, mix.windows(), options, progress).await
}

/// Sends these windows, one after the other. A window that takes its time holds up the ones after it.
pub async fn produce_windows(
    brokers: &str,
    mut windows: impl Iterator<Item = Vec<Planned>> + Send + 'static,
    options: Options,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Ledger, Error> {
    let brokers = brokers.to_owned();
    tokio::task::spawn_blocking(move || send_all(&brokers, &mut windows, &options, &progress)).await?
}

fn producer(brokers: &str, options: &Options, deliveries: Arc<Deliveries>) -> Result<BaseProducer<Context>, Error> {
    let age = options.metadata_max_age.as_millis().to_string();
    let mut config = kafka::producer(brokers, "holdfast-load");
    config
        .set("partitioner", options.partitioner.name())
        .set("topic.metadata.refresh.interval.ms", &age)
        .set("metadata.max.age.ms", &age)
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("message.timeout.ms", "120000")
        .set("statistics.interval.ms", "50")
        .set("queue.buffering.max.messages", "200000")
        .set("max.in.flight.requests.per.connection", if options.awaits { "1" } else { "5" });
    Ok(config.create_with_context(Context(deliveries))?)
}

/// Sends records one by one, each to its own topic, for a caller that learns on the way what to send.
pub(crate) struct Sender {
    producer: BaseProducer<Context>,
    deliveries: Arc<Deliveries>,
    sent: u64,
}

impl Sender {
    /// Connects; `topic` is the one that most will go to.
    pub(crate) fn connect(brokers: &str, topic: &str) -> Result<Self, Error> {
        let deliveries = Arc::new(Deliveries::default());
        let producer = producer(brokers, &Options::to(topic), deliveries.clone())?;
        warm_up(&producer, &deliveries, topic)?;
        Ok(Self { producer, deliveries, sent: 0 })
    }

    pub(crate) fn send(&mut self, topic: &str, record: &Planned) -> Result<(), Error> {
        let time = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        send(&self.producer, topic, record, &time)?;
        self.sent += 1;
        Ok(())
    }

    /// Waits until everything is acknowledged; fails if something is not.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.producer.flush(Duration::from_mins(2))?;
        let missing = self.sent - self.deliveries.done.load(Ordering::Relaxed).min(self.sent);
        if missing > 0 { Err(Error::Unacknowledged(missing)) } else { Ok(()) }
    }
}

fn send_all(
    brokers: &str,
    windows: &mut dyn Iterator<Item = Vec<Planned>>,
    options: &Options,
    progress: &dyn Fn(u64),
) -> Result<Ledger, Error> {
    let deliveries = Arc::new(Deliveries::default());
    let producer = producer(brokers, options, deliveries.clone())?;
    warm_up(&producer, &deliveries, &options.topic)?;
    let mut ledger = Ledger::default();
    for window in windows {
        let time = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        for record in &window {
            pace(&producer, options.rate, &ledger);
            if options.awaits {
                while !deliveries.may_send(&record.key) {
                    rest(&producer, TICK);
                }
            }
            send(&producer, &options.topic, record, &time)?;
            ledger.note(record);
            if ledger.records.is_multiple_of(1_000) {
                progress(ledger.records);
            }
        }
    }
    producer.flush(Duration::from_mins(2))?;
    ledger.elapsed = ledger.started.elapsed();
    progress(ledger.records);
    let missing = ledger.records - deliveries.done.load(Ordering::Relaxed).min(ledger.records);
    if missing > 0 { Err(Error::Unacknowledged(missing)) } else { Ok(ledger) }
}

/// Half a second goes by before a new producer sends its first record; that is not to be measured.
fn warm_up(producer: &BaseProducer<Context>, deliveries: &Deliveries, topic: &str) -> Result<(), Error> {
    producer.client().fetch_metadata(Some(topic), Duration::from_secs(30))?;
    let give_up = Instant::now() + Duration::from_secs(30);
    // Sending says better what is wrong than waiting.
    while !deliveries.is_ready.load(Ordering::Acquire) && Instant::now() < give_up {
        producer.poll(Duration::from_millis(10));
    }
    Ok(())
}

/// Waits until the next record is due.
fn pace(producer: &BaseProducer<Context>, rate: u32, ledger: &Ledger) {
    if rate == 0 {
        return;
    }
    let due = Duration::from_micros(ledger.records * 1_000_000 / u64::from(rate));
    while let Some(early) = due.checked_sub(ledger.started.elapsed()).filter(|early| !early.is_zero()) {
        rest(producer, early.min(TICK));
    }
}

/// Between two looks at what was delivered.
const TICK: Duration = Duration::from_millis(1);

/// Serves delivery reports, and sleeps. A poll with a timeout of its own takes no time below a millisecond
/// for one to wait, and would spin instead, on a core that what is measured needs.
fn rest(producer: &BaseProducer<Context>, time: Duration) {
    producer.poll(Duration::ZERO);
    std::thread::sleep(time);
}

fn send(producer: &BaseProducer<Context>, topic: &str, record: &Planned, time: &str) -> Result<(), Error> {
    let mut headers = OwnedHeaders::new_with_capacity(8);
    for (key, value) in headers_of(record, time) {
        headers = headers.insert(Header { key, value: Some(&value) });
    }
    let message = BaseRecord::to(topic).key(record.key.as_bytes()).payload(&*record.value).headers(headers);
    kafka::hand_over(producer, message)?;
    producer.poll(Duration::ZERO);
    Ok(())
}

/// The headers of a record, sent at `time`.
pub(crate) fn headers_of(record: &Planned, time: &str) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("ce_id", record.id.hyphenated().to_string()),
        ("ce_source", SOURCE.to_owned()),
        ("ce_type", record.r#type.clone()),
        ("ce_time", time.to_owned()),
        ("ce_subject", record.subject.clone()),
        ("content-type", record.form.content_type().to_owned()),
    ];
    if record.is_complete {
        headers.push(("ce_specversion", "1.0".to_owned()));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_takes_in_a_later_one_behind_its_own_records() {
        let records: Vec<Planned> = Mix::benchmark(2, 1).windows().flatten().collect();
        let (mut first, mut later) = (Ledger::default(), Ledger::default());
        later.started_ms = first.started_ms + 1_000;
        for record in &records[..5] {
            first.note(record);
        }
        for record in &records[4..] {
            later.note(record);
        }
        first.absorb(later);
        assert_eq!((first.records, first.commands.len(), first.repeats()), (9, 8, 1));
        let number = |at: usize| first.commands[&records[at].id].number;
        assert_eq!((number(4), number(5), number(7)), (5, 7, 9));
        assert!(first.commands[&records[5].id].after >= Duration::from_secs(1));
    }
}
