//! Reads of many orders, or of what changed, from what is stored.
//!
//! Invariant: each is one statement and so one snapshot, and is bounded by its caller. Deliberately absent:
//! SQL ([`crate::projection`]), and reads of one order, which the router answers.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::port::store::StoreError;
use holdfast_postgres::{PgStore, query::Row};
use holdfast_proto::orders::v1;
use uuid::Uuid;

use crate::{codec, projection};

/// A place in the list of all orders, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When the order was created, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Its id.
    pub order_id: Uuid,
}

/// Which orders a page is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Of this customer; of any, if `None`.
    pub customer: Option<Uuid>,
    /// In one of these states, each once, by name.
    pub statuses: Vec<&'static str>,
    /// Created at or after, in milliseconds since the Unix epoch.
    pub created_from_ms: i64,
    /// Those that come after this place.
    pub after: Position,
    /// The largest number of rows.
    pub rows_max: usize,
}

/// An order and its place in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The order.
    pub order: v1::Order,
    /// Where it stands.
    pub position: Position,
}

/// What is asked of the stored orders.
#[async_trait]
pub trait Queries: Send + Sync + 'static {
    /// Those of `ids` that exist, in any order.
    async fn by_ids(&self, ids: &[Uuid]) -> Result<Vec<v1::Order>, StoreError>;

    /// A page, newest first.
    async fn page(&self, page: &Page) -> Result<Vec<Listed>, StoreError>;

    /// Those of the given orders that have a later version than the given one, in any order.
    async fn newer(&self, known: &[(Uuid, u64)]) -> Result<Vec<v1::Order>, StoreError>;
}

#[async_trait]
impl Queries for PgStore {
    async fn by_ids(&self, ids: &[Uuid]) -> Result<Vec<v1::Order>, StoreError> {
        let rows = self.query(projection::BY_IDS, vec![texts(ids.iter().copied()).into()]).await?;
        orders(&rows)
    }

    async fn page(&self, page: &Page) -> Result<Vec<Listed>, StoreError> {
        let statuses: Vec<String> = page.statuses.iter().map(|status| (*status).to_owned()).collect();
        let rows_max = i64::try_from(page.rows_max).unwrap_or(i64::MAX);
        let mut values = vec![
            statuses.into(),
            page.created_from_ms.into(),
            page.after.created_at_ms.into(),
            page.after.order_id.into(),
            rows_max.into(),
        ];
        let query = match page.customer {
            None => projection::PAGE,
            Some(customer) => {
                values.push(customer.into());
                projection::PAGE_OF_CUSTOMER
            }
        };
        let rows = self.query(query, values).await?;
        let listed = |row: &Row| {
            let position = Position { created_at_ms: row.get(4)?, order_id: row.get(5)? };
            Ok(order(row)?.map(|order| Listed { order, position }))
        };
        rows.iter().filter_map(|row| listed(row).transpose()).collect()
    }

    async fn newer(&self, known: &[(Uuid, u64)]) -> Result<Vec<v1::Order>, StoreError> {
        let ids = texts(known.iter().map(|(id, _)| *id));
        let versions: Vec<i64> = known.iter().map(|(_, version)| i64::try_from(*version).unwrap_or(i64::MAX)).collect();
        let rows = self.query(projection::NEWER, vec![ids.into(), versions.into()]).await?;
        orders(&rows)
    }
}

fn texts(ids: impl Iterator<Item = Uuid>) -> Vec<String> {
    ids.map(|id| id.to_string()).collect()
}

/// The orders in rows that begin with key, version, schema, state.
fn orders(rows: &[Row]) -> Result<Vec<v1::Order>, StoreError> {
    rows.iter().filter_map(|row| order(row).transpose()).collect()
}

fn order(row: &Row) -> Result<Option<v1::Order>, StoreError> {
    let (key, version, schema): (String, i64, i32) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let state: Bytes = row.get(3)?;
    stored(&key, version.cast_unsigned(), schema.cast_unsigned(), &state)
}

/// A stored order as others see it; `None` if it is but the memory of news about an order that does not
/// exist.
///
/// # Errors
/// [`StoreError::Broken`] if this build can't read it.
pub fn stored(key: &str, version: u64, schema: u32, state: &[u8]) -> Result<Option<v1::Order>, StoreError> {
    let state = codec::decode_state(schema, state)
        .map_err(|error| StoreError::Broken(format!("order {key} can't be read: {error}")))?;
    Ok(codec::order(&state, key, version))
}
