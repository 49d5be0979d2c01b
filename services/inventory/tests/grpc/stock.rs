//! `StockService`.

use holdfast_platform::errors;
use holdfast_proto::{
    inventory::v1::{
        AdjustStock, AdjustStockRequest, GetStockRequest, ReceiveStockRequest, SetPrice, SetPriceRequest,
        stock_service_client::StockServiceClient,
    },
    money::v1::Money,
    read::v1::Consistency,
};
use tonic::Code;

use crate::shop::{Shop, adjust, counts, invalid, new_id, price, receive, refusal, reorder};

#[tokio::test]
async fn received_and_priced_stock_reads_back_at_once_with_version() {
    let shop = Shop::open().await;
    let answer = shop.stock().receive_stock(receive(&new_id(), "A", 7)).await.unwrap().into_inner();
    assert_eq!((answer.sku.as_str(), answer.version), ("A", 1));
    let answer = shop.stock().set_price(price(&new_id(), "A", 1999, "EUR")).await.unwrap().into_inner();
    assert_eq!((answer.sku.as_str(), answer.version), ("A", 2));
    let answer = shop.stock().adjust_stock(adjust(&new_id(), "A", -2)).await.unwrap().into_inner();
    assert_eq!((answer.sku.as_str(), answer.version), ("A", 3));

    for (asked, read_as) in [
        (Consistency::Unspecified, Consistency::Strong),
        (Consistency::Strong, Consistency::Strong),
        (Consistency::Local, Consistency::Local),
    ] {
        let request = GetStockRequest { sku: "A".to_owned(), consistency: asked.into(), min_version: 3 };
        let answer = shop.stock().get_stock(request).await.unwrap().into_inner();
        let (item, read) = (answer.item.unwrap(), answer.read.unwrap());
        assert_eq!((item.sku.as_str(), counts(&item), item.version), ("A", (5, 0, 5), 3));
        assert_eq!(item.price, Some(Money { minor: 1999, currency: "EUR".to_owned() }));
        assert!(item.created_at.is_some() && item.updated_at.is_some());
        assert_eq!((read.consistency(), read.version), (read_as, 3));
        assert!(read.as_of.is_some());
    }
}

#[tokio::test]
async fn a_price_that_is_set_again_is_no_event() {
    let shop = Shop::open().await;
    for _ in 0..2 {
        let answer = shop.stock().set_price(price(&new_id(), "A", 5, "EUR")).await.unwrap();
        assert_eq!(answer.into_inner().version, 1);
    }
}

#[tokio::test]
async fn reorder_point_is_kept_per_sku_and_the_same_one_is_no_event() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    let before = shop.item("A").await;
    let id = new_id();
    for request_id in [&id, &id, &new_id()] {
        let answer = shop.stock().set_reorder_point(reorder(request_id, "A", 40)).await.unwrap().into_inner();
        assert_eq!((answer.sku.as_str(), answer.version), ("A", before.version + 1));
    }
    let conflict = (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned(), vec!["request_id".to_owned()]);
    assert_eq!(refusal(shop.stock().set_reorder_point(reorder(&id, "A", 41)).await), conflict);
    let item = shop.item("A").await;
    assert_eq!((item.reorder_point, counts(&item), item.price), (40, counts(&before), before.price));
    shop.stock().set_reorder_point(reorder(&new_id(), "A", 0)).await.unwrap();
    assert_eq!(shop.item("A").await.reorder_point, 0);
}

#[tokio::test]
async fn stock_never_falls_below_what_is_there_or_reserved() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    let shortage = (Code::FailedPrecondition, "INSUFFICIENT_STOCK".to_owned(), Vec::<String>::new());
    assert_eq!(refusal(shop.stock().adjust_stock(adjust(&new_id(), "A", -6)).await), shortage);
    assert_eq!(refusal(shop.stock().adjust_stock(adjust(&new_id(), "NEW", -1)).await), shortage);

    let order = new_id();
    shop.place(&order, &[("A", 3)]);
    shop.reserved(&order).await;
    assert_eq!(refusal(shop.stock().adjust_stock(adjust(&new_id(), "A", -3)).await), shortage);
    assert_eq!(counts(&shop.item("A").await), (5, 3, 2));
    shop.stock().adjust_stock(adjust(&new_id(), "A", -2)).await.unwrap();
    assert_eq!(counts(&shop.item("A").await), (3, 3, 0));

    let too_large = (Code::FailedPrecondition, "STOCK_TOO_LARGE".to_owned(), Vec::new());
    assert_eq!(refusal(shop.stock().receive_stock(receive(&new_id(), "A", i64::MAX)).await), too_large);
}

