//! Every way to fail, over real HTTP: a named outcome, nothing lost, exactly one charge by the provider's own
//! ledger.

use std::{sync::Arc, time::Duration};

use holdfast_money::{Currency, Money};
use holdfast_payments::{
    app::Settings,
    simulator::{Fault, Plan},
};
use tokio::task::JoinSet;

use crate::till::{Till, usd};

const CARD: &str = "pm_card_visa";

fn declines(fault: Fault) -> bool {
    matches!(fault, Fault::Declined | Fault::PaymentRequired)
}

#[tokio::test]
async fn whatever_fails_a_charge_is_made_once_and_given_back_once() {
    for fault in Fault::ALL {
        for times in [1, 2] {
            let till = Till::open(Plan::First { fault, times }).await;
            let order = till.reserve(usd(12_34), CARD).await;
            till.settle(&order).await;
            if declines(fault) {
                assert_eq!((till.status(&order), till.ledger(&order)), ("DECLINED", (vec![], vec![])), "{fault:?}");
                continue;
            }
            assert_eq!(till.status(&order), "CAPTURED", "{fault:?}");
            assert_eq!(till.ledger(&order), (vec![12_34], vec![]), "{fault:?}");
            till.refund(&order, "first", usd(34)).await;
            till.settle(&order).await;
            assert_eq!(till.status(&order), "PARTIALLY_REFUNDED", "{fault:?}");
            till.cancel(&order).await;
            till.settle(&order).await;
            assert_eq!(till.status(&order), "REFUNDED", "{fault:?}");
            assert_eq!(till.ledger(&order), (vec![12_34], vec![34, 12_00]), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn whatever_fails_an_authorization_is_captured_once_or_let_go() {
    for fault in Fault::ALL {
        let settings = Settings { authorize_first: true };
        let till = Till::with(Plan::First { fault, times: 2 }, settings, None).await;
        let (kept, cancelled) = (till.authorize(usd(500), CARD).await, till.authorize(usd(500), CARD).await);
        till.cancel(&cancelled).await;
        till.settle(&kept).await;
        till.settle(&cancelled).await;
        let expected =
            if declines(fault) { ("DECLINED", vec![], "DECLINED") } else { ("CAPTURED", vec![500], "VOIDED") };
        let found = (till.status(&kept), till.ledger(&kept).0, till.status(&cancelled));
        assert_eq!(found, expected, "{fault:?}");
        assert_eq!(till.ledger(&cancelled), (vec![], vec![]), "{fault:?}");
    }
}

#[tokio::test]
async fn a_declined_card_has_the_providers_code() {
    let till = Till::open(Plan::None).await;
    for (card, code) in [
        ("pm_card_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
    ] {
        let order = till.reserve(usd(500), card).await;
        till.settle(&order).await;
        let details = till.payment(&order).details().unwrap().clone();
        let expected = holdfast_payments_domain::Status::Declined { code: code.into() };
        assert_eq!((details.status, till.ledger(&order).0), (expected, vec![]));
    }
}

#[tokio::test]
async fn unacceptable_payment_is_declined_by_name_before_any_call() {
    let till = Till::open(Plan::None).await;
    let bhd: Currency = "BHD".parse().unwrap();
    for (amount, code) in [
        (Money::new(1_005, bhd), "AMOUNT_NOT_REPRESENTABLE"),
        (Money::new(i64::MAX, Currency::EUR), "AMOUNT_TOO_LARGE"),
        (Money::new(i64::MAX, Currency::USD), "AMOUNT_TOO_LARGE"),
        (Money::new(1, "GBP".parse().unwrap()), "NO_RATE"),
    ] {
        let order = till.reserve(amount, CARD).await;
        till.settle(&order).await;
        let details = till.payment(&order).details().unwrap().clone();
        assert_eq!(details.status, holdfast_payments_domain::Status::Declined { code: code.into() }, "{amount}");
    }
    assert_eq!(till.simulator.account()["requests"], 0);
}

#[tokio::test]
async fn zero_and_three_decimal_currencies_charge_in_provider_units() {
    let till = Till::open(Plan::None).await;
    for (minor, code, units, settled) in [(500, "JPY", 500, 300), (1_250, "BHD", 1_250, 306)] {
        let order = till.reserve(Money::new(minor, code.parse().unwrap()), CARD).await;
        till.settle(&order).await;
        assert_eq!(till.ledger(&order).0, [units]);
        let settlement = till.payment(&order).details().unwrap().settlement.unwrap();
        assert_eq!(settlement.settled, Money::new(settled, Currency::EUR));
    }
}

#[tokio::test]
async fn cancellation_amid_unknown_outcome_waits_for_it_and_refunds() {
    for fault in [Fault::TimeoutAfter, Fault::FailsAfter, Fault::Late, Fault::Malformed, Fault::TimeoutBefore] {
        let till = Till::open(Plan::First { fault, times: 1 }).await;
        let order = till.reserve(usd(700), CARD).await;
        till.cancel(&order).await;
        till.settle(&order).await;
        assert_eq!(till.status(&order), "REFUNDED", "{fault:?}");
        assert_eq!(till.ledger(&order), (vec![700], vec![700]), "{fault:?}");
    }
}

/// Many orders, a fifth of all requests failing in every way, webhooks twice and out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_hundreds_of_orders_each_paid_one_was_charged_exactly_once() {
    const ORDERS: usize = 400;
    let till = Till::with(Plan::Random { per_mille: 200 }, Settings::default(), Some(Duration::from_millis(80))).await;
    let mut running = JoinSet::new();
    for number in 0..ORDERS {
        let shared: Arc<Till> = till.clone();
        running.spawn(async move {
            let amount = usd(i64::try_from(number).unwrap() + 100);
            let authorizes = number.is_multiple_of(5);
            let order =
                if authorizes { shared.authorize(amount, CARD).await } else { shared.reserve(amount, CARD).await };
            if number.is_multiple_of(4) {
                shared.cancel(&order).await;
            }
            shared.settle(&order).await;
            if number.is_multiple_of(6) {
                shared.cancel(&order).await;
            }
            shared.settle(&order).await;
            (order, amount.minor, number.is_multiple_of(4) || number.is_multiple_of(6))
        });
        if running.len() >= 40 {
            check(&till, &running.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(ended) = running.join_next().await {
        check(&till, &ended.unwrap());
    }
    let account = till.simulator.account();
    let faults = account["faults"].as_object().unwrap();
    for fault in Fault::ALL {
        assert!(faults.contains_key(fault.name()), "{} never happened: {faults:?}", fault.name());
    }
}

#[track_caller]
fn check(till: &Till, (order, amount, cancelled): &(String, i64, bool)) {
    let (status, (charges, refunds)) = (till.status(order), till.ledger(order));
    match status {
        "CAPTURED" => assert_eq!((&charges, &refunds, cancelled), (&vec![*amount], &vec![], &false), "{order}"),
        "REFUNDED" => assert_eq!((&charges, &refunds, cancelled), (&vec![*amount], &vec![*amount], &true), "{order}"),
        "DECLINED" | "VOIDED" => assert_eq!((&charges, &refunds), (&vec![], &vec![]), "{order} is {status}"),
        other => panic!("{order} ended as {other}"),
    }
}
