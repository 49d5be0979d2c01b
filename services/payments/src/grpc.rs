//! `PaymentService`.
//!
//! Invariant: a mutation reaches the same actor through the same claims as its twin on Kafka, and is answered
//! after its commit, not after the provider. Deliberately absent: what the provider says, which nobody may
//! say by gRPC.

use std::sync::Arc;

use holdfast_adapter::{
    call::{self, Call, Caller},
    check, read, status,
};
use holdfast_core::Aggregate as _;
use holdfast_payments_domain::Payment;
use holdfast_platform::{grpc::Server, limited};
use holdfast_proto::payments::v1::{
    self, payment_service_server::PaymentService, payment_service_server::PaymentServiceServer,
};
use holdfast_runtime::Router;
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::{
    codec::REFUND_PAYMENT,
    status::{not_found, rejected},
};

/// Adds `PaymentService` to `server`. Payments are reached through `router`.
#[must_use]
pub fn register(server: Server, router: Arc<dyn Router>) -> Server {
    server.service(limited!(PaymentServiceServer::new(Payments { router })))
}

struct Payments {
    router: Arc<dyn Router>,
}

/// The payment in an actor's answer.
fn decoded(bytes: &[u8]) -> Result<v1::Payment, Status> {
    v1::Payment::decode(bytes).map_err(|error| status::internal(&error))
}

#[tonic::async_trait]
impl PaymentService for Payments {
    async fn refund_payment(
        &self,
        request: Request<v1::RefundPaymentRequest>,
    ) -> Result<Response<v1::RefundPaymentResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::RefundPaymentRequest { request_id, command } = request.into_inner();
        let call = Call {
            caller,
            request_id: &request_id,
            r#type: REFUND_PAYMENT,
            command: command.as_ref(),
            key: |command: &v1::RefundPayment| &command.order_id,
            key_field: "order_id",
        };
        let applied = call.run(&*self.router, rejected).await?;
        Ok(Response::new(v1::RefundPaymentResponse { payment: Some(decoded(&applied.reply)?) }))
    }

    async fn get_payment(
        &self,
        request: Request<v1::GetPaymentRequest>,
    ) -> Result<Response<v1::GetPaymentResponse>, Status> {
        let deadline = Caller::of(&request).deadline();
        let v1::GetPaymentRequest { order_id, consistency, min_version } = request.into_inner();
        check::canonical_uuid("order_id", &order_id).map_err(|refused| status::argument(&refused))?;
        let consistency = read::consistency(consistency)?;
        let answer = call::read(&*self.router, deadline, Payment::KIND, &order_id, consistency, min_version).await?;
        if !answer.exists || answer.body.is_empty() {
            return Err(not_found());
        }
        let read = Some(read::info(answer.version, answer.strong));
        Ok(Response::new(v1::GetPaymentResponse { payment: Some(decoded(&answer.body)?), read }))
    }
}
