//! Publishes outbox rows: the [`Publisher`] port.
//!
//! Invariant I3: rows leave in call order, and the first occurrence of each stays in that order. The producer
//! is idempotent and gapless and never gives up by time; the first error of any row ends it: its queue is
//! purged, every open and later call fails, and the caller goes on with a new one ([`Publisher::reset`]) from
//! the first row it doesn't know to be acknowledged.
//!
//! *Call order* is the order in which the futures of `publish` are first polled (an async trait method does
//! nothing before that), which is the order in which they take the lock that is held while rows are enqueued.
//! A future dropped while it enqueues leaves a call half sent, so that counts as an error too. Dropping it
//! later is harmless. A reset does not take the lock: a call may hold it that nobody polls just now. (Calls
//! that wait for it then get their error once that one is polled or dropped.)
//!
//! *Refused rows.* A batch that a broker refuses leaves a gap, and a broker that knows nothing of the
//! producer takes what was in flight behind it: so a row that may be refused goes alone, with nothing in
//! flight, and batches stay below what their topic takes. A row may be refused if it is larger than its topic
//! takes, uncompressed, or if a batch with it was refused before (its topic's limit was lowered, or another
//! row of its batch is at fault). Refused alone, it is at fault itself ([`PublishError::Refused`]).
//!
//! *First rows.* For the same reason the first row that a producer sends to a partition is acknowledged
//! before the next goes there: if the leader of the moment refused it, and the next one took what came behind
//! it, librdkafka would take the first for delivered (confluent-kafka-go#921). It has no offset for such a
//! row, and neither has it for any other that it only concludes to be there; none of these counts as
//! acknowledged.
//!
//! Deliberately absent: choosing partitions; Kafka transactions; a timeout for rows (a broker that is away is
//! waited for).

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use holdfast_core::{
    batch::OutboxRow,
    partition::PartitionId,
    port::log::{Landed, LogError, PublishError, Publisher, Publishers},
    size,
};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Statistics,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, PurgeConfig, ThreadedProducer},
};

use crate::{
    client::log_line,
    config::{BATCH_BYTES, KafkaConfig},
    error::ConfigError,
    headers,
    limits::TopicLimits,
    window::{Call, Window},
};

/// How long a full window is waited for before the call fails.
const FULL_MAX: Duration = Duration::from_mins(1);
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Rows of batches that were refused: each is sent alone from then on.
type Suspects = Arc<Mutex<BTreeSet<(PartitionId, u64)>>>;

/// The callbacks of one producer.
struct Context {
    window: Arc<Window>,
    suspects: Suspects,
}

/// What a delivery report is about.
struct Sent {
    call: Arc<Call>,
    partition: PartitionId,
    sequence: u64,
    is_alone: bool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka producer");
        // A lone row's report follows, and says whether the row is at fault.
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::Fatal)) && !self.window.has_lone_row() {
            self.window.fail(format!("fatal: {reason}"));
        }
    }
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let place = (sent.partition, sent.sequence);
        match result {
            Ok(message) => {
                let Ok(offset) = u64::try_from(message.offset()) else {
                    let target = format!("{}-{}", message.topic(), message.partition());
                    return self.window.fail(format!("{target}: acknowledged without an offset"));
                };
                sent.call.landed(message.topic(), message.partition(), offset);
                if sent.is_alone {
                    suspects(&self.suspects).remove(&place);
                }
                self.window.acknowledged(&sent.call);
            }
            Err((error, message)) => {
                let text = format!("{}-{}: {}", message.topic(), message.partition(), describe(error));
                match is_refusal(error) {
                    true if sent.is_alone => {
                        suspects(&self.suspects).remove(&place);
                        self.window.refuse(refused(place, text));
                    }
                    true => {
                        suspects(&self.suspects).insert(place);
                        self.window.fail(text);
                    }
                    false => self.window.fail(text),
                }
            }
        }
    }
}

fn suspects(suspects: &Suspects) -> std::sync::MutexGuard<'_, BTreeSet<(PartitionId, u64)>> {
    suspects.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the broker, or the client, refuses a record, or one of its batch, for its own sake.
const fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord)
    )
}

fn refused((partition, sequence): (PartitionId, u64), error: String) -> PublishError {
    PublishError::Refused { partition, sequence, error }
}

fn stopped(reason: impl Into<String>) -> PublishError {
    PublishError::Stopped(reason.into())
}

fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::MessageProduction(
            RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition,
        ) => format!("the target partition is not known to this client yet: {error}"),
        error => error.to_string(),
    }
}

/// Closes itself on a thread of its own: that purges, waits for callbacks and for the client's threads.
struct Client(Option<ThreadedProducer<Context>>);

