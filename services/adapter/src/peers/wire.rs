//! What nodes tell one another, to and from the wire.
//!
//! Invariant: what is written here reads back as the same; a variant without its arm does not compile. Names
//! of reasons travel as they are stored, so that a neighbouring release may know more of them: one that is
//! not known here means "not now".

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_core::{
    CallEnvelope, PartitionId,
    call::CallOrigin,
    dedup::{Answer, Rejection},
    disposition::{DeadLetterReason, Refused, WaitReason},
    envelope::ContentType,
    epoch::{Epoch, Halt},
};
use holdfast_proto::runtime::v1::{
    self, CommandMessage, CommandResponse, ReadResult, command_response::Outcome, failure::Reason, read_result,
};
use holdfast_runtime::{
    ReadAnswer, RouteError,
    peers::{Forward, PeerError, Placement},
};
use uuid::Uuid;

/// The pause before the next attempt, where an answer between nodes has none to name.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A call on its way out.
pub fn forward_out(forward: &Forward) -> CommandMessage {
    let Forward { call, seal } = forward;
    CommandMessage {
        id: call.id.into_bytes().to_vec(),
        r#type: call.r#type.to_string(),
        key: call.key.to_string(),
        content_type: call.content_type.as_str().to_owned(),
        correlation_id: call.correlation.clone(),
        traceparent: call.traceparent.clone(),
        tracestate: call.tracestate.clone(),
        payload: call.payload.to_vec(),
        webhook: match &call.origin {
            CallOrigin::Caller => None,
            CallOrigin::Webhook(source) => Some(source.to_string()),
        },
        seal: seal.to_vec(),
    }
}

/// A call that came in, or the field that is wrong with it.
pub fn forward_in(message: CommandMessage) -> Result<Forward, &'static str> {
    let call = CallEnvelope {
        origin: message.webhook.map_or(CallOrigin::Caller, |source| CallOrigin::Webhook(source.into())),
        id: Uuid::from_slice(&message.id).map_err(|_| "message.id")?,
        r#type: message.r#type.into(),
        key: message.key.into(),
        content_type: ContentType::parse(&message.content_type).ok_or("message.content_type")?,
        correlation: message.correlation_id,
        traceparent: message.traceparent,
        tracestate: message.tracestate,
        payload: message.payload.into(),
    };
    Ok(Forward { call, seal: Bytes::from(message.seal) })
}

/// What became of a command, on its way out.
pub fn answer_out(answer: Result<Answer, PeerError>) -> CommandResponse {
    let outcome = match answer {
        Ok(Answer::Applied { version, reply }) => Outcome::Applied(v1::Applied { version, reply: reply.to_vec() }),
        Ok(Answer::Rejected { version, rejection: Rejection { code, message } }) => {
            Outcome::Rejected(v1::Rejected { version, code, message })
        }
        Err(error) => Outcome::Failure(failure_out(error)),
    };
    CommandResponse { outcome: Some(outcome) }
}

/// What became of a command, as another node says.
pub fn answer_in(response: CommandResponse) -> Result<Answer, PeerError> {
    match response.outcome {
        Some(Outcome::Applied(v1::Applied { version, reply })) => Ok(Answer::Applied { version, reply: reply.into() }),
        Some(Outcome::Rejected(v1::Rejected { version, code, message })) => {
            Ok(Answer::Rejected { version, rejection: Rejection { code, message } })
        }
        Some(Outcome::Failure(failure)) => Err(failure_in(failure)),
        None => Err(unknown("outcome")),
    }
}

/// What was read, on its way out.
pub fn read_out(answer: Result<ReadAnswer, PeerError>) -> ReadResult {
    let outcome = match answer {
        Ok(ReadAnswer { version, exists, body, strong: true }) => {
            read_result::Outcome::State(v1::State { version, exists, body: body.to_vec() })
        }
        // Only live actors are asked; should that ever change, it must not pass for a strong read.
        Ok(ReadAnswer { strong: false, .. }) => read_result::Outcome::Failure(failure_out(unknown("consistency"))),
        Err(error) => read_result::Outcome::Failure(failure_out(error)),
    };
    ReadResult { outcome: Some(outcome) }
}

/// What another node has read, from its live actor.
pub fn read_in(result: ReadResult) -> Result<ReadAnswer, PeerError> {
    match result.outcome {
        Some(read_result::Outcome::State(v1::State { version, exists, body })) => {
            Ok(ReadAnswer { version, exists, body: body.into(), strong: true })
        }
        Some(read_result::Outcome::Failure(failure)) => Err(failure_in(failure)),
        None => Err(unknown("outcome")),
    }
}

