//! Orders: a customer's own, from the first item to the parcel at the door.
//!
//! Invariant: before anything is said of an order or done to it, it is known whose it is; another's is not
//! there. To place one, a payment method and an address are required here, though the context would do
//! without. Deliberately absent: the life of an order, which is the contexts'.

pub mod live;

use std::num::NonZeroU16;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use holdfast_proto::{
    Timestamp,
    fulfillment::v1::{GetShipmentRequest, fulfillment_service_client::FulfillmentServiceClient},
    orders::v1::{self as wire, order_service_client::OrderServiceClient},
    payments::v1::{GetPaymentRequest, payment_service_client::PaymentServiceClient},
    read::v1::Consistency,
};
use http::{StatusCode, header};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    body::Body,
    edge::{Edge, ask},
    identity::Caller,
    key::{Key, Keyed},
    model::{Order, OrderStatus, Orders, Payment, Shipment},
    path::{Asked, At, OrderAt},
    problem::{Conflicts, Details, Problem, Refusals},
};

/// An order to be opened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// ISO 4217 alphabetic code. Every item has to be priced in it.
    #[schema(example = "EUR", pattern = "^[A-Z]{3}$")]
    pub currency: String,
}

/// An item to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    /// What: 1-64 characters of `[A-Za-z0-9._-]`.
    #[schema(example = "lamp", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub sku: String,
    /// How many, at least 1.
    #[schema(example = 2, minimum = 1)]
    pub quantity: i64,
}

/// How an order is paid, and where it goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Placing {
    /// Token of a payment method, as the payment provider's form handed it out; never a card's number.
    /// Visible ASCII, or the order is not placed (409, `INVALID_PAYMENT_METHOD`).
    #[schema(example = "pm_card_visa", min_length = 1, max_length = 255)]
    pub payment_method: String,
    /// One of the customer's addresses, or the order is not placed (409, `UNKNOWN_ADDRESS`).
    pub address_id: Uuid,
}

/// Why an order is not wanted any more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Regret {
    /// In a few words, at most 200 bytes; no personal data.
    #[schema(example = "ordered twice", max_length = 200)]
    pub reason: String,
}

/// How an order is read.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// `strong`: as it is now. `local`: as it was a moment ago, also while it moves between nodes.
    #[serde(default)]
    #[param(inline)]
    pub consistency: Truth,
    /// Wait until it has at least this version, for a few seconds at most; 409 if it has not by then.
    #[serde(default)]
    #[param(value_type = u32)]
    pub min_version: u32,
}

/// As it was a moment ago: enough for what never changes, and there while the order moves between nodes.
pub const LATELY: Reading = Reading { consistency: Truth::Local, min_version: 0 };

/// How truthful a read is.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    /// Linearizable.
    #[default]
    Strong,
    /// Possibly late.
    Local,
}

/// Which orders.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// In this state.
    #[param(value_type = Option<String>, pattern = "^(DRAFT|PLACED|PAID|SHIPPED|DELIVERED|CANCELLED)$")]
    pub status: Option<OrderStatus>,
    /// Of this customer. Customers see their own alone; the staff may leave it out.
    pub customer_id: Option<Uuid>,
    /// Created at or after, as in RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    pub created_from: Option<Timestamp>,
    /// Created before, as in RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    pub created_before: Option<Timestamp>,
    /// The largest number of orders on the page.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 50)]
    pub page_size: Option<NonZeroU16>,
    /// `next_page_token` of the page before, with the same conditions.
    pub page_token: Option<String>,
}

fn missing(what: &str, reason: &str) -> Problem {
    Problem::not_found(reason, &format!("there is no such {what}"))
}

/// The order, if this caller may read it.
pub async fn readable(edge: &Edge, caller: &Caller, order_id: Uuid, reading: &Reading) -> Result<wire::Order, Problem> {
    let consistency = match reading.consistency {
        Truth::Strong => Consistency::Strong,
        Truth::Local => Consistency::Local,
    };
    let request = wire::GetOrderRequest {
        order_id: order_id.to_string(),
        consistency: consistency.into(),
        min_version: reading.min_version.into(),
    };
    let answer = ask!(edge.contexts.orders, OrderServiceClient.get_order, caller, request);
    let order = answer.map_err(|problem| waited(problem, reading))?.order.ok_or_else(Problem::internal)?;
    if caller.may_read(&order.customer_id) { Ok(order) } else { Err(missing("order", "ORDER_NOT_FOUND")) }
}

/// Waiting for a version that does not come is no failure of ours.
fn waited(problem: Problem, reading: &Reading) -> Problem {
    if problem.status() != StatusCode::GATEWAY_TIMEOUT || reading.min_version == 0 {
        return problem;
    }
    let detail = format!("the order did not have version {} in time", reading.min_version);
    Problem::new(StatusCode::CONFLICT, "VERSION_NOT_REACHED", detail)
}

