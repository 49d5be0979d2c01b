//! A small order aggregate for measuring the runtime alone: the wire messages are its commands and events,
//! prices are constant.
//!
//! Deliberately absent: most of the checks and the read model that the real orders context has.

use bytes::Bytes;
use holdfast_core::{
    Aggregate, Context, Decision, Message,
    codec::{Adapter, EncodedEvent, StateError},
    dedup::Rejection,
    disposition::Refused,
    envelope::ContentType,
    origin::{Handled, MessageOrigin},
};
use holdfast_proto::{
    money::v1::Money,
    orders::v1::{
        AddItem, CreateOrder, ItemAdded, ItemRemoved, OrderCreated, OrderLine, OrderLineState, OrderPlaced, OrderState,
        OrderStatus, PlaceOrder, RemoveItem,
    },
    time::from_unix_ms,
};
use prost::{Message as _, Name as _};
use serde::de::DeserializeOwned;

/// Adding this sku panics, for tests of what follows.
pub const PANIC_SKU: &str = "panic";

/// Every unit costs this.
const PRICE_MINOR: i64 = 1_999;

/// An order as it is stored.
#[derive(Clone, Debug, Default)]
pub struct StandIn(OrderState);

/// The benchmark's three commands, and the hot order's.
#[derive(Debug)]
pub enum Command {
    /// Opens.
    Create(CreateOrder),
    /// Adds.
    Add(AddItem),
    /// Removes.
    Remove(RemoveItem),
    /// Places.
    Place(PlaceOrder),
}

/// Their events.
#[derive(Debug)]
pub enum Event {
    /// Opened.
    Created(OrderCreated),
    /// Added.
    Added(ItemAdded),
    /// Removed.
    Removed(ItemRemoved),
    /// Placed.
    Placed(OrderPlaced),
}

fn euro(minor: i64) -> Money {
    Money { minor, currency: "EUR".into() }
}

impl Aggregate for StandIn {
    const KIND: &'static str = "order";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Event;
    type Rejection = &'static str;

    fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision<Self>, &'static str> {
        let state = &self.0;
        let occurred_at = Some(from_unix_ms(context.now.unix_ms()));
        let order_id = context.key.to_owned();
        let total = || state.lines.iter().map(|line| line.quantity * line.unit_price_minor).sum::<i64>();
        let is_draft = state.status == OrderStatus::Draft as i32;
        match command {
            Command::Create(_) if state.status != 0 => Err("ORDER_ALREADY_EXISTS"),
            Command::Create(create) => Ok(Decision::event(Event::Created(OrderCreated {
                order_id,
                occurred_at,
                customer_id: create.customer_id.clone(),
                currency: create.currency.clone(),
            }))),
            _ if !is_draft => Err("WRONG_STATE"),
            Command::Add(add) if add.sku == PANIC_SKU => panic!("asked to, by the sku"),
            Command::Add(add) => {
                let before = state.lines.iter().find(|line| line.sku == add.sku).map_or(0, |line| line.quantity);
                Ok(Decision::event(Event::Added(ItemAdded {
                    order_id,
                    occurred_at,
                    sku: add.sku.clone(),
                    quantity: add.quantity,
                    line_quantity: before + add.quantity,
                    unit_price: Some(euro(PRICE_MINOR)),
                    subtotal: Some(euro((before + add.quantity) * PRICE_MINOR)),
                    total: Some(euro(total() + add.quantity * PRICE_MINOR)),
                })))
            }
            Command::Remove(remove) => match state.lines.iter().find(|line| line.sku == remove.sku) {
                None => Err("ITEM_NOT_IN_ORDER"),
                Some(line) => Ok(Decision::event(Event::Removed(ItemRemoved {
                    order_id,
                    occurred_at,
                    sku: remove.sku.clone(),
                    total: Some(euro(total() - line.quantity * line.unit_price_minor)),
                }))),
            },
            Command::Place(_) if state.lines.is_empty() => Err("EMPTY_ORDER"),
            Command::Place(place) => Ok(Decision::event(Event::Placed(OrderPlaced {
                order_id,
                occurred_at,
                customer_id: state.customer_id.clone(),
                lines: state.lines.iter().map(line).collect(),
                total: Some(euro(total())),
                payment_method: place.payment_method.clone(),
                address_id: place.address_id.clone(),
            }))),
        }
    }

    fn evolve(&mut self, event: &Event) {
        let state = &mut self.0;
        match event {
            Event::Created(created) => {
                state.customer_id.clone_from(&created.customer_id);
                state.currency.clone_from(&created.currency);
                state.status = OrderStatus::Draft as i32;
                state.created_at = created.occurred_at;
                state.updated_at = created.occurred_at;
            }
            Event::Added(added) => {
                state.updated_at = added.occurred_at;
                match state.lines.iter_mut().find(|line| line.sku == added.sku) {
                    Some(line) => line.quantity = added.line_quantity,
                    None => state.lines.push(OrderLineState {
                        sku: added.sku.clone(),
                        quantity: added.line_quantity,
                        unit_price_minor: PRICE_MINOR,
                    }),
                }
            }
            Event::Removed(removed) => {
                state.updated_at = removed.occurred_at;
                state.lines.retain(|line| line.sku != removed.sku);
            }
            Event::Placed(placed) => {
                state.status = OrderStatus::Placed as i32;
                state.updated_at = placed.occurred_at;
                state.payment_method.clone_from(&placed.payment_method);
            }
        }
    }
}

