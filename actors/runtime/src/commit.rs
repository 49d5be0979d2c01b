//! Sends a batch to the store and finds out how it ended.
//!
//! Runs in a task of its own that is never aborted. An outage is waited out; an unknown outcome is settled by drawing new tokens on
//! condition of the old ones, so that whatever still travels under an old one can't take effect later (I2, I4). Never re-executed blindly.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use holdfast_core::{
    PartitionId,
    batch::Batch,
    epoch::{PartitionRow, Token},
    port::store::{CommitError, Committed, Store},
};

use holdfast_machine::Rules;

use crate::{backoff::Backoff, telemetry};

/// How a commit ended, for certain.
pub(crate) enum End {
    /// The second are those of the stale partitions that are this node's still, under another generation: nothing is lost there, and
    /// what they had in the batch goes round again.
    Committed(Committed, BTreeSet<PartitionId>),
    /// The store refused some row's data; nothing is written.
    Data(String),
    /// Nothing is written: it took the store too long.
    Slow(String),
    /// It may have happened or not.
    Reloaded(Reloaded),
}

/// What is known after a commit whose outcome was not.
#[derive(Default)]
pub(crate) struct Reloaded {
    /// The rows as they are now, held under the new tokens in them; the other partitions of the batch are lost.
    pub rows: Vec<PartitionRow>,
    /// Whether the rows could be found out; otherwise all are lost.
    pub is_known: bool,
    /// Whether what did not happen is tried in two halves: its size may be why no answer came.
    pub is_split: bool,
}

/// The tokens under which one ownership has been held. Whatever row bears one of them is still this node's.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Arc<Mutex<Vec<Token>>>);

impl Tokens {
    pub fn add(&self, token: Token) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(token);
    }

    pub fn contains(&self, token: Token) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&token)
    }
}

/// Commits `batch`. `tokens` holds those of each partition it touches. `is_last` says that there is no smaller thing to try: it is held while it
/// takes too long, as in an outage.
pub(crate) async fn commit(
    store: Arc<dyn Store>,
    batch: Arc<Batch>,
    tokens: HashMap<PartitionId, Tokens>,
    context: &'static str,
    is_last: bool,
    rules: Rules,
) -> End {
    let mut backoff = Backoff::infrastructure();
    let mut batch = batch;
    loop {
        let started = Instant::now();
        let result = store.commit(&batch).await;
        metrics::histogram!(telemetry::COMMIT_SECONDS, "context" => context).record(started.elapsed().as_secs_f64());
        let (reason, error) = match result {
            Ok(committed) => {
                let outdated = outdated(&*store, &batch, &committed.stale, &tokens).await;
                return End::Committed(committed, outdated);
            }
            Err(CommitError::Data { sqlstate, message }) => return End::Data(format!("{sqlstate}: {message}")),
            Err(CommitError::Slow(error)) if !is_last => return End::Slow(error),
            Err(CommitError::Slow(error)) => ("slow", error),
            Err(CommitError::Unavailable(error)) => ("unavailable", error),
            Err(CommitError::Conflict) => ("conflict", "a stored version is not the expected one".to_owned()),
            Err(CommitError::Unknown(_)) if !rules.settles_unknown_commits => {
                batch = blindly(&*store, &batch).await;
                continue;
            }
            Err(CommitError::Unknown(error)) => ("unknown", error),
        };
        metrics::counter!(telemetry::COMMIT_FAILURES_TOTAL, "context" => context, "reason" => reason).increment(1);
        tracing::warn!(context, reason, error, "commit failed");
        if !matches!(reason, "unavailable" | "slow") {
            let rows = reload(&*store, &batch, &tokens).await;
            let (is_known, is_split) = (rows.is_some(), reason == "unknown");
            return End::Reloaded(Reloaded { rows: rows.unwrap_or_default(), is_known, is_split });
        }
        backoff.wait().await;
    }
}

/// Those of the stale partitions that are ours still, and whose row differs from the fence by its generation alone.
async fn outdated(
    store: &dyn Store,
    batch: &Batch,
    stale: &[PartitionId],
    tokens: &HashMap<PartitionId, Tokens>,
) -> BTreeSet<PartitionId> {
    if stale.is_empty() {
        return BTreeSet::new();
    }
    let rows = match store.partitions().await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(%error, "partition rows could not be read after a refused commit; the partitions are given up");
            return BTreeSet::new();
        }
    };
    let is_outdated = |row: &PartitionRow| {
        let fence = batch.fences.iter().find(|fence| fence.partition == row.partition);
        fence.is_some_and(|fence| row.generation != fence.generation && row.batch + 1 == fence.number)
            && tokens.get(&row.partition).zip(row.token).is_some_and(|(tokens, token)| tokens.contains(token))
    };
    rows.iter().filter(|row| stale.contains(&row.partition) && is_outdated(row)).map(|row| row.partition).collect()
}

/// [`Rules::settles_unknown_commits`] left out: the batch as the one after whatever is committed.
async fn blindly(store: &dyn Store, batch: &Batch) -> Arc<Batch> {
    let mut again = batch.clone();
    for row in store.partitions().await.unwrap_or_default() {
        if let Some(fence) = again.fences.iter_mut().find(|fence| fence.partition == row.partition) {
            (fence.number, fence.outbox_head) = (row.batch + 1, row.outbox_head);
        }
    }
    Arc::new(again)
}

/// Draws new tokens for the batch's partitions and reads their rows. A partition that is not in the answer is lost; all are if there is none.
async fn reload(store: &dyn Store, batch: &Batch, tokens: &HashMap<PartitionId, Tokens>) -> Option<Vec<PartitionRow>> {
    let changes: Vec<_> = batch.fences.iter().map(|fence| (fence.partition, fence.token, Token::draw())).collect();
    let fresh: BTreeMap<PartitionId, Token> =
        changes.iter().map(|(partition, _, token)| (*partition, *token)).collect();
    for (partition, token) in &fresh {
        if let Some(tokens) = tokens.get(partition) {
            tokens.add(*token); // before the store knows it, so that a renewal in between finds it
        }
    }
    // One try only: if this answer is lost too, the node counts as fenced.
    let held: BTreeSet<PartitionId> = match store.retoken(&changes).await {
        Ok(held) => held.into_keys().collect(),
        Err(error) => {
            tracing::error!(%error, "the outcome of a commit could not be found out; its partitions are given up");
            return None;
        }
    };
    match store.partitions().await {
        Ok(mut rows) => {
            rows.retain(|row| held.contains(&row.partition) && row.token == fresh.get(&row.partition).copied());
            Some(rows)
        }
        Err(error) => {
            tracing::error!(%error, "partition rows could not be read after a lost commit; the partitions are given up");
            None
        }
    }
}
