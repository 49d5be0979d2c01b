//! The [`Store`] port on Postgres.
//!
//! Composition only: which connection, which deadline, which map of errors. Deliberately absent: SQL.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use holdfast_core::{
    PartitionId,
    batch::{Batch, OutboxDraft, OutboxRow},
    epoch::{Beat, Epoch, Generation, Halt, PartitionRow, Token},
    growth::Growth,
    pool::Pool,
    port::store::{
        CommitError, Committed, Cursor, DueEffect, DueTimer, Found, MailLimit, Slice, Store, StoreError, Taken,
        Waiting, Wanted,
    },
    seal::Seal,
    stuck::{Queue, Release, SetAside, Stuck},
};
use sqlx::PgConnection;
use tokio::time::{error::Elapsed, timeout};

use crate::{
    commit::Committer,
    config::Config,
    error, growth, history,
    lanes::{Lane, Lanes},
    maintain::{self, Maintained, Retention},
    notice, ownership, query, read,
    statement::Statements,
    stuck,
};

/// One context's store. Clones share connections.
#[derive(Clone)]
pub struct PgStore {
    committer: Committer,
    /// For reads of the loop.
    reads: Arc<Lanes>,
    /// For what a lease hangs on, plain reads and beats: never behind a stuck commit.
    leases: Arc<Lanes>,
    /// For writes to partition rows outside commits; they may wait for a lock.
    pub(crate) turns: Arc<Lanes>,
    /// For opening and dropping days.
    chores: Arc<Lanes>,
    /// For questions to read models, which nothing of the loop may wait for.
    pub(crate) questions: Arc<Lanes>,
    client_timeout: Duration,
}

impl PgStore {
    /// Connects, and checks that the server and the schema are fit: Postgres 18, migrated, durable commits.
    pub fn connect(config: Config) -> BoxFuture<'static, Result<Self, StoreError>> {
        Box::pin(async move {
            check_views(&config)?;
            let options = config.options()?;
            let lanes = |limit| Lanes::new(options.clone(), limit, config.connect_timeout);
            let client_timeout = config.client_timeout();
            let store = Self {
                reads: lanes(config.readers),
                leases: lanes(2),
                turns: lanes(2),
                chores: Lanes::new(maintain::session(&options), 1, config.connect_timeout),
                questions: Lanes::new(query::session(&options), config.readers, config.connect_timeout),
                client_timeout,
                committer: Committer {
                    lanes: lanes(config.committers),
                    statements: Arc::new(Statements::new(config.views)),
                    client_timeout,
                },
            };
            store.check().await?;
            Ok(store)
        })
    }

    async fn check(&self) -> Result<(), StoreError> {
        let mut lane = self.leases.enter().await?;
        let answer = self.read(fitness(lane.connection())).await;
        match self.leave(lane, answer)? {
            (version, ..) if version < 180_000 => {
                Err(StoreError::Broken(format!("Postgres 18 is needed, this is {version}")))
            }
            (_, synchronous, _) if synchronous == "off" => {
                Err(StoreError::Broken("synchronous_commit is off: what was acknowledged could be lost (I1)".into()))
            }
            (.., false) => Err(StoreError::Broken("the schema is not migrated; run `holdfast migrate`".into())),
            _ => Ok(()),
        }
    }

    /// Makes the tables of the coming days, drops those of days gone by, and sweeps what no day holds. To be
    /// called every hour or so, by any number of nodes. What could not be done is in the answer; an error
    /// means that the connection was lost.
    pub fn maintain(&self, retention: Retention) -> BoxFuture<'_, Result<Maintained, StoreError>> {
        Box::pin(async move {
            let mut lane = self.chores.enter().await?;
            match maintain::run(lane.connection(), retention, self.client_timeout).await {
                Ok(done) => {
                    lane.done();
                    Ok(done)
                }
                // Closing the connection ends whatever it was at, and lets another node take the turn.
                Err(failed) => Err(error::store(&failed)),
            }
        })
    }

    /// How many aggregates have another home among `to` partitions than among `from`, and how many there are.
    /// Reads the whole table.
    pub fn moving(&self, from: u32, to: u32) -> BoxFuture<'_, Result<(u64, u64), StoreError>> {
        Box::pin(async move {
            let mut lane = self.questions.enter().await?;
            let answer = self.read(growth::moving(lane.connection(), from, to)).await;
            self.leave(lane, answer)
        })
    }

    /// Ends the use of a lane, by what came of it.
    pub(crate) fn leave<T>(&self, lane: Lane, answer: Answered<T>) -> Result<T, StoreError> {
        match answer {
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {:?}", self.client_timeout))),
            Ok(Ok(answer)) => {
                lane.done();
                Ok(answer)
            }
            Ok(Err(failed)) => {
                // After a plain error the connection is as good as before; after anything else, who knows.
                if !error::ended(&failed) {
                    lane.done();
                }
                Err(error::store(&failed))
            }
        }
    }

    /// Waits for `work`, a read.
    pub(crate) async fn read<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Answered<T> {
        timeout(self.client_timeout, work).await
    }

    /// Waits for `work`, a write whose answer something durable is concluded from: one that comes with a
    /// warning is no answer.
    pub(crate) async fn write<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Answered<T> {
        match notice::watch(timeout(self.client_timeout, work)).await {
            (Ok(Ok(_)), true) => Ok(Err(sqlx::Error::Protocol("committed with a warning".into()))),
            (answer, _) => answer,
        }
    }
}

