//! The partitions that this node owns, as the router and the gauges see them.
//!
//! Invariant (I5): a handle is there only while its ownership lasts; whether a strong read may be answered is
//! its lease's to say. Deliberately absent: who puts handles in and takes them out, which is
//! [`crate::ownership`].

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicBool},
};

use holdfast_core::{AggregateId, PartitionId};
use ractor::ActorRef;
use tokio::sync::mpsc;

use crate::{
    lease::Lease,
    partition::PartitionMessage,
    work::{Input, ReadReply},
};

/// How the router reaches an owned partition.
#[derive(Clone)]
pub(crate) struct Handle {
    pub term: u64,
    pub supervisor: ActorRef<PartitionMessage>,
    pub lane: mpsc::Sender<Input>,
    pub lease: Lease,
    /// Whether the keys at home here are served.
    pub serving: Arc<AtomicBool>,
    /// Reads of aggregates that are not in memory come back here.
    pub cold: mpsc::UnboundedSender<(AggregateId, ReadReply)>,
}

/// The owned partitions, for the router.
pub(crate) type Handles = Arc<RwLock<HashMap<PartitionId, Handle>>>;

/// The number of partitions owned now.
pub(crate) fn owned_count(handles: &Handles) -> usize {
    handles.read().unwrap_or_else(PoisonError::into_inner).len()
}