impl Deref for Client {
    type Target = ThreadedProducer<Context>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let client = self.0.take();
        if let Err(error) = std::thread::Builder::new().name("kafka-closing".to_owned()).spawn(move || drop(client)) {
            tracing::error!(%error, "no thread to close a Kafka producer with");
        }
    }
}

/// One producer and the calls made on it.
struct Session {
    client: Client,
    /// Held while rows are enqueued: taken in the order of first polls, since tokio's lock is fair.
    order: tokio::sync::Mutex<()>,
    window: Arc<Window>,
    suspects: Suspects,
    limits: Arc<TopicLimits>,
    /// Bytes sent to topics that take less than a batch may hold, since nothing was in flight.
    grouped: Mutex<HashMap<Arc<str>, usize>>,
    /// The partitions that something was sent to, and whether anything is acknowledged there.
    begun: Mutex<HashMap<(Arc<str>, PartitionId), bool>>,
}

impl Session {
    fn new(config: &ClientConfig, suspects: Suspects, limits: Arc<TopicLimits>) -> Result<Arc<Self>, KafkaError> {
        let window = Arc::<Window>::default();
        let context = Context { window: Arc::clone(&window), suspects: Arc::clone(&suspects) };
        let client = Client(Some(ThreadedProducer::from_config_and_context(config, context)?));
        Ok(Arc::new(Self {
            client,
            order: tokio::sync::Mutex::default(),
            window,
            suspects,
            limits,
            grouped: Mutex::default(),
            begun: Mutex::default(),
        }))
    }

    /// Hands the row to librdkafka; `false` if its queue is full.
    fn send(&self, row: &OutboxRow, call: &Arc<Call>, is_alone: bool) -> Result<bool, PublishError> {
        let draft = &row.draft;
        let partition = i32::try_from(draft.target.0)
            .map_err(|_| stopped(format!("{}-{}: no such partition", draft.topic, draft.target)))?;
        let place = (row.partition, row.sequence);
        let sent = Sent { call: Arc::clone(call), partition: place.0, sequence: place.1, is_alone };
        let record = BaseRecord::<[u8], [u8], Box<Sent>> {
            topic: &draft.topic,
            partition: Some(partition),
            payload: draft.value.as_deref(),
            key: draft.key.as_deref(),
            timestamp: None,
            headers: headers::to_kafka(&draft.headers),
            delivery_opaque: Box::new(sent),
        };
        let send = || self.client.send(record).map_err(|(error, _)| error);
        let Err(error) = self.window.hand_over(is_alone, send)? else { return Ok(true) };
        if matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
            return Ok(false);
        }
        let text = format!(
            "row {} of partition {} for {}-{}: {}",
            row.sequence,
            row.partition,
            draft.topic,
            draft.target,
            describe(&error)
        );
        if !is_refusal(&error) {
            return Err(stopped(text));
        }
        if is_alone {
            return Err(refused(place, text));
        }
        suspects(&self.suspects).insert(place);
        Err(stopped(text))
    }

    /// Hands over all rows, waiting for room where there is none.
    async fn enqueue(&self, rows: &[OutboxRow], call: &Arc<Call>) -> Result<(), PublishError> {
        // There are new ones only once this session is broken.
        let suspects = suspects(&self.suspects).clone();
        // Few topics, and next to one another mostly.
        let mut limit: Option<(&Arc<str>, usize)> = None;
        for row in rows {
            let topic = &row.draft.topic;
            let max = match limit.filter(|(known, _)| *known == topic) {
                Some((_, max)) => max,
                None => limit.insert((topic, self.limits.of(topic).await)).1,
            };
            let bytes = size::of_draft(&row.draft);
            if bytes > max || suspects.contains(&(row.partition, row.sequence)) {
                self.settle().await?;
                self.send_patiently(row, call, true).await?;
                self.settle().await?;
            } else {
                if max < BATCH_BYTES {
                    self.make_room(topic, bytes, max).await?;
                }
                self.follow_first(row).await?;
                self.send_patiently(row, call, false).await?;
            }
        }
        Ok(())
    }

    async fn send_patiently(&self, row: &OutboxRow, call: &Arc<Call>, is_alone: bool) -> Result<(), PublishError> {
        let mut full_since: Option<Instant> = None;
        while !self.send(row, call, is_alone)? {
            if full_since.get_or_insert_with(Instant::now).elapsed() > FULL_MAX {
                return Err(stopped(format!("the window stayed full for {FULL_MAX:?}")));
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
        Ok(())
    }

    /// Waits until nothing is in flight.
    async fn settle(&self) -> Result<(), PublishError> {
        self.window.settled().await?;
        self.grouped.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(|is_there| *is_there = true);
        Ok(())
    }

    /// Waits for the first row that was sent to where `row` goes, if it is not acknowledged.
    async fn follow_first(&self, row: &OutboxRow) -> Result<(), PublishError> {
        let target = (Arc::clone(&row.draft.topic), row.draft.target);
        match self.begun.lock().unwrap_or_else(PoisonError::into_inner).entry(target) {
            Entry::Vacant(new) => {
                new.insert(false);
                return Ok(());
            }
            Entry::Occupied(is_there) if *is_there.get() => return Ok(()),
            Entry::Occupied(_) => {}
        }
        self.settle().await
    }

    /// No more is in flight than `topic` takes in one batch.
    async fn make_room(&self, topic: &Arc<str>, bytes: usize, max: usize) -> Result<(), PublishError> {
        let grouped = |add: usize| {
            let mut grouped = self.grouped.lock().unwrap_or_else(PoisonError::into_inner);
            let sum = grouped.entry(Arc::clone(topic)).or_default();
            *sum += add;
            *sum
        };
        if grouped(bytes) > max {
            self.settle().await?;
            grouped(bytes);
        }
        Ok(())
    }

    /// Ends the session: nothing that is still queued goes out.
    fn fail(&self, reason: impl Into<String>) {
        self.end(stopped(reason));
    }

    /// The same, for this error.
    fn end(&self, error: PublishError) {
        match error {
            PublishError::Stopped(reason) => self.window.fail(reason),
            PublishError::Refused { .. } => self.window.refuse(error),
        }
        self.client.purge(PurgeConfig::default().queue().non_blocking());
    }
}

/// Fails the session unless the enqueuing it guards came to its end.
struct Whole<'a> {
    session: &'a Session,
    done: bool,
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.session.fail("a call was dropped while its rows were enqueued");
        }
    }
}

