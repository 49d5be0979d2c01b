//! Reads a run's evidence: topics with a reader of its own, each schema in one read-only snapshot.
//!
//! Topics first, tables after: what is published while this reads may look unpublished, never uncommitted.
//! Deliberately absent: judging.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use futures::TryStreamExt as _;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgConnectOptions, PgRow},
    types::Json,
};

use uuid::Uuid;

use super::{
    AggregateRow, Answer, ClaimRow, ContextEvidence, DeadRecord, Error, EventRecord, Evidence, OutboxRow, PartitionRow,
    PoolRow, Schema, Target, evidence::code_of,
};
use crate::kafka::{Ends, Seen, read_all};

/// Reads everything that [`super::audit()`] looks at.
pub async fn gather(target: &Target) -> Result<Evidence, Error> {
    let maybe = async |schema: &Option<Schema>| match schema {
        Some(schema) => Ok::<_, Error>(Some(Box::pin(context(target, schema)).await?)),
        None => Ok(None),
    };
    let (orders, inventory, payments, fulfillment, customers) = tokio::try_join!(
        Box::pin(context(target, &target.orders)),
        maybe(&target.inventory),
        maybe(&target.payments),
        maybe(&target.fulfillment),
        maybe(&target.customers),
    )?;
    Ok(Evidence { orders, inventory, payments, fulfillment, customers, provider: None })
}

async fn context(target: &Target, schema: &Schema) -> Result<ContextEvidence, Error> {
    let mut evidence = ContextEvidence { grown_from: target.grown_from, ..ContextEvidence::default() };
    topics(target, &schema.name, &mut evidence).await?;
    let stood_at = if schema.name == target.orders.name { target.stood_at } else { 0 };
    tables(schema, stood_at, &mut evidence).await?;
    let ends = Ends::new(&target.brokers)?;
    for topic in inputs(target).into_iter().filter(|(name, _)| *name == schema.name).flat_map(|(_, topics)| topics) {
        let found = ends.of(&topic).await?;
        evidence.ends.insert(topic, found);
    }
    Ok(evidence)
}

/// The topics that each context reads, of those contexts that ran.
pub(super) fn inputs(target: &Target) -> Vec<(String, Vec<String>)> {
    let orders = Some(&target.orders);
    let [inventory, payments, fulfillment, customers] =
        [&target.inventory, &target.payments, &target.fulfillment, &target.customers].map(Option::as_ref);
    let followed: [(Option<&Schema>, &[Option<&Schema>]); 5] = [
        (orders, &[inventory, payments, fulfillment]),
        (inventory, &[orders]),
        (payments, &[orders]),
        (fulfillment, &[orders, inventory, customers]),
        (customers, &[]),
    ];
    let of = |(context, follows): (Option<&Schema>, &[Option<&Schema>])| {
        let name = &context?.name;
        let events = follows.iter().flatten().map(|schema| format!("{}.events", schema.name));
        Some((name.clone(), std::iter::once(format!("{name}.commands")).chain(events).collect()))
    };
    followed.into_iter().filter_map(of).collect()
}

async fn topics(target: &Target, context: &str, evidence: &mut ContextEvidence) -> Result<(), Error> {
    for event in read_events(&target.brokers, &format!("{context}.events"), target.patience).await? {
        match event {
            Read::Event(event) => evidence.events.push(event),
            Read::Mark(id) => _ = evidence.marks.insert(id),
            Read::Unreadable(place, why) => evidence.unreadable.push((place, why)),
        }
    }
    // A shipment tells its recipient, and the reverse.
    if target.fulfillment.as_ref().is_some_and(|schema| schema.name == context) {
        let id = |seen: &Seen| Uuid::try_parse(seen.header("ce_id")).ok();
        let found = read_all(&target.brokers, &format!("{context}.commands"), target.patience, id).await?;
        evidence.command_ids = found.into_iter().flatten().collect();
    }
    evidence.dead = read_all(&target.brokers, &format!("{context}.dlq"), target.patience, DeadRecord::read).await?;
    Ok(())
}

