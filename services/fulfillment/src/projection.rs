//! The read model behind `ListPickable`: its row, the statement that writes it, and what reads from it.
//!
//! Deliberately absent: addresses, and shipments that could never be picked, which have no row.

use holdfast_core::{Aggregate, batch::ViewRow};
use holdfast_fulfillment_domain::Shipment;
use holdfast_postgres::{Query, View};
use serde::Serialize;

/// How the read model is written. A row is inserted when the shipment can be picked; afterwards only the
/// status can differ.
pub const VIEW: View = View {
    name: "shipments_view",
    kind: Shipment::KIND,
    upsert: "insert into shipments_view (order_id, status, ready_at_ms) \
             select order_id, status, ready_at_ms \
             from jsonb_to_recordset($1) as changed (order_id uuid, status text, ready_at_ms bigint) \
             on conflict (order_id) do update set status = excluded.status",
};

/// A page of what can be picked, right after a position, in the order of the index. `$1` and `$2` the
/// position (exclusive), `$3` rows.
///
/// `limit 1` says nothing about the answer, the key does; it says that each shipment is looked up by itself,
/// whatever size the planner believes the table to have.
pub const PICKABLE: Query = Query {
    name: "fulfillment.pickable",
    sql: "select a.key, a.version, a.schema, a.state, page.ready_at_ms, page.order_id \
          from ( \
              select order_id, ready_at_ms from shipments_view \
              where status = 'PENDING' and (ready_at_ms, order_id) > ($1::bigint, $2::uuid) \
              order by ready_at_ms, order_id \
              limit $3::bigint \
          ) as page \
          cross join lateral ( \
              select key, version, schema, state from aggregates \
              where key = page.order_id::text and kind = 'shipment' limit 1 \
          ) as a \
          order by page.ready_at_ms, page.order_id",
};

#[derive(Serialize)]
struct Row<'a> {
    order_id: &'a str,
    status: &'static str,
    ready_at_ms: i64,
}

/// The row of the shipment `key`; `None` as long as it could never be picked.
pub(crate) fn row(state: &Shipment, key: &str) -> Option<ViewRow> {
    let details = state.details()?;
    let ready_at_ms = details.ready_at()?.unix_ms();
    Some(ViewRow::of(&Row { order_id: key, status: details.status.name(), ready_at_ms }))
}
