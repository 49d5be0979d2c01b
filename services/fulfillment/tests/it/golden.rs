//! What the codecs write, byte for byte: events that others read, and states that later builds must read.
//!
//! A failure here means that what lies in topics and tables would be read differently: a new schema version,
//! never a new golden value.

use std::fmt::Write as _;

use holdfast_core::{Aggregate, Context, Message, Timestamp, codec::Adapter};
use holdfast_fulfillment::codec::{RecipientAdapter, decode_recipient, decode_shipment};
use holdfast_fulfillment_domain::{
    Address, Cancellation, CancellationCause, Details, Event, Line, Parcel, Recipient, Request, Shipment, Status,
    Tracking, TrackingStatus, recipient,
};
use holdfast_proto::fulfillment::v1;
use prost::{Message as _, Name as _};
use uuid::Uuid;

use crate::codec::{CUSTOMER, ORDER, adapter};

const AT: Timestamp = Timestamp::from_unix_ms(1_767_225_600_123);
const LATER: Timestamp = Timestamp::from_unix_ms(1_767_226_500_123);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn parcel() -> Parcel {
    Parcel { carrier: "Post".into(), tracking_number: "T-1".into() }
}

fn tracking(status: TrackingStatus) -> Tracking {
    Tracking { tracking_number: "T-1".into(), status, occurred_at: LATER }
}

fn cancellation() -> Cancellation {
    Cancellation { cause: CancellationCause::Warehouse, reason: "broken".into() }
}

fn lines() -> std::sync::Arc<[Line]> {
    [Line { sku: "A".into(), quantity: 1 }, Line { sku: "B".into(), quantity: 2 }].into()
}

fn address() -> Address {
    Address {
        recipient: "Jane".into(),
        lines: ["Street 1".into()].into(),
        city: "Kiel".into(),
        postal_code: "24103".into(),
        country: "DE".into(),
    }
}

/// What every event of a shipment begins with: fields 1, the order's id, 2, when, and 3, the shipment's id.
const EVENT: &str = "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303061120b0880f2d6ca0610c0a9d33a1a2437343437376236652d656163352d353363322d393736332d363361393965633336323563";

