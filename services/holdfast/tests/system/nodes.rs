//! Two nodes: which of them is asked makes no difference, and one that goes takes nothing along.
//!
//! The second node comes and goes; the first is always there, and is where callers and watchers are when it
//! goes. Deliberately absent: which node owns which order. There are enough orders for both to own some, and
//! the logs say that calls have travelled.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast::people;
use holdfast_proto::{
    inventory::v1::{
        GetReservationRequest, GetStockRequest, reservation_service_client::ReservationServiceClient,
        stock_service_client::StockServiceClient,
    },
    orders::v1::{
        AddItem, AddItemRequest, BatchGetOrdersRequest, CreateOrder, CreateOrderRequest, GetOrderRequest,
        ListOrdersRequest, OrderStatus, PlaceOrder, PlaceOrderRequest, WatchOrderRequest,
        order_service_client::OrderServiceClient,
    },
    read::v1::{Consistency, ReadInfo},
};
use libtest_mimic::Failed;
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Code, Request, Status, transport::Channel};
use uuid::Uuid;

use crate::shop::{Served, Shop, customer, patient, place};

/// Orders of each test: that one node owns none of them is as likely as that many throws of a coin all fall
/// alike.
const ORDERS: usize = 24;

type Orders = OrderServiceClient<Channel>;

fn id() -> String {
    Uuid::now_v7().to_string()
}

async fn both(shop: &Shop, second: &Served) -> Result<[Orders; 2], Failed> {
    let at = async |address: String| OrderServiceClient::connect(address).await;
    Ok([at(shop.grpc.clone()).await?, at(format!("http://{}", second.grpc)).await?])
}

/// The same flow and trace for every call of a test.
struct Flow {
    trace: String,
    id: String,
}

impl Flow {
    fn begin() -> Self {
        Self { trace: Uuid::new_v4().simple().to_string(), id: id() }
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, Failed> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("traceparent", format!("00-{}-00f067aa0ba902b7-01", self.trace).parse()?);
        request.metadata_mut().insert("x-correlation-id", self.id.parse()?);
        request.set_timeout(Duration::from_secs(20));
        Ok(request)
    }

    /// The lines of `log` that say `message`, all of which must be of this flow's trace if they are of its
    /// correlation id.
    fn lines(&self, log: &str, message: &str) -> Result<usize, Failed> {
        let mut found = 0;
        for line in log.lines().filter(|line| line.contains(message) && line.contains(&self.id)) {
            let line: serde_json::Value = serde_json::from_str(line)?;
            if line["trace_id"] != self.trace.as_str() || line["correlation_id"] != self.id.as_str() {
                return Err(format!("a line of the flow that is not of the trace {}: {line}", self.trace).into());
            }
            found += 1;
        }
        Ok(found)
    }
}

fn create(order_id: &str, customer_id: &str) -> CreateOrderRequest {
    let (order_id, customer_id) = (order_id.to_owned(), customer_id.to_owned());
    let command = Some(CreateOrder { order_id, customer_id, currency: "EUR".to_owned() });
    CreateOrderRequest { request_id: id(), command }
}

fn add(order_id: &str) -> AddItemRequest {
    let command = Some(AddItem { order_id: order_id.to_owned(), sku: "sku-1".to_owned(), quantity: 1 });
    AddItemRequest { request_id: id(), command }
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), Failed> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected:?}").into()) }
}

fn strongly(read: Option<ReadInfo>, version: u64) -> Result<(), Failed> {
    let read = read.ok_or("how it was read is not said")?;
    expect("how it was read", (read.version, read.consistency()), (version, Consistency::Strong))
}

