//! The stored payment.
//!
//! What is stored is trusted, but a state that no build could have written is an error, never a guess.
//! Deliberately absent: what is refunded in all, which follows from the refunds.

use bytes::Bytes;
use holdfast_adapter::check;
use holdfast_core::{Aggregate, Timestamp, codec::StateError, disposition::Refused};
use holdfast_payments_domain::{Details, Payment, Refund, Settlement, State, Status};
use holdfast_proto::{payments::v1, time};
use prost::Message as _;

use super::{
    commands::number,
    events,
    parts::{amount, given, rate, read_rate, stamp, text},
    recover, reply,
};

/// The form in which the payment is stored; empty if it does not exist.
pub(super) fn encode(state: &Payment) -> Bytes {
    let Some(details) = state.details() else { return Bytes::new() };
    v1::PaymentState {
        status: reply::status(&details.status).into(),
        amount: details.amount.map(amount),
        payment_id: text(details.reference.as_ref()),
        rate: details.settlement.map(|settlement| rate(settlement.rate)),
        settled: details.settlement.map(|settlement| amount(settlement.settled)),
        decline_code: reply::code(&details.status),
        cancelled: details.cancelled,
        refunds: details.refunds.iter().map(reply::refund).collect(),
        created_at: Some(stamp(details.created_at)),
        updated_at: Some(stamp(details.updated_at)),
        contradiction: details.contradiction.as_ref().map(events::contradiction),
    }
    .encode_to_vec()
    .into()
}

/// Reads a stored payment of `schema`.
///
/// # Errors
/// [`StateError`] for a schema of a later build, and for bytes that none could have written.
pub fn decode(schema: u32, bytes: &[u8]) -> Result<Payment, StateError> {
    let broken = |reason: &str| StateError { schema, reason: reason.to_owned() };
    if schema != Payment::SCHEMA {
        return Err(broken("this build knows schema 1 only"));
    }
    if bytes.is_empty() {
        return Ok(Payment::default());
    }
    let stored = v1::PaymentState::decode(bytes).map_err(|error| broken(&error.to_string()))?;
    rehydrate(&stored).map(Payment::rehydrate).map_err(|reason| broken(&reason))
}

fn rehydrate(stored: &v1::PaymentState) -> Result<Details, String> {
    let amount = stored.amount.as_ref().map(|amount| check::money("amount", Some(amount))).transpose();
    let settlement = match (&stored.rate, &stored.settled) {
        (None, None) => None,
        (rate, settled) => Some(Settlement {
            rate: read_rate("rate", rate.as_ref()).map_err(why)?,
            settled: check::money("settled", settled.as_ref()).map_err(why)?,
        }),
    };
    let status = status(stored)?;
    let moved = matches!(status, Status::Captured | Status::PartiallyRefunded | Status::Refunded);
    if moved != settlement.is_some() {
        return Err("the settlement does not fit the status".to_owned());
    }
    Ok(Details {
        amount: amount.map_err(why)?,
        status,
        reference: given(&stored.payment_id),
        settlement,
        cancelled: stored.cancelled,
        refunds: stored.refunds.iter().map(refund).collect::<Result<_, _>>()?,
        contradiction: stored
            .contradiction
            .as_ref()
            .map(|found| recover::contradiction(found).ok_or("a contradiction that this build does not know"))
            .transpose()?,
        created_at: stamped(stored.created_at.as_ref())?,
        updated_at: stamped(stored.updated_at.as_ref())?,
    })
}

fn status(stored: &v1::PaymentState) -> Result<Status, String> {
    let status = match stored.status() {
        v1::PaymentStatus::Requested => Status::Requested,
        v1::PaymentStatus::Authorized => Status::Authorized,
        v1::PaymentStatus::Captured => Status::Captured,
        v1::PaymentStatus::PartiallyRefunded => Status::PartiallyRefunded,
        v1::PaymentStatus::Refunded => Status::Refunded,
        v1::PaymentStatus::Declined => Status::Declined { code: stored.decline_code.as_str().into() },
        v1::PaymentStatus::Voided => Status::Voided,
        v1::PaymentStatus::Unspecified => return Err("a status that this build does not know".to_owned()),
    };
    if stored.amount.is_none() && status != Status::Voided {
        return Err("an amount is missing".to_owned());
    }
    Ok(status)
}

fn refund(stored: &v1::Refund) -> Result<Refund, String> {
    let state = match stored.status() {
        v1::RefundStatus::Pending => State::Pending,
        v1::RefundStatus::Done => State::Done {
            settled: check::money("settled", stored.settled.as_ref()).map_err(why)?,
            reference: given(&stored.provider_ref),
        },
        v1::RefundStatus::Failed => State::Failed { code: stored.code.as_str().into() },
        v1::RefundStatus::Unspecified => return Err("a refund's status that this build does not know".to_owned()),
    };
    Ok(Refund {
        number: number(stored.refund_no).map_err(why)?,
        amount: check::money("amount", stored.amount.as_ref()).map_err(why)?,
        cause: recover::cause(stored.cause(), &stored.refund_id).ok_or("a refund without a cause")?,
        state,
    })
}

fn stamped(at: Option<&holdfast_proto::Timestamp>) -> Result<Timestamp, String> {
    at.and_then(time::to_unix_ms).map(Timestamp::from_unix_ms).ok_or_else(|| "a time is missing or none".to_owned())
}

fn why(refused: Refused) -> String {
    refused.error
}
