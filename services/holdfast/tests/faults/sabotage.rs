//! Nodes that don't hear the group take anything away, with their lease check and without it.
//!
//! A node that wakes up after others took its partitions is stopped from answering by two things: its Kafka
//! client notices at once that its session ran out, and its lease has run out. The first hides whether the
//! second works, so it is taken away: a *deaf* node must still never answer with an old state, by its lease
//! alone. Without its lease check as well, its clock for leases stands still: the linearizability check must
//! find it out (I9 for I5).
//!
//! And nodes that take every partition for empty when they ask where it ends: records of new partitions wait
//! for nothing then, and the account must show commands that were overtaken (I9 for I3). Deliberately absent
//! from every product binary.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use holdfast::compose::Wrap;
use holdfast_core::{
    PartitionId, Timestamp,
    port::{
        clock::Clock,
        log::{Log, LogError, Membership, RecordStream},
    },
};
use holdfast_runtime::Ports;

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// None: the product as it is.
    None,
    /// The group's revocations are not heard.
    Deaf,
    /// The same, and strong reads are answered under leases that ran out.
    DeafWithoutLeaseCheck,
    /// Records of new partitions wait for nothing.
    NoWait,
}

impl Sabotage {
    pub fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Deaf, Self::DeafWithoutLeaseCheck, Self::NoWait]
            .into_iter()
            .find(|sabotage| sabotage.to_string() == name)
    }

    /// What it does to a node.
    pub fn wrap(self) -> Wrap {
        match self {
            Self::None => |_, ports| ports,
            Self::Deaf => |_, ports| deaf(ports),
            Self::DeafWithoutLeaseCheck => |_, ports| {
                let clock = Arc::new(Standstill { at: ports.clock.boot(), real: ports.clock.clone() });
                deaf(Ports { clock, ..ports })
            },
            Self::NoWait => |_, ports| Ports { log: Arc::new(Empty(ports.log.clone())), ..ports },
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Deaf => "deaf",
            Self::DeafWithoutLeaseCheck => "deaf-without-lease-check",
            Self::NoWait => "no-wait",
        })
    }
}

fn deaf(ports: Ports) -> Ports {
    let membership = Arc::new(Deaf { inner: ports.membership.clone(), heard: Mutex::default() });
    Ports { membership, ..ports }
}

struct Deaf {
    inner: Arc<dyn Membership>,
    /// Everything that was ever assigned.
    heard: Mutex<BTreeSet<PartitionId>>,
}

#[async_trait]
impl Membership for Deaf {
    async fn changed(&self) -> Result<BTreeSet<PartitionId>, LogError> {
        let now = self.inner.changed().await?;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend(now);
        Ok(heard.clone())
    }

    async fn confirm(&self, partition: PartitionId) -> bool {
        self.inner.confirm(partition).await
    }

    fn joined(&self) -> bool {
        self.inner.joined()
    }

    async fn leave(&self) {
        self.inner.leave().await;
    }
}

struct Standstill {
    at: Duration,
    real: Arc<dyn Clock>,
}

impl Clock for Standstill {
    fn now(&self) -> Timestamp {
        self.real.now()
    }

    fn boot(&self) -> Duration {
        self.at
    }
}

/// A log whose partitions all seem to end where they begin.
struct Empty(Arc<dyn Log>);

#[async_trait]
impl Log for Empty {
    async fn partition_count(&self, topic: &str) -> Result<u32, LogError> {
        self.0.partition_count(topic).await
    }

    async fn ends(&self, _: &str, partitions: &[PartitionId]) -> Result<Vec<u64>, LogError> {
        Ok(vec![0; partitions.len()])
    }

    async fn open(
        &self,
        topic: &str,
        partition: PartitionId,
        from: Option<u64>,
    ) -> Result<Box<dyn RecordStream>, LogError> {
        self.0.open(topic, partition, from).await
    }

    async fn bounds(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64), LogError> {
        self.0.bounds(topic, partition).await
    }

    async fn incarnation(&self, topic: &str) -> Result<Option<String>, LogError> {
        self.0.incarnation(topic).await
    }

    async fn bytes_max(&self, topic: &str) -> Result<Option<u64>, LogError> {
        self.0.bytes_max(topic).await
    }

    fn store_offset(&self, topic: &str, partition: PartitionId, next: u64) {
        self.0.store_offset(topic, partition, next);
    }
}
