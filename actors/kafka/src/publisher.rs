//! Publishes outbox rows: the [`Publisher`] port.
//!
//! Invariant I3: rows leave in call order, and the first occurrence of each stays in that order. The producer is idempotent and
//! gapless and never gives up by time; the first error of any row ends it: its queue is purged, every open and later call fails, and the caller goes
//! on with a new one ([`Publisher::reset`]) from the first row it doesn't know to be acknowledged.
//!
//! *Call order* is the order in which the futures of `publish` are first polled (an async trait method does nothing before that), which
//! is the order in which they take the lock that is held while rows are enqueued. A future dropped while it enqueues leaves a call half sent, so
//! that counts as an error too. Dropping it later is harmless.
//!
//! Deliberately absent: choosing partitions; Kafka transactions; a timeout for rows (a broker that is away is waited for).
//! Known limit: a row that the *broker* refuses for good (too large for its topic) may be overtaken by rows already in
//! flight, at most five requests. A row too large for the client is refused before anything behind it is sent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use holdfast_core::{
    batch::OutboxRow,
    port::log::{Landed, PublishError, Publisher},
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
    config::KafkaConfig,
    error::ConfigError,
    headers,
    window::{Call, Window},
};

/// How long a full window is waited for before the call fails.
const FULL_MAX: Duration = Duration::from_mins(1);
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Rows sent between two looks at whether the producer broke, and between yields to other tasks.
const CHUNK: usize = 256;
/// How long `flush` waits at most.
const FLUSH: Duration = Duration::from_secs(10);

/// The callbacks of one producer.
struct Context {
    window: Arc<Window>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka producer");
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::Fatal)) {
            self.window.fail(format!("fatal: {reason}"));
        }
    }
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = Arc<Call>;

    fn delivery(&self, result: &DeliveryResult<'_>, call: Arc<Call>) {
        match result {
            Ok(message) => {
                call.landed(message.topic(), message.partition(), message.offset());
                self.window.count_down(&call);
            }
            Err((error, message)) => {
                self.window.fail(format!("{}-{}: {}", message.topic(), message.partition(), describe(error)));
            }
        }
    }
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

type Client = ThreadedProducer<Context>;

/// One producer and the calls made on it.
struct Session {
    client: Client,
    window: Arc<Window>,
}

impl Session {
    fn new(config: &ClientConfig) -> Result<Arc<Self>, KafkaError> {
        let window = Arc::<Window>::default();
        let client = Client::from_config_and_context(config, Context { window: Arc::clone(&window) })?;
        Ok(Arc::new(Self { client, window }))
    }

    /// Hands the row to librdkafka; `false` if its queue is full.
    fn send(&self, row: &OutboxRow, call: &Arc<Call>) -> Result<bool, PublishError> {
        let draft = &row.draft;
        let partition = i32::try_from(draft.target.0)
            .map_err(|_| PublishError(format!("{}-{}: no such partition", draft.topic, draft.target)))?;
        let record = BaseRecord::<[u8], [u8], Arc<Call>> {
            topic: &draft.topic,
            partition: Some(partition),
            payload: draft.value.as_deref(),
            key: draft.key.as_deref(),
            timestamp: None,
            headers: headers::to_kafka(&draft.headers),
            delivery_opaque: Arc::clone(call),
        };
        match self.client.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(PublishError(format!(
                "row {} of partition {} for {}-{}: {}",
                row.sequence,
                row.partition,
                draft.topic,
                draft.target,
                describe(&error)
            ))),
        }
    }

    /// Hands over all rows, waiting for room where there is none.
    async fn enqueue(&self, rows: &[OutboxRow], call: &Arc<Call>) -> Result<(), PublishError> {
        let mut full_since: Option<Instant> = None;
        for chunk in rows.chunks(CHUNK) {
            for row in chunk {
                while !self.send(row, call)? {
                    if full_since.get_or_insert_with(Instant::now).elapsed() > FULL_MAX {
                        return Err(PublishError(format!("the window stayed full for {FULL_MAX:?}")));
                    }
                    tokio::time::sleep(FULL_PAUSE).await;
                    if let Some(error) = self.window.broken() {
                        return Err(error);
                    }
                }
                full_since = None;
            }
            if let Some(error) = self.window.broken() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Ends the session: nothing that is still queued goes out.
    fn fail(&self, reason: impl Into<String>) {
        self.window.fail(reason);
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

/// The [`Publisher`] port on Kafka.
pub struct KafkaPublisher {
    config: ClientConfig,
    context: String,
    /// Held while rows are enqueued: taken in the order of first polls, since tokio's lock is fair.
    order: tokio::sync::Mutex<()>,
    session: Mutex<Arc<Session>>,
}

impl KafkaPublisher {
    /// Makes the producer. Does not wait for a broker.
    pub fn new(config: &KafkaConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let client = config.producer();
        let session = Mutex::new(Session::new(&client)?);
        Ok(Self { config: client, context: config.context.clone(), order: tokio::sync::Mutex::default(), session })
    }

    fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, rows: Arc<[OutboxRow]>) -> Result<Landed, PublishError> {
        let (session, answered) = {
            let _order = self.order.lock().await;
            let session = self.session();
            let (call, answered) = session.window.open(&rows)?;
            let mut whole = Whole { session: &session, done: false };
            let enqueued = session.enqueue(&rows, &call).await;
            whole.done = true;
            match enqueued {
                Ok(()) => session.window.count_down(&call),
                Err(error) => session.fail(error.0),
            }
            drop(whole);
            (session, answered)
        };
        let answer = answered.await.unwrap_or_else(|_| Err(PublishError("the producer was dropped".to_owned())));
        if let Err(error) = &answer {
            // The error may come from a delivery report; what is queued behind it must not go out.
            session.fail(error.0.clone());
            tracing::warn!(%error, context = self.context, rows = rows.len(), "rows were not published");
        }
        answer
    }

    async fn reset(&self) {
        // First, so that a call that waits for room gives the lock up.
        self.session().fail("the producer was replaced");
        let _order = self.order.lock().await;
        metrics::counter!("holdfast_kafka_producer_replaced_total", "context" => self.context.clone()).increment(1);
        match Session::new(&self.config) {
            Ok(next) => {
                let last = std::mem::replace(&mut *self.session.lock().unwrap_or_else(PoisonError::into_inner), next);
                close_apart(last);
            }
            // The failed one stays: it refuses everything until the next reset.
            Err(error) => tracing::error!(%error, context = self.context, "no new producer"),
        }
    }

    async fn flush(&self) {
        let session = self.session();
        if tokio::time::timeout(FLUSH, session.window.idle()).await.is_err() {
            tracing::warn!(context = self.context, "rows were still in flight after {FLUSH:?}");
        }
    }
}

impl Drop for KafkaPublisher {
    fn drop(&mut self) {
        let session = self.session();
        session.window.fail("the publisher was dropped");
        close_apart(session);
    }
}

/// Drops a session on a thread of its own: that purges, waits for callbacks and for the client's threads.
fn close_apart(session: Arc<Session>) {
    if let Err(error) = std::thread::Builder::new().name("kafka-closing".to_owned()).spawn(move || drop(session)) {
        tracing::error!(%error, "no thread to close a Kafka producer with");
    }
}
