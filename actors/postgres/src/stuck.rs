//! Outbox records that a broker refuses, and the queues behind them.
//!
//! Upholds I3 and I7: a row leaves its partition's order by the statement that moves the cursor past it,
//! under the owner's token, so it is in one of both places always. Positions are in commit order within a
//! queue: a queue has one writer at a time, and the next one begins once the cursors of those before it are
//! stored. Deliberately absent: what is refused, and when a record is released.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_core::{
    KeyHash, PartitionId, Timestamp,
    batch::{OutboxDraft, OutboxRow},
    epoch::Token,
    port::store::Slice,
    stuck::{Order, Queue, Release, SetAside, Stuck},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use crate::{
    ownership::unsigned,
    read::{bytes, headers, numbers},
    unpublished,
};

/// `refuse_conflict()` undoes all of it if a record is not in the outbox (any more), so that its columns are
/// null: a cursor must not pass what was not copied.
const SET_ASIDE: &str = "
with fence as materialized (
    select outbox_cursor from partitions where partition = $1 and token = $2 for update),
aside as materialized (
    select a.* from fence f, unnest($3::bigint[], $4::uuid[], $5::int[], $6::int[], $7::text[],
            $8::int[], $9::uuid[], $10::text[], $11::bytea[], $12::bytea[], $13::bytea[])
        as a(sequence, queue, hash, attempts, error, target, id, topic, key, headers, value)
    where a.sequence > f.outbox_cursor),
moved as (
    insert into outbox_stuck (queue, hash, partition, sequence, target, id, topic, key, headers, value, attempts, error)
    select queue, hash, $1, sequence, target, id, topic, key, headers, value, attempts, error
    from aside where id is not null
    order by sequence
    returning sequence),
counted as materialized (
    select max(sequence) as last, count(*) as rows, (select count(*) from aside) as expected from moved),
raised as (
    update partitions p
    set outbox_cursor = case when c.rows = c.expected then c.last else refuse_conflict() end
    from counted c where p.partition = $1 and c.expected > 0)
select count(*) from fence";

const QUEUES: &str = "select topic, queue, count(*) from outbox_stuck group by 1, 2";

const RELEASED: &str = "
with head as materialized (
    select min(position) as position from outbox_stuck where hash % $1 = any($2) group by topic, queue)
select s.position, s.hash, s.partition, s.sequence, s.target, s.id, s.topic, s.key, s.headers, s.value, s.attempts,
    s.error, (extract(epoch from s.since) * 1000)::bigint, s.ordered, s.why
from head h join outbox_stuck s on s.position = h.position
where s.attempts = 0 or s.ordered is not null
order by s.position limit $3";

/// A release that two owners end in turn is ended once: the second finds no row.
const DONE: &str = "
with fence as materialized (select partition from partitions where partition = $1 and token = $2),
gone as (delete from outbox_stuck where position = $3 and exists (select from fence))
select count(*) from fence";

const REFUSED: &str = "
with fence as materialized (select partition from partitions where partition = $1 and token = $2),
noted as (
    update outbox_stuck set attempts = attempts + 1, error = $4, retried = now(), ordered = null, why = ''
    where position = $3 and exists (select from fence))
select count(*) from fence";

/// Text that Postgres takes.
fn text(error: &str) -> String {
    error.replace('\0', "")
}

