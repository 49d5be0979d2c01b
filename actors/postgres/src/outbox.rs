//! What operators ask of the outbox, and what they say of its stuck records.
//!
//! Invariant: an order changes no record and no cursor; it is carried out by the relay of the record's home,
//! and is on record, with who gave it and why, in the transaction that gives it. Deliberately absent:
//! carrying it out ([`crate::stuck`]).

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::{Headers, PartitionId, Timestamp, envelope::header, port::store::StoreError, stuck::Order};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::{
    PgStore,
    query::{Query, Row},
};

/// Rows of a partition that are weighed.
pub const WEIGHED_ROWS: u32 = 1000;

/// The outbox of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Whose.
    pub partition: PartitionId,
    /// Rows that are not published, as far as the cursor says.
    pub rows: u64,
    /// The bytes of the first [`WEIGHED_ROWS`] of them.
    pub bytes: u64,
    /// When the oldest of those was committed, by its id; `None` where there is none.
    pub since: Option<Timestamp>,
    /// Stuck records whose keys are at home here.
    pub stuck: u64,
}

/// A stuck record, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckRecord {
    /// Its `ce_id` or `dlt-id`.
    pub id: Uuid,
    /// The topic that does not take it.
    pub topic: Arc<str>,
    /// Its key, as text where it is text.
    pub key: Option<String>,
    /// Its `ce_type`, if it has one that can be read.
    pub r#type: String,
    /// Whose outbox it was in.
    pub partition: PartitionId,
    /// Its sequence there.
    pub sequence: u64,
    /// The home of its key: where it is released.
    pub home: PartitionId,
    /// Its place in its queue, from 1.
    pub place: u64,
    /// Refusals; 0 if it only queues.
    pub attempts: u32,
    /// The last refusal.
    pub error: String,
    /// Bytes of key, headers and value.
    pub bytes: u64,
    /// Since when it is stuck.
    pub since: Timestamp,
    /// What an operator has ordered, if that is not carried out yet.
    pub ordered: Option<String>,
}

/// Which stuck records are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// The one of this id alone.
    pub id: Option<Uuid>,
    /// Those for this topic alone.
    pub topic: Option<String>,
    /// Those alone that were refused themselves, not those behind one.
    pub is_refused: bool,
}

/// `$1` is the count in force. An id tells when its row was committed, if that is of version 7.
const PENDING: Query = Query {
    name: "outbox.pending",
    sql: "
select p.partition, p.outbox_head - p.outbox_cursor, coalesce(o.bytes, 0), o.since, coalesce(s.records, 0)
from partitions p
left join lateral (
    select sum(coalesce(bytes, octet_length(headers) + coalesce(octet_length(key), 0)
        + coalesce(octet_length(value), 0)))::bigint as bytes,
        (extract(epoch from min(uuid_extract_timestamp(id))) * 1000)::bigint as since
    from (select id, headers, key, value, bytes from outbox
        where partition = p.partition and sequence > p.outbox_cursor order by sequence limit $2) first) o on true
left join (select (hash % $1)::int as home, count(*) as records from outbox_stuck group by 1) s on s.home = p.partition
order by p.partition",
};

/// `$1` is the count in force.
const STUCK: Query = Query {
    name: "outbox.stuck",
    sql: "
select * from (
    select position, id, topic, key, headers, partition, sequence, (hash % $1)::int,
        row_number() over (partition by topic, queue order by position), attempts, error,
        (octet_length(headers) + coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0))::bigint,
        (extract(epoch from since) * 1000)::bigint, ordered
    from outbox_stuck) s
where ($2::uuid is null or id = $2) and ($3::text is null or topic = $3) and (not $5 or attempts > 0)
order by position limit $4",
};

/// Of each queue the first, if it was refused: those behind it go by themselves.
const ORDER: &str = "
with head as materialized (
    select min(position) as position from outbox_stuck group by topic, queue),
ordered as (
    update outbox_stuck s set ordered = $1, why = $2
    from head h
    where s.position = h.position and s.attempts > 0 and ($3::uuid is null or s.id = $3) and ($4::text is null or s.topic = $4)
    returning s.id, s.topic, s.partition, s.sequence),
noted as (
    insert into outbox_stuck_orders (who, ordered, why, id, topic, sequence, partition)
    select $5, $1, $2, id, topic, sequence, partition from ordered)
select id from ordered order by id";

impl PgStore {
    /// The outbox of each partition, with the stuck records of keys at home there among `count` partitions.
    pub async fn outbox_pending(&self, count: u32) -> Result<Vec<Pending>, StoreError> {
        let asked = vec![i64::from(count.max(1)).into(), i64::from(WEIGHED_ROWS).into()];
        let rows = self.query(PENDING, asked).await?;
        rows.iter()
            .map(|row| {
                Ok(Pending {
                    partition: PartitionId(row.get::<i32>(0)?.cast_unsigned()),
                    rows: unsigned(row, 1)?,
                    bytes: unsigned(row, 2)?,
                    since: row.get::<Option<i64>>(3)?.map(Timestamp::from_unix_ms),
                    stuck: unsigned(row, 4)?,
                })
            })
            .collect()
    }

    /// Stuck records, at most `limit`, the longest stuck first, homes being taken among `count` partitions.
    pub async fn stuck_records(&self, which: &Which, count: u32, limit: u32) -> Result<Vec<StuckRecord>, StoreError> {
        let asked = vec![
            i64::from(count.max(1)).into(),
            which.id.into(),
            which.topic.clone().into(),
            i64::from(limit).into(),
            which.is_refused.into(),
        ];
        let rows = self.query(STUCK, asked).await?;
        rows.iter()
            .map(|row| {
                let headers = Headers::from_bytes(&row.get::<Bytes>(4)?);
                let kind = headers.as_ref().and_then(|headers| headers.get(header::TYPE)).unwrap_or_default();
                let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned();
                Ok(StuckRecord {
                    id: row.get(1)?,
                    topic: row.get::<String>(2)?.into(),
                    key: row.get::<Option<Bytes>>(3)?.map(|key| text(&key)),
                    r#type: text(kind),
                    partition: PartitionId(row.get::<i32>(5)?.cast_unsigned()),
                    sequence: unsigned(row, 6)?,
                    home: PartitionId(row.get::<i32>(7)?.cast_unsigned()),
                    place: unsigned(row, 8)?,
                    attempts: row.get::<i32>(9)?.cast_unsigned(),
                    error: row.get(10)?,
                    bytes: unsigned(row, 11)?,
                    since: Timestamp::from_unix_ms(row.get(12)?),
                    ordered: row.get(13)?,
                })
            })
            .collect()
    }

    /// What `who` wants done with the refused records that stand first in their queues; returns their ids.
    pub async fn order_stuck(
        &self,
        which: &Which,
        order: &Order,
        why: &str,
        who: &str,
    ) -> Result<Vec<Uuid>, StoreError> {
        let ordered = match order {
            Order::Retry => "retry",
            Order::Discard(_) => "discard",
        };
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(give(checkout.connection(), which, ordered, why, who)).await;
        self.leave(checkout, answer)
    }
}

async fn give(
    connection: &mut PgConnection,
    which: &Which,
    ordered: &str,
    why: &str,
    who: &str,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let asked = sqlx::query(ORDER).bind(ordered).bind(why).bind(which.id).bind(which.topic.as_deref()).bind(who);
    asked.fetch_all(connection).await?.iter().map(|row: &PgRow| row.try_get(0)).collect()
}

fn unsigned(row: &Row, at: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.get::<i64>(at)?).unwrap_or(0))
}
