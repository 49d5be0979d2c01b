//! The process, row by row: what each context's news does to an order at each stage of its life, and that
//! nothing else does anything.

mod given;

use given::{NOW, add, at, cancel, captured, create, dispatched, eur, given, payment, place, reserved, sku, when};
use holdfast_money::{Currency, Money};
use holdfast_orders_domain::{
    Cancellation, CancellationCause, Command, Event, Line, Order, Payment, Rejection, ShipmentCause,
    process::{News, Reaction, Stage, TABLE, reaction},
};

fn news(of: News) -> Command {
    match of {
        News::StockReserved => reserved(),
        News::ReservationRefused => Command::ReservationRefused,
        News::ReservationExpired => Command::ReservationExpired,
        News::PaymentCaptured => captured(),
        News::PaymentDeclined => Command::PaymentDeclined,
        News::ShipmentDispatched => dispatched(),
        News::ShipmentDelivered => Command::ShipmentDelivered,
        News::ShipmentCancelled => Command::ShipmentCancelled { cause: ShipmentCause::Warehouse },
    }
}

fn cancelled(cause: CancellationCause) -> Event {
    Event::OrderCancelled { at: NOW, cancellation: Cancellation { cause, reason: cause.words().into() } }
}

fn after(order: &Order, command: Command) -> Stage {
    let mut order = order.clone();
    given::handle(&mut order, &command).expect("news is never refused");
    order.details().expect("exists").status.stage()
}

/// The diagram of the domain, edge by edge.
#[test]
fn each_row_leads_where_the_diagram_says() {
    let expected = [
        (News::StockReserved, Stage::Placed, Stage::Placed),
        (News::ReservationRefused, Stage::Placed, Stage::Cancelled),
        (News::ReservationExpired, Stage::Placed, Stage::Cancelled),
        (News::ReservationExpired, Stage::Paid, Stage::Cancelled),
        (News::PaymentCaptured, Stage::Placed, Stage::Paid),
        (News::PaymentDeclined, Stage::Placed, Stage::Cancelled),
        (News::ShipmentDispatched, Stage::Paid, Stage::Shipped),
        (News::ShipmentDelivered, Stage::Shipped, Stage::Delivered),
        (News::ShipmentCancelled, Stage::Paid, Stage::Cancelled),
    ];
    assert_eq!(
        TABLE.iter().map(|(news, stage, _)| (*news, *stage)).collect::<Vec<_>>(),
        expected.map(|(n, s, _)| (n, s))
    );
    for (of, from, to) in expected {
        assert_eq!(after(&at(from), news(of)), to, "{of:?} at {from:?}");
    }
}

#[test]
fn what_is_not_in_the_table_changes_nothing() {
    for of in News::ALL {
        assert_eq!(when(&Order::default(), news(of)), Ok(vec![]), "{of:?} without an order");
        for stage in Stage::ALL.into_iter().filter(|stage| reaction(of, *stage).is_none()) {
            assert_eq!(when(&at(stage), news(of)), Ok(vec![]), "{of:?} at {stage:?}");
        }
    }
}

#[test]
fn every_news_has_a_row_and_comes_twice_without_harm() {
    for of in News::ALL {
        let (_, stage, _) = TABLE.iter().find(|(news, ..)| *news == of).expect("has a row");
        let mut order = at(*stage);
        assert!(!given::handle(&mut order, &news(of)).expect("accepted").is_empty(), "{of:?}");
        assert_eq!(when(&order, news(of)), Ok(vec![]), "{of:?} twice");
    }
}

#[test]
fn payment_is_pinned_with_its_rate_and_names_what_to_ship() {
    let order = given(&[create(), add("a", 1, eur(1)), place(), reserved()]);
    let line = Line::new(sku("a"), 1, eur(1)).expect("fits");
    let (customer, address_id) = (given::CUSTOMER, Some("home".into()));
    let paid = Event::OrderPaid { at: NOW, payment: payment(), customer, address_id, lines: [line].into() };
    assert_eq!(when(&order, captured()), Ok(vec![paid]));
    assert_eq!(at(Stage::Delivered).details().and_then(|details| details.payment.clone()), Some(payment()));
}