/// Makes a [`KafkaPublisher`] for each lane. They share what is known of topics, and nothing else.
pub struct KafkaPublishers {
    config: KafkaConfig,
    limits: Arc<TopicLimits>,
}

impl KafkaPublishers {
    /// Checks the configuration. Does not wait for a broker.
    pub fn new(config: &KafkaConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config: config.clone(), limits: TopicLimits::new(config)? })
    }
}

impl Publishers for KafkaPublishers {
    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError> {
        Ok(Arc::new(KafkaPublisher::make(&self.config, Arc::clone(&self.limits))?))
    }
}

/// The [`Publisher`] port on Kafka.
pub struct KafkaPublisher {
    config: ClientConfig,
    context: String,
    session: Mutex<Arc<Session>>,
    suspects: Suspects,
    limits: Arc<TopicLimits>,
}

impl KafkaPublisher {
    /// Makes the producer. Does not wait for a broker.
    pub fn new(config: &KafkaConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Self::make(config, TopicLimits::new(config)?)
    }

    fn make(config: &KafkaConfig, limits: Arc<TopicLimits>) -> Result<Self, ConfigError> {
        let (client, suspects) = (config.producer(), Suspects::default());
        let session = Mutex::new(Session::new(&client, Arc::clone(&suspects), Arc::clone(&limits))?);
        Ok(Self { config: client, context: config.context.clone(), session, suspects, limits })
    }

    fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, rows: Arc<[OutboxRow]>) -> Result<Landed, PublishError> {
        let session = self.session();
        let answered = {
            let _order = session.order.lock().await;
            let (call, answered) = session.window.open(&rows)?;
            let mut whole = Whole { session: &session, done: false };
            let enqueued = session.enqueue(&rows, &call).await;
            whole.done = true;
            match enqueued {
                Ok(()) => session.window.count_down(&call),
                Err(error) => session.end(error),
            }
            answered
        };
        let answer = answered.await.unwrap_or_else(|_| Err(stopped("the producer was dropped")));
        if let Err(error) = &answer {
            // The error may come from a delivery report; what is queued behind it must not go out.
            session.end(error.clone());
            tracing::warn!(%error, context = self.context, rows = rows.len(), "rows were not published");
        }
        answer
    }

    async fn reset(&self) {
        const REASON: &str = "the producer was replaced";
        self.session().fail(REASON);
        metrics::counter!("holdfast_kafka_producer_replaced_total", "context" => self.context.clone()).increment(1);
        if !suspects(&self.suspects).is_empty() {
            // A batch was refused: its topic may take less than it did.
            self.limits.read_all().await;
        }
        match Session::new(&self.config, Arc::clone(&self.suspects), Arc::clone(&self.limits)) {
            Ok(next) => {
                let last = std::mem::replace(&mut *self.session.lock().unwrap_or_else(PoisonError::into_inner), next);
                // It may be the one of another reset by now.
                last.fail(REASON);
            }
            // The failed one stays: it refuses everything until the next reset.
            Err(error) => tracing::error!(%error, context = self.context, "no new producer"),
        }
    }
}

impl Drop for KafkaPublisher {
    fn drop(&mut self) {
        self.session().window.fail("the publisher was dropped");
    }
}
