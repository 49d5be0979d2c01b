//! The tables of days: made ahead, dropped when nothing of them can matter any more.
//!
//! Upholds I7 and I2: an outbox day is dropped only when every row of it is behind its partition's cursor, a claims day only when its
//! messages can't be repeated any more. A missing table fails nothing: rows go to the default one, and move when their
//! day's table is made. Deliberately absent: vacuuming, and a timer (the caller's).

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

/// How long days are kept, beside today.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Published outbox rows. At least as long as the events topic keeps records: a take-over compares the two.
    pub outbox_days: u32,
    /// Claims. At least as long as a message can be repeated: the input topics' retention, and gRPC's seven days.
    pub claims_days: u32,
}

impl Default for Retention {
    /// Seven days, and one more for clocks and midnights.
    fn default() -> Self {
        Self { outbox_days: 8, claims_days: 8 }
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Tables made.
    pub made: Vec<String>,
    /// Tables dropped.
    pub dropped: Vec<String>,
    /// Outbox tables due to be dropped, but kept for their unpublished rows.
    pub kept: Vec<String>,
}

/// A dropped table locks its parent for a moment, and everybody queues behind whoever waits for a lock: so it waits briefly and tries
/// again another time.
const BRIEF: &str = "set local lock_timeout = '500ms'";

/// One node at a time.
const ALONE: &str = "select pg_try_advisory_xact_lock(hashtextextended('holdfast maintain ' || current_schema(), 0))";

const OPEN: &str = "
select parent || '_' || to_char(day, 'YYYYMMDD'), open_day(parent, day)
from unnest(array['outbox', 'claims']) as parent, generate_series(0, 2) as ahead, lateral (select current_date + ahead as day) d";

/// Day tables older than the retention, by their names.
const OLD: &str = "
select c.relname::text, p.relname::text = 'outbox'
from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
where p.relnamespace = current_schema()::regnamespace and p.relname in ('outbox', 'claims') and c.relname ~ '_[0-9]{8}$'
    and to_date(right(c.relname, 8), 'YYYYMMDD') < current_date - case p.relname when 'outbox' then $1 else $2 end
order by 1";

/// What has no day of its own and is old: claims whose id claims to be from a day long gone by now, and leftovers.
const SWEEP: &str = "
delete from claims_default where day < current_date - $1
    or day = 'infinity' and uuid_extract_timestamp(id) < now() - make_interval(days => $1)";

/// Nodes that were at other addresses. Who lives on all the same says so again; who remembers such a one finds nothing.
const GONE: &str = "delete from nodes where at < now() - interval '1 day'";

pub(crate) async fn run(connection: &mut PgConnection, retention: Retention) -> Result<Maintained, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    match work(&mut transaction, retention).await {
        Ok(done) => {
            transaction.commit().await?;
            Ok(done)
        }
        Err(error) => {
            transaction.rollback().await?;
            Err(error)
        }
    }
}

async fn work(connection: &mut PgConnection, retention: Retention) -> Result<Maintained, sqlx::Error> {
    let days = |days: u32| i32::try_from(days).unwrap_or(i32::MAX / 2);
    let mut done = Maintained::default();
    sqlx::query(BRIEF).execute(&mut *connection).await?;
    if !sqlx::query_scalar(ALONE).fetch_one(&mut *connection).await? {
        return Ok(done);
    }
    for row in sqlx::query(OPEN).fetch_all(&mut *connection).await? {
        if row.try_get(1)? {
            done.made.push(row.try_get(0)?);
        }
    }
    sqlx::query(SWEEP).bind(days(retention.claims_days)).execute(&mut *connection).await?;
    sqlx::query(GONE).execute(&mut *connection).await?;
    let old = sqlx::query(OLD).bind(days(retention.outbox_days)).bind(days(retention.claims_days));
    for row in old.fetch_all(&mut *connection).await? {
        let (table, outbox): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        if outbox && unpublished(connection, &table).await? {
            done.kept.push(table);
            continue;
        }
        sqlx::query(AssertSqlSafe(format!("drop table {table}"))).execute(&mut *connection).await?;
        done.dropped.push(table);
    }
    Ok(done)
}

/// Whether `table` holds a row beyond its partition's cursor. One index probe per partition.
async fn unpublished(connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(format!(
        "select exists (select from partitions p where exists
            (select from {table} o where o.partition = p.partition and o.sequence > p.outbox_cursor))"
    )))
    .fetch_one(connection)
    .await
}