#[test]
fn payment_over_another_amount_is_an_event_and_no_payment() {
    let other = |amount| Command::PaymentCaptured(Payment { amount, ..payment() });
    for amount in [eur(0), eur(2), eur(-1), eur(i64::MAX), Money::new(1, Currency::USD)] {
        let mut order = at(Stage::Placed);
        let mismatched =
            Event::OrderPaymentMismatched { at: NOW, payment: Payment { amount, ..payment() }, total: eur(1) };
        assert_eq!(given::handle(&mut order, &other(amount)), Ok(vec![mismatched]), "{amount:?}");
        let details = order.details().expect("exists");
        assert_eq!((details.status.stage(), &details.payment), (Stage::Placed, &None), "{amount:?}");
        assert_eq!(details.mismatched_payment.as_ref().map(|payment| payment.amount), Some(amount));
        assert_eq!(when(&order, other(amount)), Ok(vec![]), "the same again");
        assert_eq!(when(&order, other(eur(7))), Ok(vec![]), "another one");
        assert_eq!(after(&order, captured()), Stage::Paid, "the total is still taken");
    }
    for stage in Stage::ALL.into_iter().filter(|stage| *stage != Stage::Placed) {
        assert_eq!(when(&at(stage), other(eur(2))), Ok(vec![]), "{stage:?}");
    }
}

#[test]
fn customer_may_cancel_until_fulfillment_says_goods_have_left() {
    for stage in [Stage::Draft, Stage::Placed] {
        assert_eq!(after(&at(stage), cancel()), Stage::Cancelled);
    }
    let mut order = at(Stage::Paid);
    let asked = Event::OrderCancellationRequested { at: NOW, reason: "changed my mind".into() };
    assert_eq!(given::handle(&mut order, &cancel()), Ok(vec![asked]));
    assert_eq!(when(&order, cancel()), Ok(vec![]), "asked once");
    let in_time = Command::ShipmentCancelled { cause: ShipmentCause::CancellationRequested };
    let cancellation = Cancellation { cause: CancellationCause::Requested, reason: "changed my mind".into() };
    assert_eq!(when(&order, in_time), Ok(vec![Event::OrderCancelled { at: NOW, cancellation }]));
    given::handle(&mut order, &dispatched()).expect("news is never refused");
    let details = order.details().expect("exists");
    assert_eq!((details.status.stage(), &details.cancellation_requested), (Stage::Shipped, &None), "too late");
    for stage in [Stage::Shipped, Stage::Delivered, Stage::Cancelled] {
        let refused = when(&at(stage), cancel());
        assert!(matches!(refused, Err(Rejection::WrongState { .. })), "{stage:?}: {refused:?}");
    }
}

#[test]
fn every_cause_of_cancellation_has_its_own_name() {
    let causes = [
        (News::ReservationRefused, CancellationCause::OutOfStock),
        (News::ReservationExpired, CancellationCause::ReservationExpired),
        (News::PaymentDeclined, CancellationCause::PaymentDeclined),
    ];
    for (of, cause) in causes {
        assert_eq!(reaction(of, Stage::Placed), Some(Reaction::Cancel(cause)));
        assert_eq!(when(&at(Stage::Placed), news(of)), Ok(vec![cancelled(cause)]));
    }
    let by_shipment = |cause| when(&at(Stage::Paid), Command::ShipmentCancelled { cause });
    assert_eq!(by_shipment(ShipmentCause::Undeliverable), Ok(vec![cancelled(CancellationCause::Undeliverable)]));
    assert_eq!(by_shipment(ShipmentCause::Warehouse), Ok(vec![cancelled(CancellationCause::Warehouse)]));
}
