//! What the loop reads: states, claims, waiting messages, timers, pools.
//!
//! Each is one statement and one round trip, driven by indexes (`= any($1)`), and waits for no lock; a
//! look-up makes a second one for claims that turn out to stand outside of rings, which is rare. A read sees
//! what was committed when it started; that nothing changes meanwhile is the owner's business. Deliberately
//! absent: caching.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::LazyLock,
    time::Duration,
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, Headers, KeyHash, PartitionId, Record, Timestamp,
    dedup::{Answer, Claim, ClaimKey},
    disposition::WaitReason,
    pool::Pool,
    port::store::{
        DueEffect, DueTimer, Found, MailLimit, Slice, StateRow, UNREADABLE_HEADERS, Unreadable, Waiting, Wanted,
    },
    ring::Ring,
    seal::Seal,
};
use sqlx::{
    Arguments as _, AssertSqlSafe, PgConnection, Row as _, SqlSafeStr as _, SqlStr,
    postgres::{PgArguments, PgBindIterExt as _, PgRow},
};

use crate::{days, error, format::Format, ownership::unsigned, rows::ms};

/// States, how many messages wait, and whether aggregates without a row may have claims. `$k` keys, `$i`
/// kinds.
const FIND_AGGREGATES: &str = "
select 0 as tag, key, kind, version, schema, state as bytes, sources::text, null::uuid as id, null::uuid as scope, null::uuid as body,
    revision, ring, coalesce(spilled, case when ring is null then (select unringed from claims_kept) end)
        >= (select since from claims_kept) as has_spilled
    from aggregates where key = any($k::text[]) and kind = any($i::text[])
union all
select 1, key, kind, count(*), null, null, null, null, null, null, null, null, null
    from mailbox where key = any($k::text[]) and kind = any($i::text[]) group by key, kind
union all
select 2, null, null, null, null, null, null, null, null, null, null, null, unringed >= since from claims_kept";

/// Claims of ids that tell their day. `$c` ids, `$d` the first of their days: only the tables of that day and
/// later ones are opened (see [`crate::days`]).
const FIND_DATED_CLAIMS: &str = "
select 3 as tag, null::text as key, null::text as kind, null::bigint as version, null::int as schema, answer as bytes, null::text,
    id, scope, body, null::bigint as revision, null::bytea as ring, null::bool as has_spilled
    from claims where id = any($c::uuid[]) and day >= date '1970-01-01' + $d::int";

/// Claims of other ids, in all days.
const FIND_CLAIMS: &str = "
select 3 as tag, null::text as key, null::text as kind, null::bigint as version, null::int as schema, answer as bytes, null::text,
    id, scope, body, null::bigint as revision, null::bytea as ring, null::bool as has_spilled
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

/// Asks for the rows of these aggregates, and for these claims. No round trip if there are none.
async fn ask<'w>(
    connection: &mut PgConnection,
    ids: &[&AggregateId],
    claims: impl Iterator<Item = &'w ClaimKey>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let (mut others, mut dated, mut first) = (Vec::new(), Vec::new(), i32::MAX);
    for claim in claims {
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
        if !ids.is_empty() {
            mask |= HAS_AGGREGATES;
            arguments.add(ids.iter().map(|id| &*id.key).bind_iter())?;
            arguments.add(ids.iter().map(|id| id.kind).collect::<BTreeSet<_>>().into_iter().bind_iter())?;
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
        return Ok(Vec::new());
    }
    sqlx::query_with(FIND[mask].clone(), arguments).fetch_all(connection).await
}

