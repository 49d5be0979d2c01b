//! The read model behind `ListOrders`: its row, the statement that writes it, and all that read from it.
//!
//! Deliberately absent: what is not searched for. A page's orders are read from the aggregates' own table, in
//! the same statement.

use holdfast_core::{Aggregate, batch::ViewRow};
use holdfast_orders_domain::Order;
use holdfast_postgres::{Query, View};
use serde::Serialize;
use uuid::Uuid;

/// How the read model is written. A row is inserted when the order is created; afterwards only the status can
/// differ.
pub const VIEW: View = View {
    name: "orders_view",
    kind: Order::KIND,
    upsert: "insert into orders_view (order_id, customer_id, status, created_at_ms) \
             select order_id, customer_id, status, created_at_ms \
             from jsonb_to_recordset($1) as changed (order_id uuid, customer_id uuid, status text, created_at_ms bigint) \
             on conflict (order_id) do update set status = excluded.status",
};

/// Stored orders by id. `$1` ids.
pub const BY_IDS: Query = Query {
    name: "orders.by_ids",
    sql: "select key, version, schema, state from aggregates \
          where key = any($1::text[]) and kind = 'order' and version > 0",
};

/// Those of the given orders that have a later version than the one that is known. `$1` ids, `$2` known
/// versions.
///
/// `limit 1` says nothing about the answer, the key does; it says that each order is looked up by itself,
/// whatever size the planner believes the table to have.
pub const NEWER: Query = Query {
    name: "orders.newer",
    sql: "select a.key, a.version, a.schema, a.state \
          from unnest($1::text[], $2::bigint[]) as known (key, version) \
          cross join lateral ( \
              select key, version, schema, state from aggregates \
              where key = known.key and kind = 'order' and version > known.version limit 1 \
          ) as a",
};

/// A page: per status the newest rows below the position, in the order of an index; then the newest of these;
/// then their orders. So a page costs its size times the number of statuses, however many orders there are.
/// `$1` statuses, `$2` created from (inclusive), `$3` and `$4` the position (exclusive), `$5` rows; `$6` the
/// customer. `limit 1` as in [`NEWER`].
macro_rules! page {
    ($range:literal, $newest:literal) => {
        concat!(
            "select a.key, a.version, a.schema, a.state, page.created_at_ms, page.order_id \
             from ( \
                 select found.order_id, found.created_at_ms \
                 from unnest($1::text[]) as wanted (status) \
                 cross join lateral ( \
                     select v.order_id, v.created_at_ms from orders_view v where ",
            $range,
            " order by ",
            $newest,
            " limit $5::bigint \
                 ) as found \
                 order by found.created_at_ms desc, found.order_id desc \
                 limit $5::bigint \
             ) as page \
             cross join lateral ( \
                 select key, version, schema, state from aggregates \
                 where key = page.order_id::text and kind = 'order' limit 1 \
             ) as a \
             order by page.created_at_ms desc, page.order_id desc"
        )
    };
}

/// A page of any customer's orders.
pub const PAGE: Query = Query {
    name: "orders.page",
    sql: page!(
        "v.status = wanted.status and v.created_at_ms >= $2::bigint \
            and (v.created_at_ms, v.order_id) < ($3::bigint, $4::uuid)",
        "v.created_at_ms desc, v.order_id desc"
    ),
};

/// A page of one customer's orders. Between its two bounds customer and status are what they are to be; said
/// so, rather than by `=`, only the customers' index answers. Else the planner may walk everybody's orders of
/// a status, as long as it does not know better.
pub const PAGE_OF_CUSTOMER: Query = Query {
    name: "orders.page_of_customer",
    sql: page!(
        "(v.customer_id, v.status, v.created_at_ms) >= ($6::uuid, wanted.status, $2::bigint) \
            and (v.customer_id, v.status, v.created_at_ms, v.order_id) < ($6::uuid, wanted.status, $3::bigint, $4::uuid)",
        "v.customer_id desc, v.status desc, v.created_at_ms desc, v.order_id desc"
    ),
};

#[derive(Serialize)]
struct Row<'a> {
    order_id: &'a str,
    customer_id: Uuid,
    status: &'static str,
    created_at_ms: i64,
}

/// The row of the order `key`; `None` if it does not exist.
pub(crate) fn row(state: &Order, key: &str) -> Option<ViewRow> {
    let details = state.details()?;
    Some(ViewRow::of(&Row {
        order_id: key,
        customer_id: details.customer,
        status: details.status.name(),
        created_at_ms: details.created_at.unix_ms(),
    }))
}
