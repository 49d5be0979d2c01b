//! A small HTTP client: one request, one answer of a bounded size, within a time; connections are kept.
//!
//! TLS is rustls with the Mozilla roots, as everywhere here. Deliberately absent: redirects, cookies, and
//! trying again: whether that is safe, only the caller knows.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

/// Most bytes of an answer that are read.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Idle connections that are kept.
const IDLE_MAX: usize = 32;

/// Sends requests. Clones share connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// What came back, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// As it came.
    pub status: StatusCode,
    /// As they came.
    pub headers: HeaderMap,
    /// All of it.
    pub body: Bytes,
}

/// Nothing came back. Whether the request arrived is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The time is up.
    #[error("no answer in time")]
    Timeout,
    /// Nobody is there, or the exchange broke off.
    #[error("the connection failed: {0}")]
    Connection(String),
}

impl HttpClient {
    /// For answers within `timeout`.
    pub fn new(timeout: Duration) -> Self {
        let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_MAX).build(connector);
        Self { client, timeout }
    }

    /// Sends `request` once.
    ///
    /// # Errors
    /// If nothing came back; the request may have arrived nevertheless.
    pub fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async move {
            let exchange = async {
                let response = self.client.request(request).await.map_err(|error| Error::Connection(chain(&error)))?;
                let (head, body) = response.into_parts();
                let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
                let body = body.map_err(|error| Error::Connection(error.to_string()))?.to_bytes();
                Ok(Answer { status: head.status, headers: head.headers, body })
            };
            timeout(self.timeout, exchange).await.unwrap_or(Err(Error::Timeout))
        })
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
