//! `CustomerService`.
//!
//! Invariants: a mutation goes to the customer's one actor, through the same claims as its twin on Kafka
//! where it has one, and answers with a receipt. What holds personal data is read from the store after the
//! actor has said which version is current, so an actor's answers, which claims keep and nodes pass on, never
//! hold any. Deliberately absent: who may ask for whom, which the edge decides.

mod addresses;
mod check_customers;

use std::sync::Arc;

use holdfast_adapter::{
    call::{self, Call, Caller},
    check, read, status,
    store::Reads,
};
use holdfast_core::{Aggregate as _, AggregateId, port::store::Store};
use holdfast_customers_domain::Customer;
use holdfast_platform::{grpc::Server, limited};
use holdfast_proto::customers::v1::{
    self,
    customer_service_server::{CustomerService, CustomerServiceServer},
};
use holdfast_runtime::Router;
use prost::{Message as _, Name};
use tonic::{Request, Response, Status};

use crate::{
    codec::{
        ADD_ADDRESS, CHANGE_ADDRESS, CREATE_CUSTOMER, ERASE_CUSTOMER, REACTIVATE_CUSTOMER, REMOVE_ADDRESS,
        SET_PREFERENCES, SUSPEND_CUSTOMER, UPDATE_PROFILE, customer, decode_state,
    },
    status::{not_found, rejected},
};

pub use addresses::ADDRESSES_MAX;
pub use check_customers::CUSTOMERS_MAX;

/// Adds `CustomerService` to `server`: commands through `router`, personal data from `store`.
#[must_use]
pub fn register(server: Server, router: Arc<dyn Router>, store: Arc<dyn Store>) -> Server {
    let reads = Reads::new(store);
    server.service(limited!(CustomerServiceServer::new(Customers { router, reads })))
}

struct Customers {
    router: Arc<dyn Router>,
    reads: Reads,
}

impl Customers {
    /// Runs a command; the receipt right after it.
    async fn run<C: Name>(
        &self,
        caller: Caller,
        request_id: &str,
        r#type: &'static str,
        command: Option<&C>,
        key: fn(&C) -> &str,
    ) -> Result<Option<v1::CustomerReceipt>, Status> {
        let applied = Call { caller, request_id, r#type, command, key, key_field: "customer_id" }
            .run(&*self.router, rejected)
            .await?;
        v1::CustomerReceipt::decode(applied.reply).map(Some).map_err(|error| status::internal(&error))
    }

    /// The stored customer.
    async fn stored(&self, customer_id: &str) -> Result<Option<v1::Customer>, Status> {
        let id = AggregateId { kind: Customer::KIND, key: customer_id.into() };
        let Some(row) = self.reads.states(vec![id]).await?.pop().flatten() else { return Ok(None) };
        let state = decode_state(row.schema, &row.bytes).map_err(|error| status::internal(&error))?;
        Ok(customer(&state, customer_id, row.version))
    }
}

#[tonic::async_trait]
impl CustomerService for Customers {
    async fn create_customer(
        &self,
        request: Request<v1::CreateCustomerRequest>,
    ) -> Result<Response<v1::CreateCustomerResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::CreateCustomerRequest { request_id, command } = request.into_inner();
        let customer =
            self.run(caller, &request_id, CREATE_CUSTOMER, command.as_ref(), |command| &command.customer_id).await?;
        Ok(Response::new(v1::CreateCustomerResponse { customer }))
    }

