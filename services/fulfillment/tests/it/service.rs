//! `FulfillmentService`, and the news that it follows.

use std::sync::atomic::Ordering;

use holdfast_fulfillment::carrier::Simulated;
use holdfast_fulfillment_domain::shipment_id;
use holdfast_proto::{
    fulfillment::v1::{self, CancellationCause, ShipmentStatus, TrackingStatus},
    read::v1::Consistency,
};
use tonic::Code;

use crate::shop::{CANARY, Shop, id, refusal};

fn track(order_id: &str, number: &str, status: TrackingStatus) -> v1::RecordTracking {
    let occurred_at = Some(holdfast_proto::time::from_unix_ms(1_795_305_600_000));
    let (order_id, tracking_number) = (order_id.to_owned(), number.to_owned());
    v1::RecordTracking { order_id, tracking_number, status: status.into(), occurred_at }
}

#[tokio::test]
async fn a_paid_and_confirmed_order_goes_all_the_way() {
    let mut shop = Shop::in_memory().await;
    let order_id = shop.pickable().await;
    let answer = shop.get(&order_id, 0).await.unwrap();
    let (pending, read) = (answer.shipment.unwrap(), answer.read.unwrap());
    assert_eq!((pending.status(), pending.version, read.version), (ShipmentStatus::Pending, 2, 2));
    assert_eq!(read.consistency(), Consistency::Strong);
    assert_eq!(answer.address.unwrap().city, format!("{CANARY}-city"));
    let shipment = shipment_id(order_id.parse().unwrap());
    assert_eq!(pending.shipment_id, shipment.to_string());

    assert_eq!(shop.start_picking(&order_id).await.unwrap().status(), ShipmentStatus::Picking);
    assert_eq!(shop.pack(&order_id).await.unwrap().status(), ShipmentStatus::Packed);
    let shipped = shop.dispatch(&order_id).await.unwrap();
    let parcel = Simulated::parcel(shipment);
    assert_eq!((shipped.status(), &*shipped.carrier), (ShipmentStatus::Shipped, &*parcel.carrier));
    assert_eq!(*shipped.tracking_number, *parcel.tracking_number);

    // Tracking comes by Kafka, twice and out of order.
    let number = &shipped.tracking_number;
    for status in [TrackingStatus::InTransit, TrackingStatus::Accepted, TrackingStatus::InTransit] {
        shop.send(&order_id, &track(&order_id, number, status));
    }
    for _ in 0..2 {
        shop.send(&order_id, &track(&order_id, number, TrackingStatus::Delivered));
    }
    shop.send(&order_id, &track(&order_id, number, TrackingStatus::OutForDelivery));
    let delivered = shop.get(&order_id, 7).await.unwrap().shipment.unwrap();
    assert_eq!((delivered.status(), delivered.version), (ShipmentStatus::Delivered, 7));
    let names = shop.events(&order_id, 7).await;
    // Orders' and inventory's topics are two, so the first two events come in either order.
    assert_eq!(
        names[2..],
        ["PickingStarted", "ShipmentPacked", "ShipmentDispatched", "TrackingUpdated", "ShipmentDelivered"]
    );
}

#[tokio::test]
async fn nothing_is_picked_before_its_stock_is_confirmed() {
    let mut shop = Shop::in_memory().await;
    let order_id = id();
    shop.pay(&order_id, 4, &id(), &id());
    shop.get(&order_id, 1).await.unwrap();
    let (code, reason, _) = refusal(shop.start_picking(&order_id).await);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "NOT_PICKABLE"));
    shop.confirm(&order_id);
    shop.get(&order_id, 2).await.unwrap();
    assert!(shop.start_picking(&order_id).await.is_ok());
    let (code, reason, _) = refusal(shop.start_picking(&id()).await);
    assert_eq!((code, reason.as_str()), (Code::NotFound, "SHIPMENT_NOT_FOUND"));
}

#[tokio::test]
async fn cancellation_stops_shipments_not_handed_over_and_no_others() {
    let mut shop = Shop::in_memory().await;
    for (event, cause) in [
        ("OrderCancellationRequested", CancellationCause::CancellationRequested),
        ("OrderCancelled", CancellationCause::OrderCancelled),
    ] {
        let (stopped, gone) = (shop.pickable().await, shop.pickable().await);
        shop.start_picking(&gone).await.unwrap();
        shop.pack(&gone).await.unwrap();
        shop.dispatch(&gone).await.unwrap();
        for order_id in [&stopped, &gone] {
            shop.order_says(event, order_id, 5);
            shop.order_says(event, order_id, 5);
        }
        let answer = shop.get(&stopped, 3).await.unwrap();
        assert_eq!(answer.shipment.unwrap().cancellation.unwrap().cause(), cause);
        assert_eq!(answer.address, None, "what is not sent keeps no address");
        // A call after the news shows that the news was heard.
        let command = Some(v1::CancelShipment { order_id: gone.clone(), reason: "late".into() });
        let request = v1::CancelShipmentRequest { request_id: id(), command };
        assert_eq!(refusal(shop.client.cancel_shipment(request).await).1, "WRONG_STATE");
        assert_eq!(shop.get(&gone, 0).await.unwrap().shipment.unwrap().status(), ShipmentStatus::Shipped);
    }
}

