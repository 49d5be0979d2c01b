//! One node of fulfillment, its gRPC server, and a client of it.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use holdfast_core::{
    Record, Timestamp,
    codec::LookupFailed,
    envelope::EnvelopeOut,
    port::store::{Store, StoreError},
};
use holdfast_fulfillment::{
    addresses::{Addresses, Place},
    app,
    carrier::Simulated,
    grpc,
    queries::{self, Listed, Position, Queries},
};
use holdfast_fulfillment_domain::Address;
use holdfast_platform::{Health, Shutdown, errors, grpc::Server};
use holdfast_postgres::{Config as PgConfig, PgStore, Role, migrate};
use holdfast_proto::{
    customers::v1::CustomerErased,
    fulfillment::v1::{self, fulfillment_service_client::FulfillmentServiceClient},
};
use holdfast_runtime::{Config, Node, Ports, SystemClock, telemetry::NoTrace};
use holdfast_stack::{Stack, StackOptions};
use holdfast_testkit::{MemoryGroup, MemoryLog, MemoryPublisher, MemoryStore};
use prost::{Message as _, Name};
use tokio::{net::TcpListener, sync::OnceCell, task::JoinHandle};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

const PARTITIONS: u32 = 4;

/// In every part of every address that [`Customers`] knows.
pub const CANARY: &str = "canary-7f3";

/// A running node. Stops when dropped.
pub struct Shop {
    pub client: FulfillmentServiceClient<Channel>,
    pub log: MemoryLog,
    pub node: Arc<Node>,
    pub customers: Customers,
    /// Where `Shop::in_memory` keeps its shipments.
    pub memory: MemoryStore,
    server: JoinHandle<()>,
}

/// Everybody's address, except those of customers that were erased; or nothing at all while customers are
/// away.
#[derive(Clone, Default)]
pub struct Customers {
    pub away: Arc<AtomicBool>,
    pub erased: Arc<Mutex<HashSet<Uuid>>>,
}

/// A good address, with the canary in its every part.
pub fn address() -> Address {
    let word = |what: &str| format!("{CANARY}-{what}").into();
    Address {
        recipient: word("recipient"),
        lines: [word("line-1"), word("line-2")].into(),
        city: word("city"),
        postal_code: word("zip"),
        country: word("country"),
    }
}

#[async_trait]
impl Addresses for Customers {
    async fn addresses(&self, places: &[Place]) -> Result<Vec<Result<Option<Address>, LookupFailed>>, LookupFailed> {
        if self.away.load(Ordering::SeqCst) {
            return Err(LookupFailed("away".into()));
        }
        let erased = self.erased.lock().unwrap();
        Ok(places.iter().map(|place| (!erased.contains(&place.customer)).then(address)).map(Ok).collect())
    }
}

impl Shop {
    pub async fn in_memory() -> Self {
        let memory = MemoryStore::new();
        let queries = Arc::new(InMemory(memory.node()));
        Self::open(Arc::new(memory.node()), queries, memory).await
    }

    pub async fn on_postgres() -> (Self, Arc<PgStore>) {
        let store = store().await;
        (Self::open(store.clone(), store.clone(), MemoryStore::new()).await, store)
    }

    async fn open(store: Arc<dyn Store>, queries: Arc<dyn Queries>, memory: MemoryStore) -> Self {
        let log = MemoryLog::new();
        for topic in ["fulfillment.commands", "fulfillment.events", "fulfillment.dlq"].iter().chain(app::FOLLOWS) {
            log.create_topic(topic, PARTITIONS);
        }
        let customers = Customers::default();
        let ports = Ports {
            log: Arc::new(log.node()),
            membership: Arc::new(MemoryGroup::new(PARTITIONS).join()),
            publishers: Arc::new(MemoryPublisher::new(log.node())),
            store: store.clone(),
            clock: Arc::new(SystemClock),
            trace: Arc::new(NoTrace),
        };
        let context = app::context(customers.clone(), Simulated);
        let node = Node::start(context, Config::default(), ports).await.unwrap();
        eventually("all partitions owned", || node.owned_partitions() == PARTITIONS as usize).await;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::new();
        let shutdown = Shutdown::new(health.clone());
        let server = grpc::register(Server::new(health), node.clone(), store, queries);
        let server = tokio::spawn(async move { server.serve(listener, &shutdown).await.unwrap() });
        let client = FulfillmentServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self { client, log, node, customers, memory, server }
    }

