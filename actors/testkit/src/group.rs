//! The consumer group in memory: members that share the partitions of one topic.
//!
//! Assignment is sticky and balanced unless a test moves a partition by hand. Like the real one it is no
//! fence: a member may be deaf to what was decided, and two may believe that a partition is theirs.
//! Deliberately absent: sessions and heartbeats; a test expels.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use holdfast_core::{
    PartitionId,
    port::log::{LogError, Membership},
};
use tokio::sync::watch;

/// The coordinator of one group.
#[derive(Clone, Debug)]
pub struct MemoryGroup {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    count: u32,
    joined: u32,
    members: BTreeSet<u32>,
    owners: BTreeMap<PartitionId, u32>,
    /// Partitions that a test put where they are.
    pinned: BTreeSet<PartitionId>,
}

impl State {
    fn load(&self, member: u32) -> usize {
        self.owners.values().filter(|owner| **owner == member).count()
    }

    /// Gives orphans to the least loaded, then evens out, moving as little as possible.
    fn rebalance(&mut self) {
        let Self { count, members, owners, .. } = self;
        owners.retain(|partition, owner| partition.0 < *count && members.contains(owner));
        if self.members.is_empty() {
            return;
        }
        for partition in (0..self.count).map(PartitionId) {
            if !self.owners.contains_key(&partition)
                && let Some(least) = self.members.iter().copied().min_by_key(|member| self.load(*member))
            {
                self.owners.insert(partition, least);
            }
        }
        while let Some((partition, to)) = self.uneven() {
            self.owners.insert(partition, to);
        }
    }

    fn uneven(&self) -> Option<(PartitionId, u32)> {
        let least = self.members.iter().copied().min_by_key(|member| self.load(*member))?;
        let overloaded = |owner: &u32| self.load(*owner) > self.load(least) + 1;
        let movable = |(partition, owner): &(&PartitionId, &u32)| !self.pinned.contains(partition) && overloaded(owner);
        self.owners.iter().rfind(movable).map(|(partition, _)| (*partition, least))
    }

    fn of(&self, member: u32) -> BTreeSet<PartitionId> {
        self.owners.iter().filter(|(_, owner)| **owner == member).map(|(partition, _)| *partition).collect()
    }
}

impl MemoryGroup {
    /// A group without members over a topic of `count` partitions.
    pub fn new(count: u32) -> Self {
        let state = Mutex::new(State { count, ..State::default() });
        Self { inner: Arc::new(Inner { state, changes: watch::Sender::new(()) }) }
    }

    /// A new member joins.
    pub fn join(&self) -> MemoryMembership {
        let id = self.change(|state| {
            state.joined += 1;
            state.members.insert(state.joined);
            state.rebalance();
            state.joined
        });
        let view = View { last: BTreeSet::new(), deaf: false, left: false };
        MemoryMembership { group: self.clone(), id, view: Arc::new(Mutex::new(view)) }
    }

    /// Gives up on a member, as when its session ends; it learns that it has nothing.
    pub fn expel(&self, member: &MemoryMembership) {
        self.change(|state| {
            state.members.remove(&member.id);
            state.rebalance();
        });
    }

    /// Lets an expelled member in again.
    pub fn readmit(&self, member: &MemoryMembership) {
        self.change(|state| {
            state.members.insert(member.id);
            state.rebalance();
        });
    }

    /// Gives `partition` to `member`, where it stays until it is let go.
    pub fn assign(&self, partition: PartitionId, member: &MemoryMembership) {
        self.change(|state| {
            state.owners.insert(partition, member.id);
            state.pinned.insert(partition);
        });
    }

    /// Gives `partition` to the member after its present owner, where it stays until it is let go.
    pub fn flip(&self, partition: PartitionId) {
        self.change(|state| {
            let owner = state.owners.get(&partition).copied().unwrap_or(0);
            let next = state.members.range(owner + 1..).chain(&state.members).next().copied();
            if let Some(next) = next {
                state.owners.insert(partition, next);
                state.pinned.insert(partition);
            }
        });
    }

