//! The group commit.
//!
//! Upholds I4 (a fence per partition), I1 (an answer only after COMMIT, and only one without a warning) and
//! I2 (pools are granted under their rows' locks). Two ways:
//!
//! - *alone*: without conditions the statement is its own transaction. One round trip; no lock is ever held
//!   across the network, so a paused node can't keep a fence row. A lost answer is an unknown outcome.
//! - *in turn*: with conditions, or after *alone* was refused because a fence is lost: BEGIN; fences locked
//!   in partition order, then pools in name order (always in that order, so commits can't deadlock); the
//!   grants, in Rust; the same statement over the fences that held; COMMIT. Only a failure of COMMIT itself
//!   is unknown.
//!
//! Either runs in a task of its own that nobody aborts: who drops the future of a commit drops the answer,
//! not the transaction. Deliberately absent: retries, bisecting (the committer's business).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    batch::{Batch, Settled},
    pool::Pool,
    port::store::{CommitError, Committed, StoreError},
};
use sqlx::{PgConnection, Row as _, postgres::PgArguments};
use tokio::time::timeout;

use crate::{
    connections::{Checkout, Connections},
    error::{self, STALE},
    format::Format,
    maintain, notice,
    rows::Rows,
    statement::{Statement, Statements},
};

/// Fences first, then pools: the count makes the second CTE wait for the first.
const LOCK: &str = "
with locked as materialized (
    select p.partition
    from unnest($1::int[], $2::uuid[], $3::int[], $4::bigint[]) as f(partition, token, generation, number)
    join partitions p
        on p.partition = f.partition and p.token = f.token and p.generation = f.generation and p.batch = f.number - 1
    order by p.partition for update of p),
pool as materialized (
    select name, total, held from pools
    where name = any($5) and (select count(*) from locked) > 0
    order by name for update)
select partition, null::text as name, null::bigint as total, null::bigint as held from locked
union all select null, name, total, held from pool";

/// Makes the rows of pools that don't exist yet, in name order, waiting for transactions that make the same
/// ones.
const MAKE_POOLS: &str = "insert into pools (name, total, held) select name, 0, 0 from unnest($1::text[]) as u(name) order by name on conflict do nothing";

/// Removes the rows just made of pools that stay empty: a pool exists from its first grant on.
const UNMAKE_POOLS: &str = "delete from pools where name = any($1)";

/// Commits.
#[derive(Clone)]
pub(crate) struct Committer {
    pub(crate) connections: Arc<Connections>,
    pub(crate) statements: Arc<Statements>,
    pub(crate) format: Arc<Format>,
    pub(crate) client_timeout: Duration,
}

/// Why a commit alone did not happen.
enum Alone {
    Stale,
    NoDay(CommitError),
    Failed(CommitError),
}

/// Why a commit in turn was refused, and whether that is for want of a table.
struct Refused {
    error: CommitError,
    no_day: bool,
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self { no_day: error::is_day_missing(&error), error: error::commit(&error, false) }
    }
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        Self { error, no_day: false }
    }
}

