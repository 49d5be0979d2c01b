//! The read model behind `ListOrders`: its row, and the statement that writes it.
//!
//! Deliberately absent: what is not searched for. A page's orders are read from the aggregates' own table, in the same statement.

use holdfast_core::Aggregate;
use holdfast_orders_domain::Order;
use holdfast_postgres::View;
use serde_json::{Value, json};

/// How the read model is written. A row is inserted when the order is created; afterwards only the status can differ.
pub const VIEW: View = View {
    name: "orders_view",
    kind: Order::KIND,
    upsert: "insert into orders_view (order_id, customer_id, status, created_at_ms) \
             select order_id, customer_id, status, created_at_ms \
             from jsonb_to_recordset($1) as changed (order_id uuid, customer_id uuid, status text, created_at_ms bigint) \
             on conflict (order_id) do update set status = excluded.status",
};

/// The row of the order `key`; `None` if it does not exist.
pub(crate) fn row(state: &Order, key: &str) -> Option<Value> {
    let details = state.details()?;
    Some(json!({
        "order_id": key,
        "customer_id": details.customer.to_string(),
        "status": details.status.name(),
        "created_at_ms": details.created_at.unix_ms(),
    }))
}
