//! Golden bytes, names and JSON of the contracts: what other teams rely on must not change unseen.

use holdfast_proto::{
    FILE_DESCRIPTOR_SET, customers::v1 as customers, fulfillment::v1 as fulfillment, inventory::v1 as inventory,
    money::v1::Money, orders::v1 as orders,
};
use prost::{Message, Name};

fn place_order() -> orders::PlaceOrder {
    orders::PlaceOrder {
        order_id: "0192f0c1-7b1e-7cc3-8000-000000000001".to_owned(),
        payment_method: "pm_1".to_owned(),
        address_id: String::new(),
    }
}

#[test]
fn names_are_those_of_ce_type() {
    assert_eq!(orders::CreateOrder::full_name(), "holdfast.orders.v1.CreateOrder");
    assert_eq!(orders::PlaceOrder::full_name(), "holdfast.orders.v1.PlaceOrder");
    assert_eq!(orders::OrderPlaced::full_name(), "holdfast.orders.v1.OrderPlaced");
    assert_eq!(inventory::SetPrice::full_name(), "holdfast.inventory.v1.SetPrice");
    assert_eq!(inventory::StockReserved::full_name(), "holdfast.inventory.v1.StockReserved");
    assert_eq!(customers::CustomerErased::full_name(), "holdfast.customers.v1.CustomerErased");
    assert_eq!(fulfillment::NoteShipment::full_name(), "holdfast.fulfillment.v1.NoteShipment");
    assert_eq!(fulfillment::ShipmentCancelled::full_name(), "holdfast.fulfillment.v1.ShipmentCancelled");
    assert_eq!(Money::full_name(), "holdfast.money.v1.Money");
}

#[test]
fn binary_form_is_as_published() {
    let mut golden = vec![0x0a, 36];
    golden.extend_from_slice(b"0192f0c1-7b1e-7cc3-8000-000000000001");
    golden.extend_from_slice(&[0x12, 4]);
    golden.extend_from_slice(b"pm_1");
    assert_eq!(place_order().encode_to_vec(), golden);
    assert_eq!(orders::PlaceOrder::decode(&*golden), Ok(place_order()));

    let price = Money { minor: -1, currency: "EUR".to_owned() };
    assert_eq!(price.encode_to_vec(), [&[0x08][..], &[0xff; 9], &[0x01, 0x12, 3], b"EUR"].concat());
}

#[test]
fn binary_fields_of_a_newer_producer_are_skipped() {
    let mut bytes = place_order().encode_to_vec();
    bytes.extend_from_slice(&[0xfa, 0x3f, 1, b'x']); // field 1023
    assert_eq!(orders::PlaceOrder::decode(&*bytes), Ok(place_order()));
}

#[test]
fn json_is_canonical_and_reads_both_name_and_number_spellings() {
    let add = orders::AddItem { order_id: "o".to_owned(), sku: "A-1".to_owned(), quantity: 3 };
    let written = serde_json::to_string(&add).expect("writes");
    assert_eq!(written, r#"{"orderId":"o","sku":"A-1","quantity":"3"}"#);
    for text in [written.as_str(), r#"{"order_id":"o","sku":"A-1","quantity":3}"#] {
        assert_eq!(serde_json::from_str::<orders::AddItem>(text).expect("reads"), add);
    }
}

#[test]
fn json_that_is_not_the_message_is_refused() {
    for text in [
        r#"{"order_id":"o","quantty":3}"#,
        r#"{"quantity":1.5}"#,
        r#"{"quantity":"99999999999999999999"}"#,
        r#"{"order_id":7}"#,
        r#"{"sku":"a","sku":"b"}"#,
        "[]",
        "null",
        "",
    ] {
        assert!(serde_json::from_str::<orders::AddItem>(text).is_err(), "{text}");
    }
}

#[test]
fn json_of_times_and_enums_is_canonical() {
    let order = orders::Order {
        status: orders::OrderStatus::Placed.into(),
        created_at: Some(holdfast_proto::time::from_unix_ms(1_795_305_599_999)),
        ..orders::Order::default()
    };
    let text = serde_json::to_string(&order).expect("writes");
    assert_eq!(text, r#"{"status":"ORDER_STATUS_PLACED","createdAt":"2026-11-21T23:59:59.999+00:00"}"#);
    assert_eq!(serde_json::from_str::<orders::Order>(&text).expect("reads"), order);
}

#[test]
fn reflection_knows_every_package_and_its_imports() {
    // Names stand as plain text in an encoded descriptor set.
    let text = String::from_utf8_lossy(FILE_DESCRIPTOR_SET);
    for name in [
        "holdfast/orders/v1/order_service.proto",
        "holdfast/customers/v1/customer_service.proto",
        "holdfast/fulfillment/v1/fulfillment_service.proto",
        "holdfast/inventory/v1/catalog_service.proto",
        "holdfast/money/v1/money.proto",
        "google/protobuf/timestamp.proto",
    ] {
        assert!(text.contains(name), "{name}");
    }
}
