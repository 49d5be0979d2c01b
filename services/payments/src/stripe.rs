//! Stripe's HTTP API as a provider: `PaymentIntents` and refunds.
//!
//! One call is one request, form-encoded, with its `Idempotency-Key`; `answer` says what came of it, `amount`
//! what Stripe can take. A charge is found by listing what was begun since and looking at the metadata: the
//! search API would be one request, but lags behind by a minute or more, so its silence proves nothing; a
//! list does. A search through hundreds of pages meets every failure there is, so a page is tried again at
//! once. Deliberately absent: any other trying again, webhooks ([`crate::webhook`]), and customers: a payment
//! method token is charged off session.

pub mod amount;
mod answer;

pub(crate) use answer::code;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::Timestamp;
use holdfast_money::Money;
use holdfast_platform::http_client::{self, HttpClient};
use http::{Method, Request, header};
use http_body_util::Full;
use serde_json::Value;

use crate::provider::{Charge, Failure, NewCharge, NewRefund, Progress, Provider, Refund};

/// The version of the API that this adapter was written against.
pub const API_VERSION: &str = "2024-06-20";

/// Where Stripe is.
pub const BASE_URL: &str = "https://api.stripe.com";

/// Rows of a page, the most that Stripe gives.
const PAGE: usize = 100;

/// Tries at one page, and how long each may take. Reading changes nothing, and a search has to fit into one
/// attempt.
const PAGE_TRIES: u32 = 6;
const PAGE_PATIENCE: Duration = Duration::from_millis(1_500);

/// Pages that are looked through for one charge, at most.
const PAGES_MAX: usize = 1_000;

/// How Stripe is called.
#[derive(Clone)]
pub struct Settings {
    /// Without a slash at the end; usually [`BASE_URL`].
    pub base_url: String,
    /// The secret key.
    pub api_key: String,
    /// For one request.
    pub timeout: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("base_url", &self.base_url)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Stripe, or something that speaks its API.
#[derive(Clone, Debug)]
pub struct Stripe {
    settings: Settings,
    client: HttpClient,
}

/// A form's fields, in order.
type Form<'a> = Vec<(&'a str, String)>;

impl Stripe {
    /// With these settings; connects with the first call.
    pub fn new(settings: Settings) -> Self {
        let client = HttpClient::new(settings.timeout);
        Self { settings, client }
    }

    async fn post(&self, path: &str, form: &Form<'_>, key: &str) -> Result<Value, Failure> {
        self.send(Method::POST, path, Some(key), encoded(form)).await
    }

    async fn get(&self, path: &str, query: &Form<'_>) -> Result<Value, Failure> {
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", encoded(query)) };
        self.send(Method::GET, &path, None, String::new()).await
    }

    /// One page of a list, in spite of failures that pass.
    async fn page(&self, path: &str, query: &Form<'_>) -> Result<Value, Failure> {
        let mut tries = 1;
        loop {
            let asked = tokio::time::timeout(PAGE_PATIENCE, self.get(path, query)).await;
            let failure = match asked.unwrap_or(Err(Failure::Unknown { reason: "TIMEOUT" })) {
                Ok(page) => return Ok(page),
                Err(failure) => failure,
            };
            let pause = match &failure {
                Failure::Busy { after, .. } => after.unwrap_or_default().min(PAGE_PATIENCE),
                Failure::Unknown { .. } | Failure::Failed { .. } => Duration::ZERO,
                _ => return Err(failure),
            };
            if tries == PAGE_TRIES {
                return Err(failure);
            }
            tokio::time::sleep(pause + Duration::from_millis(10 << tries)).await;
            tries += 1;
        }
    }

    async fn send(&self, method: Method, path: &str, key: Option<&str>, body: String) -> Result<Value, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.settings.base_url))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.settings.api_key))
            .header("stripe-version", API_VERSION)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| {
            tracing::error!(%error, "a request to the provider can't be built");
            Failure::Misconfigured { status: 0 }
        })?;
        match self.client.send(request).await {
            Ok(answer) => answer::read(&answer),
            Err(http_client::Error::Timeout) => Err(Failure::Unknown { reason: "TIMEOUT" }),
            Err(http_client::Error::Connection(error)) => {
                tracing::warn!(error, "the provider could not be reached");
                Err(Failure::Unknown { reason: "CONNECTION" })
            }
        }
    }
}

