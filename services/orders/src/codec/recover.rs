//! Events back from the wire, for `holdfast recover`.
//!
//! Invariant: what [`super::events::encode`] wrote comes back as it was, so that a state folded from the
//! topic is the state that was lost. Nothing is guessed: an event that this build did not write is refused.

use std::sync::Arc;

use holdfast_adapter::{body, check};
use holdfast_core::{Message, disposition::Refused};
use holdfast_orders_domain::{Cancellation, Event, Line, Sku};
use holdfast_proto::{money::v1::Money as WireMoney, orders::v1};

use super::{
    events::{
        ITEM_ADDED, ITEM_REMOVED, ORDER_CANCELLATION_REQUESTED, ORDER_CANCELLED, ORDER_CREATED, ORDER_DELIVERED,
        ORDER_PAID, ORDER_PAYMENT_MISMATCHED, ORDER_PLACED, ORDER_RESERVED, ORDER_SHIPPED,
    },
    parts,
};

/// The event in `message`.
pub(super) fn decode(message: &Message) -> Result<Event, Refused> {
    let at = |time: Option<&_>| check::time("occurred_at", time);
    Ok(match &*message.r#type {
        ORDER_CREATED => {
            let event: v1::OrderCreated = body::decode(message)?;
            Event::OrderCreated {
                at: at(event.occurred_at.as_ref())?,
                customer: check::canonical_uuid("customer_id", &event.customer_id)?,
                currency: check::currency("currency", &event.currency)?,
            }
        }
        ITEM_ADDED => {
            let event: v1::ItemAdded = body::decode(message)?;
            Event::ItemAdded {
                at: at(event.occurred_at.as_ref())?,
                quantity: event.quantity,
                line: line(&event.sku, event.line_quantity, event.unit_price.as_ref())?,
                total: check::money("total", event.total.as_ref())?,
            }
        }
        ITEM_REMOVED => {
            let event: v1::ItemRemoved = body::decode(message)?;
            let total = check::money("total", event.total.as_ref())?;
            Event::ItemRemoved { at: at(event.occurred_at.as_ref())?, sku: sku(&event.sku)?, total }
        }
        ORDER_PLACED => order_placed(&body::decode(message)?)?,
        ORDER_RESERVED => {
            let event: v1::OrderReserved = body::decode(message)?;
            let customer = check::canonical_uuid("customer_id", &event.customer_id)?;
            Event::OrderReserved {
                at: at(event.occurred_at.as_ref())?,
                until: check::time("reserved_until", event.reserved_until.as_ref())?,
                customer,
                total: check::money("total", event.total.as_ref())?,
                payment_method: text(&event.payment_method),
            }
        }
        ORDER_PAID => {
            let event: v1::OrderPaid = body::decode(message)?;
            let lines = event.lines.iter().map(|each| line(&each.sku, each.quantity, each.unit_price.as_ref()));
            Event::OrderPaid {
                at: at(event.occurred_at.as_ref())?,
                payment: parts::payment_back(event.payment.as_ref())?,
                customer: check::canonical_uuid("customer_id", &event.customer_id)?,
                address_id: text(&event.address_id),
                lines: lines.collect::<Result<_, _>>()?,
            }
        }
        ORDER_PAYMENT_MISMATCHED => {
            let event: v1::OrderPaymentMismatched = body::decode(message)?;
            Event::OrderPaymentMismatched {
                at: at(event.occurred_at.as_ref())?,
                payment: parts::payment_back(event.payment.as_ref())?,
                total: check::money("total", event.total.as_ref())?,
            }
        }
        ORDER_CANCELLATION_REQUESTED => {
            let event: v1::OrderCancellationRequested = body::decode(message)?;
            let reason = event.reason.as_str().into();
            Event::OrderCancellationRequested { at: at(event.occurred_at.as_ref())?, reason }
        }
        ORDER_SHIPPED => {
            let event: v1::OrderShipped = body::decode(message)?;
            let shipment = parts::shipment_back(event.shipment.as_ref())?;
            Event::OrderShipped { at: at(event.occurred_at.as_ref())?, shipment }
        }
        ORDER_DELIVERED => {
            let event: v1::OrderDelivered = body::decode(message)?;
            Event::OrderDelivered { at: at(event.occurred_at.as_ref())? }
        }
        ORDER_CANCELLED => {
            let event: v1::OrderCancelled = body::decode(message)?;
            let cause =
                parts::cause_back(event.cause()).ok_or_else(|| Refused::invalid("cause", "cause is unknown"))?;
            let cancellation = Cancellation { cause, reason: event.reason.as_str().into() };
            Event::OrderCancelled { at: at(event.occurred_at.as_ref())?, cancellation }
        }
        _ => return Err(Refused::unknown_type()),
    })
}

fn order_placed(event: &v1::OrderPlaced) -> Result<Event, Refused> {
    let lines = event.lines.iter().map(|each| line(&each.sku, each.quantity, each.unit_price.as_ref()));
    Ok(Event::OrderPlaced {
        at: check::time("occurred_at", event.occurred_at.as_ref())?,
        customer: check::canonical_uuid("customer_id", &event.customer_id)?,
        lines: lines.collect::<Result<_, _>>()?,
        total: check::money("total", event.total.as_ref())?,
        payment_method: text(&event.payment_method),
        address_id: text(&event.address_id),
    })
}

fn text(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn line(name: &str, quantity: i64, unit_price: Option<&WireMoney>) -> Result<Line, Refused> {
    let line = Line::new(sku(name)?, quantity, check::money("unit_price", unit_price)?);
    line.map_err(|_| Refused::invalid("subtotal", "the subtotal does not fit"))
}

fn sku(name: &str) -> Result<Sku, Refused> {
    Sku::new(name).map_err(|_| Refused::invalid("sku", "sku is not 1-64 characters of [A-Za-z0-9._-]"))
}
