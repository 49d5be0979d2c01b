//! A message on its way through the loop: where it came from, what it asks, what became of it.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, KeyHash, Message, PartitionId, Record, Timestamp,
    batch::{ViewRow, Writes},
    dedup::{Answer, Fingerprint},
    disposition::{DeadLetterReason, Refused},
};
use holdfast_machine::lane::Failure;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use tracing::Span;

use crate::router::{ReadAnswer, RouteError};

/// A decoded command, typed by its kind.
pub(crate) type AnyCommand = Box<dyn Any + Send + Sync>;
/// Where a caller waits for its answer.
pub(crate) type CallReply = oneshot::Sender<Result<Answer, RouteError>>;
/// Where a reader waits for a state.
pub(crate) struct ReadReply {
    answer: oneshot::Sender<Result<ReadAnswer, RouteError>>,
    /// The caller's share of the budget of calls, also once nobody waits any more (I11).
    _credit: OwnedSemaphorePermit,
}

impl ReadReply {
    pub fn new(answer: oneshot::Sender<Result<ReadAnswer, RouteError>>, credit: OwnedSemaphorePermit) -> Self {
        Self { answer, _credit: credit }
    }

    /// Whether nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Answers; nobody listening is fine.
    pub fn send(self, answer: Result<ReadAnswer, RouteError>) {
        let _ = self.answer.send(answer);
    }
}

/// Where a message came from, and so what must happen to its source when it is done.
pub(crate) enum Origin {
    /// From the log: its offset is consumed. `own` is true for the context's commands, false for another
    /// context's events.
    Log { record: Record, own: bool },
    /// From the durable mailbox: its row is removed.
    Mail { position: i64, attempts: u32, since: Timestamp, record: Record, own: bool },
    /// A setting of a timer: its row is removed, unless the timer was set again.
    Timer { name: String, serial: i64 },
    /// An effect's end: its row is removed.
    Effect { name: String },
    /// A caller: it is answered.
    Call { reply: Mutex<Option<CallReply>> },
}

/// One message for one aggregate.
pub(crate) struct Item {
    pub origin: Origin,
    pub aggregate: AggregateId,
    pub hash: KeyHash,
    pub message: Message,
    pub command: AnyCommand,
    /// When it was admitted.
    pub now: Timestamp,
    /// The same, to measure how long it waits.
    pub admitted: Instant,
    /// Set once a failure is certain without asking the actor.
    pub failure: OnceLock<Failure>,
    /// Digests, once they were asked for.
    pub fingerprint: OnceLock<Fingerprint>,
    /// The span of this message's way through the loop; disabled if it is not sampled.
    pub span: Span,
    /// Gives its bytes back to the budget when the item is dropped.
    #[expect(dead_code, reason = "held, not read")]
    pub credit: Option<OwnedSemaphorePermit>,
}

impl Item {
    /// What its claim is recognised by. Events with a sequence are recognised by that, timers and effects by
    /// their row; an event without one is claimed like a command.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let is_claimed = match &self.origin {
            Origin::Log { own, .. } | Origin::Mail { own, .. } => *own || self.message.sequence.is_none(),
            Origin::Call { .. } => true,
            Origin::Timer { .. } | Origin::Effect { .. } => false,
        };
        is_claimed.then(|| *self.fingerprint.get_or_init(|| Fingerprint::of(&self.aggregate, &self.message)))
    }

    /// The event's source and sequence, if it is another context's event.
    pub fn event_sequence(&self) -> Option<(&str, u64)> {
        match &self.origin {
            Origin::Log { own: false, .. } | Origin::Mail { own: false, .. } => {
                self.message.sequence.map(|sequence| (&*self.message.source, sequence))
            }
            _ => None,
        }
    }

    /// Answers the caller, if this is a call that has no answer yet.
    pub fn answer(&self, answer: Result<Answer, RouteError>) {
        if let Origin::Call { reply } = &self.origin
            && let Some(reply) = reply.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
        {
            let _ = reply.send(answer); // a caller that has gone needs none
        }
    }

    pub fn wants_reply(&self) -> bool {
        matches!(self.origin, Origin::Call { .. })
    }

    /// The record as it came, if this message is one.
    pub fn record(&self) -> Option<&Record> {
        match &self.origin {
            Origin::Log { record, .. } | Origin::Mail { record, .. } => Some(record),
            _ => None,
        }
    }
}

