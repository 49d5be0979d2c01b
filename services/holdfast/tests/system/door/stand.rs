//! The stand: every context and the edge in one process, on servers of its own, and the clients that attack
//! and watch it.
//!
//! Invariant: a record's outcome is checked against its dead letters and its events, and any other dead
//! letter is a fault. Deliberately absent: tables; what is not visible from outside does not count.

use std::{
    net::SocketAddr,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use futures::future::{join_all, try_join_all};
use holdfast::shelves::{self, Shelf};
use holdfast_core::partition::KeyHash;
use holdfast_gateway::issuer::{ISSUER, Issuer, JWKS_PATH};
use holdfast_load_tests::{
    by_hand::{Hand, Raw},
    tail::{Lying, Tail},
};
use holdfast_platform::http_client::HttpClient;
use holdfast_proto::{
    customers::v1::{
        AddAddress, AddAddressRequest, Address, CreateCustomer, CreateCustomerRequest, Profile,
        customer_service_client::CustomerServiceClient,
    },
    orders::v1::{
        AddItem, AddItemRequest, CreateOrder, CreateOrderRequest, GetOrderRequest, Order, OrderStatus, PlaceOrder,
        PlaceOrderRequest, order_service_client::OrderServiceClient,
    },
};
use holdfast_stack::{Stack, StackOptions};
use libtest_mimic::Failed;
use tokio::net::TcpListener;
use tonic::{Request, transport::Channel};
use uuid::Uuid;

use super::attack::{Attack, Outcome, Row, Sent};
use crate::shop::{Served, patient, prepare, record};

const DATA: &str = "orders,inventory,payments,fulfillment,customers";
const SERVED: &str = "orders,inventory,payments,fulfillment,customers,gateway";
/// The contexts.
pub const CONTEXTS: [&str; 5] = ["orders", "inventory", "payments", "fulfillment", "customers"];
/// The customer of every order, ACTIVE and with an address.
pub const CUSTOMER: &str = "0192f0c1-7b1e-7cc3-8000-0000000d0012";
/// Partitions of every topic.
pub const PARTITIONS: u32 = 12;
/// The bound on waiting for an outcome.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The operators' token.
pub const OPERATOR: &str = "an-operators-token-of-the-door";
/// The secret that signs the provider's webhooks.
pub const WEBHOOK_SECRET: &str = "whsec_of_the_door";

/// An order that is there before the attacks.
pub struct Bystander {
    pub id: String,
    pub partition: i32,
    /// The highest version seen of it.
    pub version: AtomicU64,
}

pub struct Stand {
    served: Served,
    pub tail: Tail,
    pub channel: Channel,
    pub bystanders: Vec<Bystander>,
    pub address_id: String,
    pub edge: SocketAddr,
    pub http: HttpClient,
    issuer: Issuer,
    hand: Hand,
    press: Hand,
    _stack: Stack,
}

/// The result of an attack.
pub struct Suffered {
    /// Differences from the contracts.
    pub faults: Vec<String>,
    /// Whether it answers as before.
    pub stands: bool,
}

/// A new id.
pub fn id() -> String {
    Uuid::now_v7().to_string()
}

/// A new id whose home is `partition`.
pub fn id_at(partition: u32) -> String {
    loop {
        let id = id();
        if KeyHash::of(id.as_bytes()).home(PARTITIONS).0 == partition {
            return id;
        }
    }
}

/// A request with a deadline.
pub fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

impl Stand {
    pub async fn open() -> Result<Self, Failed> {
        let stack = Stack::start(StackOptions::default()).await?;
        let issuer = Issuer::new()?;
        let keys = TcpListener::bind("127.0.0.1:0").await?;
        let jwks_url = format!("http://{}{JWKS_PATH}", keys.local_addr()?);
        tokio::spawn(issuer.clone().serve(keys));
        prepare(&stack, DATA)?;
        // No provider listens there: a placed order stays unpaid, so that a forged payment shows.
        let provider_url = format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
        let variables = [
            ("HOLDFAST_PAYMENTS_PROVIDER_URL", provider_url.as_str()),
            ("HOLDFAST_PAYMENTS_API_KEY", "sk_test"),
            ("HOLDFAST_PAYMENTS_WEBHOOK_SECRETS", WEBHOOK_SECRET),
            ("HOLDFAST_GATEWAY_LISTEN", "127.0.0.1:0"),
            ("HOLDFAST_GATEWAY_JWKS_URL", &jwks_url),
            ("HOLDFAST_GATEWAY_ISSUER", ISSUER),
            ("HOLDFAST_GATEWAY_RATE_PER_S", "1000000"),
            ("HOLDFAST_ADMIN_TOKEN", OPERATOR),
        ];
        let served = Served::launch_serving(&stack, SERVED, &variables).await?;
        let edge = served.said("edge").ok_or("the edge is nowhere")?;
        let address = format!("http://{}", served.grpc);
        let lamp = Shelf { sku: "lamp".into(), quantity: 1_000_000, price_minor: 1_000 };
        let throne = Shelf { sku: "throne".into(), quantity: 1_000, price_minor: 500_000 };
        shelves::fill(&shelves::inventory(&address)?, "door", [lamp, throne]).await?;
        let channel = Channel::from_shared(address)?.connect().await?;
        let letters = CONTEXTS.map(|context| format!("{context}.dlq"));
        let events = ["orders.events", "payments.events"];
        let topics: Vec<&str> = letters.iter().map(String::as_str).chain(events).collect();
        let tail = Tail::open(stack.brokers(), &topics).await?;
        let mut stand = Self {
            hand: Hand::new(stack.brokers(), "none")?,
            press: Hand::new(stack.brokers(), "zstd")?,
            http: HttpClient::new(PATIENCE),
            served,
            tail,
            channel,
            bystanders: Vec::new(),
            address_id: id(),
            edge,
            issuer,
            _stack: stack,
        };
        stand.settle().await?;
        Ok(stand)
    }

    /// A customer who may order, and an order on every partition.
    async fn settle(&mut self) -> Result<(), Failed> {
        let mut customers = CustomerServiceClient::new(self.channel.clone());
        let customer_id = CUSTOMER.to_owned();
        let profile = Some(Profile { name: "Ada".into(), email: "ada@example.org".into(), phone: String::new() });
        let command = CreateCustomer { customer_id: customer_id.clone(), profile, preferences: None };
        let account = CreateCustomerRequest { request_id: id(), command: Some(command) };
        // Its partition may not be taken yet.
        let give_up = Instant::now() + Duration::from_mins(1);
        while let Err(status) = customers.create_customer(asked(account.clone())).await {
            patient(give_up, &format!("an account to be opened: {status:?}")).await?;
        }
        let address = Address {
            recipient: "Ada".into(),
            lines: vec!["1 Main St".into()],
            city: "London".into(),
            postal_code: "N1".into(),
            country: "GB".into(),
        };
        let command = AddAddress { customer_id, address_id: self.address_id.clone(), address: Some(address) };
        let added = AddAddressRequest { request_id: id(), command: Some(command) };
        customers.add_address(asked(added)).await?;
        for partition in 0..PARTITIONS {
            let id = id_at(partition);
            let place = self.hand.put("orders.commands", None, None, &Self::opened(&id)).await?;
            self.bystanders.push(Bystander { id, partition: place.partition, version: AtomicU64::new(0) });
        }
        let all: Vec<i32> = self.bystanders.iter().map(|order| order.partition).collect();
        if all != (0..PARTITIONS.cast_signed()).collect::<Vec<_>>() {
            return Err(format!("the orders lie in {all:?}").into());
        }
        let here = join_all(self.bystanders.iter().map(|order| self.created(&order.id))).await;
        here.into_iter().collect::<Result<Vec<()>, Failed>>()?;
        self.probe().await
    }

    async fn created(&self, order_id: &str) -> Result<(), Failed> {
        let give_up = Instant::now() + Duration::from_mins(1);
        while let Err(failed) = self.order(order_id).await {
            patient(give_up, &format!("an order to be there: {}", failed.message().unwrap_or_default())).await?;
        }
        Ok(())
    }

    /// A record that opens an order of the customer's.
    pub fn opened(order_id: &str) -> Raw {
        record(order_id, &Self::open_order(order_id))
    }

    /// The command.
    pub fn open_order(order_id: &str) -> CreateOrder {
        let (order_id, customer_id) = (order_id.to_owned(), CUSTOMER.to_owned());
        CreateOrder { order_id, customer_id, currency: "EUR".to_owned() }
    }

    pub fn orders(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel.clone())
    }

    /// An order by a strong read.
    pub async fn order(&self, order_id: &str) -> Result<Order, Failed> {
        let get = GetOrderRequest { order_id: order_id.to_owned(), ..GetOrderRequest::default() };
        let answer = self.orders().get_order(asked(get)).await.map_err(|status| format!("GetOrder: {status:?}"))?;
        Ok(answer.into_inner().order.ok_or("no order")?)
    }

    /// A new order over 5,000.00 EUR, placed, reserved and not paid, in the partition `home`.
    pub async fn reserved(&self, home: u32) -> Result<String, Failed> {
        let order_id = id_at(home);
        let mut orders = self.orders();
        let create = CreateOrderRequest { request_id: id(), command: Some(Self::open_order(&order_id)) };
        orders.create_order(asked(create)).await?;
        let item = AddItem { order_id: order_id.clone(), sku: "throne".to_owned(), quantity: 1 };
        orders.add_item(asked(AddItemRequest { request_id: id(), command: Some(item) })).await?;
        let place = PlaceOrder {
            order_id: order_id.clone(),
            payment_method: "pm_card_visa".to_owned(),
            address_id: self.address_id.clone(),
        };
        orders.place_order(asked(PlaceOrderRequest { request_id: id(), command: Some(place) })).await?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            let order = self.order(&order_id).await?;
            match order.status() {
                OrderStatus::Placed if order.reserved_until.is_some() => return Ok(order_id),
                OrderStatus::Placed => patient(give_up, "stock to be reserved").await?,
                status => return Err(format!("the order is {status:?}: {order:?}").into()),
            }
        }
    }

    /// A token of the customer's.
    pub fn token(&self) -> Result<String, Failed> {
        Ok(self.issuer.token(CUSTOMER, "", Duration::from_mins(10))?)
    }

    /// The operations port.
    pub fn operations(&self) -> SocketAddr {
        self.served.http
    }

    /// The gRPC port.
    pub fn grpc(&self) -> SocketAddr {
        self.served.grpc
    }

    pub fn tell_log(&self) {
        self.served.tell_log();
    }

    /// Sends records, all of them acknowledged when it returns.
    pub async fn send(&self, rows: Vec<Row>) -> Result<Vec<Sent>, Failed> {
        let one = async |row: Row| {
            let hand = if row.is_compressed { &self.press } else { &self.hand };
            let put = hand.put(row.topic, row.partition, row.time_ms, &row.raw).await;
            let place = put.map_err(|error| Failed::from(format!("{}: not sent: {error:?}", row.what)))?;
            let Row { what, topic, raw, outcome, .. } = row;
            Ok::<_, Failed>(Sent { what, topic, place, raw, outcome })
        };
        // In order: a row may rely on one before it.
        let mut sent = Vec::new();
        for row in rows {
            sent.push(one(row).await?);
        }
        Ok(sent)
    }

    /// Makes the attack, checks its outcomes, and probes the stand.
    pub async fn suffer(&self, attack: &Attack) -> Suffered {
        let from = self.tail.len();
        let mut faults = Vec::new();
        let mut note = |found: Result<(), Failed>| {
            if let Err(failed) = found {
                faults.push(failed.message().unwrap_or("failed").to_owned());
            }
        };
        let sent = match (attack.act)(self).await {
            Ok(sent) => sent,
            Err(failed) => {
                note(Err(failed));
                Vec::new()
            }
        };
        let awaited = join_all(sent.iter().map(|sent| self.becomes(from, sent))).await;
        awaited.into_iter().for_each(&mut note);
        let probed = self.probe().await;
        let stands = probed.is_ok();
        note(probed.map_err(|failed| format!("afterwards: {}", failed.message().unwrap_or_default()).into()));
        let nothing_else = self.tail.look(from, |seen| nothing_else(seen, &sent));
        note(nothing_else);
        Suffered { faults, stands }
    }

    /// Waits for the outcome of one record.
    pub async fn becomes(&self, from: usize, sent: &Sent) -> Result<(), Failed> {
        let late = |what: String| move |_| Failed::from(what);
        match sent.outcome {
            Outcome::Dead { by, reasons } => {
                let letter = async |context: &&'static str| {
                    let find = |seen: &[Lying]| seen.iter().find(|lying| is_letter(lying, context, sent)).cloned();
                    let none = late(format!("{}: no dead letter of {context}'s at {:?}", sent.what, sent.place));
                    let letter = self.tail.until(from, PATIENCE, find).await.map_err(none)?;
                    check(sent, &letter.raw, reasons)
                };
                try_join_all(by.iter().map(letter)).await.map(drop)
            }
            Outcome::Caused(count) => {
                let find = |seen: &[Lying]| (caused(seen, sent) >= count).then_some(());
                let none = late(format!("{}: no event of {count} was caused by it", sent.what));
                self.tail.until(from, PATIENCE, find).await.map_err(none)
            }
        }
    }
}

