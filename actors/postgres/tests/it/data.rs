//! Which errors are a row's own fault, and stock under fire (I2).

use std::{sync::Arc, time::Duration};

use holdfast_core::{
    PartitionId, Timestamp,
    batch::{Entry, MailboxWrite, ViewRow, ViewWrite, Writes},
    pool::{Pool, PoolChange},
    port::store::{CommitError, MailLimit, Store},
};
use holdfast_testkit::sample::{Owner, conditional, entry, hash, id, mail, record, state};
use serde_json::json;

use crate::fixture::Fresh;

/// Each names itself as data, so that the committer's bisection ends at it and not at its neighbours.
#[tokio::test(flavor = "multi_thread")]
async fn bad_row_is_a_data_error_and_its_neighbours_still_commit() {
    let fresh = Fresh::new().await;
    let store = fresh.store().await;
    store.register_partitions(1).await.expect("there");
    let mut owner = Owner::take(&store, [0]).await;
    let view = |row| Writes { view: Some(ViewWrite { id: id("v"), row: ViewRow::of(&row) }), ..Writes::default() };
    let mailbox = |change| Writes { mailbox: vec![change], ..Writes::default() };
    let foreign = holdfast_core::AggregateId { kind: "unheard-of", key: "v".into() };
    let mut far = record("a", u64::MAX, "x");
    far.timestamp = Some(Timestamp::from_unix_ms(i64::MAX));
    let put = |offset| MailboxWrite::Put {
        id: id("a"),
        hash: hash("a"),
        reason: holdfast_core::disposition::WaitReason::Retrying,
        attempts: 0,
        after: None,
        since: Timestamp::from_unix_ms(0),
        error: String::new(),
        record: holdfast_core::Record { offset, ..far.clone() },
    };
    let cases = [
        ("key beyond any index", Writes { state: Some(state(&"k".repeat(3_000), 0, 1)), ..Writes::default() }),
        ("version beyond bigint", Writes { state: Some(state("a", 0, u64::MAX)), ..Writes::default() }),
        ("nul in a view", view(json!({"text": "a\0b"}))),
        ("a view that is no object", view(json!([1]))),
        (
            "a view nobody defined",
            Writes { view: Some(ViewWrite { id: foreign, row: ViewRow::of(&json!({})) }), ..Writes::default() },
        ),
        ("offset beyond bigint", mailbox(put(u64::MAX))),
        (
            "nul in an error",
            mailbox(MailboxWrite::Defer {
                position: 1,
                reason: holdfast_core::disposition::WaitReason::Retrying,
                attempts: 1,
                after: Duration::MAX,
                error: "\0".into(),
            }),
        ),
    ];
    for (what, writes) in cases {
        let good = entry(0, Writes { state: Some(state(what, 0, 1)), ..Writes::default() });
        let outcome = owner.commit(vec![good.clone(), entry(0, writes.clone())]).await;
        assert!(
            matches!(&outcome, Err(CommitError::Data { sqlstate, .. }) if ["22", "23", "54"].contains(&&sqlstate[..2])),
            "{what}: {outcome:?}"
        );
        assert!(matches!(owner.commit(vec![entry(0, writes)]).await, Err(CommitError::Data { .. })), "{what}");
        owner.commit(vec![good]).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    // What looks as bad but is a stranger's right: any timestamp, any delay, a place in the queue.
    owner.write(0, mailbox(put(7))).await;
    owner.write(0, mailbox(mail("b", "x", Some(Duration::MAX)))).await;
    let waiting = store.due_mail(&holdfast_testkit::sample::everything(1), MailLimit::of(10)).await.expect("there");
    assert_eq!(waiting.iter().map(|mail| mail.record.timestamp).collect::<Vec<_>>(), [far.timestamp]);
}

/// A limit of the server is a row's own fault; a statement that it ended for its time is nobody's, and splits
/// the batch alone.
#[tokio::test(flavor = "multi_thread")]
async fn limit_is_data_and_timeout_is_slow() {
    let fresh = Fresh::new().await;
    let config = fresh.config();
    let (statement_timeout, lock_timeout) = (Duration::from_millis(500), Duration::from_secs(20));
    let config = holdfast_postgres::Config { statement_timeout, lock_timeout, ..config };
    let store: Arc<dyn Store> = Arc::new(holdfast_postgres::PgStore::connect(config).await.expect("connected"));
    store.register_partitions(1).await.expect("there");
    let mut owner = Owner::take(&store, [0]).await;
    let mut admin = fresh.admin().await;
    let limit = "create function limit_reached() returns trigger language plpgsql as
        $$ begin if new.key = 'large' then raise exception 'too large' using errcode = '54000'; end if; return new; end $$;
        create trigger limit_reached before insert on aggregates for each row execute function limit_reached();";
    fresh.run(&mut admin, limit).await;
    let write = |key: &str| entry(0, Writes { state: Some(state(key, 0, 1)), ..Writes::default() });
    let outcome = owner.commit(vec![write("a"), write("large")]).await;
    assert!(matches!(&outcome, Err(CommitError::Data { sqlstate, .. }) if sqlstate == "54000"), "{outcome:?}");
    let held = holdfast_testkit::conformance::store::StoreHarness::hold_rows(&fresh, &[PartitionId(0)]).await;
    for entries in [vec![write("a")], vec![conditional(0, vec![PoolChange::supply("sku", 1)])]] {
        let outcome = owner.commit(entries).await;
        assert!(matches!(&outcome, Err(CommitError::Slow(_))), "{outcome:?}");
    }
    drop(held);
    // The server rolls back as soon as it notices.
    let mut done = owner.commit(vec![write("a")]).await;
    while matches!(done, Err(CommitError::Slow(_))) {
        done = owner.commit(vec![write("a")]).await;
    }
    assert_eq!(done.expect("nothing was written before").stale, []);
}

fn wants(partition: u32, n: u64) -> Vec<Entry> {
    (0..4)
        .map(|k| conditional(partition, vec![PoolChange::hold("sku", if (n + k).is_multiple_of(5) { -1 } else { 1 })]))
        .collect()
}

/// Two stores, one hot pool, backends killed all the time: what the outbox says was granted is what is held,
/// exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_pool_conserves_under_fire() {
    let fresh = Arc::new(Fresh::new().await);
    let first = fresh.store().await;
    first.register_partitions(3).await.expect("there");
    let mut stockist = Owner::take(&first, [2]).await;
    stockist.commit(vec![conditional(2, vec![PoolChange::supply("sku", 150)])]).await.expect("sound");
    let mut buyers = Vec::new();
    for partition in 0..2 {
        let fresh = Arc::clone(&fresh);
        buyers.push(tokio::spawn(async move {
            let store = fresh.store().await;
            let mut owner = Owner::take(&store, [partition]).await;
            let (mut held, mut unknown) = (0_i64, 0);
            for n in 0..150 {
                let entries = wants(partition, n);
                let gains: Vec<i64> = (0..4).map(|k| if (n + k).is_multiple_of(5) { -1 } else { 1 }).collect();
                match owner.commit(entries).await {
                    Ok(done) => {
                        held += done.granted.iter().zip(gains).filter(|(yes, _)| **yes).map(|(_, by)| by).sum::<i64>();
                    }
                    Err(CommitError::Unknown(_)) => {
                        unknown += 1;
                        owner = Owner::take(&store, [partition]).await;
                    }
                    Err(CommitError::Unavailable(_)) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            (held, unknown)
        }));
    }
    let killer = tokio::spawn({
        let fresh = Arc::clone(&fresh);
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(40)).await;
                fresh.kill("").await;
            }
        }
    });
    let (mut held, mut unknown) = (0, 0);
    for buyer in buyers {
        let (theirs, doubts) = buyer.await.expect("no panic");
        held += theirs;
        unknown += doubts;
    }
    killer.abort();
    let store = fresh.store().await;
    let pool: Pool = store.pools(&["sku".into()]).await.expect("there")["sku"];
    assert!(0 <= pool.held && pool.held <= pool.total && pool.total == 150, "{pool:?}");
    if unknown == 0 {
        assert_eq!(pool.held, held);
    }
    // Numbers and outbox agree whatever died: no gap, no double.
    for row in store.partitions().await.expect("there") {
        let rows = store.outbox(row.partition, 0, 10_000, usize::MAX).await.expect("there");
        assert!(rows.iter().map(|row| row.sequence).eq(1..=row.outbox_head), "partition {}", row.partition);
        assert_eq!(rows.len() as u64, if row.partition.0 == 2 { 1 } else { row.batch * 4 });
    }
}

