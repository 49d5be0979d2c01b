//! `holdfast load hops`: what a strong read costs at its owner, and what it costs through another node,
//! beside a plain echo of the same run.
//!
//! Two whole nodes in this process, on a real Kafka and a real Postgres, each with a gRPC port of its own;
//! every call crosses a loopback socket, the forwarded ones two. The echo is tonic and nothing else: none of
//! this project's layers. The three take turns, so that whatever else the machine does falls on all alike.
//! Deliberately absent: a verdict; a machine that is shared measures its neighbours.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_load_tests::work::regular;
use holdfast_platform::{Config, Context, Health, Shutdown, metrics::Metrics};
use holdfast_proto::{
    inventory::v1::{
        CatalogServiceGetStockRequest, CatalogServiceGetStockResponse, GetPricesRequest, GetPricesResponse, SkuPrice,
        catalog_service_client::CatalogServiceClient,
        catalog_service_server::{CatalogService, CatalogServiceServer},
    },
    orders::v1::{CreateOrder, CreateOrderRequest, GetOrderRequest, order_service_client::OrderServiceClient},
};
use holdfast_runtime::{Consistency, Router as _};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, transport::Endpoint};
use uuid::Uuid;

use crate::{
    compose::{self, App, Listeners, Parts},
    failure::Failure,
    infrastructure::Infrastructure,
    people,
    verbs::serve::Process,
};

/// Orders are what is read; an order is opened for a customer.
const CONTEXTS: [Context; 2] = [Context::Orders, Context::Customers];
/// What an order is called in storage.
const KIND: &str = "order";
/// Orders that are read in turn.
const ORDERS: usize = 200;
/// Calls of one kind before the next one's turn.
const TURN: usize = 250;
/// Calls in flight, in one run after the other.
const IN_FLIGHT: [usize; 2] = [1, 16];
const PATIENCE: Duration = Duration::from_mins(1);

/// Measures `calls` calls of each kind, for each number of calls in flight.
pub async fn run(mut config: Config, calls: usize, json: bool) -> Result<u8, Failure> {
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
                let lines = measure(first, &second, calls).await;
                shutdown.stopping().cancel();
                second.stop().await;
                lines
            })
            .await
    }
    .await;
    at.stop().await?;
    let (exit, Some(lines)) = result? else {
        eprintln!("stopped before the end");
        return Ok(130);
    };
    if json {
        for line in &lines {
            println!("{}", line.json());
        }
    } else {
        println!("{}", table(&lines));
    }
    Ok(exit)
}

async fn second(config: &Config, at: &Infrastructure, shutdown: &Shutdown) -> Result<App, Failure> {
    let (metrics, _) = Metrics::detached().context("metrics").map_err(Failure::Check)?;
    let listeners = Listeners::ephemeral().await?;
    let parts = Parts { metrics, health: Health::new(), shutdown: shutdown.clone(), listeners, wrap: |_, ports| ports };
    App::start(config, at, &CONTEXTS, parts).await
}

/// One measured kind of call.
struct Line {
    what: &'static str,
    in_flight: usize,
    /// Microseconds, sorted.
    took: Vec<u128>,
    /// The echo's of the same run.
    echo: [u128; 2],
}

impl Line {
    /// In microseconds.
    fn percentile(&self, percent: usize) -> u128 {
        let at = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        self.took.get(at).copied().unwrap_or_default()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "call": self.what, "in_flight": self.in_flight, "calls": self.took.len(),
            "p50_us": self.percentile(50), "p99_us": self.percentile(99),
            "echo_p50_us": self.echo[0], "echo_p99_us": self.echo[1],
        })
    }
}

