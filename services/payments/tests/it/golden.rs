//! Bytes that other contexts, stored rows and stored calls already have: each event, each call, and the
//! states of schema 1.
//!
//! A difference here is a breaking change: of `payments.events`, of a database that is already out there, or
//! of a call that is under way and must be made with the same parameters. The bytes were made from the
//! `.proto` files by hand, not by the code under test.

use std::sync::Arc;

use holdfast_core::{Aggregate, Context, Message, Timestamp, codec::Adapter as _};
use holdfast_money::{Currency, FxRate, Money, Ratio};
use holdfast_payments::{
    app::Settings,
    codec::{PaymentAdapter, decode_state, effects_after},
};
use holdfast_payments_domain::{
    Cause, Contradiction, Details, Event, Payment, Refund, Settlement, State, Status, Subject, Then,
};
use holdfast_proto::payments::v1;
use prost::Message as _;

use crate::till;

const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";
const AT: Timestamp = Timestamp::from_unix_ms(1_767_225_600_123);
const LATER: Timestamp = Timestamp::from_unix_ms(1_767_226_500_123);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

fn rate() -> FxRate {
    FxRate::new(Currency::USD, Currency::EUR, Ratio::new(93, 100).unwrap()).unwrap()
}

fn adapter() -> PaymentAdapter {
    PaymentAdapter::new(Settings::default(), Arc::new(till::rates()), till::nobody())
}

fn reference() -> Arc<str> {
    "pi_1".into()
}

fn refund_requested() -> Event {
    let cause = Cause::Requested { id: "r1".into() };
    Event::RefundRequested { at: AT, number: 2, amount: usd(34), cause, reference: reference() }
}

fn contradiction() -> Contradiction {
    Contradiction { source: "refund:2".into(), subject: Subject::Charge, asked: reference(), answered: "pi_2".into() }
}

fn events() -> [(Event, &'static str, &'static str); 10] {
    let (at, amount) = (AT, usd(1234));
    [
        (
            Event::PaymentRequested { at, amount, payment_method: Some("pm_1".into()), authorize_first: true },
            "PaymentRequested",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a0808d20912035553442204706d5f312801",
        ),
        (
            Event::PaymentAuthorized { at, reference: reference(), amount, then: Then::Void },
            "PaymentAuthorized",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a0470695f31220808d20912035553442801",
        ),
        (
            Event::PaymentCaptured { at, reference: reference(), amount, rate: rate(), settled: eur(1148) },
            "PaymentCaptured",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a0470695f31220808d20912035553442a0e0a035553441203455552185d2064320808fc081203455552",
        ),
        (
            Event::PaymentDeclined { at, code: "lost_card".into() },
            "PaymentDeclined",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a096c6f73745f63617264",
        ),
        (
            Event::PaymentCancellationNoted { at, voids: Some(reference()) },
            "PaymentCancellationNoted",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a0470695f31",
        ),
        (
            Event::PaymentVoided { at },
            "PaymentVoided",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a",
        ),
        (
            refund_requested(),
            "RefundRequested",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a18022207082212035553442801320272313a0470695f31",
        ),
        (
            Event::PaymentRefunded {
                at,
                number: 2,
                amount: usd(34),
                refunded_total: amount,
                settled: eur(32),
                reference: Some("re_1".into()),
            },
            "PaymentRefunded",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a18022207082212035553442a0808d20912035553443207082012034555523a0472655f31",
        ),
        (
            Event::RefundFailed { at, number: 2, amount: usd(34), code: "no".into() },
            "RefundFailed",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a18022207082212035553442a026e6f",
        ),
        (
            Event::PaymentContradicted { at, contradiction: contradiction(), refunds: vec![2, 3] },
            "PaymentContradicted",
            "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a180a08726566756e643a3210021a0470695f31220470695f3222020203",
        ),
    ]
}

