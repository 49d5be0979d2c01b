//! given (events) / when (command) / then (events or rejection), for orders.
#![allow(dead_code, reason = "each test binary uses a part")]

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use holdfast_money::{Currency, FxRate, Money, Ratio};
use holdfast_orders_domain::{
    Account, Command, Event, Order, Payment, Quote, Rejection, Shipment, Sku, Standing, process::Stage,
};
use uuid::Uuid;

pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_795_305_600_000);
pub(crate) const CUSTOMER: Uuid = Uuid::from_u128(7);
const ORDER: Uuid = Uuid::from_u128(0x0192_f0c1_7b1e_7cc3_8000_0000_0000_0001);
/// Of a customer who may order.
pub(crate) const GOOD: Standing = Standing { customer: CUSTOMER, account: Account::Active, has_address: true };

pub(crate) fn sku(name: &str) -> Sku {
    Sku::new(name).expect("well-formed")
}

pub(crate) fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

pub(crate) fn create() -> Command {
    create_for(Some(Account::Active))
}

/// With this answer of customers.
pub(crate) fn create_for(account: Option<Account>) -> Command {
    Command::CreateOrder { order: ORDER, customer: CUSTOMER, currency: Currency::EUR, account }
}

pub(crate) fn add(name: &str, quantity: i64, price: Money) -> Command {
    Command::AddItem { sku: sku(name), quantity, quote: Quote::Price(price) }
}

pub(crate) fn remove(name: &str) -> Command {
    Command::RemoveItem { sku: sku(name) }
}

pub(crate) fn place() -> Command {
    place_with("pm_1", Some(GOOD))
}

/// With this token and this answer of customers.
pub(crate) fn place_with(payment_method: &str, standing: Option<Standing>) -> Command {
    Command::PlaceOrder { order: ORDER, payment_method: payment_method.into(), address_id: "home".into(), standing }
}

pub(crate) fn cancel() -> Command {
    Command::CancelOrder { reason: "changed my mind".into() }
}

pub(crate) fn reserved() -> Command {
    Command::StockReserved { until: NOW }
}

pub(crate) fn payment() -> Payment {
    let one = Ratio::new(1, 1).expect("positive");
    let rate = FxRate::new(Currency::EUR, Currency::EUR, one).expect("one");
    Payment { id: "pi_1".into(), amount: eur(1), rate, settled: eur(1) }
}

pub(crate) fn captured() -> Command {
    Command::PaymentCaptured(payment())
}

pub(crate) fn shipment() -> Shipment {
    Shipment { id: "s-1".into(), carrier: "post".into(), tracking_number: "T1".into() }
}

pub(crate) fn dispatched() -> Command {
    Command::ShipmentDispatched(shipment())
}

/// An order at each stage of its life.
pub(crate) fn at(stage: Stage) -> Order {
    let mut commands = vec![create(), add("a", 1, eur(1))];
    commands.extend(match stage {
        Stage::Draft => vec![],
        Stage::Placed => vec![place()],
        Stage::Paid => vec![place(), reserved(), captured()],
        Stage::Shipped => vec![place(), reserved(), captured(), dispatched()],
        Stage::Delivered => vec![place(), reserved(), captured(), dispatched(), Command::ShipmentDelivered],
        Stage::Cancelled => vec![place(), cancel()],
    });
    let order = given(&commands);
    assert_eq!(order.details().map(|details| details.status.stage()), Some(stage));
    order
}

/// What happens on `command`; the events are applied to `order`.
pub(crate) fn handle(order: &mut Order, command: &Command) -> Result<Vec<Event>, Rejection> {
    let context = Context { key: "0192f0c1-7b1e-7cc3-8000-000000000001", version: 0, now: NOW };
    match order.decide(command, &context)? {
        Decision::Done(effects) => {
            assert_eq!(effects.timers, [], "an order sets no timers");
            effects.events.iter().for_each(|event| order.evolve(event));
            Ok(effects.events)
        }
        Decision::Conditional { .. } => panic!("an order wants no shared quantity"),
        Decision::Unprepared(lacking) => panic!("{lacking}"),
    }
}

/// Whether `command` can't be decided as it was prepared.
pub(crate) fn is_unprepared(order: &Order, command: &Command) -> bool {
    let context = Context { key: "0192f0c1-7b1e-7cc3-8000-000000000001", version: 0, now: NOW };
    matches!(order.decide(command, &context), Ok(Decision::Unprepared(_)))
}

/// The order after these commands, each of which must be accepted.
pub(crate) fn given(commands: &[Command]) -> Order {
    let mut order = Order::default();
    for command in commands {
        handle(&mut order, command).unwrap_or_else(|rejection| panic!("{command:?}: {rejection}"));
    }
    order
}

/// What a command leads to.
pub(crate) fn when(order: &Order, command: Command) -> Result<Vec<Event>, Rejection> {
    handle(&mut order.clone(), &command)
}

/// The status after these commands.
pub(crate) fn status(commands: &[Command]) -> &'static str {
    given(commands).details().map_or("NONE", |details| details.status.name())
}
