//! Calls of `OrderService` with hostile fields: ids, request ids, versions, pages, texts.
//!
//! Invariant: each has the status that the contracts name. Deliberately absent: what `calls.rs` of the system
//! tests has.

use std::time::Duration;

use holdfast_proto::{
    Timestamp,
    orders::v1::{
        AddItem, AddItemRequest, BatchGetOrdersRequest, CancelOrder, CancelOrderRequest, CreateOrder,
        CreateOrderRequest, GetOrderRequest, ListOrdersRequest, PlaceOrder, PlaceOrderRequest, WatchOrderRequest,
    },
};
use tonic::{Code, Request};

use super::{
    attack::{Acted, Attack, acts, all, is_given_up, refused},
    stand::{Stand, asked, id, id_at},
};

const INVALID: [(Code, &str); 1] = [(Code::InvalidArgument, "INVALID")];

pub fn attacks() -> Vec<Attack> {
    acts![
        order_id_that_is_none_is_invalid,
        order_id_of_a_command_that_is_none_is_invalid,
        orders_asked_together_with_a_bad_id_are_invalid,
        version_without_end_runs_into_the_deadline,
        consistency_that_is_none_is_invalid,
        page_token_that_is_none_is_invalid,
        listing_with_extremes_is_answered,
        request_id_with_nul_is_one_request_or_invalid,
        request_id_over_its_limit_is_invalid,
        request_id_reused_is_a_conflict,
        nul_in_a_text_of_a_call_is_invalid,
        quantity_at_an_extreme_of_a_call_has_its_answer,
        thousand_watchers_that_leave_hold_up_nobody,
    ]
}

/// Texts that are no order's id.
fn no_ids() -> Vec<(String, String)> {
    let id = id();
    let named = |what: &str, id: String| (what.to_owned(), id);
    vec![
        named("NUL", "\0x".to_owned()),
        named("nothing", String::new()),
        named("NUL after an id", format!("{id}\0")),
        named("upper case", id.to_uppercase()),
        named("braces", format!("{{{id}}}")),
        named("a MiB", "0".repeat(1024 * 1024)),
        named("a MiB of NUL", "\0".repeat(1024 * 1024)),
        named("a path", "../../etc/passwd".to_owned()),
        named("36 of something", "\u{00e9}".repeat(18)),
    ]
}

