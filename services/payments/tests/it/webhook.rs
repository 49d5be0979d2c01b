//! Webhooks: who may speak, and what is understood. The signatures here were made with OpenSSL.

use std::sync::Arc;

use holdfast_core::{Timestamp, codec::Adapter as _};
use holdfast_money::{Currency, Money};
use holdfast_payments::{
    app::Settings,
    codec::PaymentAdapter,
    webhook::{Refused, Report, SIGNATURE, webhook},
};
use holdfast_payments_domain::{Command, News, Quote};
use http::HeaderMap;

const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";
const SECRET: &str = "whsec_test_secret";
const SIGNED: i64 = 1_795_305_600;
const BODY: &str = r#"{"id":"evt_1","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","amount_received":1234,"currency":"eur","metadata":{"order_id":"0192f0c1-7b1e-7cc3-8000-00000000000a"}}}}"#;
const GOOD: &str = "6c2f619fd380776293a7f567bf7bd1c475f0b7ef8addfd344bece5f6f55e6100";

fn at(after_s: i64) -> Timestamp {
    Timestamp::from_unix_ms((SIGNED + after_s) * 1_000)
}

fn ask(header: &str, body: &str, now: Timestamp) -> Result<Vec<Report>, Refused> {
    let headers: HeaderMap = [(SIGNATURE.parse().unwrap(), header.parse().unwrap())].into_iter().collect();
    webhook(&[SECRET.to_owned()], &headers, body.as_bytes(), now)
}

fn good() -> String {
    format!("t={SIGNED},v1={GOOD}")
}

#[test]
fn a_body_that_was_signed_with_our_secret_is_taken() {
    let other = "0".repeat(64);
    for header in [
        good(),
        // While a secret is changed there are several; a scheme that is not ours decides nothing.
        format!("t={SIGNED},v1={other},v1={GOOD}"),
        format!("t={SIGNED},v1={GOOD},v1={other},v0={other}"),
        format!("t={SIGNED}, v1={GOOD}"),
    ] {
        let reports = ask(&header, BODY, at(0)).unwrap();
        assert_eq!((reports.len(), reports[0].order_id.as_str()), (1, ORDER), "{header}");
        // Golden: claims of the past are found by it.
        assert_eq!(reports[0].id.to_string(), "f33ee435-e387-57a0-bc0c-fa23f59ed394");
    }
    let headers: HeaderMap = [(SIGNATURE.parse().unwrap(), good().parse().unwrap())].into_iter().collect();
    let both = ["whsec_new".to_owned(), SECRET.to_owned()];
    assert!(webhook(&both, &headers, BODY.as_bytes(), at(0)).is_ok(), "either secret");
}

#[test]
fn a_forged_or_tampered_body_is_refused_whichever_bit_is_wrong() {
    for (at_char, _) in GOOD.char_indices() {
        let mut forged = GOOD.to_owned().into_bytes();
        forged[at_char] = if forged[at_char] == b'0' { b'1' } else { b'0' };
        let forged = String::from_utf8(forged).unwrap();
        assert_eq!(ask(&format!("t={SIGNED},v1={forged}"), BODY, at(0)), Err(Refused::Forged));
    }
    assert_eq!(ask(&good(), &BODY.replace("1234", "1235"), at(0)), Err(Refused::Forged), "the body");
    assert_eq!(ask(&format!("t={},v1={GOOD}", SIGNED + 1), BODY, at(0)), Err(Refused::Forged), "the time");
    assert_eq!(ask(&format!("t={SIGNED},v0={GOOD}"), BODY, at(0)), Err(Refused::NoSignature), "another scheme");
    assert_eq!(ask(&format!("t={SIGNED},v1={}", &GOOD[..62]), BODY, at(0)), Err(Refused::Forged), "cut");
    for header in ["", "t=,v1=", "v1=00", "t=x,v1=00", "t=1795305600", "t=1795305600,v1=zz", "nonsense"] {
        assert_eq!(ask(header, BODY, at(0)), Err(Refused::NoSignature), "{header:?}");
    }
    assert_eq!(webhook(&[SECRET.to_owned()], &HeaderMap::new(), BODY.as_bytes(), at(0)), Err(Refused::NoSignature));
    let headers: HeaderMap = [(SIGNATURE.parse().unwrap(), good().parse().unwrap())].into_iter().collect();
    for secrets in [vec![], vec![String::new()], vec!["whsec_other".to_owned()]] {
        assert_eq!(webhook(&secrets, &headers, BODY.as_bytes(), at(0)), Err(Refused::Forged));
    }
}

