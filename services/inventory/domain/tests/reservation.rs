//! The rules of a reservation's life, one test each.

mod world;

use std::time::Duration;

use holdfast_core::TimerChange;
use holdfast_inventory_domain::{
    Reservation,
    reservation::{Command, EXPIRY_TIMER, Event, HOLD_DEFAULT, Rejection, ReleaseCause, Status},
};
use world::{NOW, Outcome, Pools, handle, line, pools};

fn placed<const N: usize>(lines: [(&str, i64); N]) -> Command {
    Command::OrderPlaced { lines: lines.map(|(name, quantity)| line(name, quantity)).into(), hold_for: HOLD_DEFAULT }
}

fn apply(reservation: &mut Reservation, pools: &mut Pools, command: &Command) -> Outcome<Event> {
    handle(reservation, pools, "order", command).expect("not rejected")
}

/// The reservation and the pools after these commands.
fn given<const N: usize>(mut pools: Pools, commands: [Command; N]) -> (Reservation, Pools) {
    let mut reservation = Reservation::default();
    for command in &commands {
        apply(&mut reservation, &mut pools, command);
    }
    (reservation, pools)
}

fn status(reservation: &Reservation) -> Option<Status> {
    reservation.details().map(|details| details.status)
}

const NOTHING: Outcome<Event> = Outcome { events: vec![], timers: vec![] };

#[test]
fn a_placed_order_gets_all_its_lines_and_a_timer() {
    let mut stock = pools([("a", 5, 1), ("b", 2, 0)]);
    let mut reservation = Reservation::default();
    let outcome = apply(&mut reservation, &mut stock, &placed([("b", 2), ("a", 3)]));
    let lines = [line("a", 3), line("b", 2)].into();
    let expires_at = NOW.plus(Duration::from_mins(15));
    assert_eq!(outcome.events, [Event::StockReserved { at: NOW, lines, expires_at }]);
    assert_eq!(outcome.timers, [TimerChange::Set { name: EXPIRY_TIMER, after: HOLD_DEFAULT }]);
    assert_eq!(stock, pools([("a", 5, 4), ("b", 2, 2)]));
}

#[test]
fn all_lines_or_none() {
    for short in [[("a", 3), ("b", 3)], [("b", 3), ("a", 3)], [("a", 1), ("unheard-of", 1)]] {
        let before = pools([("a", 5, 0), ("b", 2, 0)]);
        let mut stock = before.clone();
        let mut reservation = Reservation::default();
        let outcome = apply(&mut reservation, &mut stock, &placed(short));
        let mut wanted = short.map(|(name, quantity)| line(name, quantity));
        wanted.sort_by(|left, right| left.sku.cmp(&right.sku));
        assert_eq!(outcome.events, [Event::ReservationRefused { at: NOW, wanted: wanted.into() }]);
        assert_eq!(outcome.timers, []);
        assert_eq!(stock, before);
    }
}

#[test]
fn the_same_sku_twice_adds_up() {
    let (_, stock) = given(pools([("a", 5, 0)]), [placed([("a", 3), ("a", 2)])]);
    assert_eq!(stock, pools([("a", 5, 5)]));
    let (refused, stock) = given(pools([("a", 5, 0)]), [placed([("a", 3), ("a", 3)])]);
    assert_eq!((status(&refused), stock), (Some(Status::Refused), pools([("a", 5, 0)])));
}

#[test]
fn what_no_stock_could_satisfy_is_refused_without_harm() {
    for lines in [[("a", i64::MAX), ("a", 1)], [("a", 1), ("a", 0)], [("a", 5), ("b", -1)]] {
        let (reservation, stock) = given(pools([("a", i64::MAX, 0), ("b", 5, 3)]), [placed(lines)]);
        assert_eq!(status(&reservation), Some(Status::Refused));
        assert_eq!(stock, pools([("a", i64::MAX, 0), ("b", 5, 3)]));
    }
}

#[test]
fn a_cancelled_order_gives_its_stock_back_and_stops_the_timer() {
    let (mut reservation, mut stock) = given(pools([("a", 5, 1)]), [placed([("a", 3)])]);
    let outcome = apply(&mut reservation, &mut stock, &Command::OrderCancelled);
    let lines = [line("a", 3)].into();
    assert_eq!(outcome.events, [Event::ReservationReleased { at: NOW, lines, cause: ReleaseCause::OrderCancelled }]);
    assert_eq!(outcome.timers, [TimerChange::Cancel { name: EXPIRY_TIMER }]);
    assert_eq!(stock, pools([("a", 5, 1)]));
}

#[test]
fn a_cancellation_that_comes_first_forestalls_the_reservation() {
    let (mut reservation, mut stock) = given(pools([("a", 5, 0)]), [Command::OrderCancelled]);
    assert_eq!(status(&reservation), Some(Status::Released(ReleaseCause::OrderCancelled)));
    assert_eq!(apply(&mut reservation, &mut stock, &placed([("a", 3)])), NOTHING);
    assert_eq!(stock, pools([("a", 5, 0)]));
}

#[test]
fn a_hold_that_elapsed_gives_its_stock_back() {
    let (mut reservation, mut stock) = given(pools([("a", 5, 0)]), [placed([("a", 3)])]);
    let outcome = apply(&mut reservation, &mut stock, &Command::HoldElapsed);
    assert_eq!(outcome.events, [Event::ReservationExpired { at: NOW, lines: [line("a", 3)].into() }]);
    assert_eq!((status(&reservation), stock), (Some(Status::Expired), pools([("a", 5, 0)])));
}