fn failure_out(error: PeerError) -> v1::Failure {
    let reason = match error {
        PeerError::NotOwner { reason: why, owner } => {
            let place = |Placement { partition, address, epoch }: Placement| v1::Place {
                partition: partition.0,
                address: address.to_string(),
                epoch: epoch.0,
            };
            Reason::NotOwner(v1::NotOwner { why, owner: owner.map(place) })
        }
        PeerError::Answered(error) => routed_out(error),
        // The service answers it by a status.
        PeerError::Unsealed => routed_out(RouteError::Forbidden("the forward is not sealed".to_owned())),
        // Of a node that forwards nothing neither comes.
        PeerError::Unreached(reason) | PeerError::Lost(reason) => {
            routed_out(RouteError::Unavailable { reason, retry_after: RETRY_AFTER })
        }
        PeerError::Late => routed_out(RouteError::Late),
    };
    v1::Failure { reason: Some(reason) }
}

fn routed_out(error: RouteError) -> Reason {
    match error {
        RouteError::Refused(Refused { reason, error, field }) => {
            Reason::Refused(v1::Refused { reason: reason.as_str().to_owned(), error, field })
        }
        RouteError::Forbidden(error) => Reason::Forbidden(v1::Forbidden { error }),
        RouteError::Reused => Reason::Reused(v1::Reused {}),
        RouteError::Waiting(reason) => Reason::Waiting(v1::Waiting { reason: reason.as_str().to_owned() }),
        RouteError::Downstream(error) => Reason::Downstream(v1::Downstream { error }),
        RouteError::Overloaded => Reason::Overloaded(v1::Overloaded {}),
        RouteError::Unavailable { reason, retry_after } => {
            Reason::Unavailable(v1::Unavailable { reason, retry_after: Some(retry_after.into()) })
        }
        RouteError::NotOwner(why) => Reason::NotOwner(v1::NotOwner { why, owner: None }),
        RouteError::Halted(halt) => Reason::Halted(v1::Halted { halt: halt.to_text() }),
        RouteError::Failed => Reason::HandlerFailed(v1::HandlerFailed {}),
        RouteError::Stale(version) => Reason::Stale(v1::Stale { version }),
        RouteError::Late => Reason::Late(v1::Late {}),
    }
}

fn failure_in(failure: v1::Failure) -> PeerError {
    let Some(reason) = failure.reason else { return unknown("reason") };
    PeerError::Answered(match reason {
        Reason::NotOwner(v1::NotOwner { why, owner }) => {
            let place = |v1::Place { partition, address, epoch }: v1::Place| Placement {
                partition: PartitionId(partition),
                address: Arc::from(address),
                epoch: Epoch(epoch),
            };
            return PeerError::NotOwner { reason: why, owner: owner.map(place) };
        }
        Reason::Refused(v1::Refused { reason, error, field }) => {
            let reason = DeadLetterReason::ALL.into_iter().find(|known| known.as_str() == reason);
            RouteError::Refused(Refused { reason: reason.unwrap_or(DeadLetterReason::Invalid), error, field })
        }
        Reason::Forbidden(v1::Forbidden { error }) => RouteError::Forbidden(error),
        Reason::Reused(v1::Reused {}) => RouteError::Reused,
        Reason::Waiting(v1::Waiting { reason }) => match WaitReason::parse(&reason) {
            Some(reason) => RouteError::Waiting(reason),
            None => return unknown("waiting.reason"),
        },
        Reason::Downstream(v1::Downstream { error }) => RouteError::Downstream(error),
        Reason::Overloaded(v1::Overloaded {}) => RouteError::Overloaded,
        Reason::Unavailable(v1::Unavailable { reason, retry_after }) => {
            let retry_after = retry_after.and_then(|after| Duration::try_from(after).ok()).unwrap_or(RETRY_AFTER);
            RouteError::Unavailable { reason, retry_after }
        }
        Reason::Halted(v1::Halted { halt }) => RouteError::Halted(Halt::from_text(&halt)),
        Reason::HandlerFailed(v1::HandlerFailed {}) => RouteError::Failed,
        Reason::Stale(v1::Stale { version }) => RouteError::Stale(version),
        Reason::Late(v1::Late {}) => RouteError::Late,
    })
}

/// Of an answer in words that this build does not know: there is one, and it is no success.
fn unknown(field: &str) -> PeerError {
    let reason = format!("the other node's answer has a {field} that this build does not know");
    PeerError::Answered(RouteError::Unavailable { reason, retry_after: RETRY_AFTER })
}

#[cfg(test)]
mod tests {
    use holdfast_core::epoch::HaltReason;
    use prost::Message as _;

    use super::*;

    /// Every way in which a call can have no answer.
    fn errors() -> Vec<PeerError> {
        let place = Placement { partition: PartitionId(3), address: "b:9090".into(), epoch: Epoch(7) };
        let refused = |reason, field: Option<&str>| {
            RouteError::Refused(Refused {
                reason,
                error: "quantity is not at least 1".into(),
                field: field.map(Into::into),
            })
        };
        let mut answered = vec![
            RouteError::Forbidden("this ce_type may not come from a call".into()),
            RouteError::Reused,
            RouteError::Waiting(WaitReason::Transferred),
            RouteError::Waiting(WaitReason::Retrying),
            RouteError::Waiting(WaitReason::Downstream),
            RouteError::Downstream("prices".into()),
            RouteError::Overloaded,
            RouteError::Unavailable { reason: "database".into(), retry_after: Duration::from_millis(1_250) },
            RouteError::Halted(Halt { reason: HaltReason::TopicLost, detail: "orders.events-3: gone".into() }),
            RouteError::Failed,
            RouteError::Stale(41),
            RouteError::Late,
        ];
        answered.extend(DeadLetterReason::ALL.map(|reason| refused(reason, None)));
        answered.push(refused(DeadLetterReason::Invalid, Some("quantity")));
        let mut errors: Vec<PeerError> = answered.into_iter().map(PeerError::Answered).collect();
        errors.push(PeerError::NotOwner { reason: "moved".into(), owner: None });
        errors.push(PeerError::NotOwner { reason: "moved".into(), owner: Some(place) });
        errors
    }

