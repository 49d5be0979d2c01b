//! Everything that has arrived at a lane and is not done: a queue per aggregate, and one place for each
//! message.
//!
//! Invariant (I3): a message is taken into a batch only when all before it in its queue are taken. So undoing
//! a batch is setting its messages back to `Ready` where they stand, and whatever waits for something keeps
//! those behind it, and nobody else (I6). Mail is older than every record of its aggregate, so it stands
//! before them. Deliberately absent: why a message waits.

mod audit;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use holdfast_core::{AggregateId, KeyHash, PartitionId};

use super::{
    live::Live,
    message::{Arrival, Entry, Number, Slot, State},
};
use crate::table::{Numbered, Table};

/// An aggregate that has messages here, or an actor.
#[derive(Clone, Debug)]
pub(super) struct Aggregate {
    pub partition: PartitionId,
    pub id: AggregateId,
    pub hash: KeyHash,
    queue: VecDeque<Number>,
    /// The number of messages at the head of the queue that are in batches or commits.
    taken: usize,
    /// The number of ready messages behind them, and the first of these, which stands among what is ready.
    run: usize,
    head: Option<Number>,
    /// Strong reads that wait for the actor to be activated.
    reads: usize,
    /// The number of its messages that are mail.
    mail: usize,
}

impl Aggregate {
    /// Whether messages or readers of it are here.
    fn is_in_use(&self) -> bool {
        !self.queue.is_empty() || self.reads > 0
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog {
    entries: Numbered<Number, Box<Entry>>,
    slots: Vec<(u64, Option<Aggregate>)>,
    free: Vec<usize>,
    index: BTreeMap<PartitionId, Table<AggregateId, Slot>>,
    /// The first ready message of each queue, and what follows nobody.
    ready: BTreeSet<Number>,
    /// The number of messages that could be taken now.
    takeable: usize,
    /// Parts of a batch that the store refused, the last one to be tried first. Whatever else is ready waits
    /// for them.
    parts: Vec<BTreeSet<Number>>,
    pub live: Live,
}

impl Backlog {
    pub const fn takeable(&self) -> usize {
        self.takeable
    }

    /// Whether parts of a refused batch are still to be tried.
    pub fn is_split(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Nothing of them is left to be tried.
    pub fn end_parts(&mut self) {
        self.parts.clear();
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn get(&self, number: Number) -> Option<&Entry> {
        self.entries.get(&number).map(|entry| &**entry)
    }

    pub fn get_mut(&mut self, number: Number) -> Option<&mut Entry> {
        self.entries.get_mut(&number).map(|entry| &mut **entry)
    }

    /// The aggregate of a slot that may have been given away.
    pub fn holds(&self, slot: Slot) -> Option<&Aggregate> {
        let (use_number, aggregate) = self.slots.get(slot.at)?;
        aggregate.as_ref().filter(|_| *use_number == slot.use_number)
    }

    /// The aggregate of a slot that a message or an actor names.
    pub fn aggregate(&self, slot: Slot) -> &Aggregate {
        self.holds(slot).expect("a slot is kept as long as a message names it")
    }

    fn aggregate_mut(&mut self, slot: Slot) -> &mut Aggregate {
        let (use_number, aggregate) = &mut self.slots[slot.at];
        aggregate
            .as_mut()
            .filter(|_| *use_number == slot.use_number)
            .expect("a slot is kept as long as a message names it")
    }

    /// The slot of an aggregate, if it has messages here, or an actor.
    pub fn find(&self, partition: PartitionId, id: &AggregateId) -> Option<Slot> {
        self.index.get(&partition)?.get(id).copied()
    }

    /// The messages of an aggregate, in order.
    pub fn queue(&self, slot: Slot) -> impl Iterator<Item = (Number, &Entry)> {
        self.aggregate(slot).queue.iter().filter_map(|number| Some((*number, self.get(*number)?)))
    }

    /// The slots of `partition`.
    pub fn slots_of(&self, partition: PartitionId) -> Vec<Slot> {
        self.index
            .get(&partition)
            .map_or_else(Vec::new, |index| index.sorted().into_iter().map(|(_, slot)| *slot).collect())
    }

    /// All messages, in order of arrival.
    pub fn entries(&self) -> impl Iterator<Item = (Number, &Entry)> {
        self.entries.sorted().into_iter().map(|(number, entry)| (*number, &**entry))
    }

    /// Messages of the parts that are still to be tried, for the model checker.
    #[cfg(test)]
    pub fn parts(&self) -> &[BTreeSet<Number>] {
        &self.parts
    }

    /// Messages here.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The slot of an aggregate, made if there is none.
    pub fn slot(&mut self, partition: PartitionId, hash: KeyHash, id: AggregateId) -> Slot {
        let (slots, free) = (&mut self.slots, &mut self.free);
        *self.index.entry(partition).or_default().get_or_insert_with(id, |id| {
            let (id, queue) = (id.clone(), VecDeque::new());
            let aggregate = Aggregate { partition, id, hash, queue, taken: 0, run: 0, head: None, reads: 0, mail: 0 };
            let at = free.pop().unwrap_or_else(|| {
                slots.push((0, None));
                slots.len() - 1
            });
            let (use_number, place) = &mut slots[at];
            (*use_number, *place) = (*use_number + 1, Some(aggregate));
            Slot { at, use_number: *use_number }
        })
    }

    /// Puts what has arrived in its place.
    pub fn add(&mut self, arrival: Arrival) {
        let (number, partition) = (arrival.number, arrival.partition);
        let (mut entry, of) = Entry::new(arrival);
        let Some((id, hash)) = of else {
            self.entries.insert(number, Box::new(entry));
            return self.set_free(number);
        };
        let slot = self.slot(partition, hash, id);
        entry.slot = Some(slot);
        if entry.is_read() {
            self.entries.insert(number, Box::new(entry));
            self.aggregate_mut(slot).reads += 1;
            return self.set_free(number);
        }
        let is_mail = entry.mail.is_some();
        self.entries.insert(number, Box::new(entry));
        let (entries, (_, aggregate)) = (&self.entries, &mut self.slots[slot.at]);
        let Some(aggregate) = aggregate else { return };
        let is_mail_at = |at: usize| entries.get(&aggregate.queue[at]).is_some_and(|entry| entry.mail.is_some());
        let mut at = aggregate.queue.len();
        while is_mail && at > aggregate.taken && !is_mail_at(at - 1) {
            at -= 1;
        }
        aggregate.queue.insert(at, number);
        aggregate.mail += usize::from(is_mail);
        if at + 1 == aggregate.queue.len() && aggregate.taken + aggregate.run == at {
            aggregate.run += 1;
            self.takeable += 1;
            if aggregate.run == 1 {
                aggregate.head = Some(number);
                self.ready.insert(number);
            }
        } else {
            self.refresh(slot);
        }
    }

    /// What follows nobody may be taken.
    fn set_free(&mut self, number: Number) {
        if self.ready.insert(number) {
            self.takeable += 1;
        }
    }

    /// Counts again how much of a queue is taken, and how much behind that is ready.
    fn refresh(&mut self, slot: Slot) {
        let Some(aggregate) = &mut self.slots[slot.at].1 else { return };
        self.takeable -= aggregate.run;
        if let Some(head) = aggregate.head.take() {
            self.ready.remove(&head);
        }
        let state = |number: &Number| self.entries.get(number).map_or(State::Ready, |entry| entry.state);
        let is_taken = |number: &&Number| state(number).is_taken();
        aggregate.taken = aggregate.queue.iter().take_while(is_taken).count();
        let rest = aggregate.queue.iter().skip(aggregate.taken);
        aggregate.run = rest.take_while(|number| state(number) == State::Ready).count();
        self.takeable += aggregate.run;
        if aggregate.run > 0 {
            let head = aggregate.queue[aggregate.taken];
            aggregate.head = Some(head);
            self.ready.insert(head);
        }
    }

    /// Takes up to `max` messages whose turn it is, oldest first; of parts that the store refused, one part.
    /// What is paused is held from here on, and returned besides.
    pub fn take(&mut self, max: usize, is_paused: impl Fn(&Entry) -> bool) -> (Vec<Number>, Vec<Number>) {
        let (mut batch, mut held) = (Vec::new(), Vec::new());
        loop {
            let part = self.parts.pop();
            let mut passed = Vec::new();
            while batch.len() < max
                && let Some(number) = self.ready.pop_first()
            {
                if self.get(number).is_some_and(&is_paused) {
                    self.ready.insert(number);
                    self.set(number, State::Held);
                    held.push(number);
                } else if part.as_ref().is_some_and(|part| !part.contains(&number)) {
                    passed.push(number);
                } else {
                    self.take_one(number);
                    batch.push(number);
                }
            }
            self.ready.extend(passed);
            if !batch.is_empty() || part.is_none() {
                return (batch, held);
            }
        }
    }

    /// Takes `number`, which is no longer among the ready.
    fn take_one(&mut self, number: Number) {
        let entry = self.entries.get_mut(&number).expect("what is ready is in the backlog");
        entry.state = State::LookingUp;
        self.takeable -= 1;
        if let Some(slot) = entry.slot
            && !entry.is_read()
        {
            let aggregate = self.aggregate_mut(slot);
            (aggregate.taken, aggregate.run) = (aggregate.taken + 1, aggregate.run - 1);
            let next = (aggregate.run > 0).then(|| aggregate.queue[aggregate.taken]);
            aggregate.head = next;
            self.ready.extend(next);
            if next.is_none() {
                self.refresh(slot); // what is behind it may be late already, and more behind that ready
            }
        }
    }

    /// Moves a message on, or back.
    pub fn set(&mut self, number: Number, state: State) {
        self.set_all(&[number], state);
    }

    /// Moves messages on, or back.
    pub fn set_all(&mut self, numbers: &[Number], state: State) {
        let mut changed = BTreeSet::new();
        for number in numbers {
            let Some(entry) = self.entries.get_mut(number) else { continue };
            let before = std::mem::replace(&mut entry.state, state);
            if before.is_taken() && state.is_taken() {
                continue;
            }
            match entry.slot {
                Some(slot) if !entry.is_read() => _ = changed.insert(slot),
                _ if state == State::Ready => self.set_free(*number),
                _ => self.unset_free(*number),
            }
        }
        for slot in changed {
            self.refresh(slot);
        }
    }

    fn unset_free(&mut self, number: Number) {
        if self.ready.remove(&number) {
            self.takeable -= 1;
        }
    }

    /// Takes a message out of its queue: it follows nobody from here on, and nobody follows it.
    pub fn detach(&mut self, number: Number) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let (state, slot, is_mail) = (entry.state, entry.slot.take(), entry.mail.is_some());
        if let Some(slot) = slot {
            self.leave(number, slot, is_mail);
        }
        if state == State::Ready {
            self.set_free(number);
        }
    }

    fn leave(&mut self, number: Number, slot: Slot, is_mail: bool) {
        let aggregate = self.aggregate_mut(slot);
        let at = aggregate.queue.iter().position(|other| *other == number).expect("it stands in its queue");
        aggregate.queue.remove(at);
        aggregate.mail -= usize::from(is_mail);
        if at < aggregate.taken {
            aggregate.taken -= 1;
        } else {
            self.refresh(slot);
        }
        self.tidy(slot);
    }

    /// Removes what is done, or void.
    pub fn remove(&mut self, number: Number) -> Option<Box<Entry>> {
        let entry = self.entries.remove(&number)?;
        match entry.slot {
            Some(slot) if entry.is_read() => {
                self.unset_free(number);
                self.aggregate_mut(slot).reads -= 1;
                self.tidy(slot);
            }
            Some(slot) => self.leave(number, slot, entry.mail.is_some()),
            None => self.unset_free(number),
        }
        Some(entry)
    }

    /// Removes all of `partition` that is not being committed.
    pub fn abandon(&mut self, partition: PartitionId) -> Vec<(Number, Box<Entry>)> {
        let gone = self.entries.extract(|entry| entry.partition == partition && entry.state != State::Committing);
        let mut slots = BTreeSet::new();
        for (number, entry) in &gone {
            match entry.slot {
                Some(slot) if !entry.is_read() => _ = slots.insert(slot),
                Some(slot) => {
                    self.unset_free(*number);
                    self.aggregate_mut(slot).reads -= 1;
                    slots.insert(slot);
                }
                None => self.unset_free(*number),
            }
        }
        for slot in slots {
            let (entries, (_, aggregate)) = (&self.entries, &mut self.slots[slot.at]);
            let is_mail = |number: &Number| entries.get(number).is_some_and(|entry| entry.mail.is_some());
            if let Some(aggregate) = aggregate {
                aggregate.queue.retain(|number| entries.contains(number));
                aggregate.mail = aggregate.queue.iter().filter(|number| is_mail(number)).count();
            }
            self.refresh(slot);
            self.tidy(slot);
        }
        gone
    }

    /// Whether mail stands in the queue of an aggregate.
    pub fn has_mail(&self, slot: Slot) -> bool {
        self.aggregate(slot).mail > 0
    }

    /// Lets go of a slot that nothing needs any more.
    pub fn tidy(&mut self, slot: Slot) {
        if self.live.contains(slot) {
            return;
        }
        let (use_number, place) = &mut self.slots[slot.at];
        if *use_number == slot.use_number
            && let Some(aggregate) = place.take_if(|aggregate| !aggregate.is_in_use())
        {
            if let Some(of_partition) = self.index.get_mut(&aggregate.partition) {
                of_partition.remove(&aggregate.id);
            }
            self.free.push(slot.at);
        }
    }

    /// Whether this row of the mailbox is here, and follows nobody.
    pub fn has_row(&self, row: i64) -> bool {
        self.entries.any(|entry| entry.slot.is_none() && entry.mail.as_ref().is_some_and(|mail| mail.position == row))
    }

    /// Lets go of actors that have been idle since before `idle_before`, and of the idlest beyond `max`, but
    /// of none that has messages here.
    pub fn passivate(&mut self, idle_before: Duration, max: usize) -> BTreeMap<PartitionId, Vec<AggregateId>> {
        let slots = &self.slots;
        let is_busy = |slot: Slot| slots[slot.at].1.as_ref().is_some_and(Aggregate::is_in_use);
        let mut gone: BTreeMap<PartitionId, Vec<AggregateId>> = BTreeMap::new();
        for slot in self.live.passivate(idle_before, max, is_busy) {
            let aggregate = self.aggregate(slot);
            gone.entry(aggregate.partition).or_default().push(aggregate.id.clone());
            self.tidy(slot);
        }
        gone
    }

    /// Stops an actor's place; its aggregate's messages stay.
    pub fn forget(&mut self, slot: Slot) -> bool {
        let was_live = self.live.remove(slot);
        self.tidy(slot);
        was_live
    }

    /// Has what the store refused tried again in two halves, before anything else: in the order of the
    /// queues, and of the log. `before` goes with the first.
    pub fn split(&mut self, messages: &[Number], before: &[Number]) {
        let mut here: Vec<(bool, Number)> = messages
            .iter()
            .filter_map(|number| self.entries.get(number).map(|entry| (entry.mail.is_none(), *number)))
            .collect();
        here.sort_unstable();
        let (first, second) = here.split_at(here.len().div_ceil(2));
        let part = |half: &[(bool, Number)]| half.iter().map(|(_, number)| *number).collect::<BTreeSet<_>>();
        let (mut first, second) = (part(first), part(second));
        if !first.is_empty() {
            first.extend(before);
        }
        self.parts.extend([second, first].into_iter().filter(|part| !part.is_empty()));
    }
}
