//! Days come and go while commits and look-ups run: none fails, none waits, nothing is lost (I2, I6, I7).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    batch::Writes,
    dedup::{Claim, ClaimKey},
    port::store::Store,
};
use holdfast_postgres::{Config, PgStore, Retention, STEP_TIMEOUT};
use holdfast_testkit::sample::{Owner, claim, count_outside, draft, pushed_out};
use uuid::Uuid;

use crate::fixture::Fresh;

const WRITERS: u32 = 3;
const ROUNDS: usize = 12;

/// What the tasks share.
struct Shop {
    fresh: Fresh,
    is_over: AtomicBool,
}

impl Shop {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// A store whose statements fail if they wait for a lock for longer than maintenance may keep them
    /// waiting. The machine may be as slow as it likes.
    async fn store(&self) -> Arc<dyn Store> {
        let statement_timeout = Duration::from_mins(1);
        let config = Config { lock_timeout: STEP_TIMEOUT, statement_timeout, ..self.fresh.config() };
        Arc::new(PgStore::connect(config).await.expect("connected"))
    }

    /// Commits claims of both kinds of id with an outbox row each, as long as the test goes on; looks for
    /// some of them in between.
    async fn write(&self, partition: u32) -> Vec<Claim> {
        let store = self.store().await;
        let mut owner = Owner::take(&store, [partition]).await;
        let mut written: Vec<Claim> = Vec::new();
        while !self.is_over() {
            let ids = [Uuid::new_v4(), Uuid::now_v7()];
            let claims = ids.map(|id| Claim { key: ClaimKey { id, scope: Uuid::new_v4() }, ..claim(1) });
            let outbox = claims.iter().map(|claim| draft("t", "k", &claim.key.id.to_string())).collect();
            let writes = Writes { outbox, ..pushed_out(&claims) };
            owner.write(partition, writes).await;
            written.extend(claims);
            // One kind of id at a time: an id of version 4 is looked for in all days, others in a few.
            for kind in 0..2 {
                let asked: Vec<Claim> = written.iter().rev().skip(kind).step_by(2).take(20).cloned().collect();
                assert_eq!(count_outside(&store, &asked).await, asked.len(), "a claim was not found");
            }
            let after = (written.len() as u64).saturating_sub(10);
            let rows = store.outbox(PartitionId(partition), after, 100, usize::MAX).await;
            assert_eq!(rows.expect("a read never fails").len() as u64, written.len() as u64 - after);
        }
        written
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_opened_and_dropped_under_load_hold_up_nobody() {
    let shop = Arc::new(Shop { fresh: Fresh::new().await, is_over: AtomicBool::new(false) });
    let store = PgStore::connect(shop.fresh.config()).await.expect("connected");
    store.register_partitions(WRITERS).await.expect("there");
    let writers: Vec<_> = (0..WRITERS)
        .map(|partition| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move { shop.write(partition).await })
        })
        .collect();
    let mut admin = shop.fresh.admin().await;
    shop.fresh.run(&mut admin, &format!("set role {}", shop.fresh.schema)).await;
    let (mut opened, mut dropped) = (0, 0);
    for round in 0..ROUNDS {
        let open = format!(
            "select open_day(parent, current_date - {}) from unnest(array['claims', 'outbox']) as parent",
            20 + round % 3
        );
        shop.fresh.run(&mut admin, &open).await;
        opened += 2;
        // What a busy moment has postponed is done in one of the next runs.
        dropped += store.maintain(Retention::default()).await.expect("maintained").dropped.len();
        assert!(writers.iter().all(|writer| !writer.is_finished()), "a writer has failed");
    }
    let left = "select count(*) from pg_inherits join pg_class c on c.oid = inhrelid
        where inhparent in (to_regclass('claims'), to_regclass('outbox')) and relname ~ '_[0-9]{8}$'
            and right(relname, 8)::int < to_char(current_date, 'YYYYMMDD')::int";
    for _ in 0..100 {
        if shop.fresh.number(left).await == 0 {
            break;
        }
        dropped += store.maintain(Retention::default()).await.expect("maintained").dropped.len();
    }
    shop.is_over.store(true, Ordering::Release);
    for (partition, writer) in (0..WRITERS).zip(writers) {
        let written = writer.await.expect("no statement failed, waited or missed a row");
        assert!(written.len() > ROUNDS, "there was load");
        let port: Arc<dyn Store> = Arc::new(store.clone());
        assert_eq!(count_outside(&port, &written).await, written.len());
        let rows = store.outbox(PartitionId(partition), 0, u32::MAX, usize::MAX).await.expect("there");
        assert!(rows.iter().map(|row| row.sequence).eq(1..=written.len() as u64));
    }
    assert_eq!(shop.fresh.number(left).await, 0, "all days are dropped in the end, load or not");
    assert!((6..=opened).contains(&dropped), "{dropped} of {opened} dropped");
}
