//! The rules of a payment's life, one test each.

mod given;

use given::{
    NOW, REFERENCE, authorize, authorized, captured, declined, eur, given, handle, rate, rate_of, refund, refused,
    reported, reserved, returned, status, usd, when,
};
use holdfast_money::{Currency, Money};
use holdfast_payments_domain::{
    CAPTURE, CHARGE, Call, Cause, Command, EffectChange, Event, News, Outcome, Payment, Quote, REFUNDS_MAX, Rejection,
    Then, VOID,
};

const AMOUNT: i64 = 10_00;

fn asked() -> Command {
    reserved(usd(AMOUNT))
}

fn capture_succeeded() -> Command {
    Command::CaptureSucceeded { amount: usd(AMOUNT), rate: rate() }
}

fn captured_event() -> Event {
    Event::PaymentCaptured {
        at: NOW,
        reference: REFERENCE.into(),
        amount: usd(AMOUNT),
        rate: rate(),
        settled: eur(930),
    }
}

fn refund_event(number: u32, minor: i64, cause: Cause) -> Event {
    Event::RefundRequested { at: NOW, number, amount: usd(minor), cause, reference: REFERENCE.into() }
}

fn refunded_event(number: u32, minor: i64, total: i64, settled: i64) -> Event {
    let (amount, refunded_total, settled) = (usd(minor), usd(total), eur(settled));
    Event::PaymentRefunded { at: NOW, number, amount, refunded_total, settled, reference: Some("re_1".into()) }
}

fn noted(voids: Option<&str>) -> Event {
    Event::PaymentCancellationNoted { at: NOW, voids: voids.map(Into::into) }
}

#[test]
fn a_reserved_order_is_asked_to_be_paid_once() {
    let event = Event::PaymentRequested {
        at: NOW,
        amount: usd(AMOUNT),
        payment_method: Some("pm_1".into()),
        authorize_first: false,
    };
    let call = Call::Charge { amount: usd(AMOUNT), payment_method: "pm_1".into(), authorize_first: false };
    assert_eq!(event.effects(), [EffectChange::Begin { name: CHARGE.into(), call }]);
    assert_eq!(when(&Payment::default(), asked()), Ok(vec![event]));
    assert_eq!(when(&given(&[asked()]), asked()), Ok(vec![]));
}

#[test]
fn successful_charge_is_captured_at_the_rate_of_that_moment() {
    assert_eq!(when(&given(&[asked()]), captured()), Ok(vec![captured_event()]));
    let ended = [CHARGE, CAPTURE, VOID].map(|name| EffectChange::End { name: name.into() });
    assert_eq!(captured_event().effects(), ended);
}

#[test]
fn what_is_authorized_first_is_captured_by_a_call_of_its_own() {
    let payment = given(&[authorize(usd(AMOUNT))]);
    let event = |then| Event::PaymentAuthorized { at: NOW, reference: REFERENCE.into(), amount: usd(AMOUNT), then };
    assert_eq!(when(&payment, authorized()), Ok(vec![event(Then::Capture)]));
    let capture = EffectChange::Begin { name: CAPTURE.into(), call: Call::Capture { reference: REFERENCE.into() } };
    assert_eq!(event(Then::Capture).effects(), [EffectChange::End { name: CHARGE.into() }, capture]);
    let payment = given(&[authorize(usd(AMOUNT)), authorized()]);
    assert_eq!(status(&payment), "AUTHORIZED");
    assert_eq!(when(&payment, capture_succeeded()), Ok(vec![captured_event()]));
    let lapsed = Event::PaymentDeclined { at: NOW, code: "CALLED_OFF".into() };
    assert_eq!(when(&payment, Command::AuthorizationEnded), Ok(vec![lapsed]));
}

#[test]
fn a_declined_payment_stays_declined_with_its_code() {
    let event = Event::PaymentDeclined { at: NOW, code: "card_declined".into() };
    assert_eq!(when(&given(&[asked()]), declined()), Ok(vec![event]));
    let payment = given(&[asked(), declined()]);
    for command in [asked(), declined(), Command::OrderCancelled, authorized(), Command::AuthorizationEnded] {
        assert_eq!(when(&payment, command), Ok(vec![]));
    }
}

