//! Laws of orders over random commands and news, in any order.

mod given;

use given::{CUSTOMER, NOW, handle, sku};
use holdfast_core::{Aggregate, Timestamp};
use holdfast_money::{Currency, Money};
use holdfast_orders_domain::{Account, Command, Event, Order, Quote, Status};
use proptest::prelude::*;
use uuid::Uuid;

fn news() -> impl Strategy<Value = Command> {
    prop_oneof![
        any::<i64>().prop_map(|ms| Command::StockReserved { until: Timestamp::from_unix_ms(ms) }),
        Just(Command::ReservationRefused),
        Just(Command::ReservationExpired),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let currency = prop_oneof![9 => Just(Currency::EUR), 1 => Just(Currency::JPY)];
    let minor = prop_oneof![8 => 0_i64..100_000, 1 => any::<i64>(), 1 => Just(i64::MAX)];
    let quote = prop_oneof![
        8 => (minor, currency.clone()).prop_map(|(minor, currency)| Quote::Price(Money { minor, currency })),
        1 => Just(Quote::UnknownSku),
        1 => Just(Quote::NotAsked),
    ];
    let quantity = prop_oneof![8 => 1_i64..20, 1 => any::<i64>(), 1 => Just(0)];
    let name = "[a-e]";
    prop_oneof![
        3 => currency.prop_map(|currency| Command::CreateOrder {
            order: Uuid::nil(),
            customer: CUSTOMER,
            currency,
            account: Some(Account::Active),
        }),
        12 => (name, quantity, quote).prop_map(|(name, quantity, quote)| Command::AddItem { sku: sku(&name), quantity, quote }),
        4 => name.prop_map(|name| Command::RemoveItem { sku: sku(&name) }),
        1 => Just(given::place()),
        1 => Just(Command::CancelOrder { reason: "why not".into() }),
        3 => news(),
    ]
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    proptest::collection::vec(command(), 0..80)
}

fn status(order: &Order) -> &'static str {
    order.details().map_or("NONE", |details| details.status.name())
}

proptest! {
    #[test]
    fn replay_equals_live(commands in commands()) {
        let mut live = Order::default();
        let events: Vec<Event> = commands.iter().flat_map(|command| handle(&mut live, command).unwrap_or_default()).collect();
        let mut replayed = Order::default();
        for event in &events {
            replayed.evolve(event);
        }
        prop_assert_eq!(replayed, live);
    }

    #[test]
    fn the_total_is_always_the_sum_of_quantities_times_prices(commands in commands()) {
        let mut order = Order::default();
        for command in &commands {
            let _ = handle(&mut order, command);
            if let Some(details) = order.details() {
                let lines = details.lines.as_slice();
                let exact: i128 = lines.iter().map(|line| i128::from(line.quantity) * i128::from(line.unit_price.minor)).sum();
                prop_assert_eq!(i128::from(details.lines.total().minor), exact);
                prop_assert!(lines.iter().all(|line| line.quantity > 0 && line.unit_price.currency == details.lines.currency()));
                let mut skus: Vec<_> = lines.iter().map(|line| &line.sku).collect();
                skus.sort();
                skus.dedup();
                prop_assert_eq!(skus.len(), lines.len());
            }
        }
    }

    #[test]
    fn a_rejected_command_and_news_without_effect_leave_no_trace(commands in commands()) {
        let mut order = Order::default();
        for command in &commands {
            let before = order.clone();
            if handle(&mut order, command).unwrap_or_default().is_empty() {
                prop_assert_eq!(&order, &before);
            }
        }
    }

    #[test]
    fn status_only_moves_forward_and_news_is_never_rejected(commands in commands()) {
        let mut order = Order::default();
        for command in &commands {
            let before = status(&order);
            let outcome = handle(&mut order, command);
            let after = status(&order);
            let allowed = matches!(
                (before, after),
                ("NONE", "NONE" | "DRAFT") | ("DRAFT", "DRAFT" | "PLACED" | "CANCELLED") | ("PLACED", "PLACED" | "CANCELLED") | ("CANCELLED", "CANCELLED")
            );
            prop_assert!(allowed, "{before} to {after} by {command:?}");
            if matches!(command, Command::StockReserved { .. } | Command::ReservationRefused | Command::ReservationExpired) {
                prop_assert!(outcome.is_ok());
            }
        }
    }

    #[test]
    fn news_delivered_twice_has_one_effect(commands in commands(), news in news()) {
        let mut order = Order::default();
        for command in &commands {
            let _ = handle(&mut order, command);
        }
        let _ = handle(&mut order, &news);
        let once = order.clone();
        prop_assert_eq!(handle(&mut order, &news), Ok(vec![]));
        prop_assert_eq!(order, once);
    }

    #[test]
    fn order_ends_cancelled_when_cancel_and_reservation_cross(reserved_first in any::<bool>(), expired in any::<bool>()) {
        let mut order = given::given(&[given::create(), given::add("a", 1, given::eur(1)), given::place()]);
        let cancel = given::cancel();
        let reserved = Command::StockReserved { until: NOW };
        let (first, second) = if reserved_first { (&reserved, &cancel) } else { (&cancel, &reserved) };
        prop_assert!(handle(&mut order, first).is_ok() && handle(&mut order, second).is_ok());
        if expired {
            prop_assert_eq!(handle(&mut order, &Command::ReservationExpired), Ok(vec![]));
        }
        prop_assert!(matches!(order.details().map(|details| &details.status), Some(Status::Cancelled(_))));
    }
}
