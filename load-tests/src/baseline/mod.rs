//! The design to be measured against: one transaction per command, a polling relay.
//!
//! What a careful team builds from the usual advice: a consumer group, each partition's commands one after
//! the other, all partitions at once; for each command one Postgres transaction that claims the message id,
//! reads the order for update, writes it and adds an outbox row; a relay that polls with `for update skip
//! locked`, publishes with `acks=all` and marks. It is helped where the advice allows: prepared statements, a
//! connection per partition, a relay that publishes a whole batch at once, marks it with one statement and
//! polls again at once while there is more. Same aggregate, same servers, same durability as the runtime that
//! it is compared with. Deliberately absent: dead letters, read models.

mod handler;
mod relay;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::task::JoinSet;

use crate::{
    rivals::Running,
    scenarios::{Error, failed},
};

/// The schema that holds its tables.
pub const SCHEMA: &str = "baseline";
/// Where its commands come from.
pub const COMMANDS: &str = "baseline.commands";
/// Where its events go.
pub const EVENTS: &str = "baseline.events";

const TABLES: &str = "
create schema if not exists baseline;
create table if not exists baseline.orders (
    id      uuid   primary key,
    version bigint not null,
    state   bytea  not null
);
create table if not exists baseline.processed_messages (
    consumer     text        not null,
    message_id   uuid        not null,
    processed_at timestamptz not null default now(),
    primary key (consumer, message_id)
);
create table if not exists baseline.outbox (
    number       bigint      generated always as identity primary key,
    id           uuid        not null,
    aggregate_id uuid        not null,
    event_type   text        not null,
    sequence     bigint      not null,
    causation_id uuid        not null,
    payload      bytea       not null,
    created_at   timestamptz not null default now(),
    published_at timestamptz
);
create index if not exists outbox_unpublished on baseline.outbox (number) where published_at is null;";
/// How long its relay may take for what is left.
const PATIENCE: Duration = Duration::from_mins(1);
const UNPUBLISHED: &str = "select exists (select from outbox where published_at is null)";

/// Makes its tables.
pub async fn migrate(url: &str) -> Result<(), Error> {
    let mut connection = connect(url).await?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let options = options.application_name("baseline").options([("search_path", SCHEMA)]);
    PgConnection::connect_with(&options).await
}

/// A running baseline. Dropping it ends it.
pub struct Baseline {
    parts: JoinSet<Result<(), Error>>,
    url: String,
}

impl Baseline {
    /// Starts its consumer and its relay. Topics and tables must be there.
    pub async fn start(brokers: &str, url: &str) -> Result<Self, Error> {
        let mut parts = JoinSet::new();
        handler::start(&mut parts, brokers, url).await?;
        parts.spawn(relay::run(brokers.to_owned(), connect(url).await?));
        Ok(Self { parts, url: url.to_owned() })
    }
}

#[async_trait]
impl Running for Baseline {
    async fn failed(&mut self) -> Error {
        match self.parts.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => failed("a part of the baseline")(error),
            Some(Ok(Ok(()))) | None => Error::Timeout(Duration::ZERO, "a baseline that had ended".into()),
        }
    }

    /// Waits for its relay to mark everything as published: what is published and not marked would be
    /// published again by the next one.
    async fn stop(mut self: Box<Self>) -> Result<(), Error> {
        let mut connection = connect(&self.url).await?;
        let began = Instant::now();
        while sqlx::query_scalar::<_, bool>(UNPUBLISHED).fetch_one(&mut connection).await? {
            if began.elapsed() > PATIENCE {
                return Err(Error::Timeout(PATIENCE, "the baseline's outbox to be published".into()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.parts.shutdown().await;
        Ok(connection.close().await?)
    }
}
