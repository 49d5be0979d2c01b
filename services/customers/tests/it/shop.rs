//! One node of customers, its gRPC server, and a client of it.

use std::{sync::Arc, time::Duration};

use holdfast_core::{Timestamp, envelope::EnvelopeOut};
use holdfast_customers::{app, grpc};
use holdfast_platform::{Health, Shutdown, errors, grpc::Server};
use holdfast_proto::customers::v1::{self, customer_service_client::CustomerServiceClient};
use holdfast_runtime::{Config, Node, Ports, SystemClock, telemetry::NoTrace};
use holdfast_testkit::{MemoryGroup, MemoryLog, MemoryPublisher, MemoryStore};
use prost::Name;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

const PARTITIONS: u32 = 4;

/// A running node. Stops when dropped.
pub struct Shop {
    pub client: CustomerServiceClient<Channel>,
    pub log: MemoryLog,
    pub node: Arc<Node>,
    pub store: MemoryStore,
    /// The store as the service sees it; its faults are the service's alone.
    pub service_store: MemoryStore,
    server: JoinHandle<()>,
}

impl Shop {
    pub async fn open() -> Self {
        let log = MemoryLog::new();
        for topic in ["customers.commands", "customers.events", "customers.dlq"] {
            log.create_topic(topic, PARTITIONS);
        }
        let store = MemoryStore::new();
        let ports = Ports {
            log: Arc::new(log.node()),
            membership: Arc::new(MemoryGroup::new(PARTITIONS).join()),
            publishers: Arc::new(MemoryPublisher::new(log.node())),
            store: Arc::new(store.node()),
            clock: Arc::new(SystemClock),
            trace: Arc::new(NoTrace),
        };
        let config = Config { address: "memory".into(), ..Config::default() };
        let node = Node::start(app::context(), config, ports).await.unwrap();
        eventually("all partitions owned", || node.owned_partitions() == PARTITIONS as usize).await;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::new();
        let shutdown = Shutdown::new(health.clone());
        let service_store = store.node();
        let server = grpc::register(Server::new(health), node.clone(), Arc::new(service_store.clone()));
        let server = tokio::spawn(async move { server.serve(listener, &shutdown).await.unwrap() });
        let client = CustomerServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self { client, log, node, store, service_store, server }
    }

    /// Sends a command through the log, as `source`.
    pub fn send<M: Name>(&self, source: &str, key: &str, body: &M) {
        let headers =
            EnvelopeOut::new(Uuid::now_v7(), source, &M::full_name(), Timestamp::from_unix_ms(0), key).headers();
        let (key, value) = (key.to_owned().into(), body.encode_to_vec().into());
        self.log.append("customers.commands", None, Some(key), headers, Some(value)).unwrap();
    }

    /// A new customer with one address; their ids.
    pub async fn customer(&mut self) -> (String, String) {
        let (customer_id, address_id) = (id(), id());
        self.client.create_customer(create(&customer_id, "Jane")).await.unwrap();
        self.client.add_address(add(&customer_id, &address_id, "Berlin")).await.unwrap();
        (customer_id, address_id)
    }

    pub async fn get(&mut self, customer_id: &str, min_version: u64) -> Result<v1::GetCustomerResponse, Status> {
        let request = v1::GetCustomerRequest {
            customer_id: customer_id.into(),
            min_version,
            ..v1::GetCustomerRequest::default()
        };
        Ok(self.client.get_customer(request).await?.into_inner())
    }

    /// The types of a customer's events, in order, once there are at least `count`.
    pub async fn events(&self, customer_id: &str, count: usize) -> Vec<String> {
        let types = || {
            let records = self.log.all_records("customers.events").into_iter();
            let records = records.filter(|record| record.key.as_deref() == Some(customer_id.as_bytes()));
            records.map(|record| text(record.headers.get("ce_type"))).collect::<Vec<_>>()
        };
        eventually("the events are published", || types().len() >= count).await;
        types()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.server.abort();
        self.node.kill();
    }
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

pub fn profile(name: &str) -> v1::Profile {
    v1::Profile { name: name.into(), email: "jane@example.org".into(), phone: String::new() }
}

pub fn address(city: &str) -> v1::Address {
    v1::Address {
        recipient: "Jane".into(),
        lines: vec!["Main Street 1".into()],
        city: city.into(),
        postal_code: "12345".into(),
        country: "DE".into(),
    }
}

pub fn create(customer_id: &str, name: &str) -> v1::CreateCustomerRequest {
    let profile = Some(profile(name));
    let command = v1::CreateCustomer { customer_id: customer_id.into(), profile, preferences: None };
    v1::CreateCustomerRequest { request_id: id(), command: Some(command) }
}

pub fn add(customer_id: &str, address_id: &str, city: &str) -> v1::AddAddressRequest {
    let (customer_id, address_id, address) = (customer_id.into(), address_id.into(), Some(address(city)));
    v1::AddAddressRequest { request_id: id(), command: Some(v1::AddAddress { customer_id, address_id, address }) }
}

pub fn remove(customer_id: &str, address_id: &str) -> v1::RemoveAddressRequest {
    let command = v1::RemoveAddress { customer_id: customer_id.into(), address_id: address_id.into() };
    v1::RemoveAddressRequest { request_id: id(), command: Some(command) }
}

pub fn erase(customer_id: &str) -> v1::EraseCustomerRequest {
    let command = Some(v1::EraseCustomer { customer_id: customer_id.into() });
    v1::EraseCustomerRequest { request_id: id(), command }
}

/// The refusal that a call ended with: its code, its reason, the fields at fault.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String, Vec<String>) {
    let status = result.unwrap_err();
    let fields = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    let reason = errors::reason(&status).unwrap_or_else(|| panic!("no reason: {status:?}"));
    (status.code(), reason, fields.into_iter().map(|violation| violation.field).collect())
}
