//! The edge, composed: its routes, the description that is made of them, and what is around them.
//!
//! Invariant: nothing under `/v1` is handled before it is known who calls, and how often they did; a route
//! that is served is described.

use std::num::NonZeroU32;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use http::{StatusCode, header::CONTENT_TYPE};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use crate::{
    around::{IN_FLIGHT_MAX, Room, every_request},
    body, catalog, customer,
    edge::Edge,
    identity::Identity,
    limit::Limit,
    orders, pages,
    problem::{Details, Problem},
};

pub use crate::edge::Contexts;

/// Where the description is.
pub const DESCRIPTION_PATH: &str = "/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast",
        description = "Orders, from the first item to the parcel at the door. Amounts are whole minor units. Every mutation takes an \
                       Idempotency-Key: sent twice, it takes effect once. Problems are RFC 9457's.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "orders", description = "A customer's orders."),
        (name = "customer", description = "The customer who calls."),
        (name = "catalog", description = "What can be bought.")
    ),
    components(schemas(Details)),
    security(("bearer" = [])),
    modifiers(&Bearer)
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("A token of the shop's issuer; its subject is the customer's id."))
            .build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

fn resources() -> OpenApiRouter<Edge> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(orders::create, orders::list))
        .routes(routes!(orders::get))
        .routes(routes!(orders::add_item))
        .routes(routes!(orders::remove_item))
        .routes(routes!(orders::place))
        .routes(routes!(orders::cancel))
        .routes(routes!(orders::payment))
        .routes(routes!(orders::shipment))
        .routes(routes!(orders::live::events))
        .routes(routes!(customer::create, customer::get, customer::erase))
        .routes(routes!(customer::set_profile))
        .routes(routes!(customer::set_preferences))
        .routes(routes!(customer::add_address))
        .routes(routes!(customer::change_address, customer::remove_address))
        .routes(routes!(catalog::prices))
}

/// The description of all resources, in `OpenAPI` 3.1.
pub fn description() -> utoipa::openapi::OpenApi {
    resources().into_openapi()
}

/// Everything that the edge serves, at most `rate_per_s` requests a second for each caller. Inside a tokio
/// runtime.
pub fn routes(contexts: Contexts, identity: Identity, rate_per_s: NonZeroU32) -> Router {
    let edge = Edge { contexts, identity, limit: Limit::per_second(rate_per_s) };
    let (resources, description) = resources().split_for_parts();
    let known = middleware::from_fn_with_state(edge.clone(), known_and_seldom);
    let document = serde_json::to_vec(&description).expect("a description is JSON: its keys are text");
    let document = ([(CONTENT_TYPE, "application/json")], Bytes::from(document));
    Router::new()
        .merge(resources.route_layer(known))
        .merge(pages::routes(&edge))
        .route(DESCRIPTION_PATH, get(async move || document))
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from(DESCRIPTION_PATH)))
        .fallback(async || {
            Problem::not_found("NO_SUCH_RESOURCE", "there is nothing at this address; /docs says what there is")
        })
        .method_not_allowed_fallback(async || {
            let detail = "this method is not possible here; `allow` says which are";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
        })
        .layer(DefaultBodyLimit::max(body::BYTES_MAX))
        .layer(middleware::from_fn_with_state(Room::of(IN_FLIGHT_MAX), every_request))
        .with_state(edge)
}

/// Lets a request through once it is known who sends it, if they do not send too many.
async fn known_and_seldom(State(edge): State<Edge>, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = edge.identity.of(&parts).await?;
    edge.limit.admit(&caller)?;
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, body)).await)
}
