//! A provider that contradicts what was asked of it stops the payment, and nothing is called or moved from
//! then on.

mod given;

use given::{
    NOW, REFERENCE, authorize, authorized, captured, eur, given, handle, rate, refund, refused, reported, reserved,
    returned, usd, when,
};
use holdfast_money::Money;
use holdfast_payments_domain::{
    CAPTURE, CHARGE, Command, Contradiction, EffectChange, Event, News, Outcome, Payment, Quote, Rejection, Subject,
    VOID,
};

const AMOUNT: i64 = 10_00;

fn asked() -> Command {
    reserved(usd(AMOUNT))
}

fn contradiction(source: &str, subject: Subject, asked: &str, answered: &str) -> Contradiction {
    Contradiction { source: source.into(), subject, asked: asked.into(), answered: answered.into() }
}

fn refund_of_another() -> Contradiction {
    contradiction("refund:1", Subject::Charge, REFERENCE, "pi_2")
}

fn contradicted() -> Command {
    Command::ProviderContradicted { contradiction: refund_of_another() }
}

fn report(reference: &str, news: News) -> Command {
    Command::ProviderReported { reference: reference.into(), news }
}

fn moved(amount: Money) -> News {
    News::Captured { amount, quote: Quote::Rate(rate()) }
}

#[test]
fn contradicted_answer_ends_every_call_under_way() {
    let payment =
        given(&[asked(), captured(), refund("a", usd(1)), returned(1), refund("b", usd(2)), refund("c", usd(3))]);
    let events = when(&payment, contradicted()).expect("accepted");
    let stopped = Event::PaymentContradicted { at: NOW, contradiction: refund_of_another(), refunds: vec![2, 3] };
    assert_eq!(events, std::slice::from_ref(&stopped));
    let ended = [CHARGE, CAPTURE, VOID, "refund:2", "refund:3"].map(|name| EffectChange::End { name: name.into() });
    assert_eq!(stopped.effects(), ended);
}

#[test]
fn stopped_payment_begins_no_call_and_takes_no_news() {
    let late = Command::ChargeSucceeded { reference: "pi_3".into(), outcome: Outcome::Captured { rate: rate() } };
    let rows = [
        vec![asked()],
        vec![authorize(usd(AMOUNT)), authorized()],
        vec![asked(), captured()],
        vec![asked(), captured(), refund("a", usd(400))],
    ];
    for before in rows {
        let payment = given(&[before.clone(), vec![contradicted()]].concat());
        for command in [
            asked(),
            captured(),
            authorized(),
            late.clone(),
            Command::CaptureSucceeded { amount: usd(AMOUNT), rate: rate() },
            Command::AuthorizationEnded,
            Command::ChargeDeclined { code: "no".into() },
            returned(1),
            refused(1),
            contradicted(),
            reported(moved(usd(AMOUNT))),
            reported(News::Refunded { total: usd(400) }),
            reported(News::Canceled),
        ] {
            assert_eq!(when(&payment, command.clone()), Ok(vec![]), "{command:?} after {before:?}");
        }
        assert_eq!(when(&payment, refund("new", usd(1))), Err(Rejection::PaymentContradicted), "{before:?}");
    }
}

#[test]
fn stopped_payment_notes_cancelled_order_once_and_moves_nothing() {
    let mut payment = given(&[asked(), captured(), contradicted()]);
    let noted = Event::PaymentCancellationNoted { at: NOW, voids: None };
    assert_eq!(handle(&mut payment, &Command::OrderCancelled), Ok(vec![noted.clone()]));
    assert!(noted.effects().is_empty());
    assert_eq!(when(&payment, Command::OrderCancelled), Ok(vec![]));
    let details = payment.details().expect("exists");
    assert_eq!((details.cancelled, details.status.name()), (true, "CAPTURED"));
    assert_eq!(details.contradiction, Some(refund_of_another()));
}

#[test]
fn report_of_another_amount_charge_or_sum_stops_the_payment() {
    let one = vec![asked()];
    let held = vec![authorize(usd(AMOUNT)), authorized()];
    let paid = vec![asked(), captured()];
    let returning = vec![asked(), captured(), refund("a", usd(400))];
    let voided = vec![Command::OrderCancelled];
    let amount = |asked: &str, answered: &str| contradiction("report", Subject::Amount, asked, answered);
    let charge = || contradiction("report", Subject::Charge, REFERENCE, "pi_2");
    let rows = [
        (&one, report(REFERENCE, moved(usd(1))), amount("10.00 USD", "0.01 USD")),
        (&one, report(REFERENCE, moved(eur(AMOUNT))), amount("10.00 USD", "10.00 EUR")),
        (&one, report(REFERENCE, News::Authorized { amount: Some(usd(1)) }), amount("10.00 USD", "0.01 USD")),
        (&one, report(REFERENCE, News::Refunded { total: usd(1) }), amount("0.00 USD", "0.01 USD")),
        (&paid, report(REFERENCE, moved(usd(1))), amount("10.00 USD", "0.01 USD")),
        (&returning, report(REFERENCE, News::Refunded { total: usd(401) }), amount("4.00 USD", "4.01 USD")),
        (&returning, report(REFERENCE, News::Refunded { total: eur(400) }), amount("4.00 USD", "4.00 EUR")),
        (&voided, report(REFERENCE, moved(usd(1))), amount("nothing", "0.01 USD")),
        (&voided, report(REFERENCE, News::Refunded { total: usd(1) }), amount("nothing", "0.01 USD")),
        (&held, report("pi_2", News::Authorized { amount: None }), charge()),
        (&held, report("pi_2", moved(usd(AMOUNT))), charge()),
        (&paid, report("pi_2", moved(usd(AMOUNT))), charge()),
        (&returning, report("pi_2", News::Refunded { total: usd(400) }), charge()),
    ];
    for (before, command, expected) in rows {
        let events = when(&given(before), command.clone()).expect("accepted");
        let found =
            matches!(&events[..], [Event::PaymentContradicted { contradiction, .. }] if *contradiction == expected);
        assert!(found, "{command:?} after {before:?}: {events:?}");
    }
}

#[test]
fn answer_about_another_charge_or_amount_stops_the_payment() {
    let second = Command::ChargeSucceeded { reference: "pi_2".into(), outcome: Outcome::Captured { rate: rate() } };
    let events = when(&given(&[asked(), captured()]), second).expect("accepted");
    let expected = contradiction(CHARGE, Subject::Charge, REFERENCE, "pi_2");
    assert_eq!(events, [Event::PaymentContradicted { at: NOW, contradiction: expected, refunds: vec![] }]);
    let less = Command::CaptureSucceeded { amount: usd(1), rate: rate() };
    let events = when(&given(&[authorize(usd(AMOUNT)), authorized()]), less).expect("accepted");
    let expected = contradiction(CAPTURE, Subject::Amount, "10.00 USD", "0.01 USD");
    assert_eq!(events, [Event::PaymentContradicted { at: NOW, contradiction: expected, refunds: vec![] }]);
}

#[test]
fn abandoned_attempt_under_another_reference_stops_nothing() {
    let payment = given(&[authorize(usd(AMOUNT)), authorized()]);
    for news in [News::Canceled, News::Failed { code: "card_declined".into() }] {
        assert_eq!(when(&payment, report("pi_2", news)), Ok(vec![]));
    }
    assert_eq!(when(&Payment::default(), contradicted()), Ok(vec![]), "nothing was ever asked");
}
