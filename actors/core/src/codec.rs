//! What a domain's adapter supplies around an [`Aggregate`]: bytes in, bytes out, look-ups, the read model.
//!
//! The aggregate itself stays free of encodings. Deliberately absent: any transport.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    aggregate::{Aggregate, Context, TimerChange},
    batch::ViewRow,
    dedup::Rejection,
    disposition::Refused,
    envelope::Message,
    origin::Handled,
    pool::PoolChange,
    time::Timestamp,
};

/// An encoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    /// The full message name, sent as `ce_type`.
    pub r#type: &'static str,
    /// The protobuf body.
    pub payload: Bytes,
}

/// A message to another aggregate of the same context, which goes through the outbox to the context's
/// commands topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The other aggregate's key.
    pub key: String,
    /// The full message name, sent as `ce_type`.
    pub r#type: &'static str,
    /// The protobuf body. Holds no personal data: topics are kept.
    pub payload: Bytes,
}

/// A call out of the system that an event makes necessary, a payment, a parcel; or one that it makes
/// needless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEffect {
    /// Names it within its aggregate, for ever: what happens twice has two names (`refund:1`, `refund:2`).
    pub name: String,
    /// The request, byte for byte as it will be sent, however often and by whatever build. `None` if the call
    /// of this name need not be made any more.
    pub request: Option<Bytes>,
}

/// One attempt at an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The aggregate's key.
    pub key: Arc<str>,
    /// The effect's name.
    pub name: String,
    /// As it was intended.
    pub request: Bytes,
    /// From 1. An attempt that nobody heard the end of counts.
    pub number: u32,
    /// How long ago it was intended, by the store's clock: the first attempt began about then.
    pub age: Duration,
    /// Now, by the node's clock.
    pub now: Timestamp,
}

/// An attempt that ended without a known outcome. It is made again; an effect is never given up, since no
/// node could say what became of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Again {
    /// What went wrong, for a person.
    pub reason: String,
    /// Not before this long from now, if the called system has said so.
    pub after: Option<Duration>,
}

/// What an event brings about beside the state of its aggregate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// Changes of shared quantities, granted when the event happened.
    pub pools: Vec<PoolChange>,
    /// Timers set or cancelled.
    pub timers: Vec<TimerChange>,
}

/// A stored state that this build cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored state of schema {schema}: {reason}")]
pub struct StateError {
    /// The schema version it was stored under.
    pub schema: u32,
    /// What went wrong.
    pub reason: String,
}

/// A look-up in another context that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("look-up failed: {0}")]
pub struct LookupFailed(pub String);

