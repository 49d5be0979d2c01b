//! Bytes that other contexts and stored rows already have: each event, and both states of schema 1.
//!
//! A difference here is a breaking change: of `inventory.events`, or of a database that is already out there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use holdfast_core::{Aggregate, Context, Message, Timestamp, codec::Adapter, envelope::ContentType};
use holdfast_inventory::codec::{ReservationAdapter, StockItemAdapter, decode_reservation, decode_stock_item};
use holdfast_inventory_domain::{
    Line, Reservation, Sku, StockItem,
    reservation::{self, ReleaseCause, Status},
    stock_item,
};
use holdfast_money::{Currency, Money};
use holdfast_proto::inventory::v1;
use prost::{Message as _, Name as _};

const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";
const AT: Timestamp = Timestamp::from_unix_ms(1_767_225_600_123);
const LATER: Timestamp = Timestamp::from_unix_ms(1_767_226_500_123);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn line(sku: &str, quantity: i64) -> Line {
    Line { sku: Sku::new(sku).unwrap(), quantity }
}

fn euro(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

/// The type and the bytes of `event`, which is also read back from them.
fn encoded<A: Adapter>(adapter: &A, event: &<A::Aggregate as Aggregate>::Event, key: &str) -> (&'static str, String)
where
    <A::Aggregate as Aggregate>::Event: PartialEq + std::fmt::Debug,
{
    let encoded = adapter.encode_event(event, &Context { key, version: 1, now: AT });
    let message = Message {
        id: uuid::Uuid::nil(),
        source: "golden".into(),
        r#type: encoded.r#type.into(),
        key: key.into(),
        content_type: ContentType::Protobuf,
        sequence: Some(1),
        correlation: None,
        causation: None,
        traceparent: None,
        tracestate: None,
        payload: encoded.payload.clone(),
    };
    assert_eq!(adapter.decode_event(&message).as_ref(), Ok(event));
    (encoded.r#type, hex(&encoded.payload))
}

#[test]
fn events_of_a_sku_keep_their_bytes() {
    let of = |event| encoded(&StockItemAdapter, &event, "SKU-1");
    let golden = [
        (
            of(stock_item::Event::StockReceived { at: AT, quantity: 300 }),
            ("holdfast.inventory.v1.StockReceived", "0a05534b552d31120b0880f2d6ca0610c0a9d33a18ac02"),
        ),
        (
            of(stock_item::Event::StockAdjusted { at: AT, delta: -2, reason: "broken".into() }),
            (
                "holdfast.inventory.v1.StockAdjusted",
                "0a05534b552d31120b0880f2d6ca0610c0a9d33a18feffffffffffffffff01220662726f6b656e",
            ),
        ),
        (
            of(stock_item::Event::PriceSet { at: AT, price: euro(1999) }),
            ("holdfast.inventory.v1.PriceSet", "0a05534b552d31120b0880f2d6ca0610c0a9d33a1a0808cf0f1203455552"),
        ),
        (
            of(stock_item::Event::ReorderPointSet { at: AT, reorder_point: 40 }),
            ("holdfast.inventory.v1.ReorderPointSet", "0a05534b552d31120b0880f2d6ca0610c0a9d33a1828"),
        ),
        (
            of(stock_item::Event::ReplenishmentRequested { at: AT, reorder_point: 40 }),
            ("holdfast.inventory.v1.ReplenishmentRequested", "0a05534b552d31120b0880f2d6ca0610c0a9d33a1828"),
        ),
        (
            of(stock_item::Event::ReplenishmentEnded { at: AT }),
            ("holdfast.inventory.v1.ReplenishmentEnded", "0a05534b552d31120b0880f2d6ca0610c0a9d33a"),
        ),
    ];
    for ((r#type, bytes), (golden_type, golden)) in golden {
        assert_eq!((r#type, bytes.as_str()), (golden_type, golden));
    }
}

#[test]
fn events_of_a_reservation_keep_their_bytes() {
    let adapter = ReservationAdapter::new(Duration::from_mins(15));
    let of = |event| encoded(&adapter, &event, ORDER);
    let lines = || [line("A", 1), line("B", 2)].into();
    let golden = [
        (
            of(reservation::Event::StockReserved { at: AT, lines: lines(), expires_at: LATER }),
            (
                "holdfast.inventory.v1.StockReserved",
                "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a050a014110011a050a01421002220b0884f9d6ca0610c0a9d33a",
            ),
        ),
        (
            of(reservation::Event::ReservationConfirmed { at: AT, lines: lines() }),
            (
                "holdfast.inventory.v1.ReservationConfirmed",
                "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a050a014110011a050a01421002",
            ),
        ),
        (
            of(reservation::Event::ReservationShipped { at: AT, lines: lines() }),
            (
                "holdfast.inventory.v1.ReservationShipped",
                "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a050a014110011a050a01421002",
            ),
        ),
        (
            of(reservation::Event::ReservationRefused { at: AT, wanted: lines() }),
            (
                "holdfast.inventory.v1.ReservationRefused",
                "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a050a014110011a050a01421002",
            ),
        ),
        (
            of(reservation::Event::ReservationReleased { at: AT, lines: lines(), cause: ReleaseCause::OrderCancelled }),
            (
                "holdfast.inventory.v1.ReservationReleased",
                "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a050a014110011a050a014210022001",
            ),
        ),
        (
            of(reservation::Event::ReservationExpired { at: AT, lines: lines() }),
            (
                "holdfast.inventory.v1.ReservationExpired",
                "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a050a014110011a050a01421002",
            ),
        ),
    ];
    for ((r#type, bytes), (golden_type, golden)) in golden {
        assert_eq!((r#type, bytes.as_str()), (golden_type, golden));
    }
}

/// A sku's states with the bytes that a database may hold.
fn items() -> [(StockItem, &'static str); 5] {
    let item = |price, reorder_point| stock_item::Details {
        price,
        reorder_point,
        is_replenishing: false,
        created_at: AT,
        updated_at: LATER,
    };
    let stored = StockItem::rehydrate;
    [
        (StockItem::default(), ""),
        (stored(item(None, 0)), "120b0880f2d6ca0610c0a9d33a1a0b0884f9d6ca0610c0a9d33a"),
        (stored(item(Some(euro(1999)), 0)), "0a0808cf0f1203455552120b0880f2d6ca0610c0a9d33a1a0b0884f9d6ca0610c0a9d33a"),
        (
            stored(item(Some(euro(1999)), 40)),
            "0a0808cf0f1203455552120b0880f2d6ca0610c0a9d33a1a0b0884f9d6ca0610c0a9d33a2028",
        ),
        (
            stored(stock_item::Details { is_replenishing: true, ..item(None, 40) }),
            "120b0880f2d6ca0610c0a9d33a1a0b0884f9d6ca0610c0a9d33a20282801",
        ),
    ]
}

/// A reservation's states with the bytes that a database may hold.
fn reservations() -> [(Reservation, &'static str); 8] {
    let of = |status, lines: &[Line], expires_at| {
        let lines = lines.into();
        Reservation::rehydrate(reservation::Details { status, lines, expires_at, created_at: AT, updated_at: LATER })
    };
    let lines = [line("A", 1), line("B", 2)];
    let released = Status::Released(ReleaseCause::OrderCancelled);
    [
        (Reservation::default(), ""),
        (
            of(Status::Held, &lines, Some(LATER)),
            "080112050a0141100112050a014210021a0b0884f9d6ca0610c0a9d33a220b0880f2d6ca0610c0a9d33a2a0b0884f9d6ca0610c0a9d33a",
        ),
        (
            of(Status::Confirmed, &lines, Some(LATER)),
            "080212050a0141100112050a014210021a0b0884f9d6ca0610c0a9d33a220b0880f2d6ca0610c0a9d33a2a0b0884f9d6ca0610c0a9d33a",
        ),
        (
            of(Status::Shipped, &lines, Some(LATER)),
            "080312050a0141100112050a014210021a0b0884f9d6ca0610c0a9d33a220b0880f2d6ca0610c0a9d33a2a0b0884f9d6ca0610c0a9d33a",
        ),
        (
            of(Status::Refused, &lines, None),
            "080612050a0141100112050a01421002220b0880f2d6ca0610c0a9d33a2a0b0884f9d6ca0610c0a9d33a",
        ),
        (
            of(released, &lines, Some(LATER)),
            "080412050a0141100112050a014210021a0b0884f9d6ca0610c0a9d33a220b0880f2d6ca0610c0a9d33a2a0b0884f9d6ca0610c0a9d33a",
        ),
        (of(released, &[], None), "0804220b0880f2d6ca0610c0a9d33a2a0b0884f9d6ca0610c0a9d33a"),
        (
            of(Status::Expired, &lines, Some(LATER)),
            "080512050a0141100112050a014210021a0b0884f9d6ca0610c0a9d33a220b0880f2d6ca0610c0a9d33a2a0b0884f9d6ca0610c0a9d33a",
        ),
    ]
}

#[test]
fn stored_states_of_schema_1_keep_their_bytes_and_are_read_back() {
    assert_eq!(
        (StockItem::SCHEMA, Reservation::SCHEMA),
        (1, 1),
        "a new schema needs its own golden bytes beside these"
    );
    for (state, golden) in items() {
        assert_eq!(hex(&StockItemAdapter.encode_state(&state)), golden);
        assert_eq!(decode_stock_item(1, &unhex(golden)), Ok(state));
    }
    let adapter = ReservationAdapter::new(Duration::from_mins(15));
    for (state, golden) in reservations() {
        assert_eq!(hex(&adapter.encode_state(&state)), golden);
        assert_eq!(decode_reservation(1, &unhex(golden)), Ok(state));
    }
}

#[test]
fn state_this_build_could_not_have_written_is_an_error() {
    for schema in [0, 2, u32::MAX] {
        assert_eq!(decode_stock_item(schema, &[]).unwrap_err().schema, schema);
        assert_eq!(decode_reservation(schema, &[]).unwrap_err().schema, schema);
    }
    for garbage in [&b"\xff"[..], b"\x08", b"not a state"] {
        assert!(decode_stock_item(1, garbage).is_err() && decode_reservation(1, garbage).is_err(), "{garbage:?}");
    }
    let good = v1::ReservationState::decode(&*unhex(reservations()[1].1)).unwrap();
    let broken: [fn(&mut v1::ReservationState); 4] = [
        |state| state.status = v1::ReservationStatus::Unspecified.into(),
        |state| state.status = 99,
        |state| state.created_at = None,
        |state| state.lines[0].sku = "no sku".to_owned(),
    ];
    for (at, breaks) in broken.into_iter().enumerate() {
        let mut state = good.clone();
        breaks(&mut state);
        assert!(decode_reservation(1, &state.encode_to_vec()).is_err(), "change {at} is overlooked");
    }
    let mut item = v1::StockItemState::decode(&*unhex(items()[2].1)).unwrap();
    item.price.as_mut().unwrap().currency = "ZZZ".to_owned();
    assert!(decode_stock_item(1, &item.encode_to_vec()).is_err());
    let mut item = v1::StockItemState::decode(&*unhex(items()[3].1)).unwrap();
    item.reorder_point = -1;
    assert!(decode_stock_item(1, &item.encode_to_vec()).is_err());
}

#[test]
fn the_types_of_events_are_the_full_names_of_their_messages() {
    let names = [
        v1::StockReceived::full_name(),
        v1::StockAdjusted::full_name(),
        v1::PriceSet::full_name(),
        v1::ReorderPointSet::full_name(),
        v1::StockReserved::full_name(),
        v1::ReservationRefused::full_name(),
        v1::ReservationReleased::full_name(),
        v1::ReservationExpired::full_name(),
    ];
    let at = AT;
    let adapter = ReservationAdapter::new(Duration::from_mins(15));
    let types = [
        encoded(&StockItemAdapter, &stock_item::Event::StockReceived { at, quantity: 1 }, "A").0,
        encoded(&StockItemAdapter, &stock_item::Event::StockAdjusted { at, delta: 1, reason: "r".into() }, "A").0,
        encoded(&StockItemAdapter, &stock_item::Event::PriceSet { at, price: euro(1) }, "A").0,
        encoded(&StockItemAdapter, &stock_item::Event::ReorderPointSet { at, reorder_point: 1 }, "A").0,
        encoded(&adapter, &reservation::Event::StockReserved { at, lines: [].into(), expires_at: at }, ORDER).0,
        encoded(&adapter, &reservation::Event::ReservationRefused { at, wanted: [].into() }, ORDER).0,
        encoded(
            &adapter,
            &reservation::Event::ReservationReleased { at, lines: [].into(), cause: ReleaseCause::OrderCancelled },
            ORDER,
        )
        .0,
        encoded(&adapter, &reservation::Event::ReservationExpired { at, lines: [].into() }, ORDER).0,
    ];
    assert_eq!(types.map(str::to_owned), names);
}