/// The events in `topic`; records that are none are left out.
pub async fn events(brokers: &str, topic: &str, patience: Duration) -> Result<Vec<EventRecord>, Error> {
    let read = read_events(brokers, topic, patience).await?;
    let event = |read| if let Read::Event(event) = read { Some(event) } else { None };
    Ok(read.into_iter().filter_map(event).collect())
}

/// What lies in an events topic.
enum Read {
    Event(EventRecord),
    /// By this a relay says that its partitions have grown. Its id.
    Mark(Uuid),
    /// Where, and why.
    Unreadable(String, String),
}

async fn read_events(brokers: &str, topic: &str, patience: Duration) -> Result<Vec<Read>, Error> {
    let read = |seen: &Seen| {
        if seen.key.is_empty()
            && seen.header("ce_type") == "holdfast.runtime.v1.PartitionsGrown"
            && let Ok(id) = Uuid::try_parse(seen.header("ce_id"))
        {
            return Read::Mark(id);
        }
        let place = || format!("partition {} offset {}", seen.partition, seen.offset);
        EventRecord::read(seen).map_or_else(|why| Read::Unreadable(place(), why), Read::Event)
    };
    Ok(read_all(brokers, topic, patience, read).await?)
}

/// Connects to a schema.
pub(crate) async fn connect(schema: &Schema) -> Result<PgConnection, Error> {
    let options: PgConnectOptions = schema.url.parse()?;
    let options = options.application_name("holdfast checker").options([("search_path", schema.name.as_str())]);
    let mut connection = options.connect().await?;
    if let Some(role) = &schema.role {
        sqlx::query("select set_config('role', $1, false)").bind(role).execute(&mut connection).await?;
    }
    Ok(connection)
}

async fn tables(schema: &Schema, stood_at: i64, evidence: &mut ContextEvidence) -> Result<(), Error> {
    let mut connection = connect(schema).await?;
    let at = &mut connection;
    sqlx::query("begin isolation level repeatable read read only").execute(&mut *at).await?;
    evidence.partitions = rows(at, sqlx::query(PARTITIONS), partition).await?;
    evidence.aggregates = rows(at, sqlx::query(AGGREGATES).bind(stood_at), aggregate).await?;
    let is_upgraded = is_upgraded(at).await?;
    evidence.claims = rows(at, sqlx::query(if is_upgraded { CLAIMS_UPGRADED } else { CLAIMS }), claim).await?;
    let rings = rows(at, sqlx::query(RINGS).bind(stood_at), ring).await?;
    let rings: Vec<ClaimRow> = rings.into_iter().flatten().collect();
    // Those of an earlier format may stand in both.
    if is_upgraded {
        let known: HashSet<(Uuid, Uuid)> = rings.iter().map(|claim| (claim.id, claim.scope)).collect();
        evidence.claims.retain(|claim| !known.contains(&(claim.id, claim.scope)));
    }
    evidence.claims.extend(rings);
    let outbox = rows(at, sqlx::query(OUTBOX), outbox).await?;
    evidence.outbox = outbox.into_iter().flatten().collect();
    evidence.mailbox = rows(at, sqlx::query("select key, reason || ': ' || error from mailbox"), mail).await?;
    evidence.pools = rows(at, sqlx::query("select name, total, held from pools"), pool).await?;
    evidence.view = view(at, stood_at).await?;
    sqlx::query("rollback").execute(&mut *at).await?;
    connection.close().await?;
    Ok(())
}

/// The aggregates that exist and have changed: one of version 0 has only refused.
const AGGREGATES: &str = "select kind, key, version, state from aggregates where version > $1";

const CLAIMS: &str = "select id, scope, answer from claims";

/// The same where builds of an earlier format were at work: a claim that such a build filed may have been
/// in a ring that was in memory when the format was raised, and was filed a second time when it was
/// pushed out. The second row has half of the digest, as the ring has, and is passed over: once.
const CLAIMS_UPGRADED: &str = "
select id, scope, answer from (
    select id, scope, answer, is_cut, row_number() over (partition by id, scope, answer, half, is_cut) as number,
        bool_or(not is_cut) over (partition by id, scope, answer, half) as has_whole
    from (
        select id, scope, answer, substr(uuid_send(body), 1, 8) as half,
            substr(uuid_send(body), 9) = '\\x0000000000000000' as is_cut from claims
    ) as cut
) as numbered
where not (is_cut and has_whole and number = 1)";

