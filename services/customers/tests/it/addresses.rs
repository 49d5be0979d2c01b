//! `BatchGetAddresses`.

use bytes::Bytes;
use holdfast_core::AggregateId;
use holdfast_customers::grpc::ADDRESSES_MAX;
use holdfast_proto::{
    customers::v1::{AddressReference, BatchGetAddressesRequest, BatchGetAddressesResponse},
    read::v1::Consistency,
};
use tonic::{Code, Status};

use crate::shop::{Shop, address, erase, id, refusal, remove};

fn of(customer_id: &str, address_id: &str) -> AddressReference {
    AddressReference { customer_id: customer_id.into(), address_id: address_id.into() }
}

impl Shop {
    async fn addresses(&mut self, addresses: Vec<AddressReference>) -> Result<BatchGetAddressesResponse, Status> {
        Ok(self.client.batch_get_addresses(BatchGetAddressesRequest { addresses }).await?.into_inner())
    }
}

#[tokio::test]
async fn addresses_of_many_customers_are_found_or_missing() {
    let mut shop = Shop::open().await;
    let ((jane, home), (joan, work)) = (shop.customer().await, shop.customer().await);
    let ((gone, its), (moved, old)) = (shop.customer().await, shop.customer().await);
    shop.client.erase_customer(erase(&gone)).await.unwrap();
    shop.client.remove_address(remove(&moved, &old)).await.unwrap();
    let nobody = of(&id(), &home);
    let asked =
        vec![of(&jane, &home), of(&gone, &its), of(&joan, &work), of(&joan, &home), of(&moved, &old), nobody.clone()];
    let answer = shop.addresses([asked.clone(), asked].concat()).await.unwrap();

    let mut found: Vec<_> = answer.addresses.iter().map(|found| of(&found.customer_id, &found.address_id)).collect();
    found.sort_by_key(|found| found.customer_id.clone());
    assert_eq!(found, [of(&jane, &home), of(&joan, &work)]);
    assert!(answer.addresses.iter().all(|found| found.address == Some(address("Berlin")) && found.version == 2));
    let mut missing = answer.missing;
    missing.sort_by_key(|missing| missing.customer_id.clone());
    let mut expected = vec![of(&joan, &home), of(&gone, &its), of(&moved, &old), nobody];
    expected.sort_by_key(|missing| missing.customer_id.clone());
    assert_eq!(missing, expected);
    assert_eq!(answer.read.unwrap().consistency(), Consistency::Local);
}

#[tokio::test]
async fn addresses_are_answered_while_no_actor_is_there() {
    let mut shop = Shop::open().await;
    let (jane, home) = shop.customer().await;
    shop.node.stop().await;
    assert_eq!(shop.addresses(vec![of(&jane, &home)]).await.unwrap().addresses.len(), 1);
    shop.service_store.set_unavailable(true);
    let (code, reason, _) = refusal(shop.addresses(vec![of(&jane, &home)]).await);
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "UNAVAILABLE"), "never missing because nobody could look");
}

#[tokio::test]
async fn address_whose_customer_cannot_be_read_is_left_out_alone() {
    let mut shop = Shop::open().await;
    let (jane, home) = shop.customer().await;
    let (other, hers) = shop.customer().await;
    shop.node.stop().await;
    let mut contents = shop.store.contents();
    let row = contents.states.get_mut(&AggregateId { kind: "customer", key: jane.as_str().into() }).unwrap();
    row.bytes = Bytes::from_static(b"\xffsecret");
    shop.store.restore(contents);
    let answer = shop.addresses(vec![of(&jane, &home), of(&other, &hers)]).await.unwrap();
    assert_eq!((answer.addresses.len(), answer.missing.len()), (1, 0));
    assert_eq!(answer.addresses[0].address_id, hers);
}

#[tokio::test]
async fn a_question_that_is_none_names_the_place_at_fault() {
    let mut shop = Shop::open().await;
    let good = of(&id(), &id());
    for (asked, field) in [
        (vec![], "addresses"),
        (vec![good.clone(); ADDRESSES_MAX + 1], "addresses"),
        (vec![good.clone(), of("jane", &id())], "addresses[1].customer_id"),
        (vec![good.clone(), of(&id(), "home")], "addresses[1].address_id"),
    ] {
        let expected = (Code::InvalidArgument, "INVALID".to_owned(), vec![field.to_owned()]);
        assert_eq!(refusal(shop.addresses(asked).await), expected);
    }
    assert!(shop.addresses(vec![good; ADDRESSES_MAX]).await.is_ok());
}
