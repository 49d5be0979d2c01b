//! What the codec writes, byte for byte: events that others read, and states that later builds must read.
//!
//! A failure here means that what lies in topics and tables would be read differently: a new schema version,
//! never a new golden value.

use std::fmt::Write as _;

use holdfast_core::{Context, Message, Timestamp, codec::Adapter as _, envelope::ContentType};
use holdfast_money::{Currency, FxRate, Money, Ratio};
use holdfast_orders_domain::{
    Cancellation, CancellationCause, Details, Event, Line, Lines, Order, Payment, Shipment, Sku, Status,
};
use uuid::Uuid;

use crate::codec::adapter;

const ORDER: &str = "0192f0c1-7b1e-7cc3-8000-000000000001";
const CUSTOMER: Uuid = Uuid::from_u128(0x0192_f0c1_7b1e_7cc3_8000_0000_0000_c001);
const AT: Timestamp = Timestamp::from_unix_ms(1_795_305_600_123);
const UNTIL: Timestamp = Timestamp::from_unix_ms(1_795_306_500_000);

fn sku(text: &str) -> Sku {
    Sku::new(text).unwrap()
}

fn line(text: &str, quantity: i64, minor: i64) -> Line {
    Line::new(sku(text), quantity, Money::new(minor, Currency::EUR)).unwrap()
}

fn cancellation() -> Cancellation {
    Cancellation { cause: CancellationCause::OutOfStock, reason: "out of stock".into() }
}

/// 31.50 EUR at 1.0837 USD each.
fn payment() -> Payment {
    let (amount, ratio) = (Money::new(3_150, Currency::EUR), Ratio::new(10_837, 10_000).unwrap());
    let rate = FxRate::new(Currency::EUR, Currency::USD, ratio).unwrap();
    Payment { id: "pi_1".into(), amount, rate, settled: rate.convert(amount).unwrap() }
}

fn shipment() -> Shipment {
    Shipment { id: "s_1".into(), carrier: "post".into(), tracking_number: "T1".into() }
}

/// What every event begins with: fields 1, the order's id, and 2, when.
const EVENT: &str =
    "0a2430313932663063312d376231652d376363332d383030302d303030303030303030303031120b0880e188d80610c0a9d33a";
/// What every state begins with: fields 1, the customer's id, and 2, the currency.
const STATE: &str = "0a2430313932663063312d376231652d376363332d383030302d3030303030303030633030311203455552";

/// Every kind of event, its type and its bytes after [`EVENT`].
fn events() -> [(Event, &'static str, &'static str); 11] {
    let total = Money::new(3_150, Currency::EUR);
    [
        (
            Event::OrderCreated { at: AT, customer: CUSTOMER, currency: Currency::EUR },
            "holdfast.orders.v1.OrderCreated",
            "1a2430313932663063312d376231652d376363332d383030302d3030303030303030633030312203455552",
        ),
        (
            Event::ItemAdded { at: AT, quantity: 1, line: line("A-1", 2, 1_250), total },
            "holdfast.orders.v1.ItemAdded",
            "1a03412d3120012802320808e20912034555523a0808c4131203455552420808ce181203455552",
        ),
        (
            Event::ItemRemoved { at: AT, sku: sku("A-1"), total },
            "holdfast.orders.v1.ItemRemoved",
            "1a03412d31220808ce181203455552",
        ),
        (
            Event::OrderPlaced {
                at: AT,
                customer: CUSTOMER,
                lines: [line("A-1", 2, 1_250), line("B", 1, 650)].into(),
                total,
                payment_method: Some("pm_1".into()),
                address_id: None,
            },
            "holdfast.orders.v1.OrderPlaced",
            "1a2430313932663063312d376231652d376363332d383030302d303030303030303063303031221b0a03412d3110021a0808e2091203455552220808c413120345555222190a014210011a08088a0512034555522208088a0512034555522a0808ce1812034555523204706d5f31",
        ),
        (
            Event::OrderReserved {
                at: AT,
                until: UNTIL,
                customer: CUSTOMER,
                total,
                payment_method: Some("pm_1".into()),
            },
            "holdfast.orders.v1.OrderReserved",
            "1a060884e888d806222430313932663063312d376231652d376363332d383030302d3030303030303030633030312a0808ce1812034555523204706d5f31",
        ),
        (
            Event::OrderPaid {
                at: AT,
                payment: payment(),
                customer: CUSTOMER,
                address_id: Some("a_1".into()),
                lines: [line("A-1", 2, 1_250)].into(),
            },
            "holdfast.orders.v1.OrderPaid",
            "1a2430313932663063312d376231652d376363332d383030302d3030303030303030633030312203615f312a1b0a03412d3110021a0808e2091203455552220808c4131203455552322c0a0470695f31120808ce1812034555521a100a03455552120355534418d55420904e220808d61a1203555344",
        ),
        (
            Event::OrderPaymentMismatched { at: AT, payment: payment(), total: Money::new(5_000, Currency::EUR) },
            "holdfast.orders.v1.OrderPaymentMismatched",
            "1a080888271203455552222c0a0470695f31120808ce1812034555521a100a03455552120355534418d55420904e220808d61a1203555344",
        ),
        (
            Event::OrderCancellationRequested { at: AT, reason: "too late".into() },
            "holdfast.orders.v1.OrderCancellationRequested",
            "1a08746f6f206c617465",
        ),
        (
            Event::OrderShipped { at: AT, shipment: shipment() },
            "holdfast.orders.v1.OrderShipped",
            "1a0f0a03735f311204706f73741a025431",
        ),
        (Event::OrderDelivered { at: AT }, "holdfast.orders.v1.OrderDelivered", ""),
        (
            Event::OrderCancelled { at: AT, cancellation: cancellation() },
            "holdfast.orders.v1.OrderCancelled",
            "1802220c6f7574206f662073746f636b",
        ),
    ]
}