pub async fn any_node_answers_for_any_order_in_the_callers_trace(shop: &Shop) -> Result<(), Failed> {
    let second = shop.second_node().await?;
    let mut nodes = both(shop, &second).await?;
    let (flow, customer, address) = (Flow::begin(), Uuid::now_v7(), Uuid::now_v7());
    people::register(&people::customers(&shop.grpc)?, [(customer, address)]).await?;
    let (customer, address_id) = (customer.to_string(), address.to_string());
    let ids: Vec<String> = (0..ORDERS).map(|_| id()).collect();
    for (n, order) in ids.iter().enumerate() {
        let node = |step: usize| (n + step) % 2;
        nodes[node(0)].create_order(flow.request(create(order, &customer))?).await?;
        let request = add(order);
        let added = nodes[node(1)].add_item(flow.request(request.clone())?).await?.into_inner();
        // The other node knows that request, too.
        let again = nodes[node(0)].add_item(flow.request(request)?).await?.into_inner();
        expect("the same request at another node", again, added)?;
        let place = PlaceOrder { address_id: address_id.clone(), ..place(order) };
        let place = PlaceOrderRequest { request_id: id(), command: Some(place) };
        nodes[node(0)].place_order(flow.request(place)?).await?;
        for node in &mut nodes {
            // At least this version; inventory may have answered already.
            let get = GetOrderRequest { order_id: order.clone(), min_version: 3, ..GetOrderRequest::default() };
            let answer = node.get_order(flow.request(get)?).await?.into_inner();
            strongly(answer.read, answer.order.ok_or("no order")?.version)?;
        }
    }
    for node in &mut nodes {
        let batch = BatchGetOrdersRequest { order_ids: ids.clone(), ..BatchGetOrdersRequest::default() };
        let answer = node.batch_get_orders(flow.request(batch)?).await?.into_inner();
        let found: Vec<String> = answer.orders.iter().map(|order| order.order_id.clone()).collect();
        expect("the batch", found, ids.clone())?;
        strongly(answer.read, 0)?;
        let list = ListOrdersRequest { customer_id: customer.clone(), ..ListOrdersRequest::default() };
        let listed = node.list_orders(flow.request(list)?).await?.into_inner();
        let found: BTreeSet<String> = listed.orders.into_iter().map(|order| order.order_id).collect();
        expect("the list", found, ids.iter().cloned().collect())?;
    }
    for address in [shop.grpc.clone(), format!("http://{}", second.grpc)] {
        let mut stock = StockServiceClient::connect(address.clone()).await?;
        let asked = GetStockRequest { sku: "sku-1".to_owned(), ..GetStockRequest::default() };
        let read = stock.get_stock(flow.request(asked)?).await?.into_inner().read.unwrap_or_default();
        strongly(Some(read), read.version)?;
        let mut reservations = ReservationServiceClient::connect(address).await?;
        for order_id in &ids {
            let give_up = Instant::now() + Duration::from_secs(30);
            let asked = || GetReservationRequest { order_id: order_id.clone(), ..GetReservationRequest::default() };
            // Inventory hears of it in its own time.
            loop {
                match reservations.get_reservation(flow.request(asked())?).await {
                    Err(status) if status.code() == Code::NotFound => patient(give_up, "a reservation").await?,
                    answer => {
                        let read = answer?.into_inner().read.unwrap_or_default();
                        break strongly(Some(read), read.version)?;
                    }
                }
            }
        }
    }
    for (which, log, other) in [("first", shop.log(), second.log()), ("second", second.log(), shop.log())] {
        let asked = flow.lines(&log, "forwarded")?;
        let answered = flow.lines(&other, "asked by another node")?;
        if asked < ORDERS / 4 || answered < ORDERS / 4 {
            return Err(
                format!("the {which} node has asked the other {asked} times, which has heard {answered}").into()
            );
        }
    }
    leave(second).await?;
    shop.alone().await
}

async fn leave(mut second: Served) -> Result<(), Failed> {
    let status = second.leave().await?;
    if status.success() { Ok(()) } else { Err(format!("it left with {status}:\n{}", second.log()).into()) }
}

pub async fn a_watch_and_its_orders_survive_a_node_that_leaves_cleanly(shop: &Shop) -> Result<(), Failed> {
    survive(shop, leave, |_| false).await
}

pub async fn a_watch_and_its_orders_survive_a_node_that_is_killed(shop: &Shop) -> Result<(), Failed> {
    // Until its session and its lease are over nobody can answer for what it owned.
    let kill = async |second: Served| {
        drop(second);
        Ok(())
    };
    survive(shop, kill, |status| status.code() == Code::Unavailable).await
}

