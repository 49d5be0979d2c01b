//! What Stripe reports by itself: signed webhooks, as commands for payments.
//!
//! Invariant: nothing is read before the signature over the exact bytes has been found good, by one of the
//! `v1` signatures, compared in constant time, and made at most [`TOLERANCE`] ago. An event that comes again,
//! however late, is the same message: its id is made of Stripe's, and the claim kept with it sees to the
//! rest. Deliberately absent: events that mean nothing to a payment, which are taken and passed over, and
//! amounts of charges that are not ours.

use std::{sync::Arc, time::Duration};

use axum::{
    Router as Routes,
    body::Bytes as Body,
    extract::{DefaultBodyLimit, State},
    routing::post,
};
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use holdfast_core::{CallEnvelope, Timestamp, call::CallOrigin};
use holdfast_payments_domain::{News, Quote};
use holdfast_runtime::{RouteError, Router};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use sha2::Sha256;
use uuid::Uuid;

use crate::{
    codec::{PROVIDER_REPORTED, WEBHOOK_SOURCE, encode_report},
    stripe::amount::from_stripe,
};

/// The header that carries the signatures.
pub const SIGNATURE: &str = "stripe-signature";

/// How old a signature may be, and how far ahead of our clock.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// Where [`routes`] listens.
pub const PATH: &str = "/webhooks/stripe";

/// Most bytes of a webhook's body.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The name space of Stripe's event ids. Must never change: claims are found by what is made with it.
const EVENTS: Uuid = Uuid::from_u128(0x2b7e_9d0c_6e41_4a57_b1c8_53a0_77f2_9e16);

/// A report for one order's payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The order's id.
    pub order_id: String,
    /// Made of Stripe's id of the event.
    pub id: Uuid,
    /// The body of `ProviderReported`.
    pub payload: Bytes,
}

impl Report {
    /// As a call to the payment's actor, which says where it began.
    pub fn call(&self) -> CallEnvelope {
        let origin = CallOrigin::Webhook(WEBHOOK_SOURCE.into());
        CallEnvelope {
            origin,
            ..CallEnvelope::new(self.id, PROVIDER_REPORTED, self.order_id.as_str(), self.payload.clone())
        }
    }
}

/// A webhook that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no `Stripe-Signature`, or it is none.
    #[error("the signature is missing or malformed")]
    NoSignature,
    /// No signature is one of ours.
    #[error("the signature is forged")]
    Forged,
    /// The signature is too old, or from the future.
    #[error("the signature's time is not within the tolerance")]
    OutOfTime,
    /// The body is signed and yet no event.
    #[error("the body is no event")]
    Malformed,
}

/// Checks a webhook and reads it; the reports are none for an event that means nothing here. `secrets` are
/// those in force, more than one while they are being changed.
pub fn webhook(secrets: &[String], headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Vec<Report>, Refused> {
    let signature = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()).ok_or(Refused::NoSignature)?;
    verify(secrets, signature, body, now)?;
    let event: Value = serde_json::from_slice(body).map_err(|_| Refused::Malformed)?;
    report(&event).map(|report| report.into_iter().collect())
}

fn verify(secrets: &[String], signature: &str, body: &[u8], now: Timestamp) -> Result<(), Refused> {
    let fields = || signature.split(',').filter_map(|field| field.trim().split_once('='));
    let time = fields().find(|(name, _)| *name == "t").map(|(_, time)| time).ok_or(Refused::NoSignature)?;
    let signed_s: i64 = time.parse().map_err(|_| Refused::NoSignature)?;
    let mut candidates =
        fields().filter(|(name, _)| *name == "v1").filter_map(|(_, text)| hex::decode(text).ok()).peekable();
    if candidates.peek().is_none() {
        return Err(Refused::NoSignature);
    }
    let good = candidates.any(|candidate| {
        // `verify_slice` compares in constant time.
        secrets.iter().filter_map(|secret| mac(secret, time, body)).any(|mac| mac.verify_slice(&candidate).is_ok())
    });
    if !good {
        return Err(Refused::Forged);
    }
    let apart_s = now.unix_ms().div_euclid(1_000).abs_diff(signed_s);
    if apart_s <= TOLERANCE.as_secs() { Ok(()) } else { Err(Refused::OutOfTime) }
}

