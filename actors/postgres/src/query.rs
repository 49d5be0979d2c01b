//! Questions to a context's own schema, for its read models: named, read-only, every value bound.
//!
//! Invariant: a question can neither write nor outlast [`TIMEOUT`], whatever its text: its sessions are read-only from their first
//! statement on, and it runs on connections of its own, so that a slow one never stands in the loop's way. A caller who goes away takes
//! no connection along: the statement runs to its end in a task of its own.
//! Deliberately absent: building SQL at run time, and a bound on rows: each text has its own (`limit`, or the array that drives it).

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_core::port::store::StoreError;
use sqlx::{
    Arguments as _, AssertSqlSafe, Row as _, SqlSafeStr as _,
    postgres::{PgArguments, PgConnectOptions, PgRow},
};
use uuid::Uuid;

use crate::{PgStore, error};

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
pub struct Row(PgRow);

mod sealed {
    pub trait Sealed {}
}

/// What a column can be read as: `bool`, `i32`, `i64`, `String`, `Uuid`, `Bytes`, a JSON value; or an `Option` of these.
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

impl PgStore {
    /// Asks, in one round trip and one snapshot.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database doesn't answer in time; [`StoreError::Broken`] if it refuses the statement.
    pub fn query(&self, query: Query, values: Vec<Value>) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async move {
            let arguments = arguments(values).map_err(|failed| error::store(&failed))?;
            let mut lane = self.questions.enter().await?;
            let store = self.clone();
            let asked = tokio::spawn(async move {
                let ask = sqlx::query_with(query.sql, arguments).fetch_all(lane.connection());
                let answer = store.read(ask).await;
                store.leave(lane, answer)
            });
            let answer = asked.await.map_err(|_| StoreError::Unavailable("the process is ending".into()))?;
            let rows = answer.inspect_err(|error| tracing::debug!(query = query.name, %error, "a question failed"))?;
            Ok(rows.into_iter().map(Row).collect())
        })
    }

    /// How the server would go about it with these values, a line for each step.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn explain(&self, query: Query, values: Vec<Value>) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let arguments = arguments(values).map_err(|failed| error::store(&failed))?;
            let mut lane = self.questions.enter().await?;
            let text = AssertSqlSafe(format!("explain (costs off) {}", query.sql)).into_sql_str();
            let answer =
                self.read(sqlx::query_with(text, arguments).persistent(false).fetch_all(lane.connection())).await;
            let lines = self.leave(lane, answer)?;
            lines.iter().map(|line| line.try_get(0).map_err(|failed| error::store(&failed))).collect()
        })
    }
}

/// The session of a question.
pub(crate) fn session(options: &PgConnectOptions) -> PgConnectOptions {
    let timeout = TIMEOUT.as_millis().to_string();
    // Later settings win over those that every session has.
    options.clone().options([
        ("default_transaction_read_only", "on"),
        ("statement_timeout", &timeout),
        // Which index serves best depends on the values and on what the tables have become. The loop's statements leave no choice and are
        // planned once; questions are few, and planned each time.
        ("plan_cache_mode", "force_custom_plan"),
    ])
}

fn arguments(values: Vec<Value>) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for value in values {
        match value {
            Value::Bool(value) => arguments.add(value),
            Value::Int(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Uuid(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(value),
            Value::Ints(values) => arguments.add(values),
            Value::Texts(values) => arguments.add(values),
            Value::Uuids(values) => arguments.add(values),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
