//! The adapters of fulfillment's two aggregates: bytes in, bytes out.
//!
//! Invariants: what gets past `decode` keeps every promise of the `.proto` comments; an address is written to
//! a shipment's state and to nothing else. Deliberately absent: the meaning of other contexts' events
//! ([`crate::subscriptions`]), and where addresses and parcels come from ([`crate::addresses`],
//! [`crate::carrier`]).

mod commands;
mod events;
mod outgoing;
mod recipient;
mod recover;
mod state;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_adapter::check;
use holdfast_core::{
    Context, Message,
    batch::ViewRow,
    codec::{Adapter, EncodedEvent, LookupFailed, Outgoing, StateError},
    dedup,
    disposition::Refused,
    origin::Handled,
};
use holdfast_fulfillment_domain::{Booking, Command, Event, Lookup, Rejection, Shipment};
use prost::Message as _;
use uuid::Uuid;

pub use commands::{CANCEL_SHIPMENT, DISPATCH_SHIPMENT, ERASE_ADDRESS, PACK_SHIPMENT, RECORD_TRACKING, START_PICKING};
pub(crate) use commands::{order_id, sku};
pub use outgoing::NOTE_SHIPMENT;
pub use recipient::{RecipientAdapter, decode_state as decode_recipient};
pub use state::{address, decode as decode_shipment, shipment};

use crate::{
    addresses::{self, Addresses},
    carrier::Carrier,
    projection, subscriptions,
};

/// The adapter of [`Shipment`].
pub struct ShipmentAdapter {
    addresses: Arc<dyn Addresses>,
    carrier: Arc<dyn Carrier>,
}

impl ShipmentAdapter {
    /// With addresses from there, and parcels booked with this carrier.
    pub const fn new(addresses: Arc<dyn Addresses>, carrier: Arc<dyn Carrier>) -> Self {
        Self { addresses, carrier }
    }

    /// Books the parcels that `commands` want; one result for each command.
    async fn book(&self, commands: &mut [&mut Command]) -> Vec<Result<(), LookupFailed>> {
        let wanted: Vec<Uuid> = commands.iter().filter_map(|command| wanting(command)).collect();
        let mut booked = if wanted.is_empty() { Vec::new() } else { self.carrier.book(&wanted).await }.into_iter();
        let mut results = Vec::with_capacity(commands.len());
        for command in commands.iter_mut() {
            if wanting(command).is_none() {
                results.push(Ok(()));
                continue;
            }
            let parcel = booked.next().unwrap_or_else(|| Err(LookupFailed("not one parcel for each shipment".into())));
            results.push(parcel.map(|parcel| {
                **command = Command::DispatchShipment { booking: Booking::Booked(parcel) };
            }));
        }
        results
    }
}

/// The shipment that `command` wants a parcel for.
fn wanting(command: &Command) -> Option<Uuid> {
    match command {
        Command::DispatchShipment { booking: Booking::Wanted { shipment } } => Some(*shipment),
        _ => None,
    }
}

#[async_trait]
impl Adapter for ShipmentAdapter {
    type Aggregate = Shipment;

    fn handles(&self) -> Vec<Handled> {
        [commands::HANDLED, subscriptions::OF_SHIPMENTS].concat()
    }

    fn check_key(&self, key: &str) -> Result<(), Refused> {
        check::canonical_uuid("order_id", key).map(drop)
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        match commands::decode(message).or_else(|| subscriptions::to_shipment(message)) {
            Some(decoded) => decoded,
            None => Err(Refused::unknown_type()),
        }
    }

    fn commands_after(&self, event: &Event, context: &Context<'_>) -> Vec<Outgoing> {
        outgoing::after_shipment(event, context)
    }

    fn encode_event(&self, event: &Event, context: &Context<'_>) -> EncodedEvent {
        events::encode(event, context.key)
    }

    fn decode_event(&self, message: &Message) -> Result<Event, Refused> {
        recover::decode(message)
    }

    fn encode_state(&self, state: &Shipment) -> Bytes {
        state::encode(state)
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Shipment, StateError> {
        state::decode(schema, bytes)
    }

    fn encode_reply(&self, state: &Shipment, context: &Context<'_>) -> Bytes {
        shipment(state, context.key, context.version).map_or_else(Bytes::new, |shown| shown.encode_to_vec().into())
    }

    fn rejection(&self, rejection: &Rejection) -> dedup::Rejection {
        dedup::Rejection { code: rejection.code().to_owned(), message: rejection.to_string() }
    }

    fn view(&self, state: &Shipment, context: &Context<'_>) -> Option<ViewRow> {
        projection::row(state, context.key)
    }

    fn looks_up(&self, command: &Command) -> Option<&'static str> {
        match command {
            Command::OrderPaid { address: Lookup::NotAsked, .. } => Some("customers"),
            _ => wanting(command).map(|_| "carrier"),
        }
    }

    async fn prepare(&self, commands: &mut [&mut Command]) -> Vec<Result<(), LookupFailed>> {
        let addressed = addresses::fill(&*self.addresses, commands).await;
        let booked = self.book(commands).await;
        addressed.into_iter().zip(booked).map(|(addressed, booked)| addressed.and(booked)).collect()
    }
}
