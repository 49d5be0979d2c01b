//! What happens to every request before and after its handler.
//!
//! Invariant: whatever the handler does (hang, panic, answer UNKNOWN) the caller gets a status with details,
//! in time; the span lives until the last byte of a stream, and each request is counted exactly once.
//!
//! A handler that runs out of time is *dropped*: work that must not be cut (a transaction:
//! launchbadge/sqlx#4385) belongs in a task of its own.
//!
//! Deliberately absent: retries (the caller's) and authentication.

use std::{
    any::Any,
    collections::BTreeSet,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::Semaphore,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};
use uuid::Uuid;

use super::{CALLER_HEADER, CORRELATION_HEADER, deadline};
use crate::{
    context::Context as BoundedContext,
    errors::{Problem, code_word},
    semconv, telemetry,
};

/// What the stack knows about a request; handlers find it in the request's extensions.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The caller's correlation id, or a new one.
    pub correlation_id: String,
    /// When the handler is dropped.
    pub deadline: Instant,
}

impl RequestContext {
    /// Of a request that came through the stack; a handler called directly gets a fresh one with a deadline
    /// of 30 s.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(|| Self {
            correlation_id: Uuid::now_v7().to_string(),
            deadline: deadline::nearest(Instant::now() + Duration::from_secs(30)),
        })
    }
}

/// Longest correlation id that is taken over, in bytes.
const CORRELATION_BYTES_MAX: usize = 128;

/// The caller's correlation id if it is one: short, and of characters that can be neither markup nor an
/// e-mail address. Otherwise a new one.
pub fn correlation_id(headers: &HeaderMap) -> String {
    headers
        .get(CORRELATION_HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=CORRELATION_BYTES_MAX).contains(&id.len()))
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte)))
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Wraps a server's routes.
#[derive(Debug, Clone)]
pub(super) struct RequestLayer {
    pub(super) gate: Arc<Semaphore>,
    pub(super) services: Arc<BTreeSet<String>>,
    pub(super) handler_max: Duration,
    pub(super) stopping: CancellationToken,
}

/// See [`RequestLayer`].
#[derive(Debug, Clone)]
pub(super) struct Requests<S> {
    inner: S,
    layer: RequestLayer,
}

impl<S> Layer<S> for RequestLayer {
    type Service = Requests<S>;

    fn layer(&self, inner: S) -> Requests<S> {
        Requests { inner, layer: self.clone() }
    }
}

