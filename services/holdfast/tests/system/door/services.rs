//! Calls and command records of the other contexts with hostile fields: skus, amounts, texts, times.
//!
//! Invariant: each has the status, or the dead letter, that the contracts name. Deliberately absent: orders.

use holdfast_proto::{
    Timestamp,
    customers::v1::{
        AddAddress, AddAddressRequest, Address, AddressReference, BatchGetAddressesRequest, CreateCustomer,
        CreateCustomerRequest, Profile, SuspendCustomer, SuspendCustomerRequest, UpdateProfile, UpdateProfileRequest,
        customer_service_client::CustomerServiceClient,
    },
    fulfillment::v1::{
        CancelShipment, CancelShipmentRequest, DispatchShipment, DispatchShipmentRequest, GetShipmentRequest,
        ListPickableRequest, RecordTracking, RecordTrackingRequest,
        fulfillment_service_client::FulfillmentServiceClient,
    },
    inventory::v1::{
        AdjustStock, AdjustStockRequest, GetPricesRequest, GetReservationRequest, GetStockRequest, ReceiveStock,
        ReceiveStockRequest, SetPrice, SetPriceRequest, SetReorderPoint, SetReorderPointRequest,
        catalog_service_client::CatalogServiceClient, reservation_service_client::ReservationServiceClient,
        stock_service_client::StockServiceClient,
    },
    money::v1::Money,
    payments::v1::{
        GetPaymentRequest, RefundPayment, RefundPaymentRequest, payment_service_client::PaymentServiceClient,
    },
};
use libtest_mimic::Failed;
use tonic::{Code, Response, Status};

use super::{
    attack::{Acted, Attack, Outcome, Row, acts, all, records, refused},
    stand::{CUSTOMER, Stand, asked, id},
};
use crate::shop::record;

const INVALID: [(Code, &str); 1] = [(Code::InvalidArgument, "INVALID")];
/// For a command whose body may be over its limit as well.
const REFUSED: [(Code, &str); 2] = [(Code::InvalidArgument, "INVALID"), (Code::InvalidArgument, "TOO_LARGE")];

