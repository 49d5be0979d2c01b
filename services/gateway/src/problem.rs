//! Every answer that is no success: RFC 9457's problem details, as `application/problem+json`.
//!
//! Invariant: an answer of 5xx says nothing from inside; that is in the log, under the correlation id that
//! every answer carries in `x-correlation-id`. What the contexts answer keeps its reason and the fields at
//! fault, by their names at the edge. Deliberately absent: pages, which tell people the same in words.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use holdfast_platform::errors;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use utoipa::{IntoResponses, ToSchema};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Most characters of a text that repeats what a caller sent.
const ECHO_CHARS_MAX: usize = 300;

/// What was wrong.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<Details>);

/// RFC 9457's members, and ours.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Details {
    /// A name of the kind of problem, made of `reason`.
    #[serde(rename = "type")]
    #[schema(example = "urn:holdfast:problem:empty-order")]
    kind: String,
    /// What the status means.
    #[schema(example = "Conflict")]
    title: String,
    /// The HTTP status again.
    #[schema(example = 409, minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time, for people.
    #[schema(example = "an order without items can't be placed")]
    detail: String,
    /// What happened, for programs: of `[A-Z0-9_]`.
    #[schema(example = "EMPTY_ORDER")]
    reason: String,
    /// What of the request is at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    #[serde(skip)]
    retry_after: Option<Duration>,
    #[serde(skip)]
    challenge: Option<HeaderValue>,
}

/// A part of a request that is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// Its path, such as `lines[0].quantity`, or the name of a parameter or header.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Problem {
    /// A problem with a reason such as `EMPTY_ORDER`.
    pub fn new(status: StatusCode, reason: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind: format!("urn:holdfast:problem:{}", reason.to_ascii_lowercase().replace('_', "-")),
            title: status.canonical_reason().unwrap_or("Problem").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            reason: reason.to_owned(),
            errors: Vec::new(),
            retry_after: None,
            challenge: None,
        }))
    }

    /// 400: `field` is malformed.
    pub fn malformed(reason: &str, field: &str, description: impl Into<String>) -> Self {
        let description = short(description.into());
        Self::new(StatusCode::BAD_REQUEST, reason, format!("{field}: {description}")).field(field, description)
    }

    /// 404: it is not there, or not for this caller.
    pub fn not_found(reason: &str, detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, reason, detail)
    }

    /// 500, without the cause: that belongs into the log.
    pub fn internal() -> Self {
        let detail = "the request failed inside; the log has the cause under the correlation id of this answer";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", detail)
    }

    /// 401, with what is to be shown instead.
    pub fn unauthenticated(detail: &str, challenge: &str) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", detail);
        problem.0.challenge = HeaderValue::try_from(challenge).ok();
        problem
    }

    /// Adds a part at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.0.errors.push(FieldProblem { field: field.into(), description: description.into() });
        self
    }

    /// Says when to come again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What happened, for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What happened, for programs.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What of the request is at fault.
    pub fn errors(&self) -> &[FieldProblem] {
        &self.0.errors
    }
}

/// No longer than is good for an answer that repeats what came.
fn short(text: String) -> String {
    match text.char_indices().nth(ECHO_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after, challenge) = (self.status(), self.0.retry_after, self.0.challenge.clone());
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(delay) = retry_after {
            // Whole seconds, and never too early.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// What a code of a context means at the edge; nothing for what is a fault inside.
const fn outside(code: Code) -> Option<StatusCode> {
    Some(match code {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Ok
        | Code::Unknown
        | Code::Internal
        | Code::DataLoss
        | Code::Unimplemented
        // Contexts trust the edge: a refusal is a mistake in how they were set up.
        | Code::PermissionDenied
        | Code::Unauthenticated => return None,
    })
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let Some(code) = outside(status.code()) else {
            tracing::error!(code = ?status.code(), text = status.message(), "a context failed");
            return Self::internal();
        };
        let reason = errors::reason(&status);
        if reason.as_deref() == Some("REQUEST_ID_REUSED") {
            return Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "IDEMPOTENCY_KEY_REUSED",
                "this Idempotency-Key was used before with another request; take a new one for a new request",
            )
            .field("Idempotency-Key", "was used before with another request");
        }
        let reason = reason.unwrap_or_else(|| errors::code_word(status.code()).to_owned());
        let mut problem = Self::new(code, &reason, short(status.message().to_owned()));
        for violation in status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default() {
            let field = violation.field.strip_prefix("command.").unwrap_or(&violation.field).to_owned();
            problem = problem.field(field, violation.description);
        }
        match errors::retry_after(&status) {
            Some(delay) => problem.retry_after(delay),
            None if matches!(code.as_u16(), 429 | 503) => problem.retry_after(Duration::from_secs(1)),
            None => problem,
        }
    }
}