#[test]
fn events_keep_their_names_and_bytes_and_come_back_as_they_were() {
    for (event, name, golden) in events() {
        let encoded = adapter().encode_event(&event, &Context { key: ORDER, version: 1, now: AT });
        assert_eq!(
            (encoded.r#type, hex(&encoded.payload)),
            (&*format!("holdfast.payments.v1.{name}"), golden.to_owned())
        );
        let message = Message::new(uuid::Uuid::nil(), "golden", encoded.r#type, ORDER, encoded.payload);
        assert_eq!(adapter().decode_event(&message), Ok(event));
    }
}

#[test]
fn what_is_left_out_of_an_event_comes_back_as_left_out() {
    let at = AT;
    for event in [
        Event::PaymentRequested { at, amount: usd(0), payment_method: None, authorize_first: false },
        Event::PaymentCancellationNoted { at, voids: None },
        Event::RefundRequested { at, number: 1, amount: usd(1), cause: Cause::OrderCancelled, reference: reference() },
        Event::RefundRequested { at, number: 1, amount: usd(1), cause: Cause::LateCapture, reference: reference() },
        Event::PaymentAuthorized { at, reference: reference(), amount: usd(1), then: Then::Capture },
    ] {
        let encoded = adapter().encode_event(&event, &Context { key: ORDER, version: 1, now: AT });
        let message = Message::new(uuid::Uuid::nil(), "golden", encoded.r#type, ORDER, encoded.payload);
        assert_eq!(adapter().decode_event(&message), Ok(event));
    }
}

#[test]
fn calls_that_are_under_way_keep_their_names_and_bytes() {
    let golden = [
        (
            "charge",
            "0a2430313932663063312d376231652d376363332d383030302d30303030303030303030306112120a0808d20912035553441204706d5f311801",
        ),
        ("capture", "0a2430313932663063312d376231652d376363332d383030302d3030303030303030303030611a060a0470695f31"),
        ("void", "0a2430313932663063312d376231652d376363332d383030302d30303030303030303030306122060a0470695f31"),
        (
            "refund:2",
            "0a2430313932663063312d376231652d376363332d383030302d3030303030303030303030612a110a0470695f3110021a0708221203555344",
        ),
    ];
    let mut events: Vec<_> = events().into_iter().map(|(event, ..)| event).collect();
    events[1] = Event::PaymentAuthorized { at: AT, reference: reference(), amount: usd(1234), then: Then::Capture };
    let begun = events.iter().flat_map(|event| effects_after(event, ORDER)).filter_map(|change| {
        let request = change.request?;
        Some((change.name, hex(&request)))
    });
    let golden = golden.map(|(name, bytes)| (name.to_owned(), bytes.to_owned()));
    assert_eq!(begun.collect::<Vec<_>>(), golden);
}

fn details(status: Status) -> Details {
    Details {
        amount: Some(usd(1234)),
        status,
        reference: None,
        settlement: None,
        cancelled: false,
        refunds: vec![],
        contradiction: None,
        created_at: AT,
        updated_at: LATER,
    }
}

fn states() -> [(Payment, &'static str); 7] {
    let refund = |number, minor, cause, state| Refund { number, amount: usd(minor), cause, state };
    let refunds = vec![
        refund(
            1,
            34,
            Cause::Requested { id: "r1".into() },
            State::Done { settled: eur(32), reference: Some("re_1".into()) },
        ),
        refund(2, 1200, Cause::OrderCancelled, State::Pending),
        refund(3, 1, Cause::LateCapture, State::Failed { code: "no".into() }),
    ];
    let partial = Details {
        reference: Some(reference()),
        settlement: Some(Settlement { rate: rate(), settled: eur(1148) }),
        cancelled: true,
        refunds,
        ..details(Status::PartiallyRefunded)
    };
    let authorized = Details { reference: Some(reference()), cancelled: true, ..details(Status::Authorized) };
    let stopped = Details { contradiction: Some(contradiction()), ..details(Status::Requested) };
    let voided = Details { amount: None, cancelled: true, ..details(Status::Voided) };
    [
        (Payment::default(), ""),
        (
            Payment::rehydrate(details(Status::Requested)),
            "0801120808d20912035553444a0b0880f2d6ca0610c0a9d33a520b0884f9d6ca0610c0a9d33a",
        ),
        (
            Payment::rehydrate(authorized),
            "0802120808d20912035553441a0470695f3138014a0b0880f2d6ca0610c0a9d33a520b0884f9d6ca0610c0a9d33a",
        ),
        (
            Payment::rehydrate(partial),
            "0804120808d20912035553441a0470695f31220e0a035553441203455552185d20642a0808fc081203455552380142220801120272311a070822120355534420012802320708201203455552420472655f31421008021a0808b009120355534420022801421308031a0708011203555344200328033a026e6f4a0b0880f2d6ca0610c0a9d33a520b0884f9d6ca0610c0a9d33a",
        ),
        (
            Payment::rehydrate(details(Status::Declined { code: "lost_card".into() })),
            "0806120808d209120355534432096c6f73745f636172644a0b0880f2d6ca0610c0a9d33a520b0884f9d6ca0610c0a9d33a",
        ),
        (Payment::rehydrate(voided), "080738014a0b0880f2d6ca0610c0a9d33a520b0884f9d6ca0610c0a9d33a"),
        (
            Payment::rehydrate(stopped),
            "0801120808d20912035553444a0b0880f2d6ca0610c0a9d33a520b0884f9d6ca0610c0a9d33a5a180a08726566756e643a3210021a0470695f31220470695f32",
        ),
    ]
}

#[test]
fn stored_states_of_schema_1_keep_their_bytes_and_are_read_back() {
    assert_eq!(Payment::SCHEMA, 1, "a new schema needs its own golden bytes beside these");
    for (state, golden) in states() {
        assert_eq!(hex(&adapter().encode_state(&state)), golden);
        assert_eq!(decode_state(1, &unhex(golden)), Ok(state));
    }
}

#[test]
fn state_this_build_could_not_have_written_is_an_error() {
    for schema in [0, 2, u32::MAX] {
        assert_eq!(decode_state(schema, &[]).unwrap_err().schema, schema);
    }
    for garbage in [&b"\xff"[..], b"\x08", b"not a state"] {
        assert!(decode_state(1, garbage).is_err(), "{garbage:?}");
    }
    let good = v1::PaymentState::decode(&*unhex(states()[3].1)).unwrap();
    let broken: [fn(&mut v1::PaymentState); 12] = [
        |state| state.status = v1::PaymentStatus::Unspecified.into(),
        |state| state.status = 99,
        |state| state.status = v1::PaymentStatus::Requested.into(),
        |state| state.amount = None,
        |state| state.rate = None,
        |state| state.settled = None,
        |state| state.rate.as_mut().unwrap().denominator = 0,
        |state| state.created_at = None,
        |state| state.refunds[0].cause = 0,
        |state| state.refunds[0].status = 0,
        |state| state.refunds[0].settled = None,
        |state| state.contradiction = Some(v1::Contradiction { subject: 99, ..Default::default() }),
    ];
    for (at, breaks) in broken.into_iter().enumerate() {
        let mut state = good.clone();
        breaks(&mut state);
        assert!(decode_state(1, &state.encode_to_vec()).is_err(), "change {at} is overlooked");
    }
}
