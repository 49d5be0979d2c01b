//! What one aggregate of this context has to tell another, which has another key: by the outbox, to the context's own commands.
//!
//! Invariant: what is told follows from the event alone, so whoever has the event can tell it again.

use bytes::Bytes;
use holdfast_core::Context;
use holdfast_fulfillment_domain::{Event, recipient};
use holdfast_proto::fulfillment::v1;
use prost::Message as _;

use super::{ERASE_ADDRESS, NOTE_SHIPMENT};

/// The topic of this context's commands.
const COMMANDS: &str = "fulfillment.commands";

/// A command that an event brings about for another aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic that it goes to.
    pub topic: &'static str,
    /// The key of the aggregate that it is for.
    pub key: String,
    /// `ce_type`.
    pub r#type: &'static str,
    /// The protobuf body.
    pub payload: Bytes,
}

/// A shipment that is requested tells its recipient.
pub(super) fn after_shipment(event: &Event, context: &Context<'_>) -> Vec<Outgoing> {
    let Event::ShipmentRequested { customer, .. } = event else { return Vec::new() };
    let customer_id = customer.to_string();
    let body = v1::NoteShipment { customer_id: customer_id.clone(), order_id: context.key.to_owned() };
    vec![Outgoing { topic: COMMANDS, key: customer_id, r#type: NOTE_SHIPMENT, payload: body.encode_to_vec().into() }]
}

/// A recipient that is erased tells its shipments.
pub(super) fn after_recipient(event: &recipient::Event) -> Vec<Outgoing> {
    let recipient::Event::RecipientErased { orders, .. } = event else { return Vec::new() };
    let erase = |order_id: String| {
        let payload = v1::EraseAddress { order_id: order_id.clone() }.encode_to_vec().into();
        Outgoing { topic: COMMANDS, key: order_id, r#type: ERASE_ADDRESS, payload }
    };
    orders.iter().map(|order| erase(order.to_string())).collect()
}
