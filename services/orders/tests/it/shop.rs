//! The whole context behind a real gRPC port: a node on the in-memory log, over a store in memory or on a
//! real Postgres.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    AggregateId, Timestamp,
    codec::LookupFailed,
    envelope::EnvelopeOut,
    port::store::{Store, StoreError},
};
use holdfast_money::{Currency, Money};
use holdfast_orders::{
    app,
    customers::{CustomerSource, Question},
    grpc,
    prices::{Keep, PriceSource, StaticPrices},
    queries::{self, Listed, Page, Queries},
};
use holdfast_orders_domain::{Account, Sku, Standing};
use holdfast_platform::{Health, Shutdown, grpc::Server};
use holdfast_postgres::{Config as PgConfig, PgStore, Role, migrate};
use holdfast_proto::{
    inventory::v1::{ReservationRefused, StockReserved},
    orders::v1::{self, order_service_client::OrderServiceClient},
};
use holdfast_runtime::{Config, Node, Ports, SystemClock, telemetry::NoTrace};
use holdfast_stack::{Stack, StackOptions};
use holdfast_testkit::{MemoryGroup, MemoryLog, MemoryPublisher, MemoryStore};
use prost::Name;
use tokio::{net::TcpListener, sync::OnceCell, task::JoinHandle};
use tonic::transport::Channel;
use uuid::Uuid;

pub const PARTITIONS: u32 = 4;

/// A running shop. Stops when dropped.
pub struct Shop {
    pub client: OrderServiceClient<Channel>,
    pub log: MemoryLog,
    pub prices: Inventory,
    pub customers: Registry,
    pub node: Arc<Node>,
    /// Where `Shop::on_postgres` keeps its orders.
    postgres: Option<Arc<PgStore>>,
    /// Where `Shop::in_memory` does.
    pub memory: MemoryStore,
    server: JoinHandle<()>,
}

/// Prices of `A` (12.50 EUR), `B` (6.50 EUR), `DEAR` (the most there is) and `U` (1.00 USD), or nothing at
/// all while it is away.
#[derive(Clone)]
pub struct Inventory {
    prices: Arc<StaticPrices>,
    pub away: Arc<AtomicBool>,
}

impl Inventory {
    fn new() -> Self {
        let sku = |text: &str| Sku::new(text).unwrap();
        let prices = StaticPrices::of([
            (sku("A"), Money::new(1_250, Currency::EUR)),
            (sku("B"), Money::new(650, Currency::EUR)),
            (sku("DEAR"), Money::new(i64::MAX, Currency::EUR)),
            (sku("U"), Money::new(100, Currency::from_code("USD").unwrap())),
        ]);
        Self { prices: Arc::new(prices), away: Arc::default() }
    }
}

#[async_trait]
impl PriceSource for Inventory {
    async fn prices(&self, skus: &[Sku]) -> Result<Vec<Result<Option<Money>, LookupFailed>>, LookupFailed> {
        if self.away.load(Ordering::SeqCst) {
            return Err(LookupFailed("away".into()));
        }
        let generic = skus.iter().map(|sku| sku.as_str().starts_with("SKU-").then(|| Money::new(100, Currency::EUR)));
        let known = self.prices.prices(skus).await?;
        Ok(known.into_iter().zip(generic).map(|(known, generic)| known.map(|known| known.or(generic))).collect())
    }
}

/// Customers whose ids begin with `dead` are unknown, those with `0bad` are suspended; all others may order,
/// and have every address but those that begin with `dead`. Or nobody is known to anybody, while it is away.
#[derive(Clone, Default)]
pub struct Registry {
    pub away: Arc<AtomicBool>,
}

impl Registry {
    fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl CustomerSource for Registry {
    async fn standings(&self, questions: &[Question]) -> Result<Vec<Result<Standing, LookupFailed>>, LookupFailed> {
        if self.away.load(Ordering::SeqCst) {
            return Err(LookupFailed("away".into()));
        }
        let answer = |question: &Question| Standing {
            customer: question.customer,
            account: match question.customer.as_bytes() {
                [0xde, 0xad, ..] => Account::Unknown,
                [0x0b, 0xad, ..] => Account::NotActive,
                _ => Account::Active,
            },
            has_address: question.address.is_some_and(|address| !address.as_bytes().starts_with(&[0xde, 0xad])),
        };
        Ok(questions.iter().map(answer).map(Ok).collect())
    }
}

impl Shop {
    pub async fn in_memory() -> Self {
        let memory = MemoryStore::new();
        let queries = Arc::new(InMemory(memory.node()));
        Self::open(log(), Arc::new(memory.node()), queries, memory.node(), None).await
    }

