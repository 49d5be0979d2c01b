//! Asking: questions of [`crate::query`] on the store's connections for them.
//!
//! Invariant: a caller of [`PgStore::query`] who goes away takes no connection along, since the statement
//! runs to its end in a task of its own. [`PgStore::explain`] does not hold to that: it runs in its caller,
//! and is for tests and people. Deliberately absent: what a question may say, which is the module `query`'s.

use futures::future::BoxFuture;
use holdfast_core::port::store::StoreError;
use sqlx::{Arguments as _, AssertSqlSafe, Row as _, SqlSafeStr as _, postgres::PgArguments};

use crate::{
    error,
    query::{Query, Row, Value},
    store::PgStore,
};

impl PgStore {
    /// Asks, in one round trip and one snapshot.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database doesn't answer in time; [`StoreError::Broken`] if it
    /// refuses the statement.
    pub fn query(&self, query: Query, values: Vec<Value>) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async move {
            let arguments = arguments(values).map_err(|failed| error::store(&failed))?;
            let mut checkout = self.questions.check_out().await?;
            let store = self.clone();
            let asked = tokio::spawn(async move {
                let ask = sqlx::query_with(query.sql, arguments).fetch_all(checkout.connection());
                let answer = store.read(ask).await;
                store.leave(checkout, answer)
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
            let mut checkout = self.questions.check_out().await?;
            let text = AssertSqlSafe(format!("explain (costs off) {}", query.sql)).into_sql_str();
            let answer =
                self.read(sqlx::query_with(text, arguments).persistent(false).fetch_all(checkout.connection())).await;
            let lines = self.leave(checkout, answer)?;
            lines.iter().map(|line| line.try_get(0).map_err(|failed| error::store(&failed))).collect()
        })
    }
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
