//! Partition rows: who owns them, and how far they are.
//!
//! Upholds I4: every write here but the take-over is conditional on the token, and the take-over on the
//! epoch. Each method is one statement, hence one transaction. Deliberately absent: leases; the database's
//! clock is compared with no node's.

use std::collections::BTreeMap;

use holdfast_core::{
    PartitionId,
    epoch::{Beat, Epoch, Generation, Halt, PartitionRow, Token},
    port::store::{Cursor, Taken},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error,
    format::{FORMAT, Format},
};

const ALL: &str = "
select partition, epoch, token, address, generation, released, batch, outbox_head, outbox_cursor, consumed::text,
    published, halted, begun = epoch, format
from partitions order by partition";

/// `released` and whether the last taker had begun are answered as they were: they tell whether there is a
/// lease to wait out, and whose. That node's beat is read under a lock that its next one waits for, and the
/// row's lock is had by then: so nothing of a node's beats waits for a commit of its own that is stuck, and
/// who has said a later one than this finds the new token.
const TAKE: &str = "
with taken as (
    update partitions set epoch = epoch + 1, token = $3, address = $4, released = false
    where partition = $1 and epoch = $2
    returning partition, epoch, token, address, generation, format, old.released as was_released, batch, outbox_head, outbox_cursor,
        consumed::text as consumed, published, halted, old.begun = old.epoch as had_begun, old.address as last),
said as materialized (
    select run, beat from nodes where address = (select last from taken where had_begun) for share)
select partition, epoch, token, address, generation, was_released, batch, outbox_head, outbox_cursor, consumed,
    published, halted, had_begun, (select run from said), (select beat from said), format
from taken";

/// A statement doesn't see what it writes itself: the answer has the one before.
const BEAT: &str = "
with said as (
    insert into nodes (address, run, beat, format, format_run) values ($1, $2, $3, $4, $2)
    on conflict (address) do update set run = excluded.run, beat = excluded.beat, format = excluded.format,
        format_run = excluded.format_run, at = now())
select address, run, beat from nodes";

const STALLED: &str = "update nodes set stalled = $2, stalled_at = now() where address = $1";

const TOKENS: &str = "select partition, token from partitions where partition = any($1)";

const RELEASE: &str = "update partitions set released = true where partition = $1 and token = $2";

/// Rows are locked in partition order, as commits do. Token and batch are those of the row once the lock is
/// had, so a commit in flight is waited for, and counted.
const RETOKEN: &str = "
with locked as materialized (
    select p.partition, c.new
    from unnest($1::int[], $2::uuid[], $3::uuid[]) as c(partition, old, new)
    join partitions p on p.partition = c.partition and p.token = c.old
    order by p.partition for update of p)
update partitions p set token = l.new from locked l where p.partition = l.partition
returning p.partition, p.batch";

/// A commit may have stored the cursor before, without knowing where its rows landed. `greatest` passes over
/// null.
const ADVANCE: &str = "
with locked as materialized (
    select p.partition, c.cursor, c.published
    from unnest($1::int[], $2::uuid[], $3::bigint[], $4::bigint[]) as c(partition, token, cursor, published)
    join partitions p on p.partition = c.partition and p.token = c.token
        and (p.outbox_cursor < c.cursor or coalesce(p.published, -1) < c.published)
    order by p.partition for update of p)
update partitions p
set outbox_cursor = greatest(p.outbox_cursor, l.cursor), published = greatest(p.published, l.published)
from locked l where p.partition = l.partition";

fn number(partition: PartitionId) -> i32 {
    partition.0.cast_signed()
}

pub(crate) async fn all(connection: &mut PgConnection, format: &Format) -> Result<Vec<PartitionRow>, sqlx::Error> {
    let rows = sqlx::query(ALL).fetch_all(connection).await?;
    rows.iter()
        .map(|found| {
            format.note(found, 13)?;
            row(found)
        })
        .collect()
}

pub(crate) async fn take(
    connection: &mut PgConnection,
    format: &Format,
    partition: PartitionId,
    expected: Epoch,
    token: Token,
    address: &str,
) -> Result<Option<Taken>, sqlx::Error> {
    let taking = sqlx::query(TAKE).bind(number(partition)).bind(expected.0.cast_signed()).bind(token.0).bind(address);
    let Some(found) = taking.fetch_optional(connection).await? else { return Ok(None) };
    format.note_taken(&found, 15)?;
    let beat = found
        .try_get::<Option<Uuid>, _>(13)?
        .map(|run| Ok::<_, sqlx::Error>(Beat { run, count: unsigned(&found, 14)? }));
    Ok(Some(Taken { row: row(&found)?, beat: beat.transpose()? }))
}

