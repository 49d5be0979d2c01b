//! `holdfast load query`: what a strong read costs at its owner, hot and cold, and what it costs through
//! another node, beside a plain echo of the same run.
//!
//! Two whole nodes in this process, on a real Kafka and a real Postgres, each with a gRPC port of its own;
//! every call crosses a loopback socket, the forwarded ones two. The echo is tonic and nothing else: none of
//! this project's layers. A *cold* read is of an order that stands in the tables and that no node has in
//! memory; each such order is read once. The kinds of calls take turns, so that whatever else the machine
//! does falls on all alike. Deliberately absent: a verdict on a time; a machine that is shared measures its
//! neighbours.

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use holdfast_core::partition::{KeyHash, PartitionId};
use holdfast_load_tests::{
    checkers::{self, Schema, Target},
    findings::{Findings, Line, Plot, rounded, times},
    producer::Ledger,
    scenarios::seed::{self, Stored},
};
use holdfast_platform::{Config, Context, Health, Shutdown, metrics::Metrics};
use holdfast_proto::{
    inventory::v1::{
        CatalogServiceGetStockRequest, CatalogServiceGetStockResponse, GetPricesRequest, GetPricesResponse, SkuPrice,
        catalog_service_client::CatalogServiceClient,
        catalog_service_server::{CatalogService, CatalogServiceServer},
    },
    orders::v1::{GetOrderRequest, order_service_client::OrderServiceClient},
};
use holdfast_runtime::{Consistency, Router as _};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    cli::Load,
    compose::{self, App, Listeners, Parts},
    failure::Failure,
    infrastructure::Infrastructure,
    verbs::serve::Process,
};

/// Orders are what is read, and orders want to know where customers are.
const CONTEXTS: [Context; 2] = [Context::Orders, Context::Customers];
/// What an order is called in storage.
const KIND: &str = "order";
/// Live orders of either node, which are read in turn.
const ORDERS: usize = 200;
/// Calls of one kind before the next one's turn.
const TURN: usize = 250;
/// Calls in flight, in one run after the other.
const IN_FLIGHT: [usize; 2] = [1, 16];
const PATIENCE: Duration = Duration::from_mins(1);
/// What it asks.
pub(super) const QUESTION: &str = "What does a strong read cost? GetOrder at its owner, of a live actor and of one that has to be read \
                        from Postgres first, and through another node; beside a tonic server that only answers.";

/// Measures a tenth as many calls of each kind as commands are asked for, for each number of calls in flight.
pub(super) async fn run(mut config: Config, load: Load) -> Result<Findings, Failure> {
    let calls = usize::try_from(load.commands() / 10).unwrap_or(usize::MAX);
    crate::verbs::quiet(&mut config);
    let process = Process::begin(&config, &CONTEXTS)?;
    let at = Infrastructure::embedded(&config, None).await?;
    let result = async {
        compose::prepare(&config, &at, &CONTEXTS).await?;
        let listeners = Listeners::ephemeral().await?;
        process
            .run(&config, &at, &CONTEXTS, listeners, async |first| {
                let shutdown = Shutdown::new(Health::new());
                let second = second(&config, &at, &shutdown).await?;
                let found = Box::pin(found(&config, &at, first, &second, calls)).await;
                shutdown.stopping().cancel();
                second.stop().await;
                found
            })
            .await
    }
    .await;
    at.stop().await?;
    result?.1.ok_or(Failure::Stopped)
}

async fn found(
    config: &Config,
    at: &Infrastructure,
    first: &App,
    second: &App,
    calls: usize,
) -> Result<Findings, Failure> {
    let bench = Bench::prepare(config, at, first, second, calls).await?;
    let mut findings = bench.measure(calls).await?;
    bench.account(config, at, &mut findings).await?;
    Ok(findings)
}

async fn second(config: &Config, at: &Infrastructure, shutdown: &Shutdown) -> Result<App, Failure> {
    let (metrics, _) = Metrics::detached().context("metrics").map_err(Failure::Check)?;
    let listeners = Listeners::ephemeral().await?;
    let parts = Parts { metrics, health: Health::new(), shutdown: shutdown.clone(), listeners, wrap: |_, ports| ports };
    App::start(config, at, &CONTEXTS, parts).await
}

/// Everything that is called, and what for.
struct Bench {
    stored: Stored,
    url: String,
    orders: OrderServiceClient<Channel>,
    catalog: CatalogServiceClient<Channel>,
    /// Orders that are live at the node that is called.
    owned: Vec<String>,
    /// Orders that are live at the other.
    foreign: Vec<String>,
    /// Orders of the node that is called which nobody has read yet.
    cold: Vec<String>,
    _echo: Echo,
}