fn encoded(fields: &Form<'_>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// The amount in Stripe's units; [`Provider::accepts`] was asked before.
fn units(amount: Money) -> Result<String, Failure> {
    match amount::to_stripe(amount) {
        Ok(units) => Ok(units.to_string()),
        Err(code) => Err(Failure::Refused { code: code.to_owned(), charge: None }),
    }
}

#[async_trait]
impl Provider for Stripe {
    fn accepts(&self, amount: Money) -> Result<(), &'static str> {
        amount::to_stripe(amount).map(|_| ())
    }

    async fn charge(&self, charge: &NewCharge<'_>, key: &str) -> Result<Charge, Failure> {
        let capture = if charge.authorize_first { "manual" } else { "automatic" };
        let form = vec![
            ("amount", units(charge.amount)?),
            ("currency", charge.amount.currency.code().to_ascii_lowercase()),
            ("payment_method", charge.payment_method.to_owned()),
            ("confirm", "true".to_owned()),
            ("off_session", "true".to_owned()),
            ("capture_method", capture.to_owned()),
            ("automatic_payment_methods[enabled]", "true".to_owned()),
            // Nobody is there to be sent anywhere.
            ("automatic_payment_methods[allow_redirects]", "never".to_owned()),
            ("metadata[order_id]", charge.order_id.to_owned()),
        ];
        answer::charge(&self.post("/v1/payment_intents", &form, key).await?)
    }

    async fn capture(&self, reference: &str, key: &str) -> Result<Charge, Failure> {
        let path = format!("/v1/payment_intents/{}/capture", segment(reference)?);
        answer::charge(&self.post(&path, &Vec::new(), key).await?)
    }

    async fn void(&self, reference: &str, key: &str) -> Result<Charge, Failure> {
        let path = format!("/v1/payment_intents/{}/cancel", segment(reference)?);
        answer::charge(&self.post(&path, &Vec::new(), key).await?)
    }

    async fn refund(&self, refund: &NewRefund<'_>, key: &str) -> Result<Refund, Failure> {
        let form = vec![
            ("payment_intent", refund.reference.to_owned()),
            ("amount", units(refund.amount)?),
            ("metadata[order_id]", refund.order_id.to_owned()),
            ("metadata[refund_no]", refund.number.to_string()),
        ];
        answer::refund(&self.post("/v1/refunds", &form, key).await?)
    }

    async fn find(&self, order_id: &str, since: Timestamp) -> Result<Option<Charge>, Failure> {
        let since_s = since.unix_ms().div_euclid(1_000).max(0);
        let mut best: Option<Charge> = None;
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let mut query = vec![("created[gte]", since_s.to_string()), ("limit", PAGE.to_string())];
            query.extend(after.map(|id| ("starting_after", id)));
            let page = self.page("/v1/payment_intents", &query).await?;
            let (rows, more) = answer::page(&page)?;
            for row in rows.iter().filter(|row| answer::metadata(row, "order_id") == Some(order_id)) {
                let charge = answer::charge(row)?;
                if best.as_ref().is_none_or(|best| rank(&charge.progress) > rank(&best.progress)) {
                    best = Some(charge);
                }
            }
            // Nothing ranks higher, so whatever came before it does not matter.
            if best.as_ref().is_some_and(|best| best.progress == Progress::Captured) {
                return Ok(best);
            }
            match rows.last() {
                Some(row) if more => after = Some(answer::id(row)?),
                _ => return Ok(best),
            }
        }
        // What was not looked at proves nothing.
        best.map(Some).ok_or(Failure::Unknown { reason: "TOO_MANY_TO_SEARCH" })
    }

    async fn look(&self, reference: &str) -> Result<Charge, Failure> {
        answer::charge(&self.get(&format!("/v1/payment_intents/{}", segment(reference)?), &Vec::new()).await?)
    }

    async fn find_refund(&self, reference: &str, number: u32) -> Result<Option<Refund>, Failure> {
        let number = number.to_string();
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let mut query = vec![("payment_intent", reference.to_owned()), ("limit", PAGE.to_string())];
            query.extend(after.map(|id| ("starting_after", id)));
            let page = self.page("/v1/refunds", &query).await?;
            let (rows, more) = answer::page(&page)?;
            if let Some(row) = rows.iter().find(|row| answer::metadata(row, "refund_no") == Some(&number)) {
                return answer::refund(row).map(Some);
            }
            match rows.last() {
                Some(row) if more => after = Some(answer::id(row)?),
                _ => return Ok(None),
            }
        }
        Err(Failure::Unknown { reason: "TOO_MANY_TO_SEARCH" })
    }
}

/// How much a charge counts against others of the same order.
const fn rank(progress: &Progress) -> u8 {
    match progress {
        Progress::Captured => 5,
        Progress::Authorized => 4,
        Progress::Pending => 3,
        Progress::Declined { .. } => 2,
        Progress::CalledOff => 1,
        Progress::NotTried => 0,
    }
}

/// A reference as a part of a path: nothing that would make another path of it.
fn segment(reference: &str) -> Result<&str, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !reference.is_empty() && reference.bytes().all(plain) {
        Ok(reference)
    } else {
        Err(Failure::Misconfigured { status: 0 })
    }
}
