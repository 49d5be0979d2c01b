//! The port to the other nodes of a context, and what a node answers them.
//!
//! A node asks the one that it takes for the owner ([`Peers`]); that one answers for what it owns itself
//! ([`Local`]) and forwards nothing, so that no ring can form. A forward is a hop, not an origin: it carries
//! a call as it came, under the seal of the context, so that only a node that reads the context's schema can
//! say where a call began. Deliberately absent: any transport.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{CallEnvelope, PartitionId, dedup::Answer, epoch::Epoch};

use crate::router::{ReadAnswer, RouteError};

/// Forwards of one attempt at a call, at most: to the owner as it is known here, and to the one that a
/// refusal led to.
pub const HOPS_MAX: u32 = 2;

/// Where a partition is served, and since which term. Of two for one partition that differ, the one with the
/// higher epoch is the newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Which partition. While their number grows, two nodes may differ in which one a key belongs to.
    pub partition: PartitionId,
    /// Where its owner can be called.
    pub address: Arc<str>,
    /// The owner's term.
    pub epoch: Epoch,
}

/// What came of a forward, other than an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The node does not own the key's home, or may not answer for it now. Nothing was done, or it was done
    /// and its answer is kept in the claim.
    #[error("that node is not the owner: {reason}")]
    NotOwner {
        /// Why, for a person.
        reason: String,
        /// Whom that node takes for the owner, if for anybody else.
        owner: Option<Placement>,
    },
    /// The forward does not carry the context's seal: it does not come from a node of the context.
    #[error("the forward does not carry the seal of this context")]
    Unsealed,
    /// The node answers this, as the owner.
    #[error(transparent)]
    Answered(#[from] RouteError),
    /// The call did not arrive.
    #[error("not reached: {0}")]
    Unreached(String),
    /// There is no answer, and the call may have arrived: what is sent again must carry the same id.
    #[error("no answer: {0}")]
    Lost(String),
    /// The caller's time ran out. The call may have arrived.
    #[error("the caller's time ran out")]
    Late,
}

/// A call on its way to the node that owns its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The call, as it came.
    pub call: CallEnvelope,
    /// Made by [`holdfast_core::seal::Seal::of_forward`].
    pub seal: Bytes,
}

/// Which aggregates are to be read, from their live actors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// Their kind.
    pub kind: &'a str,
    /// Their keys.
    pub keys: &'a [Arc<str>],
    /// Each must have at least this version; 0 is any.
    pub min_version: u64,
}

/// For each key its answer, in the order asked.
pub type Answers = Vec<Result<ReadAnswer, PeerError>>;

/// Reaches the other nodes that run this context.
///
/// Each call ends by the deadline of the call that the task serves, and takes its trace and its correlation
/// id along. `hop` counts forwards of one attempt, from 1 to [`HOPS_MAX`]. Makes one attempt each: trying
/// again is the caller's.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Has the node at `address` run a command.
    async fn command(&self, address: &str, hop: u32, forward: &Forward) -> Result<Answer, PeerError>;

    /// Has the node at `address` read from its live actors.
    async fn read(&self, address: &str, hop: u32, question: Question<'_>) -> Result<Answers, PeerError>;

    /// Says who owns anything of this context now; connections to others may be closed.
    fn keep(&self, addresses: &BTreeSet<Arc<str>>);

    /// What is left of the time of the call that this task serves; `None` if it has no bound.
    fn time_left(&self) -> Option<Duration>;
}

/// What a node answers its peers.
#[async_trait]
pub trait Local: Send + Sync + 'static {
    /// Runs a command if the forward is sealed and this node owns the key's home. It passes the same door as
    /// a call that comes here first.
    async fn command_here(&self, forward: Forward) -> Result<Answer, PeerError>;

    /// Reads from this node's live actors.
    async fn read_here(&self, question: Question<'_>) -> Answers;
}
