//! The two stacks against each other over real sockets, with a service that misbehaves on request.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status, body::Body, server::NamedService};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tower::{Service, ServiceExt as _};

use super::{client::Settings, *};
use crate::{
    errors,
    health::{Health, Verdict},
    shutdown::Shutdown,
};

/// Does what its method's name says.
#[derive(Clone, Default)]
struct Whims {
    calls: Arc<AtomicUsize>,
}

impl NamedService for Whims {
    const NAME: &'static str = "test.Whims";
}

/// A stream that never says anything.
struct Silence;

impl http_body::Body for Silence {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        Poll::Pending
    }
}

impl Service<Request<Body>> for Whims {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let context = request.extensions().get::<RequestContext>().cloned().unwrap();
        async move {
            let answer = match request.uri().path().rsplit('/').next().unwrap() {
                "Fine" => Status::ok(context.correlation_id),
                "Left" => Status::ok((context.deadline - Instant::now()).as_millis().to_string()),
                "Hang" => std::future::pending().await,
                "Panic" => panic!("the customer's secret name"),
                "Unknown" => Status::unknown("the customer's secret name"),
                "Down" => Status::unavailable("down"),
                "DownTwice" if call <= 2 => Status::unavailable("down"),
                "DownTwice" => Status::ok(""),
                "Silence" => return Ok(Response::new(Body::new(Silence))),
                _ => Status::unimplemented(""),
            };
            Ok(answer.into_http())
        }
        .boxed()
    }
}

struct Running {
    address: SocketAddr,
    health: Health,
    shutdown: Shutdown,
    whims: Whims,
    task: JoinHandle<Result<(), server::Error>>,
}

async fn running(limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = Health::new();
    let shutdown = Shutdown::new(health.clone());
    let whims = Whims::default();
    let server = Server::new(health.clone()).limits(limits).service(whims.clone());
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { server.serve(listener, &stop).await });
    Running { address, health, shutdown, whims, task }
}

impl Running {
    fn peer(&self, settings: Settings) -> Peer {
        Peer::new("whims", &format!("http://{}", self.address), settings, None).unwrap()
    }
}

