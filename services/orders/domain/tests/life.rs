//! The rules of an order's life, one test each.

mod given;

use given::{
    CUSTOMER, GOOD, NOW, add, cancel, create, create_for, eur, given, is_unprepared, place, place_with, remove,
    reserved, sku, status, when,
};
use holdfast_core::Timestamp;
use holdfast_money::{Currency, Money};
use holdfast_orders_domain::{
    Account, Cancellation, CancellationCause, Command, Event, LINES_MAX, Line, Lines, Order, Quote, Rejection,
    Standing, Status, TOKEN_BYTES_MAX,
};
use uuid::Uuid;

fn wrong_state(command: &'static str, status: &'static str) -> Rejection {
    Rejection::WrongState { command, status }
}

#[test]
fn an_order_is_created_once() {
    let created = Event::OrderCreated { at: NOW, customer: CUSTOMER, currency: Currency::EUR };
    assert_eq!(when(&Order::default(), create()), Ok(vec![created]));
    assert_eq!(when(&given(&[create()]), create()), Err(Rejection::OrderAlreadyExists));
    assert_eq!(when(&given(&[create(), cancel()]), create()), Err(Rejection::OrderAlreadyExists));
}

#[test]
fn without_an_order_every_customers_command_says_so() {
    for command in [add("a", 1, eur(1)), remove("a"), place(), cancel()] {
        assert_eq!(when(&Order::default(), command), Err(Rejection::OrderNotFound));
    }
}

#[test]
fn an_item_is_added_at_the_quoted_price() {
    let line = Line::new(sku("a"), 3, eur(250)).expect("fits");
    assert_eq!(line.subtotal, eur(750));
    let added = Event::ItemAdded { at: NOW, quantity: 3, line, total: eur(850) };
    assert_eq!(when(&given(&[create(), add("b", 1, eur(100))]), add("a", 3, eur(250))), Ok(vec![added]));
}

#[test]
fn adding_a_sku_again_grows_its_line_and_reprices_all_of_it() {
    let order = given(&[create(), add("a", 2, eur(100)), add("b", 1, eur(5)), add("a", 1, eur(90))]);
    let lines = &order.details().expect("exists").lines;
    let expected = [Line::new(sku("a"), 3, eur(90)), Line::new(sku("b"), 1, eur(5))].map(|line| line.expect("fits"));
    assert_eq!(lines.as_slice(), expected);
    assert_eq!(lines.total(), eur(275));
}

#[test]
fn what_inventory_does_not_sell_is_an_unknown_sku() {
    let command = Command::AddItem { sku: sku("a"), quantity: 1, quote: Quote::UnknownSku };
    assert_eq!(when(&given(&[create()]), command), Err(Rejection::UnknownSku { sku: sku("a") }));
}

#[test]
fn without_a_look_up_nothing_is_added() {
    let command = Command::AddItem { sku: sku("a"), quantity: 1, quote: Quote::NotAsked };
    assert_eq!(when(&given(&[create()]), command), Err(Rejection::PriceNotAsked { sku: sku("a") }));
}

#[test]
fn a_price_in_another_currency_is_refused() {
    let mismatch = Rejection::CurrencyMismatch { sku: sku("a"), price: Currency::JPY, order: Currency::EUR };
    assert_eq!(when(&given(&[create()]), add("a", 1, Money::new(100, Currency::JPY))), Err(mismatch));
}

#[test]
fn a_quantity_is_at_least_one() {
    for quantity in [0, -1, i64::MIN] {
        assert_eq!(when(&given(&[create()]), add("a", quantity, eur(1))), Err(Rejection::QuantityNotPositive));
    }
}

#[test]
fn an_order_has_at_most_a_hundred_lines_but_those_may_grow() {
    let mut commands = vec![create()];
    commands.extend((0..LINES_MAX).map(|i| add(&format!("sku-{i}"), 1, eur(1))));
    let full = given(&commands);
    assert_eq!(when(&full, add("one-more", 1, eur(1))), Err(Rejection::TooManyLines));
    assert!(when(&full, add("sku-7", 1, eur(1))).is_ok());
    commands.push(remove("sku-7"));
    assert!(when(&given(&commands), add("one-more", 1, eur(1))).is_ok());
}

#[test]
fn what_does_not_fit_is_refused_and_never_wraps() {
    let order = given(&[create(), add("a", 1, eur(i64::MAX))]);
    assert_eq!(when(&order, add("b", 1, eur(1))), Err(Rejection::TotalTooLarge), "total");
    assert_eq!(when(&order, add("a", 1, eur(i64::MAX))), Err(Rejection::TotalTooLarge), "subtotal");
    let many = given(&[create(), add("a", i64::MAX, eur(0))]);
    assert_eq!(when(&many, add("a", 1, eur(0))), Err(Rejection::TotalTooLarge), "quantity");
    assert!(when(&order, add("a", 1, eur(1))).is_ok(), "the old subtotal makes room for the new one");
}