/// I4 and I3: two nodes that both believe they own a partition; each batch is written by one of them, numbers
/// without gaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_on_one_partition_never_both_commit_a_batch() {
    let fresh = Arc::new(Fresh::new().await);
    let store = fresh.store().await;
    store.register_partitions(1).await.expect("there");
    let mut nodes = Vec::new();
    // Takes come one after the other ([`Owner::take`] fails if it is beaten to it); commits come whenever
    // they like.
    let taking = Arc::new(tokio::sync::Mutex::new(()));
    for node in 0..2 {
        let (fresh, taking) = (Arc::clone(&fresh), Arc::clone(&taking));
        nodes.push(tokio::spawn(async move {
            let store = fresh.store().await;
            let mut mine = 0_u64;
            let mut lost = 0;
            while mine < 60 {
                let turn = taking.lock().await;
                let mut owner = Owner::take(&store, [0]).await;
                drop(turn);
                for _ in 0..5 {
                    let writes = Writes {
                        outbox: vec![holdfast_testkit::sample::draft("t", "k", &format!("{node}"))],
                        ..Writes::default()
                    };
                    let done = owner.commit(vec![entry(0, writes)]).await.expect("there");
                    if done.stale.is_empty() {
                        mine += 1;
                    } else {
                        assert_eq!((done.granted, done.outbox.len(), done.heads.len()), (vec![false], 0, 0));
                        lost += 1;
                        break;
                    }
                }
            }
            (mine, lost)
        }));
    }
    let (mut total, mut lost) = (0, 0);
    for node in nodes {
        let (theirs, stale) = node.await.expect("no panic");
        (total, lost) = (total + theirs, lost + stale);
    }
    assert!(lost > 0, "they never met");
    let row = store.partitions().await.expect("there").remove(0);
    let rows = store.outbox(PartitionId(0), 0, 10_000, usize::MAX).await.expect("there");
    assert_eq!((row.batch, row.outbox_head, rows.len() as u64), (total, total, total));
    assert!(rows.iter().map(|row| row.sequence).eq(1..=total));
}
