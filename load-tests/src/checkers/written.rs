//! In which format a schema is written, by what lies in its tables.

use std::fmt;

use sqlx::Row as _;

use super::{Error, Schema, gather::connect};

/// What lies in a schema's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The highest format of a partition.
    pub format: i32,
    /// Rows of the outbox with one record each.
    pub rows: i64,
    /// Rows of the outbox with all records of a partition and commit.
    pub segments: i64,
    /// Claims in tables.
    pub claims: i64,
    /// Aggregates that have claims in their row.
    pub rings: i64,
    /// Timers that are due.
    pub due: i64,
}

impl Written {
    /// Whether builds that know nothing of formats can read it.
    pub const fn is_old(&self) -> bool {
        self.format == 1 && self.segments == 0 && self.rings == 0
    }

    /// Whether the latest format is in use.
    pub const fn is_new(&self) -> bool {
        self.format >= 3 && self.segments > 0 && self.rings > 0
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, rows, segments, claims, rings, due } = self;
        write!(f, "format {format}; outbox: {rows} rows, {segments} segments; claims: {claims} in tables, ")?;
        write!(f, "{rings} aggregates with theirs; {due} timers due")
    }
}

const WRITTEN: &str = "
select (select max(format) from partitions),
    (select count(*) from outbox where records is null), (select count(*) from outbox where records is not null),
    (select count(*) from claims), (select count(*) from aggregates where ring is not null),
    (select count(*) from timers where due <= now())";

/// Looks at the tables of a schema that builds with formats have migrated.
pub async fn written(schema: &Schema) -> Result<Written, Error> {
    let row = sqlx::query(WRITTEN).fetch_one(&mut connect(schema).await?).await?;
    Ok(Written {
        format: row.try_get(0)?,
        rows: row.try_get(1)?,
        segments: row.try_get(2)?,
        claims: row.try_get(3)?,
        rings: row.try_get(4)?,
        due: row.try_get(5)?,
    })
}