const RINGS: &str = "select key, ring from aggregates where ring is not null and (version > $1 or version = 0)";

const OUTBOX: &str = "select partition, sequence, id, topic, records, value from outbox";

/// The read model of the aggregates that exist and have changed, and of none.
const VIEW: &str = "
select v.order_id::text, v.status from orders_view v left join aggregates a on a.key = v.order_id::text
where a.version is null or a.version > $1";

/// How far each partition is.
const PARTITIONS: &str = "select partition, outbox_head, outbox_cursor, consumed from partitions order by partition";

async fn rows<T>(
    at: &mut PgConnection,
    query: sqlx::query::Query<'_, Postgres, PgArguments>,
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, sqlx::Error> {
    let mut all = Vec::new();
    let mut stream = query.fetch(at);
    while let Some(row) = stream.try_next().await? {
        all.push(read(&row)?);
    }
    Ok(all)
}

pub(super) fn partition(row: &PgRow) -> Result<PartitionRow, sqlx::Error> {
    let Json(consumed) = row.try_get(3)?;
    Ok(PartitionRow { partition: row.try_get(0)?, head: row.try_get(1)?, cursor: row.try_get(2)?, consumed })
}

fn aggregate(row: &PgRow) -> Result<AggregateRow, sqlx::Error> {
    Ok(AggregateRow { kind: row.try_get(0)?, key: row.try_get(1)?, version: row.try_get(2)?, state: row.try_get(3)? })
}

fn claim(row: &PgRow) -> Result<ClaimRow, sqlx::Error> {
    Ok(ClaimRow { id: row.try_get(0)?, scope: row.try_get(1)?, answer: Answer::read(row.try_get(2)?) })
}

/// Whether the schema was written by builds whose claims are all in tables.
async fn is_upgraded(at: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select unringed is not null from claims_kept").fetch_one(at).await
}

/// The claims in a ring.
fn ring(row: &PgRow) -> Result<Vec<ClaimRow>, sqlx::Error> {
    let unreadable = |key: &str| sqlx::Error::Decode(format!("the claims of {key} can't be read").into());
    claims(row.try_get(1)?).ok_or_else(|| unreadable(row.try_get(0).unwrap_or_default()))
}

/// The claims in a ring, read by hand: the number of scopes, these, and for each claim its id, half of a
/// digest, a byte for its scope (low six bits) and its kind (0 applied, 1 with a reply, 2 rejected, 3 in a
/// row of `claims`), a version as LEB128, and for kinds 1 and 2 a text behind its length.
fn claims(data: &[u8]) -> Option<Vec<ClaimRow>> {
    let Some((count, rest)) = data.split_first() else { return Some(Vec::new()) };
    let (scopes, mut rest) = rest.split_at_checked(16 * usize::from(*count))?;
    let mut claims = Vec::new();
    while !rest.is_empty() {
        let (fixed, after) = rest.split_at_checked(25)?;
        let (kind, place) = (fixed[24] >> 6, 16 * usize::from(fixed[24] & 0x3f));
        let version = after.iter().position(|byte| byte & 0x80 == 0)?;
        rest = after.get(version + 1..)?;
        let mut text = &[][..];
        if matches!(kind, 1 | 2) {
            let (length, after) = rest.split_first()?;
            (text, rest) = after.split_at_checked(usize::from(*length))?;
        }
        let answer = match kind {
            0 | 1 => Answer::Applied,
            2 => Answer::Rejected(code_of(text)),
            _ => continue,
        };
        let scope = Uuid::from_slice(scopes.get(place..place + 16)?).ok()?;
        claims.push(ClaimRow { id: Uuid::from_slice(&fixed[..16]).ok()?, scope, answer });
    }
    Some(claims)
}

/// The records of a row: its own, or those of a segment.
fn outbox(row: &PgRow) -> Result<Vec<OutboxRow>, sqlx::Error> {
    let (partition, sequence) = (row.try_get::<i32, _>(0)?, row.try_get::<i64, _>(1)?);
    let Some(records) = row.try_get::<Option<i32>, _>(4)? else {
        return Ok(vec![OutboxRow { partition, sequence, id: row.try_get(2)?, topic: row.try_get(3)? }]);
    };
    let unreadable =
        || sqlx::Error::Decode(format!("segment {sequence} of partition {partition} can't be read").into());
    let found = segment(row.try_get(5)?).ok_or_else(unreadable)?;
    if i32::try_from(found.len()) != Ok(records) {
        return Err(unreadable());
    }
    let numbered = (sequence - i64::from(records) + 1..).zip(found);
    Ok(numbered.map(|(sequence, (id, topic))| OutboxRow { partition, sequence, id, topic }).collect())
}

/// The ids and topics of a segment's records, read by hand: version 1 and the length of the frames, then
/// these as a block of LZ4. A frame is an id, a target, and topic, key, headers and value behind their
/// lengths, of which all ones stand for a null.
fn segment(data: &[u8]) -> Option<Vec<(Uuid, String)>> {
    let (length, block) = data.strip_prefix(&[1])?.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let frames = lz4_flex::block::decompress(block, length).ok().filter(|frames| frames.len() == length)?;
    let (mut rest, mut records) = (&frames[..], Vec::new());
    while !rest.is_empty() {
        let (id, after) = rest.split_at_checked(16)?;
        let mut fields = after.get(4..)?;
        let mut field = || {
            let (length, after) = fields.split_at_checked(4)?;
            let length = u32::from_le_bytes(length.try_into().ok()?);
            let (field, after) = after.split_at_checked(if length == u32::MAX { 0 } else { length as usize })?;
            fields = after;
            Some(field)
        };
        let topic = String::from_utf8(field()?.to_vec()).ok()?;
        for _ in ["key", "headers", "value"] {
            field()?;
        }
        records.push((Uuid::from_slice(id).ok()?, topic));
        rest = fields;
    }
    Some(records)
}

fn mail(row: &PgRow) -> Result<(String, String), sqlx::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn pool(row: &PgRow) -> Result<PoolRow, sqlx::Error> {
    Ok(PoolRow { name: row.try_get(0)?, total: row.try_get(1)?, held: row.try_get(2)? })
}

/// The read model of orders; `None` if this schema has none.
async fn view(at: &mut PgConnection, stood_at: i64) -> Result<Option<BTreeMap<String, String>>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("select to_regclass('orders_view') is not null").fetch_one(&mut *at).await?;
    if !exists {
        return Ok(None);
    }
    let read = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
    let query = match stood_at {
        0 => sqlx::query("select order_id::text, status from orders_view"),
        _ => sqlx::query(VIEW).bind(stood_at),
    };
    let pairs = rows(at, query, read).await?;
    Ok(Some(pairs.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_a_ring_are_read() {
        let (sender, id) = ([7; 16], |n: u8| [n; 16]);
        let applied = [&[2][..], &[0; 16], &sender, &id(1), &[9; 8], &[0b00_000001, 0x80, 0x01]].concat();
        let replied = [&id(2)[..], &[9; 8], &[0b01_000001, 5, 2, 0xff, 0]].concat();
        let rejected = [&id(3)[..], &[9; 8], &[0b10_000000, 0, 4], b"NO\0x"].concat();
        let whole = [applied, replied, rejected].concat();
        let claim = |n, scope, answer| ClaimRow { id: Uuid::from_bytes(id(n)), scope: Uuid::from_bytes(scope), answer };
        let expected = vec![
            claim(1, sender, Answer::Applied),
            claim(2, sender, Answer::Applied),
            claim(3, [0; 16], Answer::Rejected("NO".to_owned())),
        ];
        assert_eq!(claims(&whole), Some(expected));
        assert_eq!(claims(&[]), Some(Vec::new()));
        assert_eq!(claims(&whole[..whole.len() - 1]), None);
    }
}
