//! `ListOrders` and the questions behind it, on a real Postgres.

use std::collections::BTreeSet;

use holdfast_orders::projection;
use holdfast_platform::errors::reason;
use holdfast_postgres::{Query, query::Value};
use holdfast_proto::{
    Timestamp,
    orders::v1::{self, ListOrdersRequest, Order, OrderStatus},
    read::v1::Consistency,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use uuid::Uuid;

use crate::shop::{Shop, eventually, id};

/// `count` new drafts of `customer`, by Kafka; returns when the last of them can be listed.
async fn drafts(shop: &Shop, customer: &str, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|_| id()).collect();
    for order_id in &ids {
        let command =
            v1::CreateOrder { order_id: order_id.clone(), customer_id: customer.into(), currency: "EUR".into() };
        shop.send(order_id, &command);
    }
    let stored = || async {
        let request = v1::BatchGetOrdersRequest {
            order_ids: ids[ids.len().saturating_sub(100)..].to_vec(),
            consistency: Consistency::Local.into(),
        };
        shop.client.clone().batch_get_orders(request).await.unwrap().into_inner().missing_order_ids.is_empty()
    };
    eventually("the orders are stored", stored).await;
    ids
}

async fn page(shop: &Shop, request: &ListOrdersRequest) -> (Vec<Order>, String) {
    let answer = shop.client.clone().list_orders(request.clone()).await.expect("a page").into_inner();
    assert_eq!(answer.read.unwrap().consistency(), Consistency::Local);
    (answer.orders, answer.next_page_token)
}

/// All pages; `meanwhile` happens before each but the first.
async fn walk(shop: &Shop, mut request: ListOrdersRequest, mut meanwhile: impl AsyncFnMut()) -> Vec<Order> {
    let mut walked = Vec::new();
    loop {
        let (orders, token) = page(shop, &request).await;
        assert!(orders.len() <= usize::try_from(request.page_size).unwrap());
        walked.extend(orders);
        if token.is_empty() {
            return walked;
        }
        request.page_token = token;
        meanwhile().await;
    }
}

fn ids(orders: &[Order]) -> Vec<&str> {
    orders.iter().map(|order| order.order_id.as_str()).collect()
}

