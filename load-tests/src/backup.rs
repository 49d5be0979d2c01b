//! A backup of a context's schema, and putting it back: what an operator's backup tool does, in plain SQL.
//!
//! The tables are copied beside themselves, in one transaction each way. Deliberately absent: anything that a
//! real backup would not have either (what happened since), and any idea of what the tables mean.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlSafeStr as _};

use crate::checkers::{Error, Schema};

/// The tables, day tables within their parents. What migrations are applied is not data.
const TABLES: &str = "
select relname::text from pg_class
where relnamespace = to_regnamespace($1) and relkind in ('r', 'p') and not relispartition and relname <> '_sqlx_migrations'
order by 1";

/// Copies every table of `schema`. A copy made before is replaced.
pub async fn take(schema: &Schema) -> Result<(), Error> {
    let name = &schema.name;
    let mut sql = format!("drop schema if exists {name}_backup cascade; create schema {name}_backup;");
    let mut at = connect(schema).await?;
    for table in tables(&mut at, name).await? {
        let _ = write!(sql, "create table {name}_backup.{table} as table {name}.{table};");
    }
    run(&mut at, sql).await
}

/// Puts the copy back in place of what is there.
pub async fn restore(schema: &Schema) -> Result<(), Error> {
    let name = &schema.name;
    let mut at = connect(schema).await?;
    let mut sql = String::new();
    for table in tables(&mut at, name).await? {
        let _ = write!(
            sql,
            "truncate {name}.{table}; insert into {name}.{table} overriding system value table {name}_backup.{table};"
        );
    }
    run(&mut at, sql).await
}

async fn connect(schema: &Schema) -> Result<PgConnection, Error> {
    Ok(PgConnection::connect(&schema.url).await?)
}

async fn tables(at: &mut PgConnection, schema: &str) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(TABLES).bind(schema).fetch_all(at).await?)
}

/// Several statements at once are one transaction.
async fn run(at: &mut PgConnection, sql: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql).into_sql_str()).execute(at).await?;
    Ok(())
}