/// The last value of a header: in a dead letter the runtime's, even if the record came with a header of that
/// name.
pub fn last<'a>(raw: &'a Raw, name: &str) -> &'a str {
    let found = raw.headers.iter().rev().find(|(header, _)| header == name).and_then(|(_, value)| value.as_deref());
    found.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
}

fn is_of(letter: &Raw, sent: &Sent) -> bool {
    last(letter, "dlt-original-topic") == sent.topic
        && last(letter, "dlt-original-partition") == sent.place.partition.to_string()
        && last(letter, "dlt-original-offset") == sent.place.offset.to_string()
}

fn is_letter(lying: &Lying, context: &str, sent: &Sent) -> bool {
    lying.topic.strip_suffix(".dlq") == Some(context) && is_of(&lying.raw, sent)
}

/// Events of orders that name the record as their cause.
fn caused(seen: &[Lying], sent: &Sent) -> usize {
    let cause = last(&sent.raw, "ce_id").to_ascii_lowercase();
    seen.iter().filter(|lying| &*lying.topic == "orders.events" && last(&lying.raw, "ce_causationid") == cause).count()
}

/// Checks that the dead letter names one of `reasons` and holds the record, whole or cut.
fn check(sent: &Sent, letter: &Raw, reasons: &[&str]) -> Result<(), Failed> {
    let wrong = |why: String| Err(Failed::from(format!("{}: {why}", sent.what)));
    let reason = last(letter, "dlt-reason");
    if !reasons.contains(&reason) {
        return wrong(format!("{reason} ({:.300}) instead of {reasons:?}", last(letter, "dlt-error")));
    }
    let is_whole = (&letter.key, &letter.value) == (&sent.raw.key, &sent.raw.value)
        && letter.headers.get(..sent.raw.headers.len()) == Some(&sent.raw.headers[..]);
    if is_whole || !last(letter, "dlt-cut").is_empty() {
        return Ok(());
    }
    wrong("key, value or headers are not as they came, and `dlt-cut` is missing".to_owned())
}

