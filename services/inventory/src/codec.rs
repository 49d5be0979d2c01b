//! The adapters of inventory's two aggregates: bytes in, bytes out.
//!
//! Invariant: what gets past `decode` keeps every promise of the `.proto` comments. Deliberately absent: the
//! meaning of orders' events ([`crate::subscriptions`]).

mod event_types;
mod recover;
mod reservation;
mod stock_item;

use holdfast_core::{Timestamp, codec::StateError};
use holdfast_proto::{money::v1 as money, time};

pub use reservation::{ReservationAdapter, decode_state as decode_reservation};
pub(crate) use stock_item::item;
pub use stock_item::{
    ADJUST_STOCK, RECEIVE_STOCK, SET_PRICE, SET_REORDER_POINT, StockItemAdapter, decode_state as decode_stock_item,
};

fn amount(amount: holdfast_money::Money) -> money::Money {
    money::Money { minor: amount.minor, currency: amount.currency.code().to_owned() }
}

fn stamp(at: Timestamp) -> holdfast_proto::Timestamp {
    time::from_unix_ms(at.unix_ms())
}

fn stored_time(at: Option<&holdfast_proto::Timestamp>) -> Result<Timestamp, &'static str> {
    at.and_then(time::to_unix_ms).map(Timestamp::from_unix_ms).ok_or("a time is missing or none")
}

fn broken(schema: u32, reason: impl Into<String>) -> StateError {
    StateError { schema, reason: reason.into() }
}
