//! One commit's worth: what is written, whose it is, and what follows once it has happened.
//!
//! Upholds I7: whatever enters a plan is done with it (its source is consumed by that commit), kept by it (in
//! the durable mailbox), or undone as a whole. Deliberately absent: the rows, which the shell writes from the
//! bodies that it keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    batch::Fence,
    disposition::{DeadLetterReason, WaitReason},
    port::store::Committed,
    ring::Pushed,
};

use super::{
    backlog::Backlog,
    message::{Number, Slot, State},
};
use crate::step::Step;

/// What one part of a commit writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What an actor decided, and that the mail among its messages is removed.
    Decided {
        /// The delivery.
        delivery: u64,
        /// The messages that were decided.
        messages: Vec<Number>,
        /// The aggregate's claims from then on: as decided, and if refused.
        claims: [Pushed; 2],
    },
    /// What becomes of a message that no actor has decided.
    Disposed {
        /// Which.
        message: Number,
        /// What.
        disposal: Disposal,
    },
}

/// What becomes of a message that no actor has decided. Mail that is done is removed in each case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// It was done before.
    Repeat,
    /// It queues in the durable mailbox.
    Put {
        /// Why.
        reason: WaitReason,
        /// Failures so far.
        attempts: u32,
        /// When it is due; `None` if that is for those before it to say.
        after: Option<Duration>,
        /// The last failure.
        error: String,
    },
    /// Mail stays where it is, and is due later.
    Defer {
        /// Why.
        reason: WaitReason,
        /// Failures so far.
        attempts: u32,
        /// When it is due.
        after: Duration,
        /// The last failure.
        error: String,
    },
    /// A timer fires later.
    PutOff {
        /// When.
        after: Duration,
    },
    /// A dead letter.
    Dead {
        /// Its class.
        reason: DeadLetterReason,
        /// The last failure.
        error: String,
        /// How often it was tried.
        attempts: u32,
        /// Whether the index names its aggregate. A key that the store refuses can't stand there.
        is_indexed: bool,
    },
    /// A dead letter of a record that never became a message, for the reason that the shell knows.
    Refuse,
    /// The record as it is, in the table whose columns accept anything.
    Unfiled {
        /// The last failure.
        error: String,
    },
}

/// A delivery in a plan.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub delivery: u64,
    /// Its part, by which it is granted or refused.
    pub part: usize,
    pub partition: PartitionId,
    pub slot: Slot,
    /// The timers that are set again or cancelled, if granted and if refused.
    pub timers: [Vec<String>; 2],
    /// Its claims from then on, if granted and if refused.
    pub claims: [Pushed; 2],
}

/// How far a commit has come.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// It was sent, or is to be sent again.
    Sent,
    /// It has happened, but for stale partitions: whether these are this node's still is being looked at.
    Comparing(Committed),
    /// Its outcome is being found out; `true` if its size may be why none came.
    Settling(bool),
    /// [`crate::Rules::settles_unknown_commits`] left out: the rows are read, to send it as the one after
    /// whatever is committed.
    Blind,
}

/// A plan that was begun with.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub step: Step,
    pub fences: Vec<Fence>,
    pub phase: Phase,
    /// There is no smaller thing to try: it is held while it takes too long, as in an outage.
    pub is_last: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub parts: Vec<Part>,
    /// All messages that it is about.
    pub messages: Vec<Number>,
    pub decided: Vec<Decided>,
    /// Offsets that it consumes.
    pub consumed: BTreeMap<PartitionId, BTreeMap<std::sync::Arc<str>, BTreeSet<u64>>>,
    /// How the durable mailboxes change.
    pub waiting: Vec<(PartitionId, KeyHash, AggregateId, i64)>,
    /// Mailboxes whose head stays there and is due later.
    pub deferred: Vec<(PartitionId, AggregateId)>,
    /// The ownerships under which it was made. It says nothing under any other.
    pub terms: BTreeMap<PartitionId, u64>,
    pub in_flight: Option<InFlight>,
}

impl Plan {
    /// Makes room for this number of messages.
    pub fn reserve(&mut self, messages: usize) {
        self.parts.reserve(messages);
        self.messages.reserve(messages);
        self.decided.reserve(messages);
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.messages.is_empty()
    }

