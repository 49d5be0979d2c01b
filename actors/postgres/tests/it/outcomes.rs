//! What a commit may say when its connection, its server or its standby fails it (I1, I2, I4).

use std::{sync::Arc, time::Duration};

use holdfast_core::{
    PartitionId,
    batch::Writes,
    epoch::Token,
    pool::PoolChange,
    port::store::{CommitError, Store, StoreError},
};
use holdfast_postgres::PgStore;
use holdfast_stack::{Stack, StackOptions};
use holdfast_testkit::{
    conformance::store::StoreHarness as _,
    sample::{Owner, conditional, draft, entry, state},
};

use crate::fixture::Fresh;

fn writes(key: &str) -> Writes {
    Writes { state: Some(state(key, 0, 1)), outbox: vec![draft("t", key, key)], ..Writes::default() }
}

async fn batch_of(store: &Arc<dyn Store>, partition: usize) -> u64 {
    store.partitions().await.expect("there")[partition].batch
}

async fn registered(fresh: &Fresh, count: u32) -> Arc<dyn Store> {
    let store = fresh.store().await;
    store.register_partitions(count).await.expect("there");
    store
}

/// A server whose commits wait for a standby that never comes, until a test ends the wait by `step_in`.
struct Waiting {
    stack: Stack,
    fresh: Fresh,
    store: Arc<dyn Store>,
}

impl Waiting {
    async fn new() -> Self {
        let stack = Stack::start(StackOptions { kafka: false, ..StackOptions::default() }).await.expect("starts");
        let fresh = Fresh::on(&stack).await;
        let store = registered(&fresh, 2).await;
        Self { stack, fresh, store }
    }

    async fn standby(&self, names: &str) {
        let mut admin = self.fresh.admin().await;
        self.fresh.run(&mut admin, &format!("alter system set synchronous_standby_names = '{names}'")).await;
        self.fresh.run(&mut admin, "select pg_reload_conf()").await;
        // Each backend notices at its next statement.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    /// Waits until a commit waits for the standby, then does `what` to its backend.
    async fn step_in(&self, what: &str) {
        let sql = format!(
            "select count({what}(pid)) from pg_stat_activity
             where application_name = '{}' and wait_event = 'SyncRep'",
            self.fresh.schema
        );
        for _ in 0..500 {
            if self.fresh.number(&sql).await > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no commit waits for the standby");
    }
}

/// Commits `entries` while the standby is away, and does `what` to the backend that waits for it. The commit
/// did happen locally.
async fn outcome_unknown(entries: Vec<holdfast_core::batch::Entry>, what: &str) {
    let waiting = Waiting::new().await;
    let owner = Owner::take(&waiting.store, [0]).await;
    waiting.standby("nobody").await;
    let batch = owner.batch(entries);
    let (store, sent) = (Arc::clone(&waiting.store), batch.clone());
    let commit = tokio::spawn(async move { store.commit(&sent).await });
    waiting.step_in(what).await;
    let outcome = commit.await.expect("no panic");
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    waiting.standby("").await;
    let old = owner.token(0);
    let found = waiting.store.retoken(&[(PartitionId(0), old, Token::draw())]).await.expect("there");
    assert_eq!(found.into_values().collect::<Vec<_>>(), [1], "it happened");
    waiting.stack.stop().await.expect("stops");
}

/// A cancelled wait for the standby commits locally with only a WARNING: that is no acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_a_warning_is_unknown() {
    outcome_unknown(vec![entry(0, writes("a"))], "pg_cancel_backend").await;
}

/// The same for a COMMIT of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_commit_with_a_warning_is_unknown() {
    outcome_unknown(vec![conditional(0, vec![PoolChange::supply("sku", 1)])], "pg_cancel_backend").await;
}

/// The connection dies after the point of no return.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_killed_during_commit_leaves_an_unknown_outcome() {
    outcome_unknown(vec![entry(0, writes("a"))], "pg_terminate_backend").await;
}

/// The same for a COMMIT of its own.
#[tokio::test(flavor = "multi_thread")]
async fn backend_killed_in_conditional_commit_leaves_unknown_outcome() {
    outcome_unknown(vec![conditional(0, vec![PoolChange::supply("sku", 1)])], "pg_terminate_backend").await;
}

/// I1: an answer about an unknown commit must be as durable as the commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_retoken_with_a_warning_is_no_answer() {
    let waiting = Waiting::new().await;
    let owner = Owner::take(&waiting.store, [0]).await;
    waiting.standby("nobody").await;
    let (store, old) = (Arc::clone(&waiting.store), owner.token(0));
    let asked = tokio::spawn(async move { store.retoken(&[(PartitionId(0), old, Token::draw())]).await });
    waiting.step_in("pg_cancel_backend").await;
    assert!(asked.await.expect("no panic").is_err());
    waiting.stack.stop().await.expect("stops");
}

