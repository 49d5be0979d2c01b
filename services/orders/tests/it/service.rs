//! What `OrderService` answers.

use std::{sync::atomic::Ordering, time::Duration};

use holdfast_platform::errors::{reason, retry_after};
use holdfast_proto::{
    orders::v1::{self, OrderStatus},
    read::v1::Consistency,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::shop::{Shop, eventually, id};

fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// Code and reason of a status.
fn answer<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    assert_eq!(status.get_details_error_info().expect("every status says why").domain, "holdfast");
    (status.code(), reason(&status).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_carries_the_order_from_draft_to_reserved() {
    let mut shop = Shop::in_memory().await;
    let (order_id, customer_id) = (id(), id());
    let command =
        v1::CreateOrder { order_id: order_id.clone(), customer_id: customer_id.clone(), currency: "EUR".into() };
    let request = v1::CreateOrderRequest { request_id: id(), command: Some(command) };
    let created = shop.client.create_order(request).await.unwrap().into_inner().order.unwrap();
    assert_eq!((&*created.order_id, &*created.customer_id, &*created.currency), (&*order_id, &*customer_id, "EUR"));
    assert_eq!((created.version, created.status()), (1, OrderStatus::Draft));

    assert_eq!(shop.add(&order_id, "A", 2).await.unwrap().total.unwrap().minor, 2_500);
    assert_eq!(shop.add(&order_id, "B", 1).await.unwrap().total.unwrap().minor, 3_150);
    let removed = shop.remove(&order_id, "B").await.unwrap();
    assert_eq!((removed.version, removed.lines.len(), removed.total.unwrap().minor), (4, 1, 2_500));
    let address_id = id();
    let placed = shop.place_with(&order_id, "pm_1", &address_id).await.unwrap();
    assert_eq!((placed.version, placed.status()), (5, OrderStatus::Placed));
    assert_eq!((&*placed.payment_method, &*placed.address_id), ("pm_1", &*address_id));

    shop.reserve(&order_id);
    let request = v1::GetOrderRequest { order_id: order_id.clone(), min_version: 6, ..v1::GetOrderRequest::default() };
    let read = shop.client.get_order(request).await.unwrap().into_inner();
    let (order, read) = (read.order.unwrap(), read.read.unwrap());
    assert_eq!(order.reserved_until.unwrap().seconds, 4_000_000_000);
    assert_eq!((order.version, read.version, read.consistency()), (6, 6, Consistency::Strong));

    let cancelled = shop.cancel(&order_id).await.unwrap();
    assert_eq!(
        (cancelled.status(), cancelled.cancellation.unwrap().reason.as_str()),
        (OrderStatus::Cancelled, "changed my mind")
    );
    assert!(cancelled.reserved_until.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rejection_has_its_status_and_name() {
    let mut shop = Shop::in_memory().await;
    let draft = shop.draft().await;
    let rejected = |name: &str| (Code::FailedPrecondition, name.to_owned());

    assert_eq!(answer(shop.add(&id(), "A", 1).await), (Code::NotFound, "ORDER_NOT_FOUND".to_owned()));
    let command = v1::CreateOrder { order_id: draft.clone(), customer_id: id(), currency: "EUR".into() };
    let again = v1::CreateOrderRequest { request_id: id(), command: Some(command) };
    let again = shop.client.create_order(again).await;
    assert_eq!(answer(again), (Code::AlreadyExists, "ORDER_ALREADY_EXISTS".to_owned()));
    assert_eq!(answer(shop.place(&draft).await), rejected("EMPTY_ORDER"));
    assert_eq!(answer(shop.add(&draft, "NOBODYS", 1).await), rejected("UNKNOWN_SKU"));
    assert_eq!(answer(shop.add(&draft, "U", 1).await), rejected("CURRENCY_MISMATCH"));
    assert_eq!(answer(shop.remove(&draft, "A").await), rejected("ITEM_NOT_IN_ORDER"));
    assert_eq!(answer(shop.add(&draft, "DEAR", 2).await), rejected("TOTAL_TOO_LARGE"));
    for n in 0..100 {
        shop.add(&draft, &format!("SKU-{n}"), 1).await.unwrap();
    }
    assert_eq!(answer(shop.add(&draft, "A", 1).await), rejected("TOO_MANY_LINES"));
    shop.place(&draft).await.unwrap();
    assert_eq!(answer(shop.place(&draft).await), rejected("WRONG_STATE"));
    assert_eq!(answer(shop.add(&draft, "A", 1).await), rejected("WRONG_STATE"));
    shop.cancel(&draft).await.unwrap();
    assert_eq!(answer(shop.cancel(&draft).await), rejected("WRONG_STATE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn same_request_gets_same_answer_and_reused_id_is_a_conflict() {
    let mut shop = Shop::in_memory().await;
    let draft = shop.draft().await;
    for request_id in [id(), "my own words".to_owned()] {
        let command = v1::AddItem { order_id: draft.clone(), sku: "A".into(), quantity: 1 };
        let request = v1::AddItemRequest { request_id, command: Some(command.clone()) };
        let first = shop.client.add_item(request.clone()).await.unwrap().into_inner();
        shop.add(&draft, "B", 1).await.unwrap();
        let again = shop.client.add_item(request.clone()).await.unwrap().into_inner();
        assert_eq!(again, first, "the first answer, although the order has gone on");

        let other = v1::AddItemRequest { command: Some(v1::AddItem { quantity: 2, ..command }), ..request };
        let other = shop.client.add_item(other).await.unwrap_err();
        assert_eq!(fields(&other), ["request_id"]);
        assert_eq!(answer(Err::<(), _>(other)), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    }
    let order = shop.get(&draft).await.unwrap().order.unwrap();
    assert_eq!(order.lines.iter().map(|line| line.quantity).collect::<Vec<_>>(), [2, 2], "nothing was done twice");

    let request_id = id();
    let command = Some(v1::RemoveItem { order_id: draft.clone(), sku: "C".into() });
    let request = v1::RemoveItemRequest { request_id, command };
    let first = answer(shop.client.remove_item(request.clone()).await);
    shop.place(&draft).await.unwrap();
    assert_eq!(answer(shop.client.remove_item(request).await), first, "a rejection is an answer too");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_input_names_its_field() {
    let mut shop = Shop::in_memory().await;
    let draft = shop.draft().await;

    let command = v1::CreateOrder { order_id: id(), customer_id: id(), currency: "EUR".into() };
    let creates = [
        (v1::CreateOrder { order_id: "x".into(), ..command.clone() }, "command.order_id"),
        (v1::CreateOrder { customer_id: "x".into(), ..command.clone() }, "command.customer_id"),
        (v1::CreateOrder { currency: "EUX".into(), ..command.clone() }, "command.currency"),
    ];
    for (command, field) in creates {
        let request = v1::CreateOrderRequest { request_id: id(), command: Some(command) };
        let status = shop.client.create_order(request).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    let no_id = v1::CreateOrderRequest { request_id: String::new(), command: Some(command) };
    let long_id = v1::CreateOrderRequest { request_id: "x".repeat(129), ..no_id.clone() };
    let no_command = v1::CreateOrderRequest { request_id: id(), command: None };
    for (request, field) in [(no_id, "request_id"), (long_id, "request_id"), (no_command, "command")] {
        let status = shop.client.create_order(request).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    for (sku, quantity, field) in
        [("A", 0, "command.quantity"), ("A", -1, "command.quantity"), ("a b", 1, "command.sku")]
    {
        let status = shop.add(&draft, sku, quantity).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    let status = shop.get("x").await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["order_id".to_owned()]));
    let request = v1::GetOrderRequest { order_id: draft, consistency: 7, min_version: 0 };
    let status = shop.client.get_order(request).await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["consistency".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn read_names_its_consistency_and_missing_order_is_not_found() {
    let mut shop = Shop::in_memory().await;
    let draft = shop.draft().await;
    for (consistency, made) in [
        (Consistency::Unspecified, Consistency::Strong),
        (Consistency::Strong, Consistency::Strong),
        (Consistency::Local, Consistency::Local),
    ] {
        let consistency = consistency.into();
        let request = v1::GetOrderRequest { order_id: draft.clone(), consistency, min_version: 1 };
        let answer = shop.client.get_order(request).await.unwrap().into_inner();
        let read = answer.read.unwrap();
        assert_eq!((read.version, read.consistency()), (1, made));
        assert!(read.as_of.unwrap().seconds > 1_700_000_000);
        assert_eq!(answer.order.unwrap().order_id, draft);

        let request = v1::GetOrderRequest { order_id: id(), consistency, min_version: 0 };
        let unknown = shop.client.get_order(request).await;
        assert_eq!(self::answer(unknown), (Code::NotFound, "ORDER_NOT_FOUND".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_not_reached_by_the_deadline_is_deadline_exceeded() {
    let mut shop = Shop::in_memory().await;
    let order_id = shop.draft().await;
    let mut request =
        tonic::Request::new(v1::GetOrderRequest { order_id, min_version: 9, ..v1::GetOrderRequest::default() });
    request.set_timeout(Duration::from_millis(300));
    let status = shop.client.get_order(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_inventory_gives_callers_a_retry_delay_and_no_effect() {
    let mut shop = Shop::in_memory().await;
    let draft = shop.draft().await;
    shop.prices.away.store(true, Ordering::SeqCst);
    let status = shop.add(&draft, "A", 1).await.unwrap_err();
    assert!(retry_after(&status).is_some());
    assert_eq!(answer(Err::<(), _>(status)), (Code::Unavailable, "DOWNSTREAM_UNAVAILABLE".to_owned()));
    // Everything that needs no price goes on.
    assert_eq!(shop.get(&draft).await.unwrap().order.unwrap().version, 1);
    shop.prices.away.store(false, Ordering::SeqCst);
    assert_eq!(shop.add(&draft, "A", 1).await.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn order_that_cannot_be_sent_or_charged_is_rejected_unchanged() {
    let mut shop = Shop::in_memory().await;
    let rejected = |name: &str| (Code::FailedPrecondition, name.to_owned());
    let strange = |prefix: &str| format!("{prefix}{}", &id()[4..]);
    assert_eq!(answer(shop.create(&id(), &strange("dead")).await), rejected("UNKNOWN_CUSTOMER"));
    assert_eq!(answer(shop.create(&id(), &strange("0bad")).await), rejected("CUSTOMER_NOT_ACTIVE"));

    let draft = shop.draft().await;
    shop.add(&draft, "A", 1).await.unwrap();
    for address in [strange("dead"), String::new(), "home".to_owned(), id().to_uppercase()] {
        let placed = shop.place_with(&draft, "pm_1", &address).await;
        assert_eq!(answer(placed), rejected("UNKNOWN_ADDRESS"), "{address}");
    }
    for token in ["", "pm 1", "pm_1\n", "pm_ü"] {
        assert_eq!(answer(shop.place_with(&draft, token, &id()).await), rejected("INVALID_PAYMENT_METHOD"), "{token}");
    }
    assert_eq!(shop.get(&draft).await.unwrap().order.unwrap().version, 2);
    assert_eq!(shop.place_with(&draft, "pm_1", &id()).await.unwrap().version, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_customers_away_only_who_needs_them_waits() {
    let mut shop = Shop::in_memory().await;
    let draft = shop.draft().await;
    shop.add(&draft, "A", 1).await.unwrap();
    shop.customers.away.store(true, Ordering::SeqCst);
    let status = shop.place(&draft).await.unwrap_err();
    assert!(retry_after(&status).is_some());
    assert_eq!(answer(Err::<(), _>(status)), (Code::Unavailable, "DOWNSTREAM_UNAVAILABLE".to_owned()));
    assert_eq!(answer(shop.create(&id(), &id()).await), (Code::Unavailable, "DOWNSTREAM_UNAVAILABLE".to_owned()));
    assert_eq!(shop.add(&draft, "B", 1).await.unwrap().version, 3, "a price needs no customer");
    // By Kafka it waits in the mailbox.
    let (payment_method, address_id) = ("pm_1".to_owned(), id());
    shop.send(&draft, &v1::PlaceOrder { order_id: draft.clone(), payment_method, address_id });
    eventually("it waits", || async { shop.memory.contents().mailbox.len() == 1 }).await;
    shop.customers.away.store(false, Ordering::SeqCst);
    let placed = v1::GetOrderRequest { order_id: draft, min_version: 4, ..v1::GetOrderRequest::default() };
    let placed = shop.client.get_order(placed).await.unwrap().into_inner().order.unwrap();
    assert_eq!(placed.status(), v1::OrderStatus::Placed);
}

#[tokio::test(flavor = "multi_thread")]
async fn order_that_left_memory_is_placed_at_once() {
    let mut shop = Shop::in_memory().await;
    let draft = shop.draft().await;
    shop.add(&draft, "A", 1).await.unwrap();
    shop.restart().await;
    assert_eq!(shop.place(&draft).await.unwrap().version, 3, "the customer is known by the stored order");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_attempt_to_create_an_order_leaves_its_customer_alone() {
    let mut shop = Shop::in_memory().await;
    let order_id = id();
    let stranger = format!("dead{}", &id()[4..]);
    assert!(shop.create(&order_id, &stranger).await.is_err());
    shop.create(&order_id, &id()).await.unwrap();
    shop.add(&order_id, "A", 1).await.unwrap();
    // Whose it is was remembered wrong: nothing is decided on that, and the next attempt is right.
    let first = shop.place(&order_id).await;
    if let Err(status) = &first {
        assert_eq!(status.code(), Code::Unavailable, "never a rejection: {status:?}");
    }
    let placed = if first.is_ok() { first } else { shop.place(&order_id).await };
    assert_eq!(placed.unwrap().version, 3);
    assert!(answer(shop.create(&order_id, &stranger).await).1 == "ORDER_ALREADY_EXISTS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_by_kafka_and_one_by_grpc_meet_in_the_same_order() {
    let mut shop = Shop::in_memory().await;
    let draft = shop.draft().await;
    shop.send(&draft, &v1::AddItem { order_id: draft.clone(), sku: "A".into(), quantity: 3 });
    let request = v1::GetOrderRequest { order_id: draft.clone(), min_version: 2, ..v1::GetOrderRequest::default() };
    let order = shop.client.get_order(request).await.unwrap().into_inner().order.unwrap();
    assert_eq!(order.lines[0].quantity, 3);
    assert_eq!(shop.place(&draft).await.unwrap().version, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_keeps_the_requested_order_and_names_missing_orders() {
    for mut shop in [Shop::in_memory().await, Shop::on_postgres().await] {
        let (first, second, nobodys) = (shop.draft().await, shop.draft().await, id());
        shop.add(&first, "A", 1).await.unwrap();
        for consistency in [Consistency::Strong, Consistency::Local] {
            let order_ids = vec![second.clone(), nobodys.clone(), first.clone()];
            let request = v1::BatchGetOrdersRequest { order_ids, consistency: consistency.into() };
            let answer = shop.client.batch_get_orders(request).await.unwrap().into_inner();
            let found: Vec<_> = answer.orders.iter().map(|order| (order.order_id.as_str(), order.version)).collect();
            assert_eq!(found, [(second.as_str(), 1), (first.as_str(), 2)], "{consistency:?}");
            assert_eq!(answer.missing_order_ids, [nobodys.as_str()]);
            assert_eq!(answer.read.unwrap().consistency(), consistency);
        }
        for (order_ids, field) in
            [(Vec::new(), "order_ids"), (vec![id(); 101], "order_ids"), (vec![id(), "x".into()], "order_ids[1]")]
        {
            let request = v1::BatchGetOrdersRequest { order_ids, consistency: 0 };
            let status = shop.client.batch_get_orders(request).await.unwrap_err();
            assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn news_about_an_order_that_does_not_exist_makes_none() {
    for mut shop in [Shop::in_memory().await, Shop::on_postgres().await] {
        let order_id = id();
        shop.refuse(&order_id);
        let draft = shop.draft().await;
        shop.send(&order_id, &v1::PlaceOrder { order_id: order_id.clone(), ..v1::PlaceOrder::default() });
        for consistency in [Consistency::Strong, Consistency::Local] {
            let order_ids = vec![order_id.clone(), draft.clone()];
            let request = v1::BatchGetOrdersRequest { order_ids, consistency: consistency.into() };
            let answer = shop.client.batch_get_orders(request).await.unwrap().into_inner();
            assert_eq!((answer.orders.len(), &*answer.missing_order_ids), (1, &[order_id.clone()][..]));
        }
    }
}