pub(crate) async fn find(
    connection: &mut PgConnection,
    format: &Format,
    wanted: &[Wanted],
) -> Result<Vec<Found>, sqlx::Error> {
    let ids: Vec<&AggregateId> = wanted.iter().filter(|wanted| wanted.state).map(|wanted| &wanted.id).collect();
    // As long as most aggregates may have claims outside of rings, all are asked for at once. Looked at once:
    // another look-up may note something else meanwhile.
    let is_unringed = format.is_unringed();
    let is_at_once = |wanted: &&Wanted| !wanted.state || is_unringed;
    let at_once = wanted.iter().filter(is_at_once).flat_map(|wanted| &wanted.claims);
    let rows = ask(connection, &ids, at_once).await?;
    let mut known: HashMap<(&str, &str), Known> = HashMap::new();
    let mut has_spilled_without_row = false;
    for row in &rows {
        let id = || Ok::<_, sqlx::Error>((row.try_get(1)?, row.try_get(2)?));
        match row.try_get::<i32, _>(0)? {
            0 => {
                let found = known.entry(id()?).or_default();
                (found.state, found.has_spilled) = (Some(readable(state(row))), row.try_get::<Option<bool>, _>(12)?);
                match bytes(row, 11)?.map_or_else(|| Some(Ring::default()), Ring::from_bytes) {
                    Some(ring) => found.ring = ring,
                    None => found.state = Some(Err(Unreadable("the stored claims are none".to_owned()))),
                }
            }
            1 => known.entry(id()?).or_default().waiting = unsigned(row, 3)?,
            2 => has_spilled_without_row = row.try_get::<Option<bool>, _>(12)?.unwrap_or(false),
            _ => {}
        }
    }
    let has_spilled = |id: &AggregateId| match known.get(&(&*id.key, id.kind)) {
        Some(Known { state: Some(_), has_spilled, .. }) => has_spilled.unwrap_or(false),
        _ => has_spilled_without_row,
    };
    let outside = |wanted: &'_ Wanted| {
        let ring = known.get(&(&*wanted.id.key, wanted.id.kind)).map(|row| &row.ring);
        let is_asked = |key: &&ClaimKey| has_spilled(&wanted.id) || ring.is_some_and(|ring| ring.is_elsewhere(key));
        wanted.claims.iter().filter(is_asked).copied().collect::<Vec<_>>()
    };
    let outside: Vec<ClaimKey> = wanted.iter().filter(|wanted| !is_at_once(wanted)).flat_map(outside).collect();
    if !ids.is_empty() {
        format.note_unringed(has_spilled_without_row);
    }
    let further = ask(connection, &[], outside.iter()).await?;
    let mut claims: HashMap<ClaimKey, Result<Claim, Unreadable>> = HashMap::new();
    for row in rows.iter().chain(&further) {
        if row.try_get::<i32, _>(0)? == 3 {
            let key = ClaimKey { id: row.try_get(7)?, scope: row.try_get(8)? };
            let (body, answer) = (row.try_get(9)?, Answer::from_bytes(row.try_get(5)?));
            let none = || Unreadable("a stored answer is none; was it written by a newer build?".to_owned());
            claims.insert(key, answer.map(|answer| Claim { key, body, answer }).ok_or_else(none));
        }
    }
    let found = |wanted: &Wanted| {
        let row = known.get(&(&*wanted.id.key, wanted.id.kind)).filter(|_| wanted.state);
        let claims = wanted.claims.iter().map(|key| claims.get(key).cloned().transpose()).collect();
        let (ring, waiting) = row.map(|row| (row.ring.clone(), row.waiting)).unwrap_or_default();
        let state = row.and_then(|row| row.state.clone()).transpose();
        Found { state, ring, waiting, has_spilled: wanted.state && has_spilled(&wanted.id), claims }
    };
    Ok(wanted.iter().map(found).collect())
}

/// What the rows say of one aggregate.
#[derive(Default)]
struct Known {
    state: Option<Result<StateRow, Unreadable>>,
    ring: Ring,
    has_spilled: Option<bool>,
    waiting: u64,
}

/// The row itself, or what of it can't be read.
fn readable<T>(row: Result<T, sqlx::Error>) -> Result<T, Unreadable> {
    row.map_err(|error| Unreadable(error.to_string()))
}

fn state(row: &PgRow) -> Result<StateRow, sqlx::Error> {
    let sources = match row.try_get::<Option<&str>, _>(6)? {
        None => BTreeMap::new(),
        Some(json) => error::decoded(serde_json::from_str(json))?,
    };
    Ok(StateRow {
        version: unsigned(row, 3)?,
        revision: unsigned(row, 10)?,
        schema: row.try_get::<i32, _>(4)?.cast_unsigned(),
        bytes: Bytes::copy_from_slice(row.try_get(5)?),
        sources,
    })
}

pub(crate) fn bytes(row: &PgRow, column: usize) -> Result<Option<Bytes>, sqlx::Error> {
    Ok(row.try_get::<Option<&[u8]>, _>(column)?.map(Bytes::copy_from_slice))
}

