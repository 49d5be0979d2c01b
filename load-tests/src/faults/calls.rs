//! Callers over gRPC, and the history of their requests and of the answers that they got.
//!
//! Each order is worked on by a few callers at once, in *bursts*: every caller does some operations one after
//! the other, then all wait for each other. So between two bursts nothing of that order is under way, and its
//! history may be cut there. A command keeps its request id through all its attempts, at whatever node, until
//! it has an answer: it is one operation from the first attempt to the answer. One that is given up is
//! *unknown*: it may take effect at any later time, or never, whatever status its attempts ended with. A read
//! has no effect, so a failed attempt is forgotten and the next one is an operation of its own. An order of
//! which something is unknown gets one more burst, in the same window, and is then left alone.
//!
//! Deliberately absent: judging any of it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use holdfast_proto::{
    orders::v1::{
        AddItem, AddItemRequest, CancelOrder, CancelOrderRequest, CreateOrder, CreateOrderRequest, GetOrderRequest,
        Order, RemoveItem, RemoveItemRequest, order_service_client::OrderServiceClient,
    },
    read::v1::Consistency,
};
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::{diary::Diary, load::Crowd};
use crate::{random::Random, work::regular};

/// For one attempt.
const ATTEMPT: Duration = Duration::from_secs(2);
/// For a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// Between two attempts, after each node was tried.
const PAUSE: Duration = Duration::from_millis(100);
/// Skus that callers ask for.
const SKUS: u64 = 4;

/// How callers work.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Orders worked on at a time.
    pub orders: u32,
    /// Callers of one order. A history is searched through all interleavings of them: keep it small.
    pub callers: u32,
    /// Operations of each caller in one burst. Likewise.
    pub operations: u32,
    /// Bursts that an order lives for.
    pub bursts: u32,
    /// How long a command is tried before its outcome counts as unknown.
    pub patience: Duration,
    /// How many of 1,000 operations are given up after one attempt.
    pub impatient: u16,
    /// Between two operations of a caller.
    pub think: Duration,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "op")]
pub enum Op {
    /// `CreateOrder`.
    Create,
    /// `AddItem`.
    Add {
        /// Of what.
        sku: String,
        /// How many.
        units: i64,
    },
    /// `RemoveItem`.
    Remove {
        /// Of what.
        sku: String,
    },
    /// `CancelOrder`.
    Cancel,
    /// `GetOrder`, STRONG.
    Get,
}

/// An order as an answer shows it to a caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Seen {
    /// Its version.
    pub version: u64,
    /// Its status.
    pub status: String,
    /// Units by sku.
    pub lines: BTreeMap<String, i64>,
}

impl Seen {
    fn of(order: &Order) -> Self {
        Self {
            version: order.version,
            status: order.status().as_str_name().trim_start_matches("ORDER_STATUS_").to_owned(),
            lines: order.lines.iter().map(|line| (line.sku.clone(), line.quantity)).collect(),
        }
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// With this order.
    Seen(Seen),
    /// With a business rejection, by its reason.
    Rejected(String),
    /// It was given up: the status of the last attempt.
    Unknown(String),
    /// With an answer that may never be given, such as a read that was not what it was asked to be.
    Wrong(String),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Of which order.
    pub order: Uuid,
    /// The part of the order's history it belongs to: when a window ends nothing is under way.
    pub window: u32,
    /// By which of the order's callers.
    pub caller: u32,
    /// The request id; nil for reads.
    pub request: Uuid,
    /// What was asked.
    #[serde(flatten)]
    pub op: Op,
    /// When, since the run began: before anything was sent.
    pub invoked: Duration,
    /// When the answer was there; `None` if there was none.
    pub returned: Option<Duration>,
    /// What it was.
    pub outcome: Outcome,
    /// Which node answered, from 0.
    pub node: usize,
    /// Attempts it took.
    pub attempts: u32,
}

/// Who calls whom.
#[derive(Clone)]
pub struct Callers {
    nodes: Vec<OrderServiceClient<Channel>>,
    diary: Arc<Diary>,
    options: Options,
    history: Arc<Mutex<Vec<Call>>>,
}

impl Callers {
    /// Callers of nodes that are reached at these addresses. Inside a tokio runtime.
    pub fn new(addresses: &[SocketAddr], options: Options, diary: Arc<Diary>) -> Result<Self, tonic::transport::Error> {
        let nodes = addresses.iter().map(|address| client(*address)).collect::<Result<_, _>>()?;
        Ok(Self { nodes, diary, options, history: Arc::default() })
    }