#[test]
fn unchargeable_payment_is_declined_by_name_without_a_call() {
    let of = |amount, payment_method, quote| Command::OrderReserved {
        amount,
        payment_method,
        authorize_first: false,
        quote,
    };
    let method = || Some("pm_1".into());
    let dear = rate_of(Currency::USD, 2, 1);
    for (command, code) in [
        (of(usd(1), None, Quote::Rate(rate())), "NO_PAYMENT_METHOD"),
        (of(usd(1), method(), Quote::NoRate), "NO_RATE"),
        (of(usd(i64::MAX), method(), Quote::Rate(dear)), "AMOUNT_TOO_LARGE"),
    ] {
        let mut payment = Payment::default();
        let events = handle(&mut payment, &command).expect("accepted");
        assert!(
            matches!(&events[..], [Event::PaymentRequested { .. }, Event::PaymentDeclined { code: c, .. }] if **c == *code)
        );
        assert!(under_way(&events).is_empty(), "{code}");
    }
    assert_eq!(when(&Payment::default(), of(usd(1), method(), Quote::NotAsked)), Err(Rejection::RateNotAsked));
    let most = reserved(Money::new(i64::MAX, Currency::EUR));
    assert!(when(&Payment::default(), most).is_ok_and(|events| events.len() == 1), "the largest amount that fits");
}

/// Names of the calls that these events leave under way.
fn under_way(events: &[Event]) -> Vec<String> {
    let mut names = Vec::new();
    for change in events.iter().flat_map(Event::effects) {
        match change {
            EffectChange::Begin { name, .. } => names.push(name.into_owned()),
            EffectChange::End { name } => names.retain(|known| *known != name),
        }
    }
    names
}

#[test]
fn what_costs_nothing_is_paid_for_and_nobody_is_asked() {
    let events = when(&Payment::default(), reserved(usd(0))).expect("accepted");
    assert!(matches!(&events[..], [_, Event::PaymentCaptured { settled, .. }] if settled.is_zero()));
    assert!(under_way(&events).is_empty());
    let payment = given(&[reserved(usd(0))]);
    assert_eq!(when(&payment, Command::OrderCancelled), Ok(vec![noted(None)]), "and nothing goes back");
}

#[test]
fn a_cancellation_gives_everything_captured_back() {
    let payment = given(&[asked(), captured()]);
    let expected = vec![noted(None), refund_event(1, AMOUNT, Cause::OrderCancelled)];
    assert_eq!(when(&payment, Command::OrderCancelled), Ok(expected));
    let payment = given(&[asked(), captured(), Command::OrderCancelled]);
    assert_eq!(when(&payment, Command::OrderCancelled), Ok(vec![]), "once");
    assert_eq!(when(&payment, returned(1)), Ok(vec![refunded_event(1, AMOUNT, AMOUNT, 930)]));
    assert_eq!(status(&given(&[asked(), captured(), Command::OrderCancelled, returned(1)])), "REFUNDED");
}

#[test]
fn a_cancellation_waits_for_an_outcome_that_is_not_known() {
    let waiting = [asked(), Command::OrderCancelled];
    assert_eq!(when(&given(&waiting[..1]), Command::OrderCancelled), Ok(vec![noted(None)]));
    let back = vec![captured_event(), refund_event(1, AMOUNT, Cause::OrderCancelled)];
    assert_eq!(when(&given(&waiting), captured()), Ok(back));
    assert!(when(&given(&waiting), declined()).is_ok_and(|events| events.len() == 1), "nothing moved: done");
}

#[test]
fn authorization_of_cancelled_order_is_voided_never_captured() {
    let before = given(&[authorize(usd(AMOUNT)), Command::OrderCancelled]);
    let events = when(&before, authorized()).expect("accepted");
    assert!(matches!(&events[..], [Event::PaymentAuthorized { then: Then::Void, .. }]));
    assert_eq!(under_way(&events), [VOID]);
    let after = given(&[authorize(usd(AMOUNT)), authorized()]);
    let events = when(&after, Command::OrderCancelled).expect("accepted");
    assert_eq!(events, [noted(Some(REFERENCE))]);
    assert_eq!(under_way(&events), [VOID], "the capture ends");
    for payment in [
        [authorize(usd(AMOUNT)), Command::OrderCancelled, authorized()],
        [authorize(usd(AMOUNT)), authorized(), Command::OrderCancelled],
    ] {
        let payment = given(&payment);
        assert_eq!(when(&payment, Command::AuthorizationEnded), Ok(vec![Event::PaymentVoided { at: NOW }]));
        // The capture was on its way already and won.
        let back = vec![captured_event(), refund_event(1, AMOUNT, Cause::OrderCancelled)];
        assert_eq!(when(&payment, capture_succeeded()), Ok(back));
    }
}

#[test]
fn a_cancellation_that_comes_first_forestalls_the_payment() {
    assert_eq!(when(&Payment::default(), Command::OrderCancelled), Ok(vec![Event::PaymentVoided { at: NOW }]));
    let payment = given(&[Command::OrderCancelled]);
    for command in [asked(), Command::OrderCancelled, captured(), reported(News::Canceled)] {
        assert_eq!(when(&payment, command), Ok(vec![]));
    }
    assert_eq!(when(&payment, refund("r", usd(1))), Err(Rejection::WrongState { status: "VOIDED" }));
}

