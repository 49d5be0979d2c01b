//! The port through which gRPC handlers reach actors, and its answers.
//!
//! Handlers know nothing of partitions. A [`crate::node::Node`] answers for what it owns;
//! [`crate::routing::Routed`] also asks the other nodes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use holdfast_core::{
    CallEnvelope,
    dedup::Answer,
    disposition::{Refused, WaitReason},
    epoch::Halt,
};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// From the one live actor, linearizable.
    #[default]
    Strong,
    /// From the database of any node; says its version.
    Local,
}

/// A state as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// The aggregate's version; 0 if it does not exist.
    pub version: u64,
    /// Whether the aggregate exists.
    pub exists: bool,
    /// The encoded reply message.
    pub body: Bytes,
    /// Whether a live actor answered, under a lease.
    pub strong: bool,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The message itself is at fault.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Its type is handled, but may not come from there.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The request id was used before with another body.
    #[error("this request id was used before with another body")]
    Reused,
    /// Messages of this aggregate wait in its durable mailbox, and this one must not overtake them.
    #[error("messages of this aggregate are waiting ({})", .0.as_str())]
    Waiting(WaitReason),
    /// A look-up in another context failed.
    #[error("a look-up in another context failed: {0}")]
    Downstream(String),
    /// Too many calls in flight, or too many bytes of them.
    #[error("too many calls in flight")]
    Overloaded,
    /// Nobody here can answer now; worth trying again.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// This node does not own the aggregate's partition.
    #[error("not the owner: {0}")]
    NotOwner(String),
    /// The context stands still until an operator has spoken: its history was lost. Local reads go on.
    #[error("halted: {0}")]
    Halted(Halt),
    /// The handler failed. The command had no effect.
    #[error("the handler failed on this command")]
    Failed,
    /// `min_version` was not reached in time.
    #[error("the aggregate is at version {0} still")]
    Stale(u64),
    /// The caller's time ran out before the owner answered. A command may have taken effect.
    #[error("the caller's time ran out")]
    Late,
}

impl RouteError {
    pub(crate) fn not_owner(reason: &str) -> Self {
        Self::NotOwner(reason.to_owned())
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: Duration::from_millis(500) }
    }
}

/// Reaches aggregates by key.
#[async_trait]
pub trait Router: Send + Sync + 'static {
    /// Runs a command and answers once it is committed. Its id and its origin make it idempotent.
    async fn command(&self, call: CallEnvelope) -> Result<Answer, RouteError>;

    /// Reads one aggregate. `min_version`, where it is not 0, asks for at least that version.
    async fn read(
        &self,
        kind: &'static str,
        key: &str,
        consistency: Consistency,
        min_version: u64,
    ) -> Result<ReadAnswer, RouteError>;

    /// Reads aggregates of one kind from their live actors; for each key its answer, in the order asked. Each
    /// is linearizable by itself; together they are no snapshot.
    async fn read_many(&self, kind: &'static str, keys: &[Arc<str>]) -> Vec<Result<ReadAnswer, RouteError>> {
        let reads = keys.iter().map(|key| self.read(kind, key, Consistency::Strong, 0));
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffered(READS_MAX).collect().await
    }
}

/// Reads of one batch that are under way at the same time, at most.
pub(crate) const READS_MAX: usize = 32;
