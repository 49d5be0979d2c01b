//! One embedded Postgres for all tests of the process; a schema for each test.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_core::{
    AggregateId, Headers, KeyHash, PartitionId, Record, Timestamp,
    batch::{DeadLetter, Unfiled},
    disposition::DeadLetterReason,
    epoch::Generation,
    port::store::Store,
};
use holdfast_postgres::{Config, PgStore, Role, View, migrate};
use holdfast_stack::{Stack, StackOptions};
use holdfast_testkit::{
    conformance::store::{Damage, Features, StoreHarness},
    sample,
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::sync::OnceCell;
use uuid::Uuid;

pub const VIEW: View = View {
    name: "sample_view",
    kind: sample::KIND,
    upsert: "insert into sample_view select r ->> '_key', r - '_key' from jsonb_array_elements($1) r
        on conflict (key) do update set row = excluded.row",
};
const VIEW_SQL: &str = "create table sample_view (key text primary key, row jsonb not null) with (fillfactor = 80);";
pub const CONTEXT: &[(i64, &str, &str)] = &[(1, "view", VIEW_SQL)];

/// Postgres alone.
pub async fn server() -> &'static Stack {
    static SERVER: OnceCell<Stack> = OnceCell::const_new();
    let start = || Stack::start(StackOptions { kafka: false, ..StackOptions::default() });
    SERVER.get_or_try_init(start).await.expect("the embedded Postgres starts")
}

/// A migrated schema of its own, with a role of its own.
pub struct Fresh {
    pub url: String,
    pub schema: String,
}

impl Fresh {
    pub async fn new() -> Self {
        Self::on(server().await).await
    }

    pub async fn on(stack: &Stack) -> Self {
        let url = stack.postgres_url("postgres");
        let schema = format!("t_{}", Uuid::new_v4().simple());
        let role = Role { name: schema.clone(), password: None };
        migrate(&url, &schema, Some(&role), CONTEXT).await.expect("migrated");
        Self { url, schema }
    }

    /// The same, as an earlier build has left it: of format 1.
    pub async fn of_format_1() -> Self {
        let fresh = Self::new().await;
        let mut admin = fresh.admin().await;
        let earlier =
            "alter table partitions alter column format set default 1; update claims_kept set unringed = 'infinity'";
        fresh.run(&mut admin, earlier).await;
        fresh
    }

    pub fn config(&self) -> Config {
        let config = Config::new(&self.url, &self.schema).with_role(&self.schema).with_views([VIEW]);
        Config { application: self.schema.clone(), ..config }
    }

    pub async fn store(&self) -> Arc<dyn Store> {
        Arc::new(PgStore::connect(self.config()).await.expect("connected"))
    }

    /// The superuser, in this schema.
    pub async fn admin(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.url).await.expect("connected");
        self.run(&mut connection, &format!("set search_path = {}", self.schema)).await;
        connection
    }

    pub async fn run(&self, connection: &mut PgConnection, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.expect(sql);
    }

    /// A number that a query comes to.
    pub async fn number(&self, sql: &str) -> i64 {
        let mut admin = self.admin().await;
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut admin).await.expect(sql)
    }

    /// The server processes of this test's stores.
    pub async fn backends(&self) -> i64 {
        self.number(&format!("select count(*) from pg_stat_activity where application_name = '{}'", self.schema)).await
    }

    /// Kills those whose statement contains `text`, and says how many.
    pub async fn kill(&self, text: &str) -> i64 {
        self.number(&format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where application_name = '{}' and state <> 'idle' and query like '%{text}%'",
            self.schema
        ))
        .await
    }

    /// Waits until one of this test's stores waits for a lock.
    pub async fn somebody_waits(&self) {
        let waiting = format!(
            "select count(*) from pg_stat_activity where application_name = '{}' and wait_event_type = 'Lock'",
            self.schema
        );
        for _ in 0..500 {
            if self.number(&waiting).await > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody waits for a lock");
    }
}

#[async_trait]
impl StoreHarness for Fresh {
    async fn connect(&self) -> Arc<dyn Store> {
        self.store().await
    }

