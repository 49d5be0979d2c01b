//! Measures the group commit: state + outbox row of about 200 B + claim per command, as the design's
//! reference numbers.
//!
//! `cargo run --release -p holdfast-postgres --example commit_throughput [commands]`; set `DATABASE_URL` to
//! measure a server that runs already, otherwise the embedded stack is started. Batches are built before the
//! clock starts. Deliberately absent: Kafka, actors.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, Headers, KeyHash, PartitionId,
    batch::{Batch, Entry, Fence, OutboxDraft, StateWrite, ViewRow, ViewWrite, Writes},
    dedup::{Answer, Claim, ClaimKey},
    epoch::{Generation, Token},
    port::store::{Store, Wanted},
    ring::Ring,
};
use holdfast_postgres::{Config, PgStore, View, migrate};
use holdfast_stack::{Stack, StackOptions};
use uuid::Uuid;

const PARTITIONS: u32 = 12;
/// Fences in one batch.
const SPREAD: u32 = 4;
const VIEW: View = View {
    name: "bench",
    kind: "order",
    upsert: "insert into bench_view select * from jsonb_populate_recordset(null::bench_view, $1)
        on conflict (id) do update set version = excluded.version, status = excluded.status, total = excluded.total",
};
const VIEW_SQL: &str =
    "create table bench_view (id text primary key, version bigint, status text, total bigint) with (fillfactor = 80)";

/// One committer's partitions, and its aggregates with their versions.
struct Worker {
    fences: Vec<Fence>,
    aggregates: Vec<(AggregateId, PartitionId, u64)>,
    next: usize,
}

#[derive(Clone, Copy)]
struct Work {
    batch: usize,
    view: bool,
    v7: bool,
}

impl Worker {
    fn batch(&mut self, work: Work) -> Batch {
        let mut entries = Vec::with_capacity(work.batch);
        for _ in 0..work.batch {
            let at = self.next % self.aggregates.len();
            self.next += 1;
            let (id, partition, version) = &mut self.aggregates[at];
            let before = *version;
            *version += 1;
            entries.push(Entry {
                partition: *partition,
                condition: None,
                writes: writes(id, *partition, before, work),
            });
        }
        let mut fences = self.fences.clone();
        for (fence, next) in fences.iter_mut().zip(&mut self.fences) {
            next.number += 1;
            next.outbox_head += entries.iter().filter(|entry| entry.partition == fence.partition).count() as u64;
            next.cursor = Some(next.outbox_head);
            next.consumed[0].1 += 100;
        }
        Batch { fences, entries }
    }
}

fn writes(id: &AggregateId, partition: PartitionId, before: u64, work: Work) -> Writes {
    let mut headers = Headers::default();
    headers.push("ce_id", "0190b0a4-0000-7000-8000-000000000001");
    headers.push("ce_type", "holdfast.orders.v1.OrderPlaced");
    let hash = KeyHash::of(id.key.as_bytes());
    let claim = if work.v7 { Uuid::now_v7() } else { Uuid::new_v4() };
    let claims = vec![Claim {
        key: ClaimKey { id: claim, scope: Uuid::new_v4() },
        body: Uuid::new_v4(),
        answer: Answer::Applied { version: before + 1, reply: Bytes::new() },
    }];
    Writes {
        state: Some(StateWrite {
            id: id.clone(),
            hash,
            expected: before,
            revision: before,
            version: before + 1,
            schema: 1,
            bytes: Bytes::from_static(&[7; 150]),
            sources: BTreeMap::new(),
            ring: Ring::default().push(&claims, 1).ring,
            spills: false,
        }),
        outbox: vec![OutboxDraft {
            id: Uuid::now_v7(),
            topic: "orders.events".into(),
            target: partition,
            key: Some(Bytes::copy_from_slice(id.key.as_bytes())),
            headers,
            value: Some(Bytes::from_static(&[3; 200])),
        }],
        claims,
        view: work.view.then(|| ViewWrite {
            id: id.clone(),
            row: ViewRow::of(
                &serde_json::json!({"id": &*id.key, "version": before + 1, "status": "PLACED", "total": 12345}),
            ),
        }),
        ..Writes::default()
    }
}