type Answered<T> = Result<Result<T, sqlx::Error>, Elapsed>;

/// Server version, `synchronous_commit`, whether the runtime's tables are there.
async fn fitness(connection: &mut PgConnection) -> Result<(i32, String, bool), sqlx::Error> {
    sqlx::query_as(
        "select current_setting('server_version_num')::int, current_setting('synchronous_commit'),
            to_regclass('unfiled') is not null and to_regclass('outbox_stuck') is not null and to_regprocedure('early(date)') is not null
                and exists (select from pg_attribute where attrelid = to_regclass('timers') and attname = 'serial')",
    )
    .fetch_one(connection)
    .await
}

fn check_views(config: &Config) -> Result<(), StoreError> {
    let sound = |upsert: &str| {
        upsert.contains("$1") && !upsert.contains(';') && !(2..10).any(|n| upsert.contains(&format!("${n}")))
    };
    if config.views.len() > 16 {
        return Err(StoreError::Broken("more than 16 views".into()));
    }
    match config.views.iter().find(|view| !sound(view.upsert)) {
        Some(view) => Err(StoreError::Broken(format!("view {}: one statement with $1 alone is wanted", view.name))),
        None => Ok(()),
    }
}

#[async_trait]
impl Store for PgStore {
    async fn register_partitions(&self, count: u32) -> Result<(), StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(growth::register(lane.connection(), count)).await;
        self.leave(lane, answer)
    }

    async fn note_count(&self, topic: &str, count: u32) -> Result<(), StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(growth::note_count(lane.connection(), topic, count)).await;
        self.leave(lane, answer)
    }

    async fn growth(&self) -> Result<Growth, StoreError> {
        let mut lane = self.leases.enter().await?;
        let answer = self.read(growth::all(lane.connection())).await;
        self.leave(lane, answer)
    }

    async fn bump(&self, from: Generation, count: u32) -> Result<(), StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(growth::bump(lane.connection(), from, count)).await;
        self.leave(lane, answer)
    }

    async fn acknowledge(
        &self,
        partition: PartitionId,
        token: Token,
        generation: Generation,
        mark: Option<OutboxDraft>,
    ) -> Result<Option<PartitionRow>, StoreError> {
        let mut lane = self.turns.enter().await?;
        let asked = growth::acknowledge(lane.connection(), partition, token, generation, mark.as_ref());
        let answer = self.write(asked).await;
        self.leave(lane, answer)
    }

    async fn note_mark(&self, topic: &str, partition: PartitionId, count: u32) -> Result<(), StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(growth::note_mark(lane.connection(), topic, partition, count)).await;
        self.leave(lane, answer)
    }

    async fn note_ends(&self, topic: &str, count: u32, ends: &[u64]) -> Result<(), StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(growth::note_ends(lane.connection(), topic, count, ends)).await;
        self.leave(lane, answer)
    }

    async fn end_transition(&self, topic: &str, count: u32) -> Result<(), StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(growth::end_transition(lane.connection(), topic, count)).await;
        self.leave(lane, answer)
    }

    async fn partitions(&self) -> Result<Vec<PartitionRow>, StoreError> {
        let mut lane = self.leases.enter().await?;
        let answer = self.read(ownership::all(lane.connection())).await;
        self.leave(lane, answer)
    }

    async fn take(
        &self,
        partition: PartitionId,
        expected: Epoch,
        token: Token,
        address: &str,
    ) -> Result<Option<Taken>, StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(ownership::take(lane.connection(), partition, expected, token, address)).await;
        self.leave(lane, answer)
    }

    async fn beat(&self, address: &str, beat: Beat) -> Result<BTreeMap<String, Beat>, StoreError> {
        let mut lane = self.leases.enter().await?;
        let answer = self.write(ownership::beat(lane.connection(), address, beat)).await;
        self.leave(lane, answer)
    }

    async fn tokens(&self, partitions: &[PartitionId]) -> Result<Vec<(PartitionId, Option<Token>)>, StoreError> {
        let mut lane = self.leases.enter().await?;
        let answer = self.read(ownership::tokens(lane.connection(), partitions)).await;
        self.leave(lane, answer)
    }

    async fn release(&self, partition: PartitionId, token: Token) -> Result<bool, StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(ownership::release(lane.connection(), partition, token)).await;
        self.leave(lane, answer)
    }

    async fn retoken(&self, changes: &[(PartitionId, Token, Token)]) -> Result<BTreeMap<PartitionId, u64>, StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(ownership::retoken(lane.connection(), changes)).await;
        self.leave(lane, answer)
    }

    async fn find(&self, wanted: &Wanted) -> Result<Found, StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(read::find(lane.connection(), wanted)).await;
        self.leave(lane, answer)
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        self.committer.commit(batch).await
    }

    async fn outbox(
        &self,
        partition: PartitionId,
        after: u64,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(read::outbox(lane.connection(), partition, after, limit, bytes_max)).await;
        self.leave(lane, answer)
    }

    async fn set_aside(&self, partition: PartitionId, token: Token, rows: &[SetAside]) -> Result<bool, StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(stuck::set_aside(lane.connection(), partition, token, rows)).await;
        self.leave(lane, answer)
    }

    async fn stuck(&self) -> Result<BTreeMap<Queue, u64>, StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(stuck::queues(lane.connection())).await;
        self.leave(lane, answer)
    }

    async fn released(&self, slice: &Slice, limit: u32) -> Result<Vec<Stuck>, StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(stuck::released(lane.connection(), slice, limit)).await;
        self.leave(lane, answer)
    }

    async fn end_release(
        &self,
        partition: PartitionId,
        token: Token,
        position: i64,
        end: &Release,
    ) -> Result<bool, StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(stuck::end_release(lane.connection(), partition, token, position, end)).await;
        self.leave(lane, answer)
    }

    async fn advance(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(ownership::advance(lane.connection(), cursors)).await;
        self.leave(lane, answer)
    }

    async fn halt(&self, halt: Option<&Halt>) -> Result<(), StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(history::halt(lane.connection(), halt)).await;
        self.leave(lane, answer)
    }

    async fn incarnations(&self, seen: &[(String, String)]) -> Result<BTreeMap<String, String>, StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(history::incarnations(lane.connection(), seen)).await;
        self.leave(lane, answer)
    }

    async fn accept_topic(
        &self,
        topic: &str,
        mark: Option<&str>,
        places: &[(PartitionId, u64)],
        events: bool,
    ) -> Result<(), StoreError> {
        let mut lane = self.turns.enter().await?;
        let answer = self.write(history::accept(lane.connection(), topic, mark, places, events)).await;
        self.leave(lane, answer)
    }

    async fn due_timers(&self, slice: &Slice, limit: u32) -> Result<Vec<DueTimer>, StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(read::due_timers(lane.connection(), slice, limit)).await;
        self.leave(lane, answer)
    }

    async fn put_off_timers(&self, timers: &[DueTimer]) -> Result<(), StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(read::put_off_timers(lane.connection(), timers)).await;
        self.leave(lane, answer)
    }

    async fn due_effects(&self, slice: &Slice, limit: u32, hold: Duration) -> Result<Vec<DueEffect>, StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(read::due_effects(lane.connection(), slice, limit, hold)).await;
        self.leave(lane, answer)
    }

    async fn put_off_effect(
        &self,
        kind: &str,
        key: &str,
        name: &str,
        after: Duration,
        error: &str,
    ) -> Result<(), StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(read::put_off_effect(lane.connection(), kind, key, name, after, error)).await;
        self.leave(lane, answer)
    }

    async fn due_mail(&self, slice: &Slice, limit: MailLimit) -> Result<Vec<Waiting>, StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(read::due_mail(lane.connection(), slice, limit)).await;
        self.leave(lane, answer)
    }

    async fn mail_waiting(&self, slice: &Slice) -> Result<BTreeMap<PartitionId, u64>, StoreError> {
        let mut lane = self.questions.enter().await?;
        let answer = self.read(read::mail_waiting(lane.connection(), slice)).await;
        self.leave(lane, answer)
    }

    async fn note_stalled(&self, address: &str, stalled: &str) -> Result<(), StoreError> {
        let mut lane = self.leases.enter().await?;
        let answer = self.read(ownership::note_stalled(lane.connection(), address, stalled)).await;
        self.leave(lane, answer)
    }

    async fn pools(&self, names: &[String]) -> Result<BTreeMap<String, Pool>, StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(read::pools(lane.connection(), names)).await;
        self.leave(lane, answer)
    }

    async fn seal(&self) -> Result<Seal, StoreError> {
        let mut lane = self.reads.enter().await?;
        let answer = self.read(read::seal(lane.connection())).await;
        self.leave(lane, answer)
    }
}
