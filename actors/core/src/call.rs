//! Calls: what a caller may say of a message.
//!
//! Invariant: a call names no source, no sequence and no cause; its source follows from its origin and is set
//! by the node that runs it, also where another has forwarded it. Deliberately absent: how a call travels.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    disposition::Refused,
    door,
    envelope::{ContentType, Message, header},
    origin::{Arrival, CALL_SOURCE},
};

/// Where a call began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CallOrigin {
    /// With a caller.
    #[default]
    Caller,
    /// With a webhook of this source.
    Webhook(Arc<str>),
}

impl CallOrigin {
    /// The source of its message, under which its claim is found.
    pub fn source(&self) -> &str {
        match self {
            Self::Caller => CALL_SOURCE,
            Self::Webhook(source) => source,
        }
    }

    /// As the door sees it.
    pub fn arrival(&self) -> Arrival<'_> {
        match self {
            Self::Caller => Arrival::Call,
            Self::Webhook(source) => Arrival::Webhook(source),
        }
    }
}

/// A command as a caller sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEnvelope {
    /// Where it began.
    pub origin: CallOrigin,
    /// What makes it idempotent.
    pub id: Uuid,
    /// The full message name.
    pub r#type: Arc<str>,
    /// The aggregate's key.
    pub key: Arc<str>,
    /// How the body is encoded.
    pub content_type: ContentType,
    /// The flow it belongs to.
    pub correlation: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// `tracestate`.
    pub tracestate: Option<String>,
    /// The body.
    pub payload: Bytes,
}

impl CallEnvelope {
    /// A caller's command with a Protobuf body and nothing optional.
    pub fn new(id: Uuid, r#type: impl Into<Arc<str>>, key: impl Into<Arc<str>>, payload: Bytes) -> Self {
        Self {
            origin: CallOrigin::Caller,
            id,
            r#type: r#type.into(),
            key: key.into(),
            content_type: ContentType::Protobuf,
            correlation: None,
            traceparent: None,
            tracestate: None,
            payload,
        }
    }

    /// About what it costs to hold this call in memory.
    pub fn size_bytes(&self) -> usize {
        let optional = [&self.correlation, &self.traceparent, &self.tracestate].into_iter().flatten();
        let optional: usize = optional.map(String::len).sum();
        256 + self.r#type.len() + self.key.len() + optional + self.payload.len()
    }

    /// The message that it makes, checked as a record's envelope is.
    pub fn into_message(self) -> Result<Message, Refused> {
        door::body(self.payload.len())?;
        door::key(&self.key)?;
        door::header(header::TYPE, self.r#type.as_bytes())?;
        door::header(header::SOURCE, self.origin.source().as_bytes())?;
        if let Some(text) = &self.correlation {
            door::header(header::CORRELATION, text.as_bytes())?;
        }
        // What traces a call must not decide its answer: what is too long, or no text, is left out.
        let traced = |name, text: Option<String>| text.filter(|text| door::header(name, text.as_bytes()).is_ok());
        let source = self.origin.source().into();
        let Self { origin: _, id, r#type, key, content_type, correlation, traceparent, tracestate, payload } = self;
        let (sequence, causation) = (None, None);
        let traceparent = traced(header::TRACEPARENT, traceparent);
        let tracestate = traced(header::TRACESTATE, tracestate).filter(|_| traceparent.is_some());
        Ok(Message {
            id,
            source,
            r#type,
            key,
            content_type,
            sequence,
            correlation,
            causation,
            traceparent,
            tracestate,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disposition::DeadLetterReason;

    fn call() -> CallEnvelope {
        CallEnvelope::new(Uuid::nil(), "Add", "a", Bytes::new())
    }

    #[test]
    fn source_follows_from_the_origin() {
        assert_eq!(&*call().into_message().unwrap().source, "grpc");
        let webhook = CallEnvelope { origin: CallOrigin::Webhook("stripe/webhook".into()), ..call() };
        assert_eq!(&*webhook.into_message().unwrap().source, "stripe/webhook");
    }

    #[test]
    fn call_passes_the_same_checks_as_a_record() {
        let reason = |call: CallEnvelope| call.into_message().unwrap_err().reason;
        assert_eq!(reason(CallEnvelope { key: "\0x".into(), ..call() }), DeadLetterReason::Invalid);
        assert_eq!(reason(CallEnvelope { r#type: "A\0".into(), ..call() }), DeadLetterReason::Invalid);
        assert_eq!(reason(CallEnvelope { correlation: Some("a\0".into()), ..call() }), DeadLetterReason::Invalid);
        assert_eq!(reason(CallEnvelope { correlation: Some("a".repeat(1025)), ..call() }), DeadLetterReason::TooLarge);
        let large = Bytes::from(vec![0; door::BODY_BYTES_MAX + 1]);
        assert_eq!(reason(CallEnvelope { payload: large, ..call() }), DeadLetterReason::TooLarge);
    }

    #[test]
    fn trace_beyond_the_limits_is_left_out() {
        let traced = |traceparent: &str, tracestate: String| {
            let (traceparent, tracestate) = (Some(traceparent.to_owned()), Some(tracestate));
            let message = CallEnvelope { traceparent, tracestate, ..call() }.into_message().unwrap();
            (message.traceparent.is_some(), message.tracestate.is_some())
        };
        assert_eq!(traced("00-0-0-01", "a=b".into()), (true, true));
        assert_eq!(traced("00-0-0-01", "a".repeat(1025)), (true, false));
        assert_eq!(traced("a\0", "a=b".into()), (false, false));
    }
}
