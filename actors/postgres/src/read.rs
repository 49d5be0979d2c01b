//! What the loop reads: states, claims, waiting messages, timers, outbox rows, pools.
//!
//! Each is one statement and one round trip, driven by indexes (`= any($1)`), and waits for no lock. A read sees what was
//! committed when it started; that nothing changes meanwhile is the owner's business. Deliberately absent: caching.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, Headers, PartitionId, Record, Timestamp,
    batch::{OutboxDraft, OutboxRow},
    dedup::{Answer, Claim, ClaimKey},
    disposition::WaitReason,
    pool::Pool,
    port::store::{DueEffect, DueTimer, Found, Slice, StateRow, Waiting, Wanted},
};
use sqlx::{
    Arguments as _, AssertSqlSafe, PgConnection, Row as _, SqlSafeStr as _, SqlStr,
    postgres::{PgArguments, PgBindIterExt as _, PgRow},
};

use crate::{days, error, ownership::unsigned, rows::ms};

/// States, and how many messages wait. `$k` keys, `$i` kinds.
const FIND_AGGREGATES: &str = "
select 0 as tag, key, kind, version, schema, state as bytes, sources::text, null::uuid as id, null::uuid as scope, null::uuid as body
    from aggregates where key = any($k::text[]) and kind = any($i::text[])
union all
select 1, key, kind, count(*), null, null, null, null, null, null
    from mailbox where key = any($k::text[]) and kind = any($i::text[]) group by key, kind";

/// Claims of ids that tell their day. `$c` ids, `$d` the first of their days: only the tables of that day and later ones are opened
/// (see [`crate::days`]).
const FIND_DATED_CLAIMS: &str = "
select 2 as tag, null::text as key, null::text as kind, null::bigint as version, null::int as schema, answer as bytes, null::text,
    id, scope, body
    from claims where id = any($c::uuid[]) and day >= date '1970-01-01' + $d::int";

/// Claims of other ids, in all days.
const FIND_CLAIMS: &str = "
select 2 as tag, null::text as key, null::text as kind, null::bigint as version, null::int as schema, answer as bytes, null::text,
    id, scope, body
    from claims where id = any($o::uuid[])";

const HAS_AGGREGATES: usize = 1;
const HAS_DATED: usize = 1 << 1;
const HAS_OTHERS: usize = 1 << 2;

/// The text for each combination of arms, parameters numbered as they come.
static FIND: LazyLock<[SqlStr; 8]> = LazyLock::new(|| {
    std::array::from_fn(|mask| {
        let mut text = Vec::new();
        let mut parameters = 0;
        for (bit, arm, names) in [
            (HAS_AGGREGATES, FIND_AGGREGATES, &["$k", "$i"][..]),
            (HAS_DATED, FIND_DATED_CLAIMS, &["$c", "$d"]),
            (HAS_OTHERS, FIND_CLAIMS, &["$o"]),
        ] {
            if mask & bit != 0 {
                let mut arm = arm.to_owned();
                for name in names {
                    parameters += 1;
                    arm = arm.replace(name, &format!("${parameters}"));
                }
                text.push(arm);
            }
        }
        AssertSqlSafe(text.join("\nunion all")).into_sql_str()
    })
});

pub(crate) async fn find(connection: &mut PgConnection, wanted: &Wanted) -> Result<Found, sqlx::Error> {
    let mut others = Vec::new();
    let mut dated = Vec::new();
    let mut first = i32::MAX;
    for claim in &wanted.claims {
        match days::made_on(&claim.id) {
            Some(day) => {
                first = first.min(day);
                dated.push(claim.id);
            }
            None => others.push(claim.id),
        }
    }
    let mut mask = 0;
    let mut arguments = PgArguments::default();
    let mut add = || {
        if !wanted.aggregates.is_empty() {
            mask |= HAS_AGGREGATES;
            arguments.add(wanted.aggregates.iter().map(|id| &*id.key).bind_iter())?;
            arguments
                .add(wanted.aggregates.iter().map(|id| id.kind).collect::<BTreeSet<_>>().into_iter().bind_iter())?;
        }
        if !dated.is_empty() {
            mask |= HAS_DATED;
            arguments.add(&dated)?;
            arguments.add(first)?;
        }
        if !others.is_empty() {
            mask |= HAS_OTHERS;
            arguments.add(&others)?;
        }
        Ok(())
    };
    add().map_err(sqlx::Error::Encode)?;
    if mask == 0 {
        return Ok(Found::default());
    }
    let rows = sqlx::query_with(FIND[mask].clone(), arguments).fetch_all(connection).await?;
    sorted(wanted, &rows)
}

