//! Commands from the wire.
//!
//! Invariant: each promise that a comment of `commands.proto` makes about a field is checked here.
//! Deliberately absent: prices, and whether the customer may order.

use holdfast_adapter::{body, check};
use holdfast_core::{
    Message,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};
use holdfast_orders_domain::{Command, Quote, Sku, TOKEN_BYTES_MAX};
use holdfast_proto::orders::v1;
use uuid::Uuid;

/// `ce_type` of `CreateOrder`.
pub const CREATE_ORDER: &str = "holdfast.orders.v1.CreateOrder";
/// `ce_type` of `AddItem`.
pub const ADD_ITEM: &str = "holdfast.orders.v1.AddItem";
/// `ce_type` of `RemoveItem`.
pub const REMOVE_ITEM: &str = "holdfast.orders.v1.RemoveItem";
/// `ce_type` of `PlaceOrder`.
pub const PLACE_ORDER: &str = "holdfast.orders.v1.PlaceOrder";
/// `ce_type` of `CancelOrder`.
pub const CANCEL_ORDER: &str = "holdfast.orders.v1.CancelOrder";

const COMMAND: &[MessageOrigin] = &[MessageOrigin::Commands, MessageOrigin::Call];

/// The commands of the context: anyone's who may write its commands topic or call it.
pub(super) const HANDLED: &[Handled] = &[
    Handled::new(CREATE_ORDER, COMMAND),
    Handled::new(ADD_ITEM, COMMAND),
    Handled::new(REMOVE_ITEM, COMMAND),
    Handled::new(PLACE_ORDER, COMMAND),
    Handled::new(CANCEL_ORDER, COMMAND),
];

/// Longest text that is taken as the id of an address, in bytes.
const ADDRESS_ID_BYTES_MAX: usize = 255;
/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// The command in `message`; `None` if it is none of these types.
pub(super) fn decode(message: &Message) -> Option<Result<Command, Refused>> {
    Some(match &*message.r#type {
        ADD_ITEM => add_item(message),
        CREATE_ORDER => create_order(message),
        PLACE_ORDER => place_order(message),
        REMOVE_ITEM => remove_item(message),
        CANCEL_ORDER => cancel_order(message),
        _ => return None,
    })
}

fn create_order(message: &Message) -> Result<Command, Refused> {
    let body: v1::CreateOrder = body::decode(message)?;
    let order = order_id(&body.order_id, message)?;
    let customer = check::canonical_uuid("customer_id", &body.customer_id)?;
    let currency = check::currency("currency", &body.currency)?;
    Ok(Command::CreateOrder { order, customer, currency, account: None })
}

fn add_item(message: &Message) -> Result<Command, Refused> {
    let body: v1::AddItem = body::decode(message)?;
    order_id(&body.order_id, message)?;
    let quantity = check::positive("quantity", body.quantity)?;
    Ok(Command::AddItem { sku: sku(&body.sku)?, quantity, quote: Quote::NotAsked })
}

fn remove_item(message: &Message) -> Result<Command, Refused> {
    let body: v1::RemoveItem = body::decode(message)?;
    order_id(&body.order_id, message)?;
    Ok(Command::RemoveItem { sku: sku(&body.sku)? })
}

fn place_order(message: &Message) -> Result<Command, Refused> {
    let body: v1::PlaceOrder = body::decode(message)?;
    let order = order_id(&body.order_id, message)?;
    Ok(Command::PlaceOrder {
        order,
        payment_method: check::at_most("payment_method", &body.payment_method, TOKEN_BYTES_MAX)?.into(),
        address_id: check::at_most("address_id", &body.address_id, ADDRESS_ID_BYTES_MAX)?.into(),
        standing: None,
    })
}

fn cancel_order(message: &Message) -> Result<Command, Refused> {
    let body: v1::CancelOrder = body::decode(message)?;
    order_id(&body.order_id, message)?;
    Ok(Command::CancelOrder { reason: check::at_most("reason", &body.reason, REASON_BYTES_MAX)?.into() })
}

/// The order's id is well-formed, and the record's key.
pub(crate) fn order_id(id: &str, message: &Message) -> Result<Uuid, Refused> {
    let order = check::canonical_uuid("order_id", id)?;
    check::equals_key("order_id", id, &message.key)?;
    Ok(order)
}

fn sku(text: &str) -> Result<Sku, Refused> {
    Sku::new(text).map_err(|_| Refused::invalid("sku", "sku is not 1-64 characters of [A-Za-z0-9._-]"))
}
