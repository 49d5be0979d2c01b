//! Records of the outbox, whether each has a row of its own or a segment has them.
//!
//! Invariant: records are returned in order, each once. A segment that can't be read is an error, and nothing
//! behind it is returned (I3). Deliberately absent: what is done with them.

use std::collections::HashMap;

use holdfast_core::{
    PartitionId,
    batch::{OutboxDraft, OutboxRow},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use crate::{
    error,
    ownership::unsigned,
    read::{bytes, headers},
    segment::{self, Topics},
};

/// As many of the next `$3` rows as hold `$4` bytes, and one more. The records of a segment that lie before
/// `$2` count too.
const PAGE: &str = "
select sequence, id, topic, target, key, headers, value, records from (
    select *, coalesce(sum(size) over (order by sequence rows between unbounded preceding and 1 preceding), 0) as before
    from (
        select *, coalesce(bytes, octet_length(headers) + coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0)) as size
        from outbox where partition = $1 and sequence > $2 order by sequence limit $3) as next) as measured
where before < $4 order by sequence";

/// Rows that are read at first: few segments hold what is asked for. Each time they don't, it is twice as
/// many.
const ROWS: i64 = 64;

/// The records after the sequence `after`: at most `limit`, and no further ones once those before hold
/// `bytes_max` bytes. There may be more of them than are returned.
pub(crate) async fn page(
    connection: &mut PgConnection,
    partition: PartitionId,
    after: u64,
    limit: u32,
    bytes_max: usize,
) -> Result<Vec<OutboxRow>, sqlx::Error> {
    let (mut page, mut held, mut read_to, mut rows_max) = (Vec::new(), 0, after, ROWS);
    loop {
        let left = i64::try_from(bytes_max.saturating_sub(held).max(1)).unwrap_or(i64::MAX);
        let asked = sqlx::query(PAGE)
            .bind(partition.0.cast_signed())
            .bind(i64::try_from(read_to).unwrap_or(i64::MAX))
            .bind(rows_max)
            .bind(left);
        let rows = asked.fetch_all(&mut *connection).await?;
        for record in records(partition, &rows)? {
            read_to = record.sequence;
            if record.sequence <= after {
                continue;
            }
            if page.len() == limit as usize || held >= bytes_max.max(1) {
                return Ok(page);
            }
            held += segment::bytes(&record.draft);
            page.push(record);
        }
        if i64::try_from(rows.len()).unwrap_or(i64::MAX) < rows_max {
            return Ok(page);
        }
        rows_max *= 2;
    }
}

/// The rows with records from the sequence `$2` to `$3`: the last of them may be a segment that goes on.
const BETWEEN: &str = "
select sequence, id, topic, target, key, headers, value, records from outbox
where partition = $1 and sequence >= $2 and sequence <= coalesce(
    (select min(sequence) from outbox where partition = $1 and sequence >= $3), $3)
order by sequence";

/// The records from the sequence `first` to `last`, as far as they are there.
pub(crate) async fn between(
    connection: &mut PgConnection,
    partition: PartitionId,
    first: u64,
    last: u64,
) -> Result<HashMap<u64, OutboxDraft>, sqlx::Error> {
    let asked = sqlx::query(BETWEEN).bind(partition.0.cast_signed()).bind(first.cast_signed()).bind(last.cast_signed());
    let rows = asked.fetch_all(connection).await?;
    let records = records(partition, &rows)?.into_iter();
    Ok(records.map(|record| (record.sequence, record.draft)).collect())
}

fn records(partition: PartitionId, rows: &[PgRow]) -> Result<Vec<OutboxRow>, sqlx::Error> {
    let mut topics = Topics::default();
    let mut records = Vec::with_capacity(rows.len());
    for row in rows {
        let sequence = unsigned(row, 0)?;
        if let Some(count) = row.try_get::<Option<i32>, _>(7)? {
            let read = segment::read(partition, sequence, count.cast_unsigned(), row.try_get(6)?, &mut topics);
            records.extend(error::decoded(read)?);
            continue;
        }
        let draft = OutboxDraft {
            id: row.try_get(1)?,
            topic: topics.shared(row.try_get(2)?),
            target: PartitionId(row.try_get::<i32, _>(3)?.cast_unsigned()),
            key: bytes(row, 4)?,
            headers: headers(row, 5)?,
            value: bytes(row, 6)?,
        };
        records.push(OutboxRow { partition, sequence, draft });
    }
    Ok(records)
}