    fn append(&self, topic: &str, r#type: &str, key: &str, sequence: Option<u64>, body: Vec<u8>) {
        let source = match topic.strip_suffix(".events") {
            Some(context) => format!("holdfast/{context}/test"),
            None => "test".to_owned(),
        };
        let headers = EnvelopeOut {
            sequence,
            ..EnvelopeOut::new(Uuid::now_v7(), &source, r#type, Timestamp::from_unix_ms(0), key)
        };
        self.log.append(topic, None, Some(key.to_owned().into()), headers.headers(), Some(body.into())).unwrap();
    }

    /// Sends a command through the log.
    pub fn send<M: Name>(&self, key: &str, body: &M) {
        self.append("fulfillment.commands", &M::full_name(), key, None, body.encode_to_vec());
    }

    /// Says that an order was paid: what is written here is the whole contract with orders.
    pub fn pay(&self, order_id: &str, sequence: u64, customer_id: &str, address_id: &str) {
        let line = holdfast_proto::orders::v1::OrderLine { sku: "A".into(), quantity: 2, ..Default::default() };
        let paid = Paid {
            order_id: order_id.into(),
            occurred_at: Some(holdfast_proto::time::from_unix_ms(1)),
            customer_id: customer_id.into(),
            address_id: address_id.into(),
            lines: vec![line],
            payment_id: id(),
        };
        self.append("orders.events", "holdfast.orders.v1.OrderPaid", order_id, Some(sequence), paid.encode_to_vec());
    }

    /// Says something else of an order that holds its id alone, as far as it matters here.
    pub fn order_says(&self, event: &str, order_id: &str, sequence: u64) {
        let body = OrderId { order_id: order_id.into() }.encode_to_vec();
        self.append("orders.events", &format!("holdfast.orders.v1.{event}"), order_id, Some(sequence), body);
    }

    /// Says that an order's stock is its for good.
    pub fn confirm(&self, order_id: &str) {
        let body = OrderId { order_id: order_id.into() }.encode_to_vec();
        self.append("inventory.events", "holdfast.inventory.v1.ReservationConfirmed", order_id, Some(2), body);
    }

    /// Says that a customer was erased, and has it so.
    pub fn erase(&self, customer_id: &str) {
        self.customers.erased.lock().unwrap().insert(customer_id.parse().unwrap());
        self.tell_of_erasure(customer_id);
    }

    /// Says so alone: what was asked of customers before may still be on its way.
    pub fn tell_of_erasure(&self, customer_id: &str) {
        let body = CustomerErased { customer_id: customer_id.into(), occurred_at: None }.encode_to_vec();
        self.append("customers.events", &CustomerErased::full_name(), customer_id, Some(9), body);
    }

    /// A new shipment that can be picked.
    pub async fn pickable(&mut self) -> String {
        let order_id = id();
        self.pay(&order_id, 4, &id(), &id());
        self.confirm(&order_id);
        self.get(&order_id, 2).await.unwrap();
        order_id
    }

    pub async fn get(&mut self, order_id: &str, min_version: u64) -> Result<v1::GetShipmentResponse, Status> {
        let request =
            v1::GetShipmentRequest { order_id: order_id.into(), min_version, ..v1::GetShipmentRequest::default() };
        Ok(self.client.get_shipment(request).await?.into_inner())
    }

    pub async fn start_picking(&mut self, order_id: &str) -> Result<v1::Shipment, Status> {
        let command = Some(v1::StartPicking { order_id: order_id.into() });
        let request = v1::StartPickingRequest { request_id: id(), command };
        Ok(self.client.start_picking(request).await?.into_inner().shipment.unwrap())
    }

    pub async fn pack(&mut self, order_id: &str) -> Result<v1::Shipment, Status> {
        let command = Some(v1::PackShipment { order_id: order_id.into() });
        let request = v1::PackShipmentRequest { request_id: id(), command };
        Ok(self.client.pack_shipment(request).await?.into_inner().shipment.unwrap())
    }

    pub async fn dispatch(&mut self, order_id: &str) -> Result<v1::Shipment, Status> {
        let command = Some(v1::DispatchShipment { order_id: order_id.into(), ..v1::DispatchShipment::default() });
        let request = v1::DispatchShipmentRequest { request_id: id(), command };
        Ok(self.client.dispatch_shipment(request).await?.into_inner().shipment.unwrap())
    }

    /// The records of `key` among the events.
    pub fn events_of(&self, key: &str) -> Vec<Record> {
        let mut records = self.log.all_records("fulfillment.events");
        records.retain(|record| record.key.as_deref() == Some(key.as_bytes()));
        records
    }

    /// The names of the events of `key`, in order, once there are at least `count`.
    pub async fn events(&self, key: &str, count: usize) -> Vec<String> {
        eventually("the events are published", || self.events_of(key).len() >= count).await;
        let name = |record: &Record| {
            text(record.headers.get("ce_type")).trim_start_matches("holdfast.fulfillment.v1.").to_owned()
        };
        self.events_of(key).iter().map(name).collect()
    }

    /// The types of the commands that were sent to the aggregate `key`, in order.
    pub fn sent(&self, key: &str) -> Vec<String> {
        let mut records = self.log.all_records("fulfillment.commands");
        records.retain(|record| record.key.as_deref() == Some(key.as_bytes()));
        records.iter().map(|record| text(record.headers.get("ce_type"))).collect()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.server.abort();
        self.node.kill();
    }
}

/// `holdfast.orders.v1.OrderPaid`, as far as it is agreed upon.
#[derive(Clone, PartialEq, prost::Message)]
struct Paid {
    #[prost(string, tag = "1")]
    order_id: String,
    #[prost(message, optional, tag = "2")]
    occurred_at: Option<holdfast_proto::Timestamp>,
    #[prost(string, tag = "3")]
    customer_id: String,
    #[prost(string, tag = "4")]
    address_id: String,
    #[prost(message, repeated, tag = "5")]
    lines: Vec<holdfast_proto::orders::v1::OrderLine>,
    #[prost(string, tag = "6")]
    payment_id: String,
}

/// An event of which the order's id alone matters.
#[derive(Clone, PartialEq, prost::Message)]
struct OrderId {
    #[prost(string, tag = "1")]
    order_id: String,
}

pub fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
}