impl RequestLayer {
    /// The method as it may appear in a label or a span's name: only services that exist, or an attacker
    /// could fill the metrics with inventions. (Unknown methods of known services are sorted out by their
    /// UNIMPLEMENTED.)
    fn method(&self, path: &str) -> String {
        let method = path.trim_start_matches('/');
        let known = method.split_once('/').is_some_and(|(service, name)| {
            self.services.contains(service) && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if known { method.to_owned() } else { OTHER.to_owned() }
    }
}

/// The context whose service this is, by its package.
fn context_of(method: &str) -> Option<BoundedContext> {
    method.strip_prefix("holdfast.")?.split('.').next()?.parse().ok()
}

const OTHER: &str = "other";

/// Probes and tooling must work under overload too.
fn is_exempt(path: &str) -> bool {
    path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.")
}

/// How much earlier than the caller we give up, so that our status arrives rather than tonic's CANCELLED.
fn margin(timeout: Duration) -> Duration {
    (timeout / 10).min(Duration::from_millis(10))
}

impl<S, B, R> Service<Request<B>> for Requests<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<Answer<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let began = Instant::now();
        let correlation_id = correlation_id(request.headers());
        let method = self.layer.method(request.uri().path());
        let span = tracing::info_span!(
            "grpc.server",
            otel.name = method,
            otel.kind = "server",
            otel.status_code = Empty,
            correlation_id = correlation_id,
            { semconv::CALLER } = request.headers().get(CALLER_HEADER).and_then(|caller| caller.to_str().ok()),
            { semconv::RPC_SYSTEM } = semconv::GRPC,
            { semconv::RPC_METHOD } = method,
            { semconv::CONTEXT } = context_of(&method).map(BoundedContext::as_str),
            { semconv::RPC_RESPONSE_STATUS_CODE } = Empty,
            { semconv::ERROR_TYPE } = Empty
        );
        telemetry::extract(&span, request.headers());
        let record = Record { method, began, span: span.clone(), done: false };
        let echo = HeaderValue::try_from(correlation_id.as_str()).ok();
        let finish = move |mut response: Response<Answer<R>>| {
            if let Some(id) = echo {
                response.headers_mut().insert(CORRELATION_HEADER, id);
            }
            response
        };

        let asked = match request.headers().get("grpc-timeout").map(deadline::parse) {
            Some(None) => {
                let problem = Problem::invalid("TIMEOUT_MALFORMED", "the grpc-timeout header can't be read")
                    .field("grpc-timeout", "is up to eight digits and one of H, M, S, m, u, n");
                return refuse(problem, record, finish);
            }
            Some(Some(timeout)) => Some(began + timeout.saturating_sub(margin(timeout))),
            None => None,
        };
        let permit = match self.layer.gate.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) if is_exempt(request.uri().path()) => None,
            Err(_) => {
                let problem = Problem::exhausted("OVERLOADED", "too many calls at once", Duration::from_millis(200));
                return refuse(problem, record, finish);
            }
        };
        let until = asked.unwrap_or(began + self.layer.handler_max).min(began + self.layer.handler_max);
        request.extensions_mut().insert(RequestContext { correlation_id, deadline: until });

        let handler = {
            // `call` may already run code of the handler's.
            let _entered = span.enter();
            catch_unwind(AssertUnwindSafe(|| self.inner.call(request)))
        };
        let stopping = self.layer.stopping.clone();
        let work = async move {
            let answered = match handler {
                Ok(future) => {
                    let guarded = AssertUnwindSafe(deadline::within(until, future)).catch_unwind();
                    timeout_at(until, guarded).await
                }
                Err(panic) => Ok(Err(panic)),
            };
            drop(permit);
            let response = match answered {
                Ok(Ok(Ok(response))) => Answer::wrap(response, asked, stopping, record),
                Ok(Ok(Err(error))) => return Err(error),
                Ok(Err(panic)) => early(panicked(panic.as_ref()), record),
                Err(_) => early(Problem::deadline(), record),
            };
            Ok(finish(response))
        };
        Box::pin(work.instrument(span))
    }
}

fn refuse<R, E>(
    problem: Problem,
    record: Record,
    finish: impl FnOnce(Response<Answer<R>>) -> Response<Answer<R>>,
) -> BoxFuture<'static, Result<Response<Answer<R>>, E>>
where
    R: Send + 'static,
    E: Send + 'static,
{
    Box::pin(std::future::ready(Ok(finish(early(problem, record)))))
}

fn early<R>(problem: Problem, mut record: Record) -> Response<Answer<R>> {
    let status = problem.into_status();
    record.finish(status.code());
    let (head, ()) = status.into_http::<()>().into_parts();
    Response::from_parts(head, Answer::empty())
}

/// The panic hook has logged the text; the caller learns only that it happened.
fn panicked(_panic: &(dyn Any + Send)) -> Problem {
    metrics::counter!("holdfast_grpc_server_panics_total").increment(1);
    Problem::internal()
}

/// Counts a request when it ends, however it ends.
#[derive(Debug)]
struct Record {
    method: String,
    began: Instant,
    span: Span,
    done: bool,
}

