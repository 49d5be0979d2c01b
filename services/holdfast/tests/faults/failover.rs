//! How long an order goes unanswered when its owner is killed under load, and when it leaves in good order.
//!
//! One order per partition is read, STRONG, again and again, at whatever node answers; its pause is the
//! longest time between two answers. Prints figures and judges none: they are the machine's. Deliberately
//! absent: how it comes to them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_load_tests::{
    checkers,
    faults::load::Crowd,
    producer::{self, Ledger},
    work::Planned,
};
use holdfast_proto::orders::v1::{GetOrderRequest, order_service_client::OrderServiceClient};
use libtest_mimic::Failed;
use serde_json::json;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    sabotage::Sabotage,
    world::{PARTITIONS, PRODUCERS_MAX_AGE, Settings, World},
};

/// Between two reads of one order.
const EVERY: Duration = Duration::from_millis(10);
/// For one read.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Commands a second meanwhile.
const RATE: u32 = 300;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Kills and restarts each node in turn, and prints how long orders of it went unanswered.
pub async fn measure(rounds: u32, session: Duration, lease: Duration, dir: PathBuf) -> Result<(), Failed> {
    let world = World::open(Settings {
        nodes: 3,
        how: Sabotage::None,
        session,
        lease,
        dir,
        producers_max_age: PRODUCERS_MAX_AGE,
    })
    .await?;
    let probes = probes(&world).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let sending = keep_sending(&world, rounds, is_over.clone());
    let mut pauses: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let mut exits = Vec::new();
    for round in 0..rounds {
        for how in ["killed", "left"] {
            let which = round as usize % world.nodes();
            world.until_shared().await?;
            let seen = Probing::begin(&world, &probes, which).await?;
            let began = Instant::now();
            if how == "killed" {
                world.kill(which).await;
            } else {
                world.leave(which).await?;
                exits.push(began.elapsed());
            }
            let found = seen.end(began).await?;
            eprintln!(
                "node {} {how}: {} partitions of orders, unanswered for {}",
                which + 1,
                found.len(),
                spread(&found)
            );
            world.diary.mark("failover", &json!({ "how": how, "node": which + 1, "pauses_ms": ms(&found) }));
            pauses.entry(how).or_default().extend(found);
            world.launch(which).await?;
        }
    }
    is_over.store(true, Ordering::Release);
    sending.await??;
    println!("session timeout {:.1} s, lease {:.1} s, {rounds} rounds", session.as_secs_f64(), lease.as_secs_f64());
    println!(
        "killed owner, orders unanswered: {}; aim {:.1} s",
        spread(&pauses["killed"]),
        session.as_secs_f64() + 2.0
    );
    println!("clean hand-over, orders unanswered: {}; aim 1.0 s", spread(&pauses["left"]));
    println!("a leaving process takes: {}", spread(&exits));
    Ok(())
}

fn ms(found: &[Duration]) -> Vec<u128> {
    found.iter().map(Duration::as_millis).collect()
}

fn spread(found: &[Duration]) -> String {
    let mut sorted = found.to_vec();
    sorted.sort_unstable();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(most)) => format!("p50 {:.2} s, max {:.2} s", median.as_secs_f64(), most.as_secs_f64()),
        _ => "nothing seen".to_owned(),
    }
}

/// One order for each partition of orders, by its partition.
async fn probes(world: &World) -> Result<BTreeMap<i32, String>, Failed> {
    let crowd = Crowd { commands: 2_000, orders: 200, hot: 0, repeated: 0, seed: 1, time_ms: 1 };
    let brokers = world.stack.brokers();
    producer::produce_records(brokers, "orders.commands", crowd.records()).await?;
    checkers::settled(&world.target, PATIENCE, |_| {}).await?;
    let events = checkers::events(brokers, "orders.events", world.target.patience).await?;
    let probes: BTreeMap<i32, String> = events.into_iter().map(|event| (event.partition, event.key)).collect();
    if probes.len() == PARTITIONS {
        Ok(probes)
    } else {
        Err(format!("orders in {} partitions only", probes.len()).into())
    }
}

