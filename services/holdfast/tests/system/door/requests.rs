//! Requests that no generated client makes: bytes that are no message, messages over the limit, garbage in
//! metadata, silent connections.
//!
//! Invariant: each is answered or ended within a bound, and holds up no other. Deliberately absent: TLS.

use std::time::Duration;

use holdfast_proto::orders::v1::{CreateOrderRequest, GetOrderRequest, GetOrderResponse};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, Request, Status, client::Grpc};
use tonic_prost::ProstCodec;

use super::{
    attack::{Acted, Attack, acts, all, is_given_up, parts, refused},
    envelopes::opening,
    stand::{PATIENCE, Stand, asked, id, id_at},
};

pub fn attacks() -> Vec<Attack> {
    acts![
        request_over_4_mib_is_refused,
        request_whose_text_is_no_utf8_is_invalid,
        request_that_is_no_message_is_invalid,
        method_that_is_none_is_unimplemented,
        metadata_that_is_garbage_is_no_obstacle,
        deadline_that_is_garbage_is_answered,
        correlation_over_its_limit_reaches_no_event,
        bytes_that_are_no_http_end_their_connection_alone,
        connections_that_say_nothing_hold_up_nobody,
    ]
}

/// A request whose texts are bytes, at the tags of `GetOrderRequest` and `CreateOrderRequest`.
#[derive(Clone, PartialEq, Message)]
struct Bytes {
    #[prost(bytes, tag = "1")]
    first: Vec<u8>,
    #[prost(bytes, tag = "2")]
    second: Vec<u8>,
}

