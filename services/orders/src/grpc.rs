//! `OrderService`.
//!
//! Invariant: a mutation reaches the same actor through the same claims as its twin on Kafka, and is answered
//! after its commit. A read says how it was made. Deliberately absent: deadlines and message sizes, which the
//! platform's server keeps; and where the actor lives.

mod list;
mod many;
mod watch;

use std::sync::Arc;

use holdfast_adapter::{
    call::{self, Call, Caller},
    check, read, status,
};
use holdfast_core::Aggregate as _;
use holdfast_orders_domain::Order;
use holdfast_platform::{grpc::Server, limited};
use holdfast_proto::orders::v1::{self, order_service_server::OrderService, order_service_server::OrderServiceServer};
use holdfast_runtime::{ReadAnswer, Router};
use prost::{Message as _, Name};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    codec::{ADD_ITEM, CANCEL_ORDER, CREATE_ORDER, PLACE_ORDER, REMOVE_ITEM},
    queries::Queries,
    status::{not_found, rejected},
};

/// Adds `OrderService` to `server`. Orders are reached through `router`; what spans many of them is asked of
/// `queries`.
#[must_use]
pub fn register(server: Server, router: Arc<dyn Router>, queries: Arc<dyn Queries>) -> Server {
    let hub = watch::Hub::new(queries.clone());
    server.service(limited!(OrderServiceServer::new(Orders { router, queries, hub })))
}

struct Orders {
    router: Arc<dyn Router>,
    queries: Arc<dyn Queries>,
    hub: Arc<watch::Hub>,
}

impl Orders {
    /// Runs a command; the order right after it.
    async fn run<C: Name>(
        &self,
        caller: Caller,
        request_id: &str,
        r#type: &'static str,
        command: Option<&C>,
        key: fn(&C) -> &str,
    ) -> Result<Option<v1::Order>, Status> {
        let applied = Call { caller, request_id, r#type, command, key, key_field: "order_id" }
            .run(&*self.router, rejected)
            .await?;
        decoded(&applied.reply).map(Some)
    }

    async fn read_one(&self, caller: &Caller, asked: &v1::GetOrderRequest) -> Result<(v1::Order, ReadAnswer), Status> {
        order_id("order_id", &asked.order_id)?;
        let consistency = read::consistency(asked.consistency)?;
        let (deadline, id) = (caller.deadline(), &asked.order_id);
        let answer = call::read(&*self.router, deadline, Order::KIND, id, consistency, asked.min_version).await?;
        if !answer.exists {
            return Err(not_found());
        }
        Ok((decoded(&answer.body)?, answer))
    }
}

/// The order in an actor's answer.
fn decoded(bytes: &[u8]) -> Result<v1::Order, Status> {
    v1::Order::decode(bytes).map_err(|error| status::internal(&error))
}

fn order_id(field: &str, text: &str) -> Result<Uuid, Status> {
    check::canonical_uuid(field, text).map_err(|refused| status::argument(&refused))
}

#[tonic::async_trait]
impl OrderService for Orders {
    async fn create_order(
        &self,
        request: Request<v1::CreateOrderRequest>,
    ) -> Result<Response<v1::CreateOrderResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::CreateOrderRequest { request_id, command } = request.into_inner();
        let order = self.run(caller, &request_id, CREATE_ORDER, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::CreateOrderResponse { order }))
    }

    async fn add_item(&self, request: Request<v1::AddItemRequest>) -> Result<Response<v1::AddItemResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::AddItemRequest { request_id, command } = request.into_inner();
        let order = self.run(caller, &request_id, ADD_ITEM, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::AddItemResponse { order }))
    }

    async fn remove_item(
        &self,
        request: Request<v1::RemoveItemRequest>,
    ) -> Result<Response<v1::RemoveItemResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::RemoveItemRequest { request_id, command } = request.into_inner();
        let order = self.run(caller, &request_id, REMOVE_ITEM, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::RemoveItemResponse { order }))
    }

    async fn place_order(
        &self,
        request: Request<v1::PlaceOrderRequest>,
    ) -> Result<Response<v1::PlaceOrderResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::PlaceOrderRequest { request_id, command } = request.into_inner();
        let order = self.run(caller, &request_id, PLACE_ORDER, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::PlaceOrderResponse { order }))
    }

    async fn cancel_order(
        &self,
        request: Request<v1::CancelOrderRequest>,
    ) -> Result<Response<v1::CancelOrderResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::CancelOrderRequest { request_id, command } = request.into_inner();
        let order = self.run(caller, &request_id, CANCEL_ORDER, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::CancelOrderResponse { order }))
    }

    async fn get_order(&self, request: Request<v1::GetOrderRequest>) -> Result<Response<v1::GetOrderResponse>, Status> {
        let caller = Caller::of(&request);
        let (order, answer) = self.read_one(&caller, request.get_ref()).await?;
        let read = Some(read::info(answer.version, answer.strong));
        Ok(Response::new(v1::GetOrderResponse { order: Some(order), read }))
    }

    async fn batch_get_orders(
        &self,
        request: Request<v1::BatchGetOrdersRequest>,
    ) -> Result<Response<v1::BatchGetOrdersResponse>, Status> {
        many::get(&*self.router, &*self.queries, request.into_inner()).await.map(Response::new)
    }

    async fn list_orders(
        &self,
        request: Request<v1::ListOrdersRequest>,
    ) -> Result<Response<v1::ListOrdersResponse>, Status> {
        list::list(&*self.queries, request.into_inner()).await.map(Response::new)
    }

    type WatchOrderStream = watch::Changes;

    async fn watch_order(&self, request: Request<v1::WatchOrderRequest>) -> Result<Response<watch::Changes>, Status> {
        let caller = Caller::of(&request);
        let v1::WatchOrderRequest { order_id, after_version } = request.into_inner();
        // LOCAL: what this stream shows was committed, and it goes on while the order's owner moves.
        let consistency = holdfast_proto::read::v1::Consistency::Local.into();
        let asked = v1::GetOrderRequest { order_id, consistency, min_version: 0 };
        let (order, _) = self.read_one(&caller, &asked).await?;
        self.hub.watch(order, after_version).map(Response::new)
    }
}