    /// When it is to be sent again.
    pub fn due(&self) -> Option<Duration> {
        let step = &self.in_flight.as_ref()?.step;
        step.ask.is_none().then_some(step.due)
    }

    /// Adds a message, whose source is consumed with it.
    pub fn add(&mut self, number: Number, backlog: &mut Backlog) {
        backlog.set(number, State::Committing);
        let Some(entry) = backlog.get(number) else { return };
        self.terms.insert(entry.partition, entry.term);
        self.messages.push(number);
        if let Some((topic, offset)) = entry.place.clone() {
            self.consumed.entry(entry.partition).or_default().entry(topic).or_default().insert(offset);
        }
    }

    /// Adds a message that no actor has decided.
    pub fn dispose(&mut self, message: Number, disposal: Disposal, backlog: &mut Backlog) {
        let Some(entry) = backlog.get(message) else { return };
        let id = match entry.slot.map(|slot| backlog.aggregate(slot)) {
            Some(aggregate) => Some((aggregate.id.clone(), aggregate.hash)),
            None => entry.message.as_ref().map(|message| (message.aggregate.clone(), message.hash)),
        };
        let partition = entry.partition;
        match (&disposal, &entry.mail) {
            (Disposal::Put { .. }, _) => {
                self.waiting.extend(id.map(|(id, hash)| (partition, hash, id, 1)));
            }
            (Disposal::Defer { .. }, _) => self.deferred.extend(id.map(|(id, _)| (partition, id))),
            (_, Some(_)) => self.waiting.extend(id.map(|(id, hash)| (partition, hash, id, -1))),
            _ => {}
        }
        self.parts.push(Part::Disposed { message, disposal });
        self.add(message, backlog);
    }

    /// Puts deliveries in the order of their first messages: whatever actor was quicker, shared quantities
    /// are granted in order of arrival.
    pub fn sort(&mut self) {
        let first = |part: &Part| match part {
            Part::Decided { messages, .. } => messages.first().copied(),
            Part::Disposed { message, .. } => Some(*message),
        };
        let mut parts: Vec<(usize, Part)> = std::mem::take(&mut self.parts).into_iter().enumerate().collect();
        parts.sort_by_key(|(_, part)| first(part));
        self.renumber(parts);
        self.decided.sort_by_key(|decided| decided.part);
    }

    /// Has these parts, each with the place that it had, and tells the deliveries the places that they have
    /// now.
    fn renumber(&mut self, parts: Vec<(usize, Part)>) {
        let places: BTreeMap<usize, usize> =
            parts.iter().enumerate().map(|(now, (before, _))| (*before, now)).collect();
        for decided in &mut self.decided {
            decided.part = *places.get(&decided.part).expect("the part of a delivery stays with it");
        }
        self.parts = parts.into_iter().map(|(_, part)| part).collect();
    }

    /// Leaves out what is of ownerships that have ended; returns its messages and deliveries.
    pub fn prune(&mut self, is_held: impl Fn(PartitionId, u64) -> bool, backlog: &Backlog) -> (Vec<Number>, Vec<u64>) {
        let ended: BTreeSet<PartitionId> =
            self.terms.iter().filter(|(partition, term)| !is_held(**partition, **term)).map(|(p, _)| *p).collect();
        if ended.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let is_ended = |number: &mut Number| backlog.get(*number).is_none_or(|entry| ended.contains(&entry.partition));
        let messages: Vec<Number> = self.messages.extract_if(.., is_ended).collect();
        let gone: BTreeSet<Number> = messages.iter().copied().collect();
        let decided: Vec<Decided> = self.decided.extract_if(.., |decided| ended.contains(&decided.partition)).collect();
        let deliveries: Vec<u64> = decided.iter().map(|decided| decided.delivery).collect();
        let is_gone = |part: &Part| match part {
            Part::Decided { delivery, .. } => deliveries.contains(delivery),
            Part::Disposed { message, .. } => gone.contains(message),
        };
        let parts = std::mem::take(&mut self.parts).into_iter().enumerate();
        self.renumber(parts.filter(|(_, part)| !is_gone(part)).collect());
        self.consumed.retain(|partition, _| !ended.contains(partition));
        self.waiting.retain(|(partition, ..)| !ended.contains(partition));
        self.deferred.retain(|(partition, _)| !ended.contains(partition));
        self.terms.retain(|partition, _| !ended.contains(partition));
        (messages, deliveries)
    }
}