async fn measure(first: &App, second: &App, calls: usize) -> Result<Vec<Line>, Failure> {
    let failed = |error: anyhow::Error| Failure::Check(error);
    let give_up = Instant::now() + PATIENCE;
    let node = |app: &App| app.nodes.first().cloned().ok_or_else(|| failed(anyhow::anyhow!("no node")));
    let (here, there) = (node(first)?, node(second)?);
    while here.owned_partitions() == 0
        || there.owned_partitions() == 0
        || here.owned_partitions() + there.owned_partitions() < here.partition_count() as usize
    {
        if Instant::now() > give_up {
            return Err(failed(anyhow::anyhow!("the two nodes have not shared the partitions within a minute")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let echo = Echo::serve().await.map_err(|error| failed(error.into()))?;
    let channel = |address: SocketAddr| {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| failed(error.into()))?;
        Ok::<_, Failure>(endpoint.connect_lazy())
    };
    let (orders, catalog) =
        (OrderServiceClient::new(channel(first.grpc)?), CatalogServiceClient::new(channel(echo.0)?));

    let customer = regular(0);
    let customers = people::customers(&format!("http://{}", first.grpc)).map_err(|error| failed(error.into()))?;
    people::register(&customers, [customer]).await.map_err(|error| failed(error.into()))?;
    let customer_id = customer.0.to_string();
    let (mut owned, mut foreign) = (Vec::new(), Vec::new());
    while owned.len() < ORDERS || foreign.len() < ORDERS {
        let order_id = Uuid::now_v7().to_string();
        let command =
            CreateOrder { order_id: order_id.clone(), customer_id: customer_id.clone(), currency: "EUR".to_owned() };
        let request = CreateOrderRequest { request_id: order_id.clone(), command: Some(command) };
        orders.clone().create_order(request).await.map_err(|error| failed(error.into()))?;
        let is_here = here.read(KIND, &order_id, Consistency::Strong, 0).await.is_ok();
        if is_here { owned.push(order_id) } else { foreign.push(order_id) }
    }
    let get = |order_id: String| {
        let (mut orders, request) = (orders.clone(), GetOrderRequest { order_id, ..GetOrderRequest::default() });
        async move { orders.get_order(request).await.map(drop) }
    };
    let ask = |order_id: String| {
        let mut catalog = catalog.clone();
        async move { catalog.get_prices(GetPricesRequest { skus: vec![order_id] }).await.map(drop) }
    };
    let mut lines = Vec::new();
    for in_flight in IN_FLIGHT {
        let mut took = [Vec::new(), Vec::new(), Vec::new()];
        // The first turn of each warms up.
        for turn in 0..=calls.div_ceil(TURN) {
            let turns = [
                many(in_flight, &owned, &ask).await,
                many(in_flight, &owned, &get).await,
                many(in_flight, &foreign, &get).await,
            ];
            for (took, of_turn) in took.iter_mut().zip(turns) {
                let of_turn = of_turn.context("a call failed").map_err(failed)?;
                if turn > 0 {
                    took.extend(of_turn);
                }
            }
        }
        let names = ["plain tonic echo", "GetOrder at its owner", "GetOrder through another node"];
        let mut of_run: Vec<Line> = names
            .into_iter()
            .zip(took)
            .map(|(what, mut took)| {
                took.sort_unstable();
                Line { what, in_flight, took, echo: [0; 2] }
            })
            .collect();
        let echo = of_run.first().map(|echo| [echo.percentile(50), echo.percentile(99)]).unwrap_or_default();
        for line in &mut of_run {
            line.echo = echo;
        }
        lines.extend(of_run);
    }
    Ok(lines)
}

/// A turn: how long each call took, in microseconds.
async fn many<F>(in_flight: usize, keys: &[String], call: &impl Fn(String) -> F) -> Result<Vec<u128>, Status>
where
    F: Future<Output = Result<(), Status>>,
{
    let timed = |key: &String| {
        let call = call(key.clone());
        async move {
            let began = Instant::now();
            call.await?;
            Ok(began.elapsed().as_micros())
        }
    };
    let calls: Vec<_> = keys.iter().cycle().take(TURN).map(timed).collect();
    stream::iter(calls).buffer_unordered(in_flight).try_collect().await
}

#[allow(clippy::cast_precision_loss)]
fn table(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "in flight", "calls", "p50", "of the echo", "p99", "of the echo"]);
    let times = |value: u128, echo: u128| format!("{:.1} x", value as f64 / echo.max(1) as f64);
    for line in lines {
        let (p50, p99) = (line.percentile(50), line.percentile(99));
        let row = [
            line.what.to_owned(),
            line.in_flight.to_string(),
            line.took.len().to_string(),
            format!("{p50} µs"),
            times(p50, line.echo[0]),
            format!("{p99} µs"),
            times(p99, line.echo[1]),
        ];
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
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
