//! The read model of stopped payments: its row, the statement that writes it, and what reads from it.
//!
//! Invariant: a payment has a row if and only if the provider contradicted what was asked of it. Deliberately
//! absent: every other payment, which is asked for by its order.

use holdfast_core::{Aggregate, Timestamp, batch::ViewRow, port::store::StoreError};
use holdfast_payments_domain::{Contradiction, Payment};
use holdfast_postgres::{PgStore, Query, View};
use serde::Serialize;

/// How the read model is written. A stopped payment stays as it is, so what is there already is right.
pub const VIEW: View = View {
    name: "contradictions",
    kind: Payment::KIND,
    upsert: "insert into contradictions (order_id, source, subject, asked, answered, at_ms) \
             select order_id, source, subject, asked, answered, at_ms \
             from jsonb_to_recordset($1) as stopped \
             (order_id uuid, source text, subject text, asked text, answered text, at_ms bigint) \
             on conflict (order_id) do nothing",
};

/// The latest stopped payments with how many there are in all. `$1` rows.
const STOPPED: Query = Query {
    name: "payments.stopped",
    sql: "select order_id::text, source, subject, asked, answered, at_ms, count(*) over () \
          from contradictions order by at_ms desc, order_id limit $1::bigint",
};

/// A payment that is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Its order.
    pub order_id: String,
    /// The call that was answered, or `report`.
    pub source: String,
    /// `ORDER`, `CHARGE`, `REFUND` or `AMOUNT`.
    pub subject: String,
    /// What was asked.
    pub asked: String,
    /// What the provider said instead.
    pub answered: String,
    /// Since when.
    pub since: Timestamp,
}

/// The latest `rows_max` stopped payments, and how many there are in all.
///
/// # Errors
/// If the database does not answer, or the schema is not migrated.
pub async fn stopped(store: &PgStore, rows_max: u32) -> Result<(Vec<Stopped>, u64), StoreError> {
    let rows = store.query(STOPPED, vec![i64::from(rows_max).into()]).await?;
    let all = rows.first().map_or(Ok(0), |row| row.get::<i64>(6))?;
    let stopped = rows.iter().map(|row| {
        Ok(Stopped {
            order_id: row.get(0)?,
            source: row.get(1)?,
            subject: row.get(2)?,
            asked: row.get(3)?,
            answered: row.get(4)?,
            since: Timestamp::from_unix_ms(row.get(5)?),
        })
    });
    Ok((stopped.collect::<Result<_, StoreError>>()?, u64::try_from(all).unwrap_or(0)))
}

#[derive(Serialize)]
struct Row<'a> {
    order_id: &'a str,
    source: &'a str,
    subject: &'static str,
    asked: &'a str,
    answered: &'a str,
    at_ms: i64,
}

/// The row of the payment `key`; `None` unless it is stopped. The first one stands: a payment that is stopped
/// notes its order's cancellation at most.
pub(crate) fn row(state: &Payment, key: &str) -> Option<ViewRow> {
    let details = state.details()?;
    let Contradiction { source, subject, asked, answered } = details.contradiction.as_ref()?;
    Some(ViewRow::of(&Row {
        order_id: key,
        source,
        subject: subject.name(),
        asked,
        answered,
        at_ms: details.updated_at.unix_ms(),
    }))
}
