//! Questions to a context's own schema, for its read models: named, read-only, every value bound.
//!
//! Invariant: a question can neither write nor outlast [`TIMEOUT`], whatever its text: its sessions are
//! read-only from their first statement on, and it runs on connections of its own, so that a slow one never
//! stands in the loop's way. A caller who goes away takes no connection along: the statement runs to its end
//! in a task of its own (see `questions`). Deliberately absent: building SQL at run time, and a bound on
//! rows: each text has its own (`limit`, or the array that drives it).

use std::time::Duration;

use bytes::Bytes;
use holdfast_core::port::store::StoreError;
use sqlx::{
    Row as _,
    postgres::{PgConnectOptions, PgRow},
};
use uuid::Uuid;

use crate::error;

/// A statement of a question ends after this.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A question: one statement, part of the program's text.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// For people: `orders.page`.
    pub name: &'static str,
    /// The statement. What varies is `$1`, `$2`, …
    pub sql: &'static str,
}

/// What stands for a parameter. Made with `into()` of the plain type; `None` is null.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `bool`
    Bool(Option<bool>),
    /// `bigint`
    Int(Option<i64>),
    /// `text`
    Text(Option<String>),
    /// `uuid`
    Uuid(Option<Uuid>),
    /// `bytea`
    Bytes(Option<Vec<u8>>),
    /// `bigint[]`
    Ints(Vec<i64>),
    /// `text[]`
    Texts(Vec<String>),
    /// `uuid[]`
    Uuids(Vec<Uuid>),
}

/// A row of an answer.
#[derive(Debug)]
pub struct Row(pub(crate) PgRow);

mod sealed {
    pub trait Sealed {}
}

/// What a column can be read as: `bool`, `i32`, `i64`, `String`, `Uuid`, `Bytes`, a JSON value; or an
/// `Option` of these.
pub trait Column: sealed::Sealed + Sized {
    #[doc(hidden)]
    fn read(row: &Row, at: usize) -> Result<Self, StoreError>;
}

macro_rules! columns {
    ($($kind:ty),*) => {$(
        columns!(@one $kind);
        columns!(@one Option<$kind>);
    )*};
    (@one $kind:ty) => {
        impl sealed::Sealed for $kind {}
        impl Column for $kind {
            fn read(row: &Row, at: usize) -> Result<Self, StoreError> {
                row.0.try_get(at).map_err(|failed| error::store(&failed))
            }
        }
    };
}

columns!(bool, i32, i64, String, Uuid, serde_json::Value);

impl sealed::Sealed for Bytes {}
impl Column for Bytes {
    fn read(row: &Row, at: usize) -> Result<Self, StoreError> {
        row.0.try_get(at).map(Bytes::copy_from_slice).map_err(|failed| error::store(&failed))
    }
}

impl sealed::Sealed for Option<Bytes> {}
impl Column for Option<Bytes> {
    fn read(row: &Row, at: usize) -> Result<Self, StoreError> {
        let read = row.0.try_get::<Option<&[u8]>, _>(at).map_err(|failed| error::store(&failed))?;
        Ok(read.map(Bytes::copy_from_slice))
    }
}

macro_rules! values {
    ($($kind:ty => $variant:ident),*) => {$(
        impl From<$kind> for Value {
            fn from(value: $kind) -> Self {
                Self::$variant(value.into())
            }
        }
        impl From<Option<$kind>> for Value {
            fn from(value: Option<$kind>) -> Self {
                Self::$variant(value)
            }
        }
    )*};
}

values!(bool => Bool, i64 => Int, String => Text, Uuid => Uuid, Vec<u8> => Bytes);

impl From<Vec<i64>> for Value {
    fn from(values: Vec<i64>) -> Self {
        Self::Ints(values)
    }
}

impl From<Vec<String>> for Value {
    fn from(values: Vec<String>) -> Self {
        Self::Texts(values)
    }
}

impl From<Vec<Uuid>> for Value {
    fn from(values: Vec<Uuid>) -> Self {
        Self::Uuids(values)
    }
}

impl Row {
    /// The column at this place, counted from 0.
    ///
    /// # Errors
    /// [`StoreError::Broken`] if there is none, or it is of another type: a mistake in the program.
    pub fn get<T: Column>(&self, at: usize) -> Result<T, StoreError> {
        T::read(self, at)
    }
}

/// The session of a question.
pub(crate) fn session(options: &PgConnectOptions) -> PgConnectOptions {
    let timeout = TIMEOUT.as_millis().to_string();
    // Later settings win over those that every session has.
    options.clone().options([
        ("default_transaction_read_only", "on"),
        ("statement_timeout", &timeout),
        // Which index serves best depends on the values and on what the tables have become. The loop's
        // statements leave no choice and are planned once; questions are few, and planned each time.
        ("plan_cache_mode", "force_custom_plan"),
    ])
}