async fn raw(stand: &Stand, path: &'static str, message: Bytes) -> Result<(), Status> {
    let mut grpc = Grpc::new(stand.channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec: ProstCodec<Bytes, GetOrderResponse> = ProstCodec::default();
    grpc.unary(asked(message), PathAndQuery::from_static(path), codec).await.map(drop)
}

const GET: &str = "/holdfast.orders.v1.OrderService/GetOrder";
const CREATE: &str = "/holdfast.orders.v1.OrderService/CreateOrder";

async fn request_over_4_mib_is_refused(stand: &Stand) -> Acted {
    let wanted = [(Code::OutOfRange, "*"), (Code::ResourceExhausted, "*"), (Code::InvalidArgument, "*")];
    let mut found = Vec::new();
    for mib in [5, 64] {
        let get = GetOrderRequest { order_id: "0".repeat(mib * 1024 * 1024), ..GetOrderRequest::default() };
        let answer = stand.orders().get_order(asked(get)).await;
        found.push(refused(&format!("{mib} MiB"), answer, &wanted));
    }
    all(found)?;
    Ok(Vec::new())
}

const MALFORMED: [(Code, &str); 1] = [(Code::InvalidArgument, "*")];

async fn request_whose_text_is_no_utf8_is_invalid(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for (what, text) in [("\\xff", b"\xff".to_vec()), ("a lone surrogate", b"\xed\xa0\x80".to_vec())] {
        let get = Bytes { first: text.clone(), second: Vec::new() };
        found.push(refused(&format!("GetOrder {what}"), raw(stand, GET, get).await, &MALFORMED));
        let command = opening(&id()).encode_to_vec();
        let create = Bytes { first: text, second: command };
        found.push(refused(&format!("CreateOrder {what}"), raw(stand, CREATE, create).await, &MALFORMED));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn request_that_is_no_message_is_invalid(stand: &Stand) -> Acted {
    let deep = [vec![0x7b; 100_000], vec![0x7c; 100_000]].concat();
    let mut found = Vec::new();
    for (what, second) in [("garbage", vec![0xff; 64]), ("broken off", vec![0x0a, 0x24, 0x30]), ("nested", deep)] {
        let create = Bytes { first: id().into_bytes(), second };
        found.push(refused(what, raw(stand, CREATE, create).await, &MALFORMED));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn method_that_is_none_is_unimplemented(stand: &Stand) -> Acted {
    for path in ["/holdfast.orders.v1.OrderService/EatOrder", "/no.Such/Method", "/", "/%00"] {
        let Err(status) = raw(stand, path, Bytes::default()).await else { return Err(format!("{path}: OK").into()) };
        if status.code() != Code::Unimplemented {
            return Err(format!("{path}: {:?}", parts(&status)).into());
        }
    }
    Ok(Vec::new())
}

fn with(name: &'static str, value: &[u8]) -> Result<Request<GetOrderRequest>, libtest_mimic::Failed> {
    let mut request = Request::new(GetOrderRequest::default());
    request.metadata_mut().as_mut().insert(name, http::HeaderValue::from_bytes(value)?);
    Ok(request)
}

/// Trace context, correlation and caller are for logs; garbage in them is ignored.
async fn metadata_that_is_garbage_is_no_obstacle(stand: &Stand) -> Acted {
    let long = "a".repeat(7_000);
    let mut found = Vec::new();
    for (name, value) in [
        ("traceparent", "garbage".as_bytes()),
        ("traceparent", b"00-00000000000000000000000000000000-0000000000000000-ff"),
        ("traceparent", b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("traceparent", long.as_bytes()),
        ("traceparent", b"\xff\xfe"),
        ("tracestate", long.as_bytes()),
        ("tracestate", b"\xff"),
        ("baggage", long.as_bytes()),
        ("x-correlation-id", long.as_bytes()),
        ("x-correlation-id", b"\xff"),
        ("x-holdfast-caller", b"\xff"),
        ("x-holdfast-caller", b"customer/\" or 1=1"),
        ("authorization", b"Bearer \xff"),
    ] {
        let mut request = with(name, value)?;
        request.get_mut().order_id.clone_from(&stand.bystanders[0].id);
        request.set_timeout(PATIENCE);
        if let Err(status) = stand.orders().get_order(request).await {
            found.push(Err(format!("{name}: {}: {status:?}", String::from_utf8_lossy(value)).into()));
        }
    }
    all(found)?;
    Ok(Vec::new())
}

async fn deadline_that_is_garbage_is_answered(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for value in ["99999999H", "0n", "-1S", "1", "soon", "999999999999999999999S", "\t1S"] {
        let mut request = with("grpc-timeout", value.as_bytes())?;
        request.get_mut().order_id.clone_from(&stand.bystanders[0].id);
        let answer =
            timeout(PATIENCE, stand.orders().get_order(request)).await.map_err(|_| format!("{value} hangs"))?;
        match answer {
            Ok(_) => {}
            Err(status) if [Code::DeadlineExceeded, Code::InvalidArgument].contains(&status.code()) => {}
            Err(status) if is_given_up(&status) => {}
            Err(status) => found.push(Err(format!("{value}: {:?}", parts(&status)).into())),
        }
    }
    all(found)?;
    Ok(Vec::new())
}

/// Correlation and trace state are published with the call's events, and a header over 1 KiB would make those
/// dead letters of their readers.
async fn correlation_over_its_limit_reaches_no_event(stand: &Stand) -> Acted {
    let order_id = id_at(5);
    let request_id = id();
    let create = CreateOrderRequest { request_id: request_id.clone(), command: Some(Stand::open_order(&order_id)) };
    let mut request = asked(create);
    let long = "c".repeat(2_000);
    request.metadata_mut().insert("x-correlation-id", long.parse()?);
    // A trace state of 3 KiB.
    let states: Vec<String> = (0..30).map(|n| format!("vendor{n}={}", "s".repeat(100))).collect();
    request.metadata_mut().insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?);
    request.metadata_mut().insert("tracestate", states.join(",").parse()?);
    let from = stand.tail.len();
    if let Err(status) = stand.orders().create_order(request).await {
        refused::<()>("a trace state of 3 KiB", Err(status), &[(Code::InvalidArgument, "TOO_LARGE")])?;
        return Ok(Vec::new());
    }
    let longest = |seen: &[holdfast_load_tests::tail::Lying]| {
        let event = seen.iter().find(|lying| super::stand::last(&lying.raw, "ce_causationid") == request_id)?;
        event.raw.headers.iter().filter_map(|(name, value)| Some((value.as_ref()?.len(), name.clone()))).max()
    };
    let (bytes, name) = stand.tail.until(from, PATIENCE, longest).await?;
    if bytes > 1024 {
        return Err(format!("header {name} of the event has {bytes} bytes").into());
    }
    Ok(Vec::new())
}

async fn bytes_that_are_no_http_end_their_connection_alone(stand: &Stand) -> Acted {
    for address in [stand.grpc(), stand.operations(), stand.edge] {
        for bytes in [
            &[0_u8; 4096][..],
            &[0xff; 4096],
            b"GET / HTTP/9.9\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
        ] {
            let mut connection = TcpStream::connect(address).await?;
            // The server may close before all of it is written, which is an answer.
            let _ = connection.write_all(bytes).await;
            let _ = connection.shutdown().await;
            let mut answer = Vec::new();
            let ended = timeout(PATIENCE * 2, connection.read_to_end(&mut answer)).await;
            if ended.is_err() {
                return Err(format!("{address} keeps a connection that says {:?}", &bytes[..8]).into());
            }
        }
    }
    Ok(Vec::new())
}

/// The probe runs while the connections are open.
async fn connections_that_say_nothing_hold_up_nobody(stand: &Stand) -> Acted {
    let mut silent = Vec::new();
    for address in [stand.grpc(), stand.operations(), stand.edge] {
        for _ in 0..100 {
            let mut connection = TcpStream::connect(address).await?;
            connection.write_all(b"P").await?;
            silent.push(connection);
        }
    }
    timeout(Duration::from_secs(30), stand.probe()).await.map_err(|_| "the probe hangs")??;
    drop(silent);
    Ok(Vec::new())
}