/// Watches orders at the first node and changes them there all the while, as the second goes. `may_fail` says
/// which failures a caller has to put up with; it then asks again, with the same request.
async fn survive(
    shop: &Shop,
    go: impl AsyncFnOnce(Served) -> Result<(), Failed>,
    may_fail: fn(&Status) -> bool,
) -> Result<(), Failed> {
    let second = shop.second_node().await?;
    let [first, _] = both(shop, &second).await?;
    let (stop, stopped) = watch::channel(false);
    let mut changed = Vec::new();
    for _ in 0..ORDERS {
        let order = id();
        first.clone().create_order(create(&order, &customer())).await?;
        let watching = watcher(first.clone(), &order).await?;
        let made = Arc::new(AtomicU64::new(0));
        let caller = tokio::spawn(caller(first.clone(), order.clone(), made.clone(), stopped.clone(), may_fail));
        changed.push(Changed { order, made, caller, watching });
    }
    move_on(&changed).await?;
    go(second).await?;
    shop.alone().await?;
    move_on(&changed).await?;
    stop.send(true)?;
    for Changed { order, made, caller, watching } in changed {
        caller.await??;
        let made = made.load(Ordering::SeqCst);
        let get = GetOrderRequest { order_id: order.clone(), ..GetOrderRequest::default() };
        let answer = first.clone().get_order(get).await?.into_inner();
        // One for its creation; each request took effect once, however often it was sent.
        expect("the version", answer.order.map(|order| order.version), Some(1 + made))?;
        let place = place(&order);
        first.clone().place_order(PlaceOrderRequest { request_id: id(), command: Some(place) }).await?;
        let seen = tokio::time::timeout(Duration::from_secs(30), watching).await;
        let seen = seen.map_err(|_| "the watch shows nothing")??;
        let seen = seen.map_err(|status| format!("the watch of {order} ended: {status:?}"))?;
        if !seen.is_sorted_by(|earlier, later| earlier < later) || seen.len() < 3 {
            return Err(format!("{order}: {made} changes, of which the watch has seen {seen:?}").into());
        }
    }
    Ok(())
}

/// An order that is changed and watched.
struct Changed {
    order: String,
    /// How often it was changed.
    made: Arc<AtomicU64>,
    caller: JoinHandle<Result<(), String>>,
    watching: JoinHandle<Result<Vec<u64>, Status>>,
}

/// Waits until each order has been changed twice more.
async fn move_on(changed: &[Changed]) -> Result<(), Failed> {
    let give_up = Instant::now() + Duration::from_mins(1);
    for Changed { order, made, caller, .. } in changed {
        let enough = made.load(Ordering::SeqCst) + 2;
        while made.load(Ordering::SeqCst) < enough && !caller.is_finished() {
            patient(give_up, &format!("changes to {order}")).await?;
        }
    }
    Ok(())
}

/// Adds items to the order until `stopped` is set.
async fn caller(
    mut orders: Orders,
    order: String,
    made: Arc<AtomicU64>,
    stopped: watch::Receiver<bool>,
    may_fail: fn(&Status) -> bool,
) -> Result<(), String> {
    while !*stopped.borrow() {
        let request = add(&order);
        let give_up = Instant::now() + Duration::from_mins(1);
        loop {
            match orders.add_item(request.clone()).await {
                Ok(_) => break,
                Err(status) if may_fail(&status) && Instant::now() < give_up => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => return Err(format!("{order}, a change after {made:?}: {status:?}")),
            }
        }
        made.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The versions that a watcher sees until the order is placed.
async fn watcher(mut orders: Orders, order: &str) -> Result<JoinHandle<Result<Vec<u64>, Status>>, Failed> {
    let mut changes =
        orders.watch_order(WatchOrderRequest { order_id: order.to_owned(), after_version: 0 }).await?.into_inner();
    Ok(tokio::spawn(async move {
        let mut versions = Vec::new();
        while let Some(seen) = changes.message().await? {
            let order = seen.order.unwrap_or_default();
            versions.push(order.version);
            if order.status() == OrderStatus::Placed {
                break;
            }
        }
        Ok(versions)
    }))
}
