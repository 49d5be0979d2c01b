//! What keeps a call from happening twice, and when it no longer does.

use std::time::Duration;

use holdfast_core::{
    Timestamp,
    codec::{Again, Attempt},
};
use holdfast_payments::{
    codec::effects_after,
    perform::{KEY_LIFE, QUIET, perform},
    provider::{NewCharge, Provider as _},
    simulator::{Fault, Plan},
};
use holdfast_payments_domain::{Command, Event, Outcome};

use crate::till::{Till, effect, rates, usd};

const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";
const OTHER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000b";

fn charge(order_id: &str) -> Attempt {
    let event = Event::PaymentRequested {
        at: Timestamp::default(),
        amount: usd(500),
        payment_method: Some("pm_card_visa".into()),
        authorize_first: false,
    };
    let change = effects_after(&event, order_id).pop().expect("a charge");
    effect(order_id, &change.name, change.request.expect("begins"))
}

fn later(effect: &Attempt, by: Duration) -> Attempt {
    Attempt { age: by, now: effect.now.plus(by), ..effect.clone() }
}

fn is_captured(outcome: &Result<Command, Again>) -> bool {
    matches!(outcome, Ok(Command::ChargeSucceeded { outcome: Outcome::Captured { .. }, .. }))
}

#[tokio::test]
async fn provider_is_asked_before_sending_once_keys_may_be_forgotten() {
    let till = Till::open(Plan::First { fault: Fault::TimeoutAfter, times: 1 }).await;
    let effect = charge(ORDER);
    let lost = perform(&till.stripe, &rates(), &effect).await;
    assert_eq!(lost, Err(Again { reason: "TIMEOUT".into(), after: None }));
    till.simulator.forget_keys();
    for by in [KEY_LIFE, KEY_LIFE + QUIET, KEY_LIFE * 5 + QUIET * 2] {
        let outcome = perform(&till.stripe, &rates(), &later(&effect, by)).await;
        assert!(is_captured(&outcome), "{outcome:?}");
    }
    assert_eq!(till.ledger(ORDER).0, [500]);
    // Without that question it would have been charged again: the simulator forgets as Stripe does.
    let again = perform(&till.stripe, &rates(), &effect).await;
    assert!(is_captured(&again));
    assert_eq!(till.ledger(ORDER).0, [500, 500]);
}

#[tokio::test]
async fn charge_that_never_happened_gets_new_key_after_quiet_period() {
    let till = Till::open(Plan::First { fault: Fault::TimeoutBefore, times: 1 }).await;
    let effect = charge(ORDER);
    assert!(perform(&till.stripe, &rates(), &effect).await.is_err());
    let quiet = perform(&till.stripe, &rates(), &later(&effect, KEY_LIFE)).await;
    assert_eq!(quiet.unwrap_err().reason, "KEY_EXPIRING");
    assert_eq!(till.ledger(ORDER).0, Vec::<i64>::new());
    for _ in 0..3 {
        let outcome = perform(&till.stripe, &rates(), &later(&effect, KEY_LIFE + QUIET)).await;
        assert!(is_captured(&outcome), "{outcome:?}");
    }
    assert_eq!(till.ledger(ORDER).0, [500]);
}

#[tokio::test]
async fn a_stored_failure_ends_a_key_only_when_it_is_repeated() {
    let till = Till::open(Plan::First { fault: Fault::FailsBefore, times: 1 }).await;
    let effect = charge(ORDER);
    // The first time it may or may not be stored: a new key now could make two charges of what still comes to
    // be executed.
    assert_eq!(perform(&till.stripe, &rates(), &effect).await.unwrap_err().reason, "PROVIDER_FAILED");
    assert_eq!(till.simulator.account()["keys"], 1);
    for _ in 0..3 {
        assert!(is_captured(&perform(&till.stripe, &rates(), &effect).await));
    }
    assert_eq!((till.ledger(ORDER).0, &till.simulator.account()["keys"]), (vec![500], &serde_json::json!(2)));
    // Without new keys the stored failure would be the answer for ever.
    let new = NewCharge { order_id: ORDER, amount: usd(500), payment_method: "pm_card_visa", authorize_first: false };
    let stored = till.stripe.charge(&new, &format!("{ORDER}:{}", effect.name)).await;
    assert_eq!(stored, Err(holdfast_payments::provider::Failure::Failed { stored: true }));
}

