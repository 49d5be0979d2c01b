//! What operators ask of the runtime's tables: what waits and why, how far the schema is, what time it is
//! there.
//!
//! Invariant: read-only, and on the connections of questions, so that looking never stands in the loop's way.
//! Deliberately absent: judging what is found, which is `holdfast doctor`'s.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::{Headers, PartitionId, Timestamp, envelope::header, port::store::StoreError};

use crate::{
    PgStore, format,
    migrate::versions,
    query::{Query, Row},
};

/// Messages that wait in the durable mailbox for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The home that they wait for.
    pub partition: PartitionId,
    /// Why, as stored.
    pub reason: String,
    /// How many.
    pub messages: u64,
    /// For how many aggregates.
    pub aggregates: u64,
    /// Since when the oldest waits, by a node's clock.
    pub since: Timestamp,
}

/// Messages of one producer that lay in a partition that is not their home, and still wait to be taken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Where they lay.
    pub topic: Arc<str>,
    /// Their `ce_source`; empty if they have none that can be read.
    pub source: String,
    /// How many.
    pub messages: u64,
    /// Since when the oldest waits.
    pub since: Timestamp,
}

/// Records that no other table would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfiled {
    /// Where they came from.
    pub topic: String,
    /// How many.
    pub records: u64,
    /// Since when the oldest lies there, by the database's clock.
    pub since: Timestamp,
    /// What the newest was refused for.
    pub error: String,
}

/// A timer that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Its name.
    pub name: String,
    /// When it fires, by the database's clock.
    pub due: Timestamp,
}

/// `$1` is the count in force.
const MAIL: Query = Query {
    name: "survey.mail",
    sql: "
select (hash % $1)::int, reason, count(*), count(distinct (key, kind)), (extract(epoch from min(since)) * 1000)::bigint
from mailbox group by 1, 2 order by 1, 2",
};

/// `$1` kind, `$2` key.
const MAIL_OF: Query = Query {
    name: "survey.mail_of",
    sql: "
select hash, reason, count(*), 1::bigint, (extract(epoch from min(since)) * 1000)::bigint
from mailbox where key = $2 and kind = $1 group by 1, 2 order by 2",
};

/// At most `$1` of them are looked at: there may be many, and one producer is usually behind all.
const STRAYS: Query = Query {
    name: "survey.strays",
    sql: "
select topic, headers, (extract(epoch from since) * 1000)::bigint
from mailbox where reason = 'transferred' order by position limit $1",
};
const STRAYS_MAX: i64 = 10_000;

/// `$1` kind, `$2` key.
const TIMERS_OF: Query = Query {
    name: "survey.timers_of",
    sql: "
select name, (extract(epoch from due) * 1000)::bigint from timers where key = $2 and kind = $1 order by due, name",
};

const UNFILED: Query = Query {
    name: "survey.unfiled",
    sql: "
select topic, count(*), (extract(epoch from min(at)) * 1000)::bigint, (array_agg(error order by at desc))[1]
from unfiled group by 1 order by 1",
};

/// A node says it every second or two while it lasts; one that is gone says nothing.
const STALLED: Query = Query {
    name: "survey.stalled",
    sql: "
select address, stalled from nodes where stalled <> '' and stalled_at > now() - interval '30 seconds' order by address",
};

const APPLIED: Query =
    Query { name: "survey.applied", sql: "select version from _sqlx_migrations where success order by version" };

const FORMAT: Query = Query { name: "survey.format", sql: format::OF_SCHEMA };

const NOW: Query = Query { name: "survey.now", sql: "select (extract(epoch from clock_timestamp()) * 1000)::bigint" };

fn count(row: &Row, at: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.get::<i64>(at)?).unwrap_or(0))
}

fn time(row: &Row, at: usize) -> Result<Timestamp, StoreError> {
    row.get::<i64>(at).map(Timestamp::from_unix_ms)
}

impl PgStore {
    /// What waits in the durable mailbox, by home among `count` partitions and by reason.
    pub async fn mail(&self, count: u32) -> Result<Vec<Mail>, StoreError> {
        let rows = self.query(MAIL, vec![i64::from(count.max(1)).into()]).await?;
        rows.iter().map(|row| mail(row, row.get::<i32>(0)?)).collect()
    }

