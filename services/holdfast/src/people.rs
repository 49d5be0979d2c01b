//! Fills the register of customers: who orders something has to live somewhere.
//!
//! Speaks to customers as any caller does, over gRPC, where alone personal data goes. Deliberately absent:
//! anything that only this process could do.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_platform::grpc::{Peer, client};
use holdfast_proto::customers::v1::{
    AddAddress, AddAddressRequest, Address, CreateCustomer, CreateCustomerRequest, Preferences, Profile,
    customer_service_client::CustomerServiceClient,
};
use tonic::Status;
use uuid::Uuid;

/// Calls in flight at a time.
const CONCURRENCY: usize = 32;

/// Registers these customers, each with an address. Calling it again changes nothing.
///
/// # Errors
/// The status of the first call that failed for good.
pub async fn register(customers: &Peer, people: impl IntoIterator<Item = (Uuid, Uuid)>) -> Result<(), Status> {
    let calls = people.into_iter().enumerate().map(|(n, (customer, address))| one(customers, n, customer, address));
    stream::iter(calls).buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    Ok(())
}

async fn one(customers: &Peer, n: usize, customer: Uuid, address: Uuid) -> Result<(), Status> {
    let (customer_id, address_id) = (customer.to_string(), address.to_string());
    let profile = Profile { name: format!("Ada {n}"), email: format!("ada{n}@example.org"), phone: String::new() };
    let preferences = Some(Preferences { locale: "en".into(), marketing: false });
    let command = CreateCustomer { customer_id: customer_id.clone(), profile: Some(profile), preferences };
    let create = CreateCustomerRequest { request_id: format!("{customer_id}/create"), command: Some(command) };
    let call = |stack| {
        let request = create.clone();
        async move { CustomerServiceClient::new(stack).create_customer(request).await }
    };
    customers.call(call).await?;
    let address = Address {
        recipient: format!("Ada {n}"),
        lines: vec![format!("{n} Engine Row")],
        city: "London".into(),
        postal_code: "N1".into(),
        country: "GB".into(),
    };
    let command = AddAddress { customer_id: customer_id.clone(), address_id, address: Some(address) };
    let add = AddAddressRequest { request_id: format!("{customer_id}/address"), command: Some(command) };
    let call = |stack| {
        let request = add.clone();
        async move { CustomerServiceClient::new(stack).add_address(request).await }
    };
    customers.call(call).await?;
    Ok(())
}

/// Customers, as a caller from outside reaches them: patient, since a fresh node may still be taking its
/// partitions.
///
/// # Errors
/// If `address` is no address.
pub fn customers(address: &str) -> Result<Peer, client::Error> {
    let settings = client::Settings { deadline: std::time::Duration::from_secs(20), ..client::Settings::default() };
    Peer::new("customers", address, settings, None)
}
