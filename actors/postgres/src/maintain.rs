//! The tables of days: opened ahead, dropped when nothing in them can matter any more. And rows that are
//! swept because no day holds them.
//!
//! Upholds I7 and I2: an outbox day is dropped only when every row of it is behind its partition's cursor, a
//! claims day only when its messages can't be repeated any more. Upholds I6: no commit and no look-up fails
//! or queues because of it.
//!
//! - Each step is a statement of its own that commits by itself. One that fails is postponed to the next run,
//!   and keeps no other from happening.
//! - *Opening* locks the parent in share update exclusive mode and a table that nobody else has seen. Neither
//!   look-ups nor commits conflict with that.
//! - *Dropping* is `detach partition … concurrently`, then a drop of what is a table of its own by then. The
//!   detachment queues before nobody: it takes the day out of new plans, waits without a lock for the
//!   transactions that may still use the old ones, and only then locks the day. One that is interrupted
//!   leaves the day pending, and the next run finalizes it. A table is marked before it is detached, so that
//!   a run knows it again.
//! - A step waits for a lock for [`LOCK_TIMEOUT`], and ends after [`STEP_TIMEOUT`]. That is the most for
//!   which it keeps anything waiting (a plan made before a detachment that another run left pending), and
//!   less than Postgres' `deadlock_timeout` of a second, after which a statement caught in a circle would be
//!   the one to fail.
//!
//! There is no default partition: attaching a day locks it exclusively, and nothing can be detached
//! concurrently beside one. A commit that finds no table for its day is not refused for good: it opens the
//! days (see [`open`]) and is tried again. Deliberately absent: vacuuming, and a timer (the caller's).

use std::{future::Future, time::Duration};

use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgConnectOptions};
use tokio::time::timeout;

use crate::error;

/// The longest wait of a step for a lock.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(300);

/// The longest step that takes a lock on a table.
pub const STEP_TIMEOUT: Duration = Duration::from_millis(800);

/// Rows that a sweep removes at once, and how often it does so in a run; the rest is left to the next run.
const SWEEP_ROWS: i64 = 500;
const SWEEPS_MAX: u32 = 1_000;

/// How long days are kept, beside today.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Published outbox rows. At least as long as the events topic keeps records: a take-over compares the
    /// two.
    pub outbox_days: u32,
    /// Claims. At least as long as a message can be repeated: the input topics' retention, and gRPC's seven
    /// days.
    pub claims_days: u32,
    /// Index rows of dead letters. At least as long as the DLQ topic keeps the records that they point to.
    pub dead_letters_days: u32,
}