    fn features(&self) -> Features {
        Features::ALL
    }

    async fn view(&self, id: &AggregateId) -> Option<Value> {
        let mut admin = self.admin().await;
        let found = sqlx::query_scalar("select row from sample_view where key = $1").bind(&*id.key);
        found.fetch_optional(&mut admin).await.expect("readable")
    }

    async fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut admin = self.admin().await;
        let all = "select id, kind, key, hash, topic, partition, \"offset\", reason, error, attempts from dead_letters order by \"offset\"";
        let rows = sqlx::query(all).fetch_all(&mut admin).await.expect("readable");
        rows.iter()
            .map(|row| {
                let key: Option<String> = row.get(2);
                let hash = KeyHash::of(b"a");
                assert_eq!(row.get::<i32, _>(3), hash.as_i32());
                assert_eq!(row.get::<Option<String>, _>(1), key.as_ref().map(|_| sample::KIND.to_owned()));
                let reason: String = row.get(7);
                DeadLetter {
                    id: row.get(0),
                    aggregate: key.as_deref().map(sample::id),
                    hash,
                    topic: row.get::<String, _>(4).into(),
                    partition: PartitionId(row.get::<i32, _>(5).cast_unsigned()),
                    offset: row.get::<i64, _>(6).cast_unsigned(),
                    reason: DeadLetterReason::ALL.into_iter().find(|known| known.as_str() == reason).expect("known"),
                    error: row.get(8),
                    attempts: row.get::<i32, _>(9).cast_unsigned(),
                }
            })
            .collect()
    }

    async fn unfiled(&self) -> Vec<Unfiled> {
        let mut admin = self.admin().await;
        let all = "select id, error, topic, partition, \"offset\"::text, record_timestamp, record_key, headers, value from unfiled";
        let rows = sqlx::query(all).fetch_all(&mut admin).await.expect("readable");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let bytes = |bytes: Option<Vec<u8>>| bytes.map(Into::into);
        rows.iter()
            .map(|row| Unfiled {
                id: row.get(0),
                error: text(row.get(1)),
                record: Record {
                    topic: text(row.get(2)).into(),
                    partition: PartitionId(u32::try_from(row.get::<i64, _>(3)).expect("as it was")),
                    offset: row.get::<String, _>(4).parse().expect("a number"),
                    timestamp: row.get::<Option<i64>, _>(5).map(Timestamp::from_unix_ms),
                    key: bytes(row.get(6)),
                    headers: Headers::from_bytes(&row.get::<Vec<u8>, _>(7)).expect("as they were"),
                    value: bytes(row.get(8)),
                },
            })
            .collect()
    }

    async fn damage(&self, what: Damage) -> bool {
        let mut admin = self.admin().await;
        let sql = match what {
            Damage::Claim(id) => format!("update claims set answer = '\\x09' where id = '{id}'"),
            Damage::State(id) => format!("update aggregates set sources = '[1]' where key = '{}'", id.key),
            Damage::MailReason(id) => format!("update mailbox set reason = 'parcel' where key = '{}'", id.key),
            Damage::MailHeaders(id) => format!("update mailbox set headers = '\\x07' where key = '{}'", id.key),
        };
        self.run(&mut admin, &sql).await;
        true
    }

    async fn set_generation(&self, generation: Generation) {
        let mut admin = self.admin().await;
        self.run(&mut admin, &format!("update partitions set generation = {}", generation.0)).await;
    }

    async fn hold_rows(&self, partitions: &[PartitionId]) -> Box<dyn Send> {
        let numbers: Vec<i32> = partitions.iter().map(|partition| partition.0.cast_signed()).collect();
        let mut admin = self.admin().await;
        self.run(&mut admin, "begin").await;
        let lock = sqlx::query("select from partitions where partition = any($1) order by partition for update");
        lock.bind(numbers).execute(&mut admin).await.expect("locked");
        // Dropped, it closes; the server rolls back.
        Box::new(admin)
    }
}
