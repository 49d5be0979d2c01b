//! Rates over HTTP: `GET <url>?from=USD&to=EUR` answers `{"numerator": 93, "denominator": 100}`, or 404 where
//! there is no rate.
//!
//! Invariant: whole numbers alone are taken; an answer that is anything else is no answer, never a guess.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_money::{Currency, FxRate, Ratio};
use holdfast_platform::http_client::HttpClient;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;

use super::{RateSource, Unavailable};

/// A rate source at a URL.
#[derive(Clone, Debug)]
pub struct HttpRates {
    books: Currency,
    url: String,
    client: HttpClient,
}

#[derive(Deserialize)]
struct Fraction {
    numerator: i64,
    denominator: i64,
}

impl HttpRates {
    /// Asks `url`, which has no query, and waits so long for an answer.
    pub fn new(books: Currency, url: impl Into<String>, timeout: Duration) -> Self {
        Self { books, url: url.into(), client: HttpClient::new(timeout) }
    }
}

#[async_trait]
impl RateSource for HttpRates {
    fn books(&self) -> Currency {
        self.books
    }

    async fn ask(&self, from: Currency) -> Result<Option<FxRate>, Unavailable> {
        let unavailable = |why: &str| Unavailable(why.to_owned());
        let uri = format!("{}?from={from}&to={}", self.url, self.books);
        let request =
            Request::get(uri).body(Full::<Bytes>::default()).map_err(|error| unavailable(&error.to_string()))?;
        let answer = self.client.send(request).await.map_err(|error| unavailable(&error.to_string()))?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(unavailable(&format!("it answered {status}"))),
        }
        let fraction: Fraction =
            serde_json::from_slice(&answer.body).map_err(|_| unavailable("its answer is no fraction"))?;
        let rate = Ratio::new(fraction.numerator, fraction.denominator)
            .and_then(|ratio| FxRate::new(from, self.books, ratio))
            .map_err(|_| unavailable("its answer is no positive fraction"))?;
        Ok(Some(rate))
    }
}
