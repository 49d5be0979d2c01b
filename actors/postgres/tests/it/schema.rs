//! Schemas and roles.

use std::str::FromStr as _;

use bytes::Bytes;
use holdfast_core::{
    batch::{StateWrite, Writes},
    port::store::StoreError,
};
use holdfast_postgres::{Config, MigrateError, PgStore, Retention, Role, migrate};
use holdfast_testkit::sample::{Owner, entry, state};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};
use uuid::Uuid;

use crate::fixture::{CONTEXT, Fresh, VIEW, server};

fn fresh_name() -> String {
    format!("t_{}", Uuid::new_v4().simple())
}

/// A context reaches its own schema and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_contexts_role_cannot_read_anothers_schema() {
    let (mine, other) = (Fresh::new().await, Fresh::new().await);
    let options = PgConnectOptions::from_str(&mine.url).expect("url").options([("role", mine.schema.as_str())]);
    let mut connection = options.connect().await.expect("connected");
    for (schema, allowed) in [(&mine.schema, true), (&other.schema, false)] {
        for statement in [
            format!("select count(*) from {schema}.partitions"),
            format!("delete from {schema}.pools"),
            format!("create table {schema}.intruder ()"),
        ] {
            let outcome = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&mut connection).await;
            match outcome {
                Ok(_) => assert!(allowed, "{statement}"),
                Err(error) => {
                    let code = error
                        .as_database_error()
                        .and_then(sqlx::error::DatabaseError::code)
                        .map(|code| code.to_string());
                    assert!(!allowed && code.as_deref() == Some("42501"), "{statement}: {error}");
                }
            }
        }
    }
    let strayed = PgStore::connect(Config::new(&mine.url, &other.schema).with_role(&mine.schema)).await;
    assert!(matches!(strayed.err(), Some(StoreError::Broken(_))));
}

/// With a password the role logs in itself, migrates its own schema again, and needs no administrator.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_a_password_stands_on_its_own() {
    let url = server().await.postgres_url("postgres");
    let schema = fresh_name();
    let role = Role { name: schema.clone(), password: Some("pa'ss".into()) };
    migrate(&url, &schema, Some(&role), CONTEXT).await.expect("by the administrator");
    let own = PgConnectOptions::from_str(&url).expect("url").username(&schema).password("pa'ss").to_url_lossy();
    migrate(own.as_str(), &schema, Some(&role), CONTEXT).await.expect("by itself");
    migrate(own.as_str(), &schema, None, CONTEXT).await.expect("and plainly");
    let store = PgStore::connect(Config::new(own.as_str(), &schema).with_views([VIEW])).await.expect("connected");
    store.maintain(Retention::default()).await.expect("it owns its tables");
    let denied =
        migrate(own.as_str(), &fresh_name(), Some(&Role { name: fresh_name(), password: None }), CONTEXT).await;
    assert!(matches!(denied, Err(MigrateError::Role { .. })), "{denied:?}");
}

/// Any number of nodes may start at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_migrators_are_safe() {
    let url = server().await.postgres_url("postgres");
    let schema = fresh_name();
    let migrators: Vec<_> = (0..6)
        .map(|_| {
            let (url, schema) = (url.clone(), schema.clone());
            tokio::spawn(async move {
                let role = Role { name: schema.clone(), password: None };
                migrate(&url, &schema, Some(&role), CONTEXT).await
            })
        })
        .collect();
    for migrator in migrators {
        migrator.await.expect("no panic").expect("migrated");
    }
    PgStore::connect(Config::new(url, &schema).with_role(&schema).with_views([VIEW])).await.expect("fit");
}

/// What was applied cannot be rewritten afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_edited_migration_is_refused() {
    let fresh = Fresh::new().await;
    let edited = [(1, "view", "create table something_else ()")];
    assert!(matches!(migrate(&fresh.url, &fresh.schema, None, &edited).await, Err(MigrateError::Migration(_))));
    let more = [CONTEXT[0], (2, "more", "create table more ()")];
    migrate(&fresh.url, &fresh.schema, None, &more).await.expect("adding is fine");
}

/// A schema without migrations gives another error than a server that is away.
#[tokio::test(flavor = "multi_thread")]
async fn an_unmigrated_schema_and_a_server_away_are_two_things() {
    let url = server().await.postgres_url("postgres");
    assert!(matches!(PgStore::connect(Config::new(url, "nowhere")).await.err(), Some(StoreError::Broken(_))));
    let away = PgStore::connect(Config::new("postgres://x@127.0.0.1:1/x", "x")).await.err();
    assert!(matches!(away, Some(StoreError::Unavailable(_))), "{away:?}");
    let odd = PgStore::connect(Config::new("postgres://x@127.0.0.1:1/x", "x; drop table y")).await.err();
    assert!(matches!(odd, Some(StoreError::Broken(_))), "{odd:?}");
}

/// A row that moves to another page is entered into the index once more. A batch may write every row of a
/// page again, before anything there can be cleaned up.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_written_again_stay_on_their_page() {
    const ROWS: u64 = 400;
    let fresh = Fresh::new().await;
    let store = fresh.store().await;
    store.register_partitions(1).await.expect("there");
    let mut owner = Owner::take(&store, [0]).await;
    let mut pages = Vec::new();
    for version in 1..=2 {
        let write = |n: u64| {
            let state = state(&n.to_string(), version - 1, version);
            let state = StateWrite { bytes: Bytes::from_static(&[7; 120]), ..state };
            entry(0, Writes { state: Some(state), ..Writes::default() })
        };
        owner.commit((0..ROWS).map(write).collect()).await.expect("the batch is sound");
        pages.push(fresh.number("select count(distinct (ctid::text::point)[0])::int8 from aggregates").await);
    }
    assert!(pages[0] > 5 && pages[0] == pages[1], "{pages:?}");
}
