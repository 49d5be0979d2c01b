//! gRPC statuses that a program can act on: code, machine-readable reason, the fields at fault, when to come
//! again.
//!
//! Invariant: every status built here carries `google.rpc.ErrorInfo` with domain [`DOMAIN`] and a reason in
//! `UPPER_SNAKE_CASE`, and stays small enough for HTTP/2 headers, whatever text it was given. UNKNOWN can't
//! be built.
//!
//! Deliberately absent: which rejection becomes which status; each context's `status.rs` has that one match.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// `ErrorInfo.domain` of every status.
pub const DOMAIN: &str = "holdfast";

/// Longest text anywhere in a status, in bytes; trailers have to fit peers' header limits (often 8 KiB).
pub const TEXT_BYTES_MAX: usize = 512;

/// Most field violations or metadata entries that a status lists.
pub const ENTRIES_MAX: usize = 8;

/// A status in the making.
#[derive(Debug, Clone)]
#[must_use]
pub struct Problem {
    code: Code,
    reason: &'static str,
    message: String,
    violations: Vec<FieldViolation>,
    metadata: Vec<(&'static str, String)>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem with a reason such as `EMPTY_ORDER`. A success or UNKNOWN becomes INTERNAL: neither is an
    /// answer.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(
            reason.starts_with(|c: char| c.is_ascii_uppercase())
                && reason.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'),
            "a reason is UPPER_SNAKE_CASE: {reason}"
        );
        let code = if matches!(code, Code::Ok | Code::Unknown) { Code::Internal } else { code };
        Self { code, reason, message: message.into(), violations: Vec::new(), metadata: Vec::new(), retry_after: None }
    }

    /// `INVALID_ARGUMENT`; add the fields with [`Problem::field`].
    pub fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason, message)
    }

    /// `FAILED_PRECONDITION`: a business rejection, or a parked aggregate.
    pub fn rejected(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, reason, message)
    }

    /// `NOT_FOUND`.
    pub fn not_found(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, reason, message)
    }

    /// `ALREADY_EXISTS`: also a request id that was used with another body.
    pub fn already_exists(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::AlreadyExists, reason, message)
    }

    /// UNAVAILABLE: infrastructure, or an owner on the move; says when to come again.
    pub fn unavailable(reason: &'static str, message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(Code::Unavailable, reason, message).retry_after(retry_after)
    }

    /// `RESOURCE_EXHAUSTED`: overload; says when to come again.
    pub fn exhausted(reason: &'static str, message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(Code::ResourceExhausted, reason, message).retry_after(retry_after)
    }

    /// `DEADLINE_EXCEEDED`.
    pub fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the call's deadline passed before its answer")
    }

    /// INTERNAL, without the cause: that belongs into the log.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "INTERNAL", "the call failed inside; the log has the cause under its correlation id")
    }

    /// Adds a field at fault (`google.rpc.BadRequest`), as a path such as `command.quantity`.
    pub fn field(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        if self.violations.len() < ENTRIES_MAX {
            self.violations.push(FieldViolation::new(short(field.into()), short(description.into())));
        }
        self
    }

    /// Adds a fact for programs (`ErrorInfo.metadata`). No personal data.
    pub fn fact(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if self.metadata.len() < ENTRIES_MAX {
            self.metadata.push((name, short(value.into())));
        }
        self
    }

    /// Says that trying again after this long can help (`google.rpc.RetryInfo`).
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The status with its details.
    pub fn into_status(self) -> Status {
        let facts = self.metadata.into_iter().map(|(name, value)| (name.to_owned(), value));
        let mut details = ErrorDetails::with_error_info(
            self.reason,
            DOMAIN,
            facts.collect::<std::collections::HashMap<String, String>>(),
        );
        if !self.violations.is_empty() {
            details.set_bad_request(self.violations);
        }
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        Status::with_error_details(self.code, short(self.message), details)
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        problem.into_status()
    }
}

/// `ErrorInfo.reason` of a status of ours.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason)
}

/// `RetryInfo.retry_delay` of a status.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// The canonical word of a code: `Code::NotFound` is `NOT_FOUND`.
pub const fn code_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn short(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let cut = (0..=TEXT_BYTES_MAX - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_survive_the_wire() {
        let sent = Problem::invalid("QUANTITY_NOT_POSITIVE", "quantity must be positive")
            .field("command.quantity", "is 0")
            .field("command.sku", "is empty")
            .fact("version", "7")
            .retry_after(Duration::from_millis(250))
            .into_status();
        let headers = sent.into_http::<tonic::body::Body>().into_parts().0.headers;
        let got = Status::from_header_map(&headers).unwrap();

        assert_eq!((got.code(), got.message()), (Code::InvalidArgument, "quantity must be positive"));
        assert_eq!(reason(&got).as_deref(), Some("QUANTITY_NOT_POSITIVE"));
        assert_eq!(retry_after(&got), Some(Duration::from_millis(250)));
        let details = got.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.domain.as_str(), info.metadata["version"].as_str()), (DOMAIN, "7"));
        let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|v| v.field.clone()).collect();
        assert_eq!(fields, ["command.quantity", "command.sku"]);
    }

    #[test]
    fn a_status_stays_small_whatever_it_is_given() {
        let mut problem = Problem::invalid("TOO_LONG", "ß".repeat(100_000));
        for _ in 0..1000 {
            problem = problem.field("x".repeat(1000), "y".repeat(1000));
        }
        let status = problem.into_status();
        assert!(status.message().len() <= TEXT_BYTES_MAX);
        assert!(status.details().len() < 10_000, "{}", status.details().len());
    }

    #[test]
    fn unknown_is_never_an_answer() {
        assert_eq!(Problem::new(Code::Unknown, "X", "").into_status().code(), Code::Internal);
        assert_eq!(Problem::new(Code::Ok, "X", "").into_status().code(), Code::Internal);
    }

    #[test]
    fn statuses_of_others_have_no_reason_of_ours() {
        assert_eq!(reason(&Status::internal("x")), None);
        assert_eq!(retry_after(&Status::internal("x")), None);
    }
}
