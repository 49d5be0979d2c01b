//! The Recipient aggregate, keyed by customer id: which shipments are a customer's, so that their addresses
//! can be found when it is erased.
//!
//! Invariant: whatever shipment is noted, before the erasure or after it, is named by exactly one
//! [`Event::RecipientErased`] once the customer is erased. Deliberately absent: anything that a person would
//! recognise; ids alone are kept, and they stay.

use std::sync::Arc;

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use uuid::Uuid;

/// The most orders that one event names.
pub const ORDERS_MAX: usize = 1000;

/// One customer's shipments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// Their orders, in the order in which they were noted.
    pub orders: Vec<Uuid>,
    /// When the customer was erased, as this context learned it.
    pub erased_at: Option<Timestamp>,
}

/// A shipment's word, or news from customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A shipment to the customer was requested.
    NoteShipment {
        /// Of this order.
        order: Uuid,
    },
    /// The customer was erased.
    CustomerErased,
}

/// Something that happened to a recipient. `at` is when, by the owning node's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A shipment was noted.
    ShipmentNoted {
        /// When.
        at: Timestamp,
        /// Of this order.
        order: Uuid,
    },
    /// The customer was erased, so the addresses of these shipments have to go.
    RecipientErased {
        /// When.
        at: Timestamp,
        /// Their orders, at most [`ORDERS_MAX`].
        orders: Arc<[Uuid]>,
    },
}

/// A recipient never says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {}

impl Aggregate for Recipient {
    const KIND: &'static str = "recipient";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision<Self>, Rejection> {
        let at = context.now;
        Ok(match command {
            Command::NoteShipment { order } if self.orders.contains(order) => Decision::nothing(),
            Command::NoteShipment { order } => {
                let late = self.erased_at.map(|_| Event::RecipientErased { at, orders: [*order].into() });
                Decision::events(std::iter::once(Event::ShipmentNoted { at, order: *order }).chain(late))
            }
            Command::CustomerErased if self.erased_at.is_some() => Decision::nothing(),
            Command::CustomerErased if self.orders.is_empty() => {
                Decision::event(Event::RecipientErased { at, orders: [].into() })
            }
            Command::CustomerErased => {
                let parts = self.orders.chunks(ORDERS_MAX);
                Decision::events(parts.map(|orders| Event::RecipientErased { at, orders: orders.into() }))
            }
        })
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::ShipmentNoted { order, .. } => self.orders.push(*order),
            Event::RecipientErased { at, .. } => _ = self.erased_at.get_or_insert(*at),
        }
    }
}