    async fn update_profile(
        &self,
        request: Request<v1::UpdateProfileRequest>,
    ) -> Result<Response<v1::UpdateProfileResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::UpdateProfileRequest { request_id, command } = request.into_inner();
        let customer =
            self.run(caller, &request_id, UPDATE_PROFILE, command.as_ref(), |command| &command.customer_id).await?;
        Ok(Response::new(v1::UpdateProfileResponse { customer }))
    }

    async fn add_address(
        &self,
        request: Request<v1::AddAddressRequest>,
    ) -> Result<Response<v1::AddAddressResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::AddAddressRequest { request_id, command } = request.into_inner();
        let customer =
            self.run(caller, &request_id, ADD_ADDRESS, command.as_ref(), |command| &command.customer_id).await?;
        Ok(Response::new(v1::AddAddressResponse { customer }))
    }

    async fn change_address(
        &self,
        request: Request<v1::ChangeAddressRequest>,
    ) -> Result<Response<v1::ChangeAddressResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::ChangeAddressRequest { request_id, command } = request.into_inner();
        let customer =
            self.run(caller, &request_id, CHANGE_ADDRESS, command.as_ref(), |command| &command.customer_id).await?;
        Ok(Response::new(v1::ChangeAddressResponse { customer }))
    }

    async fn remove_address(
        &self,
        request: Request<v1::RemoveAddressRequest>,
    ) -> Result<Response<v1::RemoveAddressResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::RemoveAddressRequest { request_id, command } = request.into_inner();
        let customer =
            self.run(caller, &request_id, REMOVE_ADDRESS, command.as_ref(), |command| &command.customer_id).await?;
        Ok(Response::new(v1::RemoveAddressResponse { customer }))
    }

    async fn set_preferences(
        &self,
        request: Request<v1::SetPreferencesRequest>,
    ) -> Result<Response<v1::SetPreferencesResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::SetPreferencesRequest { request_id, command } = request.into_inner();
        let customer =
            self.run(caller, &request_id, SET_PREFERENCES, command.as_ref(), |command| &command.customer_id).await?;
        Ok(Response::new(v1::SetPreferencesResponse { customer }))
    }

    async fn suspend_customer(
        &self,
        request: Request<v1::SuspendCustomerRequest>,
    ) -> Result<Response<v1::SuspendCustomerResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::SuspendCustomerRequest { request_id, command } = request.into_inner();
        let customer =
            self.run(caller, &request_id, SUSPEND_CUSTOMER, command.as_ref(), |command| &command.customer_id).await?;
        Ok(Response::new(v1::SuspendCustomerResponse { customer }))
    }

    async fn reactivate_customer(
        &self,
        request: Request<v1::ReactivateCustomerRequest>,
    ) -> Result<Response<v1::ReactivateCustomerResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::ReactivateCustomerRequest { request_id, command } = request.into_inner();
        let customer = self
            .run(caller, &request_id, REACTIVATE_CUSTOMER, command.as_ref(), |command| &command.customer_id)
            .await?;
        Ok(Response::new(v1::ReactivateCustomerResponse { customer }))
    }

    async fn erase_customer(
        &self,
        request: Request<v1::EraseCustomerRequest>,
    ) -> Result<Response<v1::EraseCustomerResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::EraseCustomerRequest { request_id, command } = request.into_inner();
        let customer =
            self.run(caller, &request_id, ERASE_CUSTOMER, command.as_ref(), |command| &command.customer_id).await?;
        Ok(Response::new(v1::EraseCustomerResponse { customer }))
    }

    async fn get_customer(
        &self,
        request: Request<v1::GetCustomerRequest>,
    ) -> Result<Response<v1::GetCustomerResponse>, Status> {
        let deadline = Caller::of(&request).deadline();
        let v1::GetCustomerRequest { customer_id, consistency, min_version } = request.into_inner();
        check::canonical_uuid("customer_id", &customer_id).map_err(|refused| status::argument(&refused))?;
        let consistency = read::consistency(consistency)?;
        let answer =
            call::read(&*self.router, deadline, Customer::KIND, &customer_id, consistency, min_version).await?;
        if !answer.exists {
            return Err(not_found());
        }
        // What the actor answered is committed, so what is stored now is of its version or of a later one.
        let customer = self.stored(&customer_id).await?.ok_or_else(not_found)?;
        let read = Some(read::info(customer.version, answer.strong));
        Ok(Response::new(v1::GetCustomerResponse { customer: Some(customer), read }))
    }

    async fn batch_get_addresses(
        &self,
        request: Request<v1::BatchGetAddressesRequest>,
    ) -> Result<Response<v1::BatchGetAddressesResponse>, Status> {
        addresses::get(&self.reads, request.into_inner()).await.map(Response::new)
    }

    async fn check_customers(
        &self,
        request: Request<v1::CheckCustomersRequest>,
    ) -> Result<Response<v1::CheckCustomersResponse>, Status> {
        check_customers::check(&self.reads, request.into_inner()).await.map(Response::new)
    }
}
