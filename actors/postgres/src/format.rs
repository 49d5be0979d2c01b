//! The format that a schema is written in.
//!
//! Invariant: nothing is written that a build which may take the partition can't read. A schema's format only
//! rises, by [`crate::finish`], on all partition rows at once; a build that can't write it is refused the
//! partition by the database (migration 0011), whatever it knows of formats itself. A node may go on in the
//! earlier format for a while: that is read for ever. Deliberately absent: what a format is (see
//! [`crate::segment`]).

use std::sync::atomic::{AtomicI32, Ordering};

use sqlx::{Row as _, postgres::PgRow};

/// The latest format that this build can write.
pub const FORMAT: u32 = 2;
/// The first one with segments in the outbox.
const SEGMENTS: i32 = 2;

/// What this build says of itself in each session.
pub(crate) const SAYS: (&str, u32) = ("holdfast.format", FORMAT);

/// The format of the schema, as far as this node has read it.
#[derive(Debug)]
pub(crate) struct Format(AtomicI32);

impl Format {
    pub(crate) const fn new() -> Self {
        Self(AtomicI32::new(1))
    }

    /// Notes the format of a partition's row; all have the same. It may be lower than it was, after a restore
    /// from a backup.
    pub(crate) fn note(&self, row: &PgRow, column: usize) -> Result<(), sqlx::Error> {
        self.0.store(row.try_get(column)?, Ordering::Release);
        Ok(())
    }

    pub(crate) fn has_segments(&self) -> bool {
        self.0.load(Ordering::Acquire) >= SEGMENTS
    }
}

/// The schema's format, which its partitions are made with.
pub(crate) const OF_SCHEMA: &str = "
select pg_get_expr(adbin, adrelid)::int from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
where d.adrelid = 'partitions'::regclass and a.attname = 'format'";