    /// Works on orders until `stop` is true and what was begun is done; returns the history.
    pub async fn work(self, stop: watch::Receiver<bool>) -> Vec<Call> {
        let mut all = JoinSet::new();
        for n in 0..self.options.orders {
            let random = Random(self.options.seed ^ u64::from(n + 1) << 32);
            all.spawn(self.clone().orders(random, stop.clone()));
        }
        while all.join_next().await.is_some() {}
        std::mem::take(&mut *self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many operations ended so far.
    pub fn count(&self) -> usize {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// One order after the other.
    async fn orders(self, mut random: Random, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let order = Uuid::now_v7();
            let mut window = 0;
            let mut is_last = false;
            for burst in 0..self.options.bursts {
                let has_unknown = self.burst(order, window, burst, &mut random).await;
                if is_last || *stop.borrow() {
                    break;
                }
                // What is unknown may still happen: the next burst is of the same window.
                is_last = has_unknown;
                window += u32::from(!has_unknown);
            }
        }
    }

    /// Whether an outcome is unknown.
    async fn burst(&self, order: Uuid, window: u32, burst: u32, random: &mut Random) -> bool {
        let mut callers = JoinSet::new();
        for caller in 0..self.options.callers {
            let mut random = Random(random.next());
            let this = self.clone();
            let opens = burst == 0 && caller == 0;
            let ends = burst + 1 == self.options.bursts && caller == 0;
            callers.spawn(async move {
                let mut has_unknown = false;
                for n in 0..this.options.operations {
                    let op = match n {
                        0 if opens => Op::Create,
                        1 if ends => Op::Cancel,
                        _ => any(&mut random),
                    };
                    let at = At { order, window, caller };
                    has_unknown |= this.operation(at, op, &mut random).await;
                    sleep(this.options.think).await;
                }
                has_unknown
            });
        }
        callers.join_all().await.into_iter().any(|has_unknown| has_unknown)
    }

    /// Does one operation and notes it; whether its outcome is unknown.
    async fn operation(&self, at: At, op: Op, random: &mut Random) -> bool {
        let is_read = op == Op::Get;
        let request = if is_read { Uuid::nil() } else { Uuid::now_v7() };
        // Some callers lose their patience, as some do.
        let is_impatient = random.below(1_000) < u64::from(self.options.impatient);
        let patience = if is_impatient { Duration::ZERO } else { self.options.patience };
        let give_up = Instant::now() + patience;
        let mut node = usize::try_from(random.below(self.nodes.len() as u64)).unwrap_or(0);
        let mut invoked = self.diary.now();
        let mut attempts = 0;
        let (outcome, returned) = loop {
            attempts += 1;
            let answer = attempt(self.nodes[node].clone(), at.order, request, &op).await;
            let now = self.diary.now();
            match judge(answer) {
                Ok(outcome) => break (outcome, Some(now)),
                Err(status) if Instant::now() >= give_up => break (Outcome::Unknown(status), None),
                Err(_) => {
                    node = (node + 1) % self.nodes.len();
                    if (attempts as usize).is_multiple_of(self.nodes.len()) {
                        sleep(PAUSE).await;
                    }
                    if is_read {
                        invoked = self.diary.now();
                    }
                }
            }
        };
        let is_unknown = matches!(outcome, Outcome::Unknown(_));
        if is_read && is_unknown {
            // It had no effect and saw nothing.
            return false;
        }
        let At { order, window, caller } = at;
        let call = Call { order, window, caller, request, op, invoked, returned, outcome, node, attempts };
        self.diary.note("call", &call);
        self.history.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        is_unknown
    }
}

/// Where in the history.
#[derive(Clone, Copy)]
struct At {
    order: Uuid,
    window: u32,
    caller: u32,
}

fn client(address: SocketAddr) -> Result<OrderServiceClient<Channel>, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT)
        .timeout(ATTEMPT)
        .tcp_nodelay(true)
        // A connection into a black hole is given up.
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2));
    Ok(OrderServiceClient::new(endpoint.connect_lazy()))
}