fn line(line: &OrderLineState) -> OrderLine {
    OrderLine {
        sku: line.sku.clone(),
        quantity: line.quantity,
        unit_price: Some(euro(line.unit_price_minor)),
        subtotal: Some(euro(line.quantity * line.unit_price_minor)),
    }
}

/// Its adapter.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandInAdapter;

const CREATE: &str = "holdfast.orders.v1.CreateOrder";
const ADD: &str = "holdfast.orders.v1.AddItem";
const REMOVE: &str = "holdfast.orders.v1.RemoveItem";
const PLACE: &str = "holdfast.orders.v1.PlaceOrder";

fn body<M: prost::Message + Default + DeserializeOwned>(message: &Message) -> Result<M, Refused> {
    let garbage = |error: &dyn std::error::Error| Refused::undecodable(error.to_string());
    match message.content_type {
        ContentType::Protobuf => M::decode(&*message.payload).map_err(|error| garbage(&error)),
        ContentType::Json => serde_json::from_slice(&message.payload).map_err(|error| garbage(&error)),
    }
}

impl Adapter for StandInAdapter {
    type Aggregate = StandIn;

    fn handles(&self) -> Vec<Handled> {
        [CREATE, ADD, REMOVE, PLACE]
            .map(|name| Handled::new(name, &[MessageOrigin::Commands, MessageOrigin::Call]))
            .to_vec()
    }

    fn check_key(&self, _: &str) -> Result<(), Refused> {
        Ok(())
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        match &*message.r#type {
            CREATE => body(message).map(Command::Create),
            ADD => match body::<AddItem>(message)? {
                add if add.quantity < 1 => Err(Refused::invalid("quantity", "is at least 1")),
                add => Ok(Command::Add(add)),
            },
            REMOVE => body(message).map(Command::Remove),
            PLACE => body(message).map(Command::Place),
            _ => Err(Refused::unknown_type()),
        }
    }

    fn encode_event(&self, event: &Event, _: &Context<'_>) -> EncodedEvent {
        const CREATED: &str = "holdfast.orders.v1.OrderCreated";
        const ADDED: &str = "holdfast.orders.v1.ItemAdded";
        const REMOVED: &str = "holdfast.orders.v1.ItemRemoved";
        const PLACED: &str = "holdfast.orders.v1.OrderPlaced";
        let (r#type, payload) = match event {
            Event::Created(created) => (CREATED, created.encode_to_vec()),
            Event::Added(added) => (ADDED, added.encode_to_vec()),
            Event::Removed(removed) => (REMOVED, removed.encode_to_vec()),
            Event::Placed(placed) => (PLACED, placed.encode_to_vec()),
        };
        EncodedEvent { r#type, payload: payload.into() }
    }

    fn encode_state(&self, state: &StandIn) -> Bytes {
        state.0.encode_to_vec().into()
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<StandIn, StateError> {
        let state = OrderState::decode(bytes);
        state.map(StandIn).map_err(|error| StateError { schema, reason: format!("{}: {error}", OrderState::NAME) })
    }

    fn encode_reply(&self, state: &StandIn, _: &Context<'_>) -> Bytes {
        self.encode_state(state)
    }

    fn rejection(&self, rejection: &&'static str) -> Rejection {
        Rejection { code: (*rejection).to_owned(), message: (*rejection).to_owned() }
    }
}
