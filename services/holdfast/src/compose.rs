//! Puts a process together: for each context a store, a log, a node and its services; one gRPC port, one
//! operations port.
//!
//! Invariant: nothing here decides anything about orders or stock, or knows one context from another (see
//! [`crate::contexts`]).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use holdfast_adapter::peers::{self, PeerNodes};
use holdfast_kafka::{GroupProtocol, KafkaConfig, KafkaLog, KafkaMembership, KafkaPublishers, admin};
use holdfast_platform::{
    Config, Context, Health, Shutdown, config, grpc::Server, health, http, metrics::Metrics, telemetry::OtelLink,
};
use holdfast_postgres::{MigrateError, PgStore, Role};
use holdfast_runtime::{Local, Node, Ports, Routed, Router, SystemClock, routing, telemetry::TraceLink};
use tokio::net::TcpListener;
use tracing::Span;

use crate::{
    address, admin as operators, contexts,
    failure::Failure,
    infrastructure::{CONTEXTS, Infrastructure},
    loops,
};

/// The runtime's view of OpenTelemetry.
struct Tracing;

impl TraceLink for Tracing {
    fn parent(&self, span: &Span, traceparent: &str, tracestate: Option<&str>) {
        OtelLink::parent(span, traceparent, tracestate);
    }

    fn context(&self, span: &Span) -> Option<(String, Option<String>)> {
        if span.is_disabled() { None } else { OtelLink::current(span) }
    }
}

/// The listening sockets of a process, bound before anything else so that a taken port is known at once.
pub struct Listeners {
    /// gRPC.
    pub grpc: TcpListener,
    /// Health and metrics.
    pub http: TcpListener,
    /// REST and pages, where the gateway is served.
    pub edge: Option<TcpListener>,
}

impl Listeners {
    /// As configured, for `contexts`.
    pub async fn bind(config: &Config, contexts: &[Context]) -> Result<Self, Failure> {
        let is_edge = contexts.contains(&Context::Gateway);
        let edge = if is_edge { Some(bind("gateway.listen", config.gateway.listen).await?) } else { None };
        Ok(Self {
            grpc: bind("grpc.listen", config.grpc_listen).await?,
            http: bind("http.listen", config.http_listen).await?,
            edge,
        })
    }

    /// Free ports on loopback, without the gateway's.
    pub async fn ephemeral() -> Result<Self, Failure> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self { grpc: bind("grpc.listen", any).await?, http: bind("http.listen", any).await?, edge: None })
    }

    /// Free ports on loopback, the gateway's too.
    pub async fn ephemeral_with_edge() -> Result<Self, Failure> {
        let edge = Some(bind("gateway.listen", SocketAddr::from(([127, 0, 0, 1], 0))).await?);
        Ok(Self { edge, ..Self::ephemeral().await? })
    }
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await;
    let advice =
        format!("cannot listen on {address} ({key}); free the port or set another, e.g. --set {key}=127.0.0.1:0");
    bound.context(advice).map_err(Failure::usage)
}

/// Replaces ports by others before a node starts, for tests that break something on purpose.
pub type Wrap = fn(Context, Ports) -> Ports;

