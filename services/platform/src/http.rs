//! The operations port: `/health/live`, `/health/ready`, `/metrics`; and the HTTP/1 server under it.
//!
//! Invariant: no client can hold the port: a header has five seconds, a connection two minutes, the number of
//! connections a bound; stopping takes at most [`Limits::grace`], even if clients are still connected.
//!
//! Deliberately absent: anything about the business, authentication (the port is for the cluster's inside),
//! TLS.

use std::{io, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use futures::{StreamExt as _, future::BoxFuture};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    health::{Health, Report},
    metrics::Metrics,
    net,
};

/// What the HTTP/1 server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time for a request's header, and for an idle connection's next one.
    pub header: Duration,
    /// Time that a connection may live; then it finishes the answer in hand and closes.
    pub connection: Duration,
    /// Time for connections to finish on stop.
    pub grace: Duration,
    /// Time that a write may be stuck.
    pub write_stall: Duration,
    /// Open connections.
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(5),
            connection: Duration::from_mins(2),
            grace: Duration::from_secs(5),
            write_stall: Duration::from_secs(30),
            connections_max: 256,
        }
    }
}

/// Most bytes of a request's header.
const HEADER_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Clone)]
struct Operations {
    health: Health,
    metrics: Metrics,
}

/// The routes of the operations port.
pub fn operations(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/health/live", get(async |State(operations): State<Operations>| answer(operations.health.live())))
        .route("/health/ready", get(async |State(operations): State<Operations>| answer(operations.health.ready())))
        .route(
            "/metrics",
            get(async |State(operations): State<Operations>| {
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], operations.metrics.render())
            }),
        )
        .with_state(Operations { health, metrics })
}

fn answer(report: Report) -> impl IntoResponse {
    let code = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(header::CACHE_CONTROL, "no-store")], Json(report))
}

/// Serves until `stop`, then lets connections finish for [`Limits::grace`] and cuts the rest. For the
/// operations port, `stop` is [`crate::Shutdown::ending`], so that probes see the draining.
pub fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> BoxFuture<'static, io::Result<()>> {
    Box::pin(async move {
        let cut = CancellationToken::new();
        // A future that is dropped leaves no connection behind.
        let _cut = cut.clone().drop_guard();
        let accept = net::Limits {
            connections_max: limits.connections_max,
            opening_bytes: 1,
            opening: limits.header,
            write_stall: limits.write_stall,
        };
        let connections = TaskTracker::new();
        {
            let mut incoming = std::pin::pin!(net::incoming(listener, accept, stop.clone(), cut.clone()));
            loop {
                let stream = tokio::select! {
                    () = stop.cancelled() => break,
                    stream = incoming.next() => stream,
                };
                match stream {
                    Some(Ok(stream)) => {
                        connections.spawn(connection(stream, router.clone(), limits, stop.clone()));
                    }
                    Some(Err(error)) => return Err(error),
                    None => break,
                }
            }
        }
        connections.close();
        if timeout(limits.grace, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "cutting connections that did not finish");
            cut.cancel();
            connections.wait().await;
        }
        Ok(())
    })
}

async fn connection(
    stream: net::Guarded<tokio::net::TcpStream>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.header).max_buf_size(HEADER_BYTES_MAX);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = stop.cancelled() => None,
        () = tokio::time::sleep(limits.connection) => None,
    };
    let result = if let Some(result) = ended {
        result
    } else {
        connection.as_mut().graceful_shutdown();
        let Ok(result) = timeout(limits.grace, connection).await else { return };
        result
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended in an error");
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::Instant,
    };

    use super::*;
    use crate::health::Verdict;

    struct Running {
        address: std::net::SocketAddr,
        health: Health,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<io::Result<()>>,
    }

    async fn running(limits: Limits) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (health, stop) = (Health::new(), CancellationToken::new());
        let (metrics, recorder) = Metrics::detached().unwrap();
        metrics::with_local_recorder(&recorder, || metrics::counter!("holdfast_test_total").increment(3));
        let task = tokio::spawn(serve(listener, operations(health.clone(), metrics), limits, stop.clone()));
        Running { address, health, stop, task }
    }

    async fn get_path(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn readiness_follows_its_checks_and_liveness_does_not() {
        let server = running(Limits::default()).await;
        let ready = get_path(server.address, "/health/ready").await;
        assert!(ready.starts_with("HTTP/1.1 200") && ready.contains(r#""ok":true"#), "{ready}");

        server.health.ready_when("database", || Verdict::Not("connection refused".into()));
        let ready = get_path(server.address, "/health/ready").await;
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(ready.contains(r#"{"name":"database","ok":false,"reason":"connection refused"}"#), "{ready}");
        assert!(get_path(server.address, "/health/live").await.starts_with("HTTP/1.1 200"));

        server.health.live_when("loop", || Verdict::Not("has not moved for 60s".into()));
        assert!(get_path(server.address, "/health/live").await.starts_with("HTTP/1.1 503"));
        assert!(get_path(server.address, "/nowhere").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn metrics_are_rendered_for_prometheus() {
        let server = running(Limits::default()).await;
        let text = get_path(server.address, "/metrics").await;
        assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
        assert!(text.contains("holdfast_test_total 3"), "{text}");
    }

    #[tokio::test]
    async fn a_header_that_never_ends_is_cut() {
        let limits = Limits { header: Duration::from_millis(300), ..Limits::default() };
        let server = running(limits).await;
        for opening in ["", "GET /health/live HTTP/1.1\r\n"] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(opening.as_bytes()).await.unwrap();
            let began = Instant::now();
            let drip = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    if !opening.is_empty() && stream.write_all(b"x: y\r\n").await.is_err() {
                        return;
                    }
                    let mut byte = [0];
                    match stream.try_read(&mut byte) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Ok(1..) => {}
                        _ => return,
                    }
                }
            };
            timeout(Duration::from_secs(5), drip).await.expect("cut");
            assert!(began.elapsed() < Duration::from_secs(2), "{opening:?}");
        }
    }

    #[tokio::test]
    async fn stopping_finishes_despite_idle_and_silent_connections() {
        let server = running(Limits { grace: Duration::from_millis(500), ..Limits::default() }).await;
        let silent = TcpStream::connect(server.address).await.unwrap();
        let mut half = TcpStream::connect(server.address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        idle.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        idle.read_u8().await.unwrap();

        server.stop.cancel();
        timeout(Duration::from_secs(3), server.task).await.expect("stopped in time").unwrap().unwrap();
        drop((silent, half, idle));
    }

    #[tokio::test]
    async fn connections_are_bounded_and_the_next_one_waits_its_turn() {
        let limits = Limits { connections_max: 2, header: Duration::from_millis(300), ..Limits::default() };
        let server = running(limits).await;
        let _hogs =
            [TcpStream::connect(server.address).await.unwrap(), TcpStream::connect(server.address).await.unwrap()];
        let answer = timeout(Duration::from_secs(3), get_path(server.address, "/health/live")).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"));
    }
}