fn created_ms(order: &Order) -> i64 {
    holdfast_proto::time::to_unix_ms(order.created_at.as_ref().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_complete_disjoint_newest_first_as_orders_change() {
    let shop = Shop::on_postgres().await;
    let (mine, other) = (id(), id());
    let before: BTreeSet<String> = drafts(&shop, &mine, 60).await.into_iter().collect();
    drafts(&shop, &other, 20).await;
    for customer_id in [mine.clone(), String::new()] {
        let request =
            ListOrdersRequest { customer_id: customer_id.clone(), page_size: 7, ..ListOrdersRequest::default() };
        let mut left = before.iter().take(5).cloned().collect::<Vec<_>>();
        let walked = walk(&shop, request, async || {
            // New orders, and some of the old ones on their way through their states.
            drafts(&shop, &mine, 3).await;
            if let Some(order_id) = left.pop() {
                let command = v1::CancelOrder { order_id, reason: "x".into() };
                let request = v1::CancelOrderRequest { request_id: id(), command: Some(command) };
                // The second walk finds them cancelled already.
                let _ = shop.client.clone().cancel_order(request).await;
            }
        })
        .await;
        let seen: BTreeSet<String> = walked.iter().map(|order| order.order_id.clone()).collect();
        assert_eq!(seen.len(), walked.len(), "an order stood on two pages");
        assert!(seen.is_superset(&before), "an order that was there from the beginning was left out");
        let places: Vec<_> = walked.iter().map(|order| (created_ms(order), order.order_id.clone())).collect();
        assert!(places.is_sorted_by(|newer, older| newer > older), "newest first");
        if !customer_id.is_empty() {
            assert!(walked.iter().all(|order| order.customer_id == mine));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_condition_holds_for_every_order_of_a_page() {
    let mut shop = Shop::on_postgres().await;
    let customer = id();
    let all = drafts(&shop, &customer, 12).await;
    for order_id in &all[..4] {
        shop.add(order_id, "A", 1).await.unwrap();
        shop.place(order_id).await.unwrap();
    }
    for order_id in &all[4..6] {
        shop.cancel(order_id).await.unwrap();
    }
    shop.draft().await;
    let conditions = |statuses: &[OrderStatus]| ListOrdersRequest {
        customer_id: customer.clone(),
        statuses: statuses.iter().map(|status| i32::from(*status)).collect(),
        ..ListOrdersRequest::default()
    };
    for (statuses, count) in [
        (&[][..], 12),
        (&[OrderStatus::Draft][..], 6),
        (&[OrderStatus::Placed], 4),
        (&[OrderStatus::Cancelled, OrderStatus::Placed, OrderStatus::Placed], 6),
        (&[OrderStatus::Delivered], 0),
    ] {
        let (orders, token) = page(&shop, &conditions(statuses)).await;
        assert_eq!((orders.len(), token.as_str()), (count, ""), "{statuses:?}");
        assert!(orders.iter().all(|order| order.customer_id == customer));
        assert!(statuses.is_empty() || orders.iter().all(|order| statuses.contains(&order.status())));
    }
    // The time of one of them cuts the list in two.
    let (listed, _) = page(&shop, &conditions(&[])).await;
    let at = listed[5].created_at;
    let (older, newer): (Vec<_>, Vec<_>) = listed.iter().partition(|order| created_ms(order) < created_ms(&listed[5]));
    let before = ListOrdersRequest { created_before: at, ..conditions(&[]) };
    let from = ListOrdersRequest { created_from: at, ..conditions(&[]) };
    let order_ids = |orders: &[&Order]| orders.iter().map(|order| order.order_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&page(&shop, &before).await.0), order_ids(&older));
    assert_eq!(ids(&page(&shop, &from).await.0), order_ids(&newer));
    let nothing = ListOrdersRequest { created_before: at, created_from: at, ..conditions(&[]) };
    assert_eq!(page(&shop, &nothing).await, (Vec::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_serves_its_own_listing_only() {
    let shop = Shop::on_postgres().await;
    let customer = id();
    drafts(&shop, &customer, 3).await;
    let request = ListOrdersRequest { customer_id: customer.clone(), page_size: 1, ..ListOrdersRequest::default() };
    let (_, token) = page(&shop, &request).await;
    let larger = ListOrdersRequest { page_size: 5, page_token: token.clone(), ..request.clone() };
    assert_eq!(page(&shop, &larger).await.0.len(), 2, "the size of a page may change on the way");
    let garbled = format!("{}0", &token[..token.len() - 1]);
    let bad = [
        (ListOrdersRequest { customer_id: id(), page_token: token.clone(), ..request.clone() }, "page_token"),
        (ListOrdersRequest { statuses: vec![1], page_token: token.clone(), ..request.clone() }, "page_token"),
        (
            ListOrdersRequest {
                page_token: if garbled == token { token[1..].into() } else { garbled },
                ..request.clone()
            },
            "page_token",
        ),
        (ListOrdersRequest { page_token: "' or 1=1 --".into(), ..request.clone() }, "page_token"),
        (ListOrdersRequest { page_size: -1, ..request.clone() }, "page_size"),
        (ListOrdersRequest { page_size: 501, ..request.clone() }, "page_size"),
        (ListOrdersRequest { statuses: vec![1, 0], ..request.clone() }, "statuses[1]"),
        (ListOrdersRequest { statuses: vec![99], ..request.clone() }, "statuses[0]"),
        (ListOrdersRequest { customer_id: "x".into(), ..request.clone() }, "customer_id"),
        (
            ListOrdersRequest { created_from: Some(Timestamp { seconds: 0, nanos: -1 }), ..request.clone() },
            "created_from",
        ),
        (
            ListOrdersRequest { created_before: Some(Timestamp { seconds: i64::MAX, nanos: 0 }), ..request },
            "created_before",
        ),
    ];
    for (request, field) in bad {
        let status = shop.client.clone().list_orders(request).await.unwrap_err();
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!((status.code(), violations[0].field.as_str()), (Code::InvalidArgument, field));
        assert_eq!(reason(&status).as_deref(), Some("INVALID"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_of_large_orders_ends_before_the_message_size_limit() {
    let mut shop = Shop::on_postgres().await;
    let customer = id();
    let all = drafts(&shop, &customer, 300).await;
    // 100 lines of 64 characters each: about 13 KB an order.
    for order_id in &all {
        for n in 0..100 {
            let sku = format!("SKU-{n:060}");
            shop.send(order_id, &v1::AddItem { order_id: order_id.clone(), sku, quantity: 1 });
        }
    }
    for order_id in &all {
        let request =
            v1::GetOrderRequest { order_id: order_id.clone(), min_version: 101, ..v1::GetOrderRequest::default() };
        shop.client.get_order(request).await.expect("all lines added");
    }
    let request = ListOrdersRequest { customer_id: customer, page_size: 500, ..ListOrdersRequest::default() };
    let (first, token) = page(&shop, &request).await;
    assert!(first.len() < 300 && !token.is_empty(), "{}", first.len());
    let walked = walk(&shop, request, async || {}).await;
    assert_eq!(walked.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_uses_an_index_with_all_its_conditions() {
    let shop = Shop::on_postgres().await;
    let customers: Vec<String> = (0..10).map(|_| id()).collect();
    for customer in &customers {
        drafts(&shop, customer, 100).await;
    }
    let by_key = ("aggregates_pkey", &["key =", "kind ="][..]);
    let by_status = ("orders_view_status", &["status =", "created_at_ms >=", "ROW("][..]);
    let by_customer = (
        "orders_view_customer",
        &["ROW(customer_id, status, created_at_ms) >=", "ROW(customer_id, status, created_at_ms, order_id) <"][..],
    );
    let page: Vec<Value> = vec![
        vec!["DRAFT".to_owned(), "PLACED".to_owned()].into(),
        0_i64.into(),
        i64::MAX.into(),
        Uuid::max().into(),
        51_i64.into(),
    ];
    let of_customer = [page.clone(), vec![Uuid::try_parse(&customers[3]).unwrap().into()]].concat();
    for (query, values, scans) in [
        (projection::BY_IDS, vec![vec![id(), id()].into()], &[by_key][..]),
        (projection::NEWER, vec![vec![id(), id()].into(), vec![1_i64, 2].into()], &[by_key]),
        (projection::PAGE, page, &[by_status, by_key]),
        (projection::PAGE_OF_CUSTOMER, of_customer, &[by_customer, by_key]),
    ] {
        let plan = shop.postgres().explain(query, values).await.expect("explained");
        let text = format!("{}:\n{}", query.name, plan.join("\n"));
        assert!(!text.contains("Seq Scan on"), "{text}");
        for (index, conditions) in scans {
            let at =
                plan.iter().position(|line| line.contains(index)).unwrap_or_else(|| panic!("no {index} in {text}"));
            let condition = &plan[at + 1];
            assert!(condition.contains("Index Cond"), "{text}");
            assert!(conditions.iter().all(|part| condition.contains(part)), "not {conditions:?} in {text}");
        }
    }
    // The same check notices a question without an index.
    let unindexed = Query { name: "test", sql: "select key from aggregates where version > $1::bigint" };
    let plan = shop.postgres().explain(unindexed, vec![1_i64.into()]).await.expect("explained");
    assert!(plan.join("\n").contains("Seq Scan on"), "{plan:?}");
}
