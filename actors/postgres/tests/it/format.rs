//! Schemas of all formats, and the way from one to the next.

use std::sync::Arc;

use holdfast_core::{
    PartitionId,
    batch::{StateWrite, Writes},
    dedup::{Claim, ClaimKey},
    epoch::Beat,
    port::store::{Store, StoreError},
    stuck::{Queue, SetAside, hash_of},
};
use holdfast_postgres::{FORMAT, MigrateError, PgStore, Retention, Role, finish};
use holdfast_testkit::sample::{self, Owner, claim, draft, found};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::fixture::Fresh;

const P: PartitionId = PartitionId(0);

/// A take-over by a build that knows nothing of formats.
const OLD_TAKE: &str = "
update partitions set epoch = epoch + 1, token = gen_random_uuid(), address = 'old:1', released = false where partition = 0";

/// What such a build says of its life.
const OLD_BEAT: &str = "
insert into nodes (address, run, beat) values ('old:1', gen_random_uuid(), 1)
on conflict (address) do update set run = excluded.run, beat = excluded.beat, at = now()";

/// A schema with one partition, and a session of a build that knows nothing of formats.
async fn of(fresh: &Fresh) -> (PgStore, Arc<dyn Store>, PgConnection) {
    let store = PgStore::connect(fresh.config()).await.expect("connected");
    store.register_partitions(1).await.expect("there");
    let mut old = fresh.admin().await;
    fresh.run(&mut old, &format!("set role {}", fresh.schema)).await;
    (store.clone(), Arc::new(store), old)
}

async fn raise(fresh: &Fresh) -> Result<bool, MigrateError> {
    finish(&fresh.url, &fresh.schema, Some(&Role { name: fresh.schema.clone(), password: None })).await
}

async fn write(owner: &mut Owner, texts: &[&str]) {
    let outbox = texts.iter().map(|text| draft("t.events", "a", text)).collect();
    owner.write(0, Writes { outbox, ..Writes::default() }).await;
}

/// Rows, and those of them that are segments.
async fn rows(fresh: &Fresh) -> (i64, i64) {
    (fresh.number("select count(*) from outbox").await, fresh.number("select count(records) from outbox").await)
}

async fn page(store: &dyn Store, after: u64, limit: u32, bytes_max: usize) -> Vec<(u64, String)> {
    let rows = store.outbox(P, after, limit, bytes_max).await.expect("readable").into_iter();
    let text = |value: Option<bytes::Bytes>| String::from_utf8(value.expect("a value").to_vec()).expect("UTF-8");
    rows.map(|row| (row.sequence, text(row.draft.value))).collect()
}

#[tokio::test]
async fn new_schema_has_a_row_for_each_commit() {
    let fresh = Fresh::new().await;
    let (store, port, _) = of(&fresh).await;
    let mut owner = Owner::take(&port, [0]).await;
    write(&mut owner, &["1", "2", "3"]).await;
    write(&mut owner, &["4"]).await;
    assert_eq!((rows(&fresh).await, store.format().await), ((2, 2), Ok(FORMAT)));
    let pending = store.outbox_pending(1).await.expect("pending").remove(0);
    assert!(pending.rows == 4 && pending.bytes > 4 && pending.since.is_some(), "{pending:?}");
    let of = |sequence: u64| (sequence, sequence.to_string());
    assert_eq!(page(&*port, 1, 2, usize::MAX).await, [of(2), of(3)], "from the middle of a segment to its end");
    assert_eq!(page(&*port, 1, 9, 1).await, [of(2)], "one, however large");
    assert_eq!(page(&*port, 2, 9, usize::MAX).await, [of(3), of(4)]);
}