fn any(random: &mut Random) -> Op {
    let sku = Crowd::sku(u32::try_from(random.below(SKUS)).unwrap_or(0));
    match random.below(10) {
        0..=3 => Op::Add { sku, units: 1 + random.below(1_000).cast_signed() },
        4 => Op::Remove { sku },
        _ => Op::Get,
    }
}

/// A version of an order, and whether it was read as it was to be.
async fn attempt(
    mut orders: OrderServiceClient<Channel>,
    order: Uuid,
    request: Uuid,
    op: &Op,
) -> Result<(Option<Order>, bool), Status> {
    let (order_id, request_id) = (order.to_string(), request.to_string());
    let command = |order| (order, true);
    match op {
        Op::Create => {
            let create = CreateOrder { customer_id: regular(0).0.to_string(), order_id, currency: "EUR".into() };
            let request = CreateOrderRequest { request_id, command: Some(create) };
            orders.create_order(request).await.map(|answer| command(answer.into_inner().order))
        }
        Op::Add { sku, units } => {
            let add = AddItem { order_id, sku: sku.clone(), quantity: *units };
            let request = AddItemRequest { request_id, command: Some(add) };
            orders.add_item(request).await.map(|answer| command(answer.into_inner().order))
        }
        Op::Remove { sku } => {
            let remove = RemoveItem { order_id, sku: sku.clone() };
            let request = RemoveItemRequest { request_id, command: Some(remove) };
            orders.remove_item(request).await.map(|answer| command(answer.into_inner().order))
        }
        Op::Cancel => {
            let cancel = CancelOrder { order_id, reason: "enough".into() };
            let request = CancelOrderRequest { request_id, command: Some(cancel) };
            orders.cancel_order(request).await.map(|answer| command(answer.into_inner().order))
        }
        Op::Get => {
            let request = GetOrderRequest { order_id, consistency: Consistency::Strong.into(), min_version: 0 };
            let answer = orders.get_order(request).await?.into_inner();
            let is_strong = answer.read.is_some_and(|read| read.consistency() == Consistency::Strong);
            Ok((answer.order, is_strong))
        }
    }
}

/// What an attempt came to; an error if it says nothing about the order.
fn judge(answer: Result<(Option<Order>, bool), Status>) -> Result<Outcome, String> {
    match answer {
        Ok((_, false)) => Ok(Outcome::Wrong("a STRONG read that was answered otherwise".into())),
        Ok((None, true)) => Ok(Outcome::Wrong("an answer without an order".into())),
        Ok((Some(order), true)) => Ok(Outcome::Seen(Seen::of(&order))),
        Err(status) => {
            let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
            match status.code() {
                Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => Ok(Outcome::Rejected(reason)),
                Code::InvalidArgument | Code::Unknown | Code::Internal | Code::Unimplemented if !reason.is_empty() => {
                    Ok(Outcome::Wrong(format!("{:?} {reason}: {}", status.code(), status.message())))
                }
                // None of these codes says whether the call took effect. The transport's own have no reason.
                code => Err(format!("{code:?} {reason} {}", status.message())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_about_the_order_is_no_outcome() {
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::ResourceExhausted]
        {
            assert!(judge(Err(Status::new(code, "transport error"))).is_err(), "{code:?}");
        }
        let rejected = judge(Err(Status::new(Code::FailedPrecondition, "no")));
        assert_eq!(rejected, Ok(Outcome::Rejected(String::new())));
        assert!(matches!(judge(Ok((Some(Order::default()), false))), Ok(Outcome::Wrong(_))));
        assert!(matches!(judge(Ok((Some(Order::default()), true))), Ok(Outcome::Seen(_))));
    }
}
