//! Requests as Stripe's own mock server checks them against its published API. Run by `deploy/dev.sh
//! conformance`, which starts it and names its address in `HOLDFAST_STRIPE_MOCK`; its answers are canned, so
//! what they say is not looked at beyond that they can be read.
#![allow(clippy::unwrap_used)]

use std::{env, time::Duration};

use holdfast_core::Timestamp;
use holdfast_money::{Currency, Money};
use holdfast_payments::{
    provider::{Charge, Failure, NewCharge, NewRefund, Provider as _},
    stripe::{Settings, Stripe},
};

fn stripe() -> Stripe {
    let address = env::var("HOLDFAST_STRIPE_MOCK").expect("HOLDFAST_STRIPE_MOCK is http://host:port of a stripe-mock");
    Stripe::new(Settings { base_url: address, api_key: "sk_test_123".to_owned(), timeout: Duration::from_secs(10) })
}

#[tokio::test]
async fn every_request_is_one_that_stripe_takes() {
    let stripe = stripe();
    let (order_id, amount) = ("0192f0c1-7b1e-7cc3-8000-00000000000a", Money::new(10_00, Currency::EUR));
    for authorize_first in [false, true] {
        let new = NewCharge { order_id, amount, payment_method: "pm_card_visa", authorize_first };
        readable(stripe.charge(&new, "key-1").await);
    }
    readable(stripe.capture("pi_123", "key-2").await);
    readable(stripe.void("pi_123", "key-3").await);
    readable(stripe.look("pi_123").await);
    let refund = NewRefund { order_id, reference: "pi_123", number: 1, amount };
    stripe.refund(&refund, "key-4").await.unwrap();
    stripe.find(order_id, Timestamp::from_unix_ms(1_795_305_600_000)).await.unwrap();
    stripe.find_refund("pi_123", 1).await.unwrap();
}

#[track_caller]
fn readable(answer: Result<Charge, Failure>) {
    let charge = answer.unwrap();
    assert!(charge.reference.starts_with("pi_"), "{charge:?}");
}