/// The connection dies before anything is written; the same doubt, the other truth.
#[tokio::test(flavor = "multi_thread")]
async fn backend_killed_while_waiting_for_fence_has_not_committed() {
    let fresh = Fresh::new().await;
    let store = registered(&fresh, 1).await;
    let owner = Owner::take(&store, [0]).await;
    let held = fresh.hold_rows(&[PartitionId(0)]).await;
    let (committing, batch) = (Arc::clone(&store), owner.batch(vec![entry(0, writes("a"))]));
    let commit = tokio::spawn(async move { committing.commit(&batch).await });
    fresh.somebody_waits().await;
    assert_eq!(fresh.kill("fenced").await, 1);
    let outcome = commit.await.expect("no panic");
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    drop(held);
    let found = store.retoken(&[(PartitionId(0), owner.token(0), Token::draw())]).await.expect("there");
    assert_eq!(found.into_values().collect::<Vec<_>>(), [0], "it did not happen");
}

/// A conditional commit that dies before COMMIT is known to have written nothing: no need to ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_killed_before_commit_is_merely_unavailable() {
    let fresh = Fresh::new().await;
    let store = registered(&fresh, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let held = fresh.hold_rows(&[PartitionId(0)]).await;
    let (committing, batch) = (Arc::clone(&store), owner.batch(vec![conditional(0, vec![PoolChange::supply("a", 1)])]));
    let sent = batch.clone();
    let commit = tokio::spawn(async move { committing.commit(&sent).await });
    fresh.somebody_waits().await;
    assert_eq!(fresh.kill("locked").await, 1);
    let outcome = commit.await.expect("no panic");
    assert!(matches!(outcome, Err(CommitError::Unavailable(_))), "{outcome:?}");
    drop(held);
    owner.commit_batch(&batch).await.expect("the same batch again");
}

/// Waiting ends, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn commits_end_as_unavailable_while_a_fence_row_stays_held() {
    let fresh = Fresh::new().await;
    let store = registered(&fresh, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let held = fresh.hold_rows(&[PartitionId(0)]).await;
    for batch in [owner.batch(vec![entry(0, writes("a"))]), owner.batch(vec![conditional(0, vec![])])] {
        let outcome = tokio::time::timeout(Duration::from_secs(8), store.commit(&batch)).await.expect("ends");
        assert!(matches!(outcome, Err(CommitError::Unavailable(_))), "{outcome:?}");
    }
    drop(held);
    owner.write(0, writes("a")).await;
}

/// I4: a node that is paused in the middle of a transaction (a conditional commit, the only one that spans
/// statements) keeps its successor waiting for no longer than the server's patience with it.
#[tokio::test(flavor = "multi_thread")]
async fn zombie_holding_fence_row_blocks_successor_for_bounded_time() {
    let fresh = Arc::new(Fresh::new().await);
    let successor = registered(&fresh, 1).await;
    let mut stockist = Owner::take(&successor, [0]).await;
    stockist.commit(vec![conditional(0, vec![PoolChange::supply("sku", 1)])]).await.expect("sound");
    let mut admin = fresh.admin().await;
    fresh.run(&mut admin, "begin; select from pools for update").await;
    let (paused, pause) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    // The zombie has a runtime of its own, of one thread, which is then put to sleep.
    let zombie = std::thread::spawn({
        let (fresh, paused, pause) = (Arc::clone(&fresh), Arc::clone(&paused), Arc::clone(&pause));
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async move {
                let store: Arc<dyn Store> = Arc::new(PgStore::connect(fresh.config()).await.expect("connected"));
                let owner = Owner::take(&store, [0]).await;
                let batch = owner.batch(vec![conditional(0, vec![PoolChange::hold("sku", 1)])]);
                let commit = tokio::spawn(async move { store.commit(&batch).await });
                pause.notified().await;
                paused.notify_one();
                std::thread::sleep(Duration::from_secs(6));
                commit.await.expect("no panic")
            })
        }
    });
    fresh.somebody_waits().await;
    pause.notify_one();
    paused.notified().await;
    // Its lock statement is answered now: it holds fence and pool, and does not know it.
    fresh.run(&mut admin, "rollback").await;
    let row = successor.partitions().await.expect("there").remove(0);
    let begun = std::time::Instant::now();
    let taken = successor.take(row.partition, row.epoch, Token::draw(), "here").await.expect("in time").expect("taken");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(taken.row.batch, 1);
    let outcome = zombie.join().expect("no panic");
    assert!(matches!(outcome, Err(CommitError::Unavailable(_))), "{outcome:?}");
    let pool = successor.pools(&["sku".into()]).await.expect("there")["sku"];
    assert_eq!((pool.total, pool.held), (1, 0));
}