/// A name, and the rows under it.
type Table = (&'static str, fn() -> Vec<Row>);

pub fn attacks() -> Vec<Attack> {
    let mut all = acts![
        sku_of_a_call_that_is_none_is_invalid,
        stock_at_an_extreme_has_its_answer,
        prices_of_hostile_skus_are_answered,
        text_with_nul_about_a_customer_is_invalid,
        text_with_nul_about_a_shipment_is_invalid,
        tracking_at_an_extreme_date_has_its_answer,
        refund_that_is_none_is_invalid,
        id_of_another_context_that_is_none_is_invalid,
    ];
    let tables: [Table; 3] = [
        ("stock_records_with_hostile_fields_are_invalid", stock_records_with_hostile_fields_are_invalid),
        ("shipment_records_with_hostile_fields_are_invalid", shipment_records_with_hostile_fields_are_invalid),
        ("refund_records_with_hostile_fields_are_invalid", refund_records_with_hostile_fields_are_invalid),
    ];
    all.extend(tables.into_iter().map(|(name, rows)| records(name, rows)));
    all
}

fn stock(stand: &Stand) -> StockServiceClient<tonic::transport::Channel> {
    StockServiceClient::new(stand.channel.clone())
}

async fn sku_of_a_call_that_is_none_is_invalid(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for sku in ["\0", "\0x", "", " ", "a/b", "lamp\0", &"s".repeat(65), &"\0".repeat(1024 * 1024)] {
        let what = format!("{sku:.20?}");
        let receive = ReceiveStock { sku: sku.to_owned(), quantity: 1 };
        let receive = ReceiveStockRequest { request_id: id(), command: Some(receive) };
        found.push(refused(
            &format!("ReceiveStock {what}"),
            stock(stand).receive_stock(asked(receive)).await,
            &REFUSED,
        ));
        for consistency in [1, 2] {
            let get = GetStockRequest { sku: sku.to_owned(), consistency, min_version: 0 };
            let answer = stock(stand).get_stock(asked(get)).await;
            found.push(refused(&format!("GetStock {what}, {consistency}"), answer, &INVALID));
        }
    }
    all(found)?;
    Ok(Vec::new())
}

/// Checks that a call was accepted, or refused with a reason.
fn answered<T>(what: &str, answer: Result<Response<T>, Status>) -> Result<(), Failed> {
    match answer {
        Ok(_) => Ok(()),
        Err(status) => {
            refused::<()>(what, Err(status), &[(Code::InvalidArgument, "*"), (Code::FailedPrecondition, "*")])
        }
    }
}

async fn stock_at_an_extreme_has_its_answer(stand: &Stand) -> Acted {
    let sku = format!("extreme-{}", id());
    let receive = |quantity| {
        let command = ReceiveStock { sku: sku.clone(), quantity };
        asked(ReceiveStockRequest { request_id: id(), command: Some(command) })
    };
    let adjust = |delta, reason: &str| {
        let command = AdjustStock { sku: sku.clone(), delta, reason: reason.to_owned() };
        asked(AdjustStockRequest { request_id: id(), command: Some(command) })
    };
    let price = |minor, currency: &str| {
        let price = Some(Money { minor, currency: currency.to_owned() });
        asked(SetPriceRequest { request_id: id(), command: Some(SetPrice { sku: sku.clone(), price }) })
    };
    let reorder = |reorder_point| {
        let command = SetReorderPoint { sku: sku.clone(), reorder_point };
        asked(SetReorderPointRequest { request_id: id(), command: Some(command) })
    };
    let failed = [(Code::FailedPrecondition, "*"), (Code::InvalidArgument, "*")];
    let mut found = vec![
        answered("as many as there are", stock(stand).receive_stock(receive(i64::MAX)).await),
        refused("and as many again", stock(stand).receive_stock(receive(i64::MAX)).await, &failed),
        refused("the least", stock(stand).receive_stock(receive(i64::MIN)).await, &INVALID),
        refused("by the least", stock(stand).adjust_stock(adjust(i64::MIN, "count")).await, &failed),
        refused("one more than all", stock(stand).adjust_stock(adjust(1, "count")).await, &failed),
        refused("by nothing", stock(stand).adjust_stock(adjust(0, "count")).await, &INVALID),
        refused("for NUL", stock(stand).adjust_stock(adjust(-1, "\0")).await, &INVALID),
        refused("below 0", stock(stand).set_price(price(-1, "EUR")).await, &INVALID),
        refused("the lowest", stock(stand).set_price(price(i64::MIN, "EUR")).await, &INVALID),
        answered("the highest", stock(stand).set_price(price(i64::MAX, "EUR")).await),
        refused("in NUL", stock(stand).set_price(price(1, "EU\0")).await, &INVALID),
        refused("in gold", stock(stand).set_price(price(1, "XAU")).await, &INVALID),
        answered("the highest point", stock(stand).set_reorder_point(reorder(i64::MAX)).await),
        refused("the lowest point", stock(stand).set_reorder_point(reorder(i64::MIN)).await, &INVALID),
    ];
    let get = GetStockRequest { sku: sku.clone(), ..GetStockRequest::default() };
    let item = stock(stand).get_stock(asked(get)).await?.into_inner().item.unwrap_or_default();
    if item.on_hand != i64::MAX {
        found.push(Err(format!("on hand: {}", item.on_hand).into()));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn prices_of_hostile_skus_are_answered(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for (what, skus) in [
        ("NUL", vec!["\0".to_owned()]),
        ("NUL among good ones", vec!["lamp".to_owned(), "\0".to_owned(), "throne".to_owned()]),
        ("nothing", vec![String::new()]),
        ("a MiB", vec!["s".repeat(1024 * 1024)]),
        ("100,000 of them", (0..100_000).map(|n| format!("s{n}")).collect()),
    ] {
        let answer =
            CatalogServiceClient::new(stand.channel.clone()).get_prices(asked(GetPricesRequest { skus })).await;
        found.push(refused(what, answer, &INVALID));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn text_with_nul_about_a_customer_is_invalid(stand: &Stand) -> Acted {
    let customers = || CustomerServiceClient::new(stand.channel.clone());
    let good = Profile { name: "Eve".into(), email: "eve@example.org".into(), phone: String::new() };
    let bad = [
        ("name", Profile { name: "\0".into(), ..good.clone() }),
        ("email", Profile { email: "eve\0@example.org".into(), ..good.clone() }),
        ("phone", Profile { phone: "\0".into(), ..good }),
    ];
    let mut found = Vec::new();
    for (what, profile) in bad {
        let create = CreateCustomer { customer_id: id(), profile: Some(profile.clone()), preferences: None };
        let create = CreateCustomerRequest { request_id: id(), command: Some(create) };
        found.push(refused(&format!("create, {what}"), customers().create_customer(asked(create)).await, &INVALID));
        let update = UpdateProfile { customer_id: CUSTOMER.to_owned(), profile: Some(profile) };
        let update = UpdateProfileRequest { request_id: id(), command: Some(update) };
        found.push(refused(&format!("update, {what}"), customers().update_profile(asked(update)).await, &INVALID));
    }
    let somewhere = Address {
        recipient: "Eve".into(),
        lines: vec!["1 Main St".into()],
        city: "London".into(),
        postal_code: "N1".into(),
        country: "GB".into(),
    };
    for (what, address) in [
        ("recipient", Address { recipient: "\0".into(), ..somewhere.clone() }),
        ("lines", Address { lines: vec!["\0".into()], ..somewhere.clone() }),
        ("city", Address { city: "\0".into(), ..somewhere.clone() }),
        ("postal code", Address { postal_code: "\0".into(), ..somewhere.clone() }),
        ("country", Address { country: "G\0".into(), ..somewhere.clone() }),
        ("a million lines", Address { lines: vec!["x".into(); 500_000], ..somewhere }),
    ] {
        let add = AddAddress { customer_id: CUSTOMER.to_owned(), address_id: id(), address: Some(address) };
        let add = AddAddressRequest { request_id: id(), command: Some(add) };
        found.push(refused(&format!("address, {what}"), customers().add_address(asked(add)).await, &REFUSED));
    }
    // There is no such customer, so a suspension would change nothing.
    let suspend = SuspendCustomer { customer_id: id(), reason: "\0".to_owned() };
    let suspend = SuspendCustomerRequest { request_id: id(), command: Some(suspend) };
    found.push(refused("suspend", customers().suspend_customer(asked(suspend)).await, &INVALID));
    let addresses = vec![AddressReference { customer_id: "\0".to_owned(), address_id: "\0".to_owned() }];
    let batch = BatchGetAddressesRequest { addresses };
    found.push(refused("addresses", customers().batch_get_addresses(asked(batch)).await, &INVALID));
    all(found)?;
    Ok(Vec::new())
}

fn shipments(stand: &Stand) -> FulfillmentServiceClient<tonic::transport::Channel> {
    FulfillmentServiceClient::new(stand.channel.clone())
}

async fn text_with_nul_about_a_shipment_is_invalid(stand: &Stand) -> Acted {
    let order_id = id();
    let dispatch = |carrier: &str, tracking_number: &str| {
        let (carrier, tracking_number) = (carrier.to_owned(), tracking_number.to_owned());
        let command = DispatchShipment { order_id: order_id.clone(), carrier, tracking_number };
        asked(DispatchShipmentRequest { request_id: id(), command: Some(command) })
    };
    let cancel = CancelShipment { order_id: order_id.clone(), reason: "\0".to_owned() };
    let cancel = CancelShipmentRequest { request_id: id(), command: Some(cancel) };
    let mut found = vec![
        refused("carrier", shipments(stand).dispatch_shipment(dispatch("\0", "1")).await, &INVALID),
        refused("tracking number", shipments(stand).dispatch_shipment(dispatch("post", "\0")).await, &INVALID),
        refused("reason", shipments(stand).cancel_shipment(asked(cancel)).await, &INVALID),
    ];
    for page_token in ["\0".to_owned(), "zz".to_owned(), "00".repeat(512 * 1024)] {
        let list = ListPickableRequest { page_size: 1, page_token };
        found.push(refused("page token", shipments(stand).list_pickable(asked(list)).await, &INVALID));
    }
    all(found)?;
    Ok(Vec::new())
}

fn tracked(order_id: &str, at: Option<Timestamp>, status: i32, tracking_number: &str) -> RecordTracking {
    let (order_id, tracking_number) = (order_id.to_owned(), tracking_number.to_owned());
    RecordTracking { order_id, tracking_number, status, occurred_at: at }
}

async fn tracking_at_an_extreme_date_has_its_answer(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    let order_id = id();
    let track = |seconds, nanos| {
        let command = tracked(&order_id, Some(Timestamp { seconds, nanos }), 1, "1");
        asked(RecordTrackingRequest { request_id: id(), command: Some(command) })
    };
    for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, i32::MAX), (253_402_300_800, 0)] {
        let answer = shipments(stand).record_tracking(track(seconds, nanos)).await;
        found.push(refused(&format!("{seconds}.{nanos}"), answer, &INVALID));
    }
    // There is no such shipment, whenever that was.
    let unknown = [(Code::NotFound, "*"), (Code::FailedPrecondition, "*")];
    for seconds in [0, -1, 10_413_792_000, 253_402_300_799, -62_135_596_800] {
        let answer = shipments(stand).record_tracking(track(seconds, 0)).await;
        found.push(refused(&seconds.to_string(), answer, &unknown));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn refund_that_is_none_is_invalid(stand: &Stand) -> Acted {
    let refund = |refund_id: &str, minor, currency: &str| {
        let amount = Some(Money { minor, currency: currency.to_owned() });
        let command = RefundPayment { order_id: id(), refund_id: refund_id.to_owned(), amount };
        asked(RefundPaymentRequest { request_id: id(), command: Some(command) })
    };
    let mut found = Vec::new();
    for (what, request) in [
        ("NUL", refund("\0", 1, "EUR")),
        ("65 bytes", refund(&"r".repeat(65), 1, "EUR")),
        ("nothing", refund("", 1, "EUR")),
        ("0", refund("r", 0, "EUR")),
        ("the least", refund("r", i64::MIN, "EUR")),
        ("in NUL", refund("r", 1, "\0")),
    ] {
        let answer = PaymentServiceClient::new(stand.channel.clone()).refund_payment(request).await;
        found.push(refused(what, answer, &INVALID));
    }
    all(found)?;
    Ok(Vec::new())
}

async fn id_of_another_context_that_is_none_is_invalid(stand: &Stand) -> Acted {
    let mut found = Vec::new();
    for text in ["\0x", "", "seven", &id().to_uppercase(), &"0".repeat(1024 * 1024)] {
        for consistency in [1, 2] {
            let (order_id, what) = (text.to_owned(), format!("{text:.20?}, {consistency}"));
            let channel = || stand.channel.clone();
            let get = GetReservationRequest { order_id: order_id.clone(), consistency, min_version: 0 };
            let answer = ReservationServiceClient::new(channel()).get_reservation(asked(get)).await;
            found.push(refused(&format!("GetReservation {what}"), answer, &INVALID));
            let get = GetPaymentRequest { order_id: order_id.clone(), consistency, min_version: 0 };
            let answer = PaymentServiceClient::new(channel()).get_payment(asked(get)).await;
            found.push(refused(&format!("GetPayment {what}"), answer, &INVALID));
            let get = GetShipmentRequest { order_id, consistency, min_version: 0 };
            found.push(refused(
                &format!("GetShipment {what}"),
                shipments(stand).get_shipment(asked(get)).await,
                &INVALID,
            ));
        }
    }
    all(found)?;
    Ok(Vec::new())
}

const fn invalid(by: &'static [&'static str]) -> Outcome {
    Outcome::Dead { by, reasons: &["INVALID"] }
}

fn stock_records_with_hostile_fields_are_invalid() -> Vec<Row> {
    let outcome = invalid(&["inventory"]);
    let of = |what: &str, raw| Row::new(what, raw, outcome).to("inventory.commands");
    let received = |sku: &str, quantity| record(sku, &ReceiveStock { sku: sku.to_owned(), quantity });
    let adjusted =
        |delta, reason: &str| record("lamp", &AdjustStock { sku: "lamp".to_owned(), delta, reason: reason.to_owned() });
    let priced = |minor, currency: &str| {
        let price = Some(Money { minor, currency: currency.to_owned() });
        record("lamp", &SetPrice { sku: "lamp".to_owned(), price })
    };
    vec![
        of("a sku with NUL", received("a\0", 1).with("ce_subject", None)),
        of("a sku of 65 letters", received(&"s".repeat(65), 1)),
        of("a sku with a space", received("a b", 1)),
        of("no sku", received("", 1)),
        of("none of it", received("lamp", 0)),
        of("the least there is", received("lamp", i64::MIN)),
        of("by nothing", adjusted(0, "count")),
        of("for NUL", adjusted(1, "\0")),
        of("for 201 letters", adjusted(1, &"x".repeat(201))),
        of("a price below 0", priced(-1, "EUR")),
        of("a price in NUL", priced(1, "\0")),
        of("no price", record("lamp", &SetPrice { sku: "lamp".to_owned(), price: None })),
        of("a point below 0", record("lamp", &SetReorderPoint { sku: "lamp".to_owned(), reorder_point: i64::MIN })),
    ]
}

fn shipment_records_with_hostile_fields_are_invalid() -> Vec<Row> {
    let outcome = invalid(&["fulfillment"]);
    let order_id = id();
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let of = |what: &str, raw| Row::new(what, raw, outcome).to("fulfillment.commands");
    let dispatched = |carrier: &str, tracking_number: &str| {
        let (carrier, tracking_number) = (carrier.to_owned(), tracking_number.to_owned());
        record(&order_id, &DispatchShipment { order_id: order_id.clone(), carrier, tracking_number })
    };
    let tracked = |at, status, number: &str| record(&order_id, &tracked(&order_id, at, status, number));
    vec![
        of("a carrier with NUL", dispatched("\0", "1")),
        of("a tracking number with NUL", dispatched("post", "\0")),
        of("a carrier of a million letters", dispatched(&"c".repeat(1_000_000), "1")),
        of("a status that is none", tracked(at(0), 99, "1")),
        of("no status", tracked(at(0), 0, "1")),
        of("no time", tracked(None, 1, "1")),
        of("after everything", tracked(at(i64::MAX), 1, "1")),
        of("before everything", tracked(at(i64::MIN), 1, "1")),
        of("a number with NUL", tracked(at(0), 1, "\0")),
    ]
}

fn refund_records_with_hostile_fields_are_invalid() -> Vec<Row> {
    let outcome = invalid(&["payments"]);
    let order_id = id();
    let of = |what: &str, refund_id: &str, amount: Option<(i64, &str)>| {
        let amount = amount.map(|(minor, currency)| Money { minor, currency: currency.to_owned() });
        let body = RefundPayment { order_id: order_id.clone(), refund_id: refund_id.to_owned(), amount };
        Row::new(what, record(&order_id, &body), outcome).to("payments.commands")
    };
    vec![
        of("an id with NUL", "\0", Some((1, "EUR"))),
        of("no id", "", Some((1, "EUR"))),
        of("an id of 65 letters", &"r".repeat(65), Some((1, "EUR"))),
        of("nothing", "r", None),
        of("0", "r", Some((0, "EUR"))),
        of("the least there is", "r", Some((i64::MIN, "EUR"))),
        of("in NUL", "r", Some((1, "EU\0"))),
    ]
}