    /// Lets go of the partitions that were given by hand.
    pub fn let_go(&self) {
        self.change(|state| {
            state.pinned.clear();
            state.rebalance();
        });
    }

    /// The topic grew.
    pub fn set_count(&self, count: u32) {
        self.change(|state| {
            state.count = count;
            state.rebalance();
        });
    }

    /// Who has what: member ids by partition.
    pub fn assignment(&self) -> BTreeMap<PartitionId, u32> {
        self.state().owners.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let answer = change(&mut self.state());
        self.inner.changes.send_replace(());
        answer
    }
}

/// One member. Clones are the same member.
#[derive(Clone, Debug)]
pub struct MemoryMembership {
    group: MemoryGroup,
    id: u32,
    view: Arc<Mutex<View>>,
}

#[derive(Debug)]
struct View {
    last: BTreeSet<PartitionId>,
    deaf: bool,
    left: bool,
}

impl MemoryMembership {
    /// This member's number in [`MemoryGroup::assignment`].
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Keeps this member from hearing of changes, and the coordinator from answering it, or ends that.
    pub fn set_deaf(&self, deaf: bool) {
        self.view().deaf = deaf;
        self.group.inner.changes.send_replace(());
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The assignment, if it is news to this member.
    fn news(&self) -> Option<BTreeSet<PartitionId>> {
        let current = self.group.state().of(self.id);
        let mut view = self.view();
        if view.deaf || view.left || view.last == current {
            return None;
        }
        view.last.clone_from(&current);
        Some(current)
    }
}

#[async_trait]
impl Membership for MemoryMembership {
    async fn changed(&self) -> Result<BTreeSet<PartitionId>, LogError> {
        let mut changes = self.group.inner.changes.subscribe();
        loop {
            if let Some(news) = self.news() {
                return Ok(news);
            }
            // The sender lives in the group that `self` holds.
            let _ = changes.changed().await;
        }
    }

    async fn confirm(&self, partition: PartitionId) -> bool {
        !self.view().deaf && self.group.state().owners.get(&partition) == Some(&self.id)
    }

    fn joined(&self) -> bool {
        !self.view().left && self.group.state().members.contains(&self.id)
    }

    async fn leave(&self) {
        self.view().left = true;
        self.group.expel(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn set(list: impl IntoIterator<Item = u32>) -> BTreeSet<PartitionId> {
        list.into_iter().map(PartitionId).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn members_share_and_hear_only_of_changes() {
        let group = MemoryGroup::new(4);
        let a = group.join();
        assert_eq!(a.changed().await.unwrap(), set(0..4));
        let b = group.join();
        let (of_a, of_b) = (a.changed().await.unwrap(), b.changed().await.unwrap());
        assert_eq!((of_a.len(), of_b.len(), &of_a | &of_b), (2, 2, set(0..4)));
        assert!(timeout(Duration::from_secs(1), a.changed()).await.is_err(), "no change, no answer");
        b.leave().await;
        assert_eq!(a.changed().await.unwrap(), set(0..4));
        assert!(!b.joined() && timeout(Duration::from_secs(1), b.changed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_member_still_believes_and_is_not_confirmed() {
        let group = MemoryGroup::new(2);
        let (a, b) = (group.join(), group.join());
        let p = *a.changed().await.unwrap().first().unwrap();
        a.set_deaf(true);
        group.flip(p);
        assert!(b.changed().await.unwrap().contains(&p) && b.confirm(p).await && !a.confirm(p).await);
        assert!(timeout(Duration::from_secs(1), a.changed()).await.is_err());
        a.set_deaf(false);
        assert_eq!(a.changed().await.unwrap(), set([]));
        group.let_go();
        group.set_count(6);
        assert_eq!((a.changed().await.unwrap().len(), b.changed().await.unwrap().len()), (3, 3));
    }
}