async fn workers(store: &PgStore, count: u32, aggregates: usize) -> Vec<Worker> {
    let rows = store.partitions().await.expect("partitions");
    let mut workers = Vec::new();
    for worker in 0..count {
        let mut fences = Vec::new();
        for row in rows.iter().skip((worker * SPREAD) as usize).take(SPREAD as usize) {
            let token = Token::draw();
            let row = store.take(row.partition, row.epoch, token, "bench").await.expect("take").expect("ours").row;
            fences.push(Fence {
                partition: row.partition,
                token,
                generation: Generation(1),
                number: row.batch + 1,
                outbox_head: row.outbox_head,
                consumed: vec![("orders.commands".into(), 0)],
                cursor: None,
            });
        }
        let aggregates = (0..aggregates)
            .map(|n| {
                let key = Uuid::now_v7().to_string();
                (AggregateId { kind: "order", key: key.into() }, fences[n % fences.len()].partition, 0)
            })
            .collect();
        workers.push(Worker { fences, aggregates, next: 0 });
    }
    workers
}

async fn measure(store: &Arc<PgStore>, committers: u32, commands: usize, work: Work, finds: bool) -> f64 {
    let share = commands / committers as usize;
    // Each aggregate is made once and then changed three times.
    let mut jobs = Vec::new();
    for mut worker in workers(store, committers, share / 4).await {
        let batches: Vec<Batch> = (0..share / work.batch).map(|_| worker.batch(work)).collect();
        jobs.push(batches);
    }
    let start = Instant::now();
    let mut tasks = Vec::new();
    for batches in jobs {
        let store = Arc::clone(store);
        tasks.push(tokio::spawn(async move {
            let (mut done, mut in_commit) = (0, Duration::ZERO);
            for batch in &batches {
                if finds {
                    let states = || batch.entries.iter().filter_map(|entry| entry.writes.state.as_ref());
                    let wanted: Vec<Wanted> = states().map(|state| Wanted::state(state.id.clone())).collect();
                    store.find(&wanted).await.expect("find");
                }
                let begun = Instant::now();
                let committed = store.commit(batch).await.expect("commit");
                assert!(committed.stale.is_empty());
                in_commit += begun.elapsed();
                done += batch.entries.len();
            }
            (done, in_commit / u32::try_from(batches.len().max(1)).expect("few"))
        }));
    }
    let mut done = 0;
    let mut mean = Duration::ZERO;
    for task in tasks {
        let (commands, each) = task.await.expect("task");
        done += commands;
        mean = each;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate to print")]
    let rate = done as f64 / start.elapsed().as_secs_f64();
    println!(
        "batch {:>4}  committers {committers}  view {:>5}  v7 {:>5}  find {finds:>5}: {rate:>8.0}/s, {mean:?} a commit",
        work.batch, work.view, work.v7
    );
    rate
}

#[tokio::main]
async fn main() {
    let commands = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(100_000);
    let mut stack = None;
    let url = if let Ok(url) = std::env::var("DATABASE_URL") {
        url
    } else {
        let options = StackOptions { kafka: false, ..StackOptions::default() };
        let started = Stack::start(options).await.expect("stack");
        let url = started.postgres_url("postgres");
        stack = Some(started);
        url
    };
    let schema = format!("bench_{}", Uuid::new_v4().simple());
    migrate(&url, &schema, None, &[(1, "view", VIEW_SQL)]).await.expect("migrate");
    let store = Arc::new(PgStore::connect(Config::new(url, schema).with_views([VIEW])).await.expect("connect"));
    store.register_partitions(PARTITIONS).await.expect("register");
    let plain = |batch| Work { batch, view: false, v7: true };
    measure(&store, 1, 20_000, plain(256), true).await;
    println!("--");
    if let Some(only) = std::env::args().nth(2) {
        // For example `2x256+view+find+v4`.
        let number = |text: &str| text.parse().expect("a number");
        let (shape, rest) = only.split_once('+').unwrap_or((&only, ""));
        let (committers, batch) = shape.split_once('x').expect("committers x batch");
        let work = Work { batch: number(batch), view: rest.contains("view"), v7: !rest.contains("v4") };
        let committers = u32::try_from(number(committers)).expect("few");
        measure(&store, committers, commands, work, rest.contains("find")).await;
    } else {
        for committers in [1, 2, 3] {
            for batch in [64, 256, 512] {
                measure(&store, committers, commands, plain(batch), false).await;
            }
        }
        measure(&store, 2, commands, Work { v7: false, ..plain(256) }, false).await;
        measure(&store, 2, commands, Work { view: true, ..plain(256) }, false).await;
        measure(&store, 2, commands, plain(256), true).await;
        measure(&store, 2, commands, Work { v7: false, ..plain(256) }, true).await;
    }
    drop(store);
    if let Some(stack) = stack {
        stack.stop().await.expect("stop");
    }
}