fn mac(secret: &str, time: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    if secret.is_empty() {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

/// The header's value for a body that is signed now, as Stripe would.
pub(crate) fn sign(secret: &str, body: &[u8], at_s: i64) -> Option<String> {
    let signature = mac(secret, &at_s.to_string(), body)?.finalize().into_bytes();
    Some(format!("t={at_s},v1={}", hex::encode(signature)))
}

fn report(event: &Value) -> Result<Option<Report>, Refused> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let id = text(&event["id"]).ok_or(Refused::Malformed)?;
    let kind = event["type"].as_str().ok_or(Refused::Malformed)?;
    let object = &event["data"]["object"];
    // Without an order it is no charge of ours.
    let Some(order_id) = text(&object["metadata"]["order_id"]) else { return Ok(None) };
    let reference = match kind {
        "charge.refunded" => text(&object["payment_intent"]),
        _ => text(&object["id"]),
    };
    let money = |units: &Value| {
        let units = units.as_i64().ok_or(Refused::Malformed)?;
        from_stripe(units, object["currency"].as_str().unwrap_or_default()).ok_or(Refused::Malformed)
    };
    let news = match kind {
        "payment_intent.succeeded" => {
            News::Captured { amount: money(&object["amount_received"])?, quote: Quote::NotAsked }
        }
        "payment_intent.amount_capturable_updated" => {
            let held = &object["amount_capturable"];
            News::Authorized { amount: (!held.is_null()).then(|| money(held)).transpose()? }
        }
        "payment_intent.payment_failed" => {
            let code = crate::stripe::code(&object["last_payment_error"]);
            News::Failed { code: code.chars().take(64).collect::<String>().into() }
        }
        "payment_intent.canceled" => News::Canceled,
        "charge.refunded" => News::Refunded { total: money(&object["amount_refunded"])? },
        _ => return Ok(None),
    };
    let reference = reference.ok_or(Refused::Malformed)?;
    let payload = encode_report(&order_id, &reference, &news);
    Ok(Some(Report { order_id, id: Uuid::new_v5(&EVENTS, id.as_bytes()), payload }))
}

#[derive(Clone)]
struct Door {
    secrets: Arc<[String]>,
    router: Arc<dyn Router>,
    now: fn() -> Timestamp,
}

/// The route for webhooks: each is answered once it is committed, so that Stripe sends again what was not. A
/// payment's own rejection is an answer; what cannot be taken now is 503, what never can be is 400.
pub fn routes(secrets: Vec<String>, router: Arc<dyn Router>, now: fn() -> Timestamp) -> Routes {
    let door = Door { secrets: secrets.into(), router, now };
    Routes::new().route(PATH, post(take)).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(door)
}

async fn take(State(door): State<Door>, headers: HeaderMap, body: Body) -> StatusCode {
    let body: Bytes = body;
    let reports = match webhook(&door.secrets, &headers, &body, (door.now)()) {
        Ok(reports) => reports,
        Err(refused) => {
            tracing::warn!(%refused, "a webhook was refused");
            return StatusCode::BAD_REQUEST;
        }
    };
    for report in reports {
        match door.router.command(report.call()).await {
            Ok(_) => {}
            Err(error @ (RouteError::Refused(_) | RouteError::Forbidden(_) | RouteError::Reused)) => {
                tracing::warn!(%error, "a webhook says what can't be");
                return StatusCode::BAD_REQUEST;
            }
            Err(error) => {
                tracing::warn!(%error, "a webhook has to come again");
                return StatusCode::SERVICE_UNAVAILABLE;
            }
        }
    }
    StatusCode::OK
}