/// The kinds of calls, in the order in which they take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Echo,
    Hot,
    Hop,
    Cold,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Echo, Self::Hot, Self::Hop, Self::Cold];

    const fn name(self) -> &'static str {
        match self {
            Self::Echo => "plain tonic echo",
            Self::Hot => "hot, at its owner",
            Self::Hop => "hot, through another node",
            Self::Cold => "cold, at its owner",
        }
    }
}

/// The calls of one kind: how long they took, µs, and how many were answered wrongly.
struct Calls {
    took: Histogram<u64>,
    wrong: u64,
}

impl Calls {
    fn none() -> Self {
        Self { took: times(), wrong: 0 }
    }
}

/// Turns of one kind, the first of which warms up.
const fn turns(calls: usize) -> usize {
    calls.div_ceil(TURN) + 1
}

impl Bench {
    async fn prepare(
        config: &Config,
        at: &Infrastructure,
        first: &App,
        second: &App,
        calls: usize,
    ) -> Result<Self, Failure> {
        let give_up = Instant::now() + PATIENCE;
        let node = |app: &App| app.nodes.first().cloned().ok_or_else(|| Failure::Check(anyhow!("no node")));
        let (here, there) = (node(first)?, node(second)?);
        while here.owned_partitions() == 0
            || there.owned_partitions() == 0
            || here.owned_partitions() + there.owned_partitions() < here.partition_count() as usize
        {
            if Instant::now() > give_up {
                return Err(Failure::Check(anyhow!("the two nodes have not shared the partitions within a minute")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let echo = Echo::serve().await.context("the echo").map_err(Failure::Check)?;
        let (orders, catalog) =
            (OrderServiceClient::new(channel(first.grpc)?), CatalogServiceClient::new(channel(echo.0)?));

        let wanted = turns(calls) * TURN * IN_FLIGHT.len();
        let url = at.database_url(config, Context::Orders)?;
        let mut stored = Stored::new(77);
        // About half are at either node, and never all at one.
        let count = u32::try_from((wanted + 20 * ORDERS) * 3).unwrap_or(u32::MAX);
        stored.write(&url, count, |_| {}).await.context("storing orders").map_err(Failure::Check)?;
        let mut ids = stored.orders().map(|order| order.to_string());
        let (mut owned, mut foreign, mut homes) = (Vec::new(), Vec::new(), HashSet::new());
        let home = |key: &str| KeyHash::of(key.as_bytes()).home(here.partition_count());
        while owned.len() < ORDERS || foreign.len() < ORDERS {
            let key = ids.next().ok_or_else(|| Failure::Check(anyhow!("one node owns nearly all of the orders")))?;
            if here.read(KIND, &key, Consistency::Strong, 0).await.is_ok() {
                homes.insert(home(&key));
                owned.push(key);
            } else {
                foreign.push(key);
            }
        }
        let is_here = |key: &String| homes.contains::<PartitionId>(&home(key));
        let cold: Vec<String> = ids.filter(is_here).take(wanted).collect();
        if cold.len() < wanted {
            return Err(Failure::Check(anyhow!(
                "{} cold orders are at the first node, {wanted} are needed",
                cold.len()
            )));
        }
        Ok(Self { stored, url, orders, catalog, owned, foreign, cold, _echo: echo })
    }

    async fn measure(&self, calls: usize) -> Result<Findings, Failure> {
        let mut findings = Findings::of("query", QUESTION).set_up("calls of each kind", calls);
        let mut cold = self.cold.chunks(TURN);
        let mut wrong = 0;
        for in_flight in IN_FLIGHT {
            let mut found = Kind::ALL.map(|kind| (kind, Calls::none()));
            for turn in 0..turns(calls) {
                for (kind, calls) in &mut found {
                    let keys = match kind {
                        Kind::Echo | Kind::Hot => &self.owned,
                        Kind::Hop => &self.foreign,
                        Kind::Cold => cold.next().unwrap_or_default(),
                    };
                    let of_turn = self.turn(*kind, in_flight, keys).await.context("a call failed");
                    for (took_us, is_right) in of_turn.map_err(Failure::Check)? {
                        calls.wrong += u64::from(!is_right);
                        if turn > 0 {
                            calls.took.saturating_record(took_us);
                        }
                    }
                }
            }
            note(&mut findings, in_flight, &found);
            wrong += found.iter().map(|(_, calls)| calls.wrong).sum::<u64>();
        }
        if wrong > 0 {
            findings.breaches.push(format!("I5 {wrong} reads were answered with another order, or another version"));
        }
        Ok(findings)
    }

    /// A turn: how long each call took, µs, and whether its answer was right.
    async fn turn(&self, kind: Kind, in_flight: usize, keys: &[String]) -> Result<Vec<(u64, bool)>, Status> {
        let timed = |key: &String| {
            let (key, mut orders, mut catalog) = (key.clone(), self.orders.clone(), self.catalog.clone());
            async move {
                let began = Instant::now();
                let is_right = if kind == Kind::Echo {
                    let answer = catalog.get_prices(GetPricesRequest { skus: vec![key] }).await?;
                    !answer.into_inner().prices.is_empty()
                } else {
                    let request = GetOrderRequest { order_id: key.clone(), ..GetOrderRequest::default() };
                    let answer = orders.get_order(request).await?.into_inner().order.unwrap_or_default();
                    answer.order_id == key && answer.version == seed::VERSION.unsigned_abs()
                };
                Ok((u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), is_right))
            }
        };
        let calls: Vec<_> = keys.iter().cycle().take(TURN).map(timed).collect();
        stream::iter(calls).buffer_unordered(in_flight).try_collect().await
    }

    /// Reading has changed nothing, and made no event.
    async fn account(&self, config: &Config, at: &Infrastructure, findings: &mut Findings) -> Result<(), Failure> {
        let role = at.role(config, Context::Orders);
        let orders = Schema { role, ..Schema::new(self.url.clone(), Context::Orders.as_str()) };
        let target = Target { orders, stood_at: seed::VERSION, ..Target::new(at.brokers(), &self.url) }.orders_only();
        let evidence = checkers::gather(&target).await.context("the account").map_err(Failure::Check)?;
        findings.breached(&checkers::audit(&Ledger::default(), &evidence));
        let untouched = self.stored.untouched(&self.url, 0).await.context("the account").map_err(Failure::Check)?;
        findings.breaches.extend(untouched);
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss)] // microseconds of a call
fn note(findings: &mut Findings, in_flight: usize, found: &[(Kind, Calls)]) {
    let figure = |name: &str| format!("{name}, {in_flight} in flight");
    for (kind, calls) in found {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            findings.figure(kind.name(), &figure(name), calls.took.value_at_quantile(quantile) as f64, "µs");
        }
    }
    for name in ["p50", "p99"] {
        let echo = findings.value(Kind::Echo.name(), &figure(name));
        for kind in &Kind::ALL[1..] {
            let ratio = rounded(findings.value(kind.name(), &figure(name)) / echo, 2);
            findings.figure(kind.name(), &format!("{}, of the echo's", figure(name)), ratio, "x");
        }
    }
    let lines = found.iter().map(|(kind, calls)| Line::of_latency(kind.name(), &calls.took)).collect();
    findings.plots.push(Plot::of_latency(format!("Latency of a call, {in_flight} in flight"), lines));
}

fn channel(address: SocketAddr) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).context("an address").map_err(Failure::Check)?;
    Ok(endpoint.connect_lazy())
}

