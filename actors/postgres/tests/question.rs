//! Questions to a real Postgres: what a read model's reader can rely on, and what it can't do.

#![allow(clippy::unwrap_used)]

#[path = "it/fixture.rs"]
#[allow(dead_code)]
mod fixture;

use std::time::{Duration, Instant};

use bytes::Bytes;
use fixture::Fresh;
use holdfast_core::port::store::{Store, StoreError, Wanted};
use holdfast_postgres::{PgStore, Query, query::Value};
use serde_json::json;
use uuid::Uuid;

const fn query(sql: &'static str) -> Query {
    Query { name: "test", sql }
}

async fn store(fresh: &Fresh) -> PgStore {
    PgStore::connect(fresh.config()).await.expect("connected")
}

#[tokio::test]
async fn values_come_back_as_they_were_bound() {
    let store = store(&Fresh::new().await).await;
    let id = Uuid::from_u128(7);
    let hostile = "'; drop table aggregates; --".to_owned();
    let values: Vec<Value> = vec![
        true.into(),
        i64::MIN.into(),
        hostile.clone().into(),
        id.into(),
        vec![0_u8, 255].into(),
        vec![1_i64, 2].into(),
        vec!["a,b".to_owned(), "c".to_owned()].into(),
        vec![id].into(),
    ];
    let all = query(
        "select $1, $2, $3, $4, $5, (select sum(n)::bigint from unnest($6::bigint[]) n), array_to_string($7::text[], '|'),
            ($8::uuid[])[1], '{\"a\": [1]}'::jsonb, 7::int",
    );
    let rows = store.query(all, values).await.unwrap();
    let [row] = &*rows else { panic!("one row: {rows:?}") };
    assert_eq!(row.get(0), Ok(true));
    assert_eq!(row.get(1), Ok(i64::MIN));
    assert_eq!(row.get(2), Ok(hostile));
    assert_eq!(row.get(3), Ok(id));
    assert_eq!(row.get(4), Ok(Bytes::from_static(&[0, 255])));
    assert_eq!(row.get(5), Ok(3_i64));
    assert_eq!(row.get(6), Ok("a,b|c".to_owned()));
    assert_eq!(row.get(7), Ok(Some(id)));
    assert_eq!(row.get(8), Ok(json!({"a": [1]})));
    assert_eq!(row.get(9), Ok(7_i32));
    assert!(matches!(row.get::<i64>(2), Err(StoreError::Broken(_))), "another type");
    assert!(matches!(row.get::<i64>(99), Err(StoreError::Broken(_))), "no such column");
}

#[tokio::test]
async fn nothing_is_null_and_null_is_nothing() {
    let store = store(&Fresh::new().await).await;
    let values: Vec<Value> =
        vec![None::<i64>.into(), None::<String>.into(), None::<Uuid>.into(), None::<Vec<u8>>.into()];
    let rows = store.query(query("select $1, $2, $3, $4"), values).await.unwrap();
    assert_eq!(rows[0].get(0), Ok(None::<i64>));
    assert_eq!(rows[0].get(1), Ok(None::<String>));
    assert_eq!(rows[0].get(2), Ok(None::<Uuid>));
    assert_eq!(rows[0].get(3), Ok(None::<Bytes>));
    assert!(rows[0].get::<i64>(0).is_err(), "a null is no number");
}

#[tokio::test]
async fn a_question_can_not_write_whatever_its_text() {
    let fresh = Fresh::new().await;
    let store = store(&fresh).await;
    for sql in [
        "insert into sample_view values ('k', '{}') returning 1",
        "with written as (insert into sample_view values ('k', '{}') returning key) select key from written",
        "create table mine (n int)",
        "select open_day('outbox', date '2001-01-01')",
        "select 1; insert into sample_view values ('k', '{}')",
    ] {
        assert!(store.query(query(sql), Vec::new()).await.is_err(), "{sql}");
    }
    assert_eq!(fresh.number("select count(*) from sample_view").await, 0);
    assert_eq!(fresh.number("select count(*) from pg_class where relname in ('mine', 'outbox_20010101')").await, 0);
    // And it goes on after each.
    assert_eq!(store.query(query("select 1"), Vec::new()).await.unwrap()[0].get(0), Ok(1_i32));
}

#[tokio::test]
async fn a_slow_question_ends_in_time_and_stands_in_nobodys_way() {
    let fresh = Fresh::new().await;
    let one_at_a_time = holdfast_postgres::Config { readers: 1, ..fresh.config() };
    let store = PgStore::connect(one_at_a_time).await.expect("connected");
    let (began, slow) = (Instant::now(), store.clone());
    let slow = tokio::spawn(async move { slow.query(query("select pg_sleep(60)::text"), Vec::new()).await });
    let wanted = Wanted::state(holdfast_testkit::sample::id("a"));
    Store::find(&store, &[wanted]).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "the loop's reads have connections of their own");
    let ended = slow.await.unwrap();
    assert!(matches!(ended, Err(StoreError::Unavailable(_))), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_caller_who_goes_away_takes_no_connection_along() {
    let fresh = Fresh::new().await;
    let one_at_a_time = holdfast_postgres::Config { readers: 1, ..fresh.config() };
    let store = PgStore::connect(one_at_a_time).await.expect("connected");
    let backend = query("select pg_backend_pid()");
    let before: i32 = store.query(backend, Vec::new()).await.unwrap()[0].get(0).unwrap();
    let impatient = store.query(query("select pg_sleep(0.5)::text"), Vec::new());
    assert!(tokio::time::timeout(Duration::from_millis(50), impatient).await.is_err());
    let after: i32 = store.query(backend, Vec::new()).await.unwrap()[0].get(0).unwrap();
    assert_eq!(after, before, "the same connection serves the next question");
}