#[tokio::test]
async fn finished_schema_has_its_outbox_in_both_forms() {
    let fresh = Fresh::of_format_1().await;
    let (store, port, _) = of(&fresh).await;
    let mut owner = Owner::take(&port, [0]).await;
    write(&mut owner, &["1", "2"]).await;
    assert_eq!((rows(&fresh).await, store.format().await), ((2, 0), Ok(1)));
    assert!(raise(&fresh).await.expect("no node is in the way"));
    assert!(!raise(&fresh).await.expect("again"), "it is there already");
    write(&mut owner, &["3"]).await;
    assert_eq!(rows(&fresh).await, (3, 0), "a node that has not heard of it goes on as before");
    port.growth().await.expect("read");
    write(&mut owner, &["4", "5", "6"]).await;
    assert_eq!((rows(&fresh).await, store.format().await), ((4, 1), Ok(FORMAT)));
    let all = page(&*port, 0, 100, usize::MAX).await;
    assert!(all.iter().map(|(sequence, text)| (*sequence, text.parse())).eq((1..=6).map(|n| (n, Ok(n)))), "{all:?}");

    // Records of rows and of the middle of a segment are set aside alike, and none that isn't there.
    let aside = |draft: &holdfast_core::batch::OutboxDraft, sequence| SetAside {
        sequence,
        queue: Queue::of(draft),
        hash: hash_of(draft),
        attempts: 1,
        error: String::new(),
    };
    let drafts = port.outbox(P, 0, 100, usize::MAX).await.expect("there");
    let mut asides: Vec<SetAside> = drafts[1..5].iter().map(|row| aside(&row.draft, row.sequence)).collect();
    port.set_aside(P, owner.token(0), &asides).await.expect("all are there");
    let stuck = "select string_agg(sequence || convert_from(value, 'UTF8'), ' ' order by position) = '22 33 44 55' from outbox_stuck";
    assert_eq!(fresh.number(&format!("select ({stuck})::int::bigint")).await, 1);
    asides = vec![aside(&drafts[5].draft, 6), aside(&drafts[5].draft, 7)];
    port.set_aside(P, owner.token(0), &asides).await.expect_err("7 is not in the outbox");
    assert_eq!(fresh.number("select outbox_cursor from partitions").await, 5);
}

