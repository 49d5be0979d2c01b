//! Pages for people: their orders, and one order as it changes.
//!
//! Readable without scripts: the script only saves the reload. Invariant: what a page shows is what the
//! caller may read by `/v1`, by the same functions; no page changes anything but whether one is signed in.
//! The token is in a cookie that scripts can't read. Deliberately absent: authentication of people, which is
//! the issuer's.

mod cookie;
mod view;

use std::num::NonZeroU16;

use axum::{
    Extension, Form, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response, sse::Event},
    routing::{get, post},
};
use futures::{StreamExt as _, future, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use maud::Markup;
use serde::Deserialize;

use crate::{
    edge::Edge,
    identity::Caller,
    model::{Order, OrderStatus},
    orders::{
        LATELY, Listing, listed,
        live::{followed, seen, streamed},
        readable,
    },
    path::{Asked, At, OrderAt},
    problem::Problem,
};

/// Nothing from elsewhere, and nothing written into a page runs.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// Orders on a page.
const PAGE_SIZE: NonZeroU16 = NonZeroU16::new(25).unwrap();

/// The pages. Those of orders are for who is signed in.
pub fn routes(edge: &Edge) -> Router<Edge> {
    let signed_in = middleware::from_fn_with_state(edge.clone(), signed_in);
    Router::new()
        .route("/orders", get(orders))
        .route("/orders/{order_id}", get(order))
        .route("/orders/{order_id}/live", get(live))
        .route_layer(signed_in)
        .route("/", get(async || Redirect::to("/orders")))
        .route("/sign-in", get(sign_in).post(take_token))
        .route("/sign-out", post(sign_out))
        .route("/assets/style.css", get(async || asset("text/css", include_str!("pages/assets/style.css"))))
        .route("/assets/live.js", get(async || asset("text/javascript", include_str!("pages/assets/live.js"))))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")], text).into_response()
}

/// A page as an answer.
fn page(status: StatusCode, markup: Markup) -> Response {
    let mut response = (status, markup).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// The page of a problem, in words.
fn problem_page(problem: &Problem) -> Response {
    page(problem.status(), view::problem(problem))
}

/// Lets a request through once its caller is known; a caller that is not signed in is sent to the sign-in
/// page.
async fn signed_in(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = match cookie::token(&parts.headers) {
        Some(token) => edge.identity.verify(token).await,
        None => return to_sign_in(&parts),
    };
    let caller = match caller {
        Ok(caller) => caller,
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => return to_sign_in(&parts),
        Err(problem) => return problem_page(&problem),
    };
    if let Err(problem) = edge.limit.admit(&caller) {
        return problem_page(&problem);
    }
    parts.extensions.insert(caller);
    next.run(Request::from_parts(parts, body)).await
}

fn to_sign_in(parts: &Parts) -> Response {
    // Only a path of ours, so that nobody is led elsewhere.
    Redirect::to(&format!("/sign-in?next={}", parts.uri.path())).into_response()
}

#[derive(Deserialize)]
struct Filter {
    status: Option<String>,
    page_token: Option<String>,
}

async fn orders(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Asked(filter): Asked<Filter>,
) -> Response {
    // What the form's `any` sends.
    let wanted = filter.status.filter(|word| !word.is_empty());
    let Ok(status) = wanted.map(|word| serde_json::from_value::<OrderStatus>(word.into())).transpose() else {
        return problem_page(&Problem::malformed("INVALID", "status", "is none that an order can have"));
    };
    let listing = Listing { status, page_token: filter.page_token, page_size: Some(PAGE_SIZE), ..Listing::default() };
    match listed(&edge, &caller, listing).await {
        Ok(found) => page(StatusCode::OK, view::orders(&found, status)),
        Err(problem) => problem_page(&problem),
    }
}

async fn order(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    at: Result<At<OrderAt>, Problem>,
) -> Response {
    let found = async {
        let At(at) = at?;
        // While the order moves between nodes, a page that may be a moment late is better than none.
        readable(&edge, &caller, at.order_id, &LATELY).await
    };
    match found.await {
        Ok(found) => page(StatusCode::OK, view::order(&Order::from(found))),
        Err(problem) => problem_page(&problem),
    }
}

/// The changing part of an order's page, each time that it changes.
async fn live(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<OrderAt>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let changes = followed(&edge, &caller, at.order_id, seen(&headers)?).await?;
    let parts = changes.map(|change| match change {
        Ok(order) => {
            // The format knows no carriage return inside a line.
            let part = view::state(&order).into_string().replace('\r', " ");
            Event::default().event("order").id(order.version.to_string()).data(part)
        }
        Err(problem) => Event::default().event("problem").data(problem.reason()),
    });
    Ok(streamed(parts.chain(stream::once(future::ready(Event::default().event("end").data("end"))))))
}

#[derive(Deserialize)]
struct Onward {
    #[serde(default)]
    next: String,
}

async fn sign_in(Asked(asked): Asked<Onward>) -> Response {
    page(StatusCode::OK, view::sign_in(&asked.next, None))
}

#[derive(Deserialize)]
struct Shown {
    token: String,
    #[serde(default)]
    next: String,
}

async fn take_token(State(edge): State<Edge>, headers: HeaderMap, Form(shown): Form<Shown>) -> Response {
    let token = shown.token.trim();
    match edge.identity.verify(token).await {
        Ok(_) => match cookie::setting(token, &headers) {
            Some(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to(ours(&shown.next))).into_response(),
            None => page(StatusCode::BAD_REQUEST, view::sign_in(&shown.next, Some("the token can't be kept"))),
        },
        Err(problem) => page(problem.status(), view::sign_in(&shown.next, Some(problem.detail()))),
    }
}

async fn sign_out() -> Response {
    ([(header::SET_COOKIE, cookie::CLEARING)], Redirect::to("/sign-in")).into_response()
}

/// A path of ours; anything else becomes the list.
fn ours(next: &str) -> &str {
    let is_path =
        next.starts_with("/orders") && next.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-".contains(&byte));
    if is_path { next } else { "/orders" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere() {
        for elsewhere in
            ["//evil.example", "https://evil.example", "/\\evil.example", "/orders@evil.example", "", "/orders\r\nx: y"]
        {
            assert_eq!(ours(elsewhere), "/orders", "{elsewhere:?}");
        }
        assert_eq!(
            ours("/orders/0192f0c1-7b1e-7cc3-8000-00000000000a"),
            "/orders/0192f0c1-7b1e-7cc3-8000-00000000000a"
        );
    }
}