impl Committer {
    pub(crate) async fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        if batch.entries.iter().all(|entry| entry.condition.is_none()) {
            let settled = batch.settle(&BTreeMap::new(), &BTreeSet::new());
            let statement = self.statement(batch, &settled)?;
            match detached(alone(Arc::clone(&self.connections), statement, self.client_timeout)).await {
                Ok(Ok(())) => return Ok(committed(batch, settled, &BTreeSet::new())),
                Ok(Err(Alone::Failed(error))) | Err(error) => return Err(error),
                Ok(Err(Alone::NoDay(error))) => return Err(self.open_days(error).await),
                Ok(Err(Alone::Stale)) => {}
            }
        }
        let (committer, batch) = (self.clone(), batch.clone());
        detached(async move { committer.in_turn(&batch).await }).await?
    }

    fn statement(&self, batch: &Batch, settled: &Settled<'_>) -> Result<Statement, CommitError> {
        let rows = Rows::of(batch, settled, self.statements.views(), self.format.parts())?;
        self.statements.make(&rows).map_err(|error| error::unencodable(&error))
    }

    async fn in_turn(&self, batch: &Batch) -> Result<Committed, CommitError> {
        let mut checkout = check_out(&self.connections).await?;
        let late = |_| CommitError::Slow("no answer before COMMIT".into());
        match timeout(self.client_timeout, self.prepare(checkout.connection(), batch)).await.map_err(late)? {
            Ok(Some((settled, stale))) => {
                finish(checkout, self.client_timeout).await?;
                Ok(committed(batch, settled, &stale))
            }
            Ok(None) => {
                roll_back(checkout, self.client_timeout).await;
                let stale = batch.fences.iter().map(|fence| fence.partition).collect();
                Ok(committed(batch, batch.settle(&BTreeMap::new(), &stale), &stale))
            }
            Err(refused) => {
                roll_back(checkout, self.client_timeout).await;
                if refused.no_day { Err(self.open_days(refused.error).await) } else { Err(refused.error) }
            }
        }
    }

    /// Opens the days that a commit found no table for, so that its next attempt finds one. Returns `error`,
    /// or why that failed.
    async fn open_days(&self, error: CommitError) -> CommitError {
        tracing::warn!(%error, "a day without a table was found by a commit");
        let mut checkout = match check_out(&self.connections).await {
            Ok(checkout) => checkout,
            Err(error) => return error,
        };
        match timeout(self.client_timeout, maintain::open(checkout.connection())).await {
            Ok(Ok(())) => {
                checkout.done();
                error
            }
            Ok(Err(failed)) => error::commit(&failed, false),
            Err(_) => CommitError::Unavailable(format!("no answer within {:?}", self.client_timeout)),
        }
    }

    /// Everything up to COMMIT; `None` if no fence held.
    async fn prepare<'b>(
        &self,
        connection: &mut PgConnection,
        batch: &'b Batch,
    ) -> Result<Option<(Settled<'b>, BTreeSet<PartitionId>)>, Refused> {
        // Not `begin()`: its guard would queue a ROLLBACK on drop, and this connection is closed instead.
        sqlx::query("begin").execute(&mut *connection).await?;
        let names: BTreeSet<&str> = batch.pool_names();
        let (stale, mut pools) = lock(connection, batch, &names).await?;
        if stale.len() == batch.fences.len() {
            return Ok(None);
        }
        let missing: Vec<&str> = names.iter().copied().filter(|name| !pools.contains_key(*name)).collect();
        if !missing.is_empty() {
            sqlx::query(MAKE_POOLS).bind(&missing).execute(&mut *connection).await?;
            // Another commit may have made them meanwhile, and filled them.
            let (_, found) = lock(connection, batch, &names).await?;
            pools = found;
        }
        let settled = batch.settle(&pools, &stale);
        let statement = self.statement(batch, &settled)?;
        sqlx::query_with(statement.sql, statement.arguments).execute(&mut *connection).await?;
        let empty = |name: &&&str| pools.get(**name) == Some(&Pool::default()) && !settled.pools.contains_key(**name);
        let unmade: Vec<&str> = missing.iter().filter(empty).copied().collect();
        if !unmade.is_empty() {
            sqlx::query(UNMAKE_POOLS).bind(&unmade).execute(&mut *connection).await?;
        }
        Ok(Some((settled, stale)))
    }
}

