//! A thousand orders over a few skus, with cancellations, replenishments and faults at random times; then the
//! books are compared.
//!
//! Whatever crosses whatever: both contexts agree on every order, and stock is exactly what came in less what
//! is held. Each run prints its seed.

use std::{collections::BTreeMap, time::Duration};

use holdfast_core::port::store::Store as _;
use holdfast_inventory_domain::reservation::{self, Status as Held};
use holdfast_orders_domain::{self as orders_domain, CancellationCause, Status};
use holdfast_proto::{inventory::v1 as inventory, orders::v1 as orders};
use holdfast_testkit::{Dice, store::CommitFault};
use uuid::Builder;

use super::{
    one_euro,
    world::{Member, World},
};

const ORDERS: usize = 1000;
const SKUS: u64 = 8;
const HOLD: Duration = Duration::from_mins(1);
/// In which all orders are sent.
const RUSH_MS: u64 = 2_000;

fn quantity(dice: &mut Dice, bound: u64) -> i64 {
    i64::try_from(1 + dice.below(bound)).unwrap()
}

fn any_sku(dice: &mut Dice) -> String {
    format!("S{}", dice.below(SKUS))
}

fn new_order_id(dice: &mut Dice) -> String {
    let (high, low) = (dice.next(), dice.next());
    Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid().to_string()
}

enum Step {
    Receive(String, i64),
    Adjust(String, i64),
    Order {
        id: String,
        lines: Vec<(String, i64)>,
        placed: bool,
        cancelled: bool,
    },
    Cancel(String),
    /// A fault in the orders node (`true`) or inventory's.
    Fault(bool, Fault),
}

#[derive(Clone, Copy)]
enum Fault {
    LostAnswer,
    LostCommit,
    LostAcknowledgement,
    Crash,
}

/// What happens when, in milliseconds.
fn script(dice: &mut Dice, crashes: bool) -> (Vec<(u64, Step)>, Vec<String>) {
    let mut steps = Vec::new();
    for sku in 0..SKUS {
        steps.push((0, Step::Receive(format!("S{sku}"), 40 + quantity(dice, 80))));
    }
    for _ in 0..30 {
        let (sku, quantity) = (any_sku(dice), quantity(dice, 10));
        let step = if dice.chance(60) { Step::Receive(sku, quantity) } else { Step::Adjust(sku, -quantity) };
        steps.push((dice.below(RUSH_MS), step));
    }
    let mut ids = Vec::new();
    for _ in 0..ORDERS {
        let (id, at) = (new_order_id(dice), dice.below(RUSH_MS));
        let lines = (0..=dice.below(3)).map(|_| (any_sku(dice), quantity(dice, 3))).collect();
        let placed = dice.chance(95);
        // At once: the cancellation is in the log right behind; later: while inventory's answer is under way,
        // or after it.
        let cancelled = dice.chance(15);
        steps.push((at, Step::Order { id: id.clone(), lines, placed, cancelled }));
        if !cancelled && dice.chance(35) {
            steps.push((at + 1 + dice.below(200), Step::Cancel(id.clone())));
        }
        ids.push(id);
    }
    for _ in 0..12 {
        let fault = match dice.below(3) {
            0 => Fault::LostAnswer,
            1 => Fault::LostCommit,
            _ => Fault::LostAcknowledgement,
        };
        steps.push((dice.below(RUSH_MS), Step::Fault(dice.chance(50), fault)));
    }
    if crashes {
        steps.push((RUSH_MS / 3, Step::Fault(true, Fault::Crash)));
        steps.push((RUSH_MS / 2, Step::Fault(false, Fault::Crash)));
    }
    steps.sort_by_key(|(at, _)| *at);
    (steps, ids)
}

/// Both nodes, each slow in its own way.
struct Nodes<'a> {
    world: &'a World,
    orders: Member,
    inventory: Member,
}

