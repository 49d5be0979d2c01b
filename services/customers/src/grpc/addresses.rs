//! `BatchGetAddresses`: addresses of many customers at once.
//!
//! Invariant: the answer comes from the store's committed rows, by one statement for all of them, never from
//! an actor: a context that asks in the middle of its own work can't wait in a ring. An address whose
//! customer can't be read is in neither list of the answer: it is not missing, and costs no other its answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use holdfast_adapter::{check, read, status, store::Reads};
use holdfast_core::{Aggregate as _, AggregateId};
use holdfast_customers_domain::Customer;
use holdfast_platform::errors::Problem;
use holdfast_proto::customers::v1;
use tonic::Status;
use uuid::Uuid;

use crate::codec::{address, decode_state};

/// Most addresses in one question, repeats included.
pub const ADDRESSES_MAX: usize = 1000;

pub(super) async fn get(
    reads: &Reads,
    asked: v1::BatchGetAddressesRequest,
) -> Result<v1::BatchGetAddressesResponse, Status> {
    let asked = checked(&asked.addresses)?;
    let ids = asked.keys().map(|id| AggregateId { kind: Customer::KIND, key: Arc::from(id.to_string()) });
    let rows = reads.states(ids.collect()).await?;
    let mut answer =
        v1::BatchGetAddressesResponse { read: Some(read::info(0, false)), ..v1::BatchGetAddressesResponse::default() };
    for ((customer, wanted), row) in asked.into_iter().zip(rows) {
        let state = row.map(|row| decode_state(row.schema, &row.bytes).map(|state| (state, row.version)));
        let Ok(state) = state.transpose().inspect_err(|error| status::left_out(&customer, error)) else { continue };
        for id in wanted {
            let (customer_id, address_id) = (customer.to_string(), id.to_string());
            let found = state.as_ref().and_then(|(state, version)| {
                let known = state.details()?.addresses.get(&id)?.as_ref()?;
                Some((address(known), *version))
            });
            match found {
                Some((address, version)) => {
                    let address = Some(address);
                    answer.addresses.push(v1::FoundAddress { customer_id, address_id, address, version });
                }
                None => answer.missing.push(v1::AddressReference { customer_id, address_id }),
            }
        }
    }
    Ok(answer)
}

/// The addresses by customer, each once; the first malformed one is named by its place.
fn checked(asked: &[v1::AddressReference]) -> Result<BTreeMap<Uuid, BTreeSet<Uuid>>, Status> {
    if !(1..=ADDRESSES_MAX).contains(&asked.len()) {
        let text = format!("addresses holds {} entries; 1-{ADDRESSES_MAX} are answered", asked.len());
        return Err(Problem::invalid("INVALID", &text).field("addresses", &text).into());
    }
    let mut by_customer: BTreeMap<Uuid, BTreeSet<Uuid>> = BTreeMap::new();
    for (at, reference) in asked.iter().enumerate() {
        let id = |field: &str, text: &str| {
            check::canonical_uuid(&format!("addresses[{at}].{field}"), text)
                .map_err(|refused| status::argument(&refused))
        };
        let customer = id("customer_id", &reference.customer_id)?;
        by_customer.entry(customer).or_default().insert(id("address_id", &reference.address_id)?);
    }
    Ok(by_customer)
}