/// That the order is this customer's. Whose it is never changes, so a read that may be late is as good.
async fn owned(edge: &Edge, caller: &Caller, order_id: Uuid) -> Result<(), Problem> {
    let order = readable(edge, caller, order_id, &LATELY).await?;
    if caller.is(&order.customer_id) {
        return Ok(());
    }
    let detail = "only the customer whose order it is can do this";
    Err(Problem::new(StatusCode::FORBIDDEN, "NOT_THE_CUSTOMER", detail))
}

fn shown(order: Option<wire::Order>) -> Result<Response, Problem> {
    let order = Order::from(order.ok_or_else(Problem::internal)?);
    let tag = format!("\"{}\"", order.version);
    Ok(([(header::ETAG, tag)], Json(order)).into_response())
}

/// Open an order
///
/// It is a DRAFT without items. Its id is made of the Idempotency-Key, so that a repeat finds it again. The
/// customer needs an account that is ACTIVE (409, `UNKNOWN_CUSTOMER`, `CUSTOMER_NOT_ACTIVE`).
#[utoipa::path(post, operation_id = "openOrder", path = "/v1/orders", tag = "orders", request_body = NewOrder, params(Keyed),
    responses((status = 201, body = Order, headers(("Location" = String))), Refusals, Conflicts))]
pub async fn create(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    key: Key,
    Body(new): Body<NewOrder>,
) -> Result<Response, Problem> {
    let order_id = key.made(&caller).to_string();
    let command = wire::CreateOrder {
        order_id: order_id.clone(),
        customer_id: caller.as_customer()?.to_string(),
        currency: new.currency,
    };
    let request = wire::CreateOrderRequest { request_id: key.request_id(&caller), command: Some(command) };
    let answer = ask!(edge.contexts.orders, OrderServiceClient.create_order, caller, request)?;
    let place = [(header::LOCATION, format!("/v1/orders/{order_id}"))];
    Ok((StatusCode::CREATED, place, shown(answer.order)?).into_response())
}

/// List orders
///
/// Newest first, as they were a moment ago.
#[utoipa::path(get, operation_id = "listOrders", path = "/v1/orders", tag = "orders", params(Listing), responses((status = 200, body = Orders), Refusals))]
pub async fn list(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Asked(listing): Asked<Listing>,
) -> Result<Json<Orders>, Problem> {
    listed(&edge, &caller, listing).await.map(Json)
}

/// A page of orders that this caller may read.
pub async fn listed(edge: &Edge, caller: &Caller, listing: Listing) -> Result<Orders, Problem> {
    let customer_id = match listing.customer_id {
        Some(id) if caller.may_read(&id.to_string()) => id.to_string(),
        Some(_) => {
            let detail = "customers see their own orders alone";
            return Err(Problem::new(StatusCode::FORBIDDEN, "NOT_THE_CUSTOMER", detail));
        }
        None if caller.is_staff() => String::new(),
        None => caller.as_customer()?.to_string(),
    };
    let statuses = match listing.status {
        Some(OrderStatus::Unknown) => {
            return Err(Problem::malformed("INVALID", "status", "UNKNOWN can't be asked for"));
        }
        Some(status) => vec![status.wire().into()],
        None => Vec::new(),
    };
    let request = wire::ListOrdersRequest {
        customer_id,
        statuses,
        created_from: listing.created_from,
        created_before: listing.created_before,
        page_size: listing.page_size.map_or(0, |size| size.get().into()),
        page_token: listing.page_token.unwrap_or_default(),
    };
    let answer = ask!(edge.contexts.orders, OrderServiceClient.list_orders, caller, request)?;
    Ok(Orders {
        orders: answer.orders.into_iter().map(Order::from).collect(),
        next_page_token: Some(answer.next_page_token).filter(|token| !token.is_empty()),
    })
}

/// Read an order
#[utoipa::path(get, operation_id = "getOrder", path = "/v1/orders/{order_id}", tag = "orders", params(("order_id" = Uuid, Path), Reading),
    responses((status = 200, body = Order, headers(("ETag" = String))), Refusals,
        (status = 409, body = Details, content_type = "application/problem+json", description = "`min_version` was not reached.")))]
pub async fn get(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<OrderAt>,
    Asked(reading): Asked<Reading>,
) -> Result<Response, Problem> {
    shown(Some(readable(&edge, &caller, at.order_id, &reading).await?))
}

/// Add an item
///
/// At the price that holds now. If the order has the sku already, its line grows, and all of it takes this
/// price.
#[utoipa::path(post, operation_id = "addItem", path = "/v1/orders/{order_id}/items", tag = "orders", request_body = NewItem,
    params(("order_id" = Uuid, Path), Keyed), responses((status = 200, body = Order), Refusals, Conflicts))]