    /// Has the node of [`Self::in_memory`] leave, and starts another, which has nothing in memory.
    pub async fn restart(&mut self) {
        self.node.stop().await;
        let queries = Arc::new(InMemory(self.memory.node()));
        let (store, memory) = (Arc::new(self.memory.node()), self.memory.node());
        *self = Self::open(self.log.clone(), store, queries, memory, None).await;
    }

    pub async fn on_postgres() -> Self {
        let store = store().await;
        Self::open(log(), store.clone(), store.clone(), MemoryStore::new(), Some(store)).await
    }

    async fn open(
        log: MemoryLog,
        store: Arc<dyn Store>,
        queries: Arc<dyn Queries>,
        memory: MemoryStore,
        postgres: Option<Arc<PgStore>>,
    ) -> Self {
        let prices = Inventory::new();
        let ports = Ports {
            log: Arc::new(log.node()),
            membership: Arc::new(MemoryGroup::new(PARTITIONS).join()),
            publishers: Arc::new(MemoryPublisher::new(log.node())),
            store,
            clock: Arc::new(SystemClock),
            trace: Arc::new(NoTrace),
        };
        // Nothing is remembered, so that a test may take inventory away from one call to the next.
        let keep = Keep { known: Duration::ZERO, unknown: Duration::ZERO, ..Keep::default() };
        let customers = Registry::new();
        let context = app::context_keeping(prices.clone(), keep, customers.clone());
        let node = Node::start(context, Config::default(), ports).await.expect("starts");
        let all = || async { node.owned_partitions() == PARTITIONS as usize };
        eventually("all partitions owned", all).await;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::new();
        let shutdown = Shutdown::new(health.clone());
        let server = grpc::register(Server::new(health), node.clone(), queries);
        let server = tokio::spawn(async move { server.serve(listener, &shutdown).await.expect("serves") });
        let client = OrderServiceClient::connect(format!("http://{address}")).await.expect("connects");
        Self { client, log, prices, customers, node, postgres, memory, server }
    }

    /// The database of [`Self::on_postgres`].
    pub fn postgres(&self) -> &PgStore {
        self.postgres.as_ref().expect("on Postgres")
    }

    /// Sends a message of another context through the log.
    fn tell<M: Name>(&self, key: &str, sequence: u64, body: &M) {
        self.append("inventory.events", key, Some(sequence), body);
    }

    /// Sends a command through the log.
    pub fn send<M: Name>(&self, key: &str, body: &M) {
        self.append("orders.commands", key, None, body);
    }

    fn append<M: Name>(&self, topic: &str, key: &str, sequence: Option<u64>, body: &M) {
        let source = if topic == "inventory.events" { "holdfast/inventory/reservation" } else { "test" };
        let headers = EnvelopeOut {
            sequence,
            ..EnvelopeOut::new(Uuid::now_v7(), source, &M::full_name(), Timestamp::from_unix_ms(0), key)
        }
        .headers();
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(body.encode_to_vec()));
        self.log.append(topic, None, Some(key), headers, Some(value)).expect("the topic exists");
    }

    /// Inventory says that it holds the order's stock.
    pub fn reserve(&self, order_id: &str) {
        let expires_at = Some(holdfast_proto::time::from_unix_ms(4_000_000_000_000));
        self.tell(order_id, 1, &StockReserved { order_id: order_id.into(), expires_at, ..StockReserved::default() });
    }

    /// Inventory says that it can't hold the order's stock.
    pub fn refuse(&self, order_id: &str) {
        self.tell(order_id, 1, &ReservationRefused { order_id: order_id.into(), ..ReservationRefused::default() });
    }

    /// A new draft of a new customer, in euro.
    pub async fn draft(&mut self) -> String {
        let order_id = id();
        self.create(&order_id, &id()).await.expect("created");
        order_id
    }

    pub async fn create(&mut self, order_id: &str, customer_id: &str) -> Result<v1::Order, tonic::Status> {
        let (order_id, customer_id) = (order_id.into(), customer_id.into());
        let command = v1::CreateOrder { order_id, customer_id, currency: "EUR".into() };
        let request = v1::CreateOrderRequest { request_id: id(), command: Some(command) };
        Ok(self.client.create_order(request).await?.into_inner().order.expect("an order"))
    }

