//! Brings a context's schema up to date: the runtime's tables, then the context's own.
//!
//! Upholds that a context can read and write nothing but its own schema, if it is given a role: the role owns
//! the schema and everything in it, and is granted nothing else. Migrators may run at once: sqlx's advisory
//! lock lets one through after the other. Deliberately absent: down migrations.

use futures::future::BoxFuture;
use holdfast_core::port::store::StoreError;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqlSafeStr as _, SqlStr,
    migrate::{Migration, MigrationType, Migrator},
};

use crate::{
    config, error,
    format::{self, FORMAT},
};

/// The runtime's own migrations, included by every context.
const RUNTIME: &[(i64, &str, &str)] = &[
    (1, "runtime", include_str!("../../../migrations/runtime/0001_runtime.sql")),
    (2, "growth", include_str!("../../../migrations/runtime/0002_growth.sql")),
    (3, "history", include_str!("../../../migrations/runtime/0003_history.sql")),
    (4, "effects", include_str!("../../../migrations/runtime/0004_effects.sql")),
    (5, "beats", include_str!("../../../migrations/runtime/0005_beats.sql")),
    (6, "retention", include_str!("../../../migrations/runtime/0006_retention.sql")),
    (7, "timers", include_str!("../../../migrations/runtime/0007_timers.sql")),
    (8, "outbox_stuck", include_str!("../../../migrations/runtime/0008_outbox_stuck.sql")),
    (9, "seal", include_str!("../../../migrations/runtime/0009_seal.sql")),
    (10, "narrowing", include_str!("../../../migrations/runtime/0010_narrowing.sql")),
    (11, "segments", include_str!("../../../migrations/runtime/0011_segments.sql")),
    (12, "rings", include_str!("../../../migrations/runtime/0012_rings.sql")),
    (13, "room", include_str!("../../../migrations/runtime/0013_room.sql")),
];

/// Versions below are the runtime's; a context's version 1 is stored as 1001.
const CONTEXT_VERSIONS: i64 = 1000;

/// The role that owns a context's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// With a password it can log in; without one it can only be acted as (see [`crate::Config::role`]).
    pub password: Option<String>,
}

/// Why a schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Names or connection.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A statement failed, or an applied migration differs from the one of this build.
    #[error("migration failed")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Nodes of an earlier build are running.
    #[error(
        "nodes that can't write the new format were there within the last minute: {}; update or stop them, and try again a minute later",
        .0.join(", ")
    )]
    Nodes(Vec<String>),
    /// A role is wanted that the connecting user may not make or act as.
    #[error("cannot prepare role {role}: {reason}; let an administrator create it, or migrate without a role")]
    Role {
        /// The role.
        role: String,
        /// What the server said.
        reason: String,
    },
}

/// Creates `schema` if there is none and applies the runtime's migrations and `context`, each `(version,
/// name, sql)` with versions from 1. With `role`, makes that role if there is none, and lets it own the
/// schema and all in it.
///
/// `url` may be an administrator's, or the role's own. Safe to run at any time, from several nodes at once.
pub fn migrate<'a>(
    url: &'a str,
    schema: &'a str,
    role: Option<&'a Role>,
    context: &'a [(i64, &'static str, &'static str)],
) -> BoxFuture<'a, Result<(), MigrateError>> {
    Box::pin(async move {
        let mut connection = connect(url, schema, role).await?;
        migrator(i64::MAX, context).run_direct(None, &mut connection, false).await?;
        connection.close().await.map_err(|error| error::store(&error))?;
        Ok(())
    })
}

/// Raises the format of `schema` to [`FORMAT`], from which there is no way back to an earlier build; returns
/// whether it was lower.
///
/// # Errors
/// [`MigrateError::Nodes`] if nodes that can't write it were there within the last minute: nothing is
/// changed.
pub async fn finish(url: &str, schema: &str, role: Option<&Role>) -> Result<bool, MigrateError> {
    let mut connection = connect(url, schema, role).await?;
    let finished = raise(&mut connection).await;
    connection.close().await.map_err(|error| error::store(&error))?;
    match finished.map_err(|error| error::store(&error))? {
        Ok(is_new) => Ok(is_new),
        Err(nodes) => Err(MigrateError::Nodes(nodes)),
    }
}

/// A node that has said so within this time may be running.
const ALIVE: &str = "1 minute";

/// By the format and the run that it was written under: an earlier build's beat leaves both as they are.
const BEHIND: &str = "
select address from nodes
where at > now() - $1::interval and (format < $2 or format_run is distinct from run) order by address";

/// Commits in flight, and growth that is adding rows, are waited for, and wait: a row that came meanwhile
/// would be of the earlier format.
const LOCK: &str = "lock table partitions in access exclusive mode";

const RAISE: &str = "update partitions set format = $1 where format < $1";

/// Nodes that have not heard of it yet file claims as before, each for at most a month.
const UNRINGED: &str = "update claims_kept set unringed = current_date + 31 where unringed = 'infinity'";

