//! Bad input at the edge: for each kind a named answer, and nothing happens.

use holdfast_platform::http_client::HttpClient;
use http::{Method, StatusCode, header};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Client, Stand};

const JSON: &str = "application/json";

/// A body as it is sent, and what it is answered.
struct Case {
    what: &'static str,
    path: String,
    kind: &'static str,
    body: Vec<u8>,
    status: u16,
    reason: &'static str,
    field: Option<&'static str>,
}

pub(super) async fn input(stand: &Stand) -> Result<(), Failed> {
    let ada = stand.customer().await?;
    let order_id = ada.draft("bad").await?;
    let path = format!("/v1/orders/{order_id}");
    let before = ada.get(&path).await?.is(StatusCode::OK)?.json()?;
    let mut cases = bodies(&path);
    cases.extend(values(&path));
    for case in cases {
        let request = ada.request(Method::POST, &case.path).header("idempotency-key", Uuid::now_v7().to_string());
        let answer = ada.send(request.header(header::CONTENT_TYPE, case.kind), case.body).await?;
        let refused = answer.refused(StatusCode::from_u16(case.status)?, case.reason);
        refused.map_err(|failed| format!("{}: {}", case.what, failed.message().unwrap_or_default()))?;
        let fields = answer.json()?["errors"].clone();
        let names =
            |field: &str| fields.as_array().is_some_and(|errors| errors.iter().any(|error| error["field"] == field));
        if case.field.is_some_and(|field| !names(field)) {
            return Err(format!("{}: {:?} is not named in {fields}", case.what, case.field).into());
        }
    }
    addresses(&ada, &path).await?;
    let after = ada.get(&path).await?.is(StatusCode::OK)?.json()?;
    if before == after { Ok(()) } else { Err(format!("something happened: {before} became {after}").into()) }
}