/// What any request may be answered.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it describes answers; none is made of it")]
pub enum Refusals {
    /// The request is malformed; `errors` says what of it.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Details),
    /// No valid token was shown.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Details),
    /// The token is valid, and not for this.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Details),
    /// It is not there, or not for this caller.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Details),
    /// Too many requests of this caller; `Retry-After` says when to come again.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(Details),
    /// A defect.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(Details),
    /// Something that is needed is away; `Retry-After` says when to come again.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Details),
    /// There was no answer in time. A mutation may have taken effect; send it again with the same key.
    #[response(status = 504, content_type = "application/problem+json")]
    Late(Details),
}

/// What a mutation may be answered beside [`Refusals`].
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it describes answers; none is made of it")]
pub enum Conflicts {
    /// The body did not arrive in time.
    #[response(status = 408, content_type = "application/problem+json")]
    Slow(Details),
    /// What is asked is not possible now; `reason` says why.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Details),
    /// The body is larger than 64 KiB.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Details),
    /// The body is not `application/json`.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(Details),
    /// The Idempotency-Key was used before with another request.
    #[response(status = 422, content_type = "application/problem+json")]
    Reused(Details),
}

#[cfg(test)]
mod tests {
    use holdfast_platform::errors::Problem as Inside;

    use super::*;

    #[test]
    fn a_status_keeps_its_reason_its_fields_and_when_to_come_again() {
        let status = Inside::invalid("QUANTITY_NOT_POSITIVE", "quantity must be positive")
            .field("command.quantity", "is 0")
            .retry_after(Duration::from_millis(1_200))
            .into_status();
        let problem = Problem::from(status);
        assert_eq!((problem.status(), problem.reason()), (StatusCode::BAD_REQUEST, "QUANTITY_NOT_POSITIVE"));
        assert_eq!(problem.errors(), [FieldProblem { field: "quantity".into(), description: "is 0".into() }]);
        let response = problem.into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
    }

    #[test]
    fn no_text_from_inside_leaves() {
        for code in [Code::Internal, Code::Unknown, Code::DataLoss, Code::Unauthenticated, Code::PermissionDenied] {
            let problem = Problem::from(Status::new(code, "password=hunter2"));
            assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR, "{code:?}");
            assert!(!serde_json::to_string(&problem).unwrap().contains("hunter2"));
        }
    }

    #[test]
    fn a_key_used_twice_is_not_processable() {
        let status = Inside::already_exists("REQUEST_ID_REUSED", "this request id was used before").into_status();
        assert_eq!(Problem::from(status).status(), StatusCode::UNPROCESSABLE_ENTITY);
        let status = Inside::already_exists("ORDER_ALREADY_EXISTS", "the order exists already").into_status();
        assert_eq!(Problem::from(status).status(), StatusCode::CONFLICT);
    }

    #[test]
    fn what_is_repeated_is_cut_between_characters() {
        let problem = Problem::malformed("INVALID", "sku", "ß".repeat(10_000));
        assert_eq!(problem.errors()[0].description.chars().count(), ECHO_CHARS_MAX + 1);
    }
}
