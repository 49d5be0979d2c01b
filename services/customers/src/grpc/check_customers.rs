//! `CheckCustomers`: accounts of many customers at once, and which addresses they have.
//!
//! Invariants: no personal data is in an answer; it is made from the store's committed rows, one statement
//! for all customers, never by an actor: a context that asks here in the middle of its own work can't wait in
//! a ring. A customer whose state can't be read is in neither list of the answer: it is not unknown, and
//! costs no other its answer. Deliberately absent: a cache; callers have theirs.

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

use super::ADDRESSES_MAX;
use crate::codec::{decode_state, status as account};

/// Most customers in one question, repeats included.
pub const CUSTOMERS_MAX: usize = 1000;

pub(super) async fn check(
    reads: &Reads,
    asked: v1::CheckCustomersRequest,
) -> Result<v1::CheckCustomersResponse, Status> {
    let asked = checked(&asked.customers)?;
    let ids = asked.keys().map(|id| AggregateId { kind: Customer::KIND, key: Arc::from(id.to_string()) });
    let rows = reads.states(ids.collect()).await?;
    let mut answer =
        v1::CheckCustomersResponse { read: Some(read::info(0, false)), ..v1::CheckCustomersResponse::default() };
    for ((customer, addresses), row) in asked.into_iter().zip(rows) {
        let customer_id = customer.to_string();
        let state = row.map(|row| decode_state(row.schema, &row.bytes).map(|state| (state, row.version)));
        let Ok(state) = state.transpose().inspect_err(|error| status::left_out(&customer_id, error)) else { continue };
        let Some((details, version)) = state.as_ref().and_then(|(state, version)| Some((state.details()?, *version)))
        else {
            answer.unknown_customer_ids.push(customer_id);
            continue;
        };
        // One whose content was lost with a database is there, but nothing can be sent to it.
        let has = |id: &Uuid| details.addresses.get(id).is_some_and(Option::is_some);
        let address_ids = addresses.iter().filter(|id| has(id)).map(Uuid::to_string).collect();
        let status = account(&details.status).into();
        answer.customers.push(v1::CheckedCustomer { customer_id, status, address_ids, version });
    }
    Ok(answer)
}

/// The customers, each once, with the addresses; the first malformed id is named by its place.
fn checked(asked: &[v1::CustomerQuestion]) -> Result<BTreeMap<Uuid, BTreeSet<Uuid>>, Status> {
    if !(1..=CUSTOMERS_MAX).contains(&asked.len()) {
        let text = format!("customers holds {} entries; 1-{CUSTOMERS_MAX} are answered", asked.len());
        return Err(Problem::invalid("INVALID", &text).field("customers", &text).into());
    }
    let addresses: usize = asked.iter().map(|question| question.address_ids.len()).sum();
    if addresses > ADDRESSES_MAX {
        let text = format!("customers holds {addresses} addresses; at most {ADDRESSES_MAX} are answered");
        return Err(Problem::invalid("INVALID", &text).field("customers", &text).into());
    }
    let mut by_customer: BTreeMap<Uuid, BTreeSet<Uuid>> = BTreeMap::new();
    let id = |field: &str, text: &str| check::canonical_uuid(field, text).map_err(|refused| status::argument(&refused));
    for (at, question) in asked.iter().enumerate() {
        let customer = id(&format!("customers[{at}].customer_id"), &question.customer_id)?;
        let addresses = by_customer.entry(customer).or_default();
        for (n, address) in question.address_ids.iter().enumerate() {
            addresses.insert(id(&format!("customers[{at}].address_ids[{n}]"), address)?);
        }
    }
    Ok(by_customer)
}