#[tokio::test]
async fn earlier_build_takes_nothing_once_finished() {
    let fresh = Fresh::of_format_1().await;
    let (_, port, mut old) = of(&fresh).await;
    fresh.run(&mut old, OLD_TAKE).await;
    assert!(raise(&fresh).await.expect("its nodes have stopped"));
    let refused = sqlx::raw_sql(OLD_TAKE).execute(&mut old).await.expect_err("refused").to_string();
    assert!(refused.contains("format 3, and this build writes format 1 at most: run a newer build"), "{refused}");
    // It may go on with what it has, and this build takes it.
    fresh.run(&mut old, "update partitions set batch = batch + 1, outbox_head = 1").await;
    fresh
        .run(
            &mut old,
            "insert into outbox (partition, sequence, id, topic, target, headers, value)
        values (0, 1, gen_random_uuid(), 't', 0, '\\x00000000', 'old')",
        )
        .await;
    let mut owner = Owner::take(&port, [0]).await;
    write(&mut owner, &["new"]).await;
    assert_eq!(page(&*port, 0, 9, usize::MAX).await, [(1, "old".to_owned()), (2, "new".to_owned())]);
    // A partition that a growth brings is of the same format.
    port.register_partitions(2).await.expect("there");
    assert_eq!(fresh.number("select min(format)::bigint from partitions").await, i64::from(FORMAT));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_that_growth_adds_meanwhile_is_of_the_new_format() {
    let fresh = Fresh::of_format_1().await;
    let (_, _, mut old) = of(&fresh).await;
    fresh.run(&mut old, "begin; insert into partitions (partition) values (1)").await;
    let (url, schema) = (fresh.url.clone(), fresh.schema.clone());
    let raising = tokio::spawn(async move {
        let role = Role { name: schema.clone(), password: None };
        finish(&url, &schema, Some(&role)).await
    });
    let waits = "select count(*) from pg_locks where not granted and relation = to_regclass('partitions')";
    while fresh.number(waits).await == 0 {
        assert!(!raising.is_finished(), "it does not wait for the row");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    fresh.run(&mut old, "commit").await;
    assert!(raising.await.expect("no panic").expect("no node is in the way"));
    assert_eq!(fresh.number("select min(format)::bigint from partitions").await, i64::from(FORMAT));
}

#[tokio::test]
async fn format_is_not_raised_while_a_node_cannot_write_it() {
    let fresh = Fresh::of_format_1().await;
    let (store, port, mut old) = of(&fresh).await;
    let in_the_way = |raised: Result<bool, MigrateError>| match raised {
        Err(MigrateError::Nodes(nodes)) => nodes == ["old:1"],
        _ => false,
    };
    fresh.run(&mut old, OLD_BEAT).await;
    assert!(in_the_way(raise(&fresh).await));
    // Updated, and rolled back: the earlier build leaves what the newer one has said.
    port.beat("old:1", Beat { run: Uuid::new_v4(), count: 1 }).await.expect("said");
    fresh.run(&mut old, OLD_BEAT).await;
    assert!(in_the_way(raise(&fresh).await));
    assert_eq!(store.format().await, Ok(1));
    fresh.run(&mut old, "update nodes set at = now() - interval '2 minutes'").await;
    assert!(raise(&fresh).await.expect("it has gone"));
}

#[tokio::test]
async fn segment_that_cannot_be_read_is_named() {
    let fresh = Fresh::new().await;
    let (_, port, mut admin) = of(&fresh).await;
    let mut owner = Owner::take(&port, [0]).await;
    write(&mut owner, &["1", "2"]).await;
    fresh.run(&mut admin, "update outbox set value = substr(value, 1, octet_length(value) - 3)").await;
    let error = port.outbox(P, 0, 9, usize::MAX).await.expect_err("damaged");
    assert!(matches!(&error, StoreError::Broken(text) if text.contains("segment 2 of partition 0")), "{error}");
}

/// Writes the next version of `key`, as the lane of this build does.
async fn apply(owner: &mut Owner, port: &Arc<dyn Store>, key: &str, claim: &Claim, ring_max: usize) {
    let found = found(port, key, Vec::new()).await;
    let (version, revision) = found.state.expect("readable").map_or((0, 0), |row| (row.version, row.revision));
    let write = StateWrite { revision, ring: found.ring, ..sample::state(key, version, version + 1) };
    owner.write(0, sample::claimed(write, vec![claim.clone()], ring_max)).await;
}

/// Whether claims of these aggregates may stand in tables.
async fn spilled(port: &Arc<dyn Store>, keys: [&str; 3]) -> [bool; 3] {
    let mut spilled = [false; 3];
    for (spilled, key) in spilled.iter_mut().zip(keys) {
        *spilled = found(port, key, Vec::new()).await.has_spilled;
    }
    spilled
}

#[tokio::test]
async fn claims_of_an_earlier_format_are_found_until_their_tables_go() {
    let fresh = Fresh::of_format_1().await;
    let (store, port, mut admin) = of(&fresh).await;
    let mut owner = Owner::take(&port, [0]).await;
    let claims: Vec<Claim> = (0..4).map(claim).collect();
    let keys: Vec<ClaimKey> = claims.iter().map(|claim| claim.key).collect();
    apply(&mut owner, &port, "a", &claims[0], 32).await;
    apply(&mut owner, &port, "never again", &claim(9), 32).await;
    assert!(raise(&fresh).await.expect("no node is in the way"));
    apply(&mut owner, &port, "a", &claims[1], 32).await;
    assert_eq!(fresh.number("select count(*) from claims").await, 3, "a node that has not heard of it");
    port.growth().await.expect("read");
    for claim in &claims[2..] {
        apply(&mut owner, &port, "a", claim, 1).await;
    }
    assert!(sample::known_claims(&port, "a", &keys).await.iter().all(Option::is_some));
    assert_eq!(fresh.number("select count(*) from claims").await, 4, "what was pushed out");
    assert_eq!(fresh.number("select count(ring) from aggregates").await, 1);
    let keys = ["a", "never again", "not there"];
    assert_eq!(spilled(&port, keys).await, [true; 3], "an aggregate that only refused has left no row");
    fresh.run(&mut admin, "update claims_kept set unringed = current_date - 9").await;
    fresh.run(&mut admin, "update aggregates set spilled = spilled - 40").await;
    store.maintain(Retention::default()).await.expect("maintained");
    assert_eq!(spilled(&port, keys).await, [false; 3], "the first day whose claims are there is a later one");
    apply(&mut owner, &port, "a", &claim(5), 1).await;
    assert_eq!(spilled(&port, keys).await, [true, false, false]);
}

/// What a restore from a backup is, once its partitions are taken; but no answer of a read that began before
/// the format was raised.
#[tokio::test]
async fn format_goes_back_only_with_a_take_over() {
    let fresh = Fresh::new().await;
    let (_, port, mut admin) = of(&fresh).await;
    let mut owner = Owner::take(&port, [0]).await;
    fresh.run(&mut admin, "update partitions set format = 2").await;
    for (rows, what) in [(0, "read"), (1, "taken")] {
        if what == "taken" {
            owner = Owner::take(&port, [0]).await;
        } else {
            port.partitions().await.expect("there");
        }
        apply(&mut owner, &port, what, &claim(1), 32).await;
        assert_eq!(fresh.number("select count(*) from claims").await, rows, "{what}");
    }
}

#[tokio::test]
async fn rows_that_have_only_refused_go_with_the_claims_of_their_day() {
    let fresh = Fresh::new().await;
    let (store, port, mut admin) = of(&fresh).await;
    let mut owner = Owner::take(&port, [0]).await;
    for key in ["refused", "again", "born", "mailed", "timed"] {
        owner.write(0, sample::claimed(sample::state(key, 0, 0), vec![claim(0)], 32)).await;
    }
    fresh.run(&mut admin, "update unborn set day = day - 40").await;
    owner.write(0, sample::claimed(StateWrite { revision: 1, ..sample::state("again", 0, 0) }, vec![], 32)).await;
    owner.write(0, sample::claimed(StateWrite { revision: 1, ..sample::state("born", 0, 1) }, vec![], 32)).await;
    owner.write(0, Writes { mailbox: vec![sample::mail("mailed", "m", None)], ..Writes::default() }).await;
    let timer = sample::timer("timed", "t", Some(std::time::Duration::from_hours(1)));
    owner.write(0, Writes { timers: vec![timer], ..Writes::default() }).await;
    store.maintain(Retention::default()).await.expect("maintained");
    let left = "select count(*) from aggregates where key in ('again', 'born', 'mailed', 'timed')";
    assert_eq!((fresh.number(left).await, fresh.number("select count(*) from aggregates").await), (4, 4));
    let left = "select count(*) from unborn where key in ('again', 'mailed', 'timed')";
    assert_eq!((fresh.number(left).await, fresh.number("select count(*) from unborn").await), (3, 3));
    // Once nothing spares them they go as well.
    fresh.run(&mut admin, "delete from mailbox; delete from timers; update unborn set day = day - 40").await;
    store.maintain(Retention::default()).await.expect("maintained");
    let left = "select count(*) from aggregates where key = 'born'";
    assert_eq!((fresh.number(left).await, fresh.number("select count(*) from aggregates").await), (1, 1));
    // An actor that is in memory knows of no deletion.
    owner.write(0, sample::claimed(StateWrite { revision: 1, ..sample::state("refused", 0, 0) }, vec![], 32)).await;
    assert_eq!(fresh.number("select revision from aggregates where key = 'refused'").await, 2);
}

/// It heard events of others, and caused none: its row is spared for what it heard.
#[tokio::test]
async fn row_that_knows_sources_is_on_no_record_of_refusals() {
    let fresh = Fresh::new().await;
    let (_, port, _) = of(&fresh).await;
    let mut owner = Owner::take(&port, [0]).await;
    let heard = StateWrite { sources: [("/inventory".to_owned(), 7)].into(), ..sample::state("a", 0, 0) };
    owner.write(0, Writes { state: Some(heard), ..Writes::default() }).await;
    assert_eq!(fresh.number("select count(*) from aggregates").await, 1);
    assert_eq!(fresh.number("select count(*) from unborn").await, 0);
}

#[tokio::test]
async fn rejection_writes_no_state_again() {
    let fresh = Fresh::new().await;
    let (_, port, _) = of(&fresh).await;
    let mut owner = Owner::take(&port, [0]).await;
    owner.write(0, sample::claimed(sample::state("a", 0, 1), vec![claim(1)], 32)).await;
    let again = StateWrite { bytes: "not written".into(), schema: 9, ..sample::state("a", 1, 1) };
    owner.write(0, sample::claimed(again, vec![claim(1)], 32)).await;
    let row = found(&port, "a", Vec::new()).await.state.expect("readable").expect("there");
    assert_eq!((&row.bytes[..], row.schema, row.revision), (&b"a@1"[..], 1, 2));
}

#[tokio::test]
async fn records_of_refusals_go_in_order() {
    let fresh = Fresh::new().await;
    let (store, port, mut admin) = of(&fresh).await;
    let mut owner = Owner::take(&port, [0]).await;
    owner.write(0, sample::claimed(sample::state("a", 0, 0), vec![claim(0)], 32)).await;
    // Many refusals of one day, the latest of which is read first.
    let many = "update aggregates set revision = 1200; delete from unborn;
        insert into unborn select 'sample', 'a', n, current_date - 40 from generate_series(1200, 1, -1) n";
    fresh.run(&mut admin, many).await;
    let watched = "create table seen (n bigint);
        create function see() returns trigger language plpgsql as
            $$ begin insert into seen select count(*) from unborn; return null; end $$;
        create trigger see after delete on aggregates for each row execute function see()";
    fresh.run(&mut admin, watched).await;
    store.maintain(Retention::default()).await.expect("maintained");
    assert_eq!(fresh.number("select count(*) from aggregates").await, 0);
    assert_eq!(fresh.number("select sum(n)::bigint from seen").await, 0, "the row goes with the last of its records");
}