/// Locks the fences that hold and the pools that exist; returns the fences that don't hold, and the pools.
async fn lock(
    connection: &mut PgConnection,
    batch: &Batch,
    names: &BTreeSet<&str>,
) -> Result<(BTreeSet<PartitionId>, BTreeMap<String, Pool>), sqlx::Error> {
    let fences = || batch.fences.iter();
    let mut arguments = PgArguments::default();
    {
        use sqlx::Arguments as _;
        use sqlx::postgres::PgBindIterExt as _;
        let mut add = || {
            arguments.add(fences().map(|fence| fence.partition.0.cast_signed()).bind_iter())?;
            arguments.add(fences().map(|fence| fence.token.0).bind_iter())?;
            arguments.add(fences().map(|fence| fence.generation.0.cast_signed()).bind_iter())?;
            arguments.add(fences().map(|fence| fence.number.cast_signed()).bind_iter())?;
            arguments.add(names.iter().copied().bind_iter())
        };
        add().map_err(sqlx::Error::Encode)?;
    }
    let mut stale: BTreeSet<PartitionId> = fences().map(|fence| fence.partition).collect();
    let mut pools = BTreeMap::new();
    for row in sqlx::query_with(LOCK, arguments).fetch_all(connection).await? {
        match row.try_get::<Option<i32>, _>(0)? {
            Some(partition) => {
                stale.remove(&PartitionId(partition.cast_unsigned()));
            }
            None => {
                pools.insert(row.try_get(1)?, Pool { total: row.try_get(2)?, held: row.try_get(3)? });
            }
        }
    }
    Ok((stale, pools))
}

fn committed(batch: &Batch, settled: Settled<'_>, stale: &BTreeSet<PartitionId>) -> Committed {
    let stale = batch.fences.iter().map(|fence| fence.partition).filter(|p| stale.contains(p)).collect();
    Committed { stale, granted: settled.granted, outbox: settled.outbox, heads: settled.heads }
}

async fn check_out(connections: &Arc<Connections>) -> Result<Checkout, CommitError> {
    connections.check_out().await.map_err(|error| match error {
        StoreError::Unavailable(text) | StoreError::Broken(text) => CommitError::Unavailable(text),
        error @ StoreError::Data { .. } => CommitError::Unavailable(error.to_string()),
    })
}

/// Runs `statement` as its own transaction.
async fn alone(connections: Arc<Connections>, statement: Statement, patience: Duration) -> Result<(), Alone> {
    let mut checkout = check_out(&connections).await.map_err(Alone::Failed)?;
    let run = sqlx::query_with(statement.sql, statement.arguments).execute(checkout.connection());
    let (answer, warned) = notice::watch(timeout(patience, run)).await;
    match answer {
        Err(_) => Err(Alone::Failed(CommitError::Unknown(format!("no answer within {patience:?}")))),
        Ok(Ok(_)) if warned => Err(Alone::Failed(CommitError::Unknown("committed with a warning".into()))),
        Ok(Ok(_)) => {
            checkout.done();
            Ok(())
        }
        Ok(Err(failed)) => {
            // A plain error has been answered in full: the server awaits the next statement.
            if !error::ended(&failed) {
                checkout.done();
            }
            match error::code(&failed) {
                Some(STALE) => Err(Alone::Stale),
                _ if error::is_day_missing(&failed) => Err(Alone::NoDay(error::commit(&failed, true))),
                _ => Err(Alone::Failed(error::commit(&failed, true))),
            }
        }
    }
}

/// COMMIT. From here on every failure is an unknown outcome.
async fn finish(mut checkout: Checkout, patience: Duration) -> Result<(), CommitError> {
    let run = sqlx::query("commit").execute(checkout.connection());
    let (answer, warned) = notice::watch(timeout(patience, run)).await;
    let unknown = |text: String| Err(CommitError::Unknown(text));
    match answer {
        Err(_) => unknown(format!("COMMIT not answered within {patience:?}")),
        Ok(Err(error)) => unknown(error.to_string()),
        Ok(Ok(_)) if warned => unknown("COMMIT came with a warning".into()),
        Ok(Ok(_)) => {
            checkout.done();
            Ok(())
        }
    }
}

/// Ends the transaction; on a connection that can't even do that, the server does it when the connection
/// closes.
async fn roll_back(mut checkout: Checkout, patience: Duration) {
    let run = sqlx::query("rollback").execute(checkout.connection());
    if let Ok(Ok(_)) = timeout(patience, run).await {
        checkout.done();
    }
}

/// Runs `work` to its end, whatever becomes of the caller.
async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, CommitError> {
    tokio::spawn(work).await.map_err(|error| CommitError::Unknown(format!("the commit's task ended: {error}")))
}
