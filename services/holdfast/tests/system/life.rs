//! The complete life of an order, across five contexts in processes of their own kind, with a provider that
//! fails one call in five.
//!
//! Invariant: money and stock are accounted for to the last unit, by the provider's own books and by
//! inventory's: an order that is delivered was charged once and left the shelves, one that is cancelled has
//! given back whatever had moved. Deliberately absent: how long it takes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast::shelves::{self, Shelf};
use holdfast_payments::simulator::{Config, Plan, Simulator};
use holdfast_platform::errors::reason;
use holdfast_proto::{
    customers::v1::{
        AddAddress, AddAddressRequest, Address, CreateCustomer, CreateCustomerRequest, EraseCustomer,
        EraseCustomerRequest, Preferences, Profile, ReactivateCustomer, ReactivateCustomerRequest, RemoveAddress,
        RemoveAddressRequest, SuspendCustomer, SuspendCustomerRequest, customer_service_client::CustomerServiceClient,
    },
    fulfillment::v1::{
        DispatchShipment, DispatchShipmentRequest, GetShipmentRequest, ListPickableRequest, PackShipment,
        PackShipmentRequest, RecordTracking, RecordTrackingRequest, StartPicking, StartPickingRequest, TrackingStatus,
        fulfillment_service_client::FulfillmentServiceClient,
    },
    inventory::v1::{GetStockRequest, stock_service_client::StockServiceClient},
    orders::v1::{
        AddItem, AddItemRequest, CancelOrder, CancelOrderRequest, CancellationCause, CreateOrder, CreateOrderRequest,
        GetOrderRequest, Order, OrderStatus, PlaceOrder, PlaceOrderRequest, order_service_client::OrderServiceClient,
    },
};
use holdfast_stack::{Stack, StackOptions};
use libtest_mimic::Failed;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;

use crate::shop::{Served, Shop, environment, holdfast, patient, prepare, provider, text};

const ORDERS: usize = 60;
const STOCK: i64 = 1_000;
/// Each context in a process of its own would take longer to start, not to run.
const ALL: &str = "orders,inventory,payments,fulfillment,customers";

/// What becomes of an order, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Story {
    /// Delivered.
    Good,
    /// The card is declined.
    Declined,
    /// The customer thinks better of it at once.
    Regretted,
    /// And this one only once it is paid; it may be on its way by then.
    RegrettedLate,
    /// More is wanted than there is.
    Short,
    /// To an address that the customer removes at the last moment, when orders still remembers it.
    Nowhere,
}

impl Story {
    fn of(n: usize) -> Self {
        match n % 10 {
            0 => Self::Declined,
            1 => Self::Regretted,
            2 => Self::RegrettedLate,
            3 => Self::Short,
            4 => Self::Nowhere,
            _ => Self::Good,
        }
    }
}

#[derive(Clone)]
pub struct Callers {
    orders: OrderServiceClient<Channel>,
    stock: StockServiceClient<Channel>,
    warehouse: FulfillmentServiceClient<Channel>,
    customers: CustomerServiceClient<Channel>,
}

fn id() -> String {
    Uuid::now_v7().to_string()
}

impl Callers {
    pub async fn connect(grpc: SocketAddr) -> Result<Self, Failed> {
        let channel = Channel::from_shared(format!("http://{grpc}"))?.connect().await?;
        Ok(Self {
            orders: OrderServiceClient::new(channel.clone()),
            stock: StockServiceClient::new(channel.clone()),
            warehouse: FulfillmentServiceClient::new(channel.clone()),
            customers: CustomerServiceClient::new(channel),
        })
    }

    pub async fn customer(&mut self) -> Result<(String, String), Status> {
        let customer_id = id();
        let profile = Profile { name: "Ada".into(), email: "ada@example.org".into(), phone: String::new() };
        let preferences = Some(Preferences { locale: "en".into(), marketing: false });
        let command = CreateCustomer { customer_id: customer_id.clone(), profile: Some(profile), preferences };
        let request = CreateCustomerRequest { request_id: id(), command: Some(command) };
        let customers = self.customers.clone();
        again(|| {
            let (mut customers, request) = (customers.clone(), request.clone());
            async move { customers.create_customer(request).await }
        })
        .await?;
        let address_id = self.address(&customer_id).await?;
        Ok((customer_id, address_id))
    }