#[tokio::test]
async fn warehouse_cancellation_keeps_its_reason_and_its_first_answer() {
    let mut shop = Shop::in_memory().await;
    let order_id = shop.pickable().await;
    let command = v1::CancelShipment { order_id: order_id.clone(), reason: "water damage".into() };
    let request = v1::CancelShipmentRequest { request_id: id(), command: Some(command.clone()) };
    for _ in 0..2 {
        let cancelled = shop.client.cancel_shipment(request.clone()).await.unwrap().into_inner().shipment.unwrap();
        let why = cancelled.cancellation.unwrap();
        assert_eq!((why.cause(), &*why.reason), (CancellationCause::Warehouse, "water damage"));
    }
    let other = v1::CancelShipment { reason: "fire".into(), ..command };
    let request = v1::CancelShipmentRequest { command: Some(other), ..request };
    assert_eq!(refusal(shop.client.cancel_shipment(request).await).1, "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn an_order_whose_address_is_not_known_is_undeliverable() {
    let mut shop = Shop::in_memory().await;
    let (erased, orders) = (id(), [id(), id(), id()]);
    shop.customers.erased.lock().unwrap().insert(erased.parse().unwrap());
    shop.pay(&orders[0], 4, &erased, &id());
    shop.pay(&orders[1], 4, &id(), "");
    shop.pay(&orders[2], 4, &id(), "not an id");
    for order_id in &orders {
        let shipment = shop.get(order_id, 1).await.unwrap().shipment.unwrap();
        assert_eq!(shipment.cancellation.unwrap().cause(), CancellationCause::Undeliverable);
        assert_eq!(shop.events(order_id, 1).await, ["ShipmentCancelled"]);
    }
}

#[tokio::test]
async fn with_customers_away_a_payment_waits_and_holds_up_nobody_else() {
    let mut shop = Shop::in_memory().await;
    let (waits, other) = (id(), shop.pickable().await);
    shop.customers.away.store(true, Ordering::SeqCst);
    shop.pay(&waits, 4, &id(), &id());
    assert!(shop.start_picking(&other).await.is_ok());
    let memory = shop.memory.node();
    crate::shop::eventually("the payment waits", || !memory.contents().mailbox.is_empty()).await;
    assert_eq!(refusal(shop.get(&waits, 0).await).0, Code::NotFound);
    shop.customers.away.store(false, Ordering::SeqCst);
    assert_eq!(shop.get(&waits, 1).await.unwrap().shipment.unwrap().status(), ShipmentStatus::Pending);
}

#[tokio::test]
async fn strong_read_never_falls_back_silently_and_local_one_goes_on() {
    let mut shop = Shop::in_memory().await;
    let order_id = shop.pickable().await;
    shop.node.stop().await;
    let (code, reason, _) = refusal(shop.get(&order_id, 0).await);
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "OWNER_MOVING"));
    let request = v1::GetShipmentRequest { order_id, consistency: Consistency::Local.into(), min_version: 2 };
    let answer = shop.client.get_shipment(request).await.unwrap().into_inner();
    assert_eq!(answer.read.unwrap().consistency(), Consistency::Local);
    assert!(answer.address.is_some());
}

#[tokio::test]
async fn malformed_input_names_its_field() {
    let mut shop = Shop::in_memory().await;
    let invalid = |field: &str| (Code::InvalidArgument, "INVALID".to_owned(), vec![field.to_owned()]);
    assert_eq!(refusal(shop.get("4711", 0).await), invalid("order_id"));
    assert_eq!(refusal(shop.start_picking("4711").await), invalid("command.order_id"));
    let command = v1::DispatchShipment { order_id: id(), carrier: "Post".into(), tracking_number: String::new() };
    let request = v1::DispatchShipmentRequest { request_id: id(), command: Some(command) };
    assert_eq!(refusal(shop.client.dispatch_shipment(request).await), invalid("command.tracking_number"));
}
