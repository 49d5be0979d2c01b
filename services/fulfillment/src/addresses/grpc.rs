//! Addresses from customers' `CustomerService`.
//!
//! Through the platform's client stack: deadline, circuit breaker, jittered retries within a budget. A failed
//! look-up names the code and the reason of the status, and nothing of its text.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_fulfillment_domain::Address;
use holdfast_platform::{
    errors::{code_word, reason},
    grpc::{Peer, client},
};
use holdfast_proto::customers::v1::{
    self, AddressReference, BatchGetAddressesRequest, BatchGetAddressesResponse,
    customer_service_client::CustomerServiceClient,
};
use tonic::Status;
use uuid::Uuid;

use super::{Addresses, Place};

/// Customers as a source of addresses.
#[derive(Clone, Debug)]
pub struct GrpcAddresses {
    customers: Peer,
}

impl GrpcAddresses {
    /// Asks this peer; see [`settings`].
    pub const fn new(customers: Peer) -> Self {
        Self { customers }
    }
}

/// How to call customers for addresses: a batch of news waits for the answer, so not for long.
pub fn settings() -> client::Settings {
    client::Settings { deadline: Duration::from_millis(800), ..client::Settings::default() }
}

#[async_trait]
impl Addresses for GrpcAddresses {
    async fn addresses(&self, places: &[Place]) -> Result<Vec<Result<Option<Address>, LookupFailed>>, LookupFailed> {
        let reference = |place: &Place| AddressReference {
            customer_id: place.customer.to_string(),
            address_id: place.address.to_string(),
        };
        let request = BatchGetAddressesRequest { addresses: places.iter().map(reference).collect() };
        let answer = self
            .customers
            .call(|stack| {
                let request = request.clone();
                async move { CustomerServiceClient::new(stack).batch_get_addresses(request).await }
            })
            .await
            .map_err(failed)?;
        in_order(places, answer.into_inner())
    }
}

fn failed(status: Status) -> LookupFailed {
    let word = code_word(status.code());
    LookupFailed(match reason(&status) {
        Some(reason) => format!("customers' addresses: {word} ({reason})"),
        None => format!("customers' addresses: {word}"),
    })
}

/// The answer in the order of the question. An address about which nothing is said is no missing one: it
/// failed.
fn in_order(
    places: &[Place],
    answer: BatchGetAddressesResponse,
) -> Result<Vec<Result<Option<Address>, LookupFailed>>, LookupFailed> {
    let broken = |what: &str| LookupFailed(format!("customers' addresses: {what}"));
    let place = |customer: &str, address: &str| {
        let id = |text: &str| Uuid::try_parse(text).map_err(|_| broken("an id that is none"));
        Ok(Place { customer: id(customer)?, address: id(address)? })
    };
    let mut known: BTreeMap<Place, Option<Address>> = BTreeMap::new();
    for found in answer.addresses {
        if let Some(address) = found.address {
            known.insert(place(&found.customer_id, &found.address_id)?, Some(taken(&address)));
        }
    }
    for missing in answer.missing {
        known.insert(place(&missing.customer_id, &missing.address_id)?, None);
    }
    Ok(places.iter().map(|place| known.get(place).cloned().ok_or_else(|| broken("an address was left out"))).collect())
}

fn taken(said: &v1::Address) -> Address {
    Address {
        recipient: said.recipient.as_str().into(),
        lines: said.lines.iter().map(|line| line.as_str().into()).collect(),
        city: said.city.as_str().into(),
        postal_code: said.postal_code.as_str().into(),
        country: said.country.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(customer: u128, address: u128) -> Place {
        Place { customer: Uuid::from_u128(customer), address: Uuid::from_u128(address) }
    }

    fn found(at: Place, city: &str) -> v1::FoundAddress {
        let address = Some(v1::Address { city: city.to_owned(), ..v1::Address::default() });
        let (customer_id, address_id) = (at.customer.to_string(), at.address.to_string());
        v1::FoundAddress { customer_id, address_id, address, version: 1 }
    }

    fn missing(at: Place) -> AddressReference {
        AddressReference { customer_id: at.customer.to_string(), address_id: at.address.to_string() }
    }

    #[test]
    fn an_answer_is_put_in_the_order_of_the_question() {
        let answer = BatchGetAddressesResponse {
            addresses: vec![found(place(2, 1), "Bonn"), found(place(1, 1), "Kiel")],
            missing: vec![missing(place(1, 2))],
            read: None,
        };
        let answers = in_order(&[place(1, 1), place(1, 2), place(2, 1)], answer).unwrap();
        let cities: Vec<_> = answers.into_iter().map(|address| address.unwrap().map(|address| address.city)).collect();
        assert_eq!(cities, [Some("Kiel".into()), None, Some("Bonn".into())]);
    }

    #[test]
    fn address_left_out_or_blank_fails_alone() {
        let blank = v1::FoundAddress { address: None, ..found(place(1, 1), "") };
        let addresses = vec![blank, found(place(1, 2), "Kiel")];
        let answer = BatchGetAddressesResponse { addresses, ..BatchGetAddressesResponse::default() };
        let answers = in_order(&[place(1, 1), place(1, 2), place(1, 3)], answer).unwrap();
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false]);
    }
}
