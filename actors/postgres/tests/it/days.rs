//! Day tables: what is filed where, what goes when (I2, I7), and that nothing waits for it (I6).

use std::sync::Arc;

use holdfast_core::{
    PartitionId,
    batch::Writes,
    dedup::{Claim, ClaimKey},
    pool::PoolChange,
    port::store::{CommitError, Cursor, Store},
};
use holdfast_postgres::{Maintained, PgStore, Retention};
use holdfast_testkit::sample::{Owner, claim, conditional, count_outside, draft, entry, pushed_out};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::fixture::Fresh;

const DAY_MS: u64 = 86_400_000;

/// A store with one partition, and a connection that acts as its role, to whom the tables belong.
struct Days {
    fresh: Fresh,
    store: PgStore,
    port: Arc<dyn Store>,
    admin: PgConnection,
}

impl Days {
    async fn new() -> Self {
        let fresh = Fresh::new().await;
        let store = PgStore::connect(fresh.config()).await.expect("connected");
        let port: Arc<dyn Store> = Arc::new(store.clone());
        port.register_partitions(1).await.expect("there");
        let admin = as_owner(&fresh).await;
        Self { fresh, store, port, admin }
    }

    async fn run(&mut self, sql: &str) {
        self.fresh.run(&mut self.admin, sql).await;
    }

    async fn maintain(&self) -> Maintained {
        self.store.maintain(Retention::default()).await.expect("the connection holds")
    }

    /// The name of a day's table.
    async fn table(&self, parent: &str, ahead: i32) -> String {
        let sql = format!("select to_char(current_date + {ahead}, 'YYYYMMDD')::bigint");
        format!("{parent}_{}", self.fresh.number(&sql).await)
    }

    async fn exists(&self, table: &str) -> bool {
        self.fresh.number(&format!("select count(*) from pg_class where oid = to_regclass('{table}')")).await == 1
    }

    async fn now_ms(&self) -> u64 {
        let now = self.fresh.number("select (extract(epoch from now()) * 1000)::bigint").await;
        u64::try_from(now).expect("after 1970")
    }
}

async fn as_owner(fresh: &Fresh) -> PgConnection {
    let mut admin = fresh.admin().await;
    fresh.run(&mut admin, &format!("set role {}", fresh.schema)).await;
    admin
}

/// A claim whose id says that it was made at `ms`.
fn claim_of(ms: u64) -> Claim {
    let random = u128::from(Uuid::new_v4().as_u64_pair().0 >> 8);
    let id = Uuid::from_u128(u128::from(ms) << 80 | 0x7 << 76 | 0x8 << 60 | random);
    Claim { key: ClaimKey { id, scope: Uuid::new_v4() }, ..claim(1) }
}

