//! The consumer side: for each command, one transaction.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_core::{
    Aggregate as _, Context, Decision, Message, Timestamp,
    codec::{Adapter as _, EncodedEvent},
    envelope::{ContentType, header},
};
use rdkafka::{
    Message as _,
    consumer::{Consumer as _, StreamConsumer},
    message::{Headers as _, OwnedMessage},
};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinSet,
};
use uuid::Uuid;

use super::{COMMANDS, connect};
use crate::{
    kafka,
    scenarios::{Error, failed, stand_in::StandInAdapter},
    work::now_ms,
};

const CONSUMER: &str = "baseline-orders";
/// Records waiting for one partition's task, at most.
const QUEUE: usize = 1_000;

/// Starts the consumer, and a task with its own connection for each partition.
pub(super) async fn start(parts: &mut JoinSet<Result<(), Error>>, brokers: &str, url: &str) -> Result<(), Error> {
    let mut config = kafka::client(brokers, CONSUMER);
    config
        .set("group.id", CONSUMER)
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        // Stored once the transaction is committed, so a record is never skipped.
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest");
    let consumer: StreamConsumer = config.create().map_err(failed("the baseline's consumer"))?;
    consumer.subscribe(&[COMMANDS]).map_err(failed("subscribing"))?;
    let consumer = Arc::new(consumer);
    let ends = kafka::Ends::new(brokers)?.of(COMMANDS).await?;
    let mut queues = HashMap::new();
    for partition in ends.into_keys() {
        let (queue, records) = channel(QUEUE);
        queues.insert(partition, queue);
        parts.spawn(work(Arc::clone(&consumer), records, connect(url).await?));
    }
    parts.spawn(dispatch(consumer, queues));
    Ok(())
}

async fn dispatch(consumer: Arc<StreamConsumer>, queues: HashMap<i32, Sender<OwnedMessage>>) -> Result<(), Error> {
    loop {
        let record = consumer.recv().await.map_err(failed("consuming"))?.detach();
        let Some(queue) = queues.get(&record.partition()) else { continue };
        if queue.send(record).await.is_err() {
            // Its task failed, and says so itself.
            tokio::time::sleep(Duration::MAX).await;
        }
    }
}

async fn work(
    consumer: Arc<StreamConsumer>,
    mut records: Receiver<OwnedMessage>,
    mut connection: PgConnection,
) -> Result<(), Error> {
    while let Some(record) = records.recv().await {
        handle(&mut connection, &record).await?;
        let stored = consumer.store_offset(record.topic(), record.partition(), record.offset());
        stored.map_err(failed("storing an offset"))?;
    }
    Ok(())
}

/// The envelope, as far as it is used.
fn message(record: &OwnedMessage) -> Option<Message> {
    let headers: HashMap<&str, &str> = record
        .headers()?
        .iter()
        .filter_map(|header| Some((header.key, std::str::from_utf8(header.value?).ok()?)))
        .collect();
    let message = Message::new(
        Uuid::try_parse(headers.get(header::ID)?).ok()?,
        *headers.get(header::SOURCE)?,
        *headers.get(header::TYPE)?,
        std::str::from_utf8(record.key()?).ok()?,
        Bytes::copy_from_slice(record.payload()?),
    );
    Some(Message { content_type: ContentType::parse(headers.get(header::CONTENT_TYPE)?)?, ..message })
}

const CLAIM: &str = "insert into processed_messages (consumer, message_id) values ($1, $2) on conflict do nothing";
const READ: &str = "select version, state from orders where id = $1 for update";
const WRITE: &str = "
insert into orders (id, version, state) values ($1, $2, $3)
on conflict (id) do update set version = excluded.version, state = excluded.state";
const STAGE: &str = "
insert into outbox (id, aggregate_id, event_type, sequence, causation_id, payload) values ($1, $2, $3, $4, $5, $6)";

async fn handle(connection: &mut PgConnection, record: &OwnedMessage) -> Result<(), Error> {
    let Some(message) = message(record) else { return Ok(()) };
    let Ok(command) = StandInAdapter.decode(&message) else { return Ok(()) };
    let Ok(order) = Uuid::try_parse(&message.key) else { return Ok(()) };
    let mut transaction = connection.begin().await?;
    let claimed = sqlx::query(CLAIM).bind(CONSUMER).bind(message.id).execute(&mut *transaction).await?;
    if claimed.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(());
    }
    let row = sqlx::query(READ).bind(order).fetch_optional(&mut *transaction).await?;
    let (mut version, mut state) = match row {
        None => (0, <StandInAdapter as holdfast_core::codec::Adapter>::Aggregate::default()),
        Some(row) => {
            let bytes: Vec<u8> = row.try_get(1)?;
            (row.try_get::<i64, _>(0)?, StandInAdapter.decode_state(1, &bytes).map_err(failed("reading an order"))?)
        }
    };
    let now = Timestamp::from_unix_ms(i64::try_from(now_ms()).unwrap_or(0));
    let context = Context { key: &message.key, version: version.cast_unsigned(), now };
    if let Ok(Decision::Done(effects)) = state.decide(&command, &context) {
        for event in &effects.events {
            state.evolve(event);
            version += 1;
            let EncodedEvent { r#type, payload } = StandInAdapter.encode_event(event, &context);
            sqlx::query(STAGE)
                .bind(Uuid::now_v7())
                .bind(order)
                .bind(r#type)
                .bind(version)
                .bind(message.id)
                .bind(&payload[..])
                .execute(&mut *transaction)
                .await?;
        }
        let bytes = StandInAdapter.encode_state(&state);
        sqlx::query(WRITE).bind(order).bind(version).bind(&bytes[..]).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}
