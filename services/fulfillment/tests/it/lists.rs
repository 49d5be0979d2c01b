//! `ListPickable` and the question behind it, on a real Postgres.

use std::collections::BTreeSet;

use holdfast_fulfillment::projection;
use holdfast_proto::{
    fulfillment::v1::{ListPickableRequest, Shipment},
    read::v1::Consistency,
};
use tonic::Code;
use uuid::Uuid;

use crate::shop::{Shop, id, refusal};

async fn page(shop: &mut Shop, page_size: i32, page_token: String) -> (Vec<Shipment>, String) {
    let answer = shop.client.list_pickable(ListPickableRequest { page_size, page_token }).await.unwrap().into_inner();
    assert_eq!(answer.read.unwrap().consistency(), Consistency::Local);
    (answer.shipments, answer.next_page_token)
}

fn ids(shipments: &[Shipment]) -> Vec<&str> {
    shipments.iter().map(|shipment| shipment.order_id.as_str()).collect()
}

/// What `walk` found; `meanwhile` something is picked before each page but the first, and something new
/// comes.
async fn walk(shop: &mut Shop, picked: &mut Vec<String>) -> Vec<Shipment> {
    let (mut walked, mut token) = page(shop, 3, String::new()).await;
    while !token.is_empty() {
        shop.pickable().await;
        if let Some(order_id) = picked.pop() {
            shop.start_picking(&order_id).await.unwrap();
        }
        let (shipments, next) = page(shop, 3, token).await;
        walked.extend(shipments);
        token = next;
        if walked.len() > 40 {
            break;
        }
    }
    walked
}

#[tokio::test(flavor = "multi_thread")]
async fn warehouse_sees_only_pickable_shipments_longest_wait_first() {
    let (mut shop, _) = Shop::on_postgres().await;
    assert_eq!(page(&mut shop, 0, String::new()).await, (vec![], String::new()));
    let [paid, confirmed, cancelled, never] = [id(), id(), id(), id()];
    let (first, picking, second) = (shop.pickable().await, shop.pickable().await, shop.pickable().await);
    shop.pay(&paid, 4, &id(), &id());
    shop.confirm(&confirmed);
    shop.order_says("OrderCancelled", &never, 4);
    shop.pay(&cancelled, 4, &id(), &id());
    shop.confirm(&cancelled);
    shop.get(&cancelled, 2).await.unwrap();
    shop.order_says("OrderCancelled", &cancelled, 5);
    shop.start_picking(&picking).await.unwrap();
    for (order_id, version) in [(&paid, 1), (&confirmed, 1), (&cancelled, 3), (&never, 1)] {
        shop.get(order_id, version).await.unwrap();
    }
    let (shipments, token) = page(&mut shop, 0, String::new()).await;
    assert_eq!((ids(&shipments), token.as_str()), (vec![first.as_str(), second.as_str()], ""));
    assert_eq!(shipments[0].version, 2);

    // One that was confirmed first can be picked once it is paid.
    shop.pay(&confirmed, 4, &id(), &id());
    shop.get(&confirmed, 2).await.unwrap();
    let (shipments, _) = page(&mut shop, 0, String::new()).await;
    assert_eq!(ids(&shipments), [first, second, confirmed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_complete_and_disjoint_while_shipments_come_and_go() {
    let (mut shop, _) = Shop::on_postgres().await;
    let mut before = Vec::new();
    for _ in 0..12 {
        before.push(shop.pickable().await);
    }
    let mut picked = before[..2].to_vec();
    let walked = walk(&mut shop, &mut picked).await;
    let seen: BTreeSet<&str> = ids(&walked).into_iter().collect();
    assert_eq!(seen.len(), walked.len(), "a shipment stood on two pages");
    assert!(before[2..].iter().all(|order_id| seen.contains(order_id.as_str())), "one was left out");
    let order: Vec<&str> =
        ids(&walked).into_iter().filter(|order_id| before.contains(&(*order_id).to_owned())).collect();
    assert!(order.is_sorted_by_key(|order_id| before.iter().position(|known| known == order_id)), "oldest first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbled_token_and_a_bad_size_name_their_field() {
    let mut shop = Shop::in_memory().await;
    for (page_size, page_token, field) in [(-1, "", "page_size"), (501, "", "page_size"), (1, "00", "page_token")] {
        let request = ListPickableRequest { page_size, page_token: page_token.into() };
        let expected = (Code::InvalidArgument, "INVALID".to_owned(), vec![field.to_owned()]);
        assert_eq!(refusal(shop.client.list_pickable(request).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pickable_query_uses_an_index_with_all_its_conditions() {
    let (mut shop, store) = Shop::on_postgres().await;
    for _ in 0..20 {
        shop.pickable().await;
    }
    let values = vec![0_i64.into(), Uuid::nil().into(), 51_i64.into()];
    let plan = store.explain(projection::PICKABLE, values).await.unwrap();
    let text = plan.join("\n");
    assert!(!text.contains("Seq Scan on"), "{text}");
    for (index, condition) in
        [("shipments_view_pickable", "ROW(ready_at_ms, order_id) >"), ("aggregates_pkey", "key =")]
    {
        let at = plan.iter().position(|line| line.contains(index)).unwrap_or_else(|| panic!("no {index} in {text}"));
        assert!(plan[at + 1].contains("Index Cond") && plan[at + 1].contains(condition), "{text}");
    }
}
