//! given (events) / when (command) / then (events or rejection), for orders.
#![allow(dead_code, reason = "each test binary uses a part")]

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use holdfast_money::{Currency, FxRate, Money, Ratio};
use holdfast_orders_domain::{Command, Event, Order, Payment, Quote, Rejection, Shipment, Sku, process::Stage};
use uuid::Uuid;

pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_795_305_600_000);
pub(crate) const CUSTOMER: Uuid = Uuid::from_u128(7);

pub(crate) fn sku(name: &str) -> Sku {
    Sku::new(name).expect("well-formed")
}

pub(crate) fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

pub(crate) fn create() -> Command {
    Command::CreateOrder { customer: CUSTOMER, currency: Currency::EUR }
}

pub(crate) fn add(name: &str, quantity: i64, price: Money) -> Command {
    Command::AddItem { sku: sku(name), quantity, quote: Quote::Price(price) }
}

pub(crate) fn remove(name: &str) -> Command {
    Command::RemoveItem { sku: sku(name) }
}

pub(crate) fn place() -> Command {
    Command::PlaceOrder { payment_method: Some("pm_1".into()), address_id: None }
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
    }
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
