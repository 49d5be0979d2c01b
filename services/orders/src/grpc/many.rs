//! `BatchGetOrders`.

use std::collections::HashMap;

use holdfast_adapter::{call, read, status};
use holdfast_core::Aggregate as _;
use holdfast_orders_domain::Order;
use holdfast_platform::errors::Problem;
use holdfast_proto::orders::v1;
use holdfast_runtime::{Consistency, Router};
use tonic::Status;
use uuid::Uuid;

use super::{decoded, order_id};
use crate::queries::Queries;

/// Most orders of one request.
const ORDERS_MAX: usize = 100;

pub(super) async fn get(
    router: &dyn Router,
    queries: &dyn Queries,
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
    let (found, strong) = match consistency {
        Consistency::Strong => from_actors(router, &order_ids).await?,
        Consistency::Local => (queries.by_ids(&ids).await.map_err(|error| status::store(&error))?, false),
    };
    let found: HashMap<String, v1::Order> = found.into_iter().map(|order| (order.order_id.clone(), order)).collect();
    let mut answer =
        v1::BatchGetOrdersResponse { read: Some(read::info(0, strong)), ..v1::BatchGetOrdersResponse::default() };
    for id in order_ids {
        match found.get(&id) {
            Some(order) => answer.orders.push(order.clone()),
            None => answer.missing_order_ids.push(id),
        }
    }
    Ok(answer)
}

/// From each order's own actor, one question to each node that owns some; and whether that is how all of them
/// were read.
async fn from_actors(router: &dyn Router, ids: &[String]) -> Result<(Vec<v1::Order>, bool), Status> {
    let answers = call::read_many(router, Order::KIND, ids).await?;
    let strong = answers.iter().all(|answer| answer.strong);
    let orders = answers.into_iter().filter(|answer| answer.exists).map(|answer| decoded(&answer.body));
    Ok((orders.collect::<Result<_, _>>()?, strong))
}