    pub async fn add(&mut self, order_id: &str, sku: &str, quantity: i64) -> Result<v1::Order, tonic::Status> {
        let command = v1::AddItem { order_id: order_id.into(), sku: sku.into(), quantity };
        let request = v1::AddItemRequest { request_id: id(), command: Some(command) };
        Ok(self.client.add_item(request).await?.into_inner().order.expect("an order"))
    }

    pub async fn remove(&mut self, order_id: &str, sku: &str) -> Result<v1::Order, tonic::Status> {
        let command = v1::RemoveItem { order_id: order_id.into(), sku: sku.into() };
        let request = v1::RemoveItemRequest { request_id: id(), command: Some(command) };
        Ok(self.client.remove_item(request).await?.into_inner().order.expect("an order"))
    }

    pub async fn place(&mut self, order_id: &str) -> Result<v1::Order, tonic::Status> {
        self.place_with(order_id, "pm_1", &id()).await
    }

    pub async fn place_with(&mut self, order_id: &str, token: &str, to: &str) -> Result<v1::Order, tonic::Status> {
        let (payment_method, address_id) = (token.to_owned(), to.to_owned());
        let command = v1::PlaceOrder { order_id: order_id.into(), payment_method, address_id };
        let request = v1::PlaceOrderRequest { request_id: id(), command: Some(command) };
        Ok(self.client.place_order(request).await?.into_inner().order.expect("an order"))
    }

    pub async fn cancel(&mut self, order_id: &str) -> Result<v1::Order, tonic::Status> {
        let command = v1::CancelOrder { order_id: order_id.into(), reason: "changed my mind".into() };
        let request = v1::CancelOrderRequest { request_id: id(), command: Some(command) };
        Ok(self.client.cancel_order(request).await?.into_inner().order.expect("an order"))
    }

    pub async fn get(&mut self, order_id: &str) -> Result<v1::GetOrderResponse, tonic::Status> {
        let request = v1::GetOrderRequest { order_id: order_id.into(), ..v1::GetOrderRequest::default() };
        Ok(self.client.get_order(request).await?.into_inner())
    }
}

/// A log with the topics of orders and inventory.
fn log() -> MemoryLog {
    let log = MemoryLog::new();
    for topic in ["orders.commands", "orders.events", "orders.dlq", "inventory.events"] {
        log.create_topic(topic, PARTITIONS);
    }
    log
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.server.abort();
        self.node.kill();
    }
}

/// A new id.
pub fn id() -> String {
    Uuid::now_v7().to_string()
}

/// Waits until `condition` holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap_or_else(|_| panic!("not within a minute: {what}"));
}

/// A schema of its own on the one embedded Postgres of all these tests.
async fn store() -> Arc<PgStore> {
    static SERVER: OnceCell<Stack> = OnceCell::const_new();
    let start = || Stack::start(StackOptions { kafka: false, ..StackOptions::default() });
    let stack = SERVER.get_or_try_init(start).await.expect("the embedded Postgres starts");
    let url = stack.postgres_url("postgres");
    let schema = format!("orders_{}", Uuid::new_v4().simple());
    let role = Role { name: schema.clone(), password: None };
    migrate(&url, &schema, Some(&role), app::MIGRATIONS).await.expect("migrated");
    let config = PgConfig::new(url, &schema).with_role(&schema).with_views(app::VIEWS.iter().copied());
    Arc::new(PgStore::connect(config).await.expect("connected"))
}

/// The questions, answered from the store in memory.
struct InMemory(MemoryStore);

impl InMemory {
    fn order(&self, order_id: Uuid) -> Result<Option<v1::Order>, StoreError> {
        let key = order_id.to_string();
        match self.0.state(&AggregateId { kind: "order", key: key.as_str().into() }) {
            None => Ok(None),
            Some(row) => queries::stored(&key, row.version, row.schema, &row.bytes),
        }
    }
}

#[async_trait]
impl Queries for InMemory {
    async fn by_ids(&self, ids: &[Uuid]) -> Result<Vec<v1::Order>, StoreError> {
        ids.iter().filter_map(|id| self.order(*id).transpose()).collect()
    }

    async fn page(&self, _: &Page) -> Result<Vec<Listed>, StoreError> {
        Err(StoreError::Unavailable("only a real database has lists".into()))
    }

    async fn newer(&self, known: &[(Uuid, u64)]) -> Result<Vec<v1::Order>, StoreError> {
        if self.0.contents().pools.contains_key("down") {
            return Err(StoreError::Unavailable("down".into()));
        }
        let orders = known.iter().map(|(id, version)| Ok(self.order(*id)?.filter(|order| order.version > *version)));
        orders.filter_map(Result::transpose).collect()
    }
}
