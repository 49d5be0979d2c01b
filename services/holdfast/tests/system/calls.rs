//! gRPC from outside: what is malformed, and what Kafka and gRPC have in common.

use holdfast_load_tests::by_hand::Raw;
use holdfast_proto::orders::v1::{
    AddItem, AddItemRequest, CreateOrder, CreateOrderRequest, GetOrderRequest, PlaceOrderRequest,
    order_service_client::OrderServiceClient,
};
use libtest_mimic::Failed;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::shop::{Shop, customer, place, record};

async fn client(shop: &Shop) -> Result<OrderServiceClient<Channel>, Failed> {
    Ok(OrderServiceClient::connect(shop.grpc.clone()).await?)
}

fn create(order_id: &str, currency: &str) -> CreateOrder {
    CreateOrder { order_id: order_id.to_owned(), customer_id: customer(), currency: currency.to_owned() }
}

/// Refused as it must be: its code, its reason, and the field if there is one.
fn expect<T>(what: &str, answer: Result<T, Status>, code: Code, reason: &str, field: &str) -> Result<(), Failed> {
    let Err(status) = answer else { return Err(format!("{what}: accepted").into()) };
    let details = status.get_error_details();
    let info = details.error_info().map(|info| (info.domain.clone(), info.reason.clone())).unwrap_or_default();
    let fields: Vec<String> = details
        .bad_request()
        .map(|bad| bad.field_violations.iter().map(|violation| violation.field.clone()).collect())
        .unwrap_or_default();
    let is_right = status.code() == code
        && info == ("holdfast".to_owned(), reason.to_owned())
        && (field.is_empty() || fields.iter().any(|found| found == field));
    if is_right { Ok(()) } else { Err(format!("{what}: {status:?}, {info:?}, {fields:?}").into()) }
}

pub async fn malformed_input_is_an_invalid_argument_with_its_field(shop: &Shop) -> Result<(), Failed> {
    let mut orders = client(shop).await?;
    let id = Uuid::now_v7().to_string();
    let request = |command| CreateOrderRequest { request_id: Uuid::now_v7().to_string(), command };
    let invalid = Code::InvalidArgument;
    let answer = orders.create_order(request(None)).await;
    expect("no command", answer, invalid, "INVALID", "command")?;
    let answer = orders.create_order(request(Some(create("seven", "EUR")))).await;
    expect("order id", answer, invalid, "INVALID", "command.order_id")?;
    let answer = orders.create_order(request(Some(create(&id, "XXX")))).await;
    expect("currency", answer, invalid, "INVALID", "command.currency")?;
    let nameless = CreateOrderRequest { request_id: String::new(), command: Some(create(&id, "EUR")) };
    expect("no request id", orders.create_order(nameless).await, invalid, "REQUEST_ID_MISSING", "request_id")?;
    let get = |order_id: &str| GetOrderRequest { order_id: order_id.to_owned(), ..GetOrderRequest::default() };
    expect("GetOrder, malformed", orders.get_order(get("seven")).await, invalid, "INVALID", "order_id")?;
    expect("GetOrder, unknown", orders.get_order(get(&id)).await, Code::NotFound, "ORDER_NOT_FOUND", "")?;

    orders.create_order(request(Some(create(&id, "EUR")))).await?;
    let add = |quantity, sku: &str| AddItemRequest {
        request_id: Uuid::now_v7().to_string(),
        command: Some(AddItem { order_id: id.clone(), sku: sku.to_owned(), quantity }),
    };
    expect("quantity", orders.add_item(add(0, "sku-1")).await, invalid, "INVALID", "command.quantity")?;
    let failed = Code::FailedPrecondition;
    expect("sku", orders.add_item(add(1, "no-such-sku")).await, failed, "UNKNOWN_SKU", "")?;
    let place = place(&id);
    let place = PlaceOrderRequest { request_id: Uuid::now_v7().to_string(), command: Some(place) };
    expect("empty order", orders.place_order(place).await, failed, "EMPTY_ORDER", "")
}

pub async fn kafka_and_grpc_reach_the_same_actor_through_the_same_claims(shop: &Shop) -> Result<(), Failed> {
    let mut orders = client(shop).await?;
    let id = Uuid::now_v7().to_string();
    let request = CreateOrderRequest { request_id: Uuid::now_v7().to_string(), command: Some(create(&id, "EUR")) };
    let first = orders.create_order(request.clone()).await?.into_inner();
    let again = orders.create_order(request.clone()).await?.into_inner();
    if first != again {
        return Err(format!("the same request has two answers: {first:?}, {again:?}").into());
    }
    let changed = CreateOrderRequest { command: Some(create(&id, "USD")), ..request };
    let answer = orders.create_order(changed).await;
    expect("reused request id", answer, Code::AlreadyExists, "REQUEST_ID_REUSED", "")?;

    let added: Raw = record(&id, &AddItem { order_id: id.clone(), sku: "sku-1".to_owned(), quantity: 3 });
    shop.order(&[added]).await?;
    let order = orders.get_order(GetOrderRequest { order_id: id, ..GetOrderRequest::default() }).await?.into_inner();
    let order = order.order.ok_or("no order")?;
    let total = order.total.map(|total| (total.minor, total.currency));
    if (order.version, total.clone()) != (2, Some((3_000, "EUR".to_owned()))) {
        return Err(format!("version {}, total {total:?}", order.version).into());
    }
    Ok(())
}