#[test]
fn a_signature_counts_for_five_minutes() {
    for after_s in [-300, -1, 0, 300] {
        assert!(ask(&good(), BODY, at(after_s)).is_ok(), "{after_s}");
    }
    for after_s in [-301, 301, 86_400] {
        assert_eq!(ask(&good(), BODY, at(after_s)), Err(Refused::OutOfTime), "{after_s}");
    }
}

/// The command in a webhook of this type about this object.
fn meant(kind: &str, object: &str) -> Result<Option<Command>, Refused> {
    let body = format!(r#"{{"id":"evt_9","type":"{kind}","data":{{"object":{object}}}}}"#);
    let signature = signed(&body);
    let reports = ask(&signature, &body, at(0))?;
    let adapter = PaymentAdapter::new(Settings::default(), Arc::new(crate::till::rates()), crate::till::nobody());
    Ok(reports.first().map(|report| {
        let message = report.call().into_message().unwrap();
        assert_eq!(&*message.source, "stripe/webhook");
        adapter.decode(&message).unwrap()
    }))
}

/// By the definition of HMAC, not by the code under test.
fn signed(body: &str) -> String {
    use sha2::{Digest as _, Sha256};
    let mut key = SECRET.as_bytes().to_vec();
    key.resize(64, 0);
    let pad = |with: u8| key.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([&pad(0x36)[..], format!("{SIGNED}.{body}").as_bytes()].concat());
    let outer = Sha256::digest([&pad(0x5c)[..], &inner[..]].concat());
    format!("t={SIGNED},v1={}", outer.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

#[test]
fn each_kind_of_event_is_understood_and_the_rest_is_passed_over() {
    assert_eq!(signed(BODY), good());
    let order = format!(r#""metadata":{{"order_id":"{ORDER}"}}"#);
    let reported = |news| Ok(Some(Command::ProviderReported { reference: "pi_1".into(), news }));
    let yen = |minor| Money::new(minor, Currency::JPY);
    let succeeded = format!(r#"{{"id":"pi_1","amount_received":500,"currency":"jpy",{order}}}"#);
    let captured = News::Captured { amount: yen(500), quote: Quote::NotAsked };
    assert_eq!(meant("payment_intent.succeeded", &succeeded), reported(captured));
    let held = format!(r#"{{"id":"pi_1",{order}}}"#);
    let held_unsaid = News::Authorized { amount: None };
    assert_eq!(meant("payment_intent.amount_capturable_updated", &held), reported(held_unsaid));
    let held_said = format!(r#"{{"id":"pi_1","amount_capturable":500,"currency":"jpy",{order}}}"#);
    let expected = News::Authorized { amount: Some(yen(500)) };
    assert_eq!(meant("payment_intent.amount_capturable_updated", &held_said), reported(expected));
    assert_eq!(meant("payment_intent.canceled", &held), reported(News::Canceled));
    let failed = format!(
        r#"{{"id":"pi_1","last_payment_error":{{"code":"card_declined","decline_code":"lost_card"}},{order}}}"#
    );
    assert_eq!(meant("payment_intent.payment_failed", &failed), reported(News::Failed { code: "lost_card".into() }));
    let refunded = format!(r#"{{"id":"ch_1","payment_intent":"pi_1","amount_refunded":30,"currency":"jpy",{order}}}"#);
    assert_eq!(meant("charge.refunded", &refunded), reported(News::Refunded { total: yen(30) }));

    assert_eq!(meant("customer.created", &held), Ok(None));
    assert_eq!(meant("payment_intent.succeeded", r#"{"id":"pi_1"}"#), Ok(None), "no order of ours");
    let broken = format!(r#"{{"id":"pi_1","amount_received":1.5,"currency":"jpy",{order}}}"#);
    assert_eq!(meant("payment_intent.succeeded", &broken), Err(Refused::Malformed), "not a whole number");
    let strange = format!(r#"{{"id":"pi_1","amount_received":1,"currency":"zzz",{order}}}"#);
    assert_eq!(meant("payment_intent.succeeded", &strange), Err(Refused::Malformed));
    assert_eq!(ask(&signed("{"), "{", at(0)), Err(Refused::Malformed));
}
