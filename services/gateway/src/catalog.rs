//! What can be bought, at which price.

use axum::{Extension, Json, extract::State};
use holdfast_proto::inventory::v1::{GetPricesRequest, catalog_service_client::CatalogServiceClient};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    edge::{Edge, ask},
    identity::Caller,
    model::Money,
    path::Asked,
    problem::{Problem, Refusals},
};

/// Of which skus.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Skus {
    /// 1-50 skus, separated by commas.
    #[param(example = "lamp,chair", min_length = 1, max_length = 3249)]
    #[param(pattern = "^[A-Za-z0-9._-]{1,64}(,[A-Za-z0-9._-]{1,64}){0,49}$")]
    pub skus: String,
}

/// Most skus of one question.
const SKUS_MAX: usize = 50;

/// What one costs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Price {
    /// Of which sku.
    pub sku: String,
    /// Of one unit.
    pub price: Money,
}

/// Prices.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Prices {
    /// Of those that can be bought.
    pub prices: Vec<Price>,
    /// Those that can't.
    pub unknown_skus: Vec<String>,
}

/// Prices
///
/// What a unit costs now. An order takes the price that holds when the item is added.
#[utoipa::path(get, operation_id = "getPrices", path = "/v1/prices", tag = "catalog", params(Skus), responses((status = 200, body = Prices), Refusals))]
pub async fn prices(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Asked(asked): Asked<Skus>,
) -> Result<Json<Prices>, Problem> {
    let skus: Vec<String> = asked.skus.split(',').map(str::to_owned).collect();
    if skus.len() > SKUS_MAX {
        return Err(Problem::malformed(
            "INVALID",
            "skus",
            format!("are {}; at most {SKUS_MAX} may be asked for", skus.len()),
        ));
    }
    let answer = ask!(edge.contexts.inventory, CatalogServiceClient.get_prices, caller, GetPricesRequest { skus })?;
    let priced = |row: holdfast_proto::inventory::v1::SkuPrice| Price {
        sku: row.sku,
        price: row.price.map(Money::from).unwrap_or_default(),
    };
    Ok(Json(Prices { prices: answer.prices.into_iter().map(priced).collect(), unknown_skus: answer.unknown_skus }))
}
