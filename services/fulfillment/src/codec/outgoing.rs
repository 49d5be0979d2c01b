//! Commands that one aggregate of this context sends to another, which has another key: by the outbox, to the
//! context's own commands topic.
//!
//! Invariant: a command follows from its event alone, so a recovery that has the event can send it again.

use holdfast_core::{Context, codec::Outgoing};
use holdfast_fulfillment_domain::{Event, recipient};
use holdfast_proto::fulfillment::v1;
use prost::Message as _;

use super::ERASE_ADDRESS;

/// `ce_type` of `NoteShipment`.
pub const NOTE_SHIPMENT: &str = "holdfast.fulfillment.v1.NoteShipment";

/// A shipment that is requested tells its recipient.
pub(super) fn after_shipment(event: &Event, context: &Context<'_>) -> Vec<Outgoing> {
    let Event::ShipmentRequested { customer, .. } = event else { return Vec::new() };
    let customer_id = customer.to_string();
    let body = v1::NoteShipment { customer_id: customer_id.clone(), order_id: context.key.to_owned() };
    vec![Outgoing { key: customer_id, r#type: NOTE_SHIPMENT, payload: body.encode_to_vec().into() }]
}

/// A recipient that is erased tells its shipments.
pub(super) fn after_recipient(event: &recipient::Event) -> Vec<Outgoing> {
    let recipient::Event::RecipientErased { orders, .. } = event else { return Vec::new() };
    let erase = |order_id: String| {
        let payload = v1::EraseAddress { order_id: order_id.clone() }.encode_to_vec().into();
        Outgoing { key: order_id, r#type: ERASE_ADDRESS, payload }
    };
    orders.iter().map(|order| erase(order.to_string())).collect()
}
