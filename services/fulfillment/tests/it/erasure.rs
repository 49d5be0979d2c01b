//! The way of an erasure: from customers to the recipient, from there to its shipments, whichever comes
//! first.

use holdfast_fulfillment::codec::{ERASE_ADDRESS, NOTE_SHIPMENT};
use holdfast_proto::fulfillment::v1::ShipmentStatus;

use crate::shop::{Shop, eventually, id};

#[tokio::test]
async fn customer_erasure_erases_addresses_cancels_unsent_shipments() {
    let mut shop = Shop::in_memory().await;
    let (customer, [sent, open]) = (id(), [id(), id()]);
    for order_id in [&sent, &open] {
        shop.pay(order_id, 4, &customer, &id());
        shop.confirm(order_id);
        shop.get(order_id, 2).await.unwrap();
        shop.events(order_id, 2).await;
    }
    shop.start_picking(&sent).await.unwrap();
    shop.pack(&sent).await.unwrap();
    shop.dispatch(&sent).await.unwrap();
    shop.events(&customer, 2).await;
    assert_eq!(shop.sent(&customer), [NOTE_SHIPMENT, NOTE_SHIPMENT]);

    shop.erase(&customer);
    assert_eq!(shop.events(&customer, 3).await, ["ShipmentNoted", "ShipmentNoted", "RecipientErased"]);
    let answer = shop.get(&sent, 6).await.unwrap();
    assert_eq!((answer.address, answer.shipment.unwrap().status()), (None, ShipmentStatus::Shipped));
    let answer = shop.get(&open, 4).await.unwrap();
    assert_eq!((answer.address, answer.shipment.unwrap().status()), (None, ShipmentStatus::Cancelled));
    assert_eq!(shop.events(&open, 4).await[2..], ["AddressErased", "ShipmentCancelled"]);
    assert_eq!(shop.events(&sent, 6).await[5..], ["AddressErased"]);
    assert_eq!(
        [shop.sent(&open), shop.sent(&sent), shop.sent(&customer)].concat().len(),
        4,
        "and that is the end of it"
    );
    assert_eq!(shop.sent(&open), [ERASE_ADDRESS]);
}

#[tokio::test]
async fn shipment_crossing_with_the_erasure_loses_its_address_too() {
    let mut shop = Shop::in_memory().await;
    let (customer, order_id) = (id(), id());
    // The address was asked for before customers had erased it, and noted after the erasure was heard of.
    shop.tell_of_erasure(&customer);
    assert_eq!(shop.events(&customer, 1).await, ["RecipientErased"]);
    shop.pay(&order_id, 4, &customer, &id());
    assert_eq!(shop.events(&order_id, 1).await[0], "ShipmentRequested");
    assert_eq!(shop.events(&customer, 3).await[1..], ["ShipmentNoted", "RecipientErased"]);
    let answer = shop.get(&order_id, 3).await.unwrap();
    assert_eq!((answer.address, answer.shipment.unwrap().status()), (None, ShipmentStatus::Cancelled));
    let states = || format!("{:?}", shop.memory.contents().states);
    eventually("no state holds the address", || !states().contains(crate::shop::CANARY)).await;
}