/// The error that the caller of a failed command or of a failed read receives.
pub(crate) fn to_caller(failure: &Failure) -> RouteError {
    match failure {
        Failure::Reused => RouteError::Reused,
        Failure::LookUp(error) => RouteError::Downstream(error.clone()),
        Failure::Handler(_) | Failure::Unreadable(_) => RouteError::Failed,
        Failure::Refused(error) => RouteError::Refused(Refused::invalid("key", error.as_str())),
        Failure::TooLarge(error) => {
            RouteError::Refused(Refused { reason: DeadLetterReason::TooLarge, error: error.clone(), field: None })
        }
        Failure::Slow(_) => RouteError::unavailable("the commit took the store too long"),
    }
}

/// A record that no aggregate sees.
pub(crate) struct RefusedRecord {
    pub record: Record,
    pub refused: Refused,
    pub now: Timestamp,
    /// Its row, if it comes from the durable mailbox.
    pub mail: Option<MailRow>,
    #[expect(dead_code, reason = "held, not read")]
    pub credit: Option<OwnedSemaphorePermit>,
}

/// A row of the durable mailbox whose message no aggregate sees.
#[derive(Clone, Debug)]
pub(crate) struct MailRow {
    pub position: i64,
    pub since: Timestamp,
    pub attempts: u32,
    /// Whose mailbox, if this build has such a kind.
    pub aggregate: Option<AggregateId>,
}

/// What the loop works on, in the order in which it came.
pub(crate) enum Work {
    Item(Arc<Item>),
    Refused(Box<RefusedRecord>),
    /// A record that concerns nobody here (an event type not subscribed to), or offsets that hold none, up to
    /// this one: it is consumed.
    Ignored {
        topic: Arc<str>,
        offset: u64,
    },
    /// A strong read of an aggregate that is not in memory.
    Activate {
        aggregate: AggregateId,
        reply: ReadReply,
    },
}

/// Work with the ownership under which it came in; it is void under any other.
pub(crate) struct Input {
    pub partition: PartitionId,
    pub term: u64,
    pub work: Work,
}

/// What an actor made of its messages.
pub(crate) struct Verdict {
    /// One for each item that was decided, from the first on.
    pub steps: Vec<Step>,
    /// What to write and what the state becomes, if anything.
    pub outcome: Option<Box<Outcome>>,
    /// The item after the decided ones made the actor fail, or lacks a look-up.
    pub failed: Option<Failure>,
    /// There is no actor: the stored state can't be read.
    pub unreadable: bool,
}

/// The result of one item.
pub(crate) enum Step {
    /// Applied or rejected; the answer to give once committed.
    Answered(Answer),
    /// Depends on the grant: the answer if granted, and if refused.
    Conditional { granted: Answer, refused: Answer },
    /// Nothing: an event that was applied before, or the firing of a timer that was set again since.
    Repeat,
}

/// What a delivery comes to.
pub(crate) struct Outcome {
    pub done: Branch,
    /// The condition and what happens if it is refused.
    pub condition: Option<(Vec<holdfast_core::pool::PoolChange>, Branch)>,
}

/// One way in which a delivery can end.
pub(crate) struct Branch {
    pub writes: Writes,
    pub after: Arc<Snapshot>,
}

/// The committed state of an aggregate. The supervisor keeps it beside the actor, to restart it from.
pub(crate) struct Snapshot {
    pub version: u64,
    /// How often its row was written.
    pub revision: u64,
    pub sources: BTreeMap<String, u64>,
    /// The typed state.
    pub state: Arc<dyn Any + Send + Sync>,
    /// The read model row that is stored, if this kind has one.
    pub view: Option<ViewRow>,
}

/// An empty reply, for messages nobody waits on.
pub(crate) const NO_REPLY: Bytes = Bytes::new();