    /// A new address of this customer.
    async fn address(&mut self, customer_id: &str) -> Result<String, Status> {
        let address_id = id();
        let address = Address {
            recipient: "Ada".into(),
            lines: vec!["1 Engine Row".into()],
            city: "London".into(),
            postal_code: "N1".into(),
            country: "GB".into(),
        };
        let (customer_id, address) = (customer_id.to_owned(), Some(address));
        let command = AddAddress { customer_id, address_id: address_id.clone(), address };
        self.customers.add_address(AddAddressRequest { request_id: id(), command: Some(command) }).await?;
        Ok(address_id)
    }

    /// Places one order, and does what its customer does.
    pub async fn order(mut self, story: Story, customer: (String, String)) -> Result<(String, Story), Status> {
        let (order_id, (customer_id, known)) = (id(), customer);
        self.create(&order_id, &customer_id).await?;
        let quantity = if story == Story::Short { STOCK + 1 } else { 2 };
        let command = AddItem { order_id: order_id.clone(), sku: "lamp".into(), quantity };
        self.orders.add_item(AddItemRequest { request_id: id(), command: Some(command) }).await?;
        let payment_method = if story == Story::Declined { "pm_card_chargeDeclined" } else { "pm_card_visa" };
        if story == Story::Nowhere {
            self.place_to_removed(&order_id, &customer_id, payment_method).await?;
        } else {
            self.place(&order_id, payment_method, &known).await?;
        }
        match story {
            Story::Regretted => self.cancel(&order_id).await?,
            Story::RegrettedLate => {
                while self.get(&order_id).await?.status() == OrderStatus::Placed {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                self.cancel(&order_id).await?;
            }
            _ => {}
        }
        Ok((order_id, story))
    }

    async fn place(&mut self, order_id: &str, payment_method: &str, address_id: &str) -> Result<(), Status> {
        let (payment_method, address_id) = (payment_method.to_owned(), address_id.to_owned());
        let command = PlaceOrder { order_id: order_id.to_owned(), payment_method, address_id };
        self.orders.place_order(PlaceOrderRequest { request_id: id(), command: Some(command) }).await.map(drop)
    }

    /// Has orders ask for an address, removes that, and places the order while orders remembers the answer,
    /// which is 5 s.
    async fn place_to_removed(&mut self, order_id: &str, customer_id: &str, card: &str) -> Result<(), Status> {
        loop {
            let address_id = self.address(customer_id).await?;
            let empty = id();
            self.create(&empty, customer_id).await?;
            // It is asked for before it is found that there is nothing to place.
            self.place(&empty, card, &address_id).await.expect_err("the order is empty");
            let command = RemoveAddress { customer_id: customer_id.to_owned(), address_id: address_id.clone() };
            self.customers.remove_address(RemoveAddressRequest { request_id: id(), command: Some(command) }).await?;
            match self.place(order_id, card, &address_id).await {
                Err(status) if reason(&status).as_deref() == Some("UNKNOWN_ADDRESS") => {} // the machine was too slow
                placed => return placed,
            }
        }
    }

    async fn create(&mut self, order_id: &str, customer_id: &str) -> Result<(), Status> {
        let (order_id, customer_id) = (order_id.to_owned(), customer_id.to_owned());
        let command = CreateOrder { order_id, customer_id, currency: "EUR".into() };
        self.orders.create_order(CreateOrderRequest { request_id: id(), command: Some(command) }).await.map(drop)
    }

    /// Too late is an answer.
    pub async fn cancel(&mut self, order_id: &str) -> Result<(), Status> {
        let command = CancelOrder { order_id: order_id.into(), reason: "regretted".into() };
        match self.orders.cancel_order(CancelOrderRequest { request_id: id(), command: Some(command) }).await {
            Err(status) if status.code() != Code::FailedPrecondition => Err(status),
            _ => Ok(()),
        }
    }

    pub async fn get(&mut self, order_id: &str) -> Result<Order, Status> {
        let request = GetOrderRequest { order_id: order_id.into(), ..GetOrderRequest::default() };
        let answer = self.orders.get_order(request).await?.into_inner();
        answer.order.ok_or_else(|| Status::internal("an answer without an order"))
    }

    async fn works_until(mut self, closing: CancellationToken) -> Result<(), Status> {
        while !closing.is_cancelled() {
            self.work().await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Picks, packs, ships and delivers whatever can be picked. What was cancelled meanwhile says so.
    async fn work(&mut self) -> Result<(), Status> {
        let found = self.warehouse.list_pickable(ListPickableRequest::default()).await?.into_inner();
        for shipment in found.shipments {
            let order_id = shipment.order_id;
            match self.ship(&order_id).await {
                Err(status) if status.code() != Code::FailedPrecondition => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    async fn ship(&mut self, order_id: &str) -> Result<(), Status> {
        let order_id = || order_id.to_owned();
        let command = StartPicking { order_id: order_id() };
        self.warehouse.start_picking(StartPickingRequest { request_id: id(), command: Some(command) }).await?;
        let command = PackShipment { order_id: order_id() };
        self.warehouse.pack_shipment(PackShipmentRequest { request_id: id(), command: Some(command) }).await?;
        let command = DispatchShipment { order_id: order_id(), ..DispatchShipment::default() };
        let request = DispatchShipmentRequest { request_id: id(), command: Some(command) };
        let sent = self.warehouse.dispatch_shipment(request).await?.into_inner().shipment.unwrap_or_default();
        // The carrier tells things in its own order, and twice.
        for status in
            [TrackingStatus::InTransit, TrackingStatus::Delivered, TrackingStatus::Accepted, TrackingStatus::Delivered]
        {
            let command = RecordTracking {
                order_id: order_id(),
                tracking_number: sent.tracking_number.clone(),
                status: status.into(),
                occurred_at: Some(holdfast_proto::time::from_unix_ms(
                    holdfast_load_tests::work::now_ms().cast_signed(),
                )),
            };
            let request = RecordTrackingRequest { request_id: id(), command: Some(command) };
            self.warehouse.record_tracking(request).await?;
        }
        Ok(())
    }
}

/// A fresh node may still be taking its partitions.
async fn again<T, F: Future<Output = Result<T, Status>>>(mut call: impl FnMut() -> F) -> Result<T, Status> {
    let give_up = Instant::now() + Duration::from_mins(1);
    loop {
        match call().await {
            Err(status) if status.code() == Code::Unavailable && Instant::now() < give_up => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => return answer,
        }
    }
}

/// What the provider has of an order: charges that went through, and what was given back of them.
pub fn money(account: &serde_json::Value, order_id: &str) -> (Vec<i64>, i64) {
    let charges = account["charges"].as_array().into_iter().flatten();
    let of = charges.filter(|charge| charge["order_id"] == order_id && charge["status"] == "succeeded");
    of.fold((Vec::new(), 0), |(mut taken, back), charge| {
        taken.push(charge["amount"].as_i64().unwrap_or(0));
        (taken, back + charge["refunded"].as_i64().unwrap_or(0))
    })
}

pub async fn every_order_ends_and_provider_books_and_shelves_balance(_: &Shop) -> Result<(), Failed> {
    let stack = Stack::start(StackOptions::default()).await?;
    // What hangs does so until the caller has lost its patience.
    let behaviour = Config { plan: Plan::Random { per_mille: 200 }, hang: Duration::from_secs(9), ..Config::default() };
    let (simulator, address) = provider(behaviour).await?;
    let url = format!("http://{address}");
    let variables = [("HOLDFAST_PAYMENTS_PROVIDER_URL", url.as_str()), ("HOLDFAST_PAYMENTS_API_KEY", "sk_test")];
    prepare(&stack, ALL)?;
    let mut served = Served::launch_serving(&stack, ALL, &variables).await?;
    let outcome = lives(&served, &simulator, &stack).await;
    if outcome.is_err() {
        served.tell_log();
    }
    outcome?;
    let left = served.leave().await?;
    if left.success() { Ok(()) } else { Err(format!("it left with {left}").into()) }
}

async fn lives(served: &Served, simulator: &Simulator, stack: &Stack) -> Result<(), Failed> {
    let mut callers = Callers::connect(served.grpc).await?;
    let shelf = Shelf { sku: "lamp".into(), quantity: STOCK, price_minor: 1_250 };
    shelves::fill(&shelves::inventory(&format!("http://{}", served.grpc))?, "life", [shelf]).await?;
    let customer = callers.customer().await?;
    let placing = (0..ORDERS).map(|n| callers.clone().order(Story::of(n), customer.clone()));
    let placing = stream::iter(placing).buffer_unordered(8).try_collect::<Vec<_>>();
    // In a task of its own, so that nothing is dropped half shipped.
    let closing = CancellationToken::new();
    let warehouse = tokio::spawn(callers.clone().works_until(closing.clone()));
    let orders = placing.await?;
    let give_up = Instant::now() + Duration::from_mins(3);
    let mut ended = BTreeMap::new();
    while ended.len() < orders.len() {
        for (order_id, story) in orders.iter().filter(|(order_id, _)| !ended.contains_key(order_id)).collect::<Vec<_>>()
        {
            let order = callers.get(order_id).await?;
            if matches!(order.status(), OrderStatus::Delivered | OrderStatus::Cancelled) {
                ended.insert(order_id.clone(), (order, *story));
            }
        }
        if Instant::now() > give_up {
            for (order_id, story) in orders.iter().filter(|(order_id, _)| !ended.contains_key(order_id)) {
                let output = holdfast().args(["order", "trace", order_id]).envs(environment(stack)).output()?;
                eprintln!("{story:?}:\n{}{}", text(&output.stdout), text(&output.stderr));
            }
        }
        patient(give_up, &format!("{} of {} orders to end", orders.len() - ended.len(), orders.len())).await?;
    }
    closing.cancel();
    warehouse.await??;
    let delivered = stories(&ended)?;
    let give_up = Instant::now() + Duration::from_mins(2);
    while let Err(wrong) = books(&simulator.account(), &ended) {
        patient(give_up, &wrong).await?;
    }
    let stock = loop {
        let request = GetStockRequest { sku: "lamp".into(), ..GetStockRequest::default() };
        let item = callers.stock.get_stock(request).await?.into_inner().item.unwrap_or_default();
        if item.reserved == 0 {
            break item;
        }
        patient(give_up, &format!("{} lamps to be given back or shipped", item.reserved)).await?;
    };
    let expected = STOCK - 2 * i64::try_from(delivered)?;
    if stock.on_hand != expected {
        return Err(format!("{} lamps are on hand, {expected} should be", stock.on_hand).into());
    }
    refuses(&mut callers, simulator, &customer).await?;
    operators_see(stack, &ended).await?;
    forgets(&mut callers, &customer.0, &ended).await
}

/// What can't be sent or charged is refused at once, and the provider never hears of it.
async fn refuses(callers: &mut Callers, simulator: &Simulator, regular: &(String, String)) -> Result<(), Failed> {
    let expect = |what: &str, answer: Result<(), Status>, name: &str| match answer {
        Err(status) if status.code() == Code::FailedPrecondition && reason(&status).as_deref() == Some(name) => Ok(()),
        other => Err(Failed::from(format!("{what}: {other:?} instead of {name}"))),
    };
    expect("nobody's order", callers.create(&id(), &id()).await, "UNKNOWN_CUSTOMER")?;
    // A customer of whom orders has never heard anything good.
    let (customer_id, address_id) = callers.customer().await?;
    let suspend = |customer_id: &str| {
        let command = Some(SuspendCustomer { customer_id: customer_id.to_owned(), reason: "bounced".into() });
        SuspendCustomerRequest { request_id: id(), command }
    };
    callers.customers.suspend_customer(suspend(&customer_id)).await?;
    let order_id = id();
    expect("suspended, opening", callers.create(&order_id, &customer_id).await, "CUSTOMER_NOT_ACTIVE")?;
    let command = Some(ReactivateCustomer { customer_id: customer_id.clone() });
    callers.customers.reactivate_customer(ReactivateCustomerRequest { request_id: id(), command }).await?;
    // What was bad is not remembered.
    callers.create(&order_id, &customer_id).await?;
    let command = AddItem { order_id: order_id.clone(), sku: "lamp".into(), quantity: 1 };
    callers.orders.add_item(AddItemRequest { request_id: id(), command: Some(command) }).await?;
    for (what, card, address, name) in [
        ("another's address", "pm_card_visa", &regular.1, "UNKNOWN_ADDRESS"),
        ("no address", "pm_card_visa", &String::new(), "UNKNOWN_ADDRESS"),
        ("a card's number", "4242 4242 4242 4242", &String::new(), "INVALID_PAYMENT_METHOD"),
        ("no card", "", &String::new(), "INVALID_PAYMENT_METHOD"),
    ] {
        expect(what, callers.place(&order_id, card, address).await, name)?;
    }
    callers.customers.suspend_customer(suspend(&customer_id)).await?;
    expect("suspended", callers.place(&order_id, "pm_card_visa", &address_id).await, "CUSTOMER_NOT_ACTIVE")?;
    let command = Some(EraseCustomer { customer_id: customer_id.clone() });
    callers.customers.erase_customer(EraseCustomerRequest { request_id: id(), command }).await?;
    expect("erased", callers.place(&order_id, "pm_card_visa", &address_id).await, "CUSTOMER_NOT_ACTIVE")?;
    let order = callers.get(&order_id).await?;
    let charges = simulator.account()["charges"].as_array().cloned().unwrap_or_default();
    let is_charged = charges.iter().any(|charge| charge["order_id"] == order_id.as_str());
    if order.status() != OrderStatus::Draft || is_charged {
        return Err(format!("{order_id} is {:?}, charged: {is_charged}", order.status()).into());
    }
    Ok(())
}

/// Operators see that the contexts agree, and by which events one order came to its end.
async fn operators_see(stack: &Stack, ended: &BTreeMap<String, (Order, Story)>) -> Result<(), Failed> {
    let run = |arguments: &[&str]| holdfast().args(arguments).envs(environment(stack)).output();
    // What the provider has given back payments may yet have to hear of.
    let give_up = Instant::now() + Duration::from_mins(2);
    loop {
        let output = run(&["reconcile", "--settled", "0s"])?;
        if output.status.success() {
            break;
        }
        patient(give_up, &format!("the contexts to agree: {}{}", text(&output.stdout), text(&output.stderr))).await?;
    }
    let good = ended.iter().find(|(_, (order, _))| order.status() == OrderStatus::Delivered);
    let (order_id, _) = good.ok_or("no order was delivered")?;
    let output = run(&["order", "trace", order_id])?;
    let trace = text(&output.stdout);
    let way = [
        "OrderPlaced",
        "StockReserved",
        "OrderReserved",
        "PaymentRequested",
        "PaymentCaptured",
        "OrderPaid",
        "ReservationConfirmed",
        "ShipmentRequested",
        "ShipmentDispatched",
        "OrderShipped",
        "ReservationShipped",
        "ShipmentDelivered",
        "OrderDelivered",
    ];
    match way.iter().find(|event| !trace.contains(**event)) {
        Some(missing) => Err(format!("{missing} is not in the trace:\n{trace}").into()),
        None => Ok(()),
    }
}

/// Each order ended as it had to. Returns how many were delivered.
fn stories(ended: &BTreeMap<String, (Order, Story)>) -> Result<usize, Failed> {
    let mut delivered = 0;
    let mut table: BTreeMap<(Story, String), usize> = BTreeMap::new();
    for (order_id, (order, story)) in ended {
        let cause = order.cancellation.as_ref().map(holdfast_proto::orders::v1::Cancellation::cause);
        delivered += usize::from(cause.is_none());
        // To decline what it should not is one of the ways in which this provider fails.
        let is_declined = cause == Some(CancellationCause::PaymentDeclined);
        let is_right = match story {
            Story::Good => cause.is_none() || is_declined,
            Story::Declined => is_declined,
            Story::Regretted => cause == Some(CancellationCause::Requested),
            Story::RegrettedLate => matches!(cause, None | Some(CancellationCause::Requested)) || is_declined,
            Story::Short => cause == Some(CancellationCause::OutOfStock),
            Story::Nowhere => cause == Some(CancellationCause::Undeliverable) || is_declined,
        };
        *table.entry((*story, format!("{cause:?}"))).or_default() += 1;
        if !is_right {
            return Err(format!("{order_id}: a story of {story:?} ended as {:?}, {cause:?}", order.status()).into());
        }
    }
    eprintln!("{table:?}");
    if delivered < ORDERS / 4 {
        return Err(format!("too tame: {delivered} delivered").into());
    }
    Ok(delivered)
}

/// The provider's books agree with the orders.
fn books(account: &serde_json::Value, ended: &BTreeMap<String, (Order, Story)>) -> Result<(), String> {
    for (order_id, (order, story)) in ended {
        let total = order.total.as_ref().map_or(0, |total| total.minor);
        let (taken, back) = money(account, order_id);
        let is_right = match order.status() {
            OrderStatus::Delivered => taken == [total] && back == 0,
            _ => taken.iter().sum::<i64>() == back && taken.len() <= 1,
        };
        if !is_right {
            return Err(format!(
                "{order_id}, {story:?}, {:?}: {total} to pay, {taken:?} taken, {back} given back",
                order.status()
            ));
        }
    }
    Ok(())
}

/// A customer who asks to be forgotten is, also where parcels were sent from.
async fn forgets(
    callers: &mut Callers,
    customer_id: &str,
    ended: &BTreeMap<String, (Order, Story)>,
) -> Result<(), Failed> {
    let command = Some(EraseCustomer { customer_id: customer_id.to_owned() });
    callers.customers.erase_customer(EraseCustomerRequest { request_id: id(), command }).await?;
    let give_up = Instant::now() + Duration::from_mins(1);
    for (order_id, (order, _)) in ended {
        if order.status() != OrderStatus::Delivered {
            continue;
        }
        loop {
            let request = GetShipmentRequest { order_id: order_id.clone(), ..GetShipmentRequest::default() };
            if callers.warehouse.get_shipment(request).await?.into_inner().address.is_none() {
                break;
            }
            patient(give_up, "an address to be erased").await?;
        }
    }
    Ok(())
}