#[test]
fn money_that_moves_after_the_end_goes_back() {
    let back = vec![captured_event(), refund_event(1, AMOUNT, Cause::LateCapture)];
    assert_eq!(when(&given(&[asked(), declined()]), captured()), Ok(back.clone()));
    let voided = [authorize(usd(AMOUNT)), authorized(), Command::OrderCancelled, Command::AuthorizationEnded];
    assert_eq!(when(&given(&voided), capture_succeeded()), Ok(back));
}

#[test]
fn a_refund_is_never_more_than_what_is_left() {
    let payment = given(&[asked(), captured()]);
    assert_eq!(when(&payment, refund("r", usd(AMOUNT + 1))), Err(Rejection::RefundExceedsCaptured));
    assert_eq!(when(&payment, refund("r", usd(i64::MAX))), Err(Rejection::RefundExceedsCaptured));
    for minor in [0, -1, i64::MIN] {
        assert_eq!(when(&payment, refund("r", usd(minor))), Err(Rejection::AmountNotPositive));
    }
    let mismatch = Rejection::CurrencyMismatch { payment: Currency::USD, other: Currency::EUR };
    assert_eq!(when(&payment, refund("r", eur(1))), Err(mismatch));
    // On its way, given back, refused: only what was refused is free again.
    let pending = given(&[asked(), captured(), refund("a", usd(400))]);
    assert_eq!(when(&pending, refund("b", usd(601))), Err(Rejection::RefundExceedsCaptured));
    assert!(when(&pending, refund("b", usd(600))).is_ok());
    let done = given(&[asked(), captured(), refund("a", usd(400)), returned(1)]);
    assert_eq!(status(&done), "PARTIALLY_REFUNDED");
    assert_eq!(when(&done, refund("b", usd(601))), Err(Rejection::RefundExceedsCaptured));
    let failed = given(&[asked(), captured(), refund("a", usd(400)), refused(1)]);
    assert!(when(&failed, refund("b", usd(AMOUNT))).is_ok());
    assert_eq!(when(&given(&[asked()]), refund("a", usd(1))), Err(Rejection::WrongState { status: "REQUESTED" }));
    assert_eq!(when(&Payment::default(), refund("a", usd(1))), Err(Rejection::PaymentNotFound));
}

#[test]
fn repeated_refund_changes_nothing_and_a_reused_id_is_rejected() {
    for commands in [vec![], vec![returned(1)], vec![refused(1)], vec![Command::OrderCancelled]] {
        let payment = given(&[vec![asked(), captured(), refund("a", usd(400))], commands].concat());
        assert_eq!(when(&payment, refund("a", usd(400))), Ok(vec![]));
        assert_eq!(when(&payment, refund("a", usd(401))), Err(Rejection::RefundIdReused));
    }
}

#[test]
fn refund_count_is_bounded_and_cancellation_refunds_the_rest() {
    let mut commands = vec![asked(), captured()];
    commands.extend((0..REFUNDS_MAX).map(|at| refund(&format!("r{at}"), usd(1))));
    let payment = given(&commands);
    assert_eq!(when(&payment, refund("more", usd(1))), Err(Rejection::TooManyRefunds));
    let rest = refund_event(101, 900, Cause::OrderCancelled);
    assert_eq!(when(&payment, Command::OrderCancelled), Ok(vec![noted(None), rest]));
}

#[test]
fn cancellation_also_refunds_what_an_operator_refund_failed_to() {
    let payment = given(&[asked(), captured(), refund("a", usd(400)), Command::OrderCancelled]);
    let failed =
        |number, minor| Event::RefundFailed { at: NOW, number, amount: usd(minor), code: "charge_disputed".into() };
    let again = refund_event(3, 400, Cause::OrderCancelled);
    assert_eq!(when(&payment, refused(1)), Ok(vec![failed(1, 400), again]));
    assert_eq!(when(&payment, refused(2)), Ok(vec![failed(2, 600)]), "its own refund is not asked for for ever");
}