/// The addresses of nodes that stand in the way, or whether anything was raised.
async fn raise(connection: &mut PgConnection) -> Result<Result<bool, Vec<String>>, sqlx::Error> {
    let format = FORMAT.cast_signed();
    if sqlx::query_scalar::<_, i32>(format::OF_SCHEMA).fetch_one(&mut *connection).await? >= format {
        return Ok(Ok(false)); // nobody has to wait for it
    }
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK).execute(&mut *transaction).await?;
    if sqlx::query_scalar::<_, i32>(format::OF_SCHEMA).fetch_one(&mut *transaction).await? >= format {
        return Ok(Ok(false));
    }
    let behind: Vec<String> = sqlx::query_scalar(BEHIND).bind(ALIVE).bind(format).fetch_all(&mut *transaction).await?;
    if !behind.is_empty() {
        return Ok(Err(behind));
    }
    sqlx::query(RAISE).bind(format).execute(&mut *transaction).await?;
    sqlx::query(UNRINGED).execute(&mut *transaction).await?;
    let default = format!("alter table partitions alter column format set default {format}");
    sqlx::raw_sql(AssertSqlSafe(default)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Ok(true))
}

/// A connection to `schema`, made if there is none, as the role that owns it.
pub(crate) async fn connect(url: &str, schema: &str, role: Option<&Role>) -> Result<PgConnection, MigrateError> {
    let schema = config::name(schema)?;
    let mut connection = config::plain(url)?
        .application_name("holdfast migrate")
        // DDL must not queue for ever before everybody else's statements.
        .options([("search_path", schema), ("lock_timeout", "60s"), ("client_min_messages", "warning")])
        .connect()
        .await
        .map_err(|error| error::store(&error))?;
    if let Some(role) = role {
        let name = config::name(&role.name)?;
        prepare(&mut connection, name, role.password.as_deref())
            .await
            .map_err(|error| MigrateError::Role { role: name.to_owned(), reason: error.to_string() })?;
    }
    let role = role.map(|role| role.name.as_str());
    settle(&mut connection, schema, role).await.map_err(|error| error::store(&error))?;
    Ok(connection)
}

/// The runtime's migrations up to the version `last`, and a context's: with all of them what [`migrate`] does
/// to a schema, with fewer what an earlier build has done.
pub fn migrator(last: i64, context: &[(i64, &'static str, &'static str)]) -> Migrator {
    Migrator::with_migrations(migrations(last, context))
}

fn migrations(last: i64, context: &[(i64, &'static str, &'static str)]) -> Vec<Migration> {
    let own = RUNTIME.iter().filter(|(version, ..)| *version <= last).copied();
    let theirs = context.iter().map(|(version, name, sql)| (CONTEXT_VERSIONS + version, *name, *sql));
    own.chain(theirs)
        .map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
        })
        .collect()
}

/// The versions of [`migrations`], as they are stored.
pub(crate) fn versions(context: &[(i64, &'static str, &'static str)]) -> Vec<i64> {
    migrations(i64::MAX, context).iter().map(|migration| migration.version).collect()
}

/// Makes the role, and sees to it that we may act as it.
async fn prepare(connection: &mut PgConnection, role: &str, password: Option<&str>) -> Result<(), sqlx::Error> {
    let known: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
        .bind(role)
        .fetch_one(&mut *connection)
        .await?;
    if !known {
        // `create role` takes no parameters; the server quotes the password for itself.
        let login = match password {
            None => "nologin".to_owned(),
            Some(password) => {
                let quoted: String =
                    sqlx::query_scalar("select quote_literal($1)").bind(password).fetch_one(&mut *connection).await?;
                format!("login password {quoted}")
            }
        };
        let made = run(connection, format!("create role {role} {login}")).await;
        // Roles belong to the whole server: another migration may have made it just now, for another
        // database.
        if let Err(error) = made
            && !matches!(error::code(&error), Some("42710" | "23505"))
        {
            return Err(error);
        }
    }
    let may_act: bool = sqlx::query_scalar("select pg_has_role(current_user, $1, 'set')")
        .bind(role)
        .fetch_one(&mut *connection)
        .await?;
    if !may_act {
        run(connection, format!("grant {role} to current_user with set true, inherit false")).await?;
    }
    Ok(())
}

/// Makes the schema, and becomes the role.
async fn settle(connection: &mut PgConnection, schema: &str, role: Option<&str>) -> Result<(), sqlx::Error> {
    // Not "if not exists" alone: that wants the right to create one even where it is there.
    let known: bool =
        sqlx::query_scalar("select to_regnamespace($1) is not null").bind(schema).fetch_one(&mut *connection).await?;
    if !known {
        let owner = role.map(|role| format!(" authorization {role}")).unwrap_or_default();
        let made = run(connection, format!("create schema if not exists {schema}{owner}")).await;
        // Two at once: "if not exists" looks first and inserts later.
        if let Err(error) = made
            && !matches!(error::code(&error), Some("42P06" | "23505"))
        {
            return Err(error);
        }
    }
    match role {
        Some(role) => run(connection, format!("set role {role}")).await,
        None => Ok(()),
    }
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql).into_sql_str()).execute(connection).await.map(drop)
}