/// What is no JSON, or not of the shape.
fn bodies(path: &str) -> Vec<Case> {
    let items = format!("{path}/items");
    let bad = |what, body: &[u8], field| Case {
        what,
        path: items.clone(),
        kind: JSON,
        body: body.to_vec(),
        status: 400,
        reason: "BODY_INVALID",
        field: Some(field),
    };
    let deep = [vec![b'['; 30_000], vec![b']'; 30_000]].concat();
    let mut cases = vec![
        bad("empty", b"", "body"),
        bad("broken", br#"{"sku":"lamp","quanti"#, "body"),
        bad("no object", br#"["lamp",2]"#, "body"),
        bad("deeply nested", &deep, "body"),
        bad("nested in a field", &[br#"{"sku":"#.as_slice(), &deep, b"}"].concat(), "sku"),
        bad("a text for a number", br#"{"sku":"lamp","quantity":"2"}"#, "quantity"),
        bad("a fraction", br#"{"sku":"lamp","quantity":0.5}"#, "quantity"),
        bad("past 64 bits", br#"{"sku":"lamp","quantity":9223372036854775808}"#, "quantity"),
        bad("null", br#"{"sku":null,"quantity":1}"#, "sku"),
        bad("an unknown field", br#"{"sku":"lamp","quantity":1,"price":{"minor":1,"currency":"EUR"}}"#, "price"),
        bad("a field twice", br#"{"sku":"lamp","quantity":1,"quantity":2}"#, "body"),
        bad("no UTF-8", b"{\"sku\":\"\xff\",\"quantity\":1}", "sku"),
    ];
    let good = br#"{"sku":"lamp","quantity":1}"#;
    cases.push(Case {
        kind: "text/plain",
        status: 415,
        reason: "NOT_JSON",
        field: None,
        ..bad("no JSON said", good, "")
    });
    let huge = format!(r#"{{"sku":"{}","quantity":1}}"#, "x".repeat(70_000)).into_bytes();
    cases.push(Case { status: 413, reason: "BODY_TOO_LARGE", field: None, ..bad("huge", &huge, "") });
    cases
}

/// What is of the shape, and means nothing that can be.
fn values(path: &str) -> Vec<Case> {
    let of = |what, part: &str, body: Value, status, reason, field| Case {
        what,
        path: format!("{path}/{part}"),
        kind: JSON,
        body: body.to_string().into_bytes(),
        status,
        reason,
        field,
    };
    let item = |sku: &str, quantity: i64| json!({ "sku": sku, "quantity": quantity });
    let how = |method: &str, address: &str| json!({ "payment_method": method, "address_id": address });
    let somewhere = Uuid::now_v7().to_string();
    let mut cases = vec![
        of("none of it", "items", item("lamp", 0), 400, "INVALID", Some("quantity")),
        of("less than none", "items", item("lamp", i64::MIN), 400, "INVALID", Some("quantity")),
        of("more than can be counted", "items", item("lamp", i64::MAX), 409, "TOTAL_TOO_LARGE", None),
        of("a sku that is none", "items", item("a lamp!", 1), 400, "INVALID", Some("sku")),
        of("a sku that nobody knows", "items", item("unicorn", 1), 409, "UNKNOWN_SKU", None),
        of("no payment method", "place", how("", &somewhere), 400, "INVALID", Some("payment_method")),
        of(
            "a payment method that is no token",
            "place",
            how("4242 4242", &somewhere),
            409,
            "INVALID_PAYMENT_METHOD",
            None,
        ),
        of("an address of nobody's", "place", how("pm_card_visa", &somewhere), 409, "UNKNOWN_ADDRESS", None),
        of("an address that is no id", "place", how("pm_card_visa", "home"), 400, "BODY_INVALID", Some("address_id")),
        of("no address", "place", json!({ "payment_method": "pm_card_visa" }), 400, "BODY_INVALID", Some("body")),
        of("too many words", "cancel", json!({ "reason": "x".repeat(201) }), 400, "INVALID", Some("reason")),
    ];
    for (what, currency) in [("no currency", "EURO"), ("gold", "XAU"), ("a small one", "eur"), ("none", "")] {
        let body = json!({ "currency": currency }).to_string().into_bytes();
        cases.push(Case {
            what,
            path: "/v1/orders".into(),
            kind: JSON,
            body,
            status: 400,
            reason: "INVALID",
            field: Some("currency"),
        });
    }
    cases
}

/// What is wrong with where, and with what is said beside the body.
async fn addresses(ada: &Client, path: &str) -> Result<(), Failed> {
    for (asked, status, reason) in [
        ("/v1/orders/7", 400, "PATH_INVALID"),
        ("/v1/orders/%ff", 400, "PATH_INVALID"),
        ("/v1/orders/0192f0c1-7b1e-7cc3-8000-00000000000a", 404, "ORDER_NOT_FOUND"),
        ("/v1/orders?status=LOST", 400, "QUERY_INVALID"),
        ("/v1/orders?status=UNKNOWN", 400, "INVALID"),
        ("/v1/orders/0192f0c1-7b1e-7cc3-8000-00000000000a?min_version=-1", 400, "QUERY_INVALID"),
        ("/v1/orders?page_size=0", 400, "QUERY_INVALID"),
        ("/v1/orders?page_size=100000", 400, "QUERY_INVALID"),
        ("/v1/orders?page_token=%00", 400, "INVALID"),
        ("/v1/orders?created_from=yesterday", 400, "QUERY_INVALID"),
        ("/v1/orders?colour=red", 400, "QUERY_INVALID"),
        ("/v1/prices", 400, "QUERY_INVALID"),
        ("/v1/prices?skus=", 400, "INVALID"),
        ("/v1/teapots", 404, "NO_SUCH_RESOURCE"),
    ] {
        ada.get(asked).await?.refused(StatusCode::from_u16(status)?, reason)?;
    }
    let put = ada.mutate(Method::PUT, path, "k", &Value::Null).await?;
    put.refused(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED")?;
    if !put.headers.contains_key(header::ALLOW) {
        return Err("`allow` is missing".into());
    }
    let keyless = ada.request(Method::POST, "/v1/orders").header(header::CONTENT_TYPE, JSON);
    let answer = ada.send(keyless, br#"{"currency":"EUR"}"#.to_vec()).await?;
    answer.refused(StatusCode::BAD_REQUEST, "IDEMPOTENCY_KEY_MISSING")?;
    let followed = ada.request(Method::GET, &format!("{path}/events")).header("last-event-id", "-1");
    ada.send(followed, Vec::new()).await?.refused(StatusCode::BAD_REQUEST, "INVALID")?;
    // Without a token a description and a page that shows it are there; nothing else is.
    let stranger = Client { token: None, http: HttpClient::new(std::time::Duration::from_secs(10)), ..ada.clone() };
    let description = stranger.get("/openapi.json").await?.is(StatusCode::OK)?.json()?;
    if description["openapi"].as_str().is_none_or(|version| !version.starts_with("3.1")) {
        return Err(format!("{description:.100}").into());
    }
    stranger.get("/docs/").await?.is(StatusCode::OK)?;
    stranger.get("/v1/prices?skus=lamp").await?.refused(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED")
}
