//! Commands from and to the wire.
//!
//! Invariant: each promise that a comment of `commands.proto` makes about a field is checked here; what [`encode`] writes, [`decode`] reads
//! as the same command. Deliberately absent: rates that Prepare looks up, which are no part of a command on its way.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_adapter::{body, check};
use holdfast_core::{Message, disposition::Refused};
use holdfast_payments_domain::{Command, News, Outcome, Quote};
use holdfast_proto::payments::v1;
use prost::Message as _;

use super::{amount, rate, read_rate};

/// `ce_type` of `RefundPayment`.
pub const REFUND_PAYMENT: &str = "holdfast.payments.v1.RefundPayment";
const CHARGE_SUCCEEDED: &str = "holdfast.payments.v1.ChargeSucceeded";
const CHARGE_DECLINED: &str = "holdfast.payments.v1.ChargeDeclined";
const CAPTURE_SUCCEEDED: &str = "holdfast.payments.v1.CaptureSucceeded";
const AUTHORIZATION_ENDED: &str = "holdfast.payments.v1.AuthorizationEnded";
const REFUND_SUCCEEDED: &str = "holdfast.payments.v1.RefundSucceeded";
const REFUND_REFUSED: &str = "holdfast.payments.v1.RefundRefused";
/// `ce_type` of `ProviderReported`.
pub const PROVIDER_REPORTED: &str = "holdfast.payments.v1.ProviderReported";

/// The commands of the context.
pub(super) const HANDLED: &[&str] = &[
    REFUND_PAYMENT,
    CHARGE_SUCCEEDED,
    CHARGE_DECLINED,
    CAPTURE_SUCCEEDED,
    AUTHORIZATION_ENDED,
    REFUND_SUCCEEDED,
    REFUND_REFUSED,
    PROVIDER_REPORTED,
];

/// Longest reference of the provider's, in bytes.
const REFERENCE_BYTES_MAX: usize = 255;
/// Longest id of a refund, and longest code, in bytes.
const CODE_BYTES_MAX: usize = 64;

/// A command as it goes to an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedCommand {
    /// `ce_type`.
    pub r#type: &'static str,
    /// The protobuf body.
    pub payload: Bytes,
}

/// The command in `message`; `None` if it is none of these types.
pub(super) fn decode(message: &Message) -> Option<Result<Command, Refused>> {
    Some(match &*message.r#type {
        REFUND_PAYMENT => refund_payment(message),
        CHARGE_SUCCEEDED => charge_succeeded(message),
        CHARGE_DECLINED => charge_declined(message),
        CAPTURE_SUCCEEDED => capture_succeeded(message),
        AUTHORIZATION_ENDED => authorization_ended(message),
        REFUND_SUCCEEDED => refund_succeeded(message),
        REFUND_REFUSED => refund_refused(message),
        PROVIDER_REPORTED => provider_reported(message),
        _ => return None,
    })
}

fn refund_payment(message: &Message) -> Result<Command, Refused> {
    let body: v1::RefundPayment = body::decode(message)?;
    order_id(&body.order_id, message)?;
    let id = required("refund_id", &body.refund_id, CODE_BYTES_MAX)?;
    let amount = check::money("amount", body.amount.as_ref())?;
    check::positive("amount.minor", amount.minor)?;
    Ok(Command::RefundPayment { id, amount })
}

fn charge_succeeded(message: &Message) -> Result<Command, Refused> {
    let body: v1::ChargeSucceeded = body::decode(message)?;
    order_id(&body.order_id, message)?;
    let outcome = match (body.captured, &body.rate) {
        (true, rate) => Outcome::Captured { rate: read_rate("rate", rate.as_ref())? },
        (false, None) => Outcome::Authorized,
        (false, Some(_)) => return Err(Refused::invalid("rate", "rate is set, but nothing was captured")),
    };
    Ok(Command::ChargeSucceeded { reference: reference(&body.provider_ref)?, outcome })
}

fn charge_declined(message: &Message) -> Result<Command, Refused> {
    let body: v1::ChargeDeclined = body::decode(message)?;
    order_id(&body.order_id, message)?;
    Ok(Command::ChargeDeclined { code: required("code", &body.code, CODE_BYTES_MAX)? })
}

fn capture_succeeded(message: &Message) -> Result<Command, Refused> {
    let body: v1::CaptureSucceeded = body::decode(message)?;
    order_id(&body.order_id, message)?;
    let amount = check::money("amount", body.amount.as_ref())?;
    Ok(Command::CaptureSucceeded { amount, rate: read_rate("rate", body.rate.as_ref())? })
}

fn authorization_ended(message: &Message) -> Result<Command, Refused> {
    let body: v1::AuthorizationEnded = body::decode(message)?;
    order_id(&body.order_id, message)?;
    Ok(Command::AuthorizationEnded)
}

fn refund_succeeded(message: &Message) -> Result<Command, Refused> {
    let body: v1::RefundSucceeded = body::decode(message)?;
    order_id(&body.order_id, message)?;
    Ok(Command::RefundSucceeded { number: number(body.refund_no)?, reference: reference(&body.provider_ref)? })
}

fn refund_refused(message: &Message) -> Result<Command, Refused> {
    let body: v1::RefundRefused = body::decode(message)?;
    order_id(&body.order_id, message)?;
    let code = required("code", &body.code, CODE_BYTES_MAX)?;
    Ok(Command::RefundRefused { number: number(body.refund_no)?, code })
}

