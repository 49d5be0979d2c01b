//! Partition counts: which a topic has had, which have been in force, and who has acknowledged that.
//!
//! Upholds I3 and I4 across growth: rows of new partitions are made by the transaction that records their
//! transition, a generation is put on all rows at once, in partition order as commits lock them, and an
//! acknowledgement is on record together with the outbox head it is made with. Deliberately absent: any
//! decision (see `holdfast_core::growth`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    batch::OutboxDraft,
    epoch::{Generation, PartitionRow, Token},
    growth::{Counts, Growth, Step},
};
use sqlx::{PgConnection, Row as _};

use crate::{format::Format, ownership};

/// The lock under which transactions change counts or generations, one after the other.
const ALONE: &str = "select pg_advisory_xact_lock(hashtextextended('holdfast growth ' || current_schema(), 0))";

/// Rows in index order, of the generation in force, and as halted as the others.
const ROWS: &str = "
insert into partitions (partition, generation, halted)
select partition, (select coalesce(max(generation), 1) from generations), (select max(halted) from partitions)
from generate_series(0, $1 - 1) as partition order by partition
on conflict do nothing";

const FIRST_GENERATION: &str = "
insert into generations (generation, count) select 1, $1 where not exists (select from generations)";

/// A count that is not above the newest known one is stale news, or that of a topic that was deleted and made
/// again.
const NOTE: &str = "
insert into topic_counts (topic, count, is_first, ended)
select $1, $2, known is null, known is null from (select max(count) as known from topic_counts where topic = $1)
where known is null or known < $2";

/// Locked in partition order, as commits do; those in flight are waited for.
const BUMP: &str = "
with locked as materialized (
    select partition from partitions
    where (select max(generation) from generations) = $1
    order by partition for update),
next as (insert into generations (generation, count) select $1 + 1, $2 from (select 1 from locked limit 1) returning generation)
update partitions p set generation = next.generation from next, locked where p.partition = locked.partition";

/// Columns of the row as it is once the lock is had, so that a commit in flight is waited for, and counted. A
/// generation is acknowledged once, by the first owner that lets its keys go; the mark goes with it. One
/// round trip, since all of a node's partitions do this at once.
const ACKNOWLEDGE: &str = "
with held as materialized (
    select partition, epoch, outbox_head from partitions where partition = $1 and token = $2 and generation = $3 for update),
first as (
    insert into acknowledgements (partition, generation, outbox_head) select partition, $3, outbox_head + $4 from held
    on conflict do nothing returning $4 as marks),
marked as (
    insert into outbox (partition, sequence, id, topic, target, key, headers, value)
    select partition, outbox_head + 1, $5, $6, $7, $8, $9, $10 from held where $4 = 1 and exists (select from first))
update partitions p set outbox_head = held.outbox_head + coalesce((select marks from first), 0), begun = held.epoch
from held where p.partition = held.partition
returning p.partition, p.epoch, token, address, generation, released, batch, p.outbox_head, outbox_cursor, consumed::text,
    published, halted, true";

/// A mark may come before its topic's growth is noticed here.
const NOTE_MARK: &str = "
insert into topic_marks as known (topic, partition, count) values ($1, $2, $3)
on conflict (topic, partition) do update set count = greatest(known.count, excluded.count)";

const NOTE_ENDS: &str = "update topic_counts set ends = $3 where topic = $1 and count = $2 and ends is null";

const END: &str = "update topic_counts set ended = true where topic = $1 and count = $2";

const COUNTS: &str = "
select topic, count, is_first, greatest(0, extract(epoch from now() - noticed) * 1000)::bigint, ends, ended
from topic_counts order by topic, count";

async fn begin(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("begin").execute(&mut *connection).await?;
    sqlx::query(ALONE).execute(connection).await.map(drop)
}

/// Commits what `work` did, or rolls it back.
async fn end<T>(connection: &mut PgConnection, work: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    let last = if work.is_ok() { "commit" } else { "rollback" };
    let ended = sqlx::query(last).execute(connection).await;
    let done = work?;
    ended.map(|_| done)
}

fn number(count: u32) -> i32 {
    count.cast_signed()
}

pub(crate) async fn register(connection: &mut PgConnection, count: u32) -> Result<(), sqlx::Error> {
    begin(connection).await?;
    let work = async {
        sqlx::query(FIRST_GENERATION).bind(number(count)).execute(&mut *connection).await?;
        sqlx::query(ROWS).bind(number(count)).execute(&mut *connection).await.map(drop)
    };
    let work = work.await;
    end(connection, work).await
}

pub(crate) async fn note_count(connection: &mut PgConnection, topic: &str, count: u32) -> Result<(), sqlx::Error> {
    begin(connection).await?;
    let work = async {
        sqlx::query(NOTE).bind(topic).bind(number(count)).execute(&mut *connection).await?;
        sqlx::query(ROWS).bind(number(count)).execute(&mut *connection).await.map(drop)
    };
    let work = work.await;
    end(connection, work).await
}

pub(crate) async fn bump(connection: &mut PgConnection, from: Generation, count: u32) -> Result<(), sqlx::Error> {
    begin(connection).await?;
    let work = async {
        sqlx::query(ROWS).bind(number(count)).execute(&mut *connection).await?;
        sqlx::query(BUMP).bind(number(from.0)).bind(number(count)).execute(&mut *connection).await.map(drop)
    };
    let work = work.await;
    end(connection, work).await
}

