//! What a domain writes: an aggregate's state, how it decides, how it evolves.
//!
//! Both functions are pure and synchronous; they know no clock (time is in [`Context`]) and no I/O. The
//! runtime may call `decide` any number of times for one command and keeps at most one outcome (I2).
//! Deliberately absent: persistence, encoding (see [`crate::codec`]) and anything async.

use std::{fmt, sync::Arc, time::Duration};

use crate::{pool::PoolChange, time::Timestamp};

/// Names one aggregate: its kind and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AggregateId {
    /// [`Aggregate::KIND`].
    pub kind: &'static str,
    /// The record key, as text.
    pub key: Arc<str>,
}

impl fmt::Display for AggregateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.key)
    }
}

/// What a decision may know beside the state and the command.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The aggregate's key.
    pub key: &'a str,
    /// Its version before this command: the number of events so far, 0 if it does not exist.
    pub version: u64,
    /// When the command was admitted, by the owning node's clock.
    pub now: Timestamp,
}

/// The state of one aggregate, and its two pure functions.
///
/// `Default` is the state before the first event. `Clone` should be cheap: it is taken once for each batch in
/// which the aggregate changes.
pub trait Aggregate: Clone + Default + Send + Sync + 'static {
    /// The stable name of this kind in storage, for example `order`.
    const KIND: &'static str;
    /// The schema version of the stored state that this build writes.
    const SCHEMA: u32;
    /// What it can be asked to do. Events of other contexts and fired timers arrive as commands too.
    type Command: Send + Sync + 'static;
    /// What can have happened to it.
    type Event: Send + Sync + 'static;
    /// Why it says no. A rejection is an answer, kept like any other; it is never retried and never a dead
    /// letter.
    type Rejection: Send + Sync + 'static;

    /// Decides what follows from `command` in this state. Must not panic: a panic is a broken invariant,
    /// costs the actor its life, and after the retry budget sends the message to the dead letters.
    fn decide(&self, command: &Self::Command, context: &Context<'_>) -> Result<Decision<Self>, Self::Rejection>;

    /// Applies an event that has happened. Cannot refuse.
    fn evolve(&mut self, event: &Self::Event);
}

/// What follows from a command.
pub enum Decision<A: Aggregate> {
    /// It takes effect as it stands.
    Done(Effects<A::Event>),
    /// It depends on shared quantities, which the committer grants or refuses as a whole.
    Conditional {
        /// What is wanted; all of it or none.
        wants: Vec<PoolChange>,
        /// What happens if all of it is granted.
        granted: Effects<A::Event>,
        /// What happens, or how the command is rejected, if not.
        refused: Result<Effects<A::Event>, A::Rejection>,
    },
    /// The command lacks something that Prepare looks up, or holds what was looked up for another case; here
    /// is what. Nothing happens, and the message waits as one whose look-up failed.
    Unprepared(&'static str),
}

impl<A: Aggregate> Decision<A> {
    /// Nothing happens: the command is accepted and has no effect.
    pub fn nothing() -> Self {
        Self::Done(Effects::none())
    }

    /// One event happens.
    pub fn event(event: A::Event) -> Self {
        Self::Done(Effects::event(event))
    }

    /// These events happen, in this order.
    pub fn events(events: impl IntoIterator<Item = A::Event>) -> Self {
        Self::Done(Effects { events: events.into_iter().collect(), timers: Vec::new() })
    }
}

/// The events of a decision, with the timers it sets or cancels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effects<E> {
    /// In order; each raises the aggregate's version by one.
    pub events: Vec<E>,
    /// In order; a later change of the same name wins.
    pub timers: Vec<TimerChange>,
}

impl<E> Effects<E> {
    /// No event, no timer.
    pub const fn none() -> Self {
        Self { events: Vec::new(), timers: Vec::new() }
    }

    /// One event, no timer.
    pub fn event(event: E) -> Self {
        Self { events: vec![event], timers: Vec::new() }
    }

    /// Sets the timer `name` to fire `after` this decision is stored, by the database's clock. Replaces an
    /// older one of that name.
    #[must_use]
    pub fn with_timer(mut self, name: &'static str, after: Duration) -> Self {
        self.timers.push(TimerChange::Set { name, after });
        self
    }

    /// Cancels the timer `name`; none being set is fine.
    #[must_use]
    pub fn without_timer(mut self, name: &'static str) -> Self {
        self.timers.push(TimerChange::Cancel { name });
        self
    }
}

/// A change to one of the aggregate's durable timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerChange {
    /// (Re)sets the timer.
    Set {
        /// Unique within the aggregate.
        name: &'static str,
        /// From the commit, by the database's clock.
        after: Duration,
    },
    /// Removes the timer if it is set.
    Cancel {
        /// Unique within the aggregate.
        name: &'static str,
    },
}
