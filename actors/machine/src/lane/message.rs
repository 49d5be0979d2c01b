//! A message as the lane's machine knows it: where it came from, and what it waits for.
//!
//! Deliberately absent: bodies. The shell keeps them, by the message's number.

use std::{sync::Arc, time::Duration};

use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    dedup::{Claim, Fingerprint},
    disposition::{DeadLetterReason, WaitReason},
};

use crate::Ask;

/// Numbers what arrives at a lane, in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(pub u64);

/// A topic and an offset in it.
pub type TopicOffset = (Arc<str>, u64);

/// What has arrived, and under which ownership.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Higher than every number before it.
    pub number: Number,
    /// Where it was read, or is at home.
    pub partition: PartitionId,
    /// The ownership that it came in under; it is void under any other.
    pub term: u64,
    /// What it is.
    pub content: Content,
}

/// What arrives at a lane.
#[derive(Clone, Debug)]
pub enum Content {
    /// A message for an aggregate.
    Message(Message),
    /// A record that no aggregate sees: it becomes a dead letter.
    Refused(Source),
    /// A record that concerns nobody here, or offsets that hold none, up to this one.
    Ignored(TopicOffset),
    /// A strong read of an aggregate that is not in memory.
    Read {
        /// Which aggregate.
        aggregate: AggregateId,
        /// The hash of its key.
        hash: KeyHash,
    },
}

/// A message for an aggregate.
#[derive(Clone, Debug)]
pub struct Message {
    /// Which aggregate.
    pub aggregate: AggregateId,
    /// The hash of its key.
    pub hash: KeyHash,
    /// Where it came from.
    pub origin: Origin,
    /// What its claim is recognised by, if it is one that is claimed.
    pub fingerprint: Option<Fingerprint>,
    /// Spreads what failed together, so that it does not come back together.
    pub seed: u8,
    /// What is known to be wrong with it.
    pub failure: Option<Failure>,
}

/// Where a message came from, and so what becomes of its source once it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The log: its offset is consumed.
    Log(TopicOffset),
    /// The durable mailbox: its row is removed.
    Mail(Mail),
    /// A setting of a timer: its row is removed, unless the timer was set again.
    Timer {
        /// The timer.
        name: String,
    },
    /// An effect's end: its row is removed.
    Effect,
    /// A caller, who waits for an answer.
    Call,
}

/// A row of the durable mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The row; mailbox order is by this number.
    pub position: i64,
    /// Failures so far.
    pub attempts: u32,
    /// For how long it has waited.
    pub waited: Duration,
}

/// Where a record came from that no aggregate sees.
#[derive(Clone, Debug)]
pub enum Source {
    /// The log.
    Log(TopicOffset),
    /// A row of the durable mailbox, and whose mailbox that is, if this build has such a kind.
    Mail(Mail, Option<(AggregateId, KeyHash)>),
}

/// Why a message was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its id was used before with another body.
    Reused,
    /// A look-up in another context failed.
    LookUp(String),
    /// What it causes is larger than its topic takes. It is not tried again.
    TooLarge(String),
    /// The handler failed, or the store refused its data. Counts against the budget.
    Handler(String),
    /// The store refuses its key: nothing can be stored for it.
    Refused(String),
    /// What is stored for its key can't be read by this build.
    Unreadable(String),
    /// Its commit alone took the store too long. That is never counted: a slow store can't be distinguished
    /// from a slow message.
    Slow(String),
}

impl Failure {
    /// What is wrong, for a person.
    pub fn text(&self) -> &str {
        match self {
            Self::Reused => "the id was used before with another body",
            Self::LookUp(error)
            | Self::TooLarge(error)
            | Self::Handler(error)
            | Self::Refused(error)
            | Self::Unreadable(error)
            | Self::Slow(error) => error,
        }
    }

    /// The reason under which a message waits that failed so.
    pub const fn wait_reason(&self) -> WaitReason {
        match self {
            Self::LookUp(_) => WaitReason::Downstream,
            Self::Handler(_)
            | Self::TooLarge(_)
            | Self::Reused
            | Self::Refused(_)
            | Self::Unreadable(_)
            | Self::Slow(_) => WaitReason::Retrying,
        }
    }

    /// The reason of its dead letter.
    pub const fn dead_letter_reason(&self) -> DeadLetterReason {
        match self {
            Self::Reused | Self::Refused(_) => DeadLetterReason::Invalid,
            Self::TooLarge(_) => DeadLetterReason::TooLarge,
            Self::LookUp(_) | Self::Handler(_) | Self::Unreadable(_) | Self::Slow(_) => DeadLetterReason::Poison,
        }
    }
}

/// Where an aggregate stands in the backlog: a place, and the number of this use of it, from 1. So what still
/// names a place that has been given to another aggregate names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot {
    pub at: usize,
    pub use_number: u64,
}

