//! Reads of many shipments, from what is stored.
//!
//! Invariant: each is one statement and so one snapshot, and is bounded by its caller. Deliberately absent:
//! SQL ([`crate::projection`]), addresses, and reads of one shipment, which the router answers.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::port::store::StoreError;
use holdfast_postgres::{PgStore, query::Row};
use holdfast_proto::fulfillment::v1;
use uuid::Uuid;

use crate::{codec, projection};

/// A place in the list of what can be picked, what has waited longest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When it could be picked, in milliseconds since the Unix epoch.
    pub ready_at_ms: i64,
    /// Its order's id.
    pub order_id: Uuid,
}

/// A shipment and its place in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The shipment.
    pub shipment: v1::Shipment,
    /// Where it stands.
    pub position: Position,
}

/// What is asked of the stored shipments.
#[async_trait]
pub trait Queries: Send + Sync + 'static {
    /// At most `rows_max` shipments that can be picked, from right after `after`.
    async fn pickable(&self, after: Position, rows_max: usize) -> Result<Vec<Listed>, StoreError>;
}

#[async_trait]
impl Queries for PgStore {
    async fn pickable(&self, after: Position, rows_max: usize) -> Result<Vec<Listed>, StoreError> {
        let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let values = vec![after.ready_at_ms.into(), after.order_id.into(), rows_max.into()];
        let rows = self.query(projection::PICKABLE, values).await?;
        rows.iter().filter_map(|row| listed(row).transpose()).collect()
    }
}

fn listed(row: &Row) -> Result<Option<Listed>, StoreError> {
    let (key, version, schema): (String, i64, i32) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let state: Bytes = row.get(3)?;
    let position = Position { ready_at_ms: row.get(4)?, order_id: row.get(5)? };
    let shipment = stored(&key, version.cast_unsigned(), schema.cast_unsigned(), &state)?;
    Ok(shipment.map(|shipment| Listed { shipment, position }))
}

/// A stored shipment as others see it; `None` if it is but the memory of news.
///
/// # Errors
/// [`StoreError::Broken`] if this build can't read it.
pub fn stored(key: &str, version: u64, schema: u32, state: &[u8]) -> Result<Option<v1::Shipment>, StoreError> {
    let state = codec::decode_shipment(schema, state)
        .map_err(|error| StoreError::Broken(format!("shipment {key} can't be read: {error}")))?;
    Ok(codec::shipment(&state, key, version))
}