/// A new id.
pub fn id() -> String {
    Uuid::now_v7().to_string()
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap_or_else(|_| panic!("not within a minute: {what}"));
}

/// The refusal that a call ended with: its code, its reason, the fields at fault.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String, Vec<String>) {
    let status = result.unwrap_err();
    let fields = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    let reason = errors::reason(&status).unwrap_or_else(|| panic!("no reason: {status:?}"));
    (status.code(), reason, fields.into_iter().map(|violation| violation.field).collect())
}

/// A schema of its own on the one embedded Postgres of all these tests.
async fn store() -> Arc<PgStore> {
    static SERVER: OnceCell<Stack> = OnceCell::const_new();
    let start = || Stack::start(StackOptions { kafka: false, ..StackOptions::default() });
    let stack = SERVER.get_or_try_init(start).await.expect("the embedded Postgres starts");
    let url = stack.postgres_url("postgres");
    let schema = format!("fulfillment_{}", Uuid::new_v4().simple());
    let role = Role { name: schema.clone(), password: None };
    migrate(&url, &schema, Some(&role), app::MIGRATIONS).await.expect("migrated");
    let config = PgConfig::new(url, &schema).with_role(&schema).with_views(app::VIEWS.iter().copied());
    Arc::new(PgStore::connect(config).await.expect("connected"))
}

/// The questions, answered from the store in memory.
struct InMemory(MemoryStore);

#[async_trait]
impl Queries for InMemory {
    async fn pickable(&self, after: Position, rows_max: usize) -> Result<Vec<Listed>, StoreError> {
        let contents = self.0.contents();
        let mut listed = Vec::new();
        for (id, row) in contents.views.iter().filter(|(_, row)| row["status"] == "PENDING") {
            let position =
                Position { ready_at_ms: row["ready_at_ms"].as_i64().unwrap(), order_id: id.key.parse().unwrap() };
            let state = &contents.states[id];
            let shipment = queries::stored(&id.key, state.version, state.schema, &state.bytes)?.unwrap();
            listed.push(Listed { shipment, position });
        }
        listed.retain(|listed| listed.position > after);
        listed.sort_by_key(|listed| listed.position);
        listed.truncate(rows_max);
        Ok(listed)
    }
}
