//! Inventory away, slow, failing and flapping, while orders has to ask it for every price.
//!
//! Invariant: a context in trouble is asked less, not more; a caller that needs it hears so, and when to come
//! back; what waits for it is applied once it is there again, without a restart; and a call that needs
//! nothing of it goes on as before. Every bound is a ratio to the same run's healthy part, or a deadline that
//! a caller was promised. Deliberately absent: the price memory, which would hide all of it (its time is 0).

mod catalog;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast::{
    people,
    shelves::{self, Shelf},
};
use holdfast_load_tests::{
    checkers::{self, Target},
    producer::{self, Options},
    work::{Mix, regulars},
};
use holdfast_proto::orders::v1::{
    AddItem, AddItemRequest, CancelOrder, CancelOrderRequest, CreateOrder, CreateOrderRequest, GetOrderRequest, Order,
    PlaceOrderRequest, RemoveItem, RemoveItemRequest, order_service_client::OrderServiceClient,
};
use holdfast_stack::{Stack, StackOptions};
use libtest_mimic::Failed;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use self::catalog::{Catalog, Mood};
use crate::shop::{Served, Shop, customer, patient, place, prepare};

/// Orders that callers add to.
const ORDERS: usize = 40;
/// Commands a second through Kafka, half of which need a price.
const RECORDS_PER_SECOND: u32 = 120;
/// Items a second that callers add.
const ADDS_PER_SECOND: u32 = 80;
/// Rounds a second of what needs no price.
const ROUNDS_PER_SECOND: u32 = 10;
/// What callers give a call.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long each trouble lasts, and the healthy part before.
const PHASE: Duration = Duration::from_secs(6);
/// A flap is so long.
const FLAP: Duration = Duration::from_millis(300);
/// After a trouble, prices are there again within this: the circuit's time, and a probe.
const RECOVERY: Duration = Duration::from_secs(10);

type Orders = OrderServiceClient<Channel>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Healthy,
    Down,
    Slow,
    Failing,
    Flapping,
    /// Between two troubles.
    Recovering,
}

const TROUBLES: [Phase; 4] = [Phase::Down, Phase::Slow, Phase::Failing, Phase::Flapping];

/// What callers met in one phase.
#[derive(Default)]
struct Met {
    /// Calls that came to inventory.
    asked: u64,
    lasted: Duration,
    added: Vec<Duration>,
    unavailable: Vec<Duration>,
    bystanders: Vec<Duration>,
}

impl Met {
    fn asked_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let asked = self.asked as f64;
        asked / self.lasted.as_secs_f64()
    }
}

/// The time in `took` that `hundredths` percent of the others are shorter than.
fn percentile(took: &[Duration], hundredths: usize) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// The run as it goes.
struct Run {
    phase: Phase,
    met: BTreeMap<Phase, Met>,
    /// Adds that were refused, to be sent again.
    refused: Vec<AddItemRequest>,
    /// One that was taken.
    taken: Option<AddItemRequest>,
    wrong: Vec<String>,
}

#[derive(Clone)]
struct Callers {
    orders: Orders,
    run: Arc<Mutex<Run>>,
}

