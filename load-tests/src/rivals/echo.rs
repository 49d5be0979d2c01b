//! The floor of latency: what comes in goes out, with the id of its cause, and nothing is decided or stored.
//!
//! Deliberately absent: any promise; what is in flight when it is killed may come twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    Message as _,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use tokio::task::JoinHandle;

use super::Running;
use crate::{
    kafka,
    scenarios::{Error, failed},
};

/// Where its records come from.
pub const COMMANDS: &str = "echo.commands";
/// Where they go.
pub const EVENTS: &str = "echo.events";

const NAME: &str = "echo";

/// An echo that runs. Dropping it ends it.
pub struct Echo {
    is_over: Arc<AtomicBool>,
    repeating: JoinHandle<Result<(), Error>>,
}

impl Echo {
    /// Starts it; the topics must exist.
    pub fn start(brokers: &str) -> Result<Self, Error> {
        let mut config = kafka::client(brokers, NAME);
        config
            .set("group.id", NAME)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", "65536");
        let consumer: BaseConsumer = config.create().map_err(failed("the echo's consumer"))?;
        consumer.subscribe(&[COMMANDS]).map_err(failed("subscribing"))?;
        let mut config = kafka::producer(brokers, NAME);
        config.set("linger.ms", "0");
        let producer: BaseProducer = config.create().map_err(failed("the echo's producer"))?;
        let is_over = Arc::<AtomicBool>::default();
        let over = Arc::clone(&is_over);
        let repeating = tokio::task::spawn_blocking(move || repeat(&consumer, &producer, &over));
        Ok(Self { is_over, repeating })
    }
}

#[async_trait]
impl Running for Echo {
    async fn failed(&mut self) -> Error {
        match (&mut self.repeating).await {
            Ok(Err(error)) => error,
            Err(error) => failed("the echo")(error),
            Ok(Ok(())) => Error::Wrong("the echo had ended".into()),
        }
    }

    async fn stop(mut self: Box<Self>) -> Result<(), Error> {
        self.is_over.store(true, Ordering::Release);
        (&mut self.repeating).await.map_err(failed("the echo"))?
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
    }
}

fn repeat(consumer: &BaseConsumer, producer: &BaseProducer, is_over: &AtomicBool) -> Result<(), Error> {
    while !is_over.load(Ordering::Acquire) {
        // Its own thread sends; this only takes its reports.
        producer.poll(Duration::ZERO);
        if let Some(record) = consumer.poll(Duration::from_millis(20)) {
            send(producer, &record.map_err(failed("consuming"))?)?;
        }
    }
    producer.flush(Duration::from_mins(1)).map_err(failed("publishing"))?;
    match consumer.commit_consumer_state(CommitMode::Sync) {
        // It read nothing.
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
        committed => committed.map_err(failed("committing")),
    }
}

fn send(producer: &BaseProducer, record: &BorrowedMessage<'_>) -> Result<(), Error> {
    let mut headers = OwnedHeaders::new_with_capacity(8);
    for header in record.headers().into_iter().flat_map(|headers| headers.iter()) {
        let key = if header.key == "ce_id" { "ce_causationid" } else { header.key };
        headers = headers.insert(Header { key, value: header.value });
    }
    let mut next = BaseRecord::to(EVENTS).headers(headers);
    (next.key, next.payload) = (record.key(), record.payload());
    kafka::hand_over(producer, next).map_err(failed("publishing"))
}