    fn over_the_wire<M: prost::Message + Default>(sent: &M) -> M {
        M::decode(&*sent.encode_to_vec()).unwrap()
    }

    #[test]
    fn every_answer_and_every_error_arrives_as_itself() {
        let rejection = Rejection { code: "EMPTY_ORDER".into(), message: "nothing to place".into() };
        let answers = [
            Ok(Answer::Applied { version: 3, reply: Bytes::from_static(b"\x00order") }),
            Ok(Answer::Applied { version: 0, reply: Bytes::new() }),
            Ok(Answer::Rejected { version: u64::MAX, rejection }),
        ];
        for answer in answers.into_iter().chain(errors().into_iter().map(Err)) {
            assert_eq!(answer_in(over_the_wire(&answer_out(answer.clone()))), answer);
        }
        let state = |exists| ReadAnswer { version: 9, exists, body: Bytes::from_static(b"order"), strong: true };
        for answer in [Ok(state(true)), Ok(state(false))].into_iter().chain(errors().into_iter().map(Err)) {
            assert_eq!(read_in(over_the_wire(&read_out(answer.clone()))), answer);
        }
    }

    #[test]
    fn what_is_no_strong_read_never_arrives_as_one() {
        let local = ReadAnswer { version: 9, exists: true, body: Bytes::new(), strong: false };
        let arrived = read_in(over_the_wire(&read_out(Ok(local))));
        assert!(matches!(arrived, Err(PeerError::Answered(RouteError::Unavailable { .. }))), "{arrived:?}");
    }

    #[test]
    fn words_of_a_newer_build_are_no_success() {
        let waiting = v1::Failure { reason: Some(Reason::Waiting(v1::Waiting { reason: "schema".into() })) };
        for outcome in [None, Some(Outcome::Failure(v1::Failure { reason: None })), Some(Outcome::Failure(waiting))] {
            let arrived = answer_in(CommandResponse { outcome });
            assert!(matches!(arrived, Err(PeerError::Answered(RouteError::Unavailable { .. }))), "{arrived:?}");
        }
        assert!(read_in(ReadResult { outcome: None }).is_err());
    }

    #[test]
    fn forward_arrives_as_it_was_sent() {
        let full = Forward {
            call: CallEnvelope {
                origin: CallOrigin::Webhook("stripe/webhook".into()),
                id: Uuid::now_v7(),
                r#type: "holdfast.orders.v1.AddItem".into(),
                key: "0192f0c1-7b1e-7cc3-8000-00000000000a".into(),
                content_type: ContentType::Json,
                correlation: Some("flow".into()),
                traceparent: Some("00-0-0-01".into()),
                tracestate: Some("a=b".into()),
                payload: Bytes::from_static(b"\x00\xff"),
            },
            seal: Bytes::from_static(&[7; 32]),
        };
        let bare = Forward {
            call: CallEnvelope::new(Uuid::now_v7(), "holdfast.orders.v1.AddItem", "a", Bytes::new()),
            seal: Bytes::new(),
        };
        for forward in [full, bare] {
            assert_eq!(forward_in(over_the_wire(&forward_out(&forward))), Ok(forward));
        }
        assert_eq!(forward_in(CommandMessage::default()), Err("message.id"));
        let nameless = CommandMessage { id: vec![0; 16], ..CommandMessage::default() };
        assert_eq!(forward_in(nameless), Err("message.content_type"));
    }

    #[test]
    fn source_that_a_stranger_names_in_a_forward_is_ignored() {
        // Fields 2, 6 and 8 were source, sequence and cause: an older node sends them, and an attacker may.
        let mut bytes = CommandMessage {
            id: vec![0; 16],
            content_type: "application/protobuf".to_owned(),
            ..CommandMessage::default()
        }
        .encode_to_vec();
        bytes.extend([0x12, 3, b'x', b'/', b'y', 0x30, 9, 0x42, 1, b'c']);
        let forward = forward_in(CommandMessage::decode(&*bytes).unwrap()).unwrap();
        assert_eq!(forward.call.origin, CallOrigin::Caller);
        let message = CallEnvelope { r#type: "t".into(), key: "k".into(), ..forward.call }.into_message().unwrap();
        assert_eq!((&*message.source, message.sequence, message.causation), ("grpc", None, None));
    }
}