fn id() -> String {
    Uuid::now_v7().to_string()
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn add(order_id: &str, n: usize) -> AddItemRequest {
    let sku = Mix::sku(u32::try_from(n % 100).unwrap_or(0));
    let command = Some(AddItem { order_id: order_id.to_owned(), sku, quantity: 1 });
    AddItemRequest { request_id: id(), command }
}

impl Callers {
    fn run(&self) -> std::sync::MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create(&mut self) -> Result<String, Status> {
        let (order_id, customer_id) = (id(), customer());
        let command = CreateOrder { order_id: order_id.clone(), customer_id, currency: "EUR".into() };
        self.orders.create_order(within(CreateOrderRequest { request_id: id(), command: Some(command) })).await?;
        Ok(order_id)
    }

    /// An order with two lines.
    async fn filled(mut self) -> Result<String, Status> {
        let order = self.create().await?;
        for n in 0..2 {
            self.orders.add_item(within(add(&order, n))).await?;
        }
        Ok(order)
    }

    async fn get(&mut self, order_id: &str) -> Result<Order, Status> {
        let get = GetOrderRequest { order_id: order_id.to_owned(), ..GetOrderRequest::default() };
        let answer = self.orders.get_order(within(get)).await?.into_inner();
        answer.order.ok_or_else(|| Status::internal("no order"))
    }

    /// Adds an item; that it can't be done now must be said in time, and with when to try again.
    async fn adds(mut self, request: AddItemRequest) {
        let (phase, began) = (self.run().phase, Instant::now());
        let answer = self.orders.add_item(within(request.clone())).await;
        let took = began.elapsed();
        let mut run = self.run();
        match answer {
            Ok(_) => {
                run.met.entry(phase).or_default().added.push(took);
                run.taken = Some(request);
            }
            Err(status) => {
                let retry = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
                if status.code() != Code::Unavailable || retry.is_none() || took > DEADLINE {
                    run.wrong.push(format!("{phase:?}: an add after {took:?}: {status:?}, retry {retry:?}"));
                }
                run.met.entry(phase).or_default().unavailable.push(took);
                run.refused.push(request);
            }
        }
    }

    /// Does everything that needs no price, once.
    async fn bystands(mut self, filled: String) {
        let round = async {
            let (phase, mut took) = (self.run().phase, Vec::new());
            let mut began = Instant::now();
            let mut lap = || took.push(std::mem::replace(&mut began, Instant::now()).elapsed());
            let fresh = self.create().await?;
            lap();
            self.get(&fresh).await?;
            lap();
            let cancel = CancelOrder { order_id: fresh, reason: "no more".into() };
            self.orders.cancel_order(within(CancelOrderRequest { request_id: id(), command: Some(cancel) })).await?;
            lap();
            let remove = RemoveItem { order_id: filled.clone(), sku: Mix::sku(0) };
            self.orders.remove_item(within(RemoveItemRequest { request_id: id(), command: Some(remove) })).await?;
            lap();
            let place = place(&filled);
            self.orders.place_order(within(PlaceOrderRequest { request_id: id(), command: Some(place) })).await?;
            lap();
            self.run().met.entry(phase).or_default().bystanders.extend(took);
            Ok::<_, Status>(())
        };
        if let Err(status) = round.await {
            let mut run = self.run();
            let phase = run.phase;
            run.wrong.push(format!("{phase:?}: a bystander: {status:?}"));
        }
    }
}

/// Starts one of `what` after the other, `per_second` a second, until `stop`; then waits for them.
async fn steadily<F>(per_second: u32, stop: CancellationToken, mut what: impl FnMut(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut going = JoinSet::new();
    for n in 0.. {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {
                going.spawn(what(n));
            }
        }
    }
    going.join_all().await;
}

pub async fn in_trouble_is_asked_less_and_holds_up_only_who_needs_it(_: &Shop) -> Result<(), Failed> {
    let stack = Stack::start(StackOptions::default()).await?;
    prepare(&stack, "orders,inventory,customers")?;
    let quiet = ("HOLDFAST_LOG_FILTER", "info,librdkafka=off");
    let inventory = Served::launch_serving(&stack, "inventory", &[quiet]).await?;
    let shelf = |n| Shelf { sku: Mix::sku(n), quantity: 1_000_000, price_minor: 1_000 };
    shelves::fill(&shelves::inventory(&format!("http://{}", inventory.grpc))?, "shop", (0..100).map(shelf)).await?;
    let catalog = Catalog::open(inventory.grpc).await?;
    let variables = [quiet, ("HOLDFAST_INVENTORY_ADDR", catalog.address.as_str()), ("HOLDFAST_PRICE_CACHE_TTL", "0s")];
    let served = Served::launch_serving(&stack, "orders,customers", &variables).await?;
    people::register(&people::customers(&format!("http://{}", served.grpc))?, regulars()).await?;
    let outcome = troubles(&stack, &served, &catalog).await;
    if outcome.is_err() {
        served.log().lines().rev().take(40).for_each(|line| eprintln!("{line}"));
    }
    outcome
}

async fn troubles(stack: &Stack, served: &Served, catalog: &Catalog) -> Result<(), Failed> {
    let (met, refused, taken, wrong) = (BTreeMap::new(), Vec::new(), None, Vec::new());
    let run = Run { phase: Phase::Healthy, met, refused, taken, wrong };
    let orders = OrderServiceClient::connect(format!("http://{}", served.grpc)).await?;
    let mut callers = Callers { orders, run: Arc::new(Mutex::new(run)) };
    let give_up = Instant::now() + Duration::from_mins(1);
    while let Err(status) = callers.create().await {
        patient(give_up, &format!("partitions: {status:?}")).await?;
    }
    let making = (0..ORDERS).map(|_| callers.clone()).map(async |mut callers| callers.create().await);
    let added_to: Vec<String> = stream::iter(making).buffer_unordered(8).try_collect().await?;
    let longest = (PHASE + RECOVERY) * 5;
    let rounds = u64::from(ROUNDS_PER_SECOND) * longest.as_secs();
    let filling = (0..rounds).map(|_| callers.clone().filled());
    let filled: Vec<String> = stream::iter(filling).buffer_unordered(16).try_collect().await?;

    let stop = CancellationToken::new();
    let adding = {
        let (callers, orders) = (callers.clone(), added_to.clone());
        steadily(ADDS_PER_SECOND, stop.clone(), move |n| callers.clone().adds(add(&orders[n % orders.len()], n)))
    };
    let standing_by = {
        let callers = callers.clone();
        steadily(ROUNDS_PER_SECOND, stop.clone(), move |n| callers.clone().bystands(filled[n % filled.len()].clone()))
    };
    let load = [tokio::spawn(adding), tokio::spawn(standing_by)];
    let mix = Mix { window: 20, ..Mix::benchmark(RECORDS_PER_SECOND / 4 * 40, 7) };
    let options = Options { rate: RECORDS_PER_SECOND, ..Options::to("orders.commands") };
    let brokers = stack.brokers().to_owned();
    let sending = tokio::spawn(async move { producer::produce(&brokers, &mix, options, |_| {}).await });
    let went = go_through(&callers, catalog).await;
    stop.cancel();
    for load in load {
        load.await?;
    }
    went?;
    let ledger = sending.await??;
    judge(&callers.run())?;
    applied_after_all(&mut callers, &added_to).await?;

    let target = Target::new(stack.brokers(), &stack.postgres_url("postgres"));
    let settled = checkers::settled(&target, Duration::from_mins(1), |_| {}).await?;
    let report = checkers::account(&target, &ledger).await?;
    eprintln!("{} commands through Kafka, {} applied, settled in {settled:.1?}", report.commands, report.applied);
    if report.applied != report.commands || !report.dead_letters.is_empty() || !report.is_clean() {
        return Err(report.to_string().into());
    }
    Ok(())
}

/// One trouble after the other, each until prices are there again.
async fn go_through(callers: &Callers, catalog: &Catalog) -> Result<(), Failed> {
    let turn = |phase: Phase, asked: u64, lasted: Duration, next: Phase| {
        let mut run = callers.run();
        let met = run.met.entry(phase).or_default();
        (met.asked, met.lasted) = (asked, lasted);
        run.phase = next;
    };
    let mut phase = Phase::Healthy;
    for next in TROUBLES.into_iter().map(Some).chain([None]) {
        let (before, began) = (catalog.arrived(), Instant::now());
        match phase {
            Phase::Down => catalog.turn(Mood::Down),
            Phase::Slow => catalog.turn(Mood::Slow),
            Phase::Failing => catalog.turn(Mood::Failing),
            Phase::Healthy | Phase::Flapping | Phase::Recovering => {}
        }
        while began.elapsed() < PHASE {
            if phase == Phase::Flapping {
                for mood in [Mood::Down, Mood::Well] {
                    catalog.turn(mood);
                    tokio::time::sleep(FLAP).await;
                }
            } else {
                tokio::time::sleep(PHASE.saturating_sub(began.elapsed())).await;
            }
        }
        turn(phase, catalog.arrived() - before, began.elapsed(), Phase::Recovering);
        catalog.turn(Mood::Well);
        let (healed, added) =
            (Instant::now(), callers.run().met.get(&Phase::Recovering).map_or(0, |met| met.added.len()));
        while callers.run().met.get(&Phase::Recovering).is_none_or(|met| met.added.len() < added + 20) {
            if healed.elapsed() > RECOVERY {
                return Err(format!("{phase:?} is over, and prices were not there again within {RECOVERY:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!("{phase:?}: prices again after {:.1?}", healed.elapsed());
        let Some(next) = next else { break };
        callers.run().phase = next;
        phase = next;
    }
    Ok(())
}

/// Prints what was measured, and holds it against what was promised.
fn judge(run: &Run) -> Result<(), Failed> {
    let mut wrong: Vec<String> = run.wrong.iter().take(5).cloned().collect();
    if let Some(more @ 1..) = run.wrong.len().checked_sub(5) {
        wrong.push(format!("and {more} more"));
    }
    let healthy = run.met.get(&Phase::Healthy).ok_or("nothing was measured")?;
    let usual = percentile(&healthy.bystanders, 95);
    for (phase, met) in run.met.iter().filter(|(phase, _)| **phase != Phase::Recovering) {
        let rate = met.asked_per_second();
        eprintln!(
            "{phase:?}: asked {rate:.0}/s; added {} (p50 {:.0?}, max {:.0?}), unavailable {} (p50 {:.0?}, max {:.0?}); bystanders {} (p50 {:.0?}, p95 {:.0?}, max {:.0?})",
            met.added.len(),
            percentile(&met.added, 50),
            percentile(&met.added, 100),
            met.unavailable.len(),
            percentile(&met.unavailable, 50),
            percentile(&met.unavailable, 100),
            met.bystanders.len(),
            percentile(&met.bystanders, 50),
            percentile(&met.bystanders, 95),
            percentile(&met.bystanders, 100),
        );
        let allowed = match phase {
            Phase::Healthy | Phase::Recovering => f64::INFINITY,
            // Half the time it answers.
            Phase::Flapping => healthy.asked_per_second(),
            Phase::Down | Phase::Slow | Phase::Failing => healthy.asked_per_second() / 2.0,
        };
        if rate > allowed {
            wrong.push(format!("{phase:?}: asked {rate:.0}/s, of which {allowed:.0} would be right"));
        }
        let (added, unavailable) = (met.added.len(), met.unavailable.len());
        let is_real = match phase {
            Phase::Healthy | Phase::Recovering => unavailable == 0 && added > 0,
            Phase::Flapping => unavailable > 0,
            Phase::Down | Phase::Slow | Phase::Failing => unavailable > added,
        };
        if !is_real {
            wrong.push(format!("{phase:?}: {added} added, {unavailable} unavailable"));
        }
        let slowest = percentile(&met.bystanders, 95);
        if slowest > (usual * BYSTANDERS_AT_MOST).max(BYSTANDERS_NOTICE) {
            wrong.push(format!("{phase:?}: bystanders' p95 is {slowest:.0?}, without trouble {usual:.0?}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// How many times the healthy part's p95 the bystanders' p95 may be: other processes have the same two cores.
const BYSTANDERS_AT_MOST: u32 = 4;
/// And anyway less than this, far below the 2 s that they would wait for what is away.
const BYSTANDERS_NOTICE: Duration = Duration::from_millis(500);

/// Sends again what was refused, under the same ids, and one that was not; then every order has exactly what
/// was added to it.
async fn applied_after_all(callers: &mut Callers, orders: &[String]) -> Result<(), Failed> {
    let (mut again, taken, mut expected) = {
        let mut run = callers.run();
        let added: usize = run.met.values().map(|met| met.added.len()).sum();
        (std::mem::take(&mut run.refused), run.taken.clone(), added)
    };
    expected += again.len();
    again.extend(taken);
    let sending = again.into_iter().map(|request| {
        let mut callers = callers.clone();
        async move { callers.orders.add_item(within(request)).await }
    });
    stream::iter(sending).buffer_unordered(8).try_collect::<Vec<_>>().await?;
    let mut found = 0;
    for order in orders {
        let order = callers.get(order).await?;
        let units = order.lines.iter().map(|line| line.quantity).sum::<i64>().unsigned_abs();
        if order.version != units + 1 {
            return Err(format!("{units} units in an order at version {}", order.version).into());
        }
        found += usize::try_from(units)?;
    }
    eprintln!("{found} items of {expected} in the callers' orders");
    if found == expected { Ok(()) } else { Err(format!("{found} items instead of {expected}").into()) }
}