pub(crate) async fn set_aside(
    connection: &mut PgConnection,
    partition: PartitionId,
    token: Token,
    rows: &[SetAside],
) -> Result<bool, sqlx::Error> {
    let sequence = |row: Option<&SetAside>| row.map_or(0, |row| row.sequence);
    // Rows of the outbox are never changed, so it does not matter that this is another statement.
    let drafts = unpublished::between(connection, partition, sequence(rows.first()), sequence(rows.last())).await?;
    let drafts: Vec<Option<&OutboxDraft>> = rows.iter().map(|row| drafts.get(&row.sequence)).collect();
    let sequences: Vec<i64> = rows.iter().map(|row| row.sequence.cast_signed()).collect();
    let queues: Vec<uuid::Uuid> = rows.iter().map(|row| row.queue.digest).collect();
    let hashes: Vec<i32> = rows.iter().map(|row| row.hash.get().cast_signed()).collect();
    let attempts: Vec<i32> = rows.iter().map(|row| row.attempts.cast_signed()).collect();
    let errors: Vec<String> = rows.iter().map(|row| text(&row.error)).collect();
    let asked = sqlx::query(SET_ASIDE)
        .bind(partition.0.cast_signed())
        .bind(token.0)
        .bind(sequences)
        .bind(queues)
        .bind(hashes)
        .bind(attempts)
        .bind(errors)
        .bind(drafts.iter().map(|draft| draft.map(|draft| draft.target.0.cast_signed())).collect::<Vec<_>>())
        .bind(drafts.iter().map(|draft| draft.map(|draft| draft.id)).collect::<Vec<_>>())
        .bind(drafts.iter().map(|draft| draft.map(|draft| &*draft.topic)).collect::<Vec<_>>())
        .bind(drafts.iter().map(|draft| draft.and_then(|draft| draft.key.as_deref())).collect::<Vec<_>>())
        .bind(drafts.iter().map(|draft| draft.map(|draft| draft.headers.to_bytes())).collect::<Vec<_>>())
        .bind(drafts.iter().map(|draft| draft.and_then(|draft| draft.value.as_deref())).collect::<Vec<_>>());
    Ok(asked.fetch_one(connection).await?.try_get::<i64, _>(0)? > 0)
}

pub(crate) async fn queues(connection: &mut PgConnection) -> Result<BTreeMap<Queue, u64>, sqlx::Error> {
    let queue = |row: &PgRow| {
        let topic: &str = row.try_get(0)?;
        Ok((Queue { topic: topic.into(), digest: row.try_get(1)? }, unsigned(row, 2)?))
    };
    sqlx::query(QUEUES).fetch_all(connection).await?.iter().map(queue).collect()
}

pub(crate) async fn released(
    connection: &mut PgConnection,
    slice: &Slice,
    limit: u32,
) -> Result<Vec<Stuck>, sqlx::Error> {
    let asked =
        sqlx::query(RELEASED).bind(slice.count.max(1).cast_signed()).bind(numbers(slice)).bind(i64::from(limit));
    asked.fetch_all(connection).await?.iter().map(stuck).collect()
}

fn stuck(row: &PgRow) -> Result<Stuck, sqlx::Error> {
    let topic: Arc<str> = row.try_get::<&str, _>(6)?.into();
    let key = bytes(row, 7)?;
    let order = match row.try_get::<Option<&str>, _>(13)? {
        None => None,
        Some("retry") => Some(Order::Retry),
        Some("discard") => Some(Order::Discard(row.try_get(14)?)),
        Some(other) => return Err(sqlx::Error::Decode(format!("unknown order {other:?}").into())),
    };
    Ok(Stuck {
        position: row.try_get(0)?,
        hash: KeyHash::of(key.as_deref().unwrap_or_default()),
        row: OutboxRow {
            partition: PartitionId(row.try_get::<i32, _>(2)?.cast_unsigned()),
            sequence: unsigned(row, 3)?,
            draft: OutboxDraft {
                id: row.try_get(5)?,
                topic,
                target: PartitionId(row.try_get::<i32, _>(4)?.cast_unsigned()),
                key,
                headers: headers(row, 8)?,
                value: bytes(row, 9)?,
            },
        },
        attempts: row.try_get::<i32, _>(10)?.cast_unsigned(),
        error: row.try_get(11)?,
        since: Timestamp::from_unix_ms(row.try_get(12)?),
        order,
    })
}

pub(crate) async fn end_release(
    connection: &mut PgConnection,
    partition: PartitionId,
    token: Token,
    position: i64,
    end: &Release,
) -> Result<bool, sqlx::Error> {
    let asked = match end {
        Release::Done => sqlx::query(DONE).bind(partition.0.cast_signed()).bind(token.0).bind(position),
        Release::Refused(error) => {
            sqlx::query(REFUSED).bind(partition.0.cast_signed()).bind(token.0).bind(position).bind(text(error))
        }
    };
    Ok(asked.fetch_one(connection).await?.try_get::<i64, _>(0)? > 0)
}
