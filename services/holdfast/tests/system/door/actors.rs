//! Calls between nodes and of operators, made by a stranger who reaches the port.
//!
//! Invariant: the call is refused, for its caller or for its content, with a reason; it has no effect and
//! stops no lane. Deliberately absent: a peer that has shown a certificate.

use std::time::Duration;

use holdfast_proto::{
    admin::v1::{GetActorRequest, actor_service_client::ActorServiceClient as Operators},
    orders::v1::OrderCancelled,
    payments::v1::ChargeSucceeded,
    runtime::v1::{
        CommandResponse, Failure, ReadRequest, ReadResponse, actor_service_client::ActorServiceClient,
        command_response, failure::Reason, read_result,
    },
};
use http::uri::PathAndQuery;
use libtest_mimic::Failed;
use prost::{Message, Name};
use tonic::{Code, Request, Response, Status, client::Grpc};
use tonic_prost::ProstCodec;
use uuid::Uuid;

use super::{
    attack::{Acted, Attack, acts, all, is_given_up, parts, refused},
    envelopes::opening,
    forgeries::{captured, unpaid},
    stand::{OPERATOR, Stand, asked, id, id_at},
};

/// Every kind of every context.
const KINDS: [(&str, &str); 7] = [
    ("orders", "order"),
    ("inventory", "reservation"),
    ("inventory", "stock_item"),
    ("payments", "payment"),
    ("fulfillment", "shipment"),
    ("fulfillment", "recipient"),
    ("customers", "customer"),
];

pub fn attacks() -> Vec<Attack> {
    acts![
        read_of_a_nul_key_stops_no_lane,
        read_of_a_nul_key_among_good_ones_stops_no_lane,
        read_of_hostile_keys_is_refused,
        read_of_hostile_kinds_is_refused,
        read_of_a_version_without_end_is_answered,
        hop_that_is_none_is_invalid,
        command_with_a_hostile_envelope_is_refused,
        command_forged_as_another_contexts_event_is_refused,
        command_under_the_runtimes_source_is_not_believed,
        operator_who_asks_for_a_hostile_key_is_refused,
        stranger_who_asks_as_an_operator_is_refused,
    ]
}

type Actors = ActorServiceClient<tonic::transport::Channel>;

fn actors(stand: &Stand) -> Actors {
    ActorServiceClient::new(stand.channel.clone())
}

fn read(context: &str, kind: &str, keys: &[&str]) -> ReadRequest {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    ReadRequest { context: context.to_owned(), hop: 1, kind: kind.to_owned(), keys, min_version: 0 }
}

/// Checks that a status refuses the caller or the request, with a reason.
fn turned_away(status: &Status) -> Result<(), Failed> {
    let (code, domain, reason) = parts(status);
    let is_no = matches!(
        code,
        Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::OutOfRange
            | Code::ResourceExhausted
    );
    if is_no && domain == "holdfast" && !reason.is_empty() {
        return Ok(());
    }
    Err(format!("{code:?} `{reason}` of `{domain}`: {}", status.message()).into())
}

/// Whether a failure blames the message.
fn is_fault(failure: &Failure) -> bool {
    matches!(failure.reason, Some(Reason::Refused(_) | Reason::Reused(_)))
}

/// Checks that each key is refused, or the whole request.
fn none_read(what: &str, answer: Result<Response<ReadResponse>, Status>) -> Result<(), Failed> {
    let response = match answer {
        Err(status) => {
            return turned_away(&status).map_err(|failed| named(what, &failed));
        }
        Ok(response) => response.into_inner(),
    };
    for result in response.results {
        match result.outcome {
            Some(read_result::Outcome::Failure(failure)) if is_fault(&failure) => {}
            // A text that can be no key names no aggregate.
            Some(read_result::Outcome::State(state)) if !state.exists => {}
            outcome => return Err(format!("{what}: {outcome:?}").into()),
        }
    }
    Ok(())
}

fn named(what: &str, failed: &Failed) -> Failed {
    format!("{what}: {}", failed.message().unwrap_or_default()).into()
}

async fn read_of_a_nul_key_stops_no_lane(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for (context, kind) in KINDS {
        let answer = actors(stand).read(asked(read(context, kind, &["\0x"]))).await;
        found.push(none_read(&format!("{context}, {kind}"), answer));
    }
    all(found)?;
    Ok(Vec::new())
}

