//! What kept a call from its answer, as a gRPC status: one exhaustive match each.
//!
//! Invariant: never UNKNOWN, and no text from inside (a database's, a panic's) leaves; that goes to the log.
//! Deliberately absent: which rejection is which status, which each context says by name.

use std::time::Duration;

use holdfast_core::{
    dedup::Rejection,
    disposition::{DeadLetterReason, Refused, WaitReason},
    port::store::StoreError,
};
use holdfast_platform::errors::Problem;
use holdfast_runtime::RouteError;
use tonic::{Code, Status};

/// When to try again after a failure that says nothing about its end.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// When to try again after a halt, which a person has to end.
const RETRY_HALTED_AFTER: Duration = Duration::from_secs(30);

/// When to try again after a look-up failed; its circuit reopens after about that long.
const RETRY_DOWNSTREAM_AFTER: Duration = Duration::from_secs(2);

/// Of a command or a read that the router did not answer.
pub fn routed(error: RouteError) -> Status {
    match error {
        RouteError::Refused(refused) => return self::refused(&refused),
        RouteError::Forbidden(error) => Problem::new(Code::PermissionDenied, "ORIGIN_NOT_ALLOWED", error),
        RouteError::Reused => {
            Problem::already_exists("REQUEST_ID_REUSED", "this request id was used before with another command")
                .field("request_id", "was used before with another command")
        }
        RouteError::Waiting(WaitReason::Downstream) => Problem::unavailable(
            "AGGREGATE_WAITING",
            "earlier messages wait for a look-up in another context",
            RETRY_DOWNSTREAM_AFTER,
        ),
        RouteError::Waiting(WaitReason::Retrying | WaitReason::Transferred) => {
            Problem::unavailable("AGGREGATE_WAITING", "earlier messages wait to be tried again", RETRY_DOWNSTREAM_AFTER)
        }
        RouteError::Downstream(error) => {
            tracing::debug!(%error, "a look-up failed");
            Problem::unavailable("DOWNSTREAM_UNAVAILABLE", "another context could not be asked", RETRY_DOWNSTREAM_AFTER)
        }
        RouteError::Overloaded => {
            Problem::exhausted("OVERLOADED", "too many calls in flight, or too many bytes of them", RETRY_AFTER)
        }
        RouteError::Unavailable { reason, retry_after } => {
            tracing::warn!(reason, "a call found no answer");
            Problem::unavailable("UNAVAILABLE", "nobody can answer just now", retry_after)
        }
        RouteError::NotOwner(reason) => {
            tracing::debug!(reason, "a call found no owner");
            Problem::unavailable("OWNER_MOVING", "no owner of this key can be reached here just now", RETRY_AFTER)
        }
        RouteError::Halted(halt) => Problem::unavailable(
            halt.reason.as_str(),
            "this context is halted: its history was lost, and an operator has to recover it",
            RETRY_HALTED_AFTER,
        ),
        RouteError::Failed => Problem::new(
            Code::Internal,
            "HANDLER_FAILED",
            "the handler failed on this command, which had no effect; the log has the cause",
        ),
        RouteError::Stale(version) => {
            Problem::new(Code::DeadlineExceeded, "VERSION_NOT_REACHED", "min_version was not reached in time")
                .fact("version", version.to_string())
        }
        RouteError::Late => Problem::deadline(),
    }
    .into_status()
}

/// Of a command that is malformed. Its fields are those of the request's `command`.
pub fn refused(refused: &Refused) -> Status {
    let problem = match refused.reason {
        DeadLetterReason::Invalid => Problem::invalid("INVALID", &refused.error),
        DeadLetterReason::Undecodable => Problem::invalid("UNDECODABLE", &refused.error),
        DeadLetterReason::UnknownType => Problem::invalid("UNKNOWN_TYPE", &refused.error),
        DeadLetterReason::TooLarge => Problem::invalid("TOO_LARGE", &refused.error),
        DeadLetterReason::Poison => Problem::rejected("POISON", "the handler failed on this command too often"),
    };
    match &refused.field {
        Some(field) => problem.field(format!("command.{field}"), &refused.error),
        None => problem,
    }
    .into_status()
}

/// Of a field of the request itself that is malformed.
pub fn argument(refused: &Refused) -> Status {
    let problem = Problem::invalid("INVALID", &refused.error);
    match &refused.field {
        Some(field) => problem.field(field, &refused.error),
        None => problem,
    }
    .into_status()
}

/// Of a read from the store.
pub fn store(error: &StoreError) -> Status {
    match error {
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "a read failed");
            Problem::unavailable("UNAVAILABLE", "the database can't be reached just now", RETRY_AFTER).into_status()
        }
        // A value that a question holds is refused by the database: a key that got past every check here.
        StoreError::Data { .. } => {
            tracing::warn!(%error, "a read was refused for a value in it");
            Problem::invalid("INVALID", "a value of the request can't be stored, and so can't be looked for")
                .into_status()
        }
        StoreError::Broken(_) => internal(error),
    }
}

/// Of a rejection, by its name: what `statuses` says, with the field of the request that `fields` says is at
/// fault. `INTERNAL` is a defect of ours, whose text goes to the log.
pub fn rejected(rejection: &Rejection, statuses: &[(&'static str, Code)], fields: &[(&str, &str)]) -> Status {
    let Some((name, code)) = statuses.iter().find(|(name, _)| *name == rejection.code) else {
        // Of a later build, found in a claim during a rollout.
        return Problem::rejected("REJECTED", &rejection.message).fact("rejection", &rejection.code).into_status();
    };
    if *code == Code::Internal {
        return internal(name);
    }
    let problem = Problem::new(*code, name, &rejection.message);
    match fields.iter().find(|(of, _)| of == name) {
        Some((_, field)) => problem.field(*field, &rejection.message),
        None => problem,
    }
    .into_status()
}

/// Notes that an answer about many says nothing of `what`, whose state can't be read: it is no unknown one,
/// and costs no other its answer.
pub fn left_out(what: &dyn std::fmt::Display, error: &dyn std::fmt::Display) {
    tracing::error!(%what, %error, "a state can't be read by this build; an answer leaves it out");
}

/// Of something that must not happen; its text goes to the log.
pub fn internal(error: &dyn std::fmt::Display) -> Status {
    tracing::error!(%error, "a call failed inside");
    Problem::internal().into_status()
}
