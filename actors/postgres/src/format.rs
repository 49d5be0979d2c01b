//! The format that a schema is written in.
//!
//! Invariant: nothing is written that a build which may take the partition can't read. A schema's format only
//! rises, by [`crate::finish`], on all partition rows at once; a build that can't write it is refused the
//! partition by the database (migration 0011), whatever it knows of formats itself. A node may go on in the
//! earlier format for a while, until it takes a partition or reads the rows again: that is read for ever.
//! Deliberately absent: what a format is (see [`crate::segment`] and `holdfast_core::ring`).

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use sqlx::{Row as _, postgres::PgRow};

/// The latest format that this build can write.
pub const FORMAT: u32 = 3;
/// The first one with segments in the outbox.
const SEGMENTS: i32 = 2;
/// The first one with claims in the rows of aggregates.
const RINGS: i32 = 3;

/// What this build says of itself in each session.
pub(crate) const SAYS: (&str, u32) = ("holdfast.format", FORMAT);

/// What a format has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts {
    /// Records of a partition and commit are one row of the outbox.
    pub(crate) has_segments: bool,
    /// The last claims of an aggregate are in its row, and the tables have only what was pushed out.
    pub(crate) has_rings: bool,
}

/// The format of the schema, as far as this node has read it.
#[derive(Debug)]
pub(crate) struct Format {
    format: AtomicI32,
    is_unringed: AtomicBool,
}

impl Format {
    pub(crate) const fn new() -> Self {
        Self { format: AtomicI32::new(1), is_unringed: AtomicBool::new(false) }
    }

    /// Notes the format of a partition's row that was read; all have the same. The read may be older than
    /// what is known already.
    pub(crate) fn note(&self, row: &PgRow, column: usize) -> Result<(), sqlx::Error> {
        self.format.fetch_max(row.try_get(column)?, Ordering::AcqRel);
        Ok(())
    }

    /// Notes the format of a partition's row that was taken. It may be lower than it was, after a restore
    /// from a backup.
    pub(crate) fn note_taken(&self, row: &PgRow, column: usize) -> Result<(), sqlx::Error> {
        self.format.store(row.try_get(column)?, Ordering::Release);
        Ok(())
    }

    /// Notes whether tables may hold claims of aggregates without a ring, or without a row.
    pub(crate) fn note_unringed(&self, is_so: bool) {
        self.is_unringed.store(is_so, Ordering::Relaxed);
    }

    /// As it was noted last: nothing hangs on it but the number of round trips.
    pub(crate) fn is_unringed(&self) -> bool {
        self.is_unringed.load(Ordering::Relaxed)
    }

    /// What is written in it.
    pub(crate) fn parts(&self) -> Parts {
        let format = self.format.load(Ordering::Acquire);
        Parts { has_segments: format >= SEGMENTS, has_rings: format >= RINGS }
    }
}

/// The schema's format, which its partitions are made with.
pub(crate) const OF_SCHEMA: &str = "
select pg_get_expr(adbin, adrelid)::int from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
where d.adrelid = 'partitions'::regclass and a.attname = 'format'";