/// Every kind of event, its type and its bytes after [`EVENT`].
fn events() -> [(Event, String, &'static str); 9] {
    let customer = CUSTOMER.parse().unwrap();
    let requested = Event::ShipmentRequested {
        at: AT,
        customer,
        address_id: "home".into(),
        lines: lines(),
        address: Some(address()),
    };
    let moved = Event::TrackingUpdated { at: AT, tracking: tracking(TrackingStatus::InTransit) };
    let arrived = Event::ShipmentDelivered { at: AT, tracking: tracking(TrackingStatus::Delivered) };
    [
        (
            requested,
            v1::ShipmentRequested::full_name(),
            "222430313932663063312d376231652d376363332d383030302d3030303030303030303030622a04686f6d6532050a0141100132050a01421002",
        ),
        (Event::ShipmentConfirmed { at: AT }, v1::ShipmentConfirmed::full_name(), ""),
        (Event::PickingStarted { at: AT }, v1::PickingStarted::full_name(), ""),
        (Event::ShipmentPacked { at: AT }, v1::ShipmentPacked::full_name(), ""),
        (
            Event::ShipmentDispatched { at: AT, parcel: parcel() },
            v1::ShipmentDispatched::full_name(),
            "2204506f73742a03542d31",
        ),
        (moved, v1::TrackingUpdated::full_name(), "22140a03542d3110021a0b0884f9d6ca0610c0a9d33a"),
        (arrived, v1::ShipmentDelivered::full_name(), "22140a03542d3110041a0b0884f9d6ca0610c0a9d33a"),
        (
            Event::ShipmentCancelled { at: AT, cancellation: cancellation() },
            v1::ShipmentCancelled::full_name(),
            "220a0804120662726f6b656e",
        ),
        (Event::AddressErased { at: AT }, v1::AddressErased::full_name(), ""),
    ]
}

/// The type and the bytes of `event`, which is also read back from them, as far as they tell it.
fn encoded<A: Adapter>(adapter: &A, event: &<A::Aggregate as Aggregate>::Event, key: &str) -> (&'static str, String) {
    let context = Context { key, version: 1, now: AT };
    let encoded = adapter.encode_event(event, &context);
    let message = Message::new(Uuid::nil(), "golden", encoded.r#type, key, encoded.payload.clone());
    let read = adapter.decode_event(&message).unwrap_or_else(|refused| panic!("{}: {refused}", encoded.r#type));
    assert_eq!(adapter.encode_event(&read, &context), encoded);
    (encoded.r#type, hex(&encoded.payload))
}

#[test]
fn shipment_events_keep_golden_bytes_and_omit_the_address() {
    for (event, r#type, golden) in events() {
        let (named, bytes) = encoded(&adapter(), &event, ORDER);
        assert_eq!((named, bytes), (r#type.as_str(), format!("{EVENT}{golden}")));
        assert!(!matches!(event, Event::ShipmentRequested { address: None, .. }));
    }
}

#[test]
fn events_of_a_recipient_are_written_as_ever_and_read_back() {
    let order = ORDER.parse().unwrap();
    let head = "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303062120b0880f2d6ca0610c0a9d33a";
    let order_id = "1a2430313932663063312d376231652d376363332d383030302d303030303030303030303061";
    for (event, r#type) in [
        (recipient::Event::ShipmentNoted { at: AT, order }, v1::ShipmentNoted::full_name()),
        (recipient::Event::RecipientErased { at: AT, orders: [order].into() }, v1::RecipientErased::full_name()),
    ] {
        assert_eq!(encoded(&RecipientAdapter, &event, CUSTOMER), (r#type.as_str(), format!("{head}{order_id}")));
    }
}

/// Shipments with the bytes that a database may hold.
fn states() -> [(Shipment, &'static str); 4] {
    let request = Request { at: AT, customer: CUSTOMER.parse().unwrap(), address_id: "home".into(), lines: lines() };
    let pending = Details {
        status: Status::Pending,
        request: Some(request),
        address: Some(address()),
        address_erased_at: None,
        confirmed_at: Some(LATER),
        parcel: None,
        tracking: None,
        created_at: AT,
        updated_at: LATER,
    };
    let shipped = Details {
        status: Status::Shipped,
        address: None,
        address_erased_at: Some(LATER),
        parcel: Some(parcel()),
        tracking: Some(tracking(TrackingStatus::Accepted)),
        ..pending.clone()
    };
    let cancelled = Details {
        status: Status::Cancelled(cancellation()),
        request: None,
        address: None,
        confirmed_at: None,
        ..pending.clone()
    };
    [
        (Shipment::default(), ""),
        (
            Shipment::rehydrate(pending),
            "0801122430313932663063312d376231652d376363332d383030302d3030303030303030303030621a04686f6d6522050a0141100122050a014210022a210a044a616e65120853747265657420311a044b69656c220532343130332a024445320b0880f2d6ca0610c0a9d33a3a0b0884f9d6ca0610c0a9d33a6a0b0880f2d6ca0610c0a9d33a720b0884f9d6ca0610c0a9d33a",
        ),
        (
            Shipment::rehydrate(shipped),
            "0804122430313932663063312d376231652d376363332d383030302d3030303030303030303030621a04686f6d6522050a0141100122050a01421002320b0880f2d6ca0610c0a9d33a3a0b0884f9d6ca0610c0a9d33a4204506f73744a03542d3152140a03542d3110011a0b0884f9d6ca0610c0a9d33a620b0884f9d6ca0610c0a9d33a6a0b0880f2d6ca0610c0a9d33a720b0884f9d6ca0610c0a9d33a",
        ),
        (
            Shipment::rehydrate(cancelled),
            "08065a0a0804120662726f6b656e6a0b0880f2d6ca0610c0a9d33a720b0884f9d6ca0610c0a9d33a",
        ),
    ]
}

#[test]
fn states_of_schema_1_are_written_as_ever_and_read_back() {
    assert_eq!((Shipment::SCHEMA, Recipient::SCHEMA), (1, 1), "a new schema needs its own golden bytes beside these");
    for (shipment, golden) in states() {
        assert_eq!(hex(&adapter().encode_state(&shipment)), golden);
        assert_eq!(decode_shipment(1, &unhex(golden)), Ok(shipment));
    }
    let recipient = Recipient { orders: vec![ORDER.parse().unwrap(), CUSTOMER.parse().unwrap()], erased_at: Some(AT) };
    let golden = "0a200192f0c17b1e7cc3800000000000000a0192f0c17b1e7cc3800000000000000b120b0880f2d6ca0610c0a9d33a";
    for (recipient, golden) in [(Recipient::default(), ""), (recipient, golden)] {
        assert_eq!(hex(&RecipientAdapter.encode_state(&recipient)), golden);
        assert_eq!(decode_recipient(1, &unhex(golden)), Ok(recipient));
    }
}

#[test]
fn state_no_build_could_have_written_is_an_error() {
    for schema in [0, 2, u32::MAX] {
        assert!(decode_shipment(schema, &[]).is_err() && decode_recipient(schema, &[]).is_err());
    }
    assert!(decode_shipment(1, b"\xff").is_err() && decode_recipient(1, b"\xff").is_err());
    assert!(decode_recipient(1, &unhex("0a0101")).is_err(), "an id that is cut short");
    let good = v1::ShipmentState::decode(adapter().encode_state(&states()[2].0)).unwrap();
    assert!(decode_shipment(1, &good.encode_to_vec()).is_ok());
    let broken: [fn(&mut v1::ShipmentState); 8] = [
        |state| state.status = v1::ShipmentStatus::Unspecified.into(),
        |state| state.status = 99,
        |state| state.status = v1::ShipmentStatus::Cancelled.into(),
        |state| state.status = v1::ShipmentStatus::Packed.into(),
        |state| state.tracking_number = String::new(),
        |state| state.created_at = None,
        |state| state.customer_id = "jane".into(),
        |state| state.tracking.as_mut().unwrap().status = 0,
    ];
    for (at, breaks) in broken.into_iter().enumerate() {
        let mut state = good.clone();
        breaks(&mut state);
        assert!(decode_shipment(1, &state.encode_to_vec()).is_err(), "change {at} is overlooked");
    }
}