#[test]
fn whatever_comes_after_the_end_or_twice_changes_nothing() {
    let elapsed = || Command::HoldElapsed;
    let ends = [
        given(pools([("a", 5, 0)]), [placed([("a", 9)])]),
        given(pools([("a", 5, 0)]), [placed([("a", 3)]), Command::OrderCancelled]),
        given(pools([("a", 5, 0)]), [placed([("a", 3)]), elapsed()]),
        given(pools([("a", 5, 0)]), [Command::OrderCancelled]),
    ];
    for (mut reservation, mut stock) in ends {
        let before = (reservation.clone(), stock.clone());
        for command in [placed([("a", 1)]), Command::OrderCancelled, elapsed()] {
            assert_eq!(apply(&mut reservation, &mut stock, &command), NOTHING, "{command:?} in {before:?}");
        }
        assert_eq!((reservation, stock), before);
    }
    let (mut held, mut stock) = given(pools([("a", 5, 0)]), [placed([("a", 3)])]);
    assert_eq!(apply(&mut held, &mut stock, &placed([("a", 3)])), NOTHING);
    assert_eq!(apply(&mut Reservation::default(), &mut stock, &elapsed()), NOTHING);
    assert_eq!(stock, pools([("a", 5, 3)]));
}

#[test]
fn paid_stock_is_held_without_end_and_may_still_be_cancelled() {
    let (mut reservation, mut stock) = given(pools([("a", 5, 0)]), [placed([("a", 3)])]);
    let outcome = apply(&mut reservation, &mut stock, &Command::OrderPaid);
    assert_eq!(outcome.events, [Event::ReservationConfirmed { at: NOW, lines: [line("a", 3)].into() }]);
    assert_eq!(outcome.timers, [TimerChange::Cancel { name: EXPIRY_TIMER }]);
    assert_eq!(stock, pools([("a", 5, 3)]));
    for again in [Command::OrderPaid, Command::HoldElapsed, placed([("a", 1)])] {
        assert_eq!(apply(&mut reservation, &mut stock, &again), NOTHING, "a timer that had fired already: {again:?}");
    }
    apply(&mut reservation, &mut stock, &Command::OrderCancelled);
    let released = Some(Status::Released(ReleaseCause::OrderCancelled));
    assert_eq!((status(&reservation), stock), (released, pools([("a", 5, 0)])));
}

#[test]
fn what_is_shipped_leaves_what_is_on_hand_once() {
    let (mut reservation, mut stock) = given(pools([("a", 5, 1)]), [placed([("a", 3)]), Command::OrderPaid]);
    let outcome = apply(&mut reservation, &mut stock, &Command::OrderShipped);
    assert_eq!(outcome.events, [Event::ReservationShipped { at: NOW, lines: [line("a", 3)].into() }]);
    for late in [Command::OrderShipped, Command::OrderCancelled, Command::OrderPaid, Command::HoldElapsed] {
        assert_eq!(apply(&mut reservation, &mut stock, &late), NOTHING, "{late:?}");
    }
    assert_eq!((status(&reservation), stock), (Some(Status::Shipped), pools([("a", 2, 1)])));
}

#[test]
fn a_payment_that_comes_after_the_hold_elapsed_confirms_nothing() {
    let (mut reservation, mut stock) = given(pools([("a", 5, 0)]), [placed([("a", 3)]), Command::HoldElapsed]);
    for late in [Command::OrderPaid, Command::OrderShipped] {
        assert_eq!(apply(&mut reservation, &mut stock, &late), NOTHING, "{late:?}");
    }
    assert_eq!((status(&reservation), stock), (Some(Status::Expired), pools([("a", 5, 0)])));
}

#[test]
fn reservation_whose_stock_is_gone_rejects_and_changes_no_pool() {
    let (mut reservation, _) = given(pools([("a", 5, 0)]), [placed([("a", 3)])]);
    let mut broken = pools([("a", 5, 2)]);
    for command in [Command::OrderCancelled, Command::HoldElapsed, Command::OrderShipped] {
        assert_eq!(handle(&mut reservation, &mut broken, "order", &command), Err(Rejection::StockNotHeld));
    }
    assert_eq!((status(&reservation), broken), (Some(Status::Held), pools([("a", 5, 2)])));
    assert_eq!(Rejection::StockNotHeld.code(), "STOCK_NOT_HELD");
}

#[test]
fn a_flash_sale_sells_exactly_what_there_is() {
    let mut stock = pools([("hot", 1_000, 0)]);
    let sold = (0..10_000).filter(|_| {
        let mut reservation = Reservation::default();
        apply(&mut reservation, &mut stock, &placed([("hot", 1)]));
        status(&reservation) == Some(Status::Held)
    });
    assert_eq!(sold.count(), 1_000);
    assert_eq!(stock, pools([("hot", 1_000, 1_000)]));
}

#[test]
fn a_stored_reservation_comes_back_the_same() {
    let (reservation, _) = given(pools([("a", 5, 0)]), [placed([("a", 3)])]);
    assert_eq!(reservation.details().cloned().map(Reservation::rehydrate), Some(reservation));
}
