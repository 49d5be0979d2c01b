//! A schema of an earlier build is brought up to date with all that it holds.

use std::sync::Arc;

use holdfast_core::{PartitionId, port::store::Store};
use holdfast_postgres::{Maintained, PgStore, Retention, Role, migrate, migrator};
use holdfast_testkit::sample::{Owner, claim, count_outside, everything};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use crate::fixture::{CONTEXT, Fresh, server};

/// The last migration of the build before days went without a default partition.
const EARLIER: i64 = 5;

/// An id of 2300.
const AHEAD: &str = "0978a65f-7800-7000-8000-000000000001";

/// What such a build has left: claims and outbox rows with and without a table of their day, and a timer.
const LEFT: &str = "
select open_day('outbox', current_date - 1);
insert into partitions (partition, outbox_head, generation) values (0, 3, 1);
insert into outbox (partition, target, sequence, id, topic, headers, day)
select 0, 0, n, gen_random_uuid(), 't', '\\x00000000', day
from (values (1, current_date - 3), (2, current_date - 1), (3, current_date)) as r(n, day);
insert into timers (kind, key, name, hash, due) values ('sample', 'a', 't', 1, now()), ('sample', 'a', 'u', 1, now());
insert into generations (generation, count) values (1, 1);
";

async fn earlier() -> (Fresh, PgConnection) {
    let url = server().await.postgres_url("postgres");
    let schema = format!("t_{}", Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&url).await.expect("connected");
    let make =
        format!("create role {schema} nologin; create schema {schema} authorization {schema}; set role {schema}");
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut admin).await.expect("made");
    let path = format!("set search_path = {schema}");
    sqlx::raw_sql(AssertSqlSafe(path)).execute(&mut admin).await.expect("set");
    migrator(EARLIER, &[]).run_direct(None, &mut admin, false).await.expect("migrated");
    (Fresh { url, schema }, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_of_an_earlier_build_keeps_its_rows() {
    let (fresh, mut admin) = earlier().await;
    fresh.run(&mut admin, LEFT).await;
    let claims = [AHEAD, "00000000-0000-7000-8000-000000000001", "11111111-1111-4111-8111-111111111111"];
    let mut kept = Vec::new();
    for (id, day) in claims.into_iter().zip(["'infinity'", "current_date - 5", "current_date"]) {
        let mut claim = claim(1);
        claim.key.id = id.parse().expect("an id");
        let insert = format!("insert into claims (id, scope, body, answer, day) values ($1, $2, $3, $4, {day})");
        let insert = sqlx::query(AssertSqlSafe(insert)).bind(claim.key.id).bind(claim.key.scope).bind(claim.body);
        insert.bind(claim.answer.to_bytes()).execute(&mut admin).await.expect("filed");
        kept.push(claim);
    }
    assert_eq!(fresh.number("select count(*) from claims_default").await, 2);
    assert_eq!(fresh.number("select count(*) from outbox_default").await, 1);

    let role = Role { name: fresh.schema.clone(), password: None };
    assert!(PgStore::connect(fresh.config()).await.is_err(), "this build needs what the migrations make");
    migrate(&fresh.url, &fresh.schema, Some(&role), CONTEXT).await.expect("migrated");
    let store = PgStore::connect(fresh.config()).await.expect("fit");
    let port: Arc<dyn Store> = Arc::new(store.clone());
    assert_eq!(count_outside(&port, &kept).await, 3);
    let rows = port.outbox(PartitionId(0), 0, 10, usize::MAX).await.expect("there");
    assert_eq!(rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    let due = port.due_timers(&everything(1), 10).await.expect("there");
    assert!(due.len() == 2 && due[0].serial != due[1].serial, "{due:?}");
    let defaults = "select count(*) from pg_partitioned_table where partdefid <> 0
        and partrelid in (to_regclass('claims'), to_regclass('outbox'))";
    assert_eq!(fresh.number(defaults).await, 0);
    assert_eq!(store.maintain(Retention::default()).await, Ok(Maintained::default()), "all days are open");
    let mut owner = Owner::take(&port, [0]).await;
    owner.commit(Vec::new()).await.expect("it goes on");
}

/// What a node of the earlier build says while the roll-out lasts, or after it was rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_an_earlier_build_go_on_after_the_migration() {
    let fresh = Fresh::new().await;
    let mut old = fresh.admin().await;
    fresh.run(&mut old, &format!("set role {}", fresh.schema)).await;
    for statement in [
        "insert into claims (id, scope, body, answer, day)
            values (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), '', 'infinity')",
        "insert into timers (kind, key, name, hash, due) values ('sample', 'a', 't', 1, now())
            on conflict (key, kind, name) do update set due = excluded.due",
        "select parent || '_' || to_char(day, 'YYYYMMDD'), open_day(parent, day)
            from unnest(array['outbox', 'claims']) as parent, generate_series(0, 4) as ahead,
                lateral (select current_date + ahead as day) d",
        "delete from claims_default where day < current_date - 8
            or day = 'infinity' and uuid_extract_timestamp(id) < now() - make_interval(days => 8)",
    ] {
        fresh.run(&mut old, statement).await;
    }
    assert_eq!(fresh.number("select count(*) from claims_default").await, 1);
}
