//! What Postgres itself counts of the work it was given.
//!
//! Transactions and rows are what its statistics say once the connections that did the work are closed (an
//! open one reports late); the log's bytes are its position. A statement outside of a block is a transaction
//! of its own, and one round trip. Deliberately absent: counting anything on our side.

use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::{Connection as _, PgConnection};

use super::{Error, failed};

/// Counted since the server's start, or for each command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Database {
    /// Transactions that were committed.
    pub transactions: f64,
    /// Rows inserted, updated or deleted.
    pub rows: f64,
    /// Rows of stored aggregates that were fetched by their keys: what is updated is fetched once, what is
    /// selected before, once more. The number of commits, which is the machine's affair, does not change it.
    pub aggregates_read: f64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: f64,
    /// Times that the log was made durable.
    pub wal_syncs: f64,
}

const COUNTED: &str = "
select d.xact_commit::float8, (d.tup_inserted + d.tup_updated + d.tup_deleted)::float8,
    (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8,
    (select coalesce(sum(fsyncs), 0)::float8 from pg_stat_io where object = 'wal'),
    (select coalesce(sum(idx_tup_fetch), 0)::float8 from pg_stat_user_tables
        where relname = 'aggregates' or schemaname = 'baseline' and relname = 'orders')
from pg_stat_database d where d.datname = current_database()";
const OTHERS: &str = "
select count(*) from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()";
/// How long connections may take to close.
const PATIENCE: Duration = Duration::from_secs(20);

impl Database {
    /// What it has counted by now, once nobody else is connected to the database of `url`.
    pub async fn counted(url: &str) -> Result<Self, Error> {
        let mut connection = PgConnection::connect(url).await?;
        let began = Instant::now();
        while sqlx::query_scalar::<_, i64>(OTHERS).fetch_one(&mut connection).await? > 0 {
            if began.elapsed() > PATIENCE {
                return Err(Error::Timeout(PATIENCE, "connections to the database to close".into()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (transactions, rows, wal_bytes, wal_syncs, aggregates_read) =
            sqlx::query_as(COUNTED).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(Self { transactions, rows, aggregates_read, wal_bytes, wal_syncs })
    }

    /// What was counted since `before`, for each of `count` commands.
    #[must_use]
    pub fn per_command(self, before: Self, count: f64) -> Self {
        let each = |now: f64, then: f64| ((now - then) / count.max(1.0) * 10_000.0).round() / 10_000.0;
        Self {
            transactions: each(self.transactions, before.transactions),
            rows: each(self.rows, before.rows),
            aggregates_read: each(self.aggregates_read, before.aggregates_read),
            wal_bytes: each(self.wal_bytes, before.wal_bytes).round(),
            wal_syncs: each(self.wal_syncs, before.wal_syncs),
        }
    }
}

/// So that nothing that earlier work has left to write falls into a measurement: a checkpoint, and what the
/// kernel holds back of Kafka's logs, which would make the commits of the next minute wait for the disk.
pub async fn settle(url: &str) -> Result<(), Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("checkpoint").execute(&mut connection).await?;
    connection.close().await?;
    tokio::task::spawn_blocking(rustix::fs::sync).await.map_err(failed("sync"))
}

/// A place in the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(String);

const MARK: &str = "select pg_current_wal_insert_lsn()::text";
/// Not there when a database is made; its functions read the log's files.
const INSPECT: &str = "create extension if not exists pg_walinspect schema pg_catalog";
const PAGES: &str = "
select coalesce(sum(fpi_size), 0)::float8 from pg_get_wal_stats($1::pg_lsn, pg_current_wal_flush_lsn())";

impl Mark {
    /// The end of the log as it is.
    pub async fn now(url: &str) -> Result<Self, Error> {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query(INSPECT).execute(&mut connection).await?;
        let mark = sqlx::query_scalar(MARK).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(Self(mark))
    }

    /// Bytes of whole pages in the log since then: the first change to a page after a checkpoint takes its
    /// page along, so their number depends on how long ago that was more than on what was done.
    pub async fn full_page_bytes(&self, url: &str) -> Result<f64, Error> {
        let mut connection = PgConnection::connect(url).await?;
        let bytes = sqlx::query_scalar(PAGES).bind(&self.0).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(bytes)
    }
}