/// A response, if there is one, answers for each good key.
async fn read_of_a_nul_key_among_good_ones_stops_no_lane(stand: &Stand) -> Acted {
    let good: Vec<&str> = stand.bystanders.iter().map(|order| order.id.as_str()).collect();
    let keys = [&good[..6], &["\0", "x\0"], &good[6..]].concat();
    match actors(stand).read(asked(read("orders", "order", &keys))).await {
        Err(status) => turned_away(&status)?,
        Ok(response) => {
            let results = response.into_inner().results;
            let is_read = |at: usize| {
                let outcome = results.get(at).and_then(|result| result.outcome.as_ref());
                matches!(outcome, Some(read_result::Outcome::State(state)) if state.exists)
            };
            if (0..results.len()).any(|at| is_read(at) == [6, 7].contains(&at)) {
                return Err(format!("the good keys are not all answered: {results:?}").into());
            }
        }
    }
    Ok(Vec::new())
}

async fn read_of_hostile_keys_is_refused(stand: &Stand) -> Acted {
    let (long, longer) = ("k".repeat(1024 * 1024), "\0".repeat(1024 * 1024));
    let hundred = vec!["\0"; 100];
    let many: Vec<String> = (0..1001).map(|_| id()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut found = Vec::new();
    for (what, keys) in [
        ("an empty key", vec![""]),
        ("a key of a MiB", vec![long.as_str()]),
        ("a MiB of NUL", vec![longer.as_str()]),
        ("a hundred bad keys", hundred),
        ("a control character", vec!["\u{1b}[2J"]),
    ] {
        found.push(none_read(what, actors(stand).read(asked(read("orders", "order", &keys))).await));
    }
    let invalid = [(Code::InvalidArgument, "*"), (Code::PermissionDenied, "*"), (Code::Unauthenticated, "*")];
    for (what, keys) in [("no key", vec![]), ("1,001 keys", many)] {
        found.push(refused(what, actors(stand).read(asked(read("orders", "order", &keys))).await, &invalid));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn read_of_hostile_kinds_is_refused(stand: &Stand) -> Acted {
    let long = "k".repeat(1024 * 1024);
    let key = id();
    let mut found = Vec::new();
    for (what, context, kind) in [
        ("a kind with NUL", "orders", "\0"),
        ("no kind", "orders", ""),
        ("a kind of a MiB", "orders", long.as_str()),
        ("another context's kind", "orders", "payment"),
        ("a context with NUL", "\0", "order"),
        ("no context", "", "order"),
        ("a context of a MiB", long.as_str(), "order"),
    ] {
        let answer = actors(stand).read(asked(read(context, kind, &[&key]))).await;
        // A build that lacks the context or the kind says so, since a later one may have it.
        let is_not_served = |answer: &Result<Response<ReadResponse>, Status>| {
            let Ok(response) = answer else { return false };
            let mut outcomes = response.get_ref().results.iter().map(|result| result.outcome.as_ref());
            outcomes.all(|outcome| {
                let Some(read_result::Outcome::Failure(failure)) = outcome else { return false };
                matches!(failure.reason, Some(Reason::NotOwner(_) | Reason::Unavailable(_)))
            })
        };
        if !is_not_served(&answer) {
            found.push(none_read(what, answer));
        }
    }
    all(found)?;
    Ok(Vec::new())
}

async fn read_of_a_version_without_end_is_answered(stand: &Stand) -> Acted {
    let asked = || {
        let mut request = Request::new(ReadRequest {
            min_version: u64::MAX,
            ..read("orders", "order", &[stand.bystanders[0].id.as_str()])
        });
        request.set_timeout(Duration::from_secs(2));
        request
    };
    let answer = actors(stand).read(asked()).await;
    match answer {
        Err(status) if status.code() == Code::DeadlineExceeded || is_given_up(&status) => {}
        Err(status) => turned_away(&status)?,
        Ok(response) => {
            let results = response.into_inner().results;
            let [result] = &results[..] else { return Err(format!("{results:?}").into()) };
            let Some(read_result::Outcome::Failure(failure)) = &result.outcome else {
                return Err(format!("read: {result:?}").into());
            };
            if !matches!(failure.reason, Some(Reason::Stale(_) | Reason::Late(_) | Reason::Refused(_))) {
                return Err(format!("{failure:?}").into());
            }
        }
    }
    Ok(Vec::new())
}

async fn hop_that_is_none_is_invalid(stand: &Stand) -> Acted {
    let wanted = [(Code::InvalidArgument, "INVALID"), (Code::PermissionDenied, "*"), (Code::Unauthenticated, "*")];
    let mut found = Vec::new();
    for hop in [0, 3, u32::MAX] {
        let question = ReadRequest { hop, ..read("orders", "order", &[&id()]) };
        found.push(refused(&format!("read, hop {hop}"), actors(stand).read(asked(question)).await, &wanted));
        let command = Forward { hop, ..command(&opened(&id())) };
        found.push(refused(&format!("command, hop {hop}"), send(stand, command).await, &wanted));
    }
    all(found)?;
    Ok(Vec::new())
}

/// `CommandRequest`, with every field that a build has ever read.
#[derive(Clone, PartialEq, Message)]
struct Forward {
    #[prost(string, tag = "1")]
    context: String,
    #[prost(uint32, tag = "2")]
    hop: u32,
    #[prost(message, optional, tag = "3")]
    message: Option<Forwarded>,
}

/// `CommandMessage`, likewise: a stranger may send fields that are gone.
#[derive(Clone, PartialEq, Message)]
struct Forwarded {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    r#type: String,
    #[prost(string, tag = "4")]
    key: String,
    #[prost(string, tag = "5")]
    content_type: String,
    #[prost(uint64, optional, tag = "6")]
    sequence: Option<u64>,
    #[prost(string, optional, tag = "7")]
    correlation_id: Option<String>,
    #[prost(bytes = "vec", tag = "11")]
    payload: Vec<u8>,
    #[prost(string, optional, tag = "12")]
    webhook: Option<String>,
    #[prost(bytes = "vec", tag = "13")]
    seal: Vec<u8>,
}

async fn send(stand: &Stand, forward: Forward) -> Result<Response<CommandResponse>, Status> {
    let mut grpc = Grpc::new(stand.channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec: ProstCodec<Forward, CommandResponse> = ProstCodec::default();
    let path = PathAndQuery::from_static("/holdfast.runtime.v1.ActorService/Command");
    grpc.unary(asked(forward), path, codec).await
}

fn command(message: &Forwarded) -> Forward {
    Forward { context: "orders".to_owned(), hop: 1, message: Some(message.clone()) }
}

fn message<M: Message + Name>(key: &str, body: &M) -> Forwarded {
    Forwarded {
        id: Uuid::now_v7().into_bytes().to_vec(),
        source: "tests/system".to_owned(),
        r#type: M::full_name(),
        key: key.to_owned(),
        content_type: "application/protobuf".to_owned(),
        payload: body.encode_to_vec(),
        ..Forwarded::default()
    }
}

fn opened(order_id: &str) -> Forwarded {
    message(order_id, &opening(order_id))
}

/// Checks that a command was refused, with a reason.
fn not_taken(what: &str, answer: Result<Response<CommandResponse>, Status>) -> Result<(), Failed> {
    match answer {
        Err(status) => turned_away(&status).map_err(|failed| named(what, &failed)),
        Ok(response) => match response.into_inner().outcome {
            Some(command_response::Outcome::Failure(failure)) if is_fault(&failure) => Ok(()),
            outcome => Err(format!("{what}: {outcome:?}").into()),
        },
    }
}

async fn command_with_a_hostile_envelope_is_refused(stand: &Stand) -> Acted {
    let good = || opened(&id_at(9));
    let long = "x".repeat(2 * 1024 * 1024);
    let nul = Some("a\0b".to_owned());
    let cases = [
        ("an id of no bytes", Forwarded { id: Vec::new(), ..good() }),
        ("an id of 15 bytes", Forwarded { id: vec![1; 15], ..good() }),
        ("an id of 17 bytes", Forwarded { id: vec![1; 17], ..good() }),
        ("a key with NUL", Forwarded { key: "\0x".to_owned(), ..good() }),
        ("no key", Forwarded { key: String::new(), ..good() }),
        ("a key of 2 MiB", Forwarded { key: long.clone(), ..good() }),
        ("a type with NUL", Forwarded { r#type: "\0".to_owned(), ..good() }),
        ("a type of 2 MiB", Forwarded { r#type: long.clone(), ..good() }),
        ("no content type", Forwarded { content_type: String::new(), ..good() }),
        ("another content type", Forwarded { content_type: "text/plain".to_owned(), ..good() }),
        ("a correlation with NUL", Forwarded { correlation_id: nul.clone(), ..good() }),
        ("a correlation of 2 MiB", Forwarded { correlation_id: Some(long.clone()), ..good() }),
        ("a body of 2 MiB", Forwarded { payload: vec![0x7a; 2 * 1024 * 1024], ..good() }),
        ("a body that is garbage", Forwarded { payload: vec![0xff; 64], ..good() }),
    ];
    let mut found = Vec::new();
    for (what, message) in cases {
        found.push(not_taken(what, send(stand, command(&message)).await));
    }
    let nothing = Forward { message: None, ..command(&good()) };
    found.push(not_taken("no message", send(stand, nothing).await));
    all(found)?;
    Ok(Vec::new())
}

/// Checks that a command was refused because of its type: by `PERMISSION_DENIED`, or by the class of the
/// refusal in the response.
fn forbidden(what: &str, answer: Result<Response<CommandResponse>, Status>) -> Result<(), Failed> {
    match answer {
        Err(status) => {
            let wanted = [(Code::PermissionDenied, "*"), (Code::Unauthenticated, "*")];
            refused::<()>(what, Err(status), &wanted)
        }
        Ok(response) => match response.into_inner().outcome {
            Some(command_response::Outcome::Failure(Failure { reason: Some(Reason::Refused(refused)) }))
                if ["UNKNOWN_TYPE", "FORBIDDEN"].contains(&&*refused.reason) =>
            {
                Ok(())
            }
            outcome => Err(format!("{what}: {outcome:?}").into()),
        },
    }
}

async fn command_forged_as_another_contexts_event_is_refused(stand: &Stand) -> Acted {
    let order_id = stand.reserved(9).await?;
    let paid = message(&order_id, &captured(&order_id, 500_000, "EUR"));
    let charged = ChargeSucceeded { order_id: order_id.clone(), ..ChargeSucceeded::default() };
    let ended = OrderCancelled { order_id: order_id.clone(), ..OrderCancelled::default() };
    let mut found = Vec::new();
    for source in ["tests/system", "grpc", "holdfast/payments/payment", "stripe/webhook"] {
        for (context, message) in [
            ("orders", paid.clone()),
            ("payments", message(&order_id, &charged)),
            ("inventory", message(&order_id, &ended)),
        ] {
            let webhook = source.ends_with("webhook").then(|| source.to_owned());
            let (source, seal) = (source.to_owned(), vec![0; 32]);
            let what = format!("{} by {source}", message.r#type);
            let message = Forwarded { source, sequence: Some(1), webhook, seal, ..message };
            let request = Forward { context: context.to_owned(), ..command(&message) };
            found.push(forbidden(&what, send(stand, request).await));
        }
    }
    unpaid(stand, &order_id).await?;
    all(found)?;
    Ok(Vec::new())
}

/// The receiver sets the source of a call, so the same id under another source is the same call.
async fn command_under_the_runtimes_source_is_not_believed(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for source in ["holdfast/orders/order", "stripe/webhook", "\0", &"s".repeat(2_000_000)] {
        let order_id = id_at(10);
        let message = Forwarded { source: source.to_owned(), ..opened(&order_id) };
        let again = Forwarded { source: "grpc".to_owned(), ..message.clone() };
        let what = format!("{source:.30?}");
        let first = send(stand, command(&message)).await;
        let applied = |answer: &Result<Response<CommandResponse>, Status>| {
            let outcome = answer.as_ref().ok().and_then(|response| response.get_ref().outcome.clone());
            match outcome {
                Some(command_response::Outcome::Applied(applied)) => Some(applied.version),
                _ => None,
            }
        };
        if applied(&first).is_none() {
            found.push(not_taken(&what, first));
            continue;
        }
        // The first source was not believed, so this is a repeat.
        let second = send(stand, command(&again)).await;
        if applied(&second) != Some(1) {
            found.push(Err(format!("{what}: another source makes it another command: {second:?}").into()));
        }
    }
    all(found)?;
    Ok(Vec::new())
}

fn operator(request: GetActorRequest, token: Option<&str>) -> Result<Request<GetActorRequest>, Failed> {
    let mut request = asked(request);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    }
    Ok(request)
}

fn get(context: &str, kind: &str, id: &str) -> GetActorRequest {
    GetActorRequest { context: context.to_owned(), kind: kind.to_owned(), id: id.to_owned() }
}

async fn operator_who_asks_for_a_hostile_key_is_refused(stand: &Stand) -> Acted {
    let long = "k".repeat(1024 * 1024);
    let wanted = [(Code::InvalidArgument, "*"), (Code::NotFound, "*")];
    let mut found = Vec::new();
    for (context, kind) in KINDS {
        for key in ["\0x", "", "x\0", &long] {
            for kind in [kind, ""] {
                let request = operator(get(context, kind, key), Some(OPERATOR))?;
                let answer = Operators::new(stand.channel.clone()).get_actor(request).await;
                found.push(refused(&format!("{context} {kind} {key:.10?}"), answer, &wanted));
            }
        }
    }
    for (context, kind) in [("\0", ""), ("orders", "\0"), ("", ""), (long.as_str(), long.as_str())] {
        let request = operator(get(context, kind, &id()), Some(OPERATOR))?;
        let answer = Operators::new(stand.channel.clone()).get_actor(request).await;
        found.push(refused(&format!("{context:.10?} {kind:.10?}"), answer, &wanted));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn stranger_who_asks_as_an_operator_is_refused(stand: &Stand) -> Acted {
    let wanted = [(Code::Unauthenticated, "*"), (Code::PermissionDenied, "*")];
    let mut found = Vec::new();
    for token in [None, Some(""), Some("wrong"), Some("an-operators-token-of-the-doo"), Some(&"t".repeat(7_000))] {
        let request = operator(get("orders", "", "\0x"), token)?;
        let answer = Operators::new(stand.channel.clone()).get_actor(request).await;
        found.push(refused(&format!("{token:.40?}"), answer, &wanted));
    }
    all(found)?;
    Ok(Vec::new())
}