impl Record {
    fn finish(&mut self, code: Code) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let word = code_word(code);
        self.span.record(semconv::RPC_RESPONSE_STATUS_CODE, word);
        if matches!(code, Code::Internal | Code::Unavailable | Code::DeadlineExceeded | Code::DataLoss | Code::Unknown)
        {
            self.span.record("otel.status_code", "ERROR");
            self.span.record(semconv::ERROR_TYPE, word);
        }
        let method = if code == Code::Unimplemented { OTHER.to_owned() } else { std::mem::take(&mut self.method) };
        metrics::histogram!("holdfast_grpc_server_duration_seconds", "method" => method.clone())
            .record(self.began.elapsed().as_secs_f64());
        metrics::counter!("holdfast_grpc_server_handled_total", "method" => method, "code" => word).increment(1);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

pin_project_lite::pin_project! {
    /// A response body that ends in time and ends in a status.
    pub(super) struct Answer<R> {
        #[pin]
        inner: Option<R>,
        deadline: Option<Pin<Box<Sleep>>>,
        stopping: Option<CancellationToken>,
        stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
        record: Option<Record>,
    }
}

impl<R> Answer<R> {
    fn empty() -> Self {
        Self { inner: None, deadline: None, stopping: None, stopped: None, record: None }
    }
}

impl<R: Body<Data = Bytes>> Answer<R> {
    fn wrap(
        response: Response<R>,
        until: Option<Instant>,
        stopping: CancellationToken,
        mut record: Record,
    ) -> Response<Self> {
        let (mut head, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            // Headers that are trailers at once: the request is over.
            record.finish(censored(&status, &mut head.headers));
            return Response::from_parts(head, Self { inner: Some(body), ..Self::empty() });
        }
        let answer = Self {
            inner: Some(body),
            deadline: until.map(|until| Box::pin(sleep_until(until))),
            stopping: Some(stopping),
            stopped: None,
            record: Some(record),
        };
        Response::from_parts(head, answer)
    }
}

/// How the text begins by which prost says that bytes are not the message.
const UNDECODABLE: &str = "failed to decode Protobuf message";
/// How the text begins by which tonic says that a message is larger than its limit.
const TOO_LARGE: &str = "Error, decoded message length too large";

/// A status that is no answer of ours is replaced by one that is: tonic's own about a request that it can't
/// read, which has no reason, and UNKNOWN, whose text goes to the log. Returns the code that leaves.
fn censored(status: &Status, headers: &mut HeaderMap) -> Code {
    let problem = match status.code() {
        Code::Unknown => {
            tracing::error!(text = status.message(), "a handler answered UNKNOWN");
            Problem::internal()
        }
        Code::Internal if status.details().is_empty() && status.message().starts_with(UNDECODABLE) => {
            Problem::invalid("UNDECODABLE", "the request is not the protobuf message that the method takes")
        }
        Code::OutOfRange if status.details().is_empty() && status.message().starts_with(TOO_LARGE) => {
            Problem::invalid("TOO_LARGE", "the request is larger than the 4 MiB that are taken")
        }
        code => return code,
    };
    let status = problem.into_status();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        headers.remove(name);
    }
    // Fails only for a text that is no header, and this one is a constant.
    let _ = status.add_header(headers);
    status.code()
}

fn trailers(problem: Problem) -> (Code, HeaderMap) {
    let status = problem.into_status();
    let mut headers = HeaderMap::new();
    let _ = status.add_header(&mut headers);
    (status.code(), headers)
}

impl<R: Body<Data = Bytes>> Body for Answer<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let span = this.record.as_ref().map(|record| record.span.clone());
        let _entered = span.as_ref().map(Span::enter);

        let late = this.deadline.as_mut().is_some_and(|time| time.as_mut().poll(context).is_ready());
        let polled = if late {
            Err(Problem::deadline())
        } else {
            match catch_unwind(AssertUnwindSafe(|| inner.poll_frame(context))) {
                Err(panic) => Err(panicked(panic.as_ref())),
                Ok(Poll::Pending) if stopped(this.stopping.as_ref(), this.stopped, context) => Err(
                    Problem::unavailable("STOPPING", "this server is stopping; ask again", Duration::from_millis(100)),
                ),
                Ok(polled) => Ok(polled),
            }
        };
        let frame = match polled {
            Ok(polled) => ready!(polled),
            Err(problem) => {
                let (code, headers) = trailers(problem);
                if let Some(mut record) = this.record.take() {
                    record.finish(code);
                }
                this.inner.set(None);
                return Poll::Ready(Some(Ok(Frame::trailers(headers))));
            }
        };
        let ended = match frame {
            Some(Ok(mut frame)) => {
                if let Some(headers) = frame.trailers_mut()
                    && let Some(status) = Status::from_header_map(headers)
                {
                    let code = censored(&status, headers);
                    if let Some(mut record) = this.record.take() {
                        record.finish(code);
                    }
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Some(Err(error)) => (Code::Internal, Some(Err(error))),
            None => (Code::Ok, None),
        };
        if let Some(mut record) = this.record.take() {
            record.finish(ended.0);
        }
        Poll::Ready(ended.1)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Whether a stream that has nothing to say just now has to end because the server stops.
fn stopped(
    token: Option<&CancellationToken>,
    waiting: &mut Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    context: &mut Context<'_>,
) -> bool {
    let Some(token) = token else { return false };
    waiting.get_or_insert_with(|| Box::pin(token.clone().cancelled_owned())).as_mut().poll(context).is_ready()
}