/// Checks that there is no dead letter and no event but the expected ones.
fn nothing_else(seen: &[Lying], sent: &[Sent]) -> Result<(), Failed> {
    let is_expected = |lying: &Lying, context: &str| {
        sent.iter().any(|sent| {
            let is_by = matches!(sent.outcome, Outcome::Dead { by, .. } if by.contains(&context));
            is_by && is_of(&lying.raw, sent)
        })
    };
    for lying in seen {
        let Some(context) = lying.topic.strip_suffix(".dlq") else { continue };
        if is_expected(lying, context) {
            continue;
        }
        let whose = sent.iter().find(|sent| is_of(&lying.raw, sent)).map_or("a stranger", |sent| &sent.what);
        let (reason, error) = (last(&lying.raw, "dlt-reason"), last(&lying.raw, "dlt-error"));
        let place = ["dlt-original-topic", "dlt-original-partition", "dlt-original-offset"];
        let place = place.map(|name| last(&lying.raw, name)).join("/");
        return Err(format!("{whose}: a dead letter of {context}'s at {place}: {reason} ({error:.300})").into());
    }
    for sent in sent {
        let (Outcome::Caused(count), found) = (sent.outcome, caused(seen, sent)) else { continue };
        if found != count {
            return Err(format!("{}: {found} events instead of {count}", sent.what).into());
        }
    }
    Ok(())
}
