//! The payment as others see it.

use bytes::Bytes;
use holdfast_core::Context;
use holdfast_payments_domain::{Payment, Refund, State, Status};
use holdfast_proto::payments::v1;
use prost::Message as _;

use super::{
    commands::wire_number,
    events,
    parts::{amount, rate, stamp, text},
};

/// The payment's public message; empty if it does not exist.
pub(super) fn encode(state: &Payment, context: &Context<'_>) -> Bytes {
    let Some(details) = state.details() else { return Bytes::new() };
    v1::Payment {
        order_id: context.key.to_owned(),
        status: status(&details.status).into(),
        amount: details.amount.map(amount),
        payment_id: text(details.reference.as_ref()),
        refunded: details.refunded().map(amount),
        rate: details.settlement.map(|settlement| rate(settlement.rate)),
        settled: details.settlement.map(|settlement| amount(settlement.settled)),
        settled_refunded: details.settled_refunded().map(amount),
        decline_code: code(&details.status),
        cancelled: details.cancelled,
        refunds: details.refunds.iter().map(refund).collect(),
        created_at: Some(stamp(details.created_at)),
        updated_at: Some(stamp(details.updated_at)),
        version: context.version,
        contradiction: details.contradiction.as_ref().map(events::contradiction),
    }
    .encode_to_vec()
    .into()
}

pub(super) fn refund(refund: &Refund) -> v1::Refund {
    let (cause, refund_id) = events::cause(&refund.cause);
    let (status, settled, code, provider_ref) = match &refund.state {
        State::Pending => (v1::RefundStatus::Pending, None, "", None),
        State::Done { settled, reference } => (v1::RefundStatus::Done, Some(*settled), "", reference.as_ref()),
        State::Failed { code } => (v1::RefundStatus::Failed, None, &**code, None),
    };
    v1::Refund {
        refund_no: wire_number(refund.number),
        refund_id,
        amount: Some(amount(refund.amount)),
        cause: cause.into(),
        status: status.into(),
        settled: settled.map(amount),
        code: code.to_owned(),
        provider_ref: text(provider_ref),
    }
}

pub(super) const fn status(status: &Status) -> v1::PaymentStatus {
    match status {
        Status::Requested => v1::PaymentStatus::Requested,
        Status::Authorized => v1::PaymentStatus::Authorized,
        Status::Captured => v1::PaymentStatus::Captured,
        Status::PartiallyRefunded => v1::PaymentStatus::PartiallyRefunded,
        Status::Refunded => v1::PaymentStatus::Refunded,
        Status::Declined { .. } => v1::PaymentStatus::Declined,
        Status::Voided => v1::PaymentStatus::Voided,
    }
}

pub(super) fn code(status: &Status) -> String {
    match status {
        Status::Declined { code } => code.as_ref().to_owned(),
        _ => String::new(),
    }
}
