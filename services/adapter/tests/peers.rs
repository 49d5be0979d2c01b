//! Nodes asking one another over a real socket: what arrives, in how much time, from whom.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as outside of tests")]

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast_adapter::peers::{Actors, Admit, PeerNodes, anybody, register, wire};
use holdfast_core::{CallEnvelope, PartitionId, dedup::Answer, epoch::Epoch};
use holdfast_platform::{
    Health, Shutdown, errors,
    grpc::{Server, deadline, tls::TlsFiles},
};
use holdfast_proto::runtime::v1::{CommandRequest, actor_service_client::ActorServiceClient};
use holdfast_runtime::{
    ReadAnswer, RouteError,
    peers::{Answers, Forward, Local, PeerError, Peers, Placement, Question},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tonic::{Code, Status, transport::Endpoint};
use uuid::Uuid;

/// Does what the message's type says, and notes what came and how much time there was.
#[derive(Default)]
struct Actor {
    heard: Mutex<Vec<(Forward, Option<Duration>)>>,
}

#[tonic::async_trait]
impl Local for Actor {
    async fn command_here(&self, forward: Forward) -> Result<Answer, PeerError> {
        let left = deadline::current().map(|deadline| deadline - Instant::now());
        self.heard.lock().unwrap().push((forward.clone(), left));
        match &*forward.call.r#type {
            "add" => Ok(Answer::Applied { version: 7, reply: forward.call.payload }),
            "unsealed" => Err(PeerError::Unsealed),
            "hang" => std::future::pending().await,
            "move" => Err(moved()),
            _ => panic!("secret"),
        }
    }

    async fn read_here(&self, question: Question<'_>) -> Answers {
        let state = |key: &Arc<str>| ReadAnswer {
            version: question.min_version,
            exists: &**key != "none",
            body: format!("{}/{key}", question.kind).into(),
            strong: true,
        };
        let answer = |key: &Arc<str>| if &**key == "moved" { Err(moved()) } else { Ok(state(key)) };
        question.keys.iter().map(answer).collect()
    }
}

fn moved() -> PeerError {
    let owner = Some(Placement { partition: PartitionId(5), address: "node-2:9090".into(), epoch: Epoch(12) });
    PeerError::NotOwner { reason: "it moved".into(), owner }
}

