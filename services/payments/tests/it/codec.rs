//! What the codec makes of foreign bytes, and that good ones come back as they went.

use std::sync::Arc;

use holdfast_core::{
    Message,
    codec::Adapter as _,
    disposition::{DeadLetterReason, Refused},
    envelope::ContentType,
    origin::Arrival,
};
use holdfast_money::{Currency, FxRate, Money, Ratio};
use holdfast_payments::{
    app::Settings,
    codec::{PaymentAdapter, decode_call, effects_after},
};
use holdfast_payments_domain::{Call, Command, Event, Quote};
use holdfast_proto::{money::v1::Money as WireMoney, orders::v1 as orders, payments::v1};
use holdfast_testkit::origins::assert_origins;
use prost::{Message as _, Name};
use uuid::Uuid;

use crate::till;

const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";
const OTHER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000b";
const ORDER_RESERVED: &str = "holdfast.orders.v1.OrderReserved";

/// Stands in every value that is refused, and must stand in no refusal.
const CANARY: &str = "canary-7f3";

fn adapter() -> PaymentAdapter {
    PaymentAdapter::new(Settings { authorize_first: true }, Arc::new(till::rates()), till::nobody())
}

fn raw(r#type: &str, key: &str, payload: Vec<u8>) -> Message {
    Message::new(Uuid::from_u128(1), "producer", r#type, key, payload.into())
}

fn of<M: Name>(key: &str, body: &M) -> Message {
    raw(&M::full_name(), key, body.encode_to_vec())
}

fn json(r#type: &str, body: &str) -> Message {
    Message { content_type: ContentType::Json, ..raw(r#type, ORDER, body.as_bytes().to_vec()) }
}

#[allow(clippy::unnecessary_wraps, reason = "as the messages hold it")]
fn money(minor: i64, currency: &str) -> Option<WireMoney> {
    Some(WireMoney { minor, currency: currency.to_owned() })
}

/// `OrderReserved` as it will be: fields 5 and 6 are what payments needs.
fn reserved(key: &str, order_id: &str, total: Option<WireMoney>, payment_method: &str) -> Message {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Wire {
        #[prost(string, tag = "1")]
        order_id: String,
        #[prost(string, tag = "4")]
        customer_id: String,
        #[prost(message, optional, tag = "5")]
        total: Option<WireMoney>,
        #[prost(string, tag = "6")]
        payment_method: String,
    }
    let (order_id, payment_method) = (order_id.to_owned(), payment_method.to_owned());
    let body = Wire { order_id, customer_id: CANARY.to_owned(), total, payment_method };
    raw(ORDER_RESERVED, key, body.encode_to_vec())
}

fn refund(key: &str, order_id: &str, id: &str, amount: Option<WireMoney>) -> Message {
    of(key, &v1::RefundPayment { order_id: order_id.to_owned(), refund_id: id.to_owned(), amount })
}

fn rate() -> FxRate {
    FxRate::new(Currency::USD, Currency::EUR, Ratio::new(93, 100).unwrap()).unwrap()
}

fn decode(message: &Message) -> Result<Command, Refused> {
    adapter().decode(message)
}

#[test]
fn every_bad_message_is_refused_by_reason_and_field() {
    use DeadLetterReason::{Invalid, Undecodable, UnknownType};
    let order_id = || ORDER.to_owned();
    let reported = |news: i32, amount, code: &str| {
        let (provider_ref, code) = ("pi".to_owned(), code.to_owned());
        of(ORDER, &v1::ProviderReported { order_id: order_id(), provider_ref, news, amount, code })
    };
    let long = "x".repeat(65);
    let rows = [
        (raw("holdfast.payments.v1.RefundPayment", ORDER, CANARY.into()), Undecodable, None),
        (raw(ORDER_RESERVED, ORDER, CANARY.into()), Undecodable, None),
        (json("holdfast.payments.v1.RefundPayment", &format!(r#"{{"{CANARY}":1}}"#)), Undecodable, None),
        (json("holdfast.payments.v1.RefundPayment", r#"{"amount":{"minor":1.5}}"#), Undecodable, None),
        (raw("holdfast.payments.v1.PaymentCaptured", ORDER, vec![]), UnknownType, None),
        (raw("", ORDER, vec![]), UnknownType, None),
        (refund(CANARY, CANARY, "r", money(1, "EUR")), Invalid, Some("order_id")),
        (refund(OTHER, ORDER, "r", money(1, "EUR")), Invalid, Some("key")),
        (refund(ORDER, ORDER, "", money(1, "EUR")), Invalid, Some("refund_id")),
        (refund(ORDER, ORDER, &long, money(1, "EUR")), Invalid, Some("refund_id")),
        (refund(ORDER, ORDER, "r", None), Invalid, Some("amount")),
        (refund(ORDER, ORDER, "r", money(0, "EUR")), Invalid, Some("amount.minor")),
        (refund(ORDER, ORDER, "r", money(i64::MIN, "EUR")), Invalid, Some("amount.minor")),
        (refund(ORDER, ORDER, "r", money(1, CANARY)), Invalid, Some("amount.currency")),
        (reserved(ORDER, CANARY, money(1, "EUR"), "pm"), Invalid, Some("order_id")),
        (reserved(OTHER, ORDER, money(1, "EUR"), "pm"), Invalid, Some("key")),
        (reserved(ORDER, ORDER, None, "pm"), Invalid, Some("total")),
        (reserved(ORDER, ORDER, money(-1, "EUR"), "pm"), Invalid, Some("total.minor")),
        (reserved(ORDER, ORDER, money(1, "XAU"), "pm"), Invalid, Some("total.currency")),
        (reserved(ORDER, ORDER, money(1, "EUR"), &"x".repeat(256)), Invalid, Some("payment_method")),
        (of(OTHER, &orders::OrderCancelled { order_id: order_id(), ..Default::default() }), Invalid, Some("key")),
        (reported(0, None, ""), Invalid, Some("news")),
        (reported(99, None, ""), Invalid, Some("news")),
        (reported(1, money(1, CANARY), ""), Invalid, Some("amount.currency")),
        (reported(2, None, ""), Invalid, Some("amount")),
        (reported(3, None, ""), Invalid, Some("code")),
        (reported(3, None, &long), Invalid, Some("code")),
        (reported(5, money(1, CANARY), ""), Invalid, Some("amount.currency")),
    ];
    for (at, (message, reason, field)) in rows.iter().enumerate() {
        let refused = decode(message).expect_err(&format!("row {at} ({}) must be refused", message.r#type));
        assert_eq!((refused.reason, refused.field.as_deref()), (*reason, *field), "row {at}: {refused}");
        assert!(!refused.error.contains(CANARY), "row {at} quotes what it refuses: {refused}");
    }
}

#[test]
fn reserved_order_decodes_to_its_total_and_payment_method() {
    let amount = Money::new(500, Currency::USD);
    let meant = |payment_method: Option<&str>| Command::OrderReserved {
        amount,
        payment_method: payment_method.map(Into::into),
        authorize_first: true,
        quote: Quote::NotAsked,
    };
    assert_eq!(decode(&reserved(ORDER, ORDER, money(500, "USD"), "pm_1")), Ok(meant(Some("pm_1"))));
    assert_eq!(decode(&reserved(ORDER, ORDER, money(500, "USD"), "")), Ok(meant(None)));
    let text = format!(r#"{{"orderId":"{ORDER}","total":{{"minor":"500","currency":"USD"}},"paymentMethod":"pm_1"}}"#);
    assert_eq!(decode(&json(ORDER_RESERVED, &text)), Ok(meant(Some("pm_1"))));
    let cancelled = of(ORDER, &orders::OrderCancelled { order_id: ORDER.to_owned(), ..Default::default() });
    assert_eq!(decode(&cancelled), Ok(Command::OrderCancelled));
}

#[tokio::test]
async fn batch_currency_gets_its_rate_and_missing_rate_is_no_failure() {
    let reserved = |currency: &str| Command::OrderReserved {
        amount: Money::new(1, currency.parse().unwrap()),
        payment_method: None,
        authorize_first: false,
        quote: Quote::NotAsked,
    };
    let mut commands = [reserved("USD"), Command::OrderCancelled, reserved("GBP"), reserved("EUR"), reserved("USD")];
    let results = adapter().prepare(&mut commands.iter_mut().collect::<Vec<_>>()).await;
    assert!(results.iter().all(Result::is_ok));
    let quotes = commands.iter().map(|command| match command {
        Command::OrderReserved { quote, .. } => Some(*quote),
        _ => None,
    });
    let one = FxRate::new(Currency::EUR, Currency::EUR, Ratio::new(1, 1).unwrap()).unwrap();
    let usd = Some(Quote::Rate(rate()));
    assert!(quotes.eq([usd, None, Some(Quote::NoRate), Some(Quote::Rate(one)), usd]));
}

#[test]
fn call_is_stored_as_it_will_be_made_and_nothing_else_decodes() {
    let at = holdfast_core::Timestamp::default();
    let (amount, reference) = (Money::new(5, Currency::EUR), || Arc::<str>::from("pi_1"));
    let events = [
        Event::PaymentRequested { at, amount, payment_method: Some("pm".into()), authorize_first: true },
        Event::PaymentAuthorized { at, reference: reference(), amount, then: holdfast_payments_domain::Then::Capture },
        Event::PaymentCancellationNoted { at, voids: Some(reference()) },
        Event::RefundRequested {
            at,
            number: 2,
            amount,
            cause: holdfast_payments_domain::Cause::OrderCancelled,
            reference: reference(),
        },
    ];
    let begun = events.iter().flat_map(|event| effects_after(event, ORDER)).filter_map(|change| {
        let request = change.request?;
        Some((change.name, decode_call(&request).unwrap()))
    });
    let order = || ORDER.to_owned();
    let charge = Call::Charge { amount, payment_method: "pm".into(), authorize_first: true };
    let expected = [
        ("charge".to_owned(), (order(), charge)),
        ("capture".to_owned(), (order(), Call::Capture { reference: reference() })),
        ("void".to_owned(), (order(), Call::Void { reference: reference() })),
        ("refund:2".to_owned(), (order(), Call::Refund { reference: reference(), number: 2, amount })),
    ];
    assert_eq!(begun.collect::<Vec<_>>(), expected);
    for garbage in [&b""[..], b"\xff", b"\x0a\x01a"] {
        assert!(decode_call(garbage).is_err());
    }
}

#[test]
fn each_type_is_taken_from_its_own_origins_alone() {
    let orders = &[Arrival::Events { topic: "orders.events", source: "holdfast/orders/order" }][..];
    let (charge, capture, void) = (Arrival::Effect("charge"), Arrival::Effect("capture"), Arrival::Effect("void"));
    let refund = &[Arrival::Effect("refund:1"), Arrival::Effect("refund:12")][..];
    assert_origins(
        &adapter().handles(),
        &[
            ("holdfast.payments.v1.RefundPayment", &[Arrival::Commands, Arrival::Call]),
            ("holdfast.payments.v1.ChargeSucceeded", &[charge, void]),
            ("holdfast.payments.v1.ChargeDeclined", &[charge]),
            ("holdfast.payments.v1.CaptureSucceeded", &[capture]),
            ("holdfast.payments.v1.AuthorizationEnded", &[capture, void]),
            ("holdfast.payments.v1.RefundSucceeded", refund),
            ("holdfast.payments.v1.RefundRefused", refund),
            ("holdfast.payments.v1.ProviderReported", &[Arrival::Webhook("stripe/webhook")]),
            ("holdfast.orders.v1.OrderReserved", orders),
            ("holdfast.orders.v1.OrderCancelled", orders),
        ],
    );
}

#[test]
fn how_a_call_ended_has_no_form_that_is_read() {
    for ended in [
        of(ORDER, &v1::ChargeSucceeded { order_id: ORDER.to_owned(), ..Default::default() }),
        of(ORDER, &v1::RefundSucceeded { order_id: ORDER.to_owned(), ..Default::default() }),
    ] {
        assert_eq!(decode(&ended), Err(Refused::unknown_type()));
    }
}

#[test]
fn key_of_a_payment_is_an_order_id() {
    assert_eq!(adapter().check_key(ORDER), Ok(()));
    for key in ["", "x", "\0x", "0192F0C1-7B1E-7CC3-8000-00000000000A"] {
        assert!(adapter().check_key(key).is_err(), "{key:?}");
    }
}
