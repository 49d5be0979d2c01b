//! What the events of orders mean to a reservation.
//!
//! Reads tolerantly: only what a reservation needs is looked at, so that orders may add to its events. How
//! many lines an order may have is orders' rule, so it is not checked again. Deliberately absent: events that
//! change nothing here; the runtime passes over types that nobody handles.

use std::time::Duration;

use holdfast_adapter::{body, check};
use holdfast_core::{
    Message,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_inventory_domain::{Line, reservation::Command};
use holdfast_proto::orders::v1;

use crate::sku::sku_or_refused;

/// `ce_type` of `OrderPlaced`.
const ORDER_PLACED: &str = "holdfast.orders.v1.OrderPlaced";
/// `ce_type` of `OrderPaid`.
const ORDER_PAID: &str = "holdfast.orders.v1.OrderPaid";
/// `ce_type` of `OrderShipped`.
const ORDER_SHIPPED: &str = "holdfast.orders.v1.OrderShipped";
/// `ce_type` of `OrderCancelled`.
const ORDER_CANCELLED: &str = "holdfast.orders.v1.OrderCancelled";

const ORDERS: &[MessageOrigin] = &[MessageOrigin::Events { topic: "orders.events", sources: &["holdfast/orders/"] }];

/// The events that reservations follow, from orders alone.
pub(crate) const HANDLED: &[Handled] = &[
    Handled::new(ORDER_PLACED, ORDERS),
    Handled::new(ORDER_PAID, ORDERS),
    Handled::new(ORDER_SHIPPED, ORDERS),
    Handled::new(ORDER_CANCELLED, ORDERS),
];

/// The command that the event in `message` stands for.
pub(crate) fn decode(message: &Message, hold_for: Duration) -> Result<Command, Refused> {
    match &*message.r#type {
        ORDER_PLACED => order_placed(message, hold_for),
        ORDER_PAID => {
            let event: v1::OrderPaid = body::decode(message)?;
            order_id(&event.order_id, message)?;
            Ok(Command::OrderPaid)
        }
        ORDER_SHIPPED => {
            let event: v1::OrderShipped = body::decode(message)?;
            order_id(&event.order_id, message)?;
            Ok(Command::OrderShipped)
        }
        ORDER_CANCELLED => {
            let event: v1::OrderCancelled = body::decode(message)?;
            order_id(&event.order_id, message)?;
            Ok(Command::OrderCancelled)
        }
        _ => Err(Refused::unknown_type()),
    }
}

fn order_placed(message: &Message, hold_for: Duration) -> Result<Command, Refused> {
    let event: v1::OrderPlaced = body::decode(message)?;
    order_id(&event.order_id, message)?;
    if event.lines.is_empty() {
        return Err(check::missing("lines"));
    }
    let line = |line: &v1::OrderLine| {
        let sku = sku_or_refused("lines.sku", &line.sku)?;
        Ok(Line { sku, quantity: check::positive("lines.quantity", line.quantity)? })
    };
    Ok(Command::OrderPlaced { lines: event.lines.iter().map(line).collect::<Result<_, Refused>>()?, hold_for })
}

/// The order's id is well-formed, and the record's key.
fn order_id(id: &str, message: &Message) -> Result<(), Refused> {
    check::canonical_uuid("order_id", id)?;
    check::equals_key("order_id", id, &message.key)
}
