//! Events back from the wire, for `holdfast recover`.
//!
//! Invariant: what [`super::events::encode`] wrote comes back as it was, and with it the calls that follow
//! from it. Nothing is guessed: an event that this build did not write is refused.

use holdfast_adapter::{body, check};
use holdfast_core::{Message, disposition::Refused};
use holdfast_payments_domain::{Cause, Contradiction, Event, Subject, Then};
use holdfast_proto::payments::v1;

use super::{
    commands::number,
    events::{
        PAYMENT_AUTHORIZED, PAYMENT_CANCELLATION_NOTED, PAYMENT_CAPTURED, PAYMENT_CONTRADICTED, PAYMENT_DECLINED,
        PAYMENT_REFUNDED, PAYMENT_REQUESTED, PAYMENT_VOIDED, REFUND_FAILED, REFUND_REQUESTED,
    },
    parts::{given, read_rate},
};

/// The event in `message`.
pub(super) fn decode(message: &Message) -> Result<Event, Refused> {
    let at = |time: Option<&_>| check::time("occurred_at", time);
    let money = |amount: Option<&_>| check::money("amount", amount);
    Ok(match &*message.r#type {
        PAYMENT_REQUESTED => {
            let event: v1::PaymentRequested = body::decode(message)?;
            Event::PaymentRequested {
                at: at(event.occurred_at.as_ref())?,
                amount: money(event.amount.as_ref())?,
                payment_method: given(&event.payment_method),
                authorize_first: event.authorize_first,
            }
        }
        PAYMENT_AUTHORIZED => {
            let event: v1::PaymentAuthorized = body::decode(message)?;
            Event::PaymentAuthorized {
                at: at(event.occurred_at.as_ref())?,
                reference: event.payment_id.into(),
                amount: money(event.amount.as_ref())?,
                then: if event.voids { Then::Void } else { Then::Capture },
            }
        }
        PAYMENT_CAPTURED => {
            let event: v1::PaymentCaptured = body::decode(message)?;
            Event::PaymentCaptured {
                at: at(event.occurred_at.as_ref())?,
                reference: event.payment_id.into(),
                amount: money(event.amount.as_ref())?,
                rate: read_rate("rate", event.rate.as_ref())?,
                settled: check::money("settled", event.settled.as_ref())?,
            }
        }
        PAYMENT_DECLINED => {
            let event: v1::PaymentDeclined = body::decode(message)?;
            Event::PaymentDeclined { at: at(event.occurred_at.as_ref())?, code: event.code.into() }
        }
        PAYMENT_CANCELLATION_NOTED => {
            let event: v1::PaymentCancellationNoted = body::decode(message)?;
            Event::PaymentCancellationNoted { at: at(event.occurred_at.as_ref())?, voids: given(&event.voids) }
        }
        PAYMENT_VOIDED => {
            let event: v1::PaymentVoided = body::decode(message)?;
            Event::PaymentVoided { at: at(event.occurred_at.as_ref())? }
        }
        REFUND_REQUESTED => {
            let event: v1::RefundRequested = body::decode(message)?;
            Event::RefundRequested {
                at: at(event.occurred_at.as_ref())?,
                number: number(event.refund_no)?,
                amount: money(event.amount.as_ref())?,
                cause: cause(event.cause(), &event.refund_id)
                    .ok_or_else(|| Refused::invalid("cause", "cause is unknown"))?,
                reference: event.payment_id.into(),
            }
        }
        PAYMENT_REFUNDED => {
            let event: v1::PaymentRefunded = body::decode(message)?;
            Event::PaymentRefunded {
                at: at(event.occurred_at.as_ref())?,
                number: number(event.refund_no)?,
                amount: money(event.amount.as_ref())?,
                refunded_total: check::money("refunded_total", event.refunded_total.as_ref())?,
                settled: check::money("settled", event.settled.as_ref())?,
                reference: given(&event.provider_ref),
            }
        }
        REFUND_FAILED => {
            let event: v1::RefundFailed = body::decode(message)?;
            Event::RefundFailed {
                at: at(event.occurred_at.as_ref())?,
                number: number(event.refund_no)?,
                amount: money(event.amount.as_ref())?,
                code: event.code.into(),
            }
        }
        PAYMENT_CONTRADICTED => {
            let event: v1::PaymentContradicted = body::decode(message)?;
            Event::PaymentContradicted {
                at: at(event.occurred_at.as_ref())?,
                contradiction: event.contradiction.as_ref().and_then(contradiction).ok_or_else(|| {
                    Refused::invalid("contradiction", "contradiction is missing or of an unknown subject")
                })?,
                refunds: event.stopped_refunds.into_iter().map(number).collect::<Result<_, _>>()?,
            }
        }
        _ => return Err(Refused::unknown_type()),
    })
}

/// The contradiction of these words; `None` if its subject is none that this build knows.
pub(super) fn contradiction(stored: &v1::Contradiction) -> Option<Contradiction> {
    let subject = match stored.subject() {
        v1::ContradictionSubject::Order => Subject::Order,
        v1::ContradictionSubject::Charge => Subject::Charge,
        v1::ContradictionSubject::Refund => Subject::Refund,
        v1::ContradictionSubject::Amount => Subject::Amount,
        v1::ContradictionSubject::Unspecified => return None,
    };
    let [source, asked, answered] = [&stored.source, &stored.asked, &stored.answered].map(|text| text.as_str().into());
    Some(Contradiction { source, subject, asked, answered })
}

/// The cause of these words; `None` if it is none.
pub(super) fn cause(cause: v1::RefundCause, refund_id: &str) -> Option<Cause> {
    match cause {
        v1::RefundCause::Requested => Some(Cause::Requested { id: refund_id.into() }),
        v1::RefundCause::OrderCancelled => Some(Cause::OrderCancelled),
        v1::RefundCause::LateCapture => Some(Cause::LateCapture),
        v1::RefundCause::Unspecified => None,
    }
}