async fn order_id_that_is_none_is_invalid(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for (what, order_id) in no_ids() {
        for consistency in [1, 2] {
            let get = GetOrderRequest { order_id: order_id.clone(), consistency, min_version: 0 };
            let answer = stand.orders().get_order(asked(get)).await;
            found.push(refused(&format!("GetOrder {what}, {consistency}"), answer, &INVALID));
        }
        let watch = WatchOrderRequest { order_id, after_version: 0 };
        found.push(refused(&format!("WatchOrder {what}"), stand.orders().watch_order(asked(watch)).await, &INVALID));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn order_id_of_a_command_that_is_none_is_invalid(stand: &Stand) -> Acted {
    let wanted = [(Code::InvalidArgument, "INVALID"), (Code::InvalidArgument, "TOO_LARGE")];
    let mut found = Vec::new();
    for (what, order_id) in no_ids() {
        let create = CreateOrder { order_id: order_id.clone(), ..Stand::open_order(&id()) };
        let create = CreateOrderRequest { request_id: id(), command: Some(create) };
        found.push(refused(&format!("CreateOrder {what}"), stand.orders().create_order(asked(create)).await, &wanted));
        let cancel = CancelOrder { order_id, reason: String::new() };
        let cancel = CancelOrderRequest { request_id: id(), command: Some(cancel) };
        found.push(refused(&format!("CancelOrder {what}"), stand.orders().cancel_order(asked(cancel)).await, &wanted));
    }
    for (what, customer_id) in no_ids() {
        let create = CreateOrder { customer_id, ..Stand::open_order(&id()) };
        let create = CreateOrderRequest { request_id: id(), command: Some(create) };
        let answer = stand.orders().create_order(asked(create)).await;
        found.push(refused(&format!("the customer of CreateOrder {what}"), answer, &wanted));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn orders_asked_together_with_a_bad_id_are_invalid(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    let good: Vec<String> = stand.bystanders.iter().map(|order| order.id.clone()).collect();
    for (what, bad) in no_ids() {
        for consistency in [1, 2] {
            let order_ids = [&good[..], std::slice::from_ref(&bad)].concat();
            let answer = stand.orders().batch_get_orders(asked(BatchGetOrdersRequest { order_ids, consistency })).await;
            found.push(refused(&format!("with {what}, {consistency}"), answer, &INVALID));
        }
    }
    let many = |count: usize| BatchGetOrdersRequest { order_ids: (0..count).map(|_| id()).collect(), consistency: 1 };
    found.push(refused("101 orders", stand.orders().batch_get_orders(asked(many(101))).await, &INVALID));
    found.push(refused("50,000 orders", stand.orders().batch_get_orders(asked(many(50_000))).await, &INVALID));
    found.push(refused("no orders", stand.orders().batch_get_orders(asked(many(0))).await, &INVALID));
    all(found)?;
    Ok(Vec::new())
}

async fn version_without_end_runs_into_the_deadline(stand: &Stand) -> Acted {
    let wanted = [(Code::DeadlineExceeded, "*"), (Code::InvalidArgument, "INVALID")];
    let mut found = Vec::new();
    for order_id in [&stand.bystanders[0].id, &id()] {
        for (consistency, min_version) in [(1, u64::MAX), (2, u64::MAX), (1, 1 << 63), (2, (1 << 63) - 1)] {
            let mut request = Request::new(GetOrderRequest { order_id: order_id.clone(), consistency, min_version });
            request.set_timeout(Duration::from_secs(1));
            let answer = stand.orders().get_order(request).await;
            if !answer.as_ref().is_err_and(is_given_up) {
                found.push(refused(&format!("{order_id}, {consistency}, {min_version}"), answer, &wanted));
            }
        }
    }
    all(found)?;
    Ok(Vec::new())
}

async fn consistency_that_is_none_is_invalid(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for consistency in [3, -1, i32::MIN, i32::MAX] {
        let order_id = stand.bystanders[0].id.clone();
        let get = GetOrderRequest { order_id, consistency, min_version: 0 };
        found.push(refused(&consistency.to_string(), stand.orders().get_order(asked(get)).await, &INVALID));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn page_token_that_is_none_is_invalid(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    let first = ListOrdersRequest { page_size: 1, ..ListOrdersRequest::default() };
    let token = stand.orders().list_orders(asked(first)).await?.into_inner().next_page_token;
    for (what, page_token) in [
        ("NUL", "\0".to_owned()),
        ("zz", "zz".to_owned()),
        ("a byte", "ff".to_owned()),
        ("a MiB", "00".repeat(512 * 1024)),
        ("cut", token[..token.len() - 2].to_owned()),
        ("twice", token.repeat(2)),
        ("letters that are none", "\u{ff10}".repeat(40)),
        ("statements", "' or 1=1 --".to_owned()),
    ] {
        let page = ListOrdersRequest { page_size: 1, page_token, ..ListOrdersRequest::default() };
        found.push(refused(what, stand.orders().list_orders(asked(page)).await, &INVALID));
    }
    let others = ListOrdersRequest { page_size: 1, page_token: token, customer_id: id(), ..Default::default() };
    found.push(refused("of other conditions", stand.orders().list_orders(asked(others)).await, &INVALID));
    all(found)?;
    Ok(Vec::new())
}

async fn listing_with_extremes_is_answered(stand: &Stand) -> Acted {
    let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
    let all_of = ListOrdersRequest::default;
    let mut found = Vec::new();
    for (what, list) in [
        ("a page of -1", ListOrdersRequest { page_size: -1, ..all_of() }),
        ("a page of two billion", ListOrdersRequest { page_size: i32::MAX, ..all_of() }),
        ("a page of 501", ListOrdersRequest { page_size: 501, ..all_of() }),
        ("a status that is none", ListOrdersRequest { statuses: vec![99], ..all_of() }),
        ("a million statuses that are none", ListOrdersRequest { statuses: vec![-1; 300_000], ..all_of() }),
        ("a customer with NUL", ListOrdersRequest { customer_id: "\0".to_owned(), ..all_of() }),
        ("from before everything", ListOrdersRequest { created_from: at(i64::MIN, 0), ..all_of() }),
        ("before after everything", ListOrdersRequest { created_before: at(i64::MAX, 0), ..all_of() }),
        ("nanoseconds below 0", ListOrdersRequest { created_from: at(0, -1), ..all_of() }),
        ("too many nanoseconds", ListOrdersRequest { created_from: at(0, i32::MAX), ..all_of() }),
    ] {
        found.push(refused(what, stand.orders().list_orders(asked(list)).await, &INVALID));
    }
    for (what, list) in [
        ("the same status 500,000 times", ListOrdersRequest { statuses: vec![1; 500_000], ..all_of() }),
        ("from 0001", ListOrdersRequest { created_from: at(-62_135_596_800, 0), ..all_of() }),
        ("from 9999", ListOrdersRequest { created_from: at(253_402_300_799, 0), ..all_of() }),
        ("to 1970", ListOrdersRequest { created_before: at(0, 0), ..all_of() }),
    ] {
        match stand.orders().list_orders(asked(list)).await {
            Err(status) if status.code() != Code::InvalidArgument => {
                found.push(Err(format!("{what}: {status:?}").into()));
            }
            _ => {}
        }
    }
    all(found)?;
    Ok(Vec::new())
}

async fn request_id_with_nul_is_one_request_or_invalid(stand: &Stand) -> Acted {
    for request_id in ["a\0b".to_owned(), "\u{202e}\u{fffd}".to_owned(), "\0".repeat(128)] {
        let create = CreateOrderRequest { request_id, command: Some(Stand::open_order(&id_at(11))) };
        let first = stand.orders().create_order(asked(create.clone())).await;
        let second = stand.orders().create_order(asked(create)).await;
        match (first, second) {
            (Ok(first), Ok(second)) if first.get_ref() == second.get_ref() => {}
            (Err(status), Err(_)) => refused::<()>("NUL", Err(status), &INVALID)?,
            (first, second) => return Err(format!("{first:?}, then {second:?}").into()),
        }
    }
    Ok(Vec::new())
}

async fn request_id_over_its_limit_is_invalid(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for bytes in [129, 1024 * 1024] {
        let request_id = "r".repeat(bytes);
        let create = CreateOrderRequest { request_id, command: Some(Stand::open_order(&id())) };
        found.push(refused(&format!("{bytes}"), stand.orders().create_order(asked(create)).await, &INVALID));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn request_id_reused_is_a_conflict(stand: &Stand) -> Acted {
    let (order_id, request_id) = (id(), id());
    let create = CreateOrderRequest { request_id: request_id.clone(), command: Some(Stand::open_order(&order_id)) };
    stand.orders().create_order(asked(create)).await?;
    let cancel = CancelOrder { order_id, reason: String::new() };
    let cancel = CancelOrderRequest { request_id, command: Some(cancel) };
    let wanted = [(Code::AlreadyExists, "REQUEST_ID_REUSED")];
    refused("for another command", stand.orders().cancel_order(asked(cancel)).await, &wanted)?;
    Ok(Vec::new())
}

async fn nul_in_a_text_of_a_call_is_invalid(stand: &Stand) -> Acted {
    let order_id = id_at(3);
    let opened = CreateOrderRequest { request_id: id(), command: Some(Stand::open_order(&order_id)) };
    stand.orders().create_order(asked(opened)).await?;
    let item = |sku: &str| {
        let command = AddItem { order_id: order_id.clone(), sku: sku.to_owned(), quantity: 1 };
        asked(AddItemRequest { request_id: id(), command: Some(command) })
    };
    stand.orders().add_item(item("lamp")).await?;
    let mut found = vec![refused("AddItem.sku", stand.orders().add_item(item("lamp\0")).await, &INVALID)];
    for (what, method, address) in [("method", "pm_\0", &*stand.address_id), ("address", "pm_card_visa", "\0")] {
        let command = PlaceOrder {
            order_id: order_id.clone(),
            payment_method: method.to_owned(),
            address_id: address.to_owned(),
        };
        let place = PlaceOrderRequest { request_id: id(), command: Some(command) };
        // A malformed token has a rejection of its own.
        let wanted = [
            (Code::InvalidArgument, "INVALID"),
            (Code::InvalidArgument, "INVALID_PAYMENT_METHOD"),
            (Code::FailedPrecondition, "INVALID_PAYMENT_METHOD"),
            (Code::FailedPrecondition, "UNKNOWN_ADDRESS"),
        ];
        let answer = stand.orders().place_order(asked(place)).await;
        found.push(refused(&format!("the {what} of PlaceOrder"), answer, &wanted));
    }
    let cancel = CancelOrder { order_id: order_id.clone(), reason: "\0".to_owned() };
    let cancel = CancelOrderRequest { request_id: id(), command: Some(cancel) };
    found.push(refused("CancelOrder.reason", stand.orders().cancel_order(asked(cancel)).await, &INVALID));
    all(found)?;
    Ok(Vec::new())
}

async fn quantity_at_an_extreme_of_a_call_has_its_answer(stand: &Stand) -> Acted {
    let order_id = id_at(3);
    let opened = CreateOrderRequest { request_id: id(), command: Some(Stand::open_order(&order_id)) };
    stand.orders().create_order(asked(opened)).await?;
    let item = |quantity| {
        let command = AddItem { order_id: order_id.clone(), sku: "lamp".to_owned(), quantity };
        asked(AddItemRequest { request_id: id(), command: Some(command) })
    };
    let too_many = [(Code::FailedPrecondition, "TOTAL_TOO_LARGE")];
    all([
        refused("the least", stand.orders().add_item(item(i64::MIN)).await, &INVALID),
        refused("the most", stand.orders().add_item(item(i64::MAX)).await, &too_many),
        refused("the most there are cents for", stand.orders().add_item(item(i64::MAX / 1_000 + 1)).await, &too_many),
    ])?;
    // The highest total that can be counted is accepted, and one unit more is not.
    stand.orders().add_item(item(i64::MAX / 1_000)).await?;
    refused("one more", stand.orders().add_item(item(1)).await, &too_many)?;
    Ok(Vec::new())
}

async fn thousand_watchers_that_leave_hold_up_nobody(stand: &Stand) -> Acted {
    for n in 0..1_000_usize {
        let order_id = stand.bystanders[n % stand.bystanders.len()].id.clone();
        let after_version = if n % 2 == 0 { 0 } else { u64::MAX };
        let watch = asked(WatchOrderRequest { order_id, after_version });
        match stand.orders().watch_order(watch).await {
            // The stream is dropped unread.
            Ok(stream) => drop(stream),
            Err(status) if [Code::InvalidArgument, Code::ResourceExhausted].contains(&status.code()) => {}
            Err(status) => return Err(format!("watcher {n}: {status:?}").into()),
        }
    }
    Ok(Vec::new())
}