fn request(method: &str) -> Request<Body> {
    Request::post(format!("/test.Whims/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::empty())
        .unwrap()
}

/// One call; the status from headers or from the trailers at the end of the stream.
async fn ask(mut stack: Stack, request: Request<Body>) -> Result<(http::HeaderMap, Status), Status> {
    let response = stack.ready().await?.call(request).await?;
    let (head, mut body) = response.into_parts();
    let mut status = Status::from_header_map(&head.headers);
    while status.is_none() {
        let frame = std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await;
        match frame {
            Some(frame) => status = frame?.trailers_ref().and_then(Status::from_header_map),
            None => status = Some(Status::unknown("ended without a status")),
        }
    }
    Ok((head.headers, status.unwrap()))
}

async fn status(peer: &Peer, method: &str) -> Status {
    ask(peer.stack(), request(method)).await.map_or_else(|status| status, |(_, status)| status)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test]
async fn a_correlation_id_goes_through_and_comes_back() {
    let server = running(Limits::default()).await;
    let peer = server.peer(Settings::default());
    let mut asked = request("Fine");
    asked.headers_mut().insert(CORRELATION_HEADER, "flow-7".parse().unwrap());
    let (headers, status) = ask(peer.stack(), asked).await.unwrap();
    assert_eq!((status.message(), headers[CORRELATION_HEADER].to_str().unwrap()), ("flow-7", "flow-7"));

    for bad in ["someone@example.org", "a b", &"x".repeat(200)] {
        let mut asked = request("Fine");
        asked.headers_mut().insert(CORRELATION_HEADER, bad.parse().unwrap());
        let (headers, _) = ask(peer.stack(), asked).await.unwrap();
        let fresh = headers[CORRELATION_HEADER].to_str().unwrap();
        assert_eq!(uuid::Uuid::parse_str(fresh).unwrap().get_version_num(), 7, "{fresh}");
    }
}

#[tokio::test]
async fn a_handler_that_hangs_is_cut_at_the_callers_deadline() {
    let server = running(Limits::default()).await;
    let peer = server.peer(Settings { deadline: ms(200), ..Settings::default() });
    let began = Instant::now();
    let got = status(&peer, "Hang").await;
    assert_eq!(got.code(), Code::DeadlineExceeded);
    assert_eq!(errors::reason(&got).as_deref(), Some("DEADLINE_EXCEEDED"));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_caller_without_a_deadline_gets_the_servers() {
    let server = running(Limits { handler: ms(100), ..Limits::default() }).await;
    let peer = server.peer(Settings::default());
    let (_, got) = ask(peer.streams(), request("Hang")).await.unwrap();
    assert_eq!(got.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_deadline_travels_and_shrinks() {
    let server = running(Limits::default()).await;
    let peer = server.peer(Settings::default());
    let until = Instant::now() + ms(700);
    let got = deadline::within(until, status(&peer, "Left")).await;
    let left: u64 = got.message().parse().unwrap();
    assert!((1..=700).contains(&left), "{left}");
}

#[tokio::test]
async fn a_stream_ends_at_the_callers_deadline() {
    let server = running(Limits::default()).await;
    let peer = server.peer(Settings { deadline: ms(200), ..Settings::default() });
    let got = timeout(Duration::from_secs(3), status(&peer, "Silence")).await.unwrap();
    assert_eq!(got.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn neither_a_panic_nor_unknown_leaves_with_its_text() {
    let server = running(Limits::default()).await;
    let peer = server.peer(Settings::default());
    for method in ["Panic", "Unknown"] {
        let got = status(&peer, method).await;
        assert_eq!(got.code(), Code::Internal, "{method}");
        assert_eq!(errors::reason(&got).as_deref(), Some("INTERNAL"));
        assert!(!format!("{got:?}").contains("secret"), "{got:?}");
    }
    assert_eq!(status(&peer, "Fine").await.code(), Code::Ok);
}

#[tokio::test]
async fn a_malformed_timeout_is_the_callers_mistake() {
    let server = running(Limits::default()).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut asked = request("Fine");
    asked.headers_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let response = channel.oneshot(asked).await.unwrap();
    let got = Status::from_header_map(response.headers()).unwrap();
    assert_eq!((got.code(), errors::reason(&got).as_deref()), (Code::InvalidArgument, Some("TIMEOUT_MALFORMED")));
}

#[tokio::test]
async fn overload_is_refused_and_probes_still_pass() {
    let server = running(Limits { calls_max: 1, ..Limits::default() }).await;
    let peer = server.peer(Settings::default());
    let hog = tokio::spawn({
        let peer = peer.clone();
        async move { status(&peer, "Hang").await }
    });
    while server.whims.calls.load(Ordering::SeqCst) == 0 {
        sleep(ms(5)).await;
    }
    let got = status(&peer, "Fine").await;
    assert_eq!((got.code(), errors::reason(&got).as_deref()), (Code::ResourceExhausted, Some("OVERLOADED")));
    assert!(errors::retry_after(&got).is_some());
    HealthClient::new(peer.stack()).check(HealthCheckRequest::default()).await.unwrap();
    hog.abort();
}

#[tokio::test]
async fn a_transient_failure_is_tried_again_and_others_are_not() {
    let server = running(Limits::default()).await;
    let peer = server.peer(Settings::default());
    let call = |method: &'static str| {
        peer.call(move |stack| async move {
            let (_, status) = ask(stack, request(method)).await?;
            if status.code() == Code::Ok { Ok(()) } else { Err(status) }
        })
    };
    call("DownTwice").await.unwrap();
    assert_eq!(server.whims.calls.swap(0, Ordering::SeqCst), 3);
    assert_eq!(call("Panic").await.unwrap_err().code(), Code::Internal);
    assert_eq!(server.whims.calls.swap(0, Ordering::SeqCst), 1);
    assert_eq!(call("Down").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.whims.calls.swap(0, Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_failing_peer_opens_the_circuit_and_a_good_answer_closes_it() {
    let server = running(Limits::default()).await;
    let peer = server.peer(Settings { breaker_failures: 4, breaker_open: ms(200), ..Settings::default() });
    // However long it was well before.
    for _ in 0..50 {
        assert_eq!(status(&peer, "Fine").await.code(), Code::Ok);
    }
    for _ in 0..4 {
        status(&peer, "Down").await;
    }
    let before = server.whims.calls.load(Ordering::SeqCst);
    let got = status(&peer, "Fine").await;
    assert_eq!((got.code(), errors::reason(&got).as_deref()), (Code::Unavailable, Some(CIRCUIT_OPEN)));
    assert_eq!(server.whims.calls.load(Ordering::SeqCst), before);
    sleep(ms(250)).await;
    assert_eq!(status(&peer, "Fine").await.code(), Code::Ok);
    assert_eq!(status(&peer, "Fine").await.code(), Code::Ok);
}

#[tokio::test]
async fn calls_that_time_out_open_the_circuit_too() {
    let server = running(Limits::default()).await;
    let settings = Settings { breaker_failures: 4, deadline: ms(60), ..Settings::default() };
    let peer = server.peer(settings);
    for _ in 0..4 {
        let hang = peer.call(|stack| async move { ask(stack, request("Hang")).await });
        let got = hang.await.map_or_else(|status| status, |(_, status)| status);
        assert_eq!(got.code(), Code::DeadlineExceeded);
    }
    let got = status(&peer, "Fine").await;
    assert_eq!(errors::reason(&got).as_deref(), Some(CIRCUIT_OPEN));
}

#[tokio::test]
async fn a_peer_that_is_away_is_unavailable_in_time() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let peer = Peer::new("away", &format!("http://{address}"), Settings::default(), None).unwrap();
    let began = Instant::now();
    let got = status(&peer, "Fine").await;
    assert_eq!((got.code(), errors::reason(&got).as_deref()), (Code::Unavailable, Some(PEER_UNREACHABLE)), "{got:?}");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(Peer::new("bad", "not an address", Settings::default(), None).is_err());
}

#[tokio::test]
async fn grpc_health_follows_readiness_and_reflection_lists_services() {
    let server = running(Limits::default()).await;
    let peer = server.peer(Settings::default());
    let check = |service: &'static str| {
        let mut client = HealthClient::new(peer.stack());
        async move {
            let request = HealthCheckRequest { service: service.to_owned() };
            client.check(request).await.map(|answer| answer.into_inner().status())
        }
    };
    let until = async |service: &'static str, wanted: ServingStatus| {
        timeout(Duration::from_secs(3), async {
            while check(service).await.ok() != Some(wanted) {
                sleep(ms(20)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{service} never became {wanted:?}"));
    };
    until("", ServingStatus::Serving).await;
    until("test.Whims", ServingStatus::Serving).await;
    assert_eq!(check("nobody").await.unwrap_err().code(), Code::NotFound);
    server.health.ready_when("database", || Verdict::Not("away".into()));
    until("test.Whims", ServingStatus::NotServing).await;
    server.health.ready_when("database", || Verdict::Ok);
    until("", ServingStatus::Serving).await;
    server.shutdown.begin();
    until("", ServingStatus::NotServing).await;

    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut client = ServerReflectionClient::new(peer.stack());
    let mut answers = client.server_reflection_info(tokio_stream::once(list)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    assert!(list.service.iter().any(|service| service.name == "grpc.health.v1.Health"), "{list:?}");
}

#[tokio::test]
async fn a_connection_without_a_preface_is_cut() {
    let server = running(Limits { opening: ms(200), ..Limits::default() }).await;
    for opening in ["", "PRI * HT"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(opening.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Cut either way: an end or a reset.
        let _ = timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await.expect("cut in time");
    }
}

#[tokio::test]
async fn stopping_finishes_with_idle_and_silent_connections_open() {
    let server = running(Limits::default()).await;
    let idle = server.peer(Settings::default());
    assert_eq!(status(&idle, "Fine").await.code(), Code::Ok);
    let silent = TcpStream::connect(server.address).await.unwrap();
    sleep(ms(50)).await;

    let began = Instant::now();
    server.shutdown.stopping().cancel();
    timeout(Duration::from_secs(5), server.task).await.expect("stopped in time").unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    drop(silent);
}

#[tokio::test]
async fn stopping_finishes_calls_in_flight_and_ends_streams() {
    let server = running(Limits { drain: ms(300), ..Limits::default() }).await;
    let peer = server.peer(Settings::default());
    let stream = tokio::spawn(ask(peer.streams(), request("Silence")));
    let hang = tokio::spawn(ask(peer.streams(), request("Hang")));
    while server.whims.calls.load(Ordering::SeqCst) < 2 {
        sleep(ms(5)).await;
    }
    sleep(ms(50)).await;
    server.shutdown.stopping().cancel();
    let (_, ended) = timeout(Duration::from_secs(3), stream).await.unwrap().unwrap().unwrap();
    assert_eq!((ended.code(), errors::reason(&ended).as_deref()), (Code::Unavailable, Some("STOPPING")));
    timeout(Duration::from_secs(3), server.task).await.expect("stopped in time").unwrap().unwrap();
    let cut = timeout(Duration::from_secs(3), hang).await.unwrap().unwrap().unwrap_err();
    assert_eq!(cut.code(), Code::Unavailable);
}

#[test]
fn a_peer_can_be_shared_between_handlers() {
    fn shareable<T: Clone + Send + Sync + 'static>() {}
    shareable::<Peer>();
    shareable::<Stack>();
}
