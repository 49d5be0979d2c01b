//! Calls to another context: never a bare one.
//!
//! Invariant: each has a deadline (the nearer of the peer's and the caller's, sent along), a circuit breaker
//! per peer, bounded retries, the trace and the correlation id; each failure is a status of ours, with
//! UNAVAILABLE for whatever kept the call from arriving.
//!
//! The breaker is `tower-resilience-circuitbreaker`: released this autumn, a tower service, half-open probes
//! reserved atomically. failsafe's last release is of 2024; recloser would have done, but is a wrapper around
//! calls, not a service. Its window of last calls is not used: that counts everything since the circuit last
//! closed, so that after a healthy day it would take a day of failures to open it.
//!
//! Deliberately absent: load balancing between replicas (Kubernetes and connection age do it).

use std::{
    future::Future,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{
    Code, Status, TimeoutExpired,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{Layer as _, Service, ServiceExt as _, retry::backoff::Backoff as _};
use tower_resilience_circuitbreaker::{
    CircuitBreaker, CircuitBreakerError, CircuitBreakerLayer, CircuitState, FnClassifier,
};
use tracing::{Instrument as _, Span, field::Empty};
use uuid::Uuid;

use super::{
    CIRCUIT_OPEN, CORRELATION_HEADER, PEER_UNREACHABLE, deadline,
    retry::{self, Retries, Retry},
    tls::{self, TlsFiles},
};
use crate::{
    errors::{self, Problem, code_word},
    semconv, telemetry,
};

/// How a peer is called.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For one call with all its attempts.
    pub deadline: Duration,
    /// For a connection.
    pub connect: Duration,
    /// When to try again.
    pub retry: Retry,
    /// How many attempts in a row must fail for the circuit to open …
    pub breaker_failures: usize,
    /// … for this long; then one attempt at a time is a probe.
    pub breaker_open: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(2),
            connect: Duration::from_secs(1),
            retry: Retry::default(),
            breaker_failures: 10,
            breaker_open: Duration::from_secs(2),
        }
    }
}

/// Why there is no peer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none, or TLS refused its settings.
    #[error("`{address}` can't be used as a gRPC address")]
    Address {
        /// As configured.
        address: String,
        /// tonic's reason.
        #[source]
        why: tonic::transport::Error,
    },
    /// A certificate can't be read.
    #[error("the certificate can't be used")]
    Certificate(#[from] tls::Error),
    /// The retry policy contradicts itself.
    #[error(transparent)]
    Retry(#[from] retry::Invalid),
    /// The breaker's settings contradict themselves.
    #[error("the circuit breaker's settings are not valid")]
    Breaker(#[source] tower_resilience_circuitbreaker::CircuitBreakerConfigError),
}

/// Another context's gRPC; clones share connection, breaker and budget.
#[derive(Clone)]
pub struct Peer {
    name: &'static str,
    stack: Stack,
    retries: Retries,
    deadline: Duration,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Peer {
    /// A peer at `http(s)://host:port`; connects with the first call. `name` is the context's. Inside a tokio
    /// runtime.
    pub fn new(name: &'static str, address: &str, settings: Settings, tls: Option<&TlsFiles>) -> Result<Self, Error> {
        let bad = |why| Error::Address { address: address.to_owned(), why };
        let mut endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(bad)?
            .connect_timeout(settings.connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        if endpoint.uri().scheme_str() == Some("https") {
            let config = match tls {
                Some(files) => files.client()?,
                None => tonic::transport::ClientTlsConfig::new().with_enabled_roots(),
            };
            endpoint = endpoint.tls_config(config).map_err(bad)?;
        }
        let breaker = CircuitBreakerLayer::builder()
            .name(name)
            .consecutive_failures(settings.breaker_failures)
            .wait_duration_in_open(settings.breaker_open)
            .failure_classifier(is_failure as Classify)
            .on_state_transition(move |from, to| {
                tracing::warn!(peer = name, ?from, ?to, "circuit breaker");
                let open = if to == CircuitState::Open { 1.0 } else { 0.0 };
                metrics::gauge!("holdfast_circuit_open", "peer" => name).set(open);
            })
            .build()
            .map_err(Error::Breaker)?;
        let attempt = Attempt { peer: name, channel: endpoint.connect_lazy() };
        let stack = Stack {
            breaker: breaker.layer(attempt),
            default_deadline: Some(settings.deadline),
            reopens_after: settings.breaker_open,
        };
        Ok(Self { name, stack, retries: Retries::new(settings.retry)?, deadline: settings.deadline })
    }

    /// For one attempt at a call: `CatalogServiceClient::new(peer.stack())`.
    pub fn stack(&self) -> Stack {
        self.stack.clone()
    }

    /// For streams: without the peer's deadline, which would end them.
    pub fn streams(&self) -> Stack {
        Stack { default_deadline: None, ..self.stack.clone() }
    }

    /// Makes a call, and makes it again where that can help. For reads, and for mutations that carry a
    /// request id.
    ///
    /// ```no_run
    /// # use holdfast_platform::grpc::Peer;
    /// # use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    /// # async fn example(peer: Peer, request: HealthCheckRequest) -> Result<(), tonic::Status> {
    /// let answer = peer
    ///     .call(|stack| {
    ///         let request = request.clone();
    ///         async move { HealthClient::new(stack).check(request).await }
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call<T, F, Fut>(&self, mut attempt: F) -> Result<T, Status>
    where
        F: FnMut(Stack) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let until = deadline::nearest(Instant::now() + self.deadline);
        let mut retries = self.retries.clone();
        let mut backoff = retries.begin();
        let work = async {
            let mut last = None;
            for number in 1.. {
                match timeout_at(until, attempt(self.stack())).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(status)) if retries.again(number, &status) => {
                        metrics::counter!("holdfast_grpc_client_retries_total", "peer" => self.name).increment(1);
                        let asked =
                            errors::retry_after(&status).map_or_else(Instant::now, |wait| Instant::now() + wait);
                        let resume = asked.max(backoff.next_backoff().deadline());
                        if resume >= until {
                            return Err(status);
                        }
                        sleep_until(resume).await;
                        last = Some(status);
                    }
                    Ok(Err(status)) => return Err(status),
                    Err(_) => break,
                }
            }
            Err(last.unwrap_or_else(|| Problem::deadline().into_status()))
        };
        deadline::within(until, work).await
    }
}

type Answered = Result<Response<Body>, Status>;
type Classify = fn(&Answered) -> bool;

/// What speaks against the peer, as opposed to against the request.
fn is_failure(answered: &Answered) -> bool {
    let code = match answered {
        Ok(response) => Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code()),
        Err(status) => status.code(),
    };
    matches!(code, Code::Unavailable | Code::DeadlineExceeded)
}

