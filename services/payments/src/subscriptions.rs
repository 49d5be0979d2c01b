//! What the events of orders mean to a payment.
//!
//! Reads tolerantly: only what a payment needs is looked at, so that orders may add to its events.
//! Deliberately absent: events that change nothing here; the runtime passes over types that nobody handles.

use holdfast_adapter::{body, check};
use holdfast_core::{
    Message,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_payments_domain::{Command, Quote};
use holdfast_proto::{Timestamp, money::v1::Money, orders::v1};
use prost::Name;
use serde::{Deserialize, Serialize};

use crate::{codec::order_id, settings::Settings};

/// `ce_type` of `OrderReserved`.
const ORDER_RESERVED: &str = "holdfast.orders.v1.OrderReserved";
/// `ce_type` of `OrderCancelled`.
const ORDER_CANCELLED: &str = "holdfast.orders.v1.OrderCancelled";

const ORDERS: &[MessageOrigin] = &[MessageOrigin::Events { topic: "orders.events", sources: &["holdfast/orders/"] }];

/// The events that payments follow, from orders alone.
pub(crate) const HANDLED: &[Handled] = &[Handled::new(ORDER_RESERVED, ORDERS), Handled::new(ORDER_CANCELLED, ORDERS)];

/// Longest token of a payment method, in bytes.
const PAYMENT_METHOD_BYTES_MAX: usize = 255;

/// The command that the event in `message` stands for; `None` if it is none of these types.
pub(crate) fn decode(message: &Message, settings: Settings) -> Option<Result<Command, Refused>> {
    Some(match &*message.r#type {
        ORDER_RESERVED => order_reserved(message, settings),
        ORDER_CANCELLED => order_cancelled(message),
        _ => return None,
    })
}

/// `holdfast.orders.v1.OrderReserved` with what payments needs of it. Not the contract's own message, whose
/// JSON refuses fields it does not know.
#[derive(Clone, PartialEq, prost::Message, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct OrderReserved {
    /// UUID in canonical form.
    #[prost(string, tag = "1")]
    pub(crate) order_id: String,
    /// When.
    #[prost(message, optional, tag = "2")]
    pub(crate) occurred_at: Option<Timestamp>,
    /// What the order costs.
    #[prost(message, optional, tag = "5")]
    pub(crate) total: Option<Money>,
    /// Token of the payment method; empty if none was given.
    #[prost(string, tag = "6")]
    pub(crate) payment_method: String,
}

impl Name for OrderReserved {
    const NAME: &'static str = "OrderReserved";
    const PACKAGE: &'static str = "holdfast.orders.v1";
}

fn order_reserved(message: &Message, settings: Settings) -> Result<Command, Refused> {
    let event: OrderReserved = body::decode(message)?;
    order_id(&event.order_id, message)?;
    let amount = check::money("total", event.total.as_ref())?;
    if amount.is_negative() {
        return Err(Refused::invalid("total.minor", "total.minor is negative"));
    }
    let payment_method = check::at_most("payment_method", &event.payment_method, PAYMENT_METHOD_BYTES_MAX)?;
    let payment_method = (!payment_method.is_empty()).then(|| payment_method.into());
    let authorize_first = settings.authorize_first;
    Ok(Command::OrderReserved { amount, payment_method, authorize_first, quote: Quote::NotAsked })
}

fn order_cancelled(message: &Message) -> Result<Command, Refused> {
    let event: v1::OrderCancelled = body::decode(message)?;
    order_id(&event.order_id, message)?;
    Ok(Command::OrderCancelled)
}