/// Whether each is found, in one look-up and alone.
async fn are_found(store: &Arc<dyn Store>, claims: &[Claim]) -> bool {
    let mut asked: Vec<&[Claim]> = claims.chunks(1).collect();
    asked.push(claims);
    for asked in asked {
        if count_outside(store, asked).await < asked.len() {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn old_days_go_but_no_unpublished_row_with_them() {
    let mut days = Days::new().await;
    let mut owner = Owner::take(&days.port, [0]).await;
    for text in ["old", "older", "new"] {
        owner.write(0, Writes { outbox: vec![draft("t", "k", text)], ..Writes::default() }).await;
    }
    days.run("select open_day('outbox', current_date - 20), open_day('outbox', current_date - 30)").await;
    days.run("select open_day('claims', current_date - 20), open_day('claims', current_date - 3)").await;
    days.run("update outbox set day = current_date - 20 where sequence = 1").await;
    days.run("update outbox set day = current_date - 30 where sequence = 2").await;
    let old = [days.table("outbox", -30).await, days.table("outbox", -20).await];
    let first = days.maintain().await;
    let expected =
        Maintained { dropped: vec![days.table("claims", -20).await], kept: old.to_vec(), ..Maintained::default() };
    assert_eq!(first, expected);
    days.port.advance(&[Cursor::new(PartitionId(0), owner.token(0), 2)]).await.expect("there");
    let second = days.maintain().await;
    assert_eq!(second, Maintained { dropped: old.to_vec(), ..Maintained::default() });
    let left = days.port.outbox(PartitionId(0), 0, 10, usize::MAX).await.expect("there");
    assert_eq!(left.iter().map(|row| row.sequence).collect::<Vec<_>>(), [3]);
    assert!(days.exists(&days.table("claims", -3).await).await);
}

/// Nothing is lost or refused for want of a day's table: the commit that finds none opens it, and happens
/// when it is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn commit_without_a_day_opens_it_and_is_tried_again() {
    let mut days = Days::new().await;
    let mut owner = Owner::take(&days.port, [0]).await;
    owner.commit(vec![conditional(0, vec![PoolChange::supply("sku", 1)])]).await.expect("sound");
    let drop_all = "do $$ declare t text; begin for t in select inhrelid::regclass from pg_inherits
        where inhparent in ('outbox'::regclass, 'claims'::regclass) loop execute 'drop table ' || t; end loop; end $$";
    let kept = [claim(1), claim_of(days.now_ms().await)];
    let plain = || {
        let outbox = vec![draft("t", "k", "x")];
        vec![entry(0, Writes { outbox, ..pushed_out(&kept) })]
    };
    for entries in [plain(), vec![conditional(0, vec![PoolChange::hold("sku", 1)])]] {
        days.run(drop_all).await;
        let refused = owner.commit(entries.clone()).await;
        assert!(matches!(refused, Err(CommitError::Unavailable(_))), "an outage, and no row's fault: {refused:?}");
        owner.commit(entries).await.expect("the day is open");
    }
    days.run(drop_all).await;
    let made = days.maintain().await.made;
    assert!(made.len() >= 7, "three days of two parents, and a month of early claims: {made:?}");
    owner.commit(plain()).await.expect("sound");
    assert!(are_found(&days.port, &kept).await);
}

/// The rule that look-ups prune by, for ids of all years: a claim's day is never before the day inside its
/// id.
#[tokio::test(flavor = "multi_thread")]
async fn claims_are_filed_no_earlier_than_their_ids_say() {
    let days = Days::new().await;
    let mut owner = Owner::take(&days.port, [0]).await;
    let now = days.now_ms().await;
    let in_2300 = 10_413_792_000_000;
    let made = [0, now - 40 * DAY_MS, now, now + DAY_MS, now + 2 * DAY_MS, now + 9 * DAY_MS, in_2300, (1 << 48) - 1];
    let mut claims: Vec<Claim> = made.map(claim_of).into();
    claims.push(claim(1));
    owner.write(0, pushed_out(&claims)).await;
    assert!(are_found(&days.port, &claims).await);
    for (n, wrong) in [
        (0, "day < uuid_extract_timestamp(id)::date"),
        (4, "day = current_date"),
        (1, "day = current_date + 1"),
        (4, "day = early(current_date)"),
    ] {
        assert_eq!(days.fresh.number(&format!("select count(*) from claims where {wrong}")).await, n, "{wrong}");
    }
    assert_eq!(days.fresh.number("select count(*) from claims_default").await, 0);
    let last = "select count(*) where early('1970-01-01') > date '1970-01-01' + 3257812";
    assert_eq!(days.fresh.number(last).await, 1, "early days lie behind the last day that an id can say");
}

/// An id far ahead keeps its claim as long as any other, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn early_claims_go_with_the_month_of_their_filing() {
    let mut days = Days::new().await;
    let now = days.now_ms().await;
    let mut owner = Owner::take(&days.port, [0]).await;
    let claims = [claim_of(now + 5 * DAY_MS), claim_of(now + 400 * DAY_MS)];
    owner.write(0, pushed_out(&claims)).await;
    let aged = |ago: i32| format!("update claims set day = early(current_date - {ago})");
    days.run("select open_early(current_date - 8), open_early(current_date - 80)").await;
    days.run(&aged(8)).await;
    assert!(days.maintain().await.dropped.iter().all(|table| table.starts_with("claims_early_")));
    assert!(are_found(&days.port, &claims).await, "eight days after");
    days.run("select open_early(current_date - 80)").await;
    days.run(&aged(80)).await;
    assert_eq!(days.maintain().await.dropped.len(), 1);
    assert_eq!(days.fresh.number("select count(*) from claims").await, 0);
}

/// Nodes of an earlier build file them there during a roll-out.
#[tokio::test(flavor = "multi_thread")]
async fn claims_under_infinity_are_filed_again() {
    let mut days = Days::new().await;
    let mut owner = Owner::take(&days.port, [0]).await;
    let claims: Vec<Claim> = (0..1_201).map(|n| claim_of((1 << 47) + n)).collect();
    owner.write(0, pushed_out(&claims)).await;
    days.run("update claims set day = 'infinity'").await;
    assert_eq!(days.fresh.number("select count(*) from claims_default").await, 1_201);
    assert!(are_found(&days.port, &claims).await);
    assert_eq!(days.maintain().await, Maintained::default());
    assert_eq!(days.fresh.number("select count(*) from claims_default").await, 0);
    assert!(are_found(&days.port, &claims).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_after_their_topics_retention() {
    let mut days = Days::new().await;
    let letters = |n: u32, age: u32| {
        format!(
            "insert into dead_letters (id, hash, topic, partition, \"offset\", reason, error, attempts, at)
            select gen_random_uuid(), 0, 't', 0, n, 'INVALID', '', 1, now() - interval '{age} days'
            from generate_series(1, {n}) n"
        )
    };
    days.run(&letters(1_234, 32)).await;
    days.run(&letters(3, 30)).await;
    assert_eq!(days.maintain().await, Maintained { dead_letters: 1_234, ..Maintained::default() });
    assert_eq!(days.fresh.number("select count(*) from dead_letters").await, 3);
}

/// A transaction that reads and writes in all days, as a slow commit does, keeps no day from being opened.
#[tokio::test(flavor = "multi_thread")]
async fn opening_a_day_waits_for_no_transaction() {
    let mut days = Days::new().await;
    let opened = [days.table("claims", 2).await, days.table("outbox", 2).await];
    days.run(&format!("drop table {}, {}", opened[0], opened[1])).await;
    let mut other = as_owner(&days.fresh).await;
    let busy = "begin; select count(*) from claims; select count(*) from outbox;
        insert into claims (id, scope, body, answer) select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), ''";
    days.fresh.run(&mut other, busy).await;
    assert_eq!(days.maintain().await, Maintained { made: opened.to_vec(), ..Maintained::default() });
    let mut owner = Owner::take(&days.port, [0]).await;
    owner.write(0, pushed_out(&[claim(1)])).await;
}

/// A transaction that may still read an old day postpones that day alone.
#[tokio::test(flavor = "multi_thread")]
async fn day_in_use_is_dropped_by_a_later_run() {
    let mut days = Days::new().await;
    days.run("select open_day('claims', current_date - 20), open_day('claims', current_date - 21)").await;
    days.run("select open_day('outbox', current_date - 20)").await;
    let (old, older) = (days.table("claims", -20).await, days.table("claims", -21).await);
    let (other_old, opened) = (days.table("outbox", -20).await, days.table("claims", 2).await);
    days.run(&format!("drop table {opened}")).await;
    let mut other = as_owner(&days.fresh).await;
    days.fresh.run(&mut other, "begin; select count(*) from claims").await;
    let done = days.maintain().await;
    assert_eq!((&done.dropped[..], &done.made[..]), (&[other_old][..], &[opened][..]), "{done:?}");
    let postponed: Vec<&str> = done.postponed.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(postponed, [&*older, &*old], "the second can't begin while the first is pending");
    let pending = "select count(*) from pg_inherits where inhdetachpending and inhparent = to_regclass('claims')";
    assert_eq!(days.fresh.number(pending).await, 1);
    assert_eq!(days.maintain().await.dropped, [""; 0], "still in use");
    days.fresh.run(&mut other, "rollback").await;
    assert_eq!(days.maintain().await, Maintained { dropped: vec![older, old], ..Maintained::default() });
}

/// What a detachment waits for, however long, is not what others wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_queues_behind_a_day_being_detached() {
    let mut days = Days::new().await;
    days.run("select open_day('claims', current_date - 20)").await;
    let old = days.table("claims", -20).await;
    let mut owner = Owner::take(&days.port, [0]).await;
    let kept = [claim(1), claim_of(days.now_ms().await)];
    owner.write(0, pushed_out(&kept)).await;
    let mut other = as_owner(&days.fresh).await;
    days.fresh.run(&mut other, "begin; select count(*) from claims").await;
    let mut detaching = as_owner(&days.fresh).await;
    let sql = format!("alter table claims detach partition {old} concurrently");
    let detached = tokio::spawn(async move { sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut detaching).await });
    let waiting = format!(
        "select pid from pg_stat_activity where wait_event = 'virtualxid' and query like '%{old} concurrently%'
            and query not like '%pg_stat_activity%' union all select 0 order by 1 desc limit 1"
    );
    let pid = loop {
        let pid = days.fresh.number(&waiting.replace("select pid", "select pid::bigint")).await;
        if pid > 0 {
            break pid;
        }
        assert!(!detached.is_finished(), "{:?}", detached.await);
    };
    assert!(are_found(&days.port, &kept).await);
    owner.write(0, pushed_out(&[claim(1)])).await;
    assert_eq!(days.maintain().await.postponed.len(), 1);
    assert!(!detached.is_finished());
    days.fresh.number(&format!("select pg_terminate_backend({pid})::int::bigint")).await;
    assert!(detached.await.expect("no panic").is_err(), "it was interrupted");
    days.fresh.run(&mut other, "rollback").await;
    assert_eq!(days.maintain().await, Maintained { dropped: vec![old], ..Maintained::default() });
}

/// A run that died between detaching and dropping is taken up; a copy that an operator made is nobody's to
/// drop.
#[tokio::test(flavor = "multi_thread")]
async fn detached_day_is_dropped_and_a_copy_stays() {
    let mut days = Days::new().await;
    days.run("select open_day('claims', current_date - 20), open_day('claims', current_date - 21)").await;
    let (detached, copy) = (days.table("claims", -20).await, days.table("claims", -21).await);
    days.run(&format!("comment on table {detached} is 'holdfast: to be dropped'")).await;
    for table in [&detached, &copy] {
        days.run(&format!("alter table claims detach partition {table} concurrently")).await;
    }
    assert_eq!(days.maintain().await, Maintained { dropped: vec![detached], ..Maintained::default() });
    assert!(days.exists(&copy).await);
}
