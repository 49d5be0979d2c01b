//! `CustomerService`'s commands and `GetCustomer`.

use holdfast_proto::{
    customers::v1::{self, CustomerStatus},
    read::v1::Consistency,
};
use tonic::Code;

use crate::shop::{Shop, add, create, erase, eventually, id, profile, refusal, remove};

fn short(event: &str) -> String {
    format!("holdfast.customers.v1.{event}")
}

#[tokio::test]
async fn a_mutation_answers_with_a_receipt_and_a_read_with_everything() {
    let mut shop = Shop::open().await;
    let customer_id = id();
    let request = create(&customer_id, "Jane");
    let receipt = shop.client.create_customer(request.clone()).await.unwrap().into_inner().customer.unwrap();
    let status = CustomerStatus::Active.into();
    assert_eq!(receipt, v1::CustomerReceipt { customer_id: customer_id.clone(), status, version: 1 });

    let answer = shop.get(&customer_id, receipt.version).await.unwrap();
    let (customer, read) = (answer.customer.unwrap(), answer.read.unwrap());
    assert_eq!((customer.status(), customer.version, read.version), (CustomerStatus::Active, 1, 1));
    assert_eq!((customer.profile, customer.preferences), (Some(profile("Jane")), Some(v1::Preferences::default())));
    assert_eq!(read.consistency(), Consistency::Strong);

    // Again: the first answer. With another body: a conflict.
    assert_eq!(shop.client.create_customer(request.clone()).await.unwrap().into_inner().customer, Some(receipt));
    let other = v1::CreateCustomerRequest { request_id: request.request_id, ..create(&customer_id, "Joan") };
    let (code, reason, _) = refusal(shop.client.create_customer(other).await);
    assert_eq!((code, reason.as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
}

#[tokio::test]
async fn a_customers_whole_life_goes_over_grpc() {
    let mut shop = Shop::open().await;
    let (customer_id, address_id) = shop.customer().await;
    let profile = Some(v1::Profile { phone: "+49 30 1".into(), ..profile("Joan") });
    let command = v1::UpdateProfile { customer_id: customer_id.clone(), profile: profile.clone() };
    let request = v1::UpdateProfileRequest { request_id: id(), command: Some(command) };
    shop.client.update_profile(request).await.unwrap();
    let address = Some(crate::shop::address("Kiel"));
    let command = v1::ChangeAddress {
        customer_id: customer_id.clone(),
        address_id: address_id.clone(),
        address: address.clone(),
    };
    let request = v1::ChangeAddressRequest { request_id: id(), command: Some(command) };
    shop.client.change_address(request).await.unwrap();
    let preferences = Some(v1::Preferences { locale: "de-DE".into(), marketing: true });
    let command = v1::SetPreferences { customer_id: customer_id.clone(), preferences: preferences.clone() };
    let request = v1::SetPreferencesRequest { request_id: id(), command: Some(command) };
    shop.client.set_preferences(request).await.unwrap();
    let command = v1::SuspendCustomer { customer_id: customer_id.clone(), reason: "unpaid".into() };
    let request = v1::SuspendCustomerRequest { request_id: id(), command: Some(command) };
    let suspended = shop.client.suspend_customer(request).await.unwrap().into_inner().customer.unwrap();
    assert_eq!((suspended.status(), suspended.version), (CustomerStatus::Suspended, 6));

    let customer = shop.get(&customer_id, 6).await.unwrap().customer.unwrap();
    assert_eq!((customer.profile, customer.preferences), (profile, preferences));
    assert_eq!(customer.addresses, [v1::CustomerAddress { address_id: address_id.clone(), address }]);
    assert_eq!(customer.suspension_reason, "unpaid");

    let command = Some(v1::ReactivateCustomer { customer_id: customer_id.clone() });
    let request = v1::ReactivateCustomerRequest { request_id: id(), command };
    let active = shop.client.reactivate_customer(request).await.unwrap().into_inner().customer.unwrap();
    assert_eq!(active.status(), CustomerStatus::Active);
    shop.client.remove_address(remove(&customer_id, &address_id)).await.unwrap();
    let expected = [
        "CustomerCreated",
        "AddressAdded",
        "ProfileUpdated",
        "AddressChanged",
        "PreferencesSet",
        "CustomerSuspended",
        "CustomerReactivated",
        "AddressRemoved",
    ];
    assert_eq!(shop.events(&customer_id, 8).await, expected.map(short));
}

#[tokio::test]
async fn an_erased_customer_is_shown_without_anything_of_the_person() {
    let mut shop = Shop::open().await;
    let (customer_id, address_id) = shop.customer().await;
    for version in [3, 3] {
        let erased = shop.client.erase_customer(erase(&customer_id)).await.unwrap().into_inner().customer.unwrap();
        assert_eq!((erased.status(), erased.version), (CustomerStatus::Erased, version));
    }
    let customer = shop.get(&customer_id, 0).await.unwrap().customer.unwrap();
    assert_eq!((customer.profile.as_ref(), customer.preferences.as_ref(), customer.addresses.len()), (None, None, 0));
    assert!(customer.created_at.is_some() && customer.updated_at.is_some());
    let (code, reason, _) = refusal(shop.client.add_address(add(&customer_id, &address_id, "Ulm")).await);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "CUSTOMER_ERASED"));
}