pub(crate) fn headers(row: &PgRow, column: usize) -> Result<Headers, sqlx::Error> {
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

/// Due effects, each held for the asking node by the statement that reads it.
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

/// `misses` counts how often a timer was put off.
const PUT_OFF_TIMERS: &str = "
update timers t set misses = least(t.misses + 1, 30), due = now() + least(1 << least(t.misses, 12), 3600) * interval '1 second'
from unnest($1::text[], $2::text[], $3::text[]) as u(kind, key, name)
where t.key = u.key and t.kind = u.kind and t.name = u.name";

pub(crate) async fn put_off_timers(connection: &mut PgConnection, timers: &[DueTimer]) -> Result<(), sqlx::Error> {
    let kinds: Vec<&str> = timers.iter().map(|timer| timer.kind.as_str()).collect();
    let keys: Vec<&str> = timers.iter().map(|timer| &*timer.key).collect();
    let names: Vec<&str> = timers.iter().map(|timer| timer.name.as_str()).collect();
    sqlx::query(PUT_OFF_TIMERS).bind(kinds).bind(keys).bind(names).execute(connection).await.map(drop)
}

const PUT_OFF_EFFECT: &str = "
update effects set due = now() + $4 * interval '1 millisecond', error = $5 where key = $2 and kind = $1 and name = $3";

pub(crate) async fn put_off_effect(
    connection: &mut PgConnection,
    kind: &str,
    key: &str,
    name: &str,
    after: Duration,
    error: &str,
) -> Result<(), sqlx::Error> {
    let asked = sqlx::query(PUT_OFF_EFFECT).bind(kind).bind(key).bind(name).bind(ms(after)).bind(error);
    asked.execute(connection).await.map(drop)
}

pub(crate) fn numbers(slice: &Slice) -> Vec<i32> {
    slice.partitions.iter().map(|partition| partition.0.cast_signed()).collect()
}

/// A mailbox is due when its first row is: a row with a due time that is not the first waits for its turn all
/// the same. Rows are taken by rounds (`n`): the heads first, then what stands second, so that a long mailbox
/// doesn't displace the others. Each bound on bytes cuts after the row that reaches it, and a running sum
/// never falls, so that what is taken of a mailbox is its beginning. Sizes are read without the values.
const DUE_MAIL: &str = "
with head as materialized (
    select kind, key from mailbox m
    where due <= now() and hash % $1 = any($2)
        and not exists (select from mailbox e where e.key = m.key and e.kind = m.kind and e.position < m.position)
    order by due limit $3),
line as materialized (
    select w.position, w.bytes, row_number() over mine as n, sum(w.bytes) over mine - w.bytes as before
    from head h cross join lateral (
        select position, kind, key,
            coalesce(octet_length(record_key), 0) + octet_length(headers) + coalesce(octet_length(value), 0) as bytes
        from mailbox m where m.key = h.key and m.kind = h.kind order by position limit $4) w
    window mine as (partition by w.key, w.kind order by w.position)),
round as materialized (
    select position, row_number() over (order by n, position) as place, sum(bytes) over (order by n, position) - bytes as before
    from line where before < $6)
select w.position, w.kind, w.key, w.hash, w.reason, w.attempts, (extract(epoch from w.since) * 1000)::bigint, w.error,
    w.topic, w.partition, w.\"offset\", w.record_timestamp, w.record_key, w.headers, w.value
from round r join mailbox w on w.position = r.position
where r.place <= $5 and r.before < $7
order by w.position";

pub(crate) async fn due_mail(
    connection: &mut PgConnection,
    slice: &Slice,
    limit: MailLimit,
) -> Result<Vec<Waiting>, sqlx::Error> {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let asked = sqlx::query(DUE_MAIL)
        .bind(slice.count.max(1).cast_signed())
        .bind(numbers(slice))
        .bind(i64::from(limit.aggregates))
        .bind(i64::from(limit.each))
        .bind(i64::from(limit.messages))
        .bind(bytes(limit.bytes_each))
        .bind(bytes(limit.bytes));
    asked.fetch_all(connection).await?.iter().map(waiting).collect()
}

const MAIL_WAITING: &str = "select hash % $1, count(*) from mailbox where hash % $1 = any($2) group by 1";

pub(crate) async fn mail_waiting(
    connection: &mut PgConnection,
    slice: &Slice,
) -> Result<BTreeMap<PartitionId, u64>, sqlx::Error> {
    let asked = sqlx::query(MAIL_WAITING).bind(slice.count.max(1).cast_signed()).bind(numbers(slice));
    let count = |row: &PgRow| Ok((PartitionId(row.try_get::<i32, _>(0)?.cast_unsigned()), unsigned(row, 1)?));
    asked.fetch_all(connection).await?.iter().map(count).collect()
}

fn waiting(row: &PgRow) -> Result<Waiting, sqlx::Error> {
    let reason: &str = row.try_get(4)?;
    let mut reason = WaitReason::parse(reason).ok_or_else(|| Unreadable(format!("unknown wait reason {reason:?}")));
    let (key, topic, stored): (&str, &str, &[u8]) = (row.try_get(2)?, row.try_get(8)?, row.try_get(13)?);
    let headers = Headers::from_bytes(stored).unwrap_or_else(|| {
        reason = Err(Unreadable("stored headers are none".to_owned()));
        Headers(vec![(UNREADABLE_HEADERS.into(), Some(Bytes::copy_from_slice(stored)))])
    });
    Ok(Waiting {
        position: row.try_get(0)?,
        kind: row.try_get(1)?,
        key: key.into(),
        hash: KeyHash::from_i32(row.try_get(3)?),
        reason,
        attempts: row.try_get::<i32, _>(5)?.cast_unsigned(),
        since: Timestamp::from_unix_ms(row.try_get(6)?),
        error: row.try_get(7)?,
        record: Record {
            topic: topic.into(),
            partition: PartitionId(row.try_get::<i32, _>(9)?.cast_unsigned()),
            offset: row.try_get::<i64, _>(10)?.cast_unsigned(),
            timestamp: row.try_get::<Option<i64>, _>(11)?.map(Timestamp::from_unix_ms),
            key: bytes(row, 12)?,
            headers,
            value: bytes(row, 14)?,
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

const SEAL: &str = "select key from seal";

pub(crate) async fn seal(connection: &mut PgConnection) -> Result<Seal, sqlx::Error> {
    let key: Vec<u8> = sqlx::query_scalar(SEAL).fetch_one(connection).await?;
    let key = key.try_into().map_err(|_| sqlx::Error::Decode("the seal's key is not 32 bytes".into()))?;
    Ok(Seal::new(key))
}