#[test]
fn refunds_use_the_pinned_rate_and_add_up_to_what_was_settled() {
    // 10.01 USD at 1/3 are 3.34 EUR (3.3366…); three refunds that each round by themselves would add up to
    // 3.33.
    let third = rate_of(Currency::USD, 1, 3);
    let captured = Command::ChargeSucceeded { reference: REFERENCE.into(), outcome: Outcome::Captured { rate: third } };
    let mut payment = given(&[reserved(usd(1001)), captured]);
    let mut settled = Vec::new();
    for (number, minor) in [(1, 334), (2, 334), (3, 333)] {
        handle(&mut payment, &refund(&number.to_string(), usd(minor))).expect("accepted");
        let events = handle(&mut payment, &returned(number)).expect("accepted");
        settled.extend(events.iter().map(|event| match event {
            Event::PaymentRefunded { settled, .. } => settled.minor,
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!((settled.iter().sum::<i64>(), settled.len()), (334, 3), "{settled:?}");
    let details = payment.details().expect("exists");
    assert_eq!(details.settled_refunded(), details.settlement.map(|settlement| settlement.settled));
    assert_eq!(status(&payment), "REFUNDED");
}

#[test]
fn the_providers_own_reports_never_undo_what_is_further() {
    let amount = usd(AMOUNT);
    let news = || {
        let quote = Quote::Rate(rate());
        [
            News::Authorized { amount: Some(amount) },
            News::Authorized { amount: None },
            News::Captured { amount, quote },
            News::Failed { code: "late".into() },
            News::Canceled,
            News::Refunded { total: usd(0) },
        ]
    };
    for commands in [
        vec![asked(), captured()],
        vec![asked(), captured(), refund("a", usd(1)), returned(1)],
        vec![asked(), captured(), Command::OrderCancelled, returned(1)],
    ] {
        for news in news() {
            assert_eq!(when(&given(&commands), reported(news.clone())), Ok(vec![]), "{news:?} after {commands:?}");
        }
    }
}

#[test]
fn report_before_the_answer_counts_and_answer_changes_nothing() {
    let quote = Quote::Rate(rate());
    let report = reported(News::Captured { amount: usd(AMOUNT), quote });
    assert_eq!(when(&given(&[asked()]), report.clone()), Ok(vec![captured_event()]));
    assert_eq!(when(&given(&[asked(), report]), captured()), Ok(vec![]));
    let failed = reported(News::Failed { code: "card_declined".into() });
    assert_eq!(when(&given(&[asked()]), failed), when(&given(&[asked()]), declined()));
    // All that is on its way has arrived; a smaller sum says nothing of a single refund.
    let pending = given(&[asked(), captured(), refund("a", usd(400)), refund("b", usd(100))]);
    let all = reported(News::Refunded { total: usd(500) });
    let events = when(&pending, all).expect("accepted");
    assert!(matches!(
        &events[..],
        [Event::PaymentRefunded { number: 1, .. }, Event::PaymentRefunded { number: 2, .. }]
    ));
    assert_eq!(when(&pending, reported(News::Refunded { total: usd(400) })), Ok(vec![]));
}

#[test]
fn captured_report_without_a_rate_is_rejected_by_name() {
    let report = |amount, quote| reported(News::Captured { amount, quote });
    let asked_only = given(&[asked()]);
    assert_eq!(when(&asked_only, report(usd(AMOUNT), Quote::NotAsked)), Err(Rejection::RateNotAsked));
    assert_eq!(
        when(&asked_only, report(usd(AMOUNT), Quote::NoRate)),
        Err(Rejection::NoRate { currency: Currency::USD })
    );
}

#[test]
fn amounts_of_zero_or_three_decimals_settle_by_their_exponents() {
    let bhd: Currency = "BHD".parse().expect("known");
    for (amount, numerator, denominator, settled) in
        [(Money::new(1_000, Currency::JPY), 6, 1_000, 600), (Money::new(1_500, bhd), 245, 100, 368)]
    {
        let rate = rate_of(amount.currency, numerator, denominator);
        let quote = Quote::Rate(rate);
        let asked = Command::OrderReserved { amount, payment_method: Some("pm".into()), authorize_first: false, quote };
        let captured = Command::ChargeSucceeded { reference: REFERENCE.into(), outcome: Outcome::Captured { rate } };
        let payment = given(&[asked, captured]);
        assert_eq!(payment.details().and_then(|d| d.settlement).map(|s| s.settled), Some(eur(settled)), "{amount}");
    }
}

#[test]
fn rejections_keep_their_published_names() {
    let names = [
        (Rejection::PaymentNotFound, "PAYMENT_NOT_FOUND"),
        (Rejection::WrongState { status: "VOIDED" }, "WRONG_STATE"),
        (Rejection::AmountNotPositive, "AMOUNT_NOT_POSITIVE"),
        (Rejection::CurrencyMismatch { payment: Currency::EUR, other: Currency::USD }, "CURRENCY_MISMATCH"),
        (Rejection::RefundExceedsCaptured, "REFUND_EXCEEDS_CAPTURED"),
        (Rejection::RefundIdReused, "REFUND_ID_REUSED"),
        (Rejection::TooManyRefunds, "TOO_MANY_REFUNDS"),
        (Rejection::PaymentContradicted, "PAYMENT_CONTRADICTED"),
        (Rejection::SettlementTooLarge, "SETTLEMENT_TOO_LARGE"),
        (Rejection::NoRate { currency: Currency::EUR }, "NO_RATE"),
        (Rejection::RateNotAsked, "RATE_NOT_ASKED"),
    ];
    for (rejection, code) in names {
        assert_eq!(rejection.code(), code);
    }
}