#[tokio::test]
async fn what_holds_no_personal_data_may_come_by_kafka_too() {
    let mut shop = Shop::open().await;
    let (customer_id, _) = shop.customer().await;
    shop.send("crm", &customer_id, &v1::SuspendCustomer { customer_id: customer_id.clone(), reason: "fraud".into() });
    shop.send("crm", &customer_id, &v1::ReactivateCustomer { customer_id: customer_id.clone() });
    shop.send("crm", &customer_id, &v1::EraseCustomer { customer_id: customer_id.clone() });
    let events = shop.events(&customer_id, 5).await;
    assert_eq!(events[2..], ["CustomerSuspended", "CustomerReactivated", "CustomerErased"].map(short));
    assert_eq!(shop.get(&customer_id, 5).await.unwrap().customer.unwrap().status(), CustomerStatus::Erased);
}

#[tokio::test]
async fn a_record_that_may_hold_personal_data_is_of_an_unknown_type() {
    let mut shop = Shop::open().await;
    let customer_id = id();
    shop.send("crm", &customer_id, &create(&customer_id, "Jane").command.unwrap());
    eventually("the record is a dead letter", || !shop.log.all_records("customers.dlq").is_empty()).await;
    let letters = shop.log.all_records("customers.dlq");
    assert_eq!(crate::shop::text(letters[0].headers.get("dlt-reason")), "UNKNOWN_TYPE");
    let (code, reason, _) = refusal(shop.get(&customer_id, 0).await);
    assert_eq!((code, reason.as_str()), (Code::NotFound, "CUSTOMER_NOT_FOUND"));
}

#[tokio::test]
async fn strong_read_never_falls_back_silently_and_local_one_goes_on() {
    let mut shop = Shop::open().await;
    let (customer_id, _) = shop.customer().await;
    shop.node.stop().await;
    let (code, reason, _) = refusal(shop.get(&customer_id, 0).await);
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "OWNER_MOVING"));
    let consistency = Consistency::Local.into();
    let request = v1::GetCustomerRequest { customer_id, consistency, min_version: 2 };
    let answer = shop.client.get_customer(request).await.unwrap().into_inner();
    assert_eq!(answer.read.unwrap().consistency(), Consistency::Local);
    assert_eq!(answer.customer.unwrap().profile, Some(profile("Jane")));
}

#[tokio::test]
async fn malformed_input_names_its_field() {
    let mut shop = Shop::open().await;
    assert_eq!(
        refusal(shop.get("jane", 0).await),
        (Code::InvalidArgument, "INVALID".into(), vec!["customer_id".into()])
    );
    let mut request = create(&id(), "Jane");
    request.command.as_mut().unwrap().profile = None;
    let expected = (Code::InvalidArgument, "INVALID".into(), vec!["command.profile".into()]);
    assert_eq!(refusal(shop.client.create_customer(request).await), expected);
}
