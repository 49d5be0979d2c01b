//! A provider that answers for something other than what was asked: a stop with a name, never a success.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use holdfast_core::{
    Timestamp,
    codec::{Again, Attempt},
};
use holdfast_payments::{
    codec::effects_after,
    perform::{KEY_LIFE, QUIET, perform},
    stripe::{Settings, Stripe},
};
use holdfast_payments_domain::{Cause, Command, Contradiction, Event, Outcome, Subject, Then};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::till::{PATIENCE, effect, rates, usd};

const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";
const OTHER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000b";
const AT: Timestamp = Timestamp::from_unix_ms(0);

/// A provider whose answers are written for it: to requests that do something, and to questions.
#[derive(Clone)]
struct Liar {
    does: Arc<Mutex<(u16, Value)>>,
    says: Arc<Mutex<Value>>,
    stripe: Stripe,
}

/// What it answers to requests that do something, and to questions.
type Script = (Arc<Mutex<(u16, Value)>>, Arc<Mutex<Value>>);

async fn answer(State((does, says)): State<Script>, method: Method, uri: Uri) -> Response {
    if method == Method::POST {
        let (status, body) = does.lock().unwrap().clone();
        return (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
    }
    let object = says.lock().unwrap().clone();
    let is_list = uri.query().is_some();
    Json(if is_list { json!({"data": [object], "has_more": false}) } else { object }).into_response()
}

impl Liar {
    async fn open() -> Self {
        let (does, says) = (Arc::new(Mutex::new((500, Value::Null))), Arc::new(Mutex::new(Value::Null)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(answer).with_state((does.clone(), says.clone()));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let stripe = Stripe::new(Settings { base_url, api_key: "sk_test".to_owned(), timeout: PATIENCE * 4 });
        Self { does, says, stripe }
    }

    /// What an attempt comes to if a request is answered so.
    async fn does(&self, call: &Attempt, status: u16, body: Value) -> Result<Command, Again> {
        *self.does.lock().unwrap() = (status, body);
        perform(&self.stripe, &rates(), call).await
    }

    /// What an attempt comes to if the provider, asked before anything is sent, says this.
    async fn says(&self, call: &Attempt, object: Value) -> Result<Command, Again> {
        *self.says.lock().unwrap() = object;
        let age = KEY_LIFE + QUIET;
        let late = Attempt { age, now: call.now.plus(age), ..call.clone() };
        perform(&self.stripe, &rates(), &late).await
    }
}

fn call_of(event: &Event) -> Attempt {
    let change = effects_after(event, ORDER).into_iter().find(|change| change.request.is_some()).expect("a call");
    effect(ORDER, &change.name, change.request.expect("begins"))
}

fn charge() -> Attempt {
    let (at, amount, payment_method) = (AT, usd(500), Some("pm_card_visa".into()));
    call_of(&Event::PaymentRequested { at, amount, payment_method, authorize_first: false })
}

fn capture(then: Then) -> Attempt {
    call_of(&Event::PaymentAuthorized { at: AT, reference: "pi_1".into(), amount: usd(500), then })
}

fn refund() -> Attempt {
    let (reference, cause) = ("pi_1".into(), Cause::OrderCancelled);
    call_of(&Event::RefundRequested { at: AT, number: 2, amount: usd(200), cause, reference })
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    *object.pointer_mut(pointer).expect("a field") = value;
    object
}

fn intent(status: &str) -> Value {
    json!({
        "id": "pi_1", "object": "payment_intent", "status": status, "amount": 500, "amount_capturable": 500,
        "amount_received": 500, "currency": "usd", "metadata": {"order_id": ORDER},
    })
}

fn given_back() -> Value {
    json!({
        "id": "re_1", "object": "refund", "status": "succeeded", "amount": 200, "currency": "usd", "payment_intent": "pi_1",
        "metadata": {"order_id": ORDER, "refund_no": "2"},
    })
}

#[track_caller]
fn expect(outcome: &Result<Command, Again>, source: &str, subject: Subject, asked: &str, answered: &str) {
    let contradiction =
        Contradiction { source: source.into(), subject, asked: asked.into(), answered: answered.into() };
    assert_eq!(*outcome, Ok(Command::ProviderContradicted { contradiction }));
}

#[tokio::test]
async fn charge_answer_for_another_order_or_amount_contradicts() {
    let (liar, call) = (Liar::open().await, charge());
    let sound = liar.does(&call, 200, intent("succeeded")).await;
    assert!(matches!(sound, Ok(Command::ChargeSucceeded { outcome: Outcome::Captured { .. }, .. })), "{sound:?}");
    for (pointer, value, subject, asked, answered) in [
        ("/metadata/order_id", json!(OTHER), Subject::Order, ORDER, OTHER),
        ("/metadata", json!({}), Subject::Order, ORDER, ""),
        ("/amount_received", json!(499), Subject::Amount, "5.00 USD", "4.99 USD"),
        ("/currency", json!("eur"), Subject::Amount, "5.00 USD", "5.00 EUR"),
    ] {
        let lie = with(intent("succeeded"), pointer, value);
        expect(&liar.does(&call, 200, lie.clone()).await, "charge", subject, asked, answered);
        // What a search finds carries the order that was searched for, or is not found.
        if subject == Subject::Amount {
            expect(&liar.says(&call, lie).await, "charge", subject, asked, answered);
        }
    }
    for status in ["requires_capture", "processing", "canceled", "requires_payment_method"] {
        let lie = with(intent(status), "/metadata/order_id", json!(OTHER));
        expect(&liar.does(&call, 200, lie).await, "charge", Subject::Order, ORDER, OTHER);
    }
    let declined = |order: &str| {
        let refused = with(intent("requires_payment_method"), "/metadata/order_id", json!(order));
        json!({"error": {"type": "card_error", "code": "card_declined", "payment_intent": refused}})
    };
    let sound = liar.does(&call, 402, declined(ORDER)).await;
    assert_eq!(sound, Ok(Command::ChargeDeclined { code: "card_declined".into() }));
    expect(&liar.does(&call, 402, declined(OTHER)).await, "charge", Subject::Order, ORDER, OTHER);
}

#[tokio::test]
async fn authorization_answer_for_another_order_or_charge_contradicts() {
    let liar = Liar::open().await;
    for (then, source) in [(Then::Capture, "capture"), (Then::Void, "void")] {
        let call = capture(then);
        *liar.says.lock().unwrap() = intent("succeeded");
        let sound = liar.does(&call, 200, intent("succeeded")).await;
        assert!(matches!(sound, Ok(Command::CaptureSucceeded { amount, .. }) if amount == usd(500)), "{sound:?}");
        for (pointer, value, subject, asked, answered) in [
            ("/metadata/order_id", json!(OTHER), Subject::Order, ORDER, OTHER),
            ("/id", json!("pi_2"), Subject::Charge, "pi_1", "pi_2"),
        ] {
            let lie = with(intent("succeeded"), pointer, value);
            *liar.says.lock().unwrap() = intent("succeeded");
            expect(&liar.does(&call, 200, lie.clone()).await, source, subject, asked, answered);
            expect(&liar.says(&call, lie).await, source, subject, asked, answered);
        }
        // The call does not say how much; the payment compares what moved.
        *liar.says.lock().unwrap() = with(intent("succeeded"), "/amount_received", json!(1));
        let less = liar.does(&call, 200, intent("succeeded")).await;
        assert!(matches!(less, Ok(Command::CaptureSucceeded { amount, .. }) if amount == usd(1)), "{less:?}");
    }
}

#[tokio::test]
async fn refund_with_other_order_charge_number_or_amount_contradicts() {
    let (liar, call) = (Liar::open().await, refund());
    let sound = Ok(Command::RefundSucceeded { number: 2, reference: "re_1".into() });
    assert_eq!(liar.does(&call, 200, given_back()).await, sound);
    assert_eq!(liar.says(&call, given_back()).await, sound);
    for (pointer, value, subject, asked, answered) in [
        ("/metadata/order_id", json!(OTHER), Subject::Order, ORDER, OTHER),
        ("/metadata", Value::Null, Subject::Order, ORDER, ""),
        ("/payment_intent", json!("pi_2"), Subject::Charge, "pi_1", "pi_2"),
        ("/payment_intent", Value::Null, Subject::Charge, "pi_1", ""),
        ("/metadata/refund_no", json!("1"), Subject::Refund, "2", "1"),
        ("/amount", json!(201), Subject::Amount, "2.00 USD", "2.01 USD"),
        ("/currency", json!("jpy"), Subject::Amount, "2.00 USD", "200 JPY"),
    ] {
        let lie = with(given_back(), pointer, value);
        expect(&liar.does(&call, 200, lie.clone()).await, "refund:2", subject, asked, answered);
        // A refund is found by its number: one without it is not found.
        if !matches!(subject, Subject::Refund) && !answered.is_empty() {
            expect(&liar.says(&call, lie).await, "refund:2", subject, asked, answered);
        }
    }
    let failed = with(with(given_back(), "/status", json!("failed")), "/metadata/order_id", json!(OTHER));
    expect(&liar.does(&call, 200, failed).await, "refund:2", Subject::Order, ORDER, OTHER);
}
