//! Who owns what, and whether anybody may, as the partition rows say.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::{Error, Schema, gather::connect};

/// How many partitions of a context each advertised address owns. Partitions that nobody ever took, or that
/// were given up, are left out.
pub async fn owners(schema: &Schema) -> Result<BTreeMap<String, i64>, Error> {
    let mut at = connect(schema).await?;
    let sql = "select address, count(*) from partitions where token is not null and not released group by address";
    let rows = sqlx::query(sql).fetch_all(&mut at).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Who owns each partition of a context: its advertised address, and the epoch. Partitions that nobody ever
/// took, or that were given up, are left out.
pub async fn homes(schema: &Schema) -> Result<BTreeMap<i32, (String, i64)>, Error> {
    let mut at = connect(schema).await?;
    let sql = "select partition, address, epoch from partitions where token is not null and not released";
    let rows = sqlx::query(sql).fetch_all(&mut at).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
}

/// Why a context stands still until an operator has spoken; `None` if it does not.
pub async fn halted(schema: &Schema) -> Result<Option<String>, Error> {
    let sql = "select max(halted) from partitions";
    Ok(sqlx::query_scalar(sql).fetch_one(&mut connect(schema).await?).await?)
}
