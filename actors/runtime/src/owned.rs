//! A partition as its lane knows it.
//!
//! Invariant (I4): what came in under another term than the ownership's is void. Deliberately absent: every rule about when anything of it changes, which is
//! [`crate::lane`]'s.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use holdfast_core::{
    KeyHash, PartitionId,
    epoch::{Generation, Token},
    watermark::Watermark,
};
use ractor::ActorRef;
use tokio::sync::oneshot;

use crate::{commit::Tokens, partition::PartitionMessage, passivation::Directory, work::Input};

/// A partition as its lane knows it.
pub(crate) struct Owned {
    pub partition: PartitionId,
    /// Numbers this node's ownerships; what came in under another is void.
    pub term: u64,
    pub token: Token,
    /// Every token this ownership was ever held under, shared with the ownership loop.
    pub tokens: Tokens,
    pub generation: Generation,
    /// The count of that generation, by which keys are at home here.
    pub count: u32,
    /// Whether its keys are served; shared with the router and the gates. A home that is new under its generation waits for the earlier ones.
    pub serving: Arc<AtomicBool>,
    /// Records that came before its keys are served.
    pub held: Vec<Input>,
    pub batch: u64,
    /// The same, remembered by the node beyond this ownership.
    pub remembered: Arc<AtomicU64>,
    pub outbox_head: u64,
    pub supervisor: ActorRef<PartitionMessage>,
    /// How far the relay has come, and how much of that is stored.
    pub published: Arc<AtomicU64>,
    pub cursor_stored: u64,
    pub marks: HashMap<Arc<str>, Watermark>,
    pub live: Directory,
    /// Set once it is to be released: nothing more is taken in for it, and it goes when no commit touches it any more.
    pub closing: Option<oneshot::Sender<(Token, u64)>>,
}

impl Owned {
    /// Whether inputs that came in under `term` are still taken in.
    pub fn takes(&self, term: u64) -> bool {
        self.term == term && self.closing.is_none()
    }

    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// Whether a key with this hash is at home here.
    pub fn is_home(&self, hash: KeyHash) -> bool {
        hash.home(self.count) == self.partition
    }
}