impl Default for Retention {
    /// The topics' seven and thirty days, and one more for clocks and midnights.
    fn default() -> Self {
        Self { outbox_days: 8, claims_days: 8, dead_letters_days: 31 }
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
    /// Steps that failed and are left to the next run.
    pub postponed: Vec<Postponed>,
    /// Index rows of dead letters removed.
    pub dead_letters: u64,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// The table, or what was to be swept.
    pub what: String,
    /// What the server said.
    pub error: String,
}

/// One node at a time, for as long as its connection lasts.
const ALONE: &str = "select pg_try_advisory_lock(hashtextextended('holdfast maintain ' || current_schema(), 0))";
const NOT_ALONE: &str = "select pg_advisory_unlock(hashtextextended('holdfast maintain ' || current_schema(), 0))";

/// Tables of days gone by, by their names: those attached, and those that were marked and detached. A table
/// of early days is as old as the last day of its month.
const OLD: &str = "
select c.relname::text, n.parent, i.inhrelid is not null, coalesce(i.inhdetachpending, false)
from pg_class c left join pg_inherits i on i.inhrelid = c.oid
    cross join lateral (select substring(c.relname from '^(outbox|claims)_') as parent) n
    cross join lateral (select case
        when c.relname ~ '^(outbox|claims)_[0-9]{8}$' then to_date(right(c.relname, 8), 'YYYYMMDD')
        when c.relname ~ '^claims_early_[0-9]{6}$'
            then (to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month' - interval '1 day')::date
        end as day) d
where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
    and d.day < current_date - case n.parent when 'outbox' then $1 else $2 end
    and (i.inhparent = to_regclass(n.parent) or i.inhrelid is null and obj_description(c.oid, 'pg_class') = $3)
order by coalesce(i.inhdetachpending, false) desc, d.day";

/// The comment on a table that is being dropped. A table of this name without it is a copy that an operator
/// made, and stays.
const MARK: &str = "holdfast: to be dropped";

/// The days to come that have no table yet, with the statement that opens each.
const MISSING: &str = "
select name, opens from (
    select parent || '_' || to_char(day, 'YYYYMMDD') as name, format('select open_day(%L, %L)', parent, day) as opens, ahead
    from unnest(array ['outbox', 'claims']) as parent, generate_series(0, 2) as ahead,
        lateral (select current_date + ahead as day) d
    union
    select 'claims_early_' || to_char(current_date + ahead, 'YYYYMM'),
        format('select open_early(%L)', date_trunc('month', (current_date + ahead)::timestamp)::date), 0
    from unnest(array [0, 2]) as ahead) wanted
where to_regclass(name) is null order by ahead, name";

/// As [`MISSING`] in one statement, for a commit that can't wait for the next run.
const OPEN: &str = "
select open_day(parent, current_date + ahead), open_early(current_date)
from unnest(array ['outbox', 'claims']) as parent, generate_series(0, 1) as ahead";

/// The first day whose claims are still there.
const SINCE: &str = "
update claims_kept set since = kept.day
from (select min(to_date(right(c.relname, 8), 'YYYYMMDD')) as day from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = to_regclass('claims') and c.relname ~ '^claims_[0-9]{8}$') kept
where since < kept.day";

/// Aggregates that have only refused, the last time on a day whose claims are gone. In order, so that the
/// record of an earlier time never outlives the row: a new row counts its revisions from 1 again. One that is
/// in memory is written again as if it had never had a row.
const UNBORN: &str = "
with old as (
    delete from unborn where ctid = any(array(
        select ctid from unborn u where day < (select since from claims_kept)
            and not exists (select from mailbox m where m.key = u.key and m.kind = u.kind)
            and not exists (select from timers t where t.key = u.key and t.kind = u.kind)
            and not exists (select from effects e where e.key = u.key and e.kind = u.kind)
        order by day, revision limit $1)) returning kind, key, revision),
gone as (
    delete from aggregates a using old o
    where a.key = o.key and a.kind = o.kind and a.version = 0 and a.revision = o.revision and a.sources is null)
select from old";

/// Claims that nodes of an earlier build filed under infinity.
const REFILE: &str = "
with moved as (
    delete from claims_default where ctid = any(array(select ctid from claims_default limit $1)) returning id, scope, body, answer)
insert into claims (id, scope, body, day, answer) select id, scope, body, early(current_date), answer from moved";

const DEAD_LETTERS: &str = "
delete from dead_letters where ctid = any(array(
    select ctid from dead_letters where at < now() - make_interval(days => $2) order by at limit $1))";

/// Nodes that were at other addresses. Who lives on all the same says so again; who remembers such a one
/// finds nothing.
const GONE: &str = "
delete from nodes where ctid = any(array(select ctid from nodes where at < now() - make_interval(days => $2) limit $1))";

/// The session of a run.
pub(crate) fn session(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().options([("lock_timeout", LOCK_TIMEOUT.as_millis().to_string())])
}

/// Opens today and tomorrow.
pub(crate) async fn open(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(OPEN).execute(connection).await.map(drop)
}

/// Does all that is to be done, and fails only if the connection does. `patience` bounds the wait for each
/// answer.
pub(crate) async fn run(
    connection: &mut PgConnection,
    retention: Retention,
    patience: Duration,
) -> Result<Maintained, sqlx::Error> {
    let mut run = Run { connection, patience, done: Maintained::default() };
    let asked = sqlx::query_scalar(ALONE).fetch_one(&mut *run.connection);
    if !within(patience, asked).await? {
        return Ok(run.done);
    }
    run.tables(retention).await?;
    let dead_letters = run.sweep("dead_letters", DEAD_LETTERS, Some(retention.dead_letters_days)).await?;
    run.done.dead_letters = dead_letters;
    let since = within(patience, sqlx::query(SINCE).execute(&mut *run.connection)).await;
    run.note("claims_kept", since)?;
    run.sweep("unborn", UNBORN, None).await?;
    run.sweep("claims_default", REFILE, None).await?;
    run.sweep("nodes", GONE, Some(1)).await?;
    within(patience, sqlx::query(NOT_ALONE).execute(&mut *run.connection)).await?;
    Ok(run.done)
}

async fn within<T>(patience: Duration, answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = |_| sqlx::Error::Protocol(format!("no answer within {patience:?}"));
    timeout(patience, answer).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

fn days(days: u32) -> i32 {
    i32::try_from(days).unwrap_or(i32::MAX / 2)
}

struct Run<'a> {
    connection: &'a mut PgConnection,
    patience: Duration,
    done: Maintained,
}

impl Run<'_> {
    async fn tables(&mut self, retention: Retention) -> Result<(), sqlx::Error> {
        let old = sqlx::query(OLD).bind(days(retention.outbox_days)).bind(days(retention.claims_days)).bind(MARK);
        let old = within(self.patience, old.fetch_all(&mut *self.connection)).await;
        let missing = sqlx::query(MISSING).fetch_all(&mut *self.connection);
        let missing = within(self.patience, missing).await;
        self.execute(&format!("set statement_timeout = {}", STEP_TIMEOUT.as_millis())).await?;
        for row in self.note("days gone by", old)?.unwrap_or_default() {
            let (table, parent) = (row.try_get(0)?, row.try_get(1)?);
            let old = Old { table, parent, attached: row.try_get(2)?, pending: row.try_get(3)? };
            let outcome = self.drop_day(&old).await;
            match self.note(&old.table, outcome)? {
                Some(true) => self.done.dropped.push(old.table),
                Some(false) => self.done.kept.push(old.table),
                None => {}
            }
        }
        for row in self.note("days to come", missing)?.unwrap_or_default() {
            let (table, opens): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let outcome = self.execute(&opens).await;
            if self.note(&table, outcome)?.is_some() {
                self.done.made.push(table);
            }
        }
        self.execute("reset statement_timeout").await
    }

    /// Takes in how a step ended: `None` if it is postponed, an error if the connection is lost.
    fn note<T>(&mut self, what: &str, outcome: Result<T, sqlx::Error>) -> Result<Option<T>, sqlx::Error> {
        match outcome {
            Ok(done) => Ok(Some(done)),
            Err(failed) if error::ended(&failed) => Err(failed),
            Err(failed) => {
                self.done.postponed.push(Postponed { what: what.to_owned(), error: error::text(&failed) });
                Ok(None)
            }
        }
    }

    async fn execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let asked = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *self.connection);
        within(self.patience, asked).await.map(drop)
    }

    /// Drops a day, from wherever an earlier run left it; `false` if rows of it are unpublished.
    async fn drop_day(&mut self, old: &Old) -> Result<bool, sqlx::Error> {
        let Old { table, parent, .. } = old;
        if old.pending {
            self.execute(&format!("alter table {parent} detach partition {table} finalize")).await?;
        } else if old.attached {
            if parent == "outbox" && self.is_unpublished(table).await? {
                return Ok(false);
            }
            self.execute(&format!("comment on table {table} is '{MARK}'")).await?;
            self.execute(&format!("alter table {parent} detach partition {table} concurrently")).await?;
        }
        self.execute(&format!("drop table {table}")).await?;
        Ok(true)
    }

    /// Whether `table` holds a row beyond its partition's cursor. One index probe per partition.
    async fn is_unpublished(&mut self, table: &str) -> Result<bool, sqlx::Error> {
        let asked = sqlx::query_scalar(AssertSqlSafe(format!(
            "select exists (select from partitions p where exists
                (select from {table} o where o.partition = p.partition and o.sequence > p.outbox_cursor))"
        )))
        .persistent(false);
        within(self.patience, asked.fetch_one(&mut *self.connection)).await
    }

    /// Repeats `sql`, a batch of rows at a time, until none is left or the run has done enough; says how many
    /// rows went.
    async fn sweep(&mut self, what: &str, sql: &'static str, keep_days: Option<u32>) -> Result<u64, sqlx::Error> {
        let mut swept = 0;
        for _ in 0..SWEEPS_MAX {
            let asked = sqlx::query(sql).bind(SWEEP_ROWS);
            let asked = if let Some(keep) = keep_days { asked.bind(days(keep)) } else { asked };
            let outcome = within(self.patience, asked.execute(&mut *self.connection)).await;
            let Some(gone) = self.note(what, outcome)? else { break };
            swept += gone.rows_affected();
            if gone.rows_affected() < SWEEP_ROWS.unsigned_abs() {
                break;
            }
        }
        Ok(swept)
    }
}

/// A day to be dropped.
struct Old {
    table: String,
    parent: String,
    attached: bool,
    pending: bool,
}