#[test]
fn a_line_is_removed_whole() {
    let order = given(&[create(), add("a", 2, eur(100)), add("b", 1, eur(5))]);
    assert_eq!(when(&order, remove("a")), Ok(vec![Event::ItemRemoved { at: NOW, sku: sku("a"), total: eur(5) }]));
    assert_eq!(when(&order, remove("c")), Err(Rejection::ItemNotInOrder { sku: sku("c") }));
}

#[test]
fn placing_carries_what_inventory_and_payments_need() {
    let line = Line::new(sku("a"), 2, eur(100)).expect("fits");
    let placed = Event::OrderPlaced {
        at: NOW,
        customer: CUSTOMER,
        lines: [line].into(),
        total: eur(200),
        payment_method: Some("pm_1".into()),
        address_id: Some("home".into()),
    };
    assert_eq!(when(&given(&[create(), add("a", 2, eur(100))]), place()), Ok(vec![placed]));
}

#[test]
fn order_is_not_created_for_a_customer_who_may_not_order() {
    let account = |account| when(&Order::default(), create_for(Some(account)));
    assert_eq!(account(Account::Unknown), Err(Rejection::UnknownCustomer));
    assert_eq!(account(Account::NotActive), Err(Rejection::CustomerNotActive));
    let again = when(&given(&[create()]), create_for(Some(Account::Unknown)));
    assert_eq!(again, Err(Rejection::OrderAlreadyExists), "for an unknown customer, too");
}

#[test]
fn order_is_not_placed_for_what_cannot_be_sent_or_charged() {
    let order = given(&[create(), add("a", 1, eur(1))]);
    let place = |standing| when(&order, place_with("pm_1", Some(standing)));
    assert_eq!(place(Standing { account: Account::Unknown, ..GOOD }), Err(Rejection::UnknownCustomer));
    assert_eq!(place(Standing { account: Account::NotActive, ..GOOD }), Err(Rejection::CustomerNotActive));
    assert_eq!(place(Standing { has_address: false, ..GOOD }), Err(Rejection::UnknownAddress));
    assert!(place(GOOD).is_ok());
}

#[test]
fn payment_method_is_a_token_of_visible_ascii() {
    let order = given(&[create(), add("a", 1, eur(1))]);
    let place = |token: &str| when(&order, place_with(token, Some(GOOD)));
    let longest = "x".repeat(TOKEN_BYTES_MAX);
    for token in ["pm_card_visa", "pm_1KkzP2eZvKYlo2C", "x", longest.as_str()] {
        assert!(place(token).is_ok(), "{token}");
    }
    let too_long = "x".repeat(TOKEN_BYTES_MAX + 1);
    for token in ["", " ", "pm card", "pm_1\n", "pm_\u{0}", "pm_\u{7f}", "pm_ü", "４２４２", too_long.as_str()] {
        assert_eq!(place(token), Err(Rejection::InvalidPaymentMethod), "{token:?}");
    }
}

#[test]
fn answer_about_another_customer_decides_nothing() {
    let order = given(&[create(), add("a", 1, eur(1))]);
    let other = Standing { customer: Uuid::from_u128(8), ..GOOD };
    for standing in [None, Some(other), Some(Standing { has_address: false, ..other })] {
        assert!(is_unprepared(&order, &place_with("pm_1", standing)), "{standing:?}");
    }
    assert!(is_unprepared(&Order::default(), &create_for(None)));
    // What needs no answer is answered without one.
    assert_eq!(when(&Order::default(), place_with("pm_1", None)), Err(Rejection::OrderNotFound));
    assert_eq!(when(&given(&[create()]), place_with("pm_1", None)), Err(Rejection::EmptyOrder));
    assert_eq!(when(&order, place_with("", None)), Err(Rejection::InvalidPaymentMethod));
    let placed = given(&[create(), add("a", 1, eur(1)), place()]);
    assert_eq!(when(&placed, place_with("", None)), Err(wrong_state("PlaceOrder", "PLACED")));
}

#[test]
fn an_empty_order_is_not_placed() {
    assert_eq!(when(&given(&[create()]), place()), Err(Rejection::EmptyOrder));
    assert_eq!(when(&given(&[create(), add("a", 1, eur(1)), remove("a")]), place()), Err(Rejection::EmptyOrder));
}

#[test]
fn only_a_draft_changes_or_is_placed() {
    let placed = given(&[create(), add("a", 1, eur(1)), place()]);
    let cancelled = given(&[create(), add("a", 1, eur(1)), cancel()]);
    for (order, status) in [(placed, "PLACED"), (cancelled, "CANCELLED")] {
        assert_eq!(when(&order, add("a", 1, eur(1))), Err(wrong_state("AddItem", status)));
        assert_eq!(when(&order, remove("a")), Err(wrong_state("RemoveItem", status)));
        assert_eq!(when(&order, place()), Err(wrong_state("PlaceOrder", status)));
    }
}

