//! The calls to the provider that follow from events, as they are stored until their outcome is known.
//!
//! Invariant: the payload is written once, with the event, and is the same at every attempt: a provider
//! refuses a key that comes with other parameters. Deliberately absent: which event brings about which call,
//! which is [`Event::effects`].

use std::sync::Arc;

use bytes::Bytes;
use holdfast_adapter::check;
use holdfast_core::{codec::EncodedEffect, disposition::Refused};
use holdfast_payments_domain::{Call, EffectChange, Event};
use holdfast_proto::payments::v1::{self, provider_request::Call as Wire};
use prost::Message as _;

use super::{commands, parts::amount};

/// What `event` of the order `key` does to the calls that are under way, in order.
pub fn effects_after(event: &Event, key: &str) -> Vec<EncodedEffect> {
    let change = |change| match change {
        EffectChange::Begin { name, call } => {
            EncodedEffect { name: name.into_owned(), request: Some(encode(&call, key)) }
        }
        EffectChange::End { name } => EncodedEffect { name: name.into_owned(), request: None },
    };
    event.effects().into_iter().map(change).collect()
}

fn encode(call: &Call, key: &str) -> Bytes {
    let call = match call {
        Call::Charge { amount: whole, payment_method, authorize_first } => Wire::Charge(v1::ChargeCall {
            amount: Some(amount(*whole)),
            payment_method: payment_method.as_ref().to_owned(),
            authorize_first: *authorize_first,
        }),
        Call::Capture { reference } => Wire::Capture(v1::CaptureCall { payment_id: reference.as_ref().to_owned() }),
        Call::Void { reference } => Wire::Void(v1::VoidCall { payment_id: reference.as_ref().to_owned() }),
        Call::Refund { reference, number, amount: part } => Wire::Refund(v1::RefundCall {
            payment_id: reference.as_ref().to_owned(),
            refund_no: commands::wire_number(*number),
            amount: Some(amount(*part)),
        }),
    };
    v1::ProviderRequest { order_id: key.to_owned(), call: Some(call) }.encode_to_vec().into()
}

/// The order and the call in an effect's payload.
///
/// # Errors
/// [`Refused`] for bytes that no build could have written.
pub fn decode_call(payload: &[u8]) -> Result<(String, Call), Refused> {
    let request = v1::ProviderRequest::decode(payload)
        .map_err(|_| Refused::undecodable("the payload is not a request to the provider"))?;
    let call = match request.call.ok_or_else(|| check::missing("call"))? {
        Wire::Charge(call) => Call::Charge {
            amount: check::money("amount", call.amount.as_ref())?,
            payment_method: Arc::from(call.payment_method),
            authorize_first: call.authorize_first,
        },
        Wire::Capture(call) => Call::Capture { reference: Arc::from(call.payment_id) },
        Wire::Void(call) => Call::Void { reference: Arc::from(call.payment_id) },
        Wire::Refund(call) => Call::Refund {
            reference: Arc::from(call.payment_id),
            number: commands::number(call.refund_no)?,
            amount: check::money("amount", call.amount.as_ref())?,
        },
    };
    Ok((request.order_id, call))
}
