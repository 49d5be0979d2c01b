//! Requests to the edge with hostile paths, queries, bodies, keys and tokens.
//!
//! Invariant: each is refused by a problem with a reason. Deliberately absent: what `edge/bad.rs` has.

use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use libtest_mimic::Failed;
use serde_json::{Value, json};

use super::{
    attack::{Acted, Attack, acts, all},
    stand::{Stand, id},
};

pub fn attacks() -> Vec<Attack> {
    acts![
        path_with_nul_is_no_resource,
        query_with_an_extreme_is_invalid,
        json_with_a_lone_surrogate_is_invalid,
        json_with_nul_in_a_text_is_invalid,
        number_out_of_range_is_invalid,
        body_of_10_mb_is_too_large,
        idempotency_key_that_is_hostile_is_invalid,
        token_that_is_hostile_is_no_token,
    ]
}

struct Asked<'a> {
    method: Method,
    path: &'a str,
    key: Option<Vec<u8>>,
    token: Vec<u8>,
    body: Vec<u8>,
}

impl<'a> Asked<'a> {
    fn get(stand: &Stand, path: &'a str) -> Result<Self, Failed> {
        let token = stand.token()?.into_bytes();
        Ok(Self { method: Method::GET, path, key: None, token, body: Vec::new() })
    }

    fn post(stand: &Stand, path: &'a str, body: impl Into<Vec<u8>>) -> Result<Self, Failed> {
        let key = Some(id().into_bytes());
        Ok(Self { method: Method::POST, key, body: body.into(), ..Self::get(stand, path)? })
    }

    async fn send(self, stand: &Stand) -> Result<(StatusCode, Value), Failed> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("http://{}{}", stand.edge, self.path))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, [b"Bearer ", &self.token[..]].concat());
        if let Some(key) = self.key {
            request = request.header("idempotency-key", key);
        }
        let answer = stand.http.send(request.body(Full::from(self.body))?).await?;
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null)))
    }

    /// Checks that it is refused with one of these statuses, by a problem with a reason.
    async fn refused(self, stand: &Stand, what: &str, statuses: &[u16]) -> Result<(), Failed> {
        let (status, problem) = self.send(stand).await?;
        let has_reason = problem["reason"].as_str().is_some_and(|reason| !reason.is_empty() && reason != "INTERNAL");
        if statuses.contains(&status.as_u16()) && has_reason {
            return Ok(());
        }
        Err(format!("{what}: {status} {problem:.200} instead of {statuses:?}").into())
    }
}

