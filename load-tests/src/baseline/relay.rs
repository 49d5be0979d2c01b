//! The outbox relay: polls, publishes, marks, in one transaction, so that a second relay would skip what this
//! one holds.

use std::time::Duration;

use futures::future::try_join_all;
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::EVENTS;
use crate::{
    kafka,
    scenarios::{Error, failed},
};

/// Rows published at once.
const BATCH: i64 = 500;
/// How long it rests when there was less than a batch.
const INTERVAL: Duration = Duration::from_millis(20);

const FETCH: &str = "
select number, id, aggregate_id, event_type, sequence, causation_id, payload,
    to_char(created_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')
from outbox where published_at is null order by number limit $1 for update skip locked";
const MARK: &str = "update outbox set published_at = now() where number = any($1)";

pub(super) async fn run(brokers: String, mut connection: PgConnection) -> Result<(), Error> {
    let mut config = kafka::producer(&brokers, "baseline-relay");
    config.set("linger.ms", "1");
    let producer: FutureProducer = config.create().map_err(failed("the baseline's producer"))?;
    loop {
        let mut transaction = connection.begin().await?;
        let rows = sqlx::query(FETCH).bind(BATCH).fetch_all(&mut *transaction).await?;
        let records: Vec<Record> = rows.iter().map(Record::of).collect::<Result<_, _>>()?;
        try_join_all(records.iter().map(|record| record.publish(&producer))).await?;
        if !records.is_empty() {
            let numbers: Vec<i64> = records.iter().map(|record| record.number).collect();
            sqlx::query(MARK).bind(numbers).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        if i64::try_from(records.len()).is_ok_and(|count| count < BATCH) {
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

struct Record {
    number: i64,
    key: String,
    headers: [(&'static str, String); 8],
    payload: Vec<u8>,
}

impl Record {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let key = row.try_get::<Uuid, _>(2)?.to_string();
        let headers = [
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", row.try_get::<Uuid, _>(1)?.to_string()),
            ("ce_source", "baseline".to_owned()),
            ("ce_type", row.try_get(3)?),
            ("ce_time", row.try_get(7)?),
            ("ce_subject", key.clone()),
            ("ce_sequence", row.try_get::<i64, _>(4)?.to_string()),
            ("ce_causationid", row.try_get::<Uuid, _>(5)?.to_string()),
        ];
        Ok(Self { number: row.try_get(0)?, key, headers, payload: row.try_get(6)? })
    }

    async fn publish(&self, producer: &FutureProducer) -> Result<(), Error> {
        let mut headers = OwnedHeaders::new_with_capacity(9);
        for (key, value) in &self.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        headers = headers.insert(Header { key: "content-type", value: Some("application/protobuf") });
        let record = FutureRecord::to(EVENTS).key(&self.key).payload(&self.payload).headers(headers);
        match producer.send(record, Timeout::Never).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(failed("publishing")(error)),
        }
    }
}
