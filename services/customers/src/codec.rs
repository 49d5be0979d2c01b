//! The Customer aggregate's adapter: bytes in, bytes out.
//!
//! Invariants: a command that gets past [`CustomerAdapter::decode`] keeps every promise of `commands.proto`;
//! personal data is read from calls and written to states, and into nothing else. Replies hold none because
//! claims keep them.

mod commands;
mod events;
mod recover;
mod state;

use bytes::Bytes;
use holdfast_adapter::check;
use holdfast_core::{
    Context, Message,
    codec::{Adapter, EncodedEvent, StateError},
    dedup,
    disposition::Refused,
    origin::Handled,
};
use holdfast_customers_domain::{Command, Customer, Event, Rejection};
use holdfast_proto::customers::v1;
use prost::Message as _;

pub use commands::{
    ADD_ADDRESS, CHANGE_ADDRESS, CREATE_CUSTOMER, ERASE_CUSTOMER, REACTIVATE_CUSTOMER, REMOVE_ADDRESS, SET_PREFERENCES,
    SUSPEND_CUSTOMER, UPDATE_PROFILE,
};
pub(crate) use state::{address, status};
pub use state::{customer, decode as decode_state};

/// The adapter of [`Customer`].
pub struct CustomerAdapter;

impl Adapter for CustomerAdapter {
    type Aggregate = Customer;

    fn handles(&self) -> Vec<Handled> {
        commands::HANDLED.to_vec()
    }

    fn check_key(&self, key: &str) -> Result<(), Refused> {
        check::canonical_uuid("customer_id", key).map(drop)
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        commands::decode(message)
    }

    fn encode_event(&self, event: &Event, context: &Context<'_>) -> EncodedEvent {
        events::encode(event, context.key)
    }

    fn decode_event(&self, message: &Message) -> Result<Event, Refused> {
        recover::decode(message)
    }

    fn encode_state(&self, state: &Customer) -> Bytes {
        state::encode(state)
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Customer, StateError> {
        state::decode(schema, bytes)
    }

    fn encode_reply(&self, state: &Customer, context: &Context<'_>) -> Bytes {
        let Some(details) = state.details() else { return Bytes::new() };
        let status = state::status(&details.status).into();
        let receipt = v1::CustomerReceipt { customer_id: context.key.to_owned(), status, version: context.version };
        receipt.encode_to_vec().into()
    }

    fn rejection(&self, rejection: &Rejection) -> dedup::Rejection {
        dedup::Rejection { code: rejection.code().to_owned(), message: rejection.to_string() }
    }
}