/// Puts the rows in the order of the questions.
fn sorted(wanted: &Wanted, rows: &[PgRow]) -> Result<Found, sqlx::Error> {
    let mut states: HashMap<(&str, &str), (Option<StateRow>, u64)> = HashMap::new();
    let mut claims: HashMap<ClaimKey, Claim> = HashMap::new();
    for row in rows {
        match row.try_get::<i32, _>(0)? {
            0 => states.entry((row.try_get(1)?, row.try_get(2)?)).or_default().0 = Some(state(row)?),
            1 => states.entry((row.try_get(1)?, row.try_get(2)?)).or_default().1 = unsigned(row, 3)?,
            _ => {
                let key = ClaimKey { id: row.try_get(7)?, scope: row.try_get(8)? };
                let answer = Answer::from_bytes(row.try_get(5)?)
                    .ok_or_else(|| sqlx::Error::Decode("a stored answer is none".into()))?;
                claims.insert(key, Claim { key, body: row.try_get(9)?, answer });
            }
        }
    }
    Ok(Found {
        aggregates: wanted
            .aggregates
            .iter()
            .map(|id| states.get(&(&*id.key, id.kind)).cloned().unwrap_or_default())
            .collect(),
        claims: wanted.claims.iter().map(|key| claims.get(key).cloned()).collect(),
    })
}

fn state(row: &PgRow) -> Result<StateRow, sqlx::Error> {
    let sources = match row.try_get::<Option<&str>, _>(6)? {
        None => BTreeMap::new(),
        Some(json) => error::decoded(serde_json::from_str(json))?,
    };
    Ok(StateRow {
        version: unsigned(row, 3)?,
        schema: row.try_get::<i32, _>(4)?.cast_unsigned(),
        bytes: Bytes::copy_from_slice(row.try_get(5)?),
        sources,
    })
}

const OUTBOX: &str = "
select sequence, id, topic, target, key, headers, value from outbox
where partition = $1 and sequence > $2 order by sequence limit $3";

pub(crate) async fn outbox(
    connection: &mut PgConnection,
    partition: PartitionId,
    after: u64,
    limit: u32,
) -> Result<Vec<OutboxRow>, sqlx::Error> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let asked = sqlx::query(OUTBOX).bind(partition.0.cast_signed()).bind(after).bind(i64::from(limit));
    let rows = asked.fetch_all(connection).await?;
    // A backlog is mostly of one topic.
    let mut topics: HashMap<String, Arc<str>> = HashMap::new();
    rows.iter()
        .map(|row| {
            let draft = OutboxDraft {
                id: row.try_get(1)?,
                topic: shared(&mut topics, row.try_get(2)?),
                target: PartitionId(row.try_get::<i32, _>(3)?.cast_unsigned()),
                key: bytes(row, 4)?,
                headers: headers(row, 5)?,
                value: bytes(row, 6)?,
            };
            Ok(OutboxRow { partition, sequence: unsigned(row, 0)?, draft })
        })
        .collect()
}

fn shared(known: &mut HashMap<String, Arc<str>>, topic: &str) -> Arc<str> {
    if let Some(known) = known.get(topic) {
        return Arc::clone(known);
    }
    let new: Arc<str> = topic.into();
    known.insert(topic.to_owned(), Arc::clone(&new));
    new
}

fn bytes(row: &PgRow, column: usize) -> Result<Option<Bytes>, sqlx::Error> {
    Ok(row.try_get::<Option<&[u8]>, _>(column)?.map(Bytes::copy_from_slice))
}

fn headers(row: &PgRow, column: usize) -> Result<Headers, sqlx::Error> {
    Headers::from_bytes(row.try_get(column)?).ok_or_else(|| sqlx::Error::Decode("stored headers are none".into()))
}

const DUE_TIMERS: &str = "
select kind, key, name, serial from timers where due <= now() and hash % $1 = any($2) order by due limit $3";

pub(crate) async fn due_timers(
    connection: &mut PgConnection,
    slice: &Slice,
    limit: u32,
) -> Result<Vec<DueTimer>, sqlx::Error> {
    let asked =
        sqlx::query(DUE_TIMERS).bind(slice.count.max(1).cast_signed()).bind(numbers(slice)).bind(i64::from(limit));
    let rows = asked.fetch_all(connection).await?;
    let timer = |row: &PgRow| {
        let key: &str = row.try_get(1)?;
        Ok(DueTimer { kind: row.try_get(0)?, key: key.into(), name: row.try_get(2)?, serial: row.try_get(3)? })
    };
    rows.iter().map(timer).collect()
}

/// A due effect is held for whoever asks, by the same statement.
const DUE_EFFECTS: &str = "
with chosen as materialized (
    select key, kind, name from effects where due <= now() and hash % $1 = any($2) order by due limit $3
    for update skip locked)
