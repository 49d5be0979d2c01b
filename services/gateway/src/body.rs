//! A JSON body: of a bounded size, within a time, of exactly the fields that are known.
//!
//! Invariant: nothing is decided on a body that was not read to its end and understood whole. serde's own
//! bound on nesting holds (128). Deliberately absent: the bound on size, which is a layer's ([`crate::app`]).

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::problem::Problem;

/// Most bytes of a body.
pub const BYTES_MAX: usize = 64 * 1024;

/// Time for all of a body.
pub const READ_MAX: Duration = Duration::from_secs(30);

/// The body, understood.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(&request) {
            let detail = "the body has to be JSON, and content-type has to say so: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "NOT_JSON", detail));
        }
        let Ok(read) = timeout(READ_MAX, Bytes::from_request(request, state)).await else {
            let detail = "the body did not arrive within 30 s";
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "BODY_TOO_SLOW", detail));
        };
        let bytes = read.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "BODY_TOO_LARGE",
                format!("the body is larger than {BYTES_MAX} bytes"),
            ),
            _ => Problem::new(StatusCode::BAD_REQUEST, "BODY_INCOMPLETE", "the body broke off"),
        })?;
        understood(&bytes).map(Self)
    }
}

fn is_json(request: &Request) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn understood<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would take a list for a struct, its values for fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::malformed("BODY_INVALID", "body", "has to be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json);
    let value = read.map_err(|error| {
        let path = error.path().to_string();
        // Where the JSON broke off, nobody knows what would have come.
        let field = path.trim_end_matches(['.', '?']);
        Problem::malformed("BODY_INVALID", if field.is_empty() { "body" } else { field }, error.inner().to_string())
    })?;
    json.end().map_err(|_| Problem::malformed("BODY_INVALID", "body", "there is something after the JSON"))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Item {
        sku: String,
        quantity: i64,
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, field) in [
            ("", "body"),
            ("{", "body"),
            ("[]", "body"),
            (r#"["a",2]"#, "body"),
            (r#"{"sku":"a","quantity":"2"}"#, "quantity"),
            (r#"{"sku":"a","quantity":2.5}"#, "quantity"),
            (r#"{"sku":"a","quantity":9223372036854775808}"#, "quantity"),
            (r#"{"sku":"a","quantity":2,"price":0}"#, "price"),
            (r#"{"sku":"a","quantity":2,"quantity":3}"#, "body"),
            (r#"{"sku":"a"}"#, "body"),
            (r#"{"sku":"a","quantity":2} x"#, "body"),
        ] {
            let problem = understood::<Item>(text.as_bytes()).unwrap_err();
            assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
            assert_eq!(problem.errors()[0].field, field, "{text}: {}", problem.detail());
        }
        let deep = r#"{"a":"#.repeat(100_000);
        assert_eq!(understood::<serde_json::Value>(deep.as_bytes()).unwrap_err().status(), StatusCode::BAD_REQUEST);
        assert_eq!(understood::<Item>(br#"{"sku":"a","quantity":2}"#).unwrap().quantity, 2);
    }
}
