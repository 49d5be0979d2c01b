//! The operators' survey of the runtime's tables.

use holdfast_core::{Headers, KeyHash, PartitionId, envelope::header};
use holdfast_postgres::PgStore;
use sqlx::AssertSqlSafe;

use crate::fixture::{CONTEXT, Fresh};

/// A waiting message for `key`, from a producer that calls itself `source`.
async fn put(fresh: &Fresh, key: &str, reason: &str, source: &str, age_s: i32) {
    let mut headers = Headers::default();
    headers.push(header::SOURCE, source);
    let sql =
        "insert into mailbox (kind, key, hash, reason, attempts, since, error, topic, partition, \"offset\", headers)
        values ('sample', $1, $2, $3, 0, now() - make_interval(secs => $4), '', 'sample.commands', 0, 0, $5)";
    let mut admin = fresh.admin().await;
    let asked = sqlx::query(AssertSqlSafe(sql.to_owned())).bind(key).bind(KeyHash::of(key.as_bytes()).as_i32());
    asked.bind(reason).bind(f64::from(age_s)).bind(headers.to_bytes()).execute(&mut admin).await.expect("put");
}

#[tokio::test]
async fn mail_is_counted_by_home_and_reason_and_strays_by_sender() {
    let fresh = Fresh::new().await;
    let store = PgStore::connect(fresh.config()).await.expect("connected");
    assert_eq!((store.mail(4).await, store.strays().await), (Ok(Vec::new()), Ok(Vec::new())));
    for (key, reason, source, age) in [
        ("a", "retrying", "shop", 60),
        ("a", "retrying", "shop", 10),
        ("b", "retrying", "shop", 5),
        ("a", "transferred", "crc", 30),
        ("b", "transferred", "crc", 90),
        ("b", "transferred", "other", 20),
    ] {
        put(&fresh, key, reason, source, age).await;
    }
    let now = store.clock().await.expect("clock").unix_ms();
    let home = |key: &str| KeyHash::of(key.as_bytes()).home(1_000_003);
    let age_s = |since: holdfast_core::Timestamp| (now - since.unix_ms()) / 1000;
    let mail = store.mail(1_000_003).await.expect("mail");
    let rows = |mail: &[holdfast_postgres::survey::Mail]| {
        let mut rows: Vec<(PartitionId, String, u64, u64)> =
            mail.iter().map(|mail| (mail.partition, mail.reason.clone(), mail.messages, mail.aggregates)).collect();
        rows.sort();
        rows
    };
    let mut expected = vec![
        (home("a"), "retrying".to_owned(), 2, 1),
        (home("a"), "transferred".to_owned(), 1, 1),
        (home("b"), "retrying".to_owned(), 1, 1),
        (home("b"), "transferred".to_owned(), 2, 1),
    ];
    expected.sort();
    assert_eq!(rows(&mail), expected);
    // In one partition they add up.
    let mail = store.mail(1).await.expect("mail");
    assert_eq!(rows(&mail), [(PartitionId(0), "retrying".into(), 3, 2), (PartitionId(0), "transferred".into(), 3, 2)]);
    assert!(age_s(mail[0].since) >= 60 && age_s(mail[1].since) >= 90, "the oldest counts: {mail:?}");

    let of_a = store.mail_of("sample", "a", 1_000_003).await.expect("mail");
    let expected: Vec<_> = expected.into_iter().filter(|(partition, ..)| *partition == home("a")).collect();
    assert_eq!(rows(&of_a), expected);
    assert_eq!(store.mail_of("other", "a", 4).await, Ok(Vec::new()));

    let strays = store.strays().await.expect("strays");
    let strays: Vec<_> =
        strays.iter().map(|s| (&*s.topic, s.source.as_str(), s.messages, age_s(s.since) >= 90)).collect();
    assert_eq!(strays, [("sample.commands", "crc", 2, true), ("sample.commands", "other", 1, false)]);
}

#[tokio::test]
async fn timers_and_schema_versions_are_listed() {
    let fresh = Fresh::new().await;
    let store = PgStore::connect(fresh.config()).await.expect("connected");
    let mut admin = fresh.admin().await;
    let timers = "insert into timers (kind, key, name, hash, due) values
        ('sample', 'a', 'late', 1, now() + interval '1 hour'), ('sample', 'a', 'soon', 1, now()), ('sample', 'b', 'other', 1, now())";
    fresh.run(&mut admin, timers).await;
    let names: Vec<_> =
        store.timers_of("sample", "a").await.expect("timers").into_iter().map(|timer| timer.name).collect();
    assert_eq!(names, ["soon", "late"]);
    let (applied, known) = store.schema_versions(CONTEXT).await.expect("versions");
    assert_eq!((&applied, applied.last()), (&known, Some(&1001)));
    fresh.run(&mut admin, "delete from _sqlx_migrations where version = 1001").await;
    let (applied, known) = store.schema_versions(CONTEXT).await.expect("versions");
    assert!(applied.len() + 1 == known.len() && known.contains(&1001), "{applied:?} {known:?}");
}