/// Load until `is_over`.
fn keep_sending(world: &World, rounds: u32, is_over: Arc<AtomicBool>) -> JoinHandle<Result<Ledger, producer::Error>> {
    let commands = RATE * 60 * rounds.max(1);
    let crowd = Crowd { commands, orders: 500, hot: 5, repeated: 100, seed: 2, time_ms: 2 };
    let options = producer::Options { rate: RATE, ..producer::Options::to("orders.commands") };
    let brokers = world.stack.brokers().to_owned();
    // A second's worth each.
    let windows: Vec<Vec<Planned>> = crowd.records().chunks(RATE as usize).map(<[Planned]>::to_vec).collect();
    let windows = windows.into_iter().take_while(move |_| !is_over.load(Ordering::Acquire));
    tokio::spawn(async move { producer::produce_windows(&brokers, windows, options, |_| {}).await })
}

/// Reads that go on.
struct Probing {
    stop: watch::Sender<bool>,
    probes: JoinSet<Vec<Instant>>,
}

impl Probing {
    /// Begins to read the orders of all partitions that node `which` owns; each has been answered when this
    /// returns.
    async fn begin(world: &Arc<World>, probes: &BTreeMap<i32, String>, which: usize) -> Result<Self, Failed> {
        let homes = checkers::homes(&world.target.orders).await?;
        let address = world.slot(which).address().to_string();
        let stop = watch::Sender::new(false);
        let mut all = JoinSet::new();
        let (answered, mut first) = tokio::sync::mpsc::unbounded_channel();
        let mut count = 0;
        for (partition, order) in probes {
            if homes.get(partition).is_some_and(|(owner, _)| *owner == address) {
                count += 1;
                all.spawn(read(world.addresses(), order.clone(), stop.subscribe(), answered.clone()));
            }
        }
        drop(answered);
        for _ in 0..count {
            let next = tokio::time::timeout(PATIENCE, first.recv()).await;
            next.map_err(|_| "an order is not answered before anything is done")?;
        }
        Ok(Self { stop, probes: all })
    }

    /// Waits until every order has been answered after `since`, by whom ever, for a while; the longest time
    /// between two answers of each.
    async fn end(self, since: Instant) -> Result<Vec<Duration>, Failed> {
        // Long enough for a session and a lease to run out: what is answered by then, without a pause, has
        // moved.
        sleep(Duration::from_millis(200)).await;
        self.stop.send_replace(true);
        let answers = self.probes.join_all().await;
        let pause = |times: Vec<Instant>| {
            let pairs = times.windows(2).filter(|pair| pair[1] > since);
            pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        Ok(answers.into_iter().map(pause).collect())
    }
}

/// The times of the answers. After `stop` the reader still waits for one answer more.
async fn read(
    nodes: Vec<SocketAddr>,
    order_id: String,
    stop: watch::Receiver<bool>,
    first: tokio::sync::mpsc::UnboundedSender<()>,
) -> Vec<Instant> {
    let mut clients: Vec<OrderServiceClient<Channel>> = nodes.iter().filter_map(|node| client(*node)).collect();
    let (mut at, mut times) = (0, Vec::new());
    let give_up = Instant::now() + PATIENCE;
    while Instant::now() < give_up {
        let was_stopped = *stop.borrow();
        let request = GetOrderRequest { order_id: order_id.clone(), ..GetOrderRequest::default() };
        let Some(client) = clients.get_mut(at) else { break };
        if client.get_order(request).await.is_ok() {
            times.push(Instant::now());
            let _ = first.send(());
            if was_stopped {
                break;
            }
        } else {
            at = (at + 1) % clients.len();
        }
        sleep(EVERY).await;
    }
    times
}

fn client(address: SocketAddr) -> Option<OrderServiceClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    Some(OrderServiceClient::new(endpoint.connect_timeout(ATTEMPT).timeout(ATTEMPT).connect_lazy()))
}
