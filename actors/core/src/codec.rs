//! What a domain's adapter supplies around an [`Aggregate`]: bytes in, bytes out, look-ups, the read model.
//!
//! The aggregate itself stays free of encodings. Deliberately absent: any transport.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    aggregate::{Aggregate, Context, TimerChange},
    dedup::Rejection,
    disposition::Refused,
    envelope::Message,
    pool::PoolChange,
};

/// An encoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    /// The full message name, sent as `ce_type`.
    pub r#type: &'static str,
    /// The protobuf body.
    pub payload: Bytes,
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

    /// The full names of the messages it handles: its own commands, and events of other contexts.
    fn handles(&self) -> Vec<&'static str>;

    /// Decodes a message whose type is one of [`Self::handles`], and checks every field. `message.key` must be checked too.
    fn decode(&self, message: &Message) -> Result<<Self::Aggregate as Aggregate>::Command, Refused>;

    /// The command that a fired timer stands for; `None` if this kind has no timer of that name.
    fn timer(&self, name: &str) -> Option<<Self::Aggregate as Aggregate>::Command> {
        let _ = name;
        None
    }

    /// Encodes an event; `context.version` is the event's own version.
    fn encode_event(&self, event: &<Self::Aggregate as Aggregate>::Event, context: &Context<'_>) -> EncodedEvent;

    /// Decodes an event as it was published, all that [`Aggregate::evolve`] needs. Wanted by `holdfast recover` alone, which refuses a context
    /// with a kind that can't.
    fn decode_event(&self, message: &Message) -> Result<<Self::Aggregate as Aggregate>::Event, Refused> {
        let _ = message;
        Err(Refused::unknown_type())
    }

    /// What was stored beside the state when `event` happened: changes of shared quantities, and timers, as they are to be set at
    /// `context.now`. Wanted by `holdfast recover` alone.
    fn aftermath(&self, event: &<Self::Aggregate as Aggregate>::Event, context: &Context<'_>) -> Aftermath {
        let _ = (event, context);
        Aftermath::default()
    }

    /// Encodes the state under [`Aggregate::SCHEMA`].
    fn encode_state(&self, state: &Self::Aggregate) -> Bytes;

    /// Decodes a stored state of `schema`, bringing older ones forward.
    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Self::Aggregate, StateError>;

    /// The reply to a caller: the aggregate as others see it, at `context.version`.
    fn encode_reply(&self, state: &Self::Aggregate, context: &Context<'_>) -> Bytes;

    /// The name and text of a rejection.
    fn rejection(&self, rejection: &<Self::Aggregate as Aggregate>::Rejection) -> Rejection;

    /// The row of the read model for this state, as a JSON object, or `None` if this kind has none. It is written, in the same
    /// transaction, only when it differs from the row of the state before.
    fn view(&self, state: &Self::Aggregate, context: &Context<'_>) -> Option<serde_json::Value> {
        let _ = (state, context);
        None
    }

    /// Looks up in other contexts what these commands need and puts it into them; one result for each, in order. Called once for
    /// each batch, outside any transaction. A failed look-up defers that message alone.
    async fn prepare(
        &self,
        commands: &mut [&mut <Self::Aggregate as Aggregate>::Command],
    ) -> Vec<Result<(), LookupFailed>> {
        commands.iter().map(|_| Ok(())).collect()
    }
}
