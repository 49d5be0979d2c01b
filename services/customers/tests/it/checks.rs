//! `CheckCustomers`.

use bytes::Bytes;
use holdfast_core::AggregateId;
use holdfast_customers::grpc::{ADDRESSES_MAX, CUSTOMERS_MAX};
use holdfast_proto::{
    customers::v1::{
        CheckCustomersRequest, CheckCustomersResponse, CustomerQuestion, CustomerStatus, SuspendCustomer,
        SuspendCustomerRequest,
    },
    read::v1::Consistency,
};
use prost::Message as _;
use tonic::{Code, Status};

use crate::shop::{Shop, erase, id, refusal, remove};

fn about(customer_id: &str, address_ids: &[&str]) -> CustomerQuestion {
    let address_ids = address_ids.iter().map(|id| (*id).to_owned()).collect();
    CustomerQuestion { customer_id: customer_id.into(), address_ids }
}

impl Shop {
    async fn check(&mut self, customers: Vec<CustomerQuestion>) -> Result<CheckCustomersResponse, Status> {
        Ok(self.client.check_customers(CheckCustomersRequest { customers }).await?.into_inner())
    }
}

#[tokio::test]
async fn check_reports_accounts_and_addresses_without_personal_data() {
    let mut shop = Shop::open().await;
    let ((jane, home), (joan, work)) = (shop.customer().await, shop.customer().await);
    let ((gone, its), (bad, den)) = (shop.customer().await, shop.customer().await);
    let (moved, old) = shop.customer().await;
    let nobody = id();
    shop.client.erase_customer(erase(&gone)).await.unwrap();
    shop.client.remove_address(remove(&moved, &old)).await.unwrap();
    let command = Some(SuspendCustomer { customer_id: bad.clone(), reason: "bounced".into() });
    shop.client.suspend_customer(SuspendCustomerRequest { request_id: id(), command }).await.unwrap();

    let asked = vec![
        about(&jane, &[&home, &work, &home]),
        about(&joan, &[]),
        about(&gone, &[&its]),
        about(&bad, &[&den]),
        about(&moved, &[&old]),
        about(&nobody, &[&home]),
    ];
    let answer = shop.check([asked.clone(), asked].concat()).await.unwrap();
    let mut found: Vec<_> = answer
        .customers
        .iter()
        .map(|each| (each.customer_id.clone(), each.status(), each.address_ids.clone(), each.version))
        .collect();
    let mut expected = vec![
        (jane, CustomerStatus::Active, vec![home], 2),
        (joan, CustomerStatus::Active, vec![], 2),
        (gone, CustomerStatus::Erased, vec![], 3),
        (bad, CustomerStatus::Suspended, vec![den], 3),
        (moved, CustomerStatus::Active, vec![], 3),
    ];
    found.sort_by(|a, b| a.0.cmp(&b.0));
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, expected);
    assert_eq!(answer.unknown_customer_ids, [nobody]);
    assert_eq!(answer.read.unwrap().consistency(), Consistency::Local);
    let bytes = answer.encode_to_vec();
    for personal in ["Jane", "Berlin", "jane@example.org", "Main Street", "bounced"] {
        assert!(!bytes.windows(personal.len()).any(|part| part == personal.as_bytes()), "{personal}");
    }
}

#[tokio::test]
async fn customers_are_checked_while_no_actor_is_there() {
    let mut shop = Shop::open().await;
    let (jane, home) = shop.customer().await;
    shop.node.stop().await;
    assert_eq!(
        shop.check(vec![about(&jane, &[&home])]).await.unwrap().customers[0].address_ids,
        std::slice::from_ref(&home)
    );
    shop.service_store.set_unavailable(true);
    let (code, reason, _) = refusal(shop.check(vec![about(&jane, &[&home])]).await);
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "UNAVAILABLE"), "never unknown because nobody could look");
}

#[tokio::test]
async fn customer_who_cannot_be_read_is_left_out_alone() {
    let mut shop = Shop::open().await;
    let (jane, home) = shop.customer().await;
    let (other, _) = shop.customer().await;
    shop.node.stop().await;
    let mut contents = shop.store.contents();
    let row = contents.states.get_mut(&AggregateId { kind: "customer", key: jane.as_str().into() }).unwrap();
    row.bytes = Bytes::from_static(b"\xffsecret");
    shop.store.restore(contents);
    let nobody = id();
    let asked = vec![about(&jane, &[&home]), about(&other, &[]), about(&nobody, &[])];
    let answer = shop.check(asked).await.unwrap();
    let found: Vec<&str> = answer.customers.iter().map(|customer| customer.customer_id.as_str()).collect();
    assert_eq!((found, answer.unknown_customer_ids), (vec![other.as_str()], vec![nobody]));
}

#[tokio::test]
async fn malformed_question_names_the_place_at_fault() {
    let mut shop = Shop::open().await;
    let address = id();
    let good = about(&id(), &[&address]);
    let many = CustomerQuestion { address_ids: vec![id(); ADDRESSES_MAX], ..good.clone() };
    for (asked, field) in [
        (vec![], "customers"),
        (vec![good.clone(); CUSTOMERS_MAX + 1], "customers"),
        (vec![good.clone(), many.clone()], "customers"),
        (vec![good.clone(), about("jane", &[])], "customers[1].customer_id"),
        (vec![good.clone(), about(&id(), &[&address, "home"])], "customers[1].address_ids[1]"),
    ] {
        let expected = (Code::InvalidArgument, "INVALID".to_owned(), vec![field.to_owned()]);
        assert_eq!(refusal(shop.check(asked).await), expected);
    }
    assert!(shop.check(vec![good; CUSTOMERS_MAX]).await.is_ok());
    assert!(shop.check(vec![many]).await.is_ok());
}
