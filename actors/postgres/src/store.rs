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
    connections::{Checkout, Connections},
    error,
    format::Format,
    growth, history,
    maintain::{self, Maintained, Retention},
    notice, ownership, query, read,
    statement::Statements,
    stuck, unpublished,
};

/// One context's store. Clones share connections.
#[derive(Clone)]
pub struct PgStore {
    committer: Committer,
    /// For reads of the loop.
    reads: Arc<Connections>,
    /// For what a lease hangs on, plain reads and beats: never behind a stuck commit.
    leases: Arc<Connections>,
    /// For writes to partition rows outside commits; they may wait for a lock.
    pub(crate) turns: Arc<Connections>,
    /// For opening and dropping days.
    chores: Arc<Connections>,
    /// For questions to read models, which nothing of the loop may wait for.
    pub(crate) questions: Arc<Connections>,
    client_timeout: Duration,
}

impl PgStore {
    /// Connects, and checks that the server and the schema are fit: Postgres 18, migrated, durable commits.
    pub fn connect(config: Config) -> BoxFuture<'static, Result<Self, StoreError>> {
        Box::pin(async move {
            check_views(&config)?;
            let options = config.options()?;
            let connections = |limit| Connections::new(options.clone(), limit, config.connect_timeout);
            let client_timeout = config.client_timeout();
            let store = Self {
                reads: connections(config.readers),
                leases: connections(2),
                turns: connections(2),
                chores: Connections::new(maintain::session(&options), 1, config.connect_timeout),
                questions: Connections::new(query::session(&options), config.readers, config.connect_timeout),
                client_timeout,
                committer: Committer {
                    connections: connections(config.committers),
                    statements: Arc::new(Statements::new(config.views)),
                    format: Arc::new(Format::new()),
                    client_timeout,
                },
            };
            store.check().await?;
            Ok(store)
        })
    }

    async fn check(&self) -> Result<(), StoreError> {
        let mut checkout = self.leases.check_out().await?;
        let answer = self.read(fitness(checkout.connection())).await;
        match self.leave(checkout, answer)? {
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
            let mut checkout = self.chores.check_out().await?;
            match maintain::run(checkout.connection(), retention, self.client_timeout).await {
                Ok(done) => {
                    checkout.done();
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
            let mut checkout = self.questions.check_out().await?;
            let answer = self.read(growth::moving(checkout.connection(), from, to)).await;
            self.leave(checkout, answer)
        })
    }

    /// Hands a connection back, or closes it, by what came of its use.
    pub(crate) fn leave<T>(&self, checkout: Checkout, answer: Answered<T>) -> Result<T, StoreError> {
        match answer {
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {:?}", self.client_timeout))),
            Ok(Ok(answer)) => {
                checkout.done();
                Ok(answer)
            }
            Ok(Err(failed)) => {
                // After a plain error the connection is as good as before; after anything else, who knows.
                if !error::ended(&failed) {
                    checkout.done();
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
                and exists (select from pg_attribute where attrelid = to_regclass('timers') and attname = 'serial')
                and to_regprocedure('refuse_format()') is not null and to_regclass('unborn') is not null",
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
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(growth::register(checkout.connection(), count)).await;
        self.leave(checkout, answer)
    }

    async fn note_count(&self, topic: &str, count: u32) -> Result<(), StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(growth::note_count(checkout.connection(), topic, count)).await;
        self.leave(checkout, answer)
    }

    async fn growth(&self) -> Result<Growth, StoreError> {
        let mut checkout = self.leases.check_out().await?;
        let answer = self.read(growth::all(checkout.connection(), &self.committer.format)).await;
        self.leave(checkout, answer)
    }

    async fn bump(&self, from: Generation, count: u32) -> Result<(), StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(growth::bump(checkout.connection(), from, count)).await;
        self.leave(checkout, answer)
    }

    async fn acknowledge(
        &self,
        partition: PartitionId,
        token: Token,
        generation: Generation,
        mark: Option<OutboxDraft>,
    ) -> Result<Option<PartitionRow>, StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let asked = growth::acknowledge(checkout.connection(), partition, token, generation, mark.as_ref());
        let answer = self.write(asked).await;
        self.leave(checkout, answer)
    }

    async fn note_mark(&self, topic: &str, partition: PartitionId, count: u32) -> Result<(), StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(growth::note_mark(checkout.connection(), topic, partition, count)).await;
        self.leave(checkout, answer)
    }

    async fn note_ends(&self, topic: &str, count: u32, ends: &[u64]) -> Result<(), StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(growth::note_ends(checkout.connection(), topic, count, ends)).await;
        self.leave(checkout, answer)
    }

    async fn end_transition(&self, topic: &str, count: u32) -> Result<(), StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(growth::end_transition(checkout.connection(), topic, count)).await;
        self.leave(checkout, answer)
    }

    async fn partitions(&self) -> Result<Vec<PartitionRow>, StoreError> {
        let mut checkout = self.leases.check_out().await?;
        let answer = self.read(ownership::all(checkout.connection(), &self.committer.format)).await;
        self.leave(checkout, answer)
    }

    async fn take(
        &self,
        partition: PartitionId,
        expected: Epoch,
        token: Token,
        address: &str,
    ) -> Result<Option<Taken>, StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let format = &self.committer.format;
        let asked = ownership::take(checkout.connection(), format, partition, expected, token, address);
        let answer = self.write(asked).await;
        self.leave(checkout, answer)
    }

    async fn beat(&self, address: &str, beat: Beat) -> Result<BTreeMap<String, Beat>, StoreError> {
        let mut checkout = self.leases.check_out().await?;
        let answer = self.write(ownership::beat(checkout.connection(), address, beat)).await;
        self.leave(checkout, answer)
    }

    async fn tokens(&self, partitions: &[PartitionId]) -> Result<Vec<(PartitionId, Option<Token>)>, StoreError> {
        let mut checkout = self.leases.check_out().await?;
        let answer = self.read(ownership::tokens(checkout.connection(), partitions)).await;
        self.leave(checkout, answer)
    }

    async fn release(&self, partition: PartitionId, token: Token) -> Result<bool, StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(ownership::release(checkout.connection(), partition, token)).await;
        self.leave(checkout, answer)
    }

    async fn retoken(&self, changes: &[(PartitionId, Token, Token)]) -> Result<BTreeMap<PartitionId, u64>, StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(ownership::retoken(checkout.connection(), changes)).await;
        self.leave(checkout, answer)
    }

    async fn find(&self, wanted: &[Wanted]) -> Result<Vec<Found>, StoreError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(read::find(checkout.connection(), &self.committer.format, wanted)).await;
        self.leave(checkout, answer)
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
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(unpublished::page(checkout.connection(), partition, after, limit, bytes_max)).await;
        self.leave(checkout, answer)
    }

    async fn set_aside(&self, partition: PartitionId, token: Token, rows: &[SetAside]) -> Result<bool, StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(stuck::set_aside(checkout.connection(), partition, token, rows)).await;
        self.leave(checkout, answer)
    }

    async fn stuck(&self) -> Result<BTreeMap<Queue, u64>, StoreError> {
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(stuck::queues(checkout.connection())).await;
        self.leave(checkout, answer)
    }

    async fn released(&self, slice: &Slice, limit: u32) -> Result<Vec<Stuck>, StoreError> {
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(stuck::released(checkout.connection(), slice, limit)).await;
        self.leave(checkout, answer)
    }

    async fn end_release(
        &self,
        partition: PartitionId,
        token: Token,
        position: i64,
        end: &Release,
    ) -> Result<bool, StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(stuck::end_release(checkout.connection(), partition, token, position, end)).await;
        self.leave(checkout, answer)
    }

    async fn advance(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(ownership::advance(checkout.connection(), cursors)).await;
        self.leave(checkout, answer)
    }

    async fn halt(&self, halt: Option<&Halt>) -> Result<(), StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(history::halt(checkout.connection(), halt)).await;
        self.leave(checkout, answer)
    }

    async fn incarnations(&self, seen: &[(String, String)]) -> Result<BTreeMap<String, String>, StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(history::incarnations(checkout.connection(), seen)).await;
        self.leave(checkout, answer)
    }

    async fn accept_topic(
        &self,
        topic: &str,
        mark: Option<&str>,
        places: &[(PartitionId, u64)],
        events: bool,
    ) -> Result<(), StoreError> {
        let mut checkout = self.turns.check_out().await?;
        let answer = self.write(history::accept(checkout.connection(), topic, mark, places, events)).await;
        self.leave(checkout, answer)
    }

    async fn due_timers(&self, slice: &Slice, limit: u32) -> Result<Vec<DueTimer>, StoreError> {
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(read::due_timers(checkout.connection(), slice, limit)).await;
        self.leave(checkout, answer)
    }

    async fn put_off_timers(&self, timers: &[DueTimer]) -> Result<(), StoreError> {
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(read::put_off_timers(checkout.connection(), timers)).await;
        self.leave(checkout, answer)
    }

    async fn due_effects(&self, slice: &Slice, limit: u32, hold: Duration) -> Result<Vec<DueEffect>, StoreError> {
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(read::due_effects(checkout.connection(), slice, limit, hold)).await;
        self.leave(checkout, answer)
    }

    async fn put_off_effect(
        &self,
        kind: &str,
        key: &str,
        name: &str,
        after: Duration,
        error: &str,
    ) -> Result<(), StoreError> {
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(read::put_off_effect(checkout.connection(), kind, key, name, after, error)).await;
        self.leave(checkout, answer)
    }

    async fn due_mail(&self, slice: &Slice, limit: MailLimit) -> Result<Vec<Waiting>, StoreError> {
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(read::due_mail(checkout.connection(), slice, limit)).await;
        self.leave(checkout, answer)
    }

    async fn mail_waiting(&self, slice: &Slice) -> Result<BTreeMap<PartitionId, u64>, StoreError> {
        let mut checkout = self.questions.check_out().await?;
        let answer = self.read(read::mail_waiting(checkout.connection(), slice)).await;
        self.leave(checkout, answer)
    }

    async fn note_stalled(&self, address: &str, stalled: &str) -> Result<(), StoreError> {
        let mut checkout = self.leases.check_out().await?;
        let answer = self.read(ownership::note_stalled(checkout.connection(), address, stalled)).await;
        self.leave(checkout, answer)
    }

    async fn pools(&self, names: &[String]) -> Result<BTreeMap<String, Pool>, StoreError> {
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(read::pools(checkout.connection(), names)).await;
        self.leave(checkout, answer)
    }

    async fn seal(&self) -> Result<Seal, StoreError> {
        let mut checkout = self.reads.check_out().await?;
        let answer = self.read(read::seal(checkout.connection())).await;
        self.leave(checkout, answer)
    }
}
