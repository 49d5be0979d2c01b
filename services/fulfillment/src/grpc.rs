//! `FulfillmentService`.
//!
//! Invariants: a mutation goes to the shipment's one actor, through the same claims as its twin on Kafka. The
//! address is read from the store after the actor has said which version is current, so an actor's answers,
//! which claims keep and nodes pass on, never hold one. Deliberately absent: commands to recipients, which
//! come from shipments alone; and who may ask, which the edge decides.

mod list;

use std::sync::Arc;

use holdfast_adapter::{
    call::{self, Call, Caller},
    check, read, status,
    store::Reads,
};
use holdfast_core::{Aggregate as _, AggregateId, port::store::Store};
use holdfast_fulfillment_domain::Shipment;
use holdfast_platform::{grpc::Server, limited};
use holdfast_proto::fulfillment::v1::{
    self,
    fulfillment_service_server::{FulfillmentService, FulfillmentServiceServer},
};
use holdfast_runtime::Router;
use prost::{Message as _, Name};
use tonic::{Request, Response, Status};

use crate::{
    codec::{self, CANCEL_SHIPMENT, DISPATCH_SHIPMENT, ERASE_ADDRESS, PACK_SHIPMENT, RECORD_TRACKING, START_PICKING},
    queries::Queries,
    status::{not_found, rejected},
};

/// Adds `FulfillmentService` to `server`: commands through `router`, addresses from `store`, lists from
/// `queries`.
#[must_use]
pub fn register(server: Server, router: Arc<dyn Router>, store: Arc<dyn Store>, queries: Arc<dyn Queries>) -> Server {
    let reads = Reads::new(store);
    server.service(limited!(FulfillmentServiceServer::new(Shipments { router, reads, queries })))
}

struct Shipments {
    router: Arc<dyn Router>,
    reads: Reads,
    queries: Arc<dyn Queries>,
}

impl Shipments {
    /// Runs a command; the shipment right after it.
    async fn run<C: Name>(
        &self,
        caller: Caller,
        request_id: &str,
        r#type: &'static str,
        command: Option<&C>,
        key: fn(&C) -> &str,
    ) -> Result<Option<v1::Shipment>, Status> {
        let applied = Call { caller, request_id, r#type, command, key, key_field: "order_id" }
            .run(&*self.router, rejected)
            .await?;
        v1::Shipment::decode(applied.reply).map(Some).map_err(|error| status::internal(&error))
    }

    /// The stored shipment, with its address.
    async fn stored(&self, order_id: &str) -> Result<Option<(v1::Shipment, Option<v1::DeliveryAddress>)>, Status> {
        let id = AggregateId { kind: Shipment::KIND, key: order_id.into() };
        let Some(row) = self.reads.states(vec![id]).await?.pop().flatten() else { return Ok(None) };
        let state = codec::decode_shipment(row.schema, &row.bytes).map_err(|error| status::internal(&error))?;
        let shipment = codec::shipment(&state, order_id, row.version);
        Ok(shipment.map(|shipment| (shipment, codec::address(&state))))
    }
}

#[tonic::async_trait]
impl FulfillmentService for Shipments {
    async fn start_picking(
        &self,
        request: Request<v1::StartPickingRequest>,
    ) -> Result<Response<v1::StartPickingResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::StartPickingRequest { request_id, command } = request.into_inner();
        let shipment =
            self.run(caller, &request_id, START_PICKING, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::StartPickingResponse { shipment }))
    }

    async fn pack_shipment(
        &self,
        request: Request<v1::PackShipmentRequest>,
    ) -> Result<Response<v1::PackShipmentResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::PackShipmentRequest { request_id, command } = request.into_inner();
        let shipment =
            self.run(caller, &request_id, PACK_SHIPMENT, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::PackShipmentResponse { shipment }))
    }

    async fn dispatch_shipment(
        &self,
        request: Request<v1::DispatchShipmentRequest>,
    ) -> Result<Response<v1::DispatchShipmentResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::DispatchShipmentRequest { request_id, command } = request.into_inner();
        let shipment =
            self.run(caller, &request_id, DISPATCH_SHIPMENT, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::DispatchShipmentResponse { shipment }))
    }

    async fn cancel_shipment(
        &self,
        request: Request<v1::CancelShipmentRequest>,
    ) -> Result<Response<v1::CancelShipmentResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::CancelShipmentRequest { request_id, command } = request.into_inner();
        let shipment =
            self.run(caller, &request_id, CANCEL_SHIPMENT, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::CancelShipmentResponse { shipment }))
    }

    async fn record_tracking(
        &self,
        request: Request<v1::RecordTrackingRequest>,
    ) -> Result<Response<v1::RecordTrackingResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::RecordTrackingRequest { request_id, command } = request.into_inner();
        let shipment =
            self.run(caller, &request_id, RECORD_TRACKING, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::RecordTrackingResponse { shipment }))
    }

    async fn erase_address(
        &self,
        request: Request<v1::EraseAddressRequest>,
    ) -> Result<Response<v1::EraseAddressResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::EraseAddressRequest { request_id, command } = request.into_inner();
        let shipment =
            self.run(caller, &request_id, ERASE_ADDRESS, command.as_ref(), |command| &command.order_id).await?;
        Ok(Response::new(v1::EraseAddressResponse { shipment }))
    }

    async fn get_shipment(
        &self,
        request: Request<v1::GetShipmentRequest>,
    ) -> Result<Response<v1::GetShipmentResponse>, Status> {
        let deadline = Caller::of(&request).deadline();
        let v1::GetShipmentRequest { order_id, consistency, min_version } = request.into_inner();
        check::canonical_uuid("order_id", &order_id).map_err(|refused| status::argument(&refused))?;
        let consistency = read::consistency(consistency)?;
        let answer = call::read(&*self.router, deadline, Shipment::KIND, &order_id, consistency, min_version).await?;
        if !answer.exists {
            return Err(not_found());
        }
        // What the actor answered is committed, so what is stored now is of its version or of a later one.
        let (shipment, address) = self.stored(&order_id).await?.ok_or_else(not_found)?;
        let read = Some(read::info(shipment.version, answer.strong));
        Ok(Response::new(v1::GetShipmentResponse { shipment: Some(shipment), address, read }))
    }

    async fn list_pickable(
        &self,
        request: Request<v1::ListPickableRequest>,
    ) -> Result<Response<v1::ListPickableResponse>, Status> {
        list::pickable(&*self.queries, request.into_inner()).await.map(Response::new)
    }
}
