//! Deliveries to actors, and the verdicts on them, which a lane takes in many at a time, or once all are in.
//!
//! Invariant: a delivery ends once, with its verdict, or as missed if all that could decide it are gone.
//! Deliberately absent: what follows from either.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use holdfast_core::{AggregateId, KeyHash, PartitionId};
use holdfast_machine::lane as machine;
use tokio::sync::Notify;

use crate::work::{Item, Verdict};

/// A lane takes verdicts in once this many are gathered.
const AT_ONCE: usize = 64;

/// The messages of one batch for one aggregate, shared between the lane, the supervisor and the actor, so
/// that a dying actor takes none with it.
pub(crate) struct Delivery {
    /// Numbers the deliveries of a lane.
    pub number: u64,
    /// The ownership under which it is decided.
    pub term: u64,
    pub aggregate: AggregateId,
    pub hash: KeyHash,
    /// The partition that decides it, and which its events go to.
    pub home: PartitionId,
    /// The count by which that is its home.
    pub count: u32,
    pub items: Vec<Arc<Item>>,
    /// The item being decided; read after a failure to know the culprit.
    pub at: AtomicUsize,
    /// Items from this one on are not decided; lowered to the culprit after a failure.
    pub limit: AtomicUsize,
    /// What the actor died of.
    pub failure: OnceLock<String>,
    verdicts: Weak<Verdicts>,
    has_verdict: AtomicBool,
}

impl Delivery {
    /// A delivery under the ownership `term`, as the machine has it, with its messages' bodies; its verdict
    /// goes to `verdicts`.
    pub fn new(of: machine::Delivery, term: u64, items: Vec<Arc<Item>>, verdicts: &Arc<Verdicts>) -> Self {
        let machine::Delivery { delivery: number, aggregate, hash, partition: home, count, .. } = of;
        verdicts.expect(home);
        Self {
            number,
            term,
            aggregate,
            hash,
            home,
            count,
            at: AtomicUsize::new(0),
            limit: AtomicUsize::new(items.len()),
            items,
            failure: OnceLock::new(),
            verdicts: Arc::downgrade(verdicts),
            has_verdict: AtomicBool::new(false),
        }
    }

    /// Tells the lane the verdict, unless it has one. A lane that is gone has dropped the partition; nobody
    /// waits.
    pub fn conclude(self: Arc<Self>, verdict: Verdict) {
        if !self.has_verdict.swap(true, Ordering::AcqRel)
            && let Some(verdicts) = self.verdicts.upgrade()
        {
            verdicts.decided(self, verdict);
        }
    }

    /// After an actor died: what comes before the item it was deciding is decided again, that item and what
    /// follows is not.
    pub fn cut_at_culprit(&self, error: &str) {
        self.limit.fetch_min(self.at.load(Ordering::Acquire), Ordering::AcqRel);
        let _ = self.failure.set(error.to_owned());
    }

    /// The items to decide.
    pub fn open(&self) -> &[Arc<Item>] {
        &self.items[..self.limit.load(Ordering::Acquire)]
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !*self.has_verdict.get_mut()
            && let Some(verdicts) = self.verdicts.upgrade()
        {
            verdicts.missed(self.home, self.term);
        }
    }
}

/// The deliveries of one batch that are open, and the verdicts on the others. Its lane alone keeps it.
#[derive(Default)]
pub(crate) struct Verdicts {
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Default)]
struct State {
    /// Deliveries that have not ended.
    open: BTreeMap<PartitionId, usize>,
    gathered: Gathered,
}

impl State {
    fn is_ready(&self) -> bool {
        self.open.is_empty() || !self.gathered.missed.is_empty() || self.gathered.verdicts.len() >= AT_ONCE
    }
}

/// How deliveries have ended.
#[derive(Default)]
pub(crate) struct Gathered {
    pub verdicts: Vec<(Arc<Delivery>, Verdict)>,
    /// Partitions, by ownership, whose supervisor is gone.
    pub missed: BTreeMap<PartitionId, u64>,
}

