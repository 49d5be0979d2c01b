//! What the old build leaves: files from which its schemas and topics can be made again.
//!
//! States, claims (more of an order than fit in its row), dead letters, timers, mail that waits for a
//! context that is away, and records of the outbox that no broker has. Deliberately absent: the files'
//! form ([`holdfast_load_tests::faults::dump`]).

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use holdfast_load_tests::{
    checkers::{self, Backlog},
    faults::{dump, load::Crowd, proxy::Mode},
    producer::{self, Ledger, Options},
    work::{Mix, Planned, now_ms, regular},
};
use holdfast_proto::orders::v1::{
    AddItem, AddItemRequest, CancelOrder, CancelOrderRequest, CreateOrder, CreateOrderRequest,
    order_service_client::OrderServiceClient,
};
use libtest_mimic::Failed;
use tonic::transport::Channel;
use uuid::Uuid;

use super::{
    build,
    fleet::{Build, End, Fleet},
};
use crate::world::PATIENCE;

/// Orders that live and end, or wait, before anything is away.
const ORDERS: u32 = 120;
/// Messages that wait for a context that is away, at least.
const WAITING: i64 = 8;
/// Orders that are cancelled while no broker is there.
const UNPUBLISHED: i64 = 6;

/// Lets the build of `commit` work, ends it in the midst of it, and writes what is left into `to`.
pub async fn write(commit: &str, seed: u64, dir: PathBuf, to: &Path) -> Result<(), Failed> {
    let old = build::old(commit).await?;
    let mut fleet = Fleet::open(old.clone(), old, dir).await?;
    fleet.part();
    fleet.must(Build::Old, &["migrate", Fleet::contexts()]).await?;
    fleet.must(Build::Old, &["topics", "apply", Fleet::contexts()]).await?;
    fleet.launch(0, Build::Old).await?;
    fleet.launch(1, Build::Old).await?;
    fleet.until_shared().await?;
    fleet.fill().await?;
    let crowd = Crowd { commands: 300, orders: 6, hot: 2, repeated: 50, seed, time_ms: now_ms() };
    let mut ledger = send(&fleet, crowd.records()).await?;
    let shares = Mix { unknown_sku: 50, empty: 50, bad: 60, repeated: 100, ..Mix::demo(ORDERS, seed) };
    ledger.absorb(send(&fleet, Mix { window: 20, ..shares }.windows().flatten().collect()).await?);
    let mut orders = client(&fleet).await?;
    let mut called = Vec::new();
    for _ in 0..UNPUBLISHED {
        called.push(order(&mut orders).await?);
    }
    checkers::settled(&fleet.target, PATIENCE, |_| {}).await?;
    fleet.end(0, End::Kill).await?;
    let target = fleet.target.clone().orders_only();
    let give_up = Instant::now() + PATIENCE;
    let mut round = 0;
    // What was looked up just now is remembered for a while.
    while checkers::backlog(&target).await.waiting < WAITING {
        if Instant::now() > give_up {
            return Err("nothing waits for contexts that are away".into());
        }
        round += 1;
        let few = Mix { window: 5, repeated: 0, ..Mix::demo(5, seed.wrapping_add(round << 40)) };
        ledger.absorb(send(&fleet, few.windows().flatten().collect()).await?);
    }
    fleet.way.set(Mode::Hold);
    for id in called {
        let command = Some(CancelOrder { order_id: id.to_string(), reason: "enough".into() });
        orders.cancel_order(CancelOrderRequest { request_id: Uuid::now_v7().to_string(), command }).await?;
    }
    fleet.end(1, End::Kill).await?;
    let Backlog { waiting: mail, unpublished, .. } = checkers::backlog(&target).await;
    fleet.say(format_args!(
        "{} records sent; {mail} messages wait, {unpublished} records of the outbox are unpublished",
        ledger.records
    ));
    if mail < WAITING || unpublished < UNPUBLISHED {
        return Err("it has left too little".into());
    }
    dump::write(fleet.stack.brokers(), &fleet.schemas(), &topics(), &ledger, to).await?;
    Ok(())
}

/// All topics of the contexts.
fn topics() -> Vec<String> {
    let of = |context: &str| ["commands", "events", "dlq"].map(|kind| format!("{context}.{kind}"));
    Fleet::contexts().split(',').flat_map(of).collect()
}

async fn send(fleet: &Fleet, records: Vec<Planned>) -> Result<Ledger, Failed> {
    let options = Options { rate: 400, ..Options::to("orders.commands") };
    Ok(producer::produce_at_pace(fleet.stack.brokers(), records, options, |_| {}).await?)
}

async fn client(fleet: &Fleet) -> Result<OrderServiceClient<Channel>, Failed> {
    let address = format!("http://{}", fleet.addresses()[1]);
    Ok(OrderServiceClient::connect(address).await?)
}

/// An order with one line, made by calls.
async fn order(orders: &mut OrderServiceClient<Channel>) -> Result<Uuid, Failed> {
    let id = Uuid::now_v7();
    let (order_id, customer_id) = (id.to_string(), regular(0).0.to_string());
    let command = Some(CreateOrder { order_id: order_id.clone(), customer_id, currency: "EUR".into() });
    orders.create_order(CreateOrderRequest { request_id: Uuid::now_v7().to_string(), command }).await?;
    let command = Some(AddItem { order_id, sku: Mix::sku(0), quantity: 1 });
    orders.add_item(AddItemRequest { request_id: Uuid::now_v7().to_string(), command }).await?;
    Ok(id)
}
