//! `ReservationService`: reads of one order's reservation.

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_adapter::{
    call::{self, Caller},
    check, read, status,
};
use holdfast_core::Aggregate as _;
use holdfast_inventory_domain::Reservation;
use holdfast_platform::errors::Problem;
use holdfast_proto::inventory::v1::{
    self, GetReservationRequest, GetReservationResponse, reservation_service_server::ReservationService,
};
use holdfast_runtime::Router;
use prost::Message as _;
use tonic::{Request, Response, Status};

pub(super) struct Reservations {
    router: Arc<dyn Router>,
}

impl Reservations {
    pub(super) fn new(router: Arc<dyn Router>) -> Self {
        Self { router }
    }
}

#[async_trait]
impl ReservationService for Reservations {
    async fn get_reservation(
        &self,
        request: Request<GetReservationRequest>,
    ) -> Result<Response<GetReservationResponse>, Status> {
        let deadline = Caller::of(&request).deadline();
        let GetReservationRequest { order_id, consistency, min_version } = request.into_inner();
        check::canonical_uuid("order_id", &order_id).map_err(|refused| status::argument(&refused))?;
        let consistency = read::consistency(consistency)?;
        let answer =
            call::read(&*self.router, deadline, Reservation::KIND, &order_id, consistency, min_version).await?;
        if !answer.exists || answer.body.is_empty() {
            let text = "no order with this id was placed or cancelled, as far as inventory has heard";
            return Err(Problem::not_found("RESERVATION_NOT_FOUND", text).into());
        }
        let reservation = v1::Reservation::decode(answer.body).map_err(|error| status::internal(&error))?;
        let read = Some(read::info(answer.version, answer.strong));
        Ok(Response::new(GetReservationResponse { reservation: Some(reservation), read }))
    }
}