async fn draft(stand: &Stand) -> Result<String, Failed> {
    let (status, order) = Asked::post(stand, "/v1/orders", r#"{"currency":"EUR"}"#)?.send(stand).await?;
    let order_id = order["order_id"].as_str().ok_or_else(|| format!("{status} {order}"))?;
    Ok(order_id.to_owned())
}

async fn path_with_nul_is_no_resource(stand: &Stand) -> Acted {
    let order_id = draft(stand).await?;
    let mut found = Vec::new();
    for path in [
        "/v1/orders/%00".to_owned(),
        "/v1/orders/%00x/payment".to_owned(),
        format!("/v1/orders/{order_id}%00"),
        format!("/v1/orders/{order_id}%00/shipment"),
        "/v1/orders/%ed%a0%80".to_owned(),
        "/v1/orders/..%2f..%2fetc%2fpasswd".to_owned(),
        format!("/v1/orders/{}", "0".repeat(7_000)),
        "/v1/%00".to_owned(),
    ] {
        let what: String = path.chars().take(60).collect();
        found.push(Asked::get(stand, &path)?.refused(stand, &what, &[400, 404]).await);
    }
    let delete = |path| {
        let asked = Asked { method: Method::DELETE, ..Asked::post(stand, path, "")? };
        Ok::<_, Failed>(asked)
    };
    let skus = [format!("/v1/orders/{order_id}/items/%00"), format!("/v1/orders/{order_id}/items/lamp%00")];
    for path in skus.iter().map(String::as_str).chain(["/v1/customer/addresses/%00"]) {
        found.push(delete(path)?.refused(stand, path, &[400, 404, 409]).await);
    }
    all(found)?;
    Ok(Vec::new())
}

async fn query_with_an_extreme_is_invalid(stand: &Stand) -> Acted {
    let order_id = draft(stand).await?;
    let mut found = Vec::new();
    for path in [
        "/v1/prices?skus=%00".to_owned(),
        "/v1/prices?skus=lamp,%00,throne".to_owned(),
        format!("/v1/prices?skus={}", "a,".repeat(3_000)),
        "/v1/prices?skus=%ff".to_owned(),
        "/v1/orders?page_token=%ff".to_owned(),
        format!("/v1/orders?page_token={}", "00".repeat(3_000)),
        "/v1/orders?page_size=-1".to_owned(),
        "/v1/orders?page_size=99999999999999999999".to_owned(),
        "/v1/orders?customer_id=%00".to_owned(),
        "/v1/orders?status=%00".to_owned(),
        "/v1/orders?created_from=%2B292277026596-12-04T15:30:07Z".to_owned(),
        "/v1/orders?created_before=1e308".to_owned(),
        format!("/v1/orders/{order_id}?min_version=18446744073709551616"),
        format!("/v1/orders/{order_id}?consistency=%00"),
    ] {
        let what: String = path.chars().take(60).collect();
        found.push(Asked::get(stand, &path)?.refused(stand, &what, &[400, 403, 404]).await);
    }
    all(found)?;
    Ok(Vec::new())
}

async fn json_with_a_lone_surrogate_is_invalid(stand: &Stand) -> Acted {
    let order_id = draft(stand).await?;
    let (items, cancel) = (format!("/v1/orders/{order_id}/items"), format!("/v1/orders/{order_id}/cancel"));
    let mut found = Vec::new();
    for (path, body) in [
        (items.as_str(), r#"{"sku":"\ud800","quantity":1}"#),
        (&items, r#"{"sku":"lamp","quantity":1,"\ud800":1}"#),
        (&cancel, r#"{"reason":"\udc00"}"#),
        (&cancel, r#"{"reason":"\ud800\ud800"}"#),
        ("/v1/orders", r#"{"currency":"\ud83d"}"#),
        ("/v1/customer/addresses", r#"{"recipient":"\ud800","lines":["x"],"city":"x","country":"GB"}"#),
    ] {
        found.push(Asked::post(stand, path, body)?.refused(stand, body, &[400]).await);
    }
    all(found)?;
    Ok(Vec::new())
}

async fn json_with_nul_in_a_text_is_invalid(stand: &Stand) -> Acted {
    let order_id = draft(stand).await?;
    let path = |part: &str| format!("/v1/orders/{order_id}/{part}");
    let item = json!({ "sku": "lamp", "quantity": 1 }).to_string();
    let (status, answer) = Asked::post(stand, &path("items"), item)?.send(stand).await?;
    if status != StatusCode::OK {
        return Err(format!("{status} {answer}").into());
    }
    let (items, place, cancel) = (path("items"), path("place"), path("cancel"));
    let profile = json!({ "name": "\0", "email": "eve@example.org" });
    let mut found = Vec::new();
    for (method, path, body) in [
        (Method::POST, items.as_str(), json!({ "sku": "lamp\0", "quantity": 1 })),
        (Method::POST, &place, json!({ "payment_method": "pm_\0", "address_id": stand.address_id })),
        (Method::POST, &cancel, json!({ "reason": "\0" })),
        (Method::POST, "/v1/orders", json!({ "currency": "EU\0" })),
        (Method::PUT, "/v1/customer/profile", profile),
        (Method::PUT, "/v1/customer/preferences", json!({ "locale": "e\0", "marketing": false })),
        (
            Method::POST,
            "/v1/customer/addresses",
            json!({ "recipient": "\0", "lines": ["x"], "city": "x", "postal_code": "x", "country": "GB" }),
        ),
    ] {
        let what = format!("{path} {body}");
        let asked = Asked { method, ..Asked::post(stand, path, body.to_string())? };
        // A malformed token has a rejection of its own.
        found.push(asked.refused(stand, &what, &[400, 409]).await);
    }
    all(found)?;
    Ok(Vec::new())
}

async fn number_out_of_range_is_invalid(stand: &Stand) -> Acted {
    let items = format!("/v1/orders/{}/items", draft(stand).await?);
    let mut found = Vec::new();
    for number in ["1e308", "1e400", "-9223372036854775809", "NaN", "-0", "1E1", &"9".repeat(10_000), "[1]", "true"] {
        let body = format!(r#"{{"sku":"lamp","quantity":{number}}}"#);
        found.push(Asked::post(stand, &items, body)?.refused(stand, &format!("{number:.30}"), &[400]).await);
    }
    all(found)?;
    Ok(Vec::new())
}

async fn body_of_10_mb_is_too_large(stand: &Stand) -> Acted {
    let order_id = draft(stand).await?;
    let mut found = Vec::new();
    for path in ["/v1/orders".to_owned(), format!("/v1/orders/{order_id}/items"), "/v1/customer/addresses".to_owned()] {
        let asked = Asked::post(stand, &path, vec![b' '; 10_000_000])?;
        // The server may close before all of it is sent.
        match asked.send(stand).await {
            Ok((status, _)) if status != StatusCode::PAYLOAD_TOO_LARGE => {
                found.push(Err(format!("{path}: {status}").into()));
            }
            _ => {}
        }
    }
    all(found)?;
    Ok(Vec::new())
}

async fn idempotency_key_that_is_hostile_is_invalid(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for key in [&b""[..], b"\xff\xfe", &[b'k'; 129], &[b'k'; 7_000], b"a b", b"\x80"] {
        let asked = Asked { key: Some(key.to_vec()), ..Asked::post(stand, "/v1/orders", r#"{"currency":"EUR"}"#)? };
        let what = format!("{:.20}", String::from_utf8_lossy(key));
        found.push(asked.refused(stand, &what, &[400]).await);
    }
    all(found)?;
    Ok(Vec::new())
}

async fn token_that_is_hostile_is_no_token(stand: &Stand) -> Acted {
    let good = stand.token()?;
    let mut found = Vec::new();
    for token in [
        &b""[..],
        b"\xff",
        b"null",
        b"...",
        b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJzdGFmZiJ9.",
        &good.as_bytes()[..good.len() - 3],
        &[b'a'; 7_000],
    ] {
        let asked = Asked { token: token.to_vec(), ..Asked::get(stand, "/v1/orders")? };
        let what = format!("{:.20}", String::from_utf8_lossy(token));
        found.push(asked.refused(stand, &what, &[401]).await);
    }
    all(found)?;
    Ok(Vec::new())
}