/// Who drops a commit's future drops the answer, not the transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_commit_goes_on() {
    let fresh = Fresh::new().await;
    let store = registered(&fresh, 2).await;
    let owner = Owner::take(&store, [0, 1]).await;
    let held = fresh.hold_rows(&[PartitionId(0), PartitionId(1)]).await;
    for (partition, batch) in [
        owner.batch(vec![entry(0, writes("a"))]),
        owner.batch(vec![conditional(1, vec![PoolChange::supply("sku", 1)])]),
    ]
    .into_iter()
    .enumerate()
    {
        let committing = Arc::clone(&store);
        let commit = tokio::spawn(async move { committing.commit(&batch).await });
        fresh.somebody_waits().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        commit.abort();
        assert!(commit.await.is_err_and(|error| error.is_cancelled()), "partition {partition}");
    }
    drop(held);
    for partition in 0..2 {
        for _ in 0..500 {
            if batch_of(&store, partition).await == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(batch_of(&store, partition).await, 1);
    }
}

/// launchbadge/sqlx#4385: calls dropped at any moment leave no transaction open and no connection that
/// answers another's question.
#[tokio::test(flavor = "multi_thread")]
async fn calls_dropped_at_any_moment_leave_no_transaction_open() {
    let fresh = Fresh::new().await;
    let store = registered(&fresh, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    for n in 0..300_u64 {
        let batch = owner.batch(vec![conditional(0, vec![PoolChange::supply("sku", 1)])]);
        let patience = Duration::from_micros(n * 20);
        if n % 3 == 0 {
            let _ = tokio::time::timeout(patience, store.commit(&batch)).await;
        } else if n % 3 == 1 {
            let _ = tokio::time::timeout(patience, store.partitions()).await;
        } else {
            let _ = tokio::time::timeout(patience, store.outbox(PartitionId(0), 0, 100, usize::MAX)).await;
        }
        // Whatever came of it, the truth is to be had.
        let old = owner.token(0);
        let new = Token::draw();
        let numbers = store.retoken(&[(PartitionId(0), old, new)]).await.expect("there");
        let happened = numbers[&PartitionId(0)] == owner.fence(0).number;
        assert!(happened || numbers[&PartitionId(0)] + 1 == owner.fence(0).number);
        owner = Owner::take(&store, [0]).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let open = format!(
        "select count(*) from pg_stat_activity where application_name = '{}' and state like 'idle in transaction%'",
        fresh.schema
    );
    assert_eq!(fresh.number(&open).await, 0);
    assert!(fresh.backends().await <= 12);
    let rows = store.outbox(PartitionId(0), 0, u32::MAX >> 1, usize::MAX >> 1).await.expect("there");
    let granted = rows.iter().filter(|row| row.draft.value.as_deref() == Some(b"granted")).count();
    let granted = i64::try_from(granted).expect("few");
    assert_eq!(store.pools(&["sku".into()]).await.expect("there").get("sku").map_or(0, |pool| pool.total), granted);
}

/// I1: what was acknowledged survives a server that dies, and the store finds back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_commits_survive_a_killed_server() {
    let stack = Stack::start(StackOptions { kafka: false, ..StackOptions::default() }).await.expect("starts");
    let fresh = Fresh::on(&stack).await;
    let store = registered(&fresh, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    for n in 0..20 {
        owner.write(0, writes(&format!("k{n}"))).await;
    }
    stack.kill_postgres().await;
    let refused = store.commit(&owner.batch(vec![entry(0, writes("x"))])).await;
    assert!(matches!(refused, Err(CommitError::Unknown(_) | CommitError::Unavailable(_))), "{refused:?}");
    let away = store.commit(&owner.batch(vec![entry(0, writes("x"))])).await;
    assert!(matches!(away, Err(CommitError::Unavailable(_))), "nothing was even sent: {away:?}");
    stack.start_postgres().await.expect("starts again");
    // A connection used shortly before is trusted once more: then the first answer of each use says that it
    // is gone.
    while let Err(error) = store.partitions().await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
    while let Err(error) = store.outbox(PartitionId(0), 0, 1, usize::MAX).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
    assert_eq!(batch_of(&store, 0).await, 20);
    assert_eq!(store.outbox(PartitionId(0), 0, 100, usize::MAX).await.expect("there").len(), 20);
    owner.write(0, writes("after")).await;
    stack.stop().await.expect("stops");
}