impl<'a> Nodes<'a> {
    async fn start(world: &'a World, dice: &mut Dice) -> Self {
        let nodes =
            Self { world, orders: world.start_orders(one_euro()).await, inventory: world.start_inventory().await };
        for member in [&nodes.orders, &nodes.inventory] {
            member.publisher.set_ack_latency(Duration::from_millis(dice.below(30)));
            member.store.set_latency(Duration::from_millis(1 + dice.below(5)));
        }
        nodes
    }

    async fn carry_out(&mut self, step: Step) {
        let world = self.world;
        match step {
            Step::Receive(sku, quantity) => world.receive(&sku, quantity),
            Step::Adjust(sku, delta) => {
                let command = inventory::AdjustStock { sku: sku.clone(), delta, reason: "counted".to_owned() };
                world.send("inventory", &sku, &command);
            }
            Step::Order { id, lines, placed, cancelled } => {
                let lines: Vec<(&str, i64)> = lines.iter().map(|(sku, quantity)| (sku.as_str(), *quantity)).collect();
                world.order(&id, &lines, placed);
                if cancelled {
                    world.cancel(&id);
                }
            }
            Step::Cancel(id) => world.cancel(&id),
            Step::Fault(at_orders, fault) => self.fault(at_orders, fault).await,
        }
    }

    async fn fault(&mut self, at_orders: bool, fault: Fault) {
        let member = if at_orders { &self.orders } else { &self.inventory };
        match fault {
            Fault::LostAnswer => member.store.next_commit(CommitFault::UnknownCommitted),
            Fault::LostCommit => member.store.next_commit(CommitFault::UnknownNotCommitted),
            Fault::LostAcknowledgement => member.publisher.lose_acks(1),
            Fault::Crash if at_orders => {
                World::crash(&self.world.orders, member);
                self.orders = self.world.start_orders(one_euro()).await;
            }
            Fault::Crash => {
                World::crash(&self.world.inventory, member);
                self.inventory = self.world.start_inventory().await;
            }
        }
    }
}

/// How many orders ended how, by what orders and inventory say of them.
type Outcomes = BTreeMap<(&'static str, &'static str), usize>;

/// Both contexts tell the same story of this order.
fn agree(order: &orders_domain::Details, reservation: Option<&reservation::Details>) -> bool {
    let same_lines = |details: &reservation::Details| {
        let mut lines: Vec<_> = order.lines.as_slice().iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
        lines.sort_unstable();
        details.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).eq(lines)
    };
    let cause = match &order.status {
        Status::Cancelled(cancellation) => Some(cancellation.cause),
        _ => None,
    };
    match (&order.status, cause, reservation) {
        (Status::Draft, _, None) => true,
        (Status::Placed { reserved_until }, _, Some(details)) => {
            details.status == Held::Held && details.expires_at == *reserved_until && same_lines(details)
        }
        (_, Some(CancellationCause::OutOfStock), Some(details)) => {
            details.status == Held::Refused && same_lines(details)
        }
        (_, Some(CancellationCause::ReservationExpired), Some(details)) => {
            details.status == Held::Expired && same_lines(details)
        }
        (_, Some(CancellationCause::Requested), Some(details)) => match details.status {
            Held::Released(_) => details.lines.is_empty() || same_lines(details),
            Held::Refused | Held::Expired => same_lines(details),
            Held::Held | Held::Confirmed | Held::Shipped => false,
        },
        _ => false,
    }
}

/// Compares the books of both contexts, order by order and sku by sku.
fn compare(world: &World, ids: &[String]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut held = BTreeMap::<String, i64>::new();
    for id in ids {
        let order = world.stored_order(id).unwrap();
        let reservation = world.stored_reservation(id);
        assert!(agree(&order, reservation.as_ref()), "{id}: {order:?} against {reservation:?}");
        let said = match &order.status {
            Status::Cancelled(cancellation) => cancellation.cause.words(),
            status => status.name(),
        };
        *outcomes.entry((said, reservation.as_ref().map_or("NONE", |details| details.status.name()))).or_default() += 1;
        for line in
            reservation.iter().filter(|details| details.status == Held::Held).flat_map(|details| &*details.lines)
        {
            *held.entry(line.sku.to_string()).or_default() += line.quantity;
        }
    }
    let mut total = BTreeMap::<String, i64>::new();
    for (sku, event) in world.events::<inventory::StockReceived>("inventory.events") {
        *total.entry(sku).or_default() += event.quantity;
    }
    for (sku, event) in world.events::<inventory::StockAdjusted>("inventory.events") {
        *total.entry(sku).or_default() += event.delta;
    }
    for (sku, pool) in world.pools() {
        assert_eq!(pool.total, total[&sku], "{sku}: what there is is what came in");
        assert_eq!(pool.held, held.get(&sku).copied().unwrap_or(0), "{sku}: what is held is held by someone");
        assert!(0 <= pool.held && pool.held <= pool.total, "{sku}: {pool:?}");
    }
    outcomes
}

