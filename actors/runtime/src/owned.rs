//! A partition as the shell of its lane knows it: whom to send its messages to, and what others look at.
//!
//! Deliberately absent: every rule about when anything of it changes, which is the lane's machine's.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64},
};

use holdfast_core::epoch::Token;
use holdfast_machine::lane::Own;
use ractor::ActorRef;
use tokio::sync::oneshot;

use crate::partition::PartitionMessage;

/// See the module.
pub(crate) struct Owned {
    /// The part of this ownership that the machine gets.
    pub own: Own,
    /// Every token this ownership was ever held under, shared with the ownership loop.
    pub tokens: Tokens,
    /// Whether its keys are served; shared with the router and the gates.
    pub serving: Arc<AtomicBool>,
    /// The number of its last batch, remembered by the node beyond this ownership.
    pub remembered: Arc<AtomicU64>,
    pub supervisor: ActorRef<PartitionMessage>,
    /// How far the relay has come, and how much of that is stored.
    pub published: Arc<AtomicU64>,
    pub cursor_stored: u64,
    /// Where the end of a release is waited for, with the token and the outbox head that the partition ends
    /// with.
    pub done: Option<oneshot::Sender<(Token, u64)>>,
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
