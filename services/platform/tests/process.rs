//! A whole process: telemetry to a collector, both ports, signals, exit codes.
//!
//! The test starts itself again as a child (the variable [`CHILD`] says so), because telemetry is set up once
//! per process, standard variables are read from the environment, and exit codes need a process to exit.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as outside of tests")]

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use holdfast_platform::{
    Health, Shutdown,
    config::{Config, LogFormat, Sources},
    grpc, http,
    metrics::Metrics,
    shutdown::{Plan, Signals},
    telemetry,
};
use http_body::Body as _;
use serde_json::Value;
use tokio::net::TcpListener;
use tonic::{Status, body::Body, server::NamedService};

const CHILD: &str = "PLATFORM_TEST_CHILD";

/// What the child does; its log goes to standard error, its addresses to a line of standard output.
#[test]
fn child() {
    let Ok(kind) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let code = runtime.block_on(async {
        let signals = Signals::listen().unwrap();
        let config = Config::load(&Sources::from_process()).unwrap();
        let settings = telemetry::Settings {
            service_name: "holdfast-orders".into(),
            format: LogFormat::Json,
            ..telemetry::Settings::new(&config, &[])
        };
        let telemetry = telemetry::init(&settings).unwrap();
        let health = Health::new();
        let shutdown = Shutdown::new(health.clone());
        let metrics = Metrics::install().unwrap();
        let grpc = TcpListener::bind(config.grpc_listen).await.unwrap();
        let ops = TcpListener::bind(config.http_listen).await.unwrap();
        let line = format!("\nADDRESSES {} {}\n", grpc.local_addr().unwrap(), ops.local_addr().unwrap());
        std::io::stdout().write_all(line.as_bytes()).unwrap();

        let router = http::operations(health.clone(), metrics);
        let ops = http::serve(ops, router, http::Limits::default(), shutdown.ending().clone());
        let ops = tokio::spawn(ops);
        let server = grpc::Server::new(health);
        let work = async {
            tracing::info_span!("work", correlation_id = "flow-child").in_scope(|| tracing::info!("at work"));
            server.serve(grpc, &shutdown).await.unwrap();
            if kind == "stuck" {
                std::future::pending::<()>().await;
            }
        };
        let plan = Plan::new(config.shutdown_delay);
        let (exit, _) = shutdown.run(plan, signals, work, move || telemetry.flush()).await;
        ops.await.unwrap().unwrap();
        exit.code()
    });
    std::process::exit(code.into());
}

struct Process {
    child: Child,
    grpc: SocketAddr,
    ops: SocketAddr,
}

impl Process {
    fn start(kind: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, kind)
            .env("HOLDFAST_GRPC_LISTEN", "127.0.0.1:0")
            .env("HOLDFAST_HTTP_LISTEN", "127.0.0.1:0")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("ADDRESSES ").map(str::to_owned)).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let (grpc, ops) = line.split_once(' ').unwrap();
        Self { child, grpc: grpc.parse().unwrap(), ops: ops.parse().unwrap() }
    }

    fn signal(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.ops).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Exit code and log lines.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let patience = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < patience, "the process hangs");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status.code(), log.lines().map(str::to_owned).collect())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
    }
}

/// Takes whatever an OTLP exporter sends, as bytes.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<u8>>>);

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tower::Service<::http::Request<Body>> for Collector {
    type Response = ::http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::http::Request<Body>) -> Self::Future {
        let got = self.0.clone();
        async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                if let Some(data) = frame.data_ref() {
                    got.lock().unwrap().extend_from_slice(data);
                }
            }
            Ok(Status::ok("").into_http())
        }
        .boxed()
    }
}

impl Collector {
    fn holds(&self, text: &str) -> bool {
        self.0.lock().unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test(flavor = "multi_thread")]
async fn a_process_traces_its_requests_and_leaves_in_good_order() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (server, never) = (grpc::Server::new(Health::new()).service(collector.clone()), Shutdown::new(Health::new()));
    tokio::spawn(async move { server.serve(listener, &never).await });

    let process =
        Process::start("orderly", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("HOLDFAST_SHUTDOWN_DELAY", "400ms")]);
    assert!(process.get("/health/ready").starts_with("HTTP/1.1 200"));

    // A request whose caller has sampled its trace.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", process.grpc)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let mut request = tonic::Request::new(tonic_health::pb::HealthCheckRequest::default());
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01").parse().unwrap());
    request.metadata_mut().insert(grpc::CORRELATION_HEADER, "flow-9".parse().unwrap());
    client.check(request).await.unwrap();
    let metrics = process.get("/metrics");
    assert!(
        metrics.contains("holdfast_grpc_server_handled_total{method=\"grpc.health.v1.Health/Check\",code=\"OK\"} 1")
    );
    assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");

    // During the delay: unready, but still answering. The client's idle connection must not hold it up.
    process.signal();
    std::thread::sleep(Duration::from_millis(150));
    assert!(process.get("/health/ready").starts_with("HTTP/1.1 503"));
    assert!(process.get("/health/live").starts_with("HTTP/1.1 200"));
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log:#?}");

    for line in &log {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        for key in ["trace_id", "span_id", "correlation_id"] {
            assert!(line.get(key).is_some(), "{key} in {line}");
        }
    }
    assert!(log.iter().any(|line| line.contains("at work") && line.contains("flow-child")), "{log:#?}");

    // The last spans were sent before the process ended.
    let id: Vec<u8> = (0..32).step_by(2).map(|at| u8::from_str_radix(&TRACE[at..at + 2], 16).unwrap()).collect();
    let sent = collector.0.lock().unwrap().clone();
    assert!(sent.windows(16).any(|window| window == id), "the caller's trace was not continued");
    for text in ["grpc.health.v1.Health/Check", "holdfast-orders", "flow-9", "rpc.method"] {
        assert!(collector.holds(text), "{text}");
    }
}

#[test]
fn a_second_signal_ends_a_stuck_process() {
    let process = Process::start("stuck", &[]);
    process.signal();
    std::thread::sleep(Duration::from_millis(300));
    process.signal();
    let (code, log) = process.end();
    assert_eq!(code, Some(130), "{log:#?}");
}