#[tokio::test]
async fn key_reused_with_other_parameters_fails_by_name_uncharged() {
    let till = Till::open(Plan::None).await;
    let first = charge(ORDER);
    assert!(is_captured(&perform(&till.stripe, &rates(), &first).await));
    let second = Attempt { key: first.key.clone(), ..charge(OTHER) };
    assert_eq!(perform(&till.stripe, &rates(), &second).await.unwrap_err().reason, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!((till.ledger(ORDER).0, till.ledger(OTHER).0), (vec![500], vec![]));
}

#[tokio::test]
async fn two_owners_who_ask_at_once_make_one_charge() {
    let till = Till::open(Plan::None).await;
    let effect = charge(ORDER);
    let rates = rates();
    let all = futures::future::join_all((0..20).map(|_| perform(&till.stripe, &rates, &effect))).await;
    assert!(all.iter().any(is_captured));
    assert_eq!(till.ledger(ORDER).0, [500]);
}

#[tokio::test]
async fn a_provider_that_says_when_to_come_again_is_heard() {
    let till = Till::open(Plan::First { fault: Fault::RateLimited, times: 1 }).await;
    let again = perform(&till.stripe, &rates(), &charge(ORDER)).await.unwrap_err();
    assert_eq!(again, Again { reason: "RATE_LIMITED".into(), after: Some(Duration::ZERO) });
    let till = Till::open(Plan::First { fault: Fault::Conflict, times: 1 }).await;
    assert_eq!(perform(&till.stripe, &rates(), &charge(ORDER)).await.unwrap_err().reason, "IN_PROGRESS");
    let till = Till::open(Plan::First { fault: Fault::Malformed, times: 1 }).await;
    assert_eq!(perform(&till.stripe, &rates(), &charge(ORDER)).await.unwrap_err().reason, "MALFORMED");
}

#[tokio::test]
async fn a_provider_that_is_not_there_leaves_the_outcome_unknown() {
    let settings = holdfast_payments::stripe::Settings {
        base_url: "http://127.0.0.1:9".to_owned(),
        api_key: "sk_test_secret".to_owned(),
        timeout: Duration::from_secs(1),
    };
    assert!(!format!("{settings:?}").contains("secret"));
    let nowhere = holdfast_payments::stripe::Stripe::new(settings);
    assert_eq!(perform(&nowhere, &rates(), &charge(ORDER)).await.unwrap_err().reason, "CONNECTION");
    let garbled = Attempt { request: bytes::Bytes::from_static(b"\xff"), ..charge(ORDER) };
    assert_eq!(perform(&nowhere, &rates(), &garbled).await.unwrap_err().reason, "PAYLOAD_UNREADABLE");
}

#[tokio::test]
async fn a_search_through_many_pages_survives_those_that_fail() {
    let till = Till::open(Plan::Random { per_mille: 300 }).await;
    for n in 0..250_u32 {
        let order_id = format!("0192f0c1-7b1e-7cc3-8000-{n:012x}");
        let (order_id, payment_method) = (order_id.as_str(), "pm_card_visa");
        let charge = NewCharge { order_id, amount: usd(500), payment_method, authorize_first: false };
        // Whatever is answered: there are many charges then.
        let _ = till.stripe.charge(&charge, order_id).await;
    }
    let nobody = "0192f0c1-7b1e-7cc3-9000-000000000000";
    for _ in 0..10 {
        assert_eq!(till.stripe.find(nobody, Timestamp::default()).await, Ok(None), "silence is no proof, this is");
    }
}