pub async fn add_item(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<OrderAt>,
    key: Key,
    Body(item): Body<NewItem>,
) -> Result<Response, Problem> {
    owned(&edge, &caller, at.order_id).await?;
    let command = wire::AddItem { order_id: at.order_id.to_string(), sku: item.sku, quantity: item.quantity };
    let request = wire::AddItemRequest { request_id: key.request_id(&caller), command: Some(command) };
    shown(ask!(edge.contexts.orders, OrderServiceClient.add_item, caller, request)?.order)
}

/// A line's place.
#[derive(Debug, Deserialize)]
pub struct LineAt {
    order_id: Uuid,
    sku: String,
}

/// Remove an item
///
/// All of it, however many there are.
#[utoipa::path(delete, operation_id = "removeItem", path = "/v1/orders/{order_id}/items/{sku}", tag = "orders",
    params(("order_id" = Uuid, Path), ("sku" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$"), Keyed),
    responses((status = 200, body = Order), Refusals, Conflicts))]
pub async fn remove_item(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<LineAt>,
    key: Key,
) -> Result<Response, Problem> {
    owned(&edge, &caller, at.order_id).await?;
    let command = wire::RemoveItem { order_id: at.order_id.to_string(), sku: at.sku };
    let request = wire::RemoveItemRequest { request_id: key.request_id(&caller), command: Some(command) };
    shown(ask!(edge.contexts.orders, OrderServiceClient.remove_item, caller, request)?.order)
}

/// Place an order
///
/// The answer does not wait for stock and payment: follow the order to see what becomes of it. Nothing is
/// charged if the customer is unknown (409, `UNKNOWN_CUSTOMER`) or not active (409, `CUSTOMER_NOT_ACTIVE`),
/// or has no such address.
#[utoipa::path(post, operation_id = "placeOrder", path = "/v1/orders/{order_id}/place", tag = "orders", request_body = Placing,
    params(("order_id" = Uuid, Path), Keyed), responses((status = 200, body = Order), Refusals, Conflicts))]
pub async fn place(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<OrderAt>,
    key: Key,
    Body(placing): Body<Placing>,
) -> Result<Response, Problem> {
    if placing.payment_method.is_empty() {
        return Err(Problem::malformed("INVALID", "payment_method", "is required: a token of the payment provider's"));
    }
    owned(&edge, &caller, at.order_id).await?;
    let command = wire::PlaceOrder {
        order_id: at.order_id.to_string(),
        payment_method: placing.payment_method,
        address_id: placing.address_id.to_string(),
    };
    let request = wire::PlaceOrderRequest { request_id: key.request_id(&caller), command: Some(command) };
    shown(ask!(edge.contexts.orders, OrderServiceClient.place_order, caller, request)?.order)
}

/// Cancel an order
///
/// Possible until it is shipped. A paid order is cancelled once the warehouse has stopped it; until then
/// `cancellation_requested` is set.
#[utoipa::path(post, operation_id = "cancelOrder", path = "/v1/orders/{order_id}/cancel", tag = "orders", request_body = Regret,
    params(("order_id" = Uuid, Path), Keyed), responses((status = 200, body = Order), Refusals, Conflicts))]
pub async fn cancel(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<OrderAt>,
    key: Key,
    Body(regret): Body<Regret>,
) -> Result<Response, Problem> {
    owned(&edge, &caller, at.order_id).await?;
    let command = wire::CancelOrder { order_id: at.order_id.to_string(), reason: regret.reason };
    let request = wire::CancelOrderRequest { request_id: key.request_id(&caller), command: Some(command) };
    shown(ask!(edge.contexts.orders, OrderServiceClient.cancel_order, caller, request)?.order)
}

/// Read an order's payment
#[utoipa::path(get, operation_id = "getPayment", path = "/v1/orders/{order_id}/payment", tag = "orders", params(("order_id" = Uuid, Path)),
    responses((status = 200, body = Payment), Refusals))]
pub async fn payment(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<OrderAt>,
) -> Result<Json<Payment>, Problem> {
    readable(&edge, &caller, at.order_id, &LATELY).await?;
    let request = GetPaymentRequest { order_id: at.order_id.to_string(), ..GetPaymentRequest::default() };
    let answer = ask!(edge.contexts.payments, PaymentServiceClient.get_payment, caller, request)?;
    answer.payment.map(|payment| Json(payment.into())).ok_or_else(Problem::internal)
}

/// Read an order's shipment
#[utoipa::path(get, operation_id = "getShipment", path = "/v1/orders/{order_id}/shipment", tag = "orders", params(("order_id" = Uuid, Path)),
    responses((status = 200, body = Shipment), Refusals))]
pub async fn shipment(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<OrderAt>,
) -> Result<Json<Shipment>, Problem> {
    readable(&edge, &caller, at.order_id, &LATELY).await?;
    let request = GetShipmentRequest { order_id: at.order_id.to_string(), ..GetShipmentRequest::default() };
    let answer = ask!(edge.contexts.fulfillment, FulfillmentServiceClient.get_shipment, caller, request)?;
    answer.shipment.map(|shipment| Json(shipment.into())).ok_or_else(Problem::internal)
}