/// The service under a generated client.
#[derive(Clone)]
pub struct Stack {
    breaker: CircuitBreaker<Attempt, FnClassifier<Classify>>,
    default_deadline: Option<Duration>,
    reopens_after: Duration,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stack")
    }
}

/// Marks a request with the time it has.
#[derive(Clone, Copy)]
struct Until(Instant);

impl Service<Request<Body>> for Stack {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Answered>;

    /// Always ready: a generated client would turn an error from here into UNKNOWN. Waiting happens in
    /// `call`.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let now = Instant::now();
        let asked = request.headers().get("grpc-timeout").and_then(deadline::parse).map(|timeout| now + timeout);
        let until = [asked, self.default_deadline.map(|wait| now + wait), deadline::current()];
        if let Some(until) = until.into_iter().flatten().min() {
            request.extensions_mut().insert(Until(until));
        }
        let reopens_after = self.reopens_after;
        let breaker = self.breaker.clone();
        Box::pin(async move {
            breaker.oneshot(request).await.map_err(|error| match error {
                CircuitBreakerError::Inner(status) => status,
                CircuitBreakerError::OpenCircuit => {
                    Problem::unavailable(CIRCUIT_OPEN, "the peer failed too often just now", reopens_after)
                        .into_status()
                }
            })
        })
    }
}

/// One attempt, under the breaker, so that what times out counts against the peer.
#[derive(Debug, Clone)]
struct Attempt {
    peer: &'static str,
    channel: Channel,
}

impl Service<Request<Body>> for Attempt {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Answered>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let until = request.extensions_mut().remove::<Until>().map(|until| until.0);
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let span = tracing::info_span!(
            "grpc.client",
            otel.name = method,
            otel.kind = "client",
            otel.status_code = Empty,
            { semconv::RPC_SYSTEM } = semconv::GRPC,
            { semconv::RPC_METHOD } = method,
            { semconv::SERVER_ADDRESS } = self.peer,
            { semconv::CONTEXT } = telemetry::context_of(&Span::current()),
            { semconv::RPC_RESPONSE_STATUS_CODE } = Empty
        );
        let headers = request.headers_mut();
        if let Some(until) = until {
            headers.insert("grpc-timeout", deadline::format(until.saturating_duration_since(Instant::now())));
        }
        if !headers.contains_key(CORRELATION_HEADER) {
            let id = telemetry::correlation_of(&Span::current()).unwrap_or_else(|| Uuid::now_v7().to_string());
            if let Ok(id) = HeaderValue::try_from(id) {
                headers.insert(CORRELATION_HEADER, id);
            }
        }
        telemetry::inject(&span, headers);

        let (peer, channel, began) = (self.peer, self.channel.clone(), Instant::now());
        let recorded = span.clone();
        let work = async move {
            let sent = async { channel.oneshot(request).await.map_err(|error| unreachable_peer(peer, error.into())) };
            let answered = match until {
                // tonic's own timer fires at about the same time; both become the same status.
                Some(until) => timeout_at(until, sent).await.unwrap_or_else(|_| Err(Problem::deadline().into_status())),
                None => sent.await,
            };
            let code = match &answered {
                Ok(response) => Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code()),
                Err(status) => status.code(),
            };
            let word = code_word(code);
            recorded.record(semconv::RPC_RESPONSE_STATUS_CODE, word);
            if answered.is_err() {
                recorded.record("otel.status_code", "ERROR");
            }
            metrics::histogram!("holdfast_grpc_client_duration_seconds", "peer" => peer, "code" => word)
                .record(began.elapsed().as_secs_f64());
            answered
        };
        Box::pin(work.instrument(span))
    }
}

/// A transport's error as a status: late is late, and all else means that the peer wasn't reached.
fn unreachable_peer(peer: &'static str, error: tower::BoxError) -> Status {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return Problem::deadline().into_status();
        }
        cause = error.source();
    }
    let status = Status::from_error(error);
    tracing::debug!(peer, %status, "a call did not arrive");
    match status.code() {
        Code::DeadlineExceeded => Problem::deadline().into_status(),
        _ => Problem::new(Code::Unavailable, PEER_UNREACHABLE, format!("{peer} could not be reached")).into_status(),
    }
}