#[test]
fn an_order_is_cancelled_once_as_draft_or_placed() {
    let cancellation = Cancellation { cause: CancellationCause::Requested, reason: "changed my mind".into() };
    let event = Event::OrderCancelled { at: NOW, cancellation };
    for commands in [
        vec![create()],
        vec![create(), add("a", 1, eur(1)), place()],
        vec![create(), add("a", 1, eur(1)), place(), reserved()],
    ] {
        assert_eq!(when(&given(&commands), cancel()), Ok(vec![event.clone()]));
    }
    assert_eq!(when(&given(&[create(), cancel()]), cancel()), Err(wrong_state("CancelOrder", "CANCELLED")));
}

#[test]
fn a_reservation_is_recorded_once_and_the_order_stays_placed() {
    let commands = [create(), add("a", 1, eur(1)), place()];
    let until = Timestamp::from_unix_ms(5);
    let news = Command::StockReserved { until };
    let (customer, total, payment_method) = (CUSTOMER, eur(1), Some("pm_1".into()));
    let reserved = Event::OrderReserved { at: NOW, until, customer, total, payment_method };
    assert_eq!(when(&given(&commands), news.clone()), Ok(vec![reserved]));
    let order = given(&[&commands[..], std::slice::from_ref(&news)].concat());
    assert_eq!(order.details().map(|d| d.status.clone()), Some(Status::Placed { reserved_until: Some(until) }));
    assert_eq!(when(&order, news), Ok(vec![]), "twice");
}

#[test]
fn out_of_stock_and_expiry_cancel_a_placed_order() {
    for (news, cause, words) in [
        (Command::ReservationRefused, CancellationCause::OutOfStock, "out of stock"),
        (Command::ReservationExpired, CancellationCause::ReservationExpired, "reservation expired"),
    ] {
        for before in [vec![], vec![reserved()]] {
            let order = given(&[&[create(), add("a", 1, eur(1)), place()], &before[..]].concat());
            let cancellation = Cancellation { cause, reason: words.into() };
            assert_eq!(when(&order, news.clone()), Ok(vec![Event::OrderCancelled { at: NOW, cancellation }]));
        }
    }
}

#[test]
fn news_crossing_a_cancellation_or_without_order_does_nothing() {
    let news = [reserved(), Command::ReservationRefused, Command::ReservationExpired];
    let cancelled = [create(), add("a", 1, eur(1)), place(), cancel()];
    for news in news {
        for commands in [&[][..], &cancelled[..1], &cancelled[..2], &cancelled[..]] {
            assert_eq!(when(&given(commands), news.clone()), Ok(vec![]), "{news:?} after {commands:?}");
        }
    }
    assert_eq!(status(&cancelled), "CANCELLED");
}

#[test]
fn a_stored_order_comes_back_the_same() {
    let order = given(&[create(), add("a", 2, eur(100)), add("b", 1, eur(5)), place(), reserved()]);
    let details = order.details().expect("exists").clone();
    let stored = details.lines.as_slice().to_vec();
    let lines = Lines::rehydrate(Currency::EUR, stored).expect("fits");
    assert_eq!(Order::rehydrate(holdfast_orders_domain::Details { lines, ..details }), order);
}

#[test]
fn rejections_keep_their_published_names() {
    let names = [
        (Rejection::OrderNotFound, "ORDER_NOT_FOUND", "there is no such order"),
        (Rejection::OrderAlreadyExists, "ORDER_ALREADY_EXISTS", "the order exists already"),
        (wrong_state("AddItem", "PLACED"), "WRONG_STATE", "AddItem is not possible for an order that is PLACED"),
        (Rejection::EmptyOrder, "EMPTY_ORDER", "the order has no lines"),
        (Rejection::QuantityNotPositive, "QUANTITY_NOT_POSITIVE", "the quantity must be at least 1"),
        (Rejection::UnknownSku { sku: sku("a") }, "UNKNOWN_SKU", "inventory has no price for sku a"),
        (Rejection::ItemNotInOrder { sku: sku("a") }, "ITEM_NOT_IN_ORDER", "the order has no line of sku a"),
        (Rejection::UnknownCustomer, "UNKNOWN_CUSTOMER", "there is no such customer"),
        (Rejection::CustomerNotActive, "CUSTOMER_NOT_ACTIVE", "the customer's account is not active"),
        (Rejection::UnknownAddress, "UNKNOWN_ADDRESS", "the customer has no such address"),
        (
            Rejection::InvalidPaymentMethod,
            "INVALID_PAYMENT_METHOD",
            "the payment method is no token of a payment provider: 1-255 characters of visible ASCII",
        ),
        (Rejection::TooManyLines, "TOO_MANY_LINES", "an order has at most 100 lines"),
        (Rejection::TotalTooLarge, "TOTAL_TOO_LARGE", "the order's total would be too large"),
        (Rejection::PriceNotAsked { sku: sku("a") }, "PRICE_NOT_ASKED", "the price of sku a was not asked for"),
        (
            Rejection::CurrencyMismatch { sku: sku("a"), price: Currency::JPY, order: Currency::EUR },
            "CURRENCY_MISMATCH",
            "sku a is priced in JPY, the order is in EUR",
        ),
    ];
    for (rejection, code, text) in names {
        assert_eq!((rejection.code(), rejection.to_string().as_str()), (code, text));
    }
}