#[tokio::test]
async fn of_many_who_take_at_once_exactly_as_many_succeed_as_there_is() {
    let shop = Shop::open().await;
    shop.stocked("A", 20, 100).await;
    let takers: Vec<_> = (0..50)
        .map(|_| {
            let mut stock = shop.stock();
            tokio::spawn(async move { stock.adjust_stock(adjust(&new_id(), "A", -1)).await })
        })
        .collect();
    let mut taken = 0;
    for taker in takers {
        match taker.await.unwrap() {
            Ok(_) => taken += 1,
            Err(status) => assert_eq!(errors::reason(&status).as_deref(), Some("INSUFFICIENT_STOCK")),
        }
    }
    assert_eq!((taken, counts(&shop.item("A").await)), (20, (0, 0, 0)));
}

#[tokio::test]
async fn repeated_request_gets_first_answer_and_has_no_second_effect() {
    let shop = Shop::open().await;
    let (uuid, text) = (new_id(), "delivery 4711, first attempt");
    for request_id in [uuid.as_str(), text] {
        let first = shop.stock().receive_stock(receive(request_id, "A", 3)).await.unwrap().into_inner();
        shop.stock().receive_stock(receive(&new_id(), "A", 100)).await.unwrap();
        let again = shop.stock().receive_stock(receive(request_id, "A", 3)).await.unwrap().into_inner();
        assert_eq!(again, first);
    }
    assert_eq!(counts(&shop.item("A").await), (206, 0, 206));

    // Twice at the same time.
    let (mut one, mut other, id) = (shop.stock(), shop.stock(), new_id());
    let (one, other) = tokio::join!(one.receive_stock(receive(&id, "B", 1)), other.receive_stock(receive(&id, "B", 1)));
    assert_eq!(one.unwrap().into_inner(), other.unwrap().into_inner());
    assert_eq!(counts(&shop.item("B").await), (1, 0, 1));
}

#[tokio::test]
async fn rejection_is_repeated_even_if_the_request_would_now_succeed() {
    let shop = Shop::open().await;
    let id = new_id();
    let first = shop.stock().adjust_stock(adjust(&id, "A", -1)).await.unwrap_err();
    shop.stock().receive_stock(receive(&new_id(), "A", 10)).await.unwrap();
    let again = shop.stock().adjust_stock(adjust(&id, "A", -1)).await.unwrap_err();
    assert_eq!((first.code(), first.message()), (again.code(), again.message()));
    assert_eq!(errors::reason(&again).as_deref(), Some("INSUFFICIENT_STOCK"));
    assert_eq!(counts(&shop.item("A").await), (10, 0, 10));
}

#[tokio::test]
async fn request_id_used_with_another_command_is_a_conflict() {
    let shop = Shop::open().await;
    let id = new_id();
    let conflict = (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned(), vec!["request_id".to_owned()]);
    shop.stock().receive_stock(receive(&id, "A", 3)).await.unwrap();
    assert_eq!(refusal(shop.stock().receive_stock(receive(&id, "A", 4)).await), conflict);
    assert_eq!(refusal(shop.stock().adjust_stock(adjust(&id, "A", 3)).await), conflict);
    assert_eq!(counts(&shop.item("A").await), (3, 0, 3));
}