pub(crate) async fn beat(
    connection: &mut PgConnection,
    address: &str,
    beat: Beat,
) -> Result<BTreeMap<String, Beat>, sqlx::Error> {
    let asked =
        sqlx::query(BEAT).bind(address).bind(beat.run).bind(beat.count.cast_signed()).bind(FORMAT.cast_signed());
    let said = |row: &PgRow| Ok((row.try_get(0)?, Beat { run: row.try_get(1)?, count: unsigned(row, 2)? }));
    asked.fetch_all(connection).await?.iter().map(said).collect()
}

pub(crate) async fn note_stalled(
    connection: &mut PgConnection,
    address: &str,
    stalled: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(STALLED).bind(address).bind(stalled).execute(connection).await.map(drop)
}

pub(crate) async fn tokens(
    connection: &mut PgConnection,
    partitions: &[PartitionId],
) -> Result<Vec<(PartitionId, Option<Token>)>, sqlx::Error> {
    let numbers: Vec<i32> = partitions.iter().copied().map(number).collect();
    let rows = sqlx::query(TOKENS).bind(numbers).fetch_all(connection).await?;
    let token = |row: &PgRow| {
        Ok((PartitionId(row.try_get::<i32, _>(0)?.cast_unsigned()), row.try_get::<Option<Uuid>, _>(1)?.map(Token)))
    };
    rows.iter().map(token).collect()
}

pub(crate) async fn release(
    connection: &mut PgConnection,
    partition: PartitionId,
    token: Token,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(RELEASE).bind(number(partition)).bind(token.0).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

pub(crate) async fn retoken(
    connection: &mut PgConnection,
    changes: &[(PartitionId, Token, Token)],
) -> Result<BTreeMap<PartitionId, u64>, sqlx::Error> {
    let partitions: Vec<i32> = changes.iter().map(|(partition, ..)| number(*partition)).collect();
    let old: Vec<Uuid> = changes.iter().map(|(_, old, _)| old.0).collect();
    let new: Vec<Uuid> = changes.iter().map(|(.., new)| new.0).collect();
    let rows = sqlx::query(RETOKEN).bind(partitions).bind(old).bind(new).fetch_all(connection).await?;
    let found = |row: &PgRow| Ok((PartitionId(row.try_get::<i32, _>(0)?.cast_unsigned()), unsigned(row, 1)?));
    rows.iter().map(found).collect()
}

pub(crate) async fn advance(connection: &mut PgConnection, cursors: &[Cursor]) -> Result<(), sqlx::Error> {
    let within = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let partitions: Vec<i32> = cursors.iter().map(|cursor| number(cursor.partition)).collect();
    let tokens: Vec<Uuid> = cursors.iter().map(|cursor| cursor.token.0).collect();
    let published: Vec<Option<i64>> = cursors.iter().map(|cursor| cursor.published.map(within)).collect();
    let cursors: Vec<i64> = cursors.iter().map(|cursor| within(cursor.cursor)).collect();
    let moving = sqlx::query(ADVANCE).bind(partitions).bind(tokens).bind(cursors).bind(published);
    moving.execute(connection).await.map(drop)
}

pub(crate) fn row(row: &PgRow) -> Result<PartitionRow, sqlx::Error> {
    let consumed: BTreeMap<String, u64> = error::decoded(serde_json::from_str(row.try_get(9)?))?;
    Ok(PartitionRow {
        partition: PartitionId(row.try_get::<i32, _>(0)?.cast_unsigned()),
        epoch: Epoch(unsigned(row, 1)?),
        token: row.try_get::<Option<Uuid>, _>(2)?.map(Token),
        address: row.try_get(3)?,
        generation: Generation(row.try_get::<i32, _>(4)?.cast_unsigned()),
        released: row.try_get(5)?,
        batch: unsigned(row, 6)?,
        outbox_head: unsigned(row, 7)?,
        outbox_cursor: unsigned(row, 8)?,
        consumed: consumed.into_iter().collect(),
        published: row.try_get::<Option<i64>, _>(10)?.and_then(|offset| u64::try_from(offset).ok()),
        halted: row.try_get::<Option<&str>, _>(11)?.map(Halt::from_text),
        has_begun: row.try_get(12)?,
    })
}

/// A `bigint` that is never negative.
pub(crate) fn unsigned(row: &PgRow, column: usize) -> Result<u64, sqlx::Error> {
    error::decoded(u64::try_from(row.try_get::<i64, _>(column)?))
}