update effects e set due = now() + $4 * interval '1 millisecond', attempts = e.attempts + 1
from chosen c where e.key = c.key and e.kind = c.kind and e.name = c.name
returning e.kind, e.key, e.name, e.request, e.attempts, greatest(0, extract(epoch from now() - e.since) * 1000)::bigint,
    e.correlation, e.traceparent";

pub(crate) async fn due_effects(
    connection: &mut PgConnection,
    slice: &Slice,
    limit: u32,
    hold: Duration,
) -> Result<Vec<DueEffect>, sqlx::Error> {
    let asked = sqlx::query(DUE_EFFECTS)
        .bind(slice.count.max(1).cast_signed())
        .bind(numbers(slice))
        .bind(i64::from(limit))
        .bind(ms(hold));
    let effect = |row: &PgRow| {
        let key: &str = row.try_get(1)?;
        Ok(DueEffect {
            kind: row.try_get(0)?,
            key: key.into(),
            name: row.try_get(2)?,
            request: Bytes::copy_from_slice(row.try_get(3)?),
            attempts: row.try_get::<i32, _>(4)?.cast_unsigned(),
            age: Duration::from_millis(unsigned(row, 5)?),
            correlation: row.try_get(6)?,
            traceparent: row.try_get(7)?,
        })
    };
    asked.fetch_all(connection).await?.iter().map(effect).collect()
}

const PUT_OFF_EFFECT: &str = "
update effects set due = now() + $4 * interval '1 millisecond', error = $5 where key = $2 and kind = $1 and name = $3";

pub(crate) async fn put_off_effect(
    connection: &mut PgConnection,
    id: &AggregateId,
    name: &str,
    after: Duration,
    error: &str,
) -> Result<(), sqlx::Error> {
    let asked = sqlx::query(PUT_OFF_EFFECT).bind(id.kind).bind(&*id.key).bind(name).bind(ms(after)).bind(error);
    asked.execute(connection).await.map(drop)
}

fn numbers(slice: &Slice) -> Vec<i32> {
    slice.partitions.iter().map(|partition| partition.0.cast_signed()).collect()
}

/// A mailbox is due when its first row is: a row with a due time that is not the first waits for its turn all the same.
const DUE_MAIL: &str = "
with head as materialized (
    select kind, key from mailbox m
    where due <= now() and hash % $1 = any($2)
        and not exists (select from mailbox e where e.key = m.key and e.kind = m.kind and e.position < m.position)
    order by due limit $3)
select w.position, w.kind, w.reason, w.attempts, (extract(epoch from w.since) * 1000)::bigint, w.error,
    w.topic, w.partition, w.\"offset\", w.record_timestamp, w.record_key, w.headers, w.value
from head h cross join lateral (
    select * from mailbox m where m.key = h.key and m.kind = h.kind order by position limit $3) w
order by w.position";

pub(crate) async fn due_mail(
    connection: &mut PgConnection,
    slice: &Slice,
    limit: u32,
) -> Result<Vec<Waiting>, sqlx::Error> {
    let asked =
        sqlx::query(DUE_MAIL).bind(slice.count.max(1).cast_signed()).bind(numbers(slice)).bind(i64::from(limit));
    asked.fetch_all(connection).await?.iter().map(waiting).collect()
}

fn waiting(row: &PgRow) -> Result<Waiting, sqlx::Error> {
    let reason: &str = row.try_get(2)?;
    let reason = WaitReason::parse(reason)
        .ok_or_else(|| sqlx::Error::Decode(format!("unknown wait reason {reason:?}").into()))?;
    let topic: &str = row.try_get(6)?;
    Ok(Waiting {
        position: row.try_get(0)?,
        kind: row.try_get(1)?,
        reason,
        attempts: row.try_get::<i32, _>(3)?.cast_unsigned(),
        since: Timestamp::from_unix_ms(row.try_get(4)?),
        error: row.try_get(5)?,
        record: Record {
            topic: topic.into(),
            partition: PartitionId(row.try_get::<i32, _>(7)?.cast_unsigned()),
            offset: unsigned(row, 8)?,
            timestamp: row.try_get::<Option<i64>, _>(9)?.map(Timestamp::from_unix_ms),
            key: bytes(row, 10)?,
            headers: headers(row, 11)?,
            value: bytes(row, 12)?,
        },
    })
}

const POOLS: &str = "select name, total, held from pools where name = any($1)";

pub(crate) async fn pools(
    connection: &mut PgConnection,
    names: &[String],
) -> Result<BTreeMap<String, Pool>, sqlx::Error> {
    let rows = sqlx::query(POOLS).bind(names).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, Pool { total: row.try_get(1)?, held: row.try_get(2)? }))).collect()
}
