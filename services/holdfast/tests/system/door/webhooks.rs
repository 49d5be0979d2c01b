//! Webhooks of the payment provider: unsigned ones, and signed ones with hostile content.
//!
//! Invariant: an order is paid by no amount but its total. Deliberately absent: the forms of each event,
//! which the payments context tests.

use holdfast_load_tests::{by_hand::Raw, tail::Lying};
use holdfast_proto::payments::v1::{GetPaymentRequest, PaymentCaptured, payment_service_client::PaymentServiceClient};
use http::{Request, StatusCode};
use http_body_util::Full;
use libtest_mimic::Failed;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    attack::{Acted, Attack, Row, UNDECODABLE, acts, all},
    forgeries::unpaid,
    stand::{PATIENCE, Stand, WEBHOOK_SECRET, asked, id, last},
};
use crate::shop::record;

pub fn attacks() -> Vec<Attack> {
    acts![
        webhook_that_nobody_signed_is_refused,
        webhook_about_a_hostile_order_changes_nothing,
        webhook_that_is_no_json_is_refused,
        webhook_about_another_amount_pays_nothing,
        webhook_over_its_limit_is_refused,
    ]
}

/// HMAC-SHA256 in hexadecimal, without the code under test.
fn mac(secret: &str, message: &[u8]) -> String {
    let padded = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(secret.bytes()).for_each(|(block, byte)| *block ^= byte);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    let outer = Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize();
    outer.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn signed(body: &[u8]) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let message = [format!("{now}.").as_bytes(), body].concat();
    format!("t={now},v1={}", mac(WEBHOOK_SECRET, &message))
}

async fn post(stand: &Stand, signature: Option<&str>, body: &[u8]) -> Result<StatusCode, Failed> {
    let mut request = Request::post(format!("http://{}/webhooks/stripe", stand.operations()));
    if let Some(signature) = signature {
        request = request.header("stripe-signature", signature);
    }
    Ok(stand.http.send(request.body(Full::from(body.to_vec()))?).await?.status)
}

fn is(what: &str, status: StatusCode, wanted: &[StatusCode]) -> Result<(), Failed> {
    if wanted.contains(&status) { Ok(()) } else { Err(format!("{what}: {status} instead of {wanted:?}").into()) }
}

fn succeeded(order_id: &str, reference: &str, minor: i64) -> Vec<u8> {
    let object = json!({
        "id": reference, "amount_received": minor, "currency": "eur", "metadata": { "order_id": order_id },
    });
    json!({ "id": format!("evt_{}", id()), "type": "payment_intent.succeeded", "data": { "object": object } })
        .to_string()
        .into_bytes()
}

async fn webhook_that_nobody_signed_is_refused(stand: &Stand) -> Acted {
    let order_id = stand.reserved(0).await?;
    let body = succeeded(&order_id, "pi_forged", 500_000);
    let good = signed(&body);
    let other = signed(b"{}");
    let long = "v1=00,".repeat(1_000);
    let mut found = Vec::new();
    for signature in [
        None,
        Some(""),
        Some("t=,v1="),
        Some("t=0,v1=00"),
        Some("t=99999999999999999999,v1=00"),
        Some("t=-9223372036854775808,v1=00"),
        Some(other.as_str()),
        Some(&good[..good.len() - 2]),
        Some(&long),
    ] {
        let status = post(stand, signature, &body).await?;
        found.push(is(&format!("{signature:.40?}"), status, &[StatusCode::BAD_REQUEST]));
    }
    unpaid(stand, &order_id).await?;
    all(found)?;
    Ok(Vec::new())
}

async fn webhook_about_a_hostile_order_changes_nothing(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    let long = "0".repeat(500_000);
    for order_id in ["\0x", "seven", "\0", &id().to_uppercase(), &long, &"\0".repeat(10_000)] {
        let body = succeeded(order_id, "pi_forged", 1);
        let status = post(stand, Some(&signed(&body)), &body).await?;
        found.push(is(&format!("{order_id:.20?}"), status, &[StatusCode::BAD_REQUEST, StatusCode::OK]));
    }
    let body = succeeded(&id(), "pi_\0", 1);
    let status = post(stand, Some(&signed(&body)), &body).await?;
    found.push(is("a reference with NUL", status, &[StatusCode::BAD_REQUEST]));
    all(found)?;
    Ok(Vec::new())
}

async fn webhook_that_is_no_json_is_refused(stand: &Stand) -> Acted {
    let deep = "[".repeat(500_000);
    let mut found = Vec::new();
    for body in [
        "",
        "null",
        "[]",
        "{",
        r#"{"id":"\ud800","type":"payment_intent.succeeded"}"#,
        r#"{"id":"e","type":"payment_intent.succeeded","data":{"object":{"amount_received":1e400}}}"#,
        &deep,
    ] {
        let status = post(stand, Some(&signed(body.as_bytes())), body.as_bytes()).await?;
        found.push(is(&format!("{body:.40}"), status, &[StatusCode::BAD_REQUEST]));
    }
    all(found)?;
    Ok(Vec::new())
}

/// An order over 5,000.00 EUR is not paid by another amount, whatever payments makes of it.
async fn webhook_about_another_amount_pays_nothing(stand: &Stand) -> Acted {
    let order_id = stand.reserved(0).await?;
    for minor in [1, -1, 499_999, i64::MAX, i64::MIN] {
        let body = succeeded(&order_id, "pi_of_another", minor);
        let status = post(stand, Some(&signed(&body)), &body).await?;
        is(&minor.to_string(), status, &[StatusCode::OK, StatusCode::BAD_REQUEST])?;
    }
    let get = GetPaymentRequest { order_id: order_id.clone(), ..GetPaymentRequest::default() };
    let answer = PaymentServiceClient::new(stand.channel.clone()).get_payment(asked(get)).await?.into_inner();
    let version = answer.read.unwrap_or_default().version.to_string();
    // The order has read the events of its payment once it has read a record behind them.
    let said = |seen: &[Lying]| {
        let is_it = |lying: &&Lying| {
            &*lying.topic == "payments.events"
                && lying.raw.key.as_deref() == Some(order_id.as_bytes())
                && last(&lying.raw, "ce_sequence") == version
        };
        seen.iter().find(is_it).map(drop)
    };
    stand.tail.until(0, PATIENCE, said).await?;
    let after = Raw { value: Some(vec![0xff; 9]), ..record(&order_id, &PaymentCaptured::default()) };
    let after = after.with("ce_source", Some("holdfast/payments/payment")).with("ce_sequence", Some("9"));
    let from = stand.tail.len();
    let sent = stand.send(vec![Row::new("a record behind them", after, UNDECODABLE).to("payments.events")]).await?;
    for sent in &sent {
        stand.becomes(from, sent).await?;
    }
    unpaid(stand, &order_id).await?;
    Ok(sent)
}

async fn webhook_over_its_limit_is_refused(stand: &Stand) -> Acted {
    let body = vec![b' '; 10_000_000];
    let status = post(stand, Some(&signed(&body)), &body).await;
    // The server may close before all of it is sent.
    if let Ok(status) = status {
        is("10 MB", status, &[StatusCode::PAYLOAD_TOO_LARGE, StatusCode::BAD_REQUEST])?;
    }
    Ok(Vec::new())
}
