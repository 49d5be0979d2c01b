//! The Order aggregate's adapter: bytes in, bytes out.
//!
//! Invariant: a command that gets past [`OrderAdapter::decode`] keeps every promise of `commands.proto`.
//! Deliberately absent: the meaning of inventory's events ([`crate::subscriptions`]), and where answers come
//! from ([`crate::prices`], [`crate::customers`]).

mod commands;
mod events;
mod parts;
mod recover;
mod reply;
mod state;

use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_adapter::check;
use holdfast_core::{
    Context, Message,
    batch::ViewRow,
    codec::{Adapter, EncodedEvent, LookupFailed, StateError},
    dedup,
    disposition::Refused,
    origin::Handled,
};
use holdfast_orders_domain::{Command, Event, Order, Quote, Rejection};
use uuid::Uuid;

pub(crate) use commands::order_id;
pub use commands::{ADD_ITEM, CANCEL_ORDER, CREATE_ORDER, PLACE_ORDER, REMOVE_ITEM};
pub(crate) use parts::{pinned, settled};
pub use reply::order;
pub use state::{decode as decode_state, encode as encode_state};

use crate::{customers::Customers, prices::Prices, projection, subscriptions};

/// The adapter of [`Order`].
pub struct OrderAdapter {
    prices: Prices,
    customers: Customers,
}

impl OrderAdapter {
    /// With prices and customers from there.
    pub const fn new(prices: Prices, customers: Customers) -> Self {
        Self { prices, customers }
    }
}

#[async_trait]
impl Adapter for OrderAdapter {
    type Aggregate = Order;

    fn handles(&self) -> Vec<Handled> {
        [commands::HANDLED, subscriptions::HANDLED].concat()
    }

    fn check_key(&self, key: &str) -> Result<(), Refused> {
        check::canonical_uuid("order_id", key).map(drop)
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        match commands::decode(message).or_else(|| subscriptions::decode(message)) {
            Some(decoded) => decoded,
            None => Err(Refused::unknown_type()),
        }
    }

    fn encode_event(&self, event: &Event, context: &Context<'_>) -> EncodedEvent {
        events::encode(event, context.key)
    }

    fn decode_event(&self, message: &Message) -> Result<Event, Refused> {
        recover::decode(message)
    }

    fn encode_state(&self, state: &Order) -> Bytes {
        state::encode(state)
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Order, StateError> {
        state::decode(schema, bytes)
    }

    fn encode_reply(&self, state: &Order, context: &Context<'_>) -> Bytes {
        reply::encode(state, context)
    }

    fn rejection(&self, rejection: &Rejection) -> dedup::Rejection {
        dedup::Rejection { code: rejection.code().to_owned(), message: rejection.to_string() }
    }

    fn view(&self, state: &Order, context: &Context<'_>) -> Option<ViewRow> {
        projection::row(state, context.key)
    }

    fn recall(&self, command: &mut Command) {
        match command {
            Command::AddItem { .. } => _ = self.prices.recall(&mut [command], Instant::now()),
            Command::CreateOrder { .. } | Command::PlaceOrder { .. } => {
                _ = self.customers.recall(&mut [command], Instant::now());
            }
            _ => {}
        }
    }

    fn looks_up(&self, command: &Command) -> Option<&'static str> {
        match command {
            Command::AddItem { quote: Quote::NotAsked, .. } => Some("inventory"),
            Command::CreateOrder { account: None, .. } | Command::PlaceOrder { standing: None, .. } => {
                Some("customers")
            }
            _ => None,
        }
    }

    fn observe(&self, key: &str, state: &Order) {
        if let (Ok(order), Some(details)) = (Uuid::try_parse(key), state.details()) {
            self.customers.belongs(order, details.customer);
        }
    }

    async fn prepare(&self, commands: &mut [&mut Command]) -> Vec<Result<(), LookupFailed>> {
        match commands {
            [Command::AddItem { .. }, ..] => self.prices.quote(commands).await,
            _ => self.customers.check(commands).await,
        }
    }
}