struct Node {
    actor: Arc<Actor>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Node {
    async fn serve(admit: Admit, tls: Option<TlsFiles>) -> Self {
        let actor = Arc::new(Actor::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let actors = Actors::from([("orders", actor.clone() as Arc<dyn Local>)]);
        let server = register(Server::new(Health::new()).tls(tls), actors, admit);
        let serving = tokio::spawn(async move { server.serve(listener, &Shutdown::new(Health::new())).await.unwrap() });
        Self { actor, address, serving }
    }
}

fn orders(tls: Option<TlsFiles>) -> Arc<dyn Peers> {
    PeerNodes::new(tls).of("orders")
}

fn forward(r#type: &str) -> Forward {
    let call = CallEnvelope {
        correlation: Some("flow".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        ..CallEnvelope::new(Uuid::now_v7(), r#type, "a", "body".into())
    };
    Forward { call, seal: "seal".into() }
}

#[tokio::test]
async fn a_command_and_its_answer_arrive_as_they_are() {
    let node = Node::serve(anybody, None).await;
    let (peers, address) = (orders(None), node.address.to_string());
    let sent = forward("add");
    let answer = peers.command(&address, 1, &sent).await.unwrap();
    assert_eq!(answer, Answer::Applied { version: 7, reply: "body".into() });
    assert_eq!(node.actor.heard.lock().unwrap()[0].0, sent);
    assert_eq!(peers.command(&address, 2, &forward("move")).await, Err(moved()));
    let keys: Vec<Arc<str>> = ["a", "moved", "none"].map(Arc::from).to_vec();
    let answers = peers.read(&address, 1, Question { kind: "order", keys: &keys, min_version: 3 }).await.unwrap();
    let state =
        |key: &str, exists| Ok(ReadAnswer { version: 3, exists, body: format!("order/{key}").into(), strong: true });
    assert_eq!(answers, [state("a", true), Err(moved()), state("none", false)]);
}

#[tokio::test]
async fn forward_without_the_seal_is_permission_denied() {
    let node = Node::serve(anybody, None).await;
    let channel = Endpoint::new(format!("http://{}", node.address)).unwrap().connect().await.unwrap();
    let message = Some(wire::forward_out(&forward("unsealed")));
    let asked = CommandRequest { context: "orders".into(), hop: 1, message };
    let status = ActorServiceClient::new(channel).command(asked).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(errors::reason(&status).as_deref(), Some("FORWARD_NOT_SEALED"));
    // A node takes it as not reached: the other may be of another installation, and its next owner may not
    // be.
    let refused = orders(None).command(&node.address.to_string(), 1, &forward("unsealed")).await;
    assert!(matches!(refused, Err(PeerError::Unreached(_))), "{refused:?}");
}

#[tokio::test]
async fn callers_deadline_goes_along_and_its_end_is_reported_as_late() {
    let node = Node::serve(anybody, None).await;
    let (peers, address) = (orders(None), node.address.to_string());
    let deadline = Instant::now() + Duration::from_millis(400);
    let (left, answer) =
        deadline::within(deadline, async { (peers.time_left(), peers.command(&address, 1, &forward("hang")).await) })
            .await;
    assert!(left.is_some_and(|left| left <= Duration::from_millis(400)), "{left:?}");
    assert_eq!(answer, Err(PeerError::Late));
    let heard = node.actor.heard.lock().unwrap()[0].1;
    assert!(heard.is_some_and(|left| left <= Duration::from_millis(400)), "{heard:?}");
    assert_eq!(peers.time_left(), None);
}

#[tokio::test]
async fn absent_peer_is_not_waited_for_and_no_internal_text_leaves() {
    let node = Node::serve(anybody, None).await;
    let (peers, address) = (orders(None), node.address.to_string());
    let panicked = peers.command(&address, 1, &forward("panic")).await.unwrap_err();
    assert!(matches!(&panicked, PeerError::Lost(text) if !text.contains("secret")), "{panicked:?}");
    drop(node);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let mut opened = false;
    for _ in 0..30 {
        let gone = peers.command(&nobody, 1, &forward("add")).await.unwrap_err();
        assert!(matches!(gone, PeerError::Lost(_) | PeerError::Unreached(_)), "{gone:?}");
        opened |= matches!(gone, PeerError::Unreached(_));
    }
    assert!(opened, "the circuit stays closed although nobody ever answers");
    let nowhere = peers.command("no such address", 1, &forward("add")).await.unwrap_err();
    assert!(matches!(nowhere, PeerError::Unreached(_)), "{nowhere:?}");
}

#[tokio::test]
async fn refusals_of_the_owner_do_not_open_the_circuit() {
    let node = Node::serve(anybody, None).await;
    let (peers, address) = (orders(None), node.address.to_string());
    for _ in 0..50 {
        assert_eq!(peers.command(&address, 1, &forward("move")).await, Err(moved()));
    }
    assert!(peers.command(&address, 1, &forward("add")).await.is_ok());
}

#[tokio::test]
async fn what_is_not_asked_of_a_node_is_refused() {
    let node = Node::serve(anybody, None).await;
    let address = node.address.to_string();
    for hop in [0, 3] {
        let refused = orders(None).command(&address, hop, &forward("add")).await;
        assert!(matches!(refused, Err(PeerError::Lost(_))), "{refused:?}");
    }
    let elsewhere = PeerNodes::new(None).of("inventory").command(&address, 1, &forward("add")).await;
    assert!(matches!(elsewhere, Err(PeerError::NotOwner { owner: None, .. })), "{elsewhere:?}");
    let empty = orders(None).read(&address, 1, Question { kind: "order", keys: &[], min_version: 0 }).await;
    assert!(empty.is_err());
    assert!(node.actor.heard.lock().unwrap().is_empty());

    fn nobody(_: &tonic::Extensions) -> Result<(), Status> {
        Err(Status::new(Code::PermissionDenied, "no node"))
    }
    let closed = Node::serve(nobody, None).await;
    let refused = orders(None).command(&closed.address.to_string(), 1, &forward("add")).await;
    assert!(matches!(refused, Err(PeerError::Unreached(_))), "{refused:?}");
    assert!(closed.actor.heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn overload_is_the_owners_answer() {
    fn full(_: &tonic::Extensions) -> Result<(), Status> {
        Err(Status::resource_exhausted("full"))
    }
    let node = Node::serve(full, None).await;
    let answer = orders(None).command(&node.address.to_string(), 1, &forward("add")).await;
    assert_eq!(answer, Err(PeerError::Answered(RouteError::Overloaded)));
}

fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn files(directory: &tempfile::TempDir, name: &str, issuer: &CertifiedIssuer<'static, KeyPair>) -> TlsFiles {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
    let write = |suffix: &str, text: String| -> PathBuf {
        let path = directory.path().join(format!("{name}.{suffix}"));
        fs::write(&path, text).unwrap();
        path
    };
    let (cert, key) = (write("crt", cert.pem()), write("key", key.serialize_pem()));
    TlsFiles { cert, key, ca: Some(write("ca", issuer.pem())) }
}

#[tokio::test]
async fn nodes_call_each_other_under_tls_and_refuse_strangers() {
    let directory = tempfile::tempdir().unwrap();
    let ours = issuer();
    let node = Node::serve(anybody, Some(files(&directory, "server", &ours))).await;
    let address = format!("localhost:{}", node.address.port());
    let answer = orders(Some(files(&directory, "client", &ours))).command(&address, 1, &forward("add")).await;
    assert!(answer.is_ok(), "{answer:?}");
    let stranger = TlsFiles { ca: files(&directory, "x", &ours).ca, ..files(&directory, "stranger", &issuer()) };
    for tls in [None, Some(stranger)] {
        let refused = orders(tls).command(&address, 1, &forward("add")).await;
        assert!(matches!(refused, Err(PeerError::Lost(_))), "{refused:?}");
    }
}
