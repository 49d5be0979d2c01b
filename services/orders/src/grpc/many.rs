//! `BatchGetOrders`.

use std::collections::HashMap;

use futures::future::try_join_all;
use holdfast_adapter::{call, read, status};
use holdfast_core::Aggregate as _;
use holdfast_orders_domain::Order;
use holdfast_platform::errors::Problem;
use holdfast_proto::orders::v1;
use holdfast_runtime::{Consistency, Router};
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use super::{decoded, order_id};
use crate::queries::Queries;

/// Most orders of one request.
const ORDERS_MAX: usize = 100;

pub(super) async fn get(
    router: &dyn Router,
    queries: &dyn Queries,
    deadline: Instant,
    asked: v1::BatchGetOrdersRequest,
) -> Result<v1::BatchGetOrdersResponse, Status> {
    let v1::BatchGetOrdersRequest { order_ids, consistency } = asked;
    if !(1..=ORDERS_MAX).contains(&order_ids.len()) {
        return Err(Problem::invalid("INVALID", "order_ids holds none or too many")
            .field("order_ids", "holds 1-100 ids")
            .into_status());
    }
    let ids = (0..).zip(&order_ids).map(|(at, id): (usize, _)| order_id(&format!("order_ids[{at}]"), id));
    let ids = ids.collect::<Result<Vec<Uuid>, Status>>()?;
    let consistency = read::consistency(consistency)?;
    let found = match consistency {
        Consistency::Strong => from_actors(router, deadline, &order_ids).await?,
        Consistency::Local => queries.by_ids(&ids).await.map_err(|error| status::store(&error))?,
    };
    let found: HashMap<String, v1::Order> = found.into_iter().map(|order| (order.order_id.clone(), order)).collect();
    let mut answer = v1::BatchGetOrdersResponse {
        read: Some(read::info(0, consistency == Consistency::Strong)),
        ..v1::BatchGetOrdersResponse::default()
    };
    for id in order_ids {
        match found.get(&id) {
            Some(order) => answer.orders.push(order.clone()),
            None => answer.missing_order_ids.push(id),
        }
    }
    Ok(answer)
}

/// From each order's own actor. One that can't be asked fails the whole: a strong read never falls back silently.
async fn from_actors(router: &dyn Router, deadline: Instant, ids: &[String]) -> Result<Vec<v1::Order>, Status> {
    let answers = try_join_all(ids.iter().map(|id| from_actor(router, deadline, id))).await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn from_actor(router: &dyn Router, deadline: Instant, id: &str) -> Result<Option<v1::Order>, Status> {
    let answer = call::read(router, deadline, Order::KIND, id, Consistency::Strong, 0).await?;
    answer.exists.then(|| decoded(&answer.body)).transpose()
}