#[tokio::test]
async fn malformed_input_is_an_invalid_argument_that_names_the_field() {
    let shop = Shop::open().await;
    let mut stock = shop.stock();
    let reasoned = |reason: &str| AdjustStockRequest {
        request_id: new_id(),
        command: Some(AdjustStock { sku: "A".to_owned(), delta: 1, reason: reason.to_owned() }),
    };
    let priceless =
        SetPriceRequest { request_id: new_id(), command: Some(SetPrice { sku: "A".to_owned(), price: None }) };
    let missing = (Code::InvalidArgument, "REQUEST_ID_MISSING".to_owned(), vec!["request_id".to_owned()]);
    assert_eq!(refusal(stock.receive_stock(receive("", "A", 1)).await), missing);
    let rows = [
        (refusal(stock.receive_stock(receive(&"x".repeat(129), "A", 1)).await), "request_id"),
        (refusal(stock.receive_stock(ReceiveStockRequest { request_id: new_id(), command: None }).await), "command"),
        (refusal(stock.receive_stock(receive(&new_id(), "", 1)).await), "command.sku"),
        (refusal(stock.receive_stock(receive(&new_id(), "no sku", 1)).await), "command.sku"),
        (refusal(stock.receive_stock(receive(&new_id(), "A", 0)).await), "command.quantity"),
        (refusal(stock.receive_stock(receive(&new_id(), "A", -1)).await), "command.quantity"),
        (refusal(stock.adjust_stock(adjust(&new_id(), "A", 0)).await), "command.delta"),
        (refusal(stock.adjust_stock(reasoned("")).await), "command.reason"),
        (refusal(stock.adjust_stock(reasoned(&"x".repeat(201))).await), "command.reason"),
        (refusal(stock.set_price(priceless).await), "command.price"),
        (refusal(stock.set_price(price(&new_id(), "A", 1, "EURO")).await), "command.price.currency"),
        (refusal(stock.set_price(price(&new_id(), "A", -1, "EUR")).await), "command.price.minor"),
        (refusal(stock.set_reorder_point(reorder(&new_id(), "no sku", 1)).await), "command.sku"),
        (refusal(stock.set_reorder_point(reorder(&new_id(), "A", -1)).await), "command.reorder_point"),
        (refusal(stock.get_stock(GetStockRequest { sku: "no sku".to_owned(), ..Default::default() }).await), "sku"),
        (
            refusal(stock.get_stock(GetStockRequest { sku: "A".to_owned(), consistency: 9, min_version: 0 }).await),
            "consistency",
        ),
    ];
    for (refused, field) in rows {
        assert_eq!(refused, invalid(field));
    }
    let nothing = refusal(stock.get_stock(GetStockRequest { sku: "A".to_owned(), ..Default::default() }).await);
    assert_eq!(nothing, (Code::NotFound, "SKU_NOT_FOUND".to_owned(), vec![]), "nothing of this had an effect");
}

#[tokio::test]
async fn a_version_is_waited_for_until_it_comes_or_the_deadline_does() {
    let shop = Shop::open().await;
    shop.stocked("A", 1, 1).await;
    let ask = |min_version| GetStockRequest { sku: "A".to_owned(), consistency: 0, min_version };
    let mut stock = shop.stock();
    let coming = tokio::spawn(async move { stock.get_stock(ask(3)).await });
    shop.stock().receive_stock(receive(&new_id(), "A", 8)).await.unwrap();
    let item = coming.await.unwrap().unwrap().into_inner().item.unwrap();
    assert_eq!((item.version, counts(&item)), (3, (9, 0, 9)));

    let (code, reason, _) = refusal(StockServiceClient::new(shop.impatient()).get_stock(ask(99)).await);
    assert_eq!((code, reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn ownerless_commands_and_strong_reads_get_a_retry_delay() {
    let shop = Shop::open().await;
    shop.stocked("A", 1, 1).await;
    shop.node.stop().await;
    let strong = GetStockRequest { sku: "A".to_owned(), ..GetStockRequest::default() };
    let local = GetStockRequest { consistency: Consistency::Local.into(), ..strong.clone() };
    for refused in [
        shop.stock().receive_stock(receive(&new_id(), "A", 1)).await.map(|_| ()).unwrap_err(),
        shop.stock().get_stock(strong).await.map(|_| ()).unwrap_err(),
    ] {
        assert_eq!((refused.code(), errors::reason(&refused).as_deref()), (Code::Unavailable, Some("OWNER_MOVING")));
        assert!(errors::retry_after(&refused).is_some());
    }
    let answer = shop.stock().get_stock(local).await.unwrap().into_inner();
    assert_eq!(answer.read.unwrap().consistency(), Consistency::Local);
}
