//! One node of inventory, its gRPC server, and clients of it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use holdfast_core::{Timestamp, envelope::EnvelopeOut};
use holdfast_inventory::{app, grpc};
use holdfast_platform::{
    Health, Shutdown, errors,
    grpc::{Peer, Server, Stack, client},
};
use holdfast_proto::{
    inventory::v1::{
        AdjustStock, AdjustStockRequest, GetStockRequest, ReceiveStock, ReceiveStockRequest, SetPrice, SetPriceRequest,
        SetReorderPoint, SetReorderPointRequest, StockItem, catalog_service_client::CatalogServiceClient,
        reservation_service_client::ReservationServiceClient, stock_service_client::StockServiceClient,
    },
    money::v1::Money,
    orders::v1 as orders,
};
use holdfast_runtime::{Config, Node, Ports, telemetry::NoTrace};
use holdfast_testkit::{MemoryGroup, MemoryLog, MemoryPublisher, MemoryStore, VirtualClock};
use prost::Name;
use tokio::net::TcpListener;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

const PARTITIONS: u32 = 4;

pub struct Shop {
    pub log: MemoryLog,
    pub node: Arc<Node>,
    /// The store as the services see it; its faults are theirs alone.
    pub catalog_store: MemoryStore,
    address: SocketAddr,
    channel: Channel,
}

impl Shop {
    pub async fn open() -> Self {
        let log = MemoryLog::new();
        for topic in ["inventory.commands", "inventory.events", "inventory.dlq", "orders.events"] {
            log.create_topic(topic, PARTITIONS);
        }
        let store = MemoryStore::new();
        let node_log = log.node();
        let ports = Ports {
            publishers: Arc::new(MemoryPublisher::new(node_log.clone())),
            log: Arc::new(node_log),
            membership: Arc::new(MemoryGroup::new(PARTITIONS).join()),
            store: Arc::new(store.clone()),
            clock: Arc::new(VirtualClock::start()),
            trace: Arc::new(NoTrace),
        };
        let config = Config { address: "memory".into(), ..Config::default() };
        let node = Node::start(app::context(app::HOLD_DEFAULT), config, ports).await.unwrap();
        while node.owned_partitions() < PARTITIONS as usize {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let catalog_store = store.node();
        let address = serve(node.clone(), catalog_store.clone()).await;
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { log, node, catalog_store, address, channel }
    }

    pub fn stock(&self) -> StockServiceClient<Channel> {
        StockServiceClient::new(self.channel.clone())
    }

    pub fn reservations(&self) -> ReservationServiceClient<Channel> {
        ReservationServiceClient::new(self.channel.clone())
    }

    pub fn catalog(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
    }

    /// A client as other contexts have it, with a deadline of 300 ms. (A bare channel says CANCELLED where it
    /// gives up first.)
    pub fn impatient(&self) -> Stack {
        let settings = client::Settings { deadline: Duration::from_millis(300), ..client::Settings::default() };
        Peer::new("inventory", &format!("http://{}", self.address), settings, None).unwrap().stack()
    }

    /// Takes `quantity` of `sku` into stock, and sets its price in cents.
    pub async fn stocked(&self, sku: &str, quantity: i64, cents: i64) {
        self.stock().receive_stock(receive(&new_id(), sku, quantity)).await.unwrap();
        self.stock().set_price(price(&new_id(), sku, cents, "EUR")).await.unwrap();
    }

    /// The strong answer about `sku`.
    pub async fn item(&self, sku: &str) -> StockItem {
        let request = GetStockRequest { sku: sku.to_owned(), ..GetStockRequest::default() };
        self.stock().get_stock(request).await.unwrap().into_inner().item.unwrap()
    }

    /// Publishes an event of `order_id`, as orders would.
    fn publish<E: Name>(&self, order_id: &str, sequence: u64, event: &E) {
        let headers = EnvelopeOut {
            sequence: Some(sequence),
            ..EnvelopeOut::new(
                Uuid::now_v7(),
                "holdfast/orders/order",
                &E::full_name(),
                Timestamp::from_unix_ms(0),
                order_id,
            )
        }
        .headers();
        let (key, value) = (order_id.to_owned().into(), event.encode_to_vec().into());
        self.log.append("orders.events", None, Some(key), headers, Some(value)).unwrap();
    }

    /// Publishes that `order_id` was placed.
    pub fn place(&self, order_id: &str, lines: &[(&str, i64)]) {
        self.place_as(order_id, 1, lines);
    }

    pub fn place_as(&self, order_id: &str, sequence: u64, lines: &[(&str, i64)]) {
        let line = |(sku, quantity): &(&str, i64)| orders::OrderLine {
            sku: (*sku).to_owned(),
            quantity: *quantity,
            ..orders::OrderLine::default()
        };
        let lines = lines.iter().map(line).collect();
        let event = orders::OrderPlaced { order_id: order_id.to_owned(), lines, ..orders::OrderPlaced::default() };
        self.publish(order_id, sequence, &event);
    }

    /// Publishes that `order_id` was cancelled.
    pub fn cancel(&self, order_id: &str, sequence: u64) {
        let event = orders::OrderCancelled { order_id: order_id.to_owned(), ..orders::OrderCancelled::default() };
        self.publish(order_id, sequence, &event);
    }
}

async fn serve(node: Arc<Node>, store: MemoryStore) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = Health::new();
    let server = grpc::register(Server::new(health.clone()), node, Arc::new(store));
    tokio::spawn(async move { server.serve(listener, &Shutdown::new(health)).await.unwrap() });
    address
}

pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

pub fn receive(request_id: &str, sku: &str, quantity: i64) -> ReceiveStockRequest {
    let command = Some(ReceiveStock { sku: sku.to_owned(), quantity });
    ReceiveStockRequest { request_id: request_id.to_owned(), command }
}

pub fn adjust(request_id: &str, sku: &str, delta: i64) -> AdjustStockRequest {
    let command = Some(AdjustStock { sku: sku.to_owned(), delta, reason: "counted".to_owned() });
    AdjustStockRequest { request_id: request_id.to_owned(), command }
}

pub fn price(request_id: &str, sku: &str, minor: i64, currency: &str) -> SetPriceRequest {
    let price = Some(Money { minor, currency: currency.to_owned() });
    let command = Some(SetPrice { sku: sku.to_owned(), price });
    SetPriceRequest { request_id: request_id.to_owned(), command }
}

pub fn reorder(request_id: &str, sku: &str, reorder_point: i64) -> SetReorderPointRequest {
    let command = Some(SetReorderPoint { sku: sku.to_owned(), reorder_point });
    SetReorderPointRequest { request_id: request_id.to_owned(), command }
}

/// On hand, reserved, available.
pub fn counts(item: &StockItem) -> (i64, i64, i64) {
    (item.on_hand, item.reserved, item.available)
}

/// The refusal that a call ended with: its code, its reason, the fields at fault.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String, Vec<String>) {
    let status = result.unwrap_err();
    let fields = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    let reason = errors::reason(&status).unwrap_or_else(|| panic!("no reason: {status:?}"));
    (status.code(), reason, fields.into_iter().map(|violation| violation.field).collect())
}

/// The [`refusal`] of malformed input, with this field at fault.
pub fn invalid(field: &str) -> (Code, String, Vec<String>) {
    (Code::InvalidArgument, "INVALID".to_owned(), vec![field.to_owned()])
}

/// By sku.
pub fn by_sku<T>(rows: Vec<T>, sku: impl Fn(&T) -> &String) -> BTreeMap<String, T> {
    rows.into_iter().map(|row| (sku(&row).clone(), row)).collect()
}
