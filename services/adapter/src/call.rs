//! From a gRPC request to an actor and back.
//!
//! Invariant: a mutation goes through the same door and the same claims as its twin on Kafka: its message id
//! is the request id (or made of it). Deliberately absent: its source, which the node that runs it sets, and
//! deadlines, which the platform's server keeps.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::{
    CallEnvelope,
    call::CallOrigin,
    dedup::{Answer, Rejection},
    envelope::ContentType,
};
use holdfast_platform::{errors::Problem, grpc::RequestContext, telemetry::OtelLink};
use holdfast_runtime::{Consistency, ReadAnswer, RouteError, Router};
use prost::Name;
use tokio::time::Instant;
use tonic::{Request, Status};
use tracing::Span;
use uuid::Uuid;

use crate::status;

/// Longest request id, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// The name space of request ids that are no UUIDs. Must never change: claims are found by what is made with
/// it.
const REQUEST_IDS: Uuid = Uuid::from_u128(0x6f1c_2a54_91d3_4f0e_8a77_3b5d_0c9e_21f4);

/// What came with a call beside its message.
#[derive(Clone, Debug)]
pub struct Caller {
    context: RequestContext,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Caller {
    /// Of a request that is being handled: its correlation id, its deadline, and the current span.
    pub fn of<T>(request: &Request<T>) -> Self {
        let (traceparent, tracestate) = OtelLink::current(&Span::current()).unzip();
        Self { context: RequestContext::of(request), traceparent, tracestate: tracestate.flatten() }
    }

    /// When the handler is dropped.
    pub const fn deadline(&self) -> Instant {
        self.context.deadline
    }
}

/// The message id of a request id: itself if it is a UUID, else made of it.
///
/// # Errors
/// `INVALID_ARGUMENT` if it is missing or too long.
pub fn message_id(request_id: &str) -> Result<Uuid, Status> {
    if request_id.is_empty() {
        return Err(Problem::invalid("REQUEST_ID_MISSING", "request_id is missing")
            .field("request_id", "is required: 1-128 bytes, the same for every attempt at the same request")
            .into_status());
    }
    if request_id.len() > REQUEST_ID_BYTES_MAX {
        return Err(Problem::invalid("INVALID", "request_id is too long")
            .field("request_id", "is longer than 128 bytes")
            .into_status());
    }
    Ok(Uuid::try_parse(request_id).unwrap_or_else(|_| Uuid::new_v5(&REQUEST_IDS, request_id.as_bytes())))
}

/// A command on its way to an actor.
#[derive(Debug)]
pub struct Call<'a, C> {
    /// Who calls.
    pub caller: Caller,
    /// As in the request.
    pub request_id: &'a str,
    /// `ce_type`.
    pub r#type: &'static str,
    /// What to do.
    pub command: Option<&'a C>,
    /// The field of the command that is the aggregate's key.
    pub key: fn(&C) -> &str,
    /// Its name.
    pub key_field: &'static str,
}

/// An actor's answer to a command that it did not reject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The aggregate's version right after the command.
    pub version: u64,
    /// The encoded reply.
    pub reply: Bytes,
}

impl<C: Name> Call<'_, C> {
    /// Runs the command. `rejected` is the context's own map of rejections.
    pub async fn run(self, router: &dyn Router, rejected: fn(&Rejection) -> Status) -> Result<Applied, Status> {
        let key_field = self.key_field;
        let call = self.envelope()?;
        let refused = |mut error: RouteError| {
            if let RouteError::Refused(refused) = &mut error
                && refused.field.as_deref() == Some("key")
            {
                refused.field = Some(key_field.to_owned()); // the door knows no command's fields
            }
            status::routed(error)
        };
        match router.command(call).await.map_err(refused)? {
            Answer::Applied { version, reply } => Ok(Applied { version, reply }),
            Answer::Rejected { rejection, .. } => Err(rejected(&rejection)),
        }
    }

    fn envelope(self) -> Result<CallEnvelope, Status> {
        let id = message_id(self.request_id)?;
        let command = self.command.ok_or_else(|| {
            Problem::invalid("INVALID", "command is missing").field("command", "is required").into_status()
        })?;
        Ok(CallEnvelope {
            origin: CallOrigin::Caller,
            id,
            r#type: self.r#type.into(),
            key: Arc::from((self.key)(command)),
            content_type: ContentType::Protobuf,
            correlation: Some(self.caller.context.correlation_id),
            traceparent: self.caller.traceparent,
            tracestate: self.caller.tracestate,
            payload: command.encode_to_vec().into(),
        })
    }
}

/// Reads one aggregate, waiting for `min_version` as long as the caller does.
pub async fn read(
    router: &dyn Router,
    deadline: Instant,
    kind: &'static str,
    key: &str,
    consistency: Consistency,
    min_version: u64,
) -> Result<ReadAnswer, Status> {
    loop {
        match router.read(kind, key, consistency, min_version).await {
            // The router waits for a while each time; the caller may have more.
            Err(RouteError::Stale(_)) if Instant::now() < deadline => {}
            answer => return answer.map_err(read_error),
        }
    }
}

/// Reads several aggregates from their live actors, wherever those are. One that can't be read fails the
/// whole: a strong read never falls back silently.
pub async fn read_many(router: &dyn Router, kind: &'static str, keys: &[String]) -> Result<Vec<ReadAnswer>, Status> {
    let keys: Vec<Arc<str>> = keys.iter().map(|key| key.as_str().into()).collect();
    let answers = router.read_many(kind, &keys).await;
    answers.into_iter().map(|answer| answer.map_err(read_error)).collect()
}

/// Of a read, whose fields are the request's own.
fn read_error(error: RouteError) -> Status {
    match error {
        RouteError::Refused(refused) => status::argument(&refused),
        error => status::routed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_always_makes_the_same_message_id() {
        let uuid = "0192f0c1-7b1e-7cc3-8000-00000000000a";
        assert_eq!(message_id(uuid).unwrap().to_string(), uuid);
        // Golden: claims of the past are found by it.
        assert_eq!(message_id("order-1").unwrap().to_string(), "a75a65d2-5115-586c-bd80-3a2b0f9f5c3d");
        assert_ne!(message_id("a").unwrap(), message_id("b").unwrap());
    }

    #[test]
    fn a_missing_or_too_long_request_id_is_an_invalid_argument() {
        for id in ["", &"x".repeat(129)] {
            let status = message_id(id).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
        }
        assert!(message_id(&"x".repeat(128)).is_ok());
    }
}
