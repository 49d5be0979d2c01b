//! An order as it changes: server-sent events, as the HTML standard has them.
//!
//! Each event's id is the order's version, so that a watcher who comes back (`Last-Event-ID`) goes on where
//! it was. Invariant: versions only grow; after a final state comes `end`, and then nothing. Deliberately
//! absent: every version; some may be passed over.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt as _, future, stream};
use holdfast_proto::orders::v1::{WatchOrderRequest, WatchOrderResponse, order_service_client::OrderServiceClient};
use http::HeaderMap;
use tonic::Status;
use uuid::Uuid;

use super::{LATELY, readable};
use crate::{
    edge::Edge,
    identity::Caller,
    model::Order,
    path::{At, OrderAt},
    problem::{Problem, Refusals},
};

/// Between signs of life while nothing happens, for what is in between and cuts what is silent.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Follow an order
///
/// Server-sent events: `order` with the order as JSON, first as it is and then after each change; `end` after
/// a final state; `problem` if it can't be followed any more. Connections are cut now and then; a client
/// comes back with `Last-Event-ID`, as a browser does by itself.
#[utoipa::path(get, operation_id = "followOrder", path = "/v1/orders/{order_id}/events", tag = "orders",
    params(("order_id" = Uuid, Path), ("Last-Event-ID" = Option<u64>, Header, description = "The last version that was seen.")),
    responses((status = 200, body = String, content_type = "text/event-stream"), Refusals))]
pub async fn events(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<OrderAt>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let changes = followed(&edge, &caller, at.order_id, seen(&headers)?).await?;
    let events = changes.map(|change| match change {
        Ok(order) => sent("order", Some(order.version), &order),
        Err(problem) => sent("problem", None, &problem),
    });
    let ended = stream::once(future::ready(Event::default().event("end").data("{}")));
    Ok(streamed(events.chain(ended)))
}

/// `events` as an answer.
pub fn streamed(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response()
}

/// The last version that a watcher has seen, if it comes back.
///
/// # Errors
/// 400 if it is no version.
pub fn seen(headers: &HeaderMap) -> Result<u64, Problem> {
    let Some(said) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(0) };
    let version = said.to_str().ok().and_then(|text| text.parse().ok());
    version.ok_or_else(|| Problem::malformed("INVALID", "Last-Event-ID", "is a version: a number that is not negative"))
}

/// The order and its changes, from the first version after `after` on; ends after a final state, or after a
/// problem.
///
/// # Errors
/// If it can't be followed at all.
pub async fn followed(
    edge: &Edge,
    caller: &Caller,
    order_id: Uuid,
    after: u64,
) -> Result<impl Stream<Item = Result<Order, Problem>> + Send + use<>, Problem> {
    readable(edge, caller, order_id, &LATELY).await?;
    let request = WatchOrderRequest { order_id: order_id.to_string(), after_version: after };
    let watched = OrderServiceClient::new(edge.contexts.orders.streams()).watch_order(caller.request(request)).await?;
    let order = |said: Result<WatchOrderResponse, Status>| {
        let order = said.map_err(Problem::from)?.order.ok_or_else(Problem::internal)?;
        Ok(Order::from(order))
    };
    Ok(watched.into_inner().map(order).scan(false, |has_failed, change| {
        let goes_on = !std::mem::replace(has_failed, change.is_err());
        future::ready(goes_on.then_some(change))
    }))
}

fn sent(name: &str, id: Option<u64>, body: &impl serde::Serialize) -> Event {
    let event = Event::default().event(name).json_data(body).unwrap_or_default();
    match id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}
