//! Schemas, roles and day tables.

use std::str::FromStr as _;

use holdfast_core::{
    PartitionId,
    batch::Writes,
    dedup::{Claim, ClaimKey},
    port::store::{Cursor, StoreError, Wanted},
};
use holdfast_postgres::{Config, MigrateError, PgStore, Retention, Role, migrate};
use holdfast_testkit::sample::{Owner, claim, draft};
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

/// A schema nobody migrated is told apart from a server that is away.
#[tokio::test(flavor = "multi_thread")]
async fn an_unmigrated_schema_and_a_server_away_are_two_things() {
    let url = server().await.postgres_url("postgres");
    assert!(matches!(PgStore::connect(Config::new(url, "nowhere")).await.err(), Some(StoreError::Broken(_))));
    let away = PgStore::connect(Config::new("postgres://x@127.0.0.1:1/x", "x")).await.err();
    assert!(matches!(away, Some(StoreError::Unavailable(_))), "{away:?}");
    let odd = PgStore::connect(Config::new("postgres://x@127.0.0.1:1/x", "x; drop table y")).await.err();
    assert!(matches!(odd, Some(StoreError::Broken(_))), "{odd:?}");
}

/// Days are made ahead, and dropped when nothing in them can matter any more (I7: never before).
#[tokio::test(flavor = "multi_thread")]
async fn old_days_are_dropped_but_no_unpublished_row_with_them() {
    let fresh = Fresh::new().await;
    let store = PgStore::connect(fresh.config()).await.expect("connected");
    let port: std::sync::Arc<dyn holdfast_core::port::store::Store> = std::sync::Arc::new(store.clone());
    port.register_partitions(1).await.expect("there");
    let mut owner = Owner::take(&port, [0]).await;
    for text in ["old", "older", "new"] {
        owner.write(0, Writes { outbox: vec![draft("t", "k", text)], ..Writes::default() }).await;
    }
    let mut admin = fresh.admin().await;
    // Day tables belong to the role that the store acts as.
    fresh.run(&mut admin, &format!("set role {}", fresh.schema)).await;
    fresh.run(&mut admin, "select open_day('outbox', current_date - 20), open_day('outbox', current_date - 30)").await;
    fresh.run(&mut admin, "select open_day('claims', current_date - 20), open_day('claims', current_date - 3)").await;
    fresh.run(&mut admin, "update outbox set day = current_date - 20 where value = 'old'").await;
    fresh.run(&mut admin, "update outbox set day = current_date - 30 where value = 'older'").await;
    let first = store.maintain(Retention::default()).await.expect("maintained");
    assert_eq!((first.made.len(), first.dropped.len(), first.kept.len()), (2, 1, 2), "{first:?}");
    assert!(first.dropped[0].starts_with("claims_"), "{first:?}");
    port.advance(&[Cursor::new(PartitionId(0), owner.token(0), 2)]).await.expect("there");
    let second = store.maintain(Retention::default()).await.expect("maintained");
    assert_eq!((second.made.len(), second.dropped.len(), second.kept.len()), (0, 2, 0), "{second:?}");
    let left = port.outbox(PartitionId(0), 0, 10, usize::MAX).await.expect("there");
    assert_eq!(left.iter().map(|row| row.sequence).collect::<Vec<_>>(), [3]);
}

/// Nothing fails for want of a day's table; its rows move in when it is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_a_table_loses_nothing() {
    let fresh = Fresh::new().await;
    let store = PgStore::connect(fresh.config()).await.expect("connected");
    let port: std::sync::Arc<dyn holdfast_core::port::store::Store> = std::sync::Arc::new(store.clone());
    port.register_partitions(1).await.expect("there");
    let mut admin = fresh.admin().await;
    fresh.run(&mut admin, "do $$ declare t text; begin for t in select c.oid::regclass from pg_inherits join pg_class c on c.oid = inhrelid
        where relname like any (array['outbox\\_2%', 'claims\\_2%']) and relkind = 'r' and relnamespace = current_schema()::regnamespace
        loop execute 'drop table ' || t; end loop; end $$").await;
    let mut owner = Owner::take(&port, [0]).await;
    let kept = claim(1);
    owner
        .write(0, Writes { outbox: vec![draft("t", "k", "x")], claims: vec![kept.clone()], ..Writes::default() })
        .await;
    assert_eq!(fresh.number("select count(*) from outbox_default").await, 1);
    assert_eq!(store.maintain(Retention::default()).await.expect("maintained").made.len(), 6);
    assert_eq!(fresh.number("select count(*) from outbox_default").await, 0);
    assert_eq!(fresh.number("select count(*) from claims_default").await, 0);
    owner.write(0, Writes { outbox: vec![draft("t", "k", "y")], ..Writes::default() }).await;
    assert_eq!(port.outbox(PartitionId(0), 0, 10, usize::MAX).await.expect("there").len(), 2);
    let found = port.find(&Wanted { aggregates: vec![], claims: vec![kept.key] }).await.expect("there");
    assert_eq!(found.claims, [Some(kept)]);
}

/// The rule that look-ups prune by: a claim's day is never before the day its id tells, whatever the producer's clock.
#[tokio::test(flavor = "multi_thread")]
async fn claims_are_filed_no_earlier_than_their_ids_say() {
    let fresh = Fresh::new().await;
    let store = fresh.store().await;
    store.register_partitions(1).await.expect("there");
    let mut owner = Owner::take(&store, [0]).await;
    let now_ms =
        u64::try_from(fresh.number("select (extract(epoch from now()) * 1000)::bigint").await).expect("after 1970");
    let day_ms = 86_400_000;
    let at = |ms: u64| {
        let id = Uuid::from_u128(
            u128::from(ms) << 80 | 0x7 << 76 | 0x8 << 60 | u128::from(Uuid::new_v4().as_u64_pair().0 >> 8),
        );
        Claim { key: ClaimKey { id, scope: Uuid::new_v4() }, ..claim(1) }
    };
    let claims: Vec<Claim> =
        [now_ms, now_ms - 40 * day_ms, now_ms + day_ms, now_ms + 2 * day_ms, now_ms + 400 * day_ms, (1 << 48) - 1, 0]
            .map(at)
            .into();
    owner.write(0, Writes { claims: claims.clone(), ..Writes::default() }).await;
    assert_eq!(fresh.number("select count(*) from claims where day < uuid_extract_timestamp(id)::date").await, 0);
    assert_eq!(fresh.number("select count(*) from claims where day = current_date").await, 3);
    assert_eq!(fresh.number("select count(*) from claims_default").await, 3);
    for asked in [claims.iter().collect::<Vec<_>>(), claims.iter().rev().take(2).collect(), vec![&claims[4]]] {
        let keys = asked.iter().map(|claim| claim.key).collect();
        let found = store.find(&Wanted { aggregates: vec![], claims: keys }).await.expect("there");
        assert!(found.claims.iter().zip(asked).all(|(found, asked)| found.as_ref() == Some(asked)));
    }
}
