//! Whether a database role may do something: by trying it, in a transaction that is undone.
//!
//! Deliberately absent: reading grants from the catalog, which says what was meant.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, error::DatabaseError};

/// A connection that acts as a role.
#[derive(Debug)]
pub struct Intruder {
    connection: PgConnection,
}

impl Intruder {
    /// Connects to `url` and becomes `role`.
    pub async fn connect(url: &str, role: &str) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query("select set_config('role', $1, false)").bind(role).execute(&mut connection).await?;
        Ok(Self { connection })
    }

    /// Whether it may do `statement`. One that is wrong for another reason than who asks was allowed.
    pub async fn may(&mut self, statement: &str) -> Result<bool, sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        let outcome = transaction.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await;
        transaction.rollback().await?;
        match outcome {
            Ok(_) => Ok(true),
            Err(error) => match error.as_database_error().and_then(DatabaseError::code) {
                Some(code) => Ok(code != "42501"),
                None => Err(error),
            },
        }
    }
}

/// The tables of `schema`, each with its first column.
pub async fn tables(url: &str, schema: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let sql = "select c.relname::text, a.attname::text
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum = 1
        where c.relnamespace = to_regnamespace($1) and c.relkind in ('r', 'p') order by 1";
    sqlx::query_as(sql).bind(schema).fetch_all(&mut connection).await
}
