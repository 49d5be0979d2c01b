//! Who owns which partition, as far as this node has heard: a copy of the store's rows, read when it is found
//! to be wrong.
//!
//! However many calls find that at once, one of them reads and the others wait for it; and no more than one
//! read begins in [`Limits::refresh_every`](crate::routing::Limits). Invariant: what is kept of a partition
//! never goes back to an older epoch. Being wrong is harmless: only the store's fence and the owner's lease
//! decide. Deliberately absent: notices. A partition that nobody asks for is not followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    epoch::{Epoch, PartitionRow},
    port::store::{Store, StoreError},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use crate::peers::Placement;

/// What is known of one partition.
#[derive(Clone, Debug)]
struct Known {
    place: Placement,
    /// Its owner has given it up, or it never had one.
    is_orphan: bool,
    /// When the node there last said that it is not the owner; it may be about to become it.
    refused: Option<Instant>,
}

impl Known {
    fn of(row: &PartitionRow) -> Self {
        let place = Placement { partition: row.partition, address: row.address.as_str().into(), epoch: row.epoch };
        Self { place, is_orphan: row.released || row.token.is_none() || row.address.is_empty(), refused: None }
    }
}

/// When the table was read.
#[derive(Default)]
struct Read {
    /// Also of a read that failed or was given up.
    begun: Option<Instant>,
    /// Of the last one that was finished, when it began.
    done: Option<Instant>,
}

pub(crate) struct Owners {
    store: Arc<dyn Store>,
    every: Duration,
    table: RwLock<BTreeMap<PartitionId, Known>>,
    read: Mutex<Read>,
    reads: AtomicU64,
}

impl Owners {
    pub fn new(store: Arc<dyn Store>, every: Duration) -> Self {
        Self { store, every, table: RwLock::default(), read: Mutex::default(), reads: AtomicU64::new(0) }
    }

    /// Where `partition` is served; `None` if that is not known, or if no node serves it. A node that has
    /// just refused is asked again only after a pause: a taker is written down as the owner a while before it
    /// serves the partition.
    pub fn place(&self, partition: PartitionId) -> Option<Placement> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let known = table.get(&partition).filter(|known| !known.is_orphan)?;
        known.refused.is_none_or(|at| at.elapsed() >= self.every).then(|| known.place.clone())
    }

    /// The newest term of `partition` that was heard of.
    pub fn epoch(&self, partition: PartitionId) -> Epoch {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&partition).map_or(Epoch::default(), |known| known.place.epoch)
    }

    /// The node at `asked` is not the owner, and names another, if it knows one. Returns whether that is
    /// news; if not, the table must be read.
    pub fn refused(&self, asked: &Placement, named: Option<Placement>) -> bool {
        let partition = asked.partition;
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = table.get_mut(&partition) else { return false };
        match named {
            Some(place) if place.partition == partition && place.epoch > known.place.epoch => {
                *known = Known { place, is_orphan: false, refused: None };
                true
            }
            _ if known.place == *asked => {
                known.refused = Some(Instant::now());
                false
            }
            // Another call has heard of a newer owner meanwhile.
            _ => true,
        }
    }

    /// Makes sure that the table was read after `since`. Returns the addresses of all owners if this call is
    /// the one that read it.
    pub async fn refresh(&self, since: Instant) -> Result<Option<BTreeSet<Arc<str>>>, StoreError> {
        let mut read = self.read.lock().await;
        if read.done.is_some_and(|begun| begun >= since) {
            return Ok(None);
        }
        if let Some(begun) = read.begun {
            sleep_until(begun + self.every).await;
        }
        let begun = Instant::now();
        read.begun = Some(begun);
        self.reads.fetch_add(1, Ordering::Relaxed);
        let rows = self.store.partitions().await?;
        read.done = Some(begun);
        Ok(Some(self.adopt(&rows)))
    }

    fn adopt(&self, rows: &[PartitionRow]) -> BTreeSet<Arc<str>> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let mut new = Known::of(row);
            let known = table.entry(row.partition).or_insert_with(|| new.clone());
            if known.place == new.place {
                new.refused = known.refused;
            }
            // A redirection may have named the owner of a take-over that came after the rows were read.
            if new.place.epoch >= known.place.epoch {
                *known = new;
            }
        }
        table.values().filter(|known| !known.is_orphan).map(|known| known.place.address.clone()).collect()
    }

    /// How often the table was read.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}
