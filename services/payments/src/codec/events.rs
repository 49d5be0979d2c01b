//! Events to the wire.

use holdfast_core::codec::EncodedEvent;
use holdfast_payments_domain::{Cause, Contradiction, Event, Subject, Then};
use holdfast_proto::payments::v1;
use prost::Message as _;

use super::{
    commands::wire_number,
    parts::{amount, rate, stamp, text},
};

/// `ce_type` of `PaymentRequested`.
pub(super) const PAYMENT_REQUESTED: &str = "holdfast.payments.v1.PaymentRequested";
/// `ce_type` of `PaymentAuthorized`.
pub(super) const PAYMENT_AUTHORIZED: &str = "holdfast.payments.v1.PaymentAuthorized";
/// `ce_type` of `PaymentCaptured`.
pub(super) const PAYMENT_CAPTURED: &str = "holdfast.payments.v1.PaymentCaptured";
/// `ce_type` of `PaymentDeclined`.
pub(super) const PAYMENT_DECLINED: &str = "holdfast.payments.v1.PaymentDeclined";
/// `ce_type` of `PaymentCancellationNoted`.
pub(super) const PAYMENT_CANCELLATION_NOTED: &str = "holdfast.payments.v1.PaymentCancellationNoted";
/// `ce_type` of `PaymentVoided`.
pub(super) const PAYMENT_VOIDED: &str = "holdfast.payments.v1.PaymentVoided";
/// `ce_type` of `RefundRequested`.
pub(super) const REFUND_REQUESTED: &str = "holdfast.payments.v1.RefundRequested";
/// `ce_type` of `PaymentRefunded`.
pub(super) const PAYMENT_REFUNDED: &str = "holdfast.payments.v1.PaymentRefunded";
/// `ce_type` of `RefundFailed`.
pub(super) const REFUND_FAILED: &str = "holdfast.payments.v1.RefundFailed";
/// `ce_type` of `PaymentContradicted`.
pub(super) const PAYMENT_CONTRADICTED: &str = "holdfast.payments.v1.PaymentContradicted";

/// The event of the order `key`.
pub(super) fn encode(event: &Event, key: &str) -> EncodedEvent {
    let order_id = key.to_owned();
    let occurred_at = Some(stamp(event.at()));
    let (r#type, payload) = match event {
        Event::PaymentRequested { amount: whole, payment_method, authorize_first, .. } => {
            let body = v1::PaymentRequested {
                order_id,
                occurred_at,
                amount: Some(amount(*whole)),
                payment_method: text(payment_method.as_ref()),
                authorize_first: *authorize_first,
            };
            (PAYMENT_REQUESTED, body.encode_to_vec())
        }
        Event::PaymentAuthorized { reference, amount: whole, then, .. } => {
            let (payment_id, amount) = (reference.as_ref().to_owned(), Some(amount(*whole)));
            let voids = *then == Then::Void;
            let body = v1::PaymentAuthorized { order_id, occurred_at, payment_id, amount, voids };
            (PAYMENT_AUTHORIZED, body.encode_to_vec())
        }
        Event::PaymentCaptured { reference, amount: whole, rate: pinned, settled, .. } => {
            let body = v1::PaymentCaptured {
                order_id,
                occurred_at,
                payment_id: reference.as_ref().to_owned(),
                amount: Some(amount(*whole)),
                rate: Some(rate(*pinned)),
                settled: Some(amount(*settled)),
            };
            (PAYMENT_CAPTURED, body.encode_to_vec())
        }
        Event::PaymentDeclined { code, .. } => {
            let code = code.as_ref().to_owned();
            (PAYMENT_DECLINED, v1::PaymentDeclined { order_id, occurred_at, code }.encode_to_vec())
        }
        Event::PaymentCancellationNoted { voids, .. } => {
            let voids = text(voids.as_ref());
            let body = v1::PaymentCancellationNoted { order_id, occurred_at, voids };
            (PAYMENT_CANCELLATION_NOTED, body.encode_to_vec())
        }
        Event::PaymentVoided { .. } => (PAYMENT_VOIDED, v1::PaymentVoided { order_id, occurred_at }.encode_to_vec()),
        Event::RefundRequested { number, amount: part, cause: why, reference, .. } => {
            let (cause, refund_id) = cause(why);
            let body = v1::RefundRequested {
                order_id,
                occurred_at,
                refund_no: wire_number(*number),
                amount: Some(amount(*part)),
                cause: cause.into(),
                refund_id,
                payment_id: reference.as_ref().to_owned(),
            };
            (REFUND_REQUESTED, body.encode_to_vec())
        }
        Event::PaymentRefunded { number, amount: part, refunded_total, settled, reference, .. } => {
            let body = v1::PaymentRefunded {
                order_id,
                occurred_at,
                refund_no: wire_number(*number),
                amount: Some(amount(*part)),
                refunded_total: Some(amount(*refunded_total)),
                settled: Some(amount(*settled)),
                provider_ref: text(reference.as_ref()),
            };
            (PAYMENT_REFUNDED, body.encode_to_vec())
        }
        Event::RefundFailed { number, amount: part, code, .. } => {
            let (amount, code) = (Some(amount(*part)), code.as_ref().to_owned());
            let refund_no = wire_number(*number);
            (REFUND_FAILED, v1::RefundFailed { order_id, occurred_at, refund_no, amount, code }.encode_to_vec())
        }
        Event::PaymentContradicted { contradiction: found, refunds, .. } => {
            let contradiction = Some(contradiction(found));
            let stopped_refunds = refunds.iter().map(|number| wire_number(*number)).collect();
            let body = v1::PaymentContradicted { order_id, occurred_at, contradiction, stopped_refunds };
            (PAYMENT_CONTRADICTED, body.encode_to_vec())
        }
    };
    EncodedEvent { r#type, payload: payload.into() }
}

/// A cause, and the id that goes with it.
pub(super) fn cause(cause: &Cause) -> (v1::RefundCause, String) {
    match cause {
        Cause::Requested { id } => (v1::RefundCause::Requested, id.as_ref().to_owned()),
        Cause::OrderCancelled => (v1::RefundCause::OrderCancelled, String::new()),
        Cause::LateCapture => (v1::RefundCause::LateCapture, String::new()),
    }
}

pub(super) fn contradiction(contradiction: &Contradiction) -> v1::Contradiction {
    let Contradiction { source, subject, asked, answered } = contradiction;
    let subject = match subject {
        Subject::Order => v1::ContradictionSubject::Order,
        Subject::Charge => v1::ContradictionSubject::Charge,
        Subject::Refund => v1::ContradictionSubject::Refund,
        Subject::Amount => v1::ContradictionSubject::Amount,
    };
    let [source, asked, answered] = [source, asked, answered].map(|text| text.as_ref().to_owned());
    v1::Contradiction { source, subject: subject.into(), asked, answered }
}
