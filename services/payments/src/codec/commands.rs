//! Commands from the wire, and the provider's reports to it.
//!
//! Invariant: each promise that a comment of `commands.proto` makes about a field is checked here. How a call
//! to the provider ended is given by the runtime as a command and has no form on the wire that is read; its
//! types are declared, so that a record of one is refused by name. Deliberately absent: rates that Prepare
//! looks up, which are no part of a command on its way.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_adapter::{body, check};
use holdfast_core::{
    Message,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_payments_domain::{CAPTURE, CHARGE, Command, News, Quote, VOID};
use holdfast_proto::payments::v1;
use prost::Message as _;

use super::parts::amount;

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

/// `ce_source` of what comes by webhook, under which its claims are found.
pub const WEBHOOK_SOURCE: &str = "stripe/webhook";

/// What effects of refunds are called, up to the number.
const REFUND: &str = "refund";

/// The commands of the context, and its news of the provider.
pub(super) const HANDLED: &[Handled] = &[
    Handled::new(REFUND_PAYMENT, &[MessageOrigin::Commands, MessageOrigin::Call]),
    Handled::new(CHARGE_SUCCEEDED, &[MessageOrigin::Effect(CHARGE), MessageOrigin::Effect(VOID)]),
    Handled::new(CHARGE_DECLINED, &[MessageOrigin::Effect(CHARGE)]),
    Handled::new(CAPTURE_SUCCEEDED, &[MessageOrigin::Effect(CAPTURE)]),
    Handled::new(AUTHORIZATION_ENDED, &[MessageOrigin::Effect(CAPTURE), MessageOrigin::Effect(VOID)]),
    Handled::new(REFUND_SUCCEEDED, &[MessageOrigin::Effect(REFUND)]),
    Handled::new(REFUND_REFUSED, &[MessageOrigin::Effect(REFUND)]),
    Handled::new(PROVIDER_REPORTED, &[MessageOrigin::Webhook(WEBHOOK_SOURCE)]),
];

/// Longest reference of the provider's, in bytes.
const REFERENCE_BYTES_MAX: usize = 255;
/// Longest id of a refund, and longest code, in bytes.
const CODE_BYTES_MAX: usize = 64;

/// The command in `message`; `None` if it is none of these types.
pub(super) fn decode(message: &Message) -> Option<Result<Command, Refused>> {
    Some(match &*message.r#type {
        REFUND_PAYMENT => refund_payment(message),
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

/// The body of `ProviderReported`: `news` of the order's charge, which the provider calls `reference`.
pub(crate) fn encode_report(order_id: &str, reference: &str, news: &News) -> Bytes {
    let (news, amount, code) = match news {
        News::Authorized { amount: held } => (v1::ProviderNews::Authorized, held.map(amount), ""),
        News::Captured { amount: moved, .. } => (v1::ProviderNews::Captured, Some(amount(*moved)), ""),
        News::Failed { code } => (v1::ProviderNews::Failed, None, &**code),
        News::Canceled => (v1::ProviderNews::Canceled, None, ""),
        News::Refunded { total } => (v1::ProviderNews::Refunded, Some(amount(*total)), ""),
    };
    let (order_id, provider_ref, code) = (order_id.to_owned(), reference.to_owned(), code.to_owned());
    v1::ProviderReported { order_id, provider_ref, news: news.into(), amount, code }.encode_to_vec().into()
}

/// There are never more refunds than a handful above [`holdfast_payments_domain::REFUNDS_MAX`].
pub(super) fn wire_number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