    /// What waits for one aggregate, by reason, its home among `count` partitions.
    pub async fn mail_of(&self, kind: &str, key: &str, count: u32) -> Result<Vec<Mail>, StoreError> {
        let rows = self.query(MAIL_OF, vec![kind.to_owned().into(), key.to_owned().into()]).await?;
        let home = |hash: i32| (hash.cast_unsigned() % count.max(1)).cast_signed();
        rows.iter().map(|row| mail(row, home(row.get::<i32>(0)?))).collect()
    }

    /// Who sent what waits to be taken home, the oldest first.
    pub async fn strays(&self) -> Result<Vec<Stray>, StoreError> {
        let rows = self.query(STRAYS, vec![STRAYS_MAX.into()]).await?;
        let mut strays: Vec<Stray> = Vec::new();
        for row in &rows {
            let (topic, since) = (row.get::<String>(0)?, time(row, 2)?);
            let headers = Headers::from_bytes(&row.get::<Bytes>(1)?);
            let source = headers.as_ref().and_then(|headers| headers.get(header::SOURCE)).unwrap_or_default();
            let source = String::from_utf8_lossy(source).into_owned();
            match strays.iter_mut().find(|stray| *stray.topic == *topic && stray.source == source) {
                Some(stray) => (stray.messages, stray.since) = (stray.messages + 1, stray.since.min(since)),
                None => strays.push(Stray { topic: topic.into(), source, messages: 1, since }),
            }
        }
        Ok(strays)
    }

    /// What no other table would take, by topic.
    pub async fn unfiled(&self) -> Result<Vec<Unfiled>, StoreError> {
        let rows = self.query(UNFILED, Vec::new()).await?;
        let text = |row: &Row, at| row.get::<Bytes>(at).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        rows.iter()
            .map(|row| {
                Ok(Unfiled {
                    topic: text(row, 0)?,
                    records: count(row, 1)?,
                    since: time(row, 2)?,
                    error: text(row, 3)?,
                })
            })
            .collect()
    }

    /// Which loops of which nodes make no progress, as these say it themselves, by address.
    pub async fn stalled(&self) -> Result<Vec<(String, String)>, StoreError> {
        let rows = self.query(STALLED, Vec::new()).await?;
        rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
    }

    /// The timers of one aggregate, the next first.
    pub async fn timers_of(&self, kind: &str, key: &str) -> Result<Vec<Timer>, StoreError> {
        let rows = self.query(TIMERS_OF, vec![kind.to_owned().into(), key.to_owned().into()]).await?;
        rows.iter().map(|row| Ok(Timer { name: row.get(0)?, due: time(row, 1)? })).collect()
    }

    /// The migrations that were applied, and those that this build has, in order; `context` are the context's
    /// own, as in [`crate::migrate()`].
    pub async fn schema_versions(
        &self,
        context: &[(i64, &'static str, &'static str)],
    ) -> Result<(Vec<i64>, Vec<i64>), StoreError> {
        let rows = self.query(APPLIED, Vec::new()).await?;
        let applied = rows.iter().map(|row| row.get::<i64>(0)).collect::<Result<_, _>>()?;
        Ok((applied, versions(context)))
    }

    /// The format that the schema is written in; see [`crate::FORMAT`].
    pub async fn format(&self) -> Result<u32, StoreError> {
        let rows = self.query(FORMAT, Vec::new()).await?;
        let first = rows.first().ok_or_else(|| StoreError::Broken("the schema has no format".to_owned()))?;
        Ok(first.get::<i32>(0)?.cast_unsigned())
    }

    /// The database's clock.
    pub async fn clock(&self) -> Result<Timestamp, StoreError> {
        let rows = self.query(NOW, Vec::new()).await?;
        rows.first().map_or_else(|| Err(StoreError::Broken("no row of one".to_owned())), |row| time(row, 0))
    }
}

fn mail(row: &Row, partition: i32) -> Result<Mail, StoreError> {
    Ok(Mail {
        partition: PartitionId(partition.cast_unsigned()),
        reason: row.get(1)?,
        messages: count(row, 2)?,
        aggregates: count(row, 3)?,
        since: time(row, 4)?,
    })
}