/// Answers at once, with about as many bytes as an order has.
struct Echo(SocketAddr, #[expect(dead_code, reason = "held, not read")] AbortOnDropHandle<()>);

impl Echo {
    async fn serve() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = tonic::transport::Server::builder().add_service(CatalogServiceServer::new(Answering));
        let serving = tokio::spawn(async move {
            if let Err(error) = server.serve_with_incoming(incoming).await {
                eprintln!("the echo failed: {error}");
            }
        });
        Ok(Self(address, AbortOnDropHandle::new(serving)))
    }
}

struct Answering;

#[tonic::async_trait]
impl CatalogService for Answering {
    async fn get_prices(&self, request: Request<GetPricesRequest>) -> Result<Response<GetPricesResponse>, Status> {
        let one = |sku: String| SkuPrice { sku, ..SkuPrice::default() };
        let skus = request.into_inner().skus;
        let prices = skus.into_iter().flat_map(|sku| [one(sku.clone()), one(sku.clone()), one(sku)]).collect();
        Ok(Response::new(GetPricesResponse { prices, ..GetPricesResponse::default() }))
    }

    async fn get_stock(
        &self,
        _: Request<CatalogServiceGetStockRequest>,
    ) -> Result<Response<CatalogServiceGetStockResponse>, Status> {
        Err(Status::unimplemented("only prices are echoed"))
    }
}