impl Verdicts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more delivery of `partition` is on its way.
    pub fn expect(&self, partition: PartitionId) {
        *self.state().open.entry(partition).or_default() += 1;
    }

    /// A delivery of `partition` has ended. It counts unless nobody waits for it any more.
    fn end(&self, partition: PartitionId, note: impl FnOnce(&mut Gathered)) {
        let mut state = self.state();
        let State { open, gathered } = &mut *state;
        let Some(left) = open.get_mut(&partition) else { return };
        note(gathered);
        *left -= 1;
        if *left == 0 {
            open.remove(&partition);
        }
        if state.is_ready() {
            self.ready.notify_one();
        }
    }

    pub fn decided(&self, delivery: Arc<Delivery>, verdict: Verdict) {
        self.end(delivery.home, |gathered| gathered.verdicts.push((delivery, verdict)));
    }

    pub fn missed(&self, partition: PartitionId, term: u64) {
        self.end(partition, |gathered| _ = gathered.missed.insert(partition, term));
    }

    /// The lane has given `partition` up: its deliveries count no more.
    pub fn forget(&self, partition: PartitionId) {
        let mut state = self.state();
        state.open.remove(&partition);
        let is_of = |(delivery, _): &mut (Arc<Delivery>, Verdict)| delivery.home == partition;
        let gone: Vec<_> = state.gathered.verdicts.extract_if(.., is_of).collect();
        state.gathered.missed.remove(&partition);
        if state.is_ready() {
            self.ready.notify_one();
        }
        drop(state);
        drop(gone); // what messages hold is given back without the lock
    }

    /// Whether it is time to take out what has ended.
    pub fn is_ready(&self) -> bool {
        self.state().is_ready()
    }

    /// Waits until [`Self::is_ready`]. Cancel-safe.
    pub async fn ready(&self) {
        while !self.is_ready() {
            self.ready.notified().await;
        }
    }

    /// Takes out what has ended, and says whether that was the last of it.
    pub fn take(&self) -> (Gathered, bool) {
        let mut state = self.state();
        (std::mem::take(&mut state.gathered), state.open.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::{AggregateId, KeyHash};
    use holdfast_machine::lane;

    use super::*;

    const DECIDED: Verdict = Verdict { steps: Vec::new(), outcome: None, failed: None, unreadable: false };

    fn delivery(verdicts: &Arc<Verdicts>, number: u64, partition: u32) -> Arc<Delivery> {
        let of = lane::Delivery {
            delivery: number,
            aggregate: AggregateId { kind: "counter", key: "k".into() },
            hash: KeyHash::of(b"k"),
            partition: PartitionId(partition),
            count: 2,
            messages: Vec::new(),
            readers: Vec::new(),
        };
        Arc::new(Delivery::new(of, 7, Vec::new(), verdicts))
    }

    /// What has ended: deliveries with a verdict, partitions that are missed, and whether that is all.
    fn take(verdicts: &Verdicts) -> (Vec<u64>, Vec<u32>, bool) {
        let (Gathered { verdicts, missed }, is_complete) = verdicts.take();
        assert!(missed.values().all(|term| *term == 7));
        let missed = missed.into_keys().map(|partition| partition.0).collect();
        (verdicts.iter().map(|(delivery, _)| delivery.number).collect(), missed, is_complete)
    }

    #[test]
    fn supervisor_that_is_gone_is_missed_at_once() {
        let verdicts = Arc::new(Verdicts::default());
        let (decided, dropped) = (delivery(&verdicts, 1, 0), delivery(&verdicts, 2, 1));
        let slow = delivery(&verdicts, 3, 0);
        decided.clone().conclude(DECIDED);
        assert!(!verdicts.is_ready(), "two are still decided");
        drop(dropped);
        assert!(verdicts.is_ready());
        assert_eq!(take(&verdicts), (vec![1], vec![1], false));
        slow.conclude(DECIDED);
        assert_eq!(take(&verdicts), (vec![3], vec![], true));
        drop(decided);
        assert_eq!(take(&verdicts), (vec![], vec![], true), "what was decided is not missed");
    }

    #[test]
    fn delivery_has_one_verdict() {
        let verdicts = Arc::new(Verdicts::default());
        let (first, second) = (delivery(&verdicts, 1, 0), delivery(&verdicts, 2, 0));
        first.clone().conclude(DECIDED);
        first.conclude(DECIDED); // its actor died after it had decided, and did so again
        assert!(!verdicts.is_ready());
        second.conclude(DECIDED);
        assert_eq!(take(&verdicts), (vec![1, 2], vec![], true));
    }

    #[tokio::test]
    async fn nothing_is_waited_for_of_a_partition_that_is_forgotten() {
        let verdicts = Arc::new(Verdicts::default());
        let (hung, decided) = (delivery(&verdicts, 1, 0), delivery(&verdicts, 2, 0));
        decided.conclude(DECIDED);
        let mut waiting = Box::pin(verdicts.ready());
        assert!(futures::poll!(&mut waiting).is_pending());
        verdicts.forget(PartitionId(0));
        waiting.await;
        hung.conclude(DECIDED);
        assert_eq!(take(&verdicts), (vec![], vec![], true), "whatever is decided afterwards");
    }

    #[test]
    fn many_are_taken_in_while_others_are_decided() {
        let verdicts = Arc::new(Verdicts::default());
        let all: Vec<Arc<Delivery>> = (0..100).map(|number| delivery(&verdicts, number, 0)).collect();
        for delivery in &all[..AT_ONCE] {
            assert!(!verdicts.is_ready());
            delivery.clone().conclude(DECIDED);
        }
        assert!(verdicts.is_ready());
        assert_eq!(take(&verdicts).0.len(), AT_ONCE);
        assert!(!verdicts.is_ready());
    }
}