fn provider_reported(message: &Message) -> Result<Command, Refused> {
    let body: v1::ProviderReported = body::decode(message)?;
    order_id(&body.order_id, message)?;
    let amount = || check::money("amount", body.amount.as_ref());
    let news = match body.news() {
        v1::ProviderNews::Authorized => {
            News::Authorized { amount: body.amount.as_ref().map(|_| amount()).transpose()? }
        }
        v1::ProviderNews::Captured => News::Captured { amount: amount()?, quote: Quote::NotAsked },
        v1::ProviderNews::Failed => News::Failed { code: required("code", &body.code, CODE_BYTES_MAX)? },
        v1::ProviderNews::Canceled => News::Canceled,
        v1::ProviderNews::Refunded => News::Refunded { total: amount()? },
        v1::ProviderNews::Unspecified => return Err(Refused::invalid("news", "news is unknown")),
    };
    Ok(Command::ProviderReported { reference: reference(&body.provider_ref)?, news })
}

/// The order's id is well-formed, and the record's key.
pub(crate) fn order_id(id: &str, message: &Message) -> Result<(), Refused> {
    check::canonical_uuid("order_id", id)?;
    check::equals_key("order_id", id, &message.key)
}

fn required(field: &str, text: &str, bytes_max: usize) -> Result<Arc<str>, Refused> {
    if text.is_empty() {
        return Err(check::missing(field));
    }
    Ok(check::at_most(field, text, bytes_max)?.into())
}

fn reference(text: &str) -> Result<Arc<str>, Refused> {
    required("provider_ref", text, REFERENCE_BYTES_MAX)
}

pub(super) fn number(number: i32) -> Result<u32, Refused> {
    let number = u32::try_from(number).ok().filter(|number| *number > 0);
    number.ok_or_else(|| Refused::invalid("refund_no", "refund_no is not at least 1"))
}

/// The command as it goes to the actor of the order `key`; `None` for one that never travels: it follows from an event of another context, or
/// from an answer of the provider.
pub fn encode(command: &Command, key: &str) -> Option<EncodedCommand> {
    let order_id = key.to_owned();
    let (r#type, payload) = match command {
        Command::OrderReserved { .. } | Command::OrderCancelled | Command::ProviderContradicted { .. } => return None,
        Command::RefundPayment { id, amount: wanted } => {
            let (refund_id, amount) = (id.as_ref().to_owned(), Some(amount(*wanted)));
            (REFUND_PAYMENT, v1::RefundPayment { order_id, refund_id, amount }.encode_to_vec())
        }
        Command::ChargeSucceeded { reference, outcome } => {
            let rate = match outcome {
                Outcome::Authorized => None,
                Outcome::Captured { rate: at } => Some(rate(*at)),
            };
            let (provider_ref, captured) = (reference.as_ref().to_owned(), rate.is_some());
            (CHARGE_SUCCEEDED, v1::ChargeSucceeded { order_id, provider_ref, captured, rate }.encode_to_vec())
        }
        Command::ChargeDeclined { code } => {
            (CHARGE_DECLINED, v1::ChargeDeclined { order_id, code: code.as_ref().to_owned() }.encode_to_vec())
        }
        Command::CaptureSucceeded { amount: moved, rate: at } => {
            let (rate, amount) = (Some(rate(*at)), Some(amount(*moved)));
            (CAPTURE_SUCCEEDED, v1::CaptureSucceeded { order_id, rate, amount }.encode_to_vec())
        }
        Command::AuthorizationEnded => (AUTHORIZATION_ENDED, v1::AuthorizationEnded { order_id }.encode_to_vec()),
        Command::RefundSucceeded { number, reference } => {
            let (refund_no, provider_ref) = (wire_number(*number), reference.as_ref().to_owned());
            (REFUND_SUCCEEDED, v1::RefundSucceeded { order_id, refund_no, provider_ref }.encode_to_vec())
        }
        Command::RefundRefused { number, code } => {
            let (refund_no, code) = (wire_number(*number), code.as_ref().to_owned());
            (REFUND_REFUSED, v1::RefundRefused { order_id, refund_no, code }.encode_to_vec())
        }
        Command::ProviderReported { reference, news } => {
            (PROVIDER_REPORTED, report(order_id, reference.as_ref().to_owned(), news).encode_to_vec())
        }
    };
    Some(EncodedCommand { r#type, payload: payload.into() })
}

fn report(order_id: String, provider_ref: String, news: &News) -> v1::ProviderReported {
    let (news, amount, code) = match news {
        News::Authorized { amount: held } => (v1::ProviderNews::Authorized, held.map(amount), ""),
        News::Captured { amount: moved, .. } => (v1::ProviderNews::Captured, Some(amount(*moved)), ""),
        News::Failed { code } => (v1::ProviderNews::Failed, None, &**code),
        News::Canceled => (v1::ProviderNews::Canceled, None, ""),
        News::Refunded { total } => (v1::ProviderNews::Refunded, Some(amount(*total)), ""),
    };
    v1::ProviderReported { order_id, provider_ref, news: news.into(), amount, code: code.to_owned() }
}

/// There are never more refunds than a handful above [`holdfast_payments_domain::REFUNDS_MAX`].
pub(super) fn wire_number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
