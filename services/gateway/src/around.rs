//! What happens to every request before and after its handler.
//!
//! Invariant: it has a correlation id, a span in its caller's trace, and an answer, also if its handler
//! panics; it is counted once, by its route's pattern and never by its path. Deliberately absent: who calls
//! ([`crate::identity`]).

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures::FutureExt as _;
use holdfast_platform::{
    Context,
    grpc::{self, CORRELATION_HEADER},
    semconv, telemetry,
};
use http::{HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;
use tracing::{Instrument as _, field::Empty};

use crate::problem::Problem;

/// Requests that are handled at a time; an answer that streams does not count.
pub const IN_FLIGHT_MAX: usize = 512;

/// How many more requests there may be.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// Room for `requests` requests at a time.
    pub fn of(requests: usize) -> Self {
        Self(Arc::new(Semaphore::new(requests)))
    }
}

/// Handles one request.
pub async fn every_request(State(room): State<Room>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", |path| path.as_str()).to_owned();
    let correlation_id = grpc::correlation_id(request.headers());
    let span = tracing::info_span!(
        "http.server",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        correlation_id = correlation_id,
        { semconv::CONTEXT } = Context::Gateway.as_str(),
        { semconv::HTTP_REQUEST_METHOD } = method.as_str(),
        { semconv::HTTP_ROUTE } = route,
        { semconv::HTTP_RESPONSE_STATUS_CODE } = Empty
    );
    telemetry::extract(&span, request.headers());

    let handled = async {
        let Ok(_one) = room.0.try_acquire() else {
            let detail = "too many requests are being handled; come again in a moment";
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", detail)
                .retry_after(std::time::Duration::from_secs(1))
                .into_response();
        };
        AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|panic| {
            let said =
                panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(panic = said.unwrap_or("no text"), "a handler panicked");
            Problem::internal().into_response()
        })
    };
    let mut response = handled.instrument(span.clone()).await;

    let status = response.status();
    span.record(semconv::HTTP_RESPONSE_STATUS_CODE, status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let (method, code) = (known(method.as_str()), status.as_str().to_owned());
    metrics::histogram!("holdfast_gateway_request_duration_seconds", "method" => method, "route" => route.clone())
        .record(began.elapsed().as_secs_f64());
    metrics::counter!("holdfast_gateway_requests_total", "method" => method, "route" => route, "code" => code)
        .increment(1);

    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(correlation_id) {
        headers.insert(CORRELATION_HEADER, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A label has few values; a method may be anything.
fn known(method: &str) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
        .into_iter()
        .find(|one| *one == method)
        .unwrap_or("OTHER")
}