/// The number of orders that inventory reserved for and that never became reserved: the cancellation of each
/// crossed its reservation.
fn crossed(world: &World) -> usize {
    let order_reserved: Vec<String> =
        world.events::<orders::OrderReserved>("orders.events").into_iter().map(|(id, _)| id).collect();
    let reserved = world.events::<inventory::StockReserved>("inventory.events");
    reserved.iter().filter(|(id, _)| !order_reserved.contains(id)).count()
}

async fn rush(seed: u64, crashes: bool) {
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    let world = World::new(HOLD);
    let (steps, ids) = script(&mut dice, crashes);
    let mut nodes = Nodes::start(&world, &mut dice).await;
    let skus: Vec<String> = (0..SKUS).map(|sku| format!("S{sku}")).collect();
    let began = tokio::time::Instant::now();
    for (at, step) in steps {
        tokio::time::sleep_until(began + Duration::from_millis(at)).await;
        nodes.carry_out(step).await;
        for (sku, pool) in world.inventory.store.pools(&skus).await.unwrap() {
            assert!(0 <= pool.held && pool.held <= pool.total, "{sku} on the way: {pool:?}");
        }
    }
    world.settled().await;
    let after_rush = compare(&world, &ids);
    let counts = world.check();
    println!("after the rush: {after_rush:?}, {} crossed, {counts:?}", crossed(&world));
    for outcome in [
        ("DRAFT", "NONE"),
        ("PLACED", "HELD"),
        ("out of stock", "REFUSED"),
        ("cancelled on request", "RELEASED"),
        ("cancelled on request", "REFUSED"),
    ] {
        assert!(after_rush.get(&outcome).is_some_and(|n| *n >= 10), "{outcome:?} hardly came up: {after_rush:?}");
    }
    assert!(crossed(&world) >= 20, "cancellations are to cross reservations");

    // Cancellations about the time when the hold runs out.
    let mut late: Vec<(i64, &String)> = Vec::new();
    for id in &ids {
        let until = world.stored_reservation(id).filter(|details| details.status == Held::Held);
        if let Some(until) = until.and_then(|details| details.expires_at).filter(|_| dice.chance(40)) {
            late.push((until.unix_ms() - 50 + i64::try_from(dice.below(300)).unwrap(), id));
        }
    }
    late.sort_unstable();
    for (at, id) in late {
        let now = holdfast_core::port::clock::Clock::now(&world.clock).unix_ms();
        tokio::time::sleep(Duration::from_millis(u64::try_from(at - now).unwrap_or(0))).await;
        world.cancel(id);
    }
    tokio::time::sleep(HOLD).await;
    world.settled().await;
    let at_last = compare(&world, &ids);
    world.check();
    println!("at last: {at_last:?}");
    assert!(at_last.contains_key(&("reservation expired", "EXPIRED")) && !at_last.contains_key(&("PLACED", "HELD")));
    assert!(world.pools().values().all(|pool| pool.held == 0));
    assert!(world.inventory.store.contents().timers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_orders_and_both_contexts_agree_on_each() {
    for seed in [1, 2, 3] {
        rush(seed, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn both_contexts_agree_on_a_thousand_orders_through_crashes() {
    for seed in [4, 5, 6] {
        rush(seed, true).await;
    }
}
