//! The `StockItem`'s wire and storage form.
//!
//! Deliberately absent: quantities. They are shared rows, which the actor does not know; the answer to a
//! query reads the pools.

use bytes::Bytes;
use holdfast_adapter::{body, check};
use holdfast_core::{
    Aggregate, Context, Message,
    codec::{Adapter, Aftermath, EncodedEvent, StateError},
    dedup,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_inventory_domain::{
    StockItem,
    stock_item::{Command, Details, Event, REORDER_TIMER, Rejection},
};
use holdfast_money::{Currency, Money};
use holdfast_proto::inventory::v1;
use prost::Message as _;

use super::{
    amount, broken,
    event_types::{
        PRICE_SET, REORDER_POINT_SET, REPLENISHMENT_ENDED, REPLENISHMENT_REQUESTED, STOCK_ADJUSTED, STOCK_RECEIVED,
    },
    recover, stamp, stored_time,
};
use crate::sku::sku_or_refused;

/// `ce_type` of `ReceiveStock`.
pub const RECEIVE_STOCK: &str = "holdfast.inventory.v1.ReceiveStock";
/// `ce_type` of `AdjustStock`.
pub const ADJUST_STOCK: &str = "holdfast.inventory.v1.AdjustStock";
/// `ce_type` of `SetPrice`.
pub const SET_PRICE: &str = "holdfast.inventory.v1.SetPrice";
/// `ce_type` of `SetReorderPoint`.
pub const SET_REORDER_POINT: &str = "holdfast.inventory.v1.SetReorderPoint";

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// The adapter of [`StockItem`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StockItemAdapter;

impl Adapter for StockItemAdapter {
    type Aggregate = StockItem;

    fn handles(&self) -> Vec<Handled> {
        let mut handled = [RECEIVE_STOCK, ADJUST_STOCK, SET_PRICE, SET_REORDER_POINT]
            .map(|name| Handled::new(name, &[MessageOrigin::Commands, MessageOrigin::Call]))
            .to_vec();
        handled.push(Handled::new(REORDER_TIMER, &[MessageOrigin::Timer(REORDER_TIMER)]));
        handled
    }

    fn check_key(&self, key: &str) -> Result<(), Refused> {
        sku_or_refused("sku", key).map(drop)
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        match &*message.r#type {
            RECEIVE_STOCK => receive_stock(message),
            ADJUST_STOCK => adjust_stock(message),
            SET_PRICE => set_price(message),
            SET_REORDER_POINT => set_reorder_point(message),
            _ => Err(Refused::unknown_type()),
        }
    }

    fn timer(&self, name: &str) -> Option<Command> {
        (name == REORDER_TIMER).then_some(Command::CheckDue)
    }

    fn encode_event(&self, event: &Event, context: &Context<'_>) -> EncodedEvent {
        let (sku, occurred_at) = (context.key.to_owned(), Some(stamp(event.at())));
        let (r#type, payload) = match event {
            Event::StockReceived { quantity, .. } => {
                (STOCK_RECEIVED, v1::StockReceived { sku, occurred_at, quantity: *quantity }.encode_to_vec())
            }
            Event::StockAdjusted { delta, reason, .. } => {
                let (delta, reason) = (*delta, reason.as_ref().to_owned());
                (STOCK_ADJUSTED, v1::StockAdjusted { sku, occurred_at, delta, reason }.encode_to_vec())
            }
            Event::PriceSet { price, .. } => {
                (PRICE_SET, v1::PriceSet { sku, occurred_at, price: Some(amount(*price)) }.encode_to_vec())
            }
            Event::ReorderPointSet { reorder_point, .. } => {
                let reorder_point = *reorder_point;
                (REORDER_POINT_SET, v1::ReorderPointSet { sku, occurred_at, reorder_point }.encode_to_vec())
            }
            Event::ReplenishmentRequested { reorder_point, .. } => {
                let reorder_point = *reorder_point;
                let body = v1::ReplenishmentRequested { sku, occurred_at, reorder_point };
                (REPLENISHMENT_REQUESTED, body.encode_to_vec())
            }
            Event::ReplenishmentEnded { .. } => {
                (REPLENISHMENT_ENDED, v1::ReplenishmentEnded { sku, occurred_at }.encode_to_vec())
            }
        };
        EncodedEvent { r#type, payload: payload.into() }
    }

    fn decode_event(&self, message: &Message) -> Result<Event, Refused> {
        recover::stock_item(message)
    }

    fn aftermath(&self, event: &Event, context: &Context<'_>) -> Aftermath {
        Aftermath { pools: event.pool_changes(context.key), timers: recover::stock_timers(event).into_iter().collect() }
    }

    fn encode_state(&self, state: &StockItem) -> Bytes {
        let Some(details) = state.details() else { return Bytes::new() };
        v1::StockItemState {
            price: details.price.map(amount),
            created_at: Some(stamp(details.created_at)),
            updated_at: Some(stamp(details.updated_at)),
            reorder_point: details.reorder_point,
            is_replenishing: details.is_replenishing,
        }
        .encode_to_vec()
        .into()
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<StockItem, StateError> {
        decode_state(schema, bytes)
    }

    /// Without quantities.
    fn encode_reply(&self, state: &StockItem, context: &Context<'_>) -> Bytes {
        item(state, context.key, context.version).map_or_else(Bytes::new, |item| item.encode_to_vec().into())
    }

    fn rejection(&self, rejection: &Rejection) -> dedup::Rejection {
        dedup::Rejection { code: rejection.code().to_owned(), message: rejection.to_string() }
    }
}

fn receive_stock(message: &Message) -> Result<Command, Refused> {
    let body: v1::ReceiveStock = body::decode(message)?;
    sku_is_key(&body.sku, message)?;
    Ok(Command::ReceiveStock { quantity: check::positive("quantity", body.quantity)? })
}

fn adjust_stock(message: &Message) -> Result<Command, Refused> {
    let body: v1::AdjustStock = body::decode(message)?;
    sku_is_key(&body.sku, message)?;
    if body.delta == 0 {
        return Err(Refused::invalid("delta", "delta is 0"));
    }
    if body.reason.is_empty() {
        return Err(check::missing("reason"));
    }
    let reason = check::at_most("reason", &body.reason, REASON_BYTES_MAX)?.into();
    Ok(Command::AdjustStock { delta: body.delta, reason })
}

fn set_price(message: &Message) -> Result<Command, Refused> {
    let body: v1::SetPrice = body::decode(message)?;
    sku_is_key(&body.sku, message)?;
    let price = check::money("price", body.price.as_ref())?;
    if price.is_negative() {
        return Err(Refused::invalid("price.minor", "price.minor is negative"));
    }
    Ok(Command::SetPrice { price })
}

fn set_reorder_point(message: &Message) -> Result<Command, Refused> {
    let body: v1::SetReorderPoint = body::decode(message)?;
    sku_is_key(&body.sku, message)?;
    if body.reorder_point < 0 {
        return Err(Refused::invalid("reorder_point", "reorder_point is negative"));
    }
    Ok(Command::SetReorderPoint { reorder_point: body.reorder_point })
}

/// The sku is well-formed, and the record's key.
fn sku_is_key(sku: &str, message: &Message) -> Result<(), Refused> {
    sku_or_refused("sku", sku)?;
    check::equals_key("sku", sku, &message.key)
}

/// The sku's public message without quantities; `None` if it does not exist.
pub(crate) fn item(state: &StockItem, key: &str, version: u64) -> Option<v1::StockItem> {
    let details = state.details()?;
    Some(v1::StockItem {
        sku: key.to_owned(),
        on_hand: 0,
        reserved: 0,
        available: 0,
        price: details.price.map(amount),
        created_at: Some(stamp(details.created_at)),
        updated_at: Some(stamp(details.updated_at)),
        version,
        reorder_point: details.reorder_point,
    })
}

/// Reads a stored sku of `schema`.
///
/// # Errors
/// [`StateError`] for a schema of a later build, and for bytes that none could have written.
pub fn decode_state(schema: u32, bytes: &[u8]) -> Result<StockItem, StateError> {
    if schema != StockItem::SCHEMA {
        return Err(broken(schema, "this build knows schema 1 only"));
    }
    if bytes.is_empty() {
        return Ok(StockItem::default());
    }
    let stored = v1::StockItemState::decode(bytes).map_err(|error| broken(schema, error.to_string()))?;
    rehydrate(&stored).map(StockItem::rehydrate).map_err(|reason| broken(schema, reason))
}

fn rehydrate(stored: &v1::StockItemState) -> Result<Details, &'static str> {
    let price = match &stored.price {
        None => None,
        Some(price) => {
            let currency = Currency::from_code(&price.currency).map_err(|_| "unknown currency")?;
            Some(Money::new(price.minor, currency))
        }
    };
    if stored.reorder_point < 0 {
        return Err("a reorder point below zero");
    }
    Ok(Details {
        price,
        reorder_point: stored.reorder_point,
        is_replenishing: stored.is_replenishing,
        created_at: stored_time(stored.created_at.as_ref())?,
        updated_at: stored_time(stored.updated_at.as_ref())?,
    })
}