/// Every status, and the stored bytes of an order in it after [`STATE`].
fn states() -> [(Status, &'static str); 7] {
    [
        (
            Status::Draft,
            "1801220a0a03412d31100218e20922080a01421001188a053a04706d5f314203615f314a0b0880e188d80610c0a9d33a52060884e888d806",
        ),
        (
            Status::Placed { reserved_until: None },
            "1802220a0a03412d31100218e20922080a01421001188a053a04706d5f314203615f314a0b0880e188d80610c0a9d33a52060884e888d806",
        ),
        (
            Status::Placed { reserved_until: Some(UNTIL) },
            "1802220a0a03412d31100218e20922080a01421001188a0532060884e888d8063a04706d5f314203615f314a0b0880e188d80610c0a9d33a52060884e888d806",
        ),
        (
            Status::Paid,
            "1803220a0a03412d31100218e20922080a01421001188a053a04706d5f314203615f314a0b0880e188d80610c0a9d33a52060884e888d8065a2c0a0470695f31120808ce1812034555521a100a03455552120355534418d55420904e220808d61a12035553446208746f6f206c617465",
        ),
        (
            Status::Shipped,
            "1804220a0a03412d31100218e20922080a01421001188a053a04706d5f314203615f314a0b0880e188d80610c0a9d33a52060884e888d8065a2c0a0470695f31120808ce1812034555521a100a03455552120355534418d55420904e220808d61a12035553446a0f0a03735f311204706f73741a025431",
        ),
        (
            Status::Delivered,
            "1805220a0a03412d31100218e20922080a01421001188a053a04706d5f314203615f314a0b0880e188d80610c0a9d33a52060884e888d8065a2c0a0470695f31120808ce1812034555521a100a03455552120355534418d55420904e220808d61a12035553446a0f0a03735f311204706f73741a025431",
        ),
        (
            Status::Cancelled(cancellation()),
            "1806220a0a03412d31100218e20922080a01421001188a052a100802120c6f7574206f662073746f636b3a04706d5f314203615f314a0b0880e188d80610c0a9d33a52060884e888d806",
        ),
    ]
}

fn order(status: Status) -> Order {
    let is_paid = matches!(status, Status::Paid | Status::Shipped | Status::Delivered);
    let is_shipped = is_paid && status != Status::Paid;
    Order::rehydrate(Details {
        payment: is_paid.then(payment),
        mismatched_payment: None,
        cancellation_requested: (status == Status::Paid).then(|| "too late".into()),
        shipment: is_shipped.then(shipment),
        customer: CUSTOMER,
        lines: Lines::rehydrate(Currency::EUR, vec![line("A-1", 2, 1_250), line("B", 1, 650)]).unwrap(),
        status,
        payment_method: Some("pm_1".into()),
        address_id: Some("a_1".into()),
        created_at: AT,
        updated_at: UNTIL,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn events_are_written_as_ever() {
    let context = Context { key: ORDER, version: 1, now: AT };
    for (event, r#type, golden) in events() {
        let encoded = adapter().encode_event(&event, &context);
        assert_eq!((encoded.r#type, hex(&encoded.payload)), (r#type, format!("{EVENT}{golden}")));
        let message = Message {
            id: Uuid::nil(),
            source: "golden".into(),
            r#type: r#type.into(),
            key: ORDER.into(),
            content_type: ContentType::Protobuf,
            sequence: Some(1),
            correlation: None,
            causation: None,
            traceparent: None,
            tracestate: None,
            payload: encoded.payload,
        };
        assert_eq!(adapter().decode_event(&message), Ok(event), "and read back, for `holdfast recover`");
    }
}

#[test]
fn states_of_schema_1_are_written_as_ever_and_read_back() {
    for (status, golden) in states() {
        let (order, golden) = (order(status), format!("{STATE}{golden}"));
        assert_eq!(hex(&adapter().encode_state(&order)), golden);
        assert_eq!(adapter().decode_state(1, &unhex(&golden)), Ok(order));
    }
}

#[test]
fn state_with_a_mismatched_payment_is_read_back() {
    let placed = order(Status::Placed { reserved_until: None });
    let details = placed.details().cloned().unwrap();
    let mismatched = Order::rehydrate(Details { mismatched_payment: Some(payment()), ..details });
    let golden = format!(
        "{}722c0a0470695f31120808ce1812034555521a100a03455552120355534418d55420904e220808d61a1203555344",
        hex(&adapter().encode_state(&placed))
    );
    assert_eq!(hex(&adapter().encode_state(&mismatched)), golden);
    assert_eq!(adapter().decode_state(1, &unhex(&golden)), Ok(mismatched));
}

#[test]
fn state_no_build_could_have_written_is_an_error() {
    let [draft, .., cancelled] = states().map(|(_, golden)| format!("{STATE}{golden}"));
    assert!(adapter().decode_state(2, &unhex(&draft)).is_err(), "a later schema");
    assert!(adapter().decode_state(1, &unhex(&draft[..draft.len() - 2])).is_err(), "cut short");
    // The status is field 3; there is no 9.
    assert!(adapter().decode_state(1, &unhex(&cancelled.replacen("18062", "18092", 1))).is_err(), "an unknown status");
}
