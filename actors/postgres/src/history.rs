//! What was lost, and what an operator says about it: the halt of a context, the marks of topics, offsets set
//! by hand.
//!
//! Upholds that nobody commits to a halted context: the statement that halts takes every row's token and
//! raises its epoch, so the fences of all owners and all take-overs under way fail at once (I4). Rows are
//! locked in partition order, as commits do. Deliberately absent: judging what was lost (the runtime's), and
//! folding it back (ordinary commits).

use std::collections::BTreeMap;

use holdfast_core::{PartitionId, epoch::Halt};
use sqlx::{PgConnection, Row as _};

/// The first reason stays. A row that is not released makes its next owner wait for leases that are still
/// being trusted.
const HALT: &str = "
with locked as materialized (select partition from partitions where halted is null order by partition for update)
update partitions p set halted = $1, token = null, epoch = epoch + 1, released = false
from locked l where p.partition = l.partition";

const RESUME: &str = "
with locked as materialized (select partition from partitions where halted is not null order by partition for update)
update partitions p set halted = null from locked l where p.partition = l.partition";

/// A statement doesn't see what it inserts itself.
const INCARNATIONS: &str = "
with noted as (
    insert into topic_ids (topic, mark) select * from unnest($1::text[], $2::text[]) as u(topic, mark)
    on conflict do nothing returning topic, mark)
select topic, mark from topic_ids union all select topic, mark from noted";

const MARK: &str = "
insert into topic_ids (topic, mark) values ($1, $2) on conflict (topic) do update set mark = excluded.mark, noted = now()";

const PLACE: &str = "
with locked as materialized (
    select p.partition, u.next
    from unnest($1::int[], $2::bigint[]) as u(partition, next) join partitions p on p.partition = u.partition
    order by p.partition for update of p)
update partitions p
set consumed = case when $4 then p.consumed else p.consumed || jsonb_build_object($3::text, l.next) end,
    published = case when $4 then l.next else p.published end
from locked l where p.partition = l.partition";

pub(crate) async fn halt(connection: &mut PgConnection, halt: Option<&Halt>) -> Result<(), sqlx::Error> {
    match halt {
        Some(halt) => sqlx::query(HALT).bind(halt.to_text()).execute(connection).await,
        None => sqlx::query(RESUME).execute(connection).await,
    }
    .map(drop)
}

pub(crate) async fn incarnations(
    connection: &mut PgConnection,
    seen: &[(String, String)],
) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let (topics, marks): (Vec<&str>, Vec<&str>) =
        seen.iter().map(|(topic, mark)| (topic.as_str(), mark.as_str())).unzip();
    let rows = sqlx::query(INCARNATIONS).bind(topics).bind(marks).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The offsets first: if the second statement is not reached, the old mark still halts.
pub(crate) async fn accept(
    connection: &mut PgConnection,
    topic: &str,
    mark: Option<&str>,
    places: &[(PartitionId, u64)],
    events: bool,
) -> Result<(), sqlx::Error> {
    let partitions: Vec<i32> = places.iter().map(|(partition, _)| partition.0.cast_signed()).collect();
    let offsets: Vec<i64> = places.iter().map(|(_, next)| i64::try_from(*next).unwrap_or(i64::MAX)).collect();
    sqlx::query(PLACE).bind(partitions).bind(offsets).bind(topic).bind(events).execute(&mut *connection).await?;
    if let Some(mark) = mark {
        sqlx::query(MARK).bind(topic).bind(mark).execute(connection).await?;
    }
    Ok(())
}