/// What a message in the backlog waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its turn.
    Ready,
    /// The batch that it is in to be decided: its look-up in the store, and the commit in flight.
    LookingUp,
    /// Another context's answer.
    Asking(Ask),
    /// Its actor's verdict.
    Deciding,
    /// Its commit.
    Committing,
    /// Its offset's turn: what becomes of it is known. It leaves no claim by which it would be recognised if
    /// it were read again, so it is written by the very commit that moves the consumed offset past it; and
    /// something before it in its partition is not done.
    Late {
        /// Whether what is behind it waits as well. Behind a dead letter it does: until that is written the
        /// record may come again, and be applied then, so nothing may have passed it. What queues in the
        /// mailbox keeps its place there.
        keeps_back: bool,
    },
    /// Its partition: that the keys at home there are served, or that it has acknowledged the count in force.
    Held,
}

impl State {
    /// As the diagram in `actors/README.md` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::LookingUp => "LookingUp",
            Self::Asking(_) => "Asking",
            Self::Deciding => "Deciding",
            Self::Committing => "Committing",
            Self::Late { .. } => "Late",
            Self::Held => "Held",
        }
    }

    /// Whether what is behind it in its queue may go on.
    pub const fn is_taken(self) -> bool {
        match self {
            Self::LookingUp | Self::Deciding | Self::Committing | Self::Late { keeps_back: false } => true,
            Self::Ready | Self::Asking(_) | Self::Held | Self::Late { keeps_back: true } => false,
        }
    }
}

/// What a message needs of another context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Not known: its aggregate has not been looked up.
    Unknown,
    /// Nothing, or it has it.
    Nothing,
    /// A look-up.
    Of(&'static str),
}

/// What is left to try with a message that the store refuses to commit. Each step writes less that could be
/// refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    /// The message, unless it has failed.
    Message,
    /// Its record, as a dead letter of no aggregate.
    Record { reason: DeadLetterReason, error: String },
    /// A record that was refused before it became a message; the shell knows why.
    Refused,
    /// The record's bytes.
    Bytes { error: String },
    /// The offset.
    Offset,
}

/// A message in the backlog.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub partition: PartitionId,
    pub term: u64,
    /// The queue that it stands in; `None` if it follows nobody.
    pub slot: Option<Slot>,
    pub state: State,
    pub remains: Remains,
    /// Where its record lies, if it moves an offset.
    pub place: Option<TopicOffset>,
    /// Its row, if it is mail.
    pub mail: Option<Mail>,
    /// What only a message for an aggregate has.
    pub message: Option<Message>,
    pub need: Need,
    /// Its claim as the tables of the store have it, if it was looked for there, and found.
    pub claim: Option<Result<Claim, Failure>>,
}

impl Entry {
    pub fn new(arrival: Arrival) -> (Self, Option<(AggregateId, KeyHash)>) {
        let Arrival { partition, term, content, .. } = arrival;
        let mut entry = Self {
            partition,
            term,
            slot: None,
            state: State::Ready,
            remains: Remains::Message,
            place: None,
            mail: None,
            message: None,
            need: Need::Nothing,
            claim: None,
        };
        let of = match content {
            Content::Message(message) => {
                let of = (message.aggregate.clone(), message.hash);
                match &message.origin {
                    Origin::Log(place) => entry.place = Some(place.clone()),
                    Origin::Mail(mail) => entry.mail = Some(mail.clone()),
                    _ => {}
                }
                // What has failed already needs no look-up.
                entry.need = if message.failure.is_some() { Need::Nothing } else { Need::Unknown };
                entry.message = Some(message);
                Some(of)
            }
            Content::Refused(source) => {
                entry.remains = Remains::Refused;
                match source {
                    Source::Log(place) => {
                        entry.place = Some(place);
                        None
                    }
                    Source::Mail(mail, of) => {
                        entry.mail = Some(mail);
                        of
                    }
                }
            }
            Content::Ignored(place) => {
                entry.remains = Remains::Offset;
                entry.place = Some(place);
                None
            }
            Content::Read { aggregate, hash } => Some((aggregate, hash)),
        };
        (entry, of)
    }

    /// Whether it is a strong read, which changes nothing and follows nobody.
    pub fn is_read(&self) -> bool {
        self.message.is_none() && self.remains == Remains::Message
    }

    pub fn is_call(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.origin == Origin::Call)
    }

    /// Whether it stands in a table, and comes again from there if it is dropped.
    pub fn comes_again(&self) -> bool {
        self.place.is_none() && !self.is_call() && !self.is_read()
    }

    /// Whether it is put behind what waits for its aggregate, and not that itself. How a call ended is news
    /// to the state, whatever waits.
    pub fn queues_behind_mail(&self) -> bool {
        self.message.as_ref().is_some_and(|message| !matches!(message.origin, Origin::Mail(_) | Origin::Effect))
    }

    /// Whether its commit was refused while it stood alone, or there is nothing left that could fail.
    pub fn was_refused(&self) -> bool {
        self.remains != Remains::Message || self.message.as_ref().is_none_or(|message| message.failure.is_some())
    }

    /// Failures counted so far.
    pub fn attempts(&self) -> u32 {
        self.mail.as_ref().map_or(0, |mail| mail.attempts)
    }
}