/// The adapter of one kind of aggregate.
#[async_trait]
pub trait Adapter: Send + Sync + 'static {
    /// What it adapts.
    type Aggregate: Aggregate;

    /// The messages it handles, each with where it may come from: its own commands, events of other contexts,
    /// its timers and effects.
    fn handles(&self) -> Vec<Handled>;

    /// Refuses a key that no aggregate of this kind can have, before a read of it reaches the store.
    fn check_key(&self, key: &str) -> Result<(), Refused>;

    /// Decodes a message whose type is one of [`Self::handles`] and which came from where that says, and
    /// checks every field. `message.key` must be checked too.
    fn decode(&self, message: &Message) -> Result<<Self::Aggregate as Aggregate>::Command, Refused>;

    /// The command that a fired timer stands for; `None` if this kind has no timer of that name.
    fn timer(&self, name: &str) -> Option<<Self::Aggregate as Aggregate>::Command> {
        let _ = name;
        None
    }

    /// Encodes an event; `context.version` is the event's own version.
    fn encode_event(&self, event: &<Self::Aggregate as Aggregate>::Event, context: &Context<'_>) -> EncodedEvent;

    /// Decodes an event as it was published, all that [`Aggregate::evolve`] needs. Wanted by `holdfast
    /// recover` alone, which refuses a context with a kind that can't.
    fn decode_event(&self, message: &Message) -> Result<<Self::Aggregate as Aggregate>::Event, Refused> {
        let _ = message;
        Err(Refused::unknown_type())
    }

    /// What was stored beside the state when `event` happened: changes of shared quantities, and timers, as
    /// they are to be set at `context.now`. Wanted by `holdfast recover` alone.
    fn aftermath(&self, event: &<Self::Aggregate as Aggregate>::Event, context: &Context<'_>) -> Aftermath {
        let _ = (event, context);
        Aftermath::default()
    }

    /// The messages that `event` sends to other aggregates, in order. Pure: called whenever the event is
    /// decided on.
    fn commands_after(&self, event: &<Self::Aggregate as Aggregate>::Event, context: &Context<'_>) -> Vec<Outgoing> {
        let _ = (event, context);
        Vec::new()
    }

    /// The effects that `event` makes necessary. They are written with the event and performed after the
    /// commit. Pure.
    fn effects_after(
        &self,
        event: &<Self::Aggregate as Aggregate>::Event,
        context: &Context<'_>,
    ) -> Vec<EncodedEffect> {
        let _ = (event, context);
        Vec::new()
    }

    /// Whether [`Self::effects_after`] ever returns any.
    fn has_effects(&self) -> bool {
        false
    }

    /// Makes one attempt at an effect, outside any transaction, and returns the command that tells the
    /// aggregate how it ended; with the decision on that command the effect is over. May run more than once
    /// at a time and after the end, on several nodes: what is called has to recognise the repeat by the
    /// aggregate's key and the effect's name.
    async fn perform(&self, attempt: &Attempt) -> Result<<Self::Aggregate as Aggregate>::Command, Again> {
        Err(Again { reason: format!("this build knows no effect {}", attempt.name), after: None })
    }

    /// Encodes the state under [`Aggregate::SCHEMA`].
    fn encode_state(&self, state: &Self::Aggregate) -> Bytes;

    /// Decodes a stored state of `schema`, bringing older ones forward.
    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Self::Aggregate, StateError>;

    /// The reply to a caller: the aggregate as others see it, at `context.version`.
    fn encode_reply(&self, state: &Self::Aggregate, context: &Context<'_>) -> Bytes;

    /// The name and text of a rejection.
    fn rejection(&self, rejection: &<Self::Aggregate as Aggregate>::Rejection) -> Rejection;

    /// The row of the read model for this state, or `None` if it has none. It is written, in the same
    /// transaction, only when it differs from the row of the state before. Asked for after every change, so
    /// quick: a struct rather than a tree of values.
    fn view(&self, state: &Self::Aggregate, context: &Context<'_>) -> Option<ViewRow> {
        let _ = (state, context);
        None
    }

    /// Puts into `command` what is known without asking, so that it need not wait for what others of its
    /// batch ask for. Quick.
    fn recall(&self, command: &mut <Self::Aggregate as Aggregate>::Command) {
        let _ = command;
    }

    /// The name of the context that `command` needs a look-up in, if it needs one. Those that do are given to
    /// [`Self::prepare`], one context's at a time; while that waits for an answer they wait, and so does what
    /// comes after them for the same aggregate, but nothing else. Pure and quick.
    fn looks_up(&self, command: &<Self::Aggregate as Aggregate>::Command) -> Option<&'static str> {
        let _ = command;
        Some("")
    }

    /// Takes note of a state that is coming into memory or lacked a look-up, if [`Self::prepare`], which sees
    /// commands alone, needs to know something of the aggregate. Called before [`Self::recall`] for each
    /// stored aggregate that is not in memory. A hint: the state may never be committed, and a decision on a
    /// wrong hint is [`Decision::Unprepared`](crate::aggregate::Decision::Unprepared). Quick.
    fn observe(&self, key: &str, state: &Self::Aggregate) {
        let _ = (key, state);
    }

    /// Looks up what these commands, all of which ask one context, need, and puts it into them; one result
    /// for each, in order. Called once for each batch, outside any transaction; what is known already is
    /// answered at once, and whatever takes longer goes on beside the loop, perhaps several times at once.
    /// Has to end by itself, within a deadline of its own. A failed look-up defers that message alone.
    async fn prepare(
        &self,
        commands: &mut [&mut <Self::Aggregate as Aggregate>::Command],
    ) -> Vec<Result<(), LookupFailed>> {
        commands.iter().map(|_| Ok(())).collect()
    }
}
