//! Signs of life: this node's own, and for how long each other has said none.
//!
//! Upholds I5 together with [`crate::lease`]: a lease is begun and renewed only by a look at the row that came after a beat of this run, so
//! a taker that heard a node's last beat a full lease ago, by its own clock, knows that none of that node's leases still runs. What
//! is remembered is when an answer came, never when it was asked for, on a clock that stands still while this machine sleeps: both only make
//! a node seem less silent than it was. Deliberately absent: judging who is dead, which is the group's.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_core::{
    epoch::Beat,
    port::store::{Store, StoreError},
};
use tokio::time::Instant;
use uuid::Uuid;

/// What one node says and hears.
pub(crate) struct Beats {
    address: String,
    run: Uuid,
    count: AtomicU64,
    heard: Mutex<HashMap<String, Heard>>,
    /// Whether the store has answered this run before.
    is_known: AtomicBool,
}

/// A node's last beat.
#[derive(Clone, Copy)]
struct Heard {
    beat: Beat,
    first: Instant,
    last: Instant,
}

impl Beats {
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            run: Uuid::new_v4(),
            count: AtomicU64::default(),
            heard: Mutex::default(),
            is_known: AtomicBool::default(),
        }
    }

    /// Says that this node lives, and hears the others.
    pub async fn say(&self, store: &dyn Store) -> Result<(), StoreError> {
        if self.exchange(store).await? {
            tracing::warn!(
                address = self.address,
                "another node says that it is at this node's address: give each its own, or calls go to either"
            );
        }
        Ok(())
    }

    /// Whether another run has spoken at this node's address after this one had.
    async fn exchange(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let was_known = self.is_known.load(Ordering::Relaxed); // before anything is sent: what comes back is newer than that answer
        let beat = Beat { run: self.run, count: self.count.fetch_add(1, Ordering::Relaxed) };
        let said = store.beat(&self.address, beat).await?;
        self.is_known.store(true, Ordering::Relaxed);
        let is_shared = was_known && said.get(&self.address).is_some_and(|beat| beat.run != self.run);
        self.hear(said);
        Ok(is_shared)
    }

    fn hear(&self, said: BTreeMap<String, Beat>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        heard.retain(|address, _| said.contains_key(address));
        for (address, beat) in said {
            match heard.get_mut(&address) {
                Some(known) if known.beat == beat => known.last = now,
                _ => {
                    heard.insert(address, Heard { beat, first: now, last: now });
                }
            }
        }
    }

    /// For how long the same beat of the node at `address` was heard. It may have said others since.
    pub fn silence(&self, address: &str) -> Duration {
        self.heard_of(address).map_or(Duration::ZERO, |heard| heard.last - heard.first)
    }

    /// For how long the node at `address` has said nothing, if `beat` is the last that it said.
    pub fn silence_since(&self, address: &str, beat: Beat) -> Duration {
        let heard = self.heard_of(address).filter(|heard| heard.beat == beat);
        heard.map_or(Duration::ZERO, |heard| heard.first.elapsed())
    }

    /// The last beat that was heard of the node at `address`.
    pub fn last(&self, address: &str) -> Option<Beat> {
        self.heard_of(address).map(|heard| heard.beat)
    }

    fn heard_of(&self, address: &str) -> Option<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(address).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_when_the_last_beat_was_first_heard() {
        let beats = Beats::new("here");
        let run = Uuid::new_v4();
        let said = |count| BTreeMap::from([("there".to_owned(), Beat { run, count })]);
        let (second, nothing) = (Duration::from_secs(1), Duration::ZERO);
        let silences = |count| (beats.silence("there"), beats.silence_since("there", Beat { run, count }));
        assert_eq!(silences(1), (nothing, nothing), "never heard of");
        beats.hear(said(1));
        tokio::time::sleep(second).await;
        beats.hear(said(1));
        tokio::time::sleep(second).await;
        assert_eq!(silences(1), (second, 2 * second));
        assert_eq!(silences(2), (second, nothing), "it has spoken since");
        beats.hear(said(2));
        assert_eq!(silences(2), (nothing, nothing));
        tokio::time::sleep(second).await;
        beats.hear(BTreeMap::new());
        assert_eq!(silences(2), (nothing, nothing), "forgotten");
    }

    #[tokio::test]
    async fn another_node_at_ones_own_address_is_noticed_and_the_one_before_is_not() {
        let store = holdfast_testkit::MemoryStore::new();
        let [before, now] = [Beats::new("here"), Beats::new("here")];
        let shares = async |beats: &Beats| beats.exchange(&store).await.expect("there");
        assert_eq!([shares(&before).await, shares(&now).await, shares(&now).await], [false; 3]);
        assert!(shares(&before).await && shares(&now).await);
    }
}
