//! The adapter of [`Recipient`]: its command, its events, its state.

use bytes::Bytes;
use holdfast_adapter::{body, check};
use holdfast_core::{
    Aggregate, Context, Message, Timestamp,
    codec::{Adapter, EncodedEvent, Outgoing, StateError},
    dedup,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_fulfillment_domain::{
    Recipient,
    recipient::{Command, Event, Rejection},
};
use holdfast_proto::{fulfillment::v1, time};
use prost::Message as _;
use uuid::Uuid;

use super::{
    events::stamp,
    outgoing::{self, NOTE_SHIPMENT},
};
use crate::subscriptions;

/// `ce_type` of `ShipmentNoted`.
const SHIPMENT_NOTED: &str = "holdfast.fulfillment.v1.ShipmentNoted";
/// `ce_type` of `RecipientErased`.
const RECIPIENT_ERASED: &str = "holdfast.fulfillment.v1.RecipientErased";

/// The adapter of [`Recipient`].
pub struct RecipientAdapter;

impl Adapter for RecipientAdapter {
    type Aggregate = Recipient;

    fn handles(&self) -> Vec<Handled> {
        [&[Handled::new(NOTE_SHIPMENT, &[MessageOrigin::Sent])], subscriptions::OF_RECIPIENTS].concat()
    }

    fn check_key(&self, key: &str) -> Result<(), Refused> {
        check::canonical_uuid("customer_id", key).map(drop)
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        if let Some(decoded) = subscriptions::to_recipient(message) {
            return decoded;
        }
        if *message.r#type != *NOTE_SHIPMENT {
            return Err(Refused::unknown_type());
        }
        let body: v1::NoteShipment = body::decode(message)?;
        check::canonical_uuid("customer_id", &body.customer_id)?;
        check::equals_key("customer_id", &body.customer_id, &message.key)?;
        Ok(Command::NoteShipment { order: check::canonical_uuid("order_id", &body.order_id)? })
    }

    fn commands_after(&self, event: &Event, _: &Context<'_>) -> Vec<Outgoing> {
        outgoing::after_recipient(event)
    }

    fn encode_event(&self, event: &Event, context: &Context<'_>) -> EncodedEvent {
        let customer_id = context.key.to_owned();
        let (r#type, payload) = match event {
            Event::ShipmentNoted { at, order } => {
                let (occurred_at, order_id) = (Some(stamp(*at)), order.to_string());
                (SHIPMENT_NOTED, v1::ShipmentNoted { customer_id, occurred_at, order_id }.encode_to_vec())
            }
            Event::RecipientErased { at, orders } => {
                let (occurred_at, order_ids) = (Some(stamp(*at)), orders.iter().map(Uuid::to_string).collect());
                (RECIPIENT_ERASED, v1::RecipientErased { customer_id, occurred_at, order_ids }.encode_to_vec())
            }
        };
        EncodedEvent { r#type, payload: payload.into() }
    }

    fn decode_event(&self, message: &Message) -> Result<Event, Refused> {
        let at = |time: Option<&_>| check::time("occurred_at", time);
        Ok(match &*message.r#type {
            SHIPMENT_NOTED => {
                let event: v1::ShipmentNoted = body::decode(message)?;
                let order = check::canonical_uuid("order_id", &event.order_id)?;
                Event::ShipmentNoted { at: at(event.occurred_at.as_ref())?, order }
            }
            RECIPIENT_ERASED => {
                let event: v1::RecipientErased = body::decode(message)?;
                let orders = event.order_ids.iter().map(|id| check::canonical_uuid("order_ids", id));
                let orders = orders.collect::<Result<_, _>>()?;
                Event::RecipientErased { at: at(event.occurred_at.as_ref())?, orders }
            }
            _ => return Err(Refused::unknown_type()),
        })
    }

    fn encode_state(&self, state: &Recipient) -> Bytes {
        let orders = state.orders.iter().flat_map(|order| *order.as_bytes()).collect();
        v1::RecipientState { orders, erased_at: state.erased_at.map(stamp) }.encode_to_vec().into()
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Recipient, StateError> {
        decode_state(schema, bytes)
    }

    fn encode_reply(&self, state: &Recipient, context: &Context<'_>) -> Bytes {
        v1::Recipient {
            customer_id: context.key.to_owned(),
            order_ids: state.orders.iter().map(Uuid::to_string).collect(),
            erased_at: state.erased_at.map(stamp),
            version: context.version,
        }
        .encode_to_vec()
        .into()
    }

    fn rejection(&self, rejection: &Rejection) -> dedup::Rejection {
        match *rejection {}
    }
}

/// Reads a stored recipient of `schema`.
///
/// # Errors
/// [`StateError`] for a schema of a later build, and for bytes that none could have written.
pub fn decode_state(schema: u32, bytes: &[u8]) -> Result<Recipient, StateError> {
    let broken = |reason: &str| StateError { schema, reason: reason.to_owned() };
    if schema != Recipient::SCHEMA {
        return Err(broken("this build knows schema 1 only"));
    }
    let stored = v1::RecipientState::decode(bytes).map_err(|_| broken("the bytes are no stored recipient"))?;
    let (orders, rest) = stored.orders.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(broken("an order's id is cut short"));
    }
    let stamp = |at: &_| time::to_unix_ms(at).map(Timestamp::from_unix_ms).ok_or_else(|| broken("a time is none"));
    Ok(Recipient {
        orders: orders.iter().map(|bytes| Uuid::from_bytes(*bytes)).collect(),
        erased_at: stored.erased_at.as_ref().map(stamp).transpose()?,
    })
}