pub(crate) async fn acknowledge(
    connection: &mut PgConnection,
    partition: PartitionId,
    token: Token,
    generation: Generation,
    mark: Option<&OutboxDraft>,
) -> Result<Option<PartitionRow>, sqlx::Error> {
    let asked = sqlx::query(ACKNOWLEDGE)
        .bind(number(partition.0))
        .bind(token.0)
        .bind(number(generation.0))
        .bind(i64::from(mark.is_some()))
        .bind(mark.map(|mark| mark.id))
        .bind(mark.map(|mark| &*mark.topic))
        .bind(mark.map(|mark| number(mark.target.0)))
        .bind(mark.and_then(|mark| mark.key.as_deref()))
        .bind(mark.map(|mark| mark.headers.to_bytes()))
        .bind(mark.and_then(|mark| mark.value.as_deref()));
    asked.fetch_optional(connection).await?.as_ref().map(ownership::row).transpose()
}

pub(crate) async fn note_mark(
    connection: &mut PgConnection,
    topic: &str,
    partition: PartitionId,
    count: u32,
) -> Result<(), sqlx::Error> {
    let note = sqlx::query(NOTE_MARK).bind(topic).bind(number(partition.0)).bind(number(count));
    note.execute(connection).await.map(drop)
}

pub(crate) async fn note_ends(
    connection: &mut PgConnection,
    topic: &str,
    count: u32,
    ends: &[u64],
) -> Result<(), sqlx::Error> {
    let ends: Vec<i64> = ends.iter().map(|end| end.cast_signed()).collect();
    sqlx::query(NOTE_ENDS).bind(topic).bind(number(count)).bind(ends).execute(connection).await.map(drop)
}

pub(crate) async fn end_transition(connection: &mut PgConnection, topic: &str, count: u32) -> Result<(), sqlx::Error> {
    sqlx::query(END).bind(topic).bind(number(count)).execute(connection).await.map(drop)
}

/// `hash % count` is the home; the last parameter is the count to come.
const MOVING: &str =
    "select count(*) filter (where hash % $1 <> hash % $2), count(*) from aggregates where version > 0";

/// How many keys have another home under `to` than under `from`, and how many there are.
pub(crate) async fn moving(connection: &mut PgConnection, from: u32, to: u32) -> Result<(u64, u64), sqlx::Error> {
    let asked = sqlx::query(MOVING).bind(number(from.max(1))).bind(number(to.max(1)));
    let row = asked.fetch_one(connection).await?;
    Ok((ownership::unsigned(&row, 0)?, ownership::unsigned(&row, 1)?))
}

/// One snapshot of all of it.
pub(crate) async fn all(connection: &mut PgConnection, format: &Format) -> Result<Growth, sqlx::Error> {
    sqlx::query("begin isolation level repeatable read read only").execute(&mut *connection).await?;
    let work = read(connection, format).await;
    end(connection, work).await
}

async fn read(connection: &mut PgConnection, format: &Format) -> Result<Growth, sqlx::Error> {
    let mut topics: BTreeMap<String, Counts> = BTreeMap::new();
    for row in sqlx::query(COUNTS).fetch_all(&mut *connection).await? {
        let counts = topics.entry(row.try_get(0)?).or_default();
        let count = row.try_get::<i32, _>(1)?.cast_unsigned();
        if row.try_get::<bool, _>(2)? {
            counts.first = count;
            continue;
        }
        let ends: Option<Vec<i64>> = row.try_get(4)?;
        counts.steps.push(Step {
            count,
            age: Duration::from_millis(ownership::unsigned(&row, 3)?),
            marked: BTreeSet::new(),
            ends: ends.unwrap_or_default().into_iter().map(i64::cast_unsigned).collect(),
            ended: row.try_get(5)?,
        });
    }
    for row in sqlx::query("select topic, count, partition from topic_marks").fetch_all(&mut *connection).await? {
        let Some(counts) = topics.get_mut(row.try_get::<&str, _>(0)?) else { continue };
        let count = row.try_get::<i32, _>(1)?.cast_unsigned();
        let partition = PartitionId(row.try_get::<i32, _>(2)?.cast_unsigned());
        for step in counts.steps.iter_mut().filter(|step| step.count <= count) {
            step.marked.insert(partition);
        }
    }
    let mut generations = BTreeMap::new();
    for row in sqlx::query("select generation, count from generations").fetch_all(&mut *connection).await? {
        let generation = Generation(row.try_get::<i32, _>(0)?.cast_unsigned());
        generations.insert(generation, row.try_get::<i32, _>(1)?.cast_unsigned());
    }
    let mut acknowledged = BTreeMap::new();
    let asked = sqlx::query("select partition, generation, outbox_head from acknowledgements");
    for row in asked.fetch_all(&mut *connection).await? {
        let partition = PartitionId(row.try_get::<i32, _>(0)?.cast_unsigned());
        let generation = Generation(row.try_get::<i32, _>(1)?.cast_unsigned());
        acknowledged.insert((partition, generation), ownership::unsigned(&row, 2)?);
    }
    let rows = ownership::all(connection, format).await?;
    Ok(Growth { topics, generations, acknowledged, rows })
}