/// What a process is made with.
pub struct Parts {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/health` shows.
    pub health: Health,
    /// When to leave.
    pub shutdown: Shutdown,
    /// The ports to serve.
    pub listeners: Listeners,
    /// The identity, outside of tests.
    pub wrap: Wrap,
}

/// What the contexts of a process have in common.
struct Sharing<'a> {
    wrap: Wrap,
    health: &'a Health,
    contexts: usize,
    /// Where the other nodes reach this one.
    address: String,
    peers: PeerNodes,
}

/// A running process.
pub struct App {
    /// One for each context that is served.
    pub nodes: Vec<Arc<Node>>,
    /// The contexts' stores, for checks.
    pub stores: BTreeMap<Context, Arc<PgStore>>,
    /// Where gRPC is.
    pub grpc: SocketAddr,
    /// Where health and metrics are.
    pub http: SocketAddr,
    /// Where REST and pages are, if the gateway is served.
    pub edge: Option<SocketAddr>,
    /// Around the nodes.
    routers: BTreeMap<Context, Arc<Routed>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// The gRPC port, and what tells it to stop.
    serving: Option<(tokio::task::JoinHandle<()>, Shutdown)>,
}

/// Of the port that anybody may reach. An order can be followed for so long at a time.
const EDGE_LIMITS: http::Limits = http::Limits {
    header: Duration::from_secs(5),
    connection: Duration::from_mins(10),
    grace: Duration::from_secs(5),
    write_stall: Duration::from_secs(30),
    connections_max: 2048,
};

/// For calls that are under way when the nodes have stopped: they have found another owner, or will not.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Brings the schema of `context` up to date.
pub async fn migrate(config: &Config, at: &Infrastructure, context: Context) -> Result<(), Failure> {
    let url = at.database_url(config, context)?;
    let role = at.role(config, context).map(|name| Role { name, password: None });
    let migrations = contexts::about(context).migrations;
    let done = holdfast_postgres::migrate(&url, context.as_str(), role.as_ref(), migrations).await;
    done.with_context(|| format!("schema {context} could not be brought up to date")).map_err(Failure::Unreachable)
}

/// Raises the format of the schema of `context` to this build's; returns whether it was lower.
pub async fn finish(config: &Config, at: &Infrastructure, context: Context) -> Result<bool, Failure> {
    let url = at.database_url(config, context)?;
    let role = at.role(config, context).map(|name| Role { name, password: None });
    match holdfast_postgres::finish(&url, context.as_str(), role.as_ref()).await {
        Err(error @ MigrateError::Nodes(_)) => Err(Failure::Check(anyhow::Error::new(error).context(context))),
        done => done
            .with_context(|| format!("the format of schema {context} could not be raised"))
            .map_err(Failure::Unreachable),
    }
}

/// Kafka's settings for `context`.
pub fn kafka(config: &Config, brokers: &str, context: Context) -> KafkaConfig {
    KafkaConfig {
        properties: config.kafka.properties.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        group_protocol: match config.kafka.group_protocol {
            config::GroupProtocol::Classic => GroupProtocol::Classic,
            config::GroupProtocol::Consumer => GroupProtocol::Consumer,
        },
        session_timeout: config.kafka.session_timeout,
        // Each context has a group of its own, so one name does for all.
        group_instance_id: config.kafka.group_instance_id.clone(),
        ..KafkaConfig::new(brokers, context.as_str())
    }
}

/// What it takes to have the topics of `contexts`.
pub async fn topics(
    config: &Config,
    brokers: &str,
    contexts: &[Context],
) -> Result<(admin::KafkaAdmin, Vec<admin::Step>), Failure> {
    let admin = admin::KafkaAdmin::new(&kafka(config, brokers, Context::Orders)).map_err(Failure::usage)?;
    let count = admin.broker_count().await.map_err(Failure::unreachable)?;
    let of = |context: Context| admin::TopicSpec::of_context(context.as_str(), config.partitions, count);
    let mut wanted: Vec<admin::TopicSpec> = contexts.iter().copied().flat_map(of).collect();
    // The topics of other contexts that they read have to be there, whichever process serves those contexts.
    for topic in contexts.iter().flat_map(|context| contexts::about(*context).follows) {
        if !wanted.iter().any(|spec| spec.name == **topic) {
            wanted.extend(CONTEXTS.into_iter().flat_map(of).filter(|spec| spec.name == **topic));
        }
    }
    let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let existing = admin.describe(&names).await.map_err(Failure::unreachable)?;
    let steps = admin::plan(&existing, &wanted);
    Ok((admin, steps))
}

/// The contexts that have topics there: a part of the shop may be all that is wanted. All, if none has any,
/// for who asks to say so.
pub async fn deployed(config: &Config, brokers: &str) -> Result<Vec<Context>, Failure> {
    let admin = admin::KafkaAdmin::new(&kafka(config, brokers, Context::Orders)).map_err(Failure::usage)?;
    let names: Vec<String> = CONTEXTS.iter().map(|context| format!("{context}.commands")).collect();
    let found = admin.describe(&names).await.map_err(Failure::unreachable)?;
    let is_there = |context: &Context| found.iter().any(|topic| topic.name == format!("{context}.commands"));
    let there: Vec<Context> = CONTEXTS.into_iter().filter(is_there).collect();
    Ok(if there.is_empty() { CONTEXTS.to_vec() } else { there })
}

/// Migrates and makes topics, as `dev` and `demo` do before they serve.
pub async fn prepare(config: &Config, at: &Infrastructure, contexts: &[Context]) -> Result<(), Failure> {
    for context in contexts {
        migrate(config, at, *context).await?;
    }
    let (admin, steps) = topics(config, at.brokers(), contexts).await?;
    admin.apply(&steps, false).await.map_err(Failure::unreachable)
}

/// The runtime's limits, from the configuration.
fn runtime_config(config: &Config, contexts: usize, address: String) -> holdfast_runtime::Config {
    let memory = usize::try_from(config.memory_budget_bytes).unwrap_or(usize::MAX) / contexts.max(1);
    let defaults = holdfast_runtime::Config::default();
    holdfast_runtime::Config {
        address,
        batch_items_max: config.batch_max,
        lanes: config.lanes,
        memory_bytes_max: memory,
        retry: holdfast_core::retry::RetryPolicy { budget: config.retry_budget, ..defaults.retry },
        lease: config.lease,
        producers_max_age: config.kafka.producers_max_age,
        passivate_after: config.passivation.idle,
        live_max: config.passivation.actors_max,
        ..defaults
    }
}

impl App {
    /// Starts `contexts`. Schemas and topics must be there.
    pub async fn start(
        config: &Config,
        at: &Infrastructure,
        contexts: &[Context],
        parts: Parts,
    ) -> Result<Self, Failure> {
        let Parts { metrics, health, shutdown, listeners, wrap } = parts;
        let grpc = listeners.grpc.local_addr().context("the gRPC socket has no address").map_err(Failure::Check)?;
        let http = listeners.http.local_addr().context("the HTTP socket has no address").map_err(Failure::Check)?;
        // Who owns no data is no node: there is nobody to find it.
        let is_node = contexts.iter().any(|context| context.owns_data());
        let address = if is_node { address::advertised(config, at.brokers(), grpc).await? } else { grpc.to_string() };
        let mut app = Self {
            nodes: Vec::new(),
            stores: BTreeMap::new(),
            grpc,
            http,
            edge: None,
            routers: BTreeMap::new(),
            tasks: Vec::new(),
            serving: None,
        };
        let mut server =
            Server::new(health.clone()).tls(config.tls.clone()).descriptors(holdfast_proto::FILE_DESCRIPTOR_SET);
        let peers = PeerNodes::new(config.tls.clone());
        let sharing = Sharing { wrap, health: &health, contexts: contexts.len(), address, peers };
        for context in contexts.iter().filter(|context| context.owns_data()) {
            server = match app.begin(config, at, *context, &sharing, server).await {
                Ok(server) => server,
                Err(failure) => {
                    app.stop().await;
                    return Err(failure);
                }
            };
        }
        let routers = app.routers.iter().map(|(context, router)| (*context, router.clone() as Arc<dyn Router>));
        server = operators::register(server, config.admin_token.clone(), routers.collect());
        let actors = app.routers.iter().map(|(context, router)| (context.as_str(), router.clone() as Arc<dyn Local>));
        server = peers::register(server, actors.collect(), peers::anybody);
        let health_of_edge = health.clone();
        let router = http::operations(health, metrics.clone()).merge(app.webhooks(config));
        let ending = shutdown.ending().clone();
        app.tasks.push(tokio::spawn(metrics.upkeep()));
        app.tasks.push(tokio::spawn(async move {
            if let Err(error) = http::serve(listeners.http, router, http::Limits::default(), ending).await {
                tracing::error!(%error, "the operations port failed");
            }
        }));
        if let Some(listener) = listeners.edge {
            app.open_edge(config, listener, &health_of_edge, &shutdown)?;
        }
        let stop = shutdown.clone();
        let serving = tokio::spawn(async move {
            if let Err(error) = server.serve(listeners.grpc, &shutdown).await {
                tracing::error!(%error, "the gRPC port failed");
                shutdown.begin();
            }
        });
        app.serving = Some((serving, stop));
        Ok(app)
    }

    /// Starts one context, and adds its services to `server`.
    async fn begin(
        &mut self,
        config: &Config,
        at: &Infrastructure,
        context: Context,
        sharing: &Sharing<'_>,
        server: Server,
    ) -> Result<Server, Failure> {
        let bounded = contexts::serving(config, context, self.grpc)?;
        let store = Arc::new(connect(config, at, context, contexts::about(context).views).await?);
        let ports = (sharing.wrap)(context, ports(config, at, context, store.clone())?);
        let limits = runtime_config(config, sharing.contexts, sharing.address.clone());
        let node = Node::start(bounded, limits, ports)
            .await
            .with_context(|| format!("{context} did not start"))
            .map_err(Failure::Unreachable)?;
        watch(sharing.health, context, &node, &store);
        let peers = sharing.peers.of(context.as_str());
        let router = Routed::new(node.clone(), peers, &sharing.address, routing::Limits::default());
        let server = contexts::services(server, context, &router, &store);
        self.routers.insert(context, router);
        self.tasks.push(tokio::spawn(maintain(context, store.clone())));
        self.nodes.push(node);
        self.stores.insert(context, store);
        Ok(server)
    }

    /// Opens the port for clients and people, in front of everything.
    fn open_edge(
        &mut self,
        config: &Config,
        listener: TcpListener,
        health: &Health,
        shutdown: &Shutdown,
    ) -> Result<(), Failure> {
        let address = listener.local_addr().context("the gateway's socket has no address").map_err(Failure::Check)?;
        let (router, identity) = contexts::edge(config, self.grpc)?;
        health.ready_when("gateway: issuer", move || {
            health::Verdict::when(identity.is_able(), "the issuer's keys could not be had yet")
        });
        let (stopping, failed) = (shutdown.stopping().clone(), shutdown.clone());
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = http::serve(listener, router, EDGE_LIMITS, stopping).await {
                tracing::error!(%error, "the gateway's port failed");
                failed.begin();
            }
        }));
        self.edge = Some(address);
        Ok(())
    }

    /// The webhook of the payment provider, if payments is served and a secret is configured that its reports
    /// are signed with.
    fn webhooks(&self, config: &Config) -> axum::Router {
        match (self.routers.get(&Context::Payments), &config.payments.webhook_secrets) {
            (Some(router), Some(secrets)) => {
                use holdfast_core::port::clock::Clock as _;
                let secrets = secrets.expose().split(',').map(str::to_owned).collect();
                holdfast_payments::webhook::routes(secrets, router.clone(), || SystemClock.now())
            }
            _ => axum::Router::new(),
        }
    }

    /// Waits until every partition has an owner in this process.
    pub async fn owned(&self) {
        for node in &self.nodes {
            while node.owned_partitions() < node.partition_count() as usize {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
    }

    /// Finishes what is in flight and releases the partitions.
    pub async fn stop(self) {
        let stops: Vec<_> = self
            .nodes
            .into_iter()
            .map(|node| {
                tokio::spawn(async move {
                    node.stop().await;
                })
            })
            .collect();
        for stop in stops {
            if let Err(error) = stop.await {
                tracing::error!(%error, "a context did not stop in good order");
            }
        }
        if let Some((mut serving, shutdown)) = self.serving {
            // A call for a home that this node has given up is answered by the home's new owner meanwhile.
            if shutdown.stopping().is_cancelled() && tokio::time::timeout(LAST_CALLS, &mut serving).await.is_err() {
                tracing::warn!("calls were cut that had not ended after the last partition was given up");
            }
            serving.abort();
        }
        for task in self.tasks {
            task.abort();
        }
    }
}

/// The store of `context`, for a verb that looks from outside.
pub async fn store(config: &Config, at: &Infrastructure, context: Context) -> Result<PgStore, Failure> {
    connect(config, at, context, &[]).await
}

/// How to reach the store of `context`.
pub fn database(config: &Config, at: &Infrastructure, context: Context) -> Result<holdfast_postgres::Config, Failure> {
    let settings = holdfast_postgres::Config::new(at.database_url(config, context)?, context.as_str());
    Ok(match at.role(config, context) {
        Some(role) => settings.with_role(role),
        None => settings,
    })
}

/// The store of `context`.
pub(crate) async fn connect(
    config: &Config,
    at: &Infrastructure,
    context: Context,
    views: &'static [holdfast_postgres::View],
) -> Result<PgStore, Failure> {
    let mut settings = database(config, at, context)?.with_views(views.iter().copied());
    settings.committers = config.lanes.max(1) + 1;
    PgStore::connect(settings).await.with_context(|| format!("the database of {context}")).map_err(Failure::Unreachable)
}

/// The real ports of `context`.
fn ports(config: &Config, at: &Infrastructure, context: Context, store: Arc<PgStore>) -> Result<Ports, Failure> {
    let kafka = kafka(config, at.brokers(), context);
    let membership = KafkaMembership::join(&kafka).map_err(Failure::usage)?;
    let log = KafkaLog::with_member(&kafka, &membership).map_err(Failure::usage)?;
    Ok(Ports {
        log: Arc::new(log),
        membership: Arc::new(membership),
        publishers: Arc::new(KafkaPublishers::new(&kafka).map_err(Failure::usage)?),
        store,
        clock: Arc::new(SystemClock),
        trace: Arc::new(Tracing),
    })
}

/// Readiness and liveness of one context.
fn watch(health: &Health, context: Context, node: &Arc<Node>, store: &Arc<PgStore>) {
    let (joined, live) = (node.clone(), node.clone());
    health.ready_when(format!("{context}: group"), move || {
        health::Verdict::when(joined.joined(), "has not joined the consumer group yet")
    });
    let history = node.clone();
    health.ready_when(format!("{context}: history"), move || match history.halt() {
        None => health::Verdict::Ok,
        Some(halt) => health::Verdict::Not(format!("halted, {halt}; see the runbook and `holdfast recover {context}`")),
    });
    let reachable = Arc::new(AtomicBool::new(true));
    let (seen, store) = (reachable.clone(), store.clone());
    health.ready_when(format!("{context}: database"), move || {
        health::Verdict::when(reachable.load(Ordering::Relaxed), "the database does not answer")
    });
    tokio::spawn(async move {
        loop {
            let answer = holdfast_core::port::store::Store::partitions(&*store).await;
            seen.store(answer.is_ok(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    });
    let lanes = node.clone();
    health.ready_when(format!("{context}: lanes"), move || loops::ready(&lanes.stalled()));
    health.live_when(format!("{context}: loop"), move || loops::live(&live.stalled()));
}

/// Makes and drops day tables, now and then.
async fn maintain(context: Context, store: Arc<PgStore>) {
    let mut tick = tokio::time::interval(Duration::from_mins(15));
    loop {
        tick.tick().await;
        match store.maintain(holdfast_postgres::Retention::default()).await {
            Ok(done) => {
                if !done.dropped.is_empty() {
                    tracing::info!(%context, dropped = ?done.dropped, "old tables dropped");
                }
                if !done.postponed.is_empty() {
                    tracing::warn!(%context, postponed = ?done.postponed, "maintenance was postponed in part; trying again later");
                }
            }
            Err(error) => tracing::warn!(%context, %error, "day tables could not be maintained; trying again later"),
        }
    }
}
