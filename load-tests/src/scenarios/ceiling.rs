//! The ceiling: the statements of a group commit in a bare loop, Postgres alone.
//!
//! No actors, no Kafka, no domain: what remains if everything above the database cost nothing. Two
//! connections, each with half of the partitions; for each batch one statement of chained CTEs (fence, states
//! with their claims, a segment of the outbox for each partition), and before it, if the orders are new, one
//! look-up; over the same tables, empty at the start, with rows of the sizes that the benchmark's work has,
//! and without the read model. Written apart from the runtime's statements. The orders of a window are worked
//! through step by step, as the real work is.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Error, failed};
use crate::work::Ids;

/// The schema that it works in.
const SCHEMA: &str = "ceiling";
/// Commands in one commit.
pub const BATCH: usize = 512;
/// Connections.
pub const CONNECTIONS: usize = 2;
const PARTITIONS: usize = 12;
/// Steps of one order.
const STEPS: usize = 4;

/// Bytes of a stored order, by step; of its ring without claims, and of each claim; of an event in a segment,
/// compressed, by step.
const STATE: [usize; STEPS] = [61, 76, 91, 111];
const RING: usize = 17;
const CLAIM: usize = 26;
const FRAME: [usize; STEPS] = [116, 121, 122, 131];

const LOOK_UP: &str = "
select count(a.version) from unnest($1::text[]) as wanted(key)
left join aggregates a on a.key = wanted.key and a.kind = 'order'";

const FENCE: &str = "
with fenced as (
    update partitions p set batch = p.batch + 1, outbox_head = p.outbox_head + f.rows
    from unnest($1::int[], $2::bigint[]) as f(partition, rows) where p.partition = f.partition returning 1),";
/// The first step of an order.
const INSERT: &str = "
written as (
    insert into aggregates (kind, key, hash, revision, version, schema, state, ring)
    select 'order', key, hash, 1, 1, 1, state, ring
    from unnest($3::text[], $4::int[], $5::bytea[], $6::bytea[]) as u(key, hash, state, ring) returning 1),";
/// Any other.
const UPDATE: &str = "
written as (
    update aggregates a set revision = a.revision + 1, version = a.version + 1, state = u.state, ring = u.ring
    from unnest($3::text[], $4::int[], $5::bytea[], $6::bytea[]) as u(key, hash, state, ring)
    where a.key = u.key and a.kind = 'order' returning 1),";
const STAGE: &str = "
staged as (
    insert into outbox (partition, sequence, id, records, bytes, value)
    select * from unnest($1::int[], $7::bigint[], $8::uuid[], $9::int[], $9::int[], $10::bytea[]) returning 1)
select (select count(*) from fenced) + (select count(*) from written) + (select count(*) from staged)";

/// Runs it until about `commands` are committed; returns how many were, and how long that took.
pub fn run(url: &str, commands: u64, ids: Ids) -> BoxFuture<'_, Result<(u64, Duration), Error>> {
    Box::pin(async move {
        holdfast_postgres::migrate(url, SCHEMA, None, &[]).await.map_err(failed("migrating"))?;
        let options: PgConnectOptions = url.parse()?;
        let options = options.application_name("ceiling").options([("search_path", SCHEMA)]);
        let mut first = options.connect().await?;
        sqlx::query("truncate aggregates, outbox, partitions").execute(&mut first).await?;
        sqlx::query("insert into partitions (partition) select generate_series(0, $1)")
            .bind(i32::try_from(PARTITIONS).unwrap_or(i32::MAX) - 1)
            .execute(&mut first)
            .await?;
        let mut loops = JoinSet::new();
        let each = usize::try_from(commands).unwrap_or(usize::MAX) / CONNECTIONS;
        let mut connections = vec![first];
        while connections.len() < CONNECTIONS {
            connections.push(options.connect().await?);
        }
        let began = Instant::now();
        for (number, connection) in connections.into_iter().enumerate() {
            loops.spawn(work(connection, number, each, ids));
        }
        let mut committed = 0;
        while let Some(done) = loops.join_next().await {
            committed += done.map_err(failed("the ceiling's loop"))??;
        }
        Ok((committed, began.elapsed()))
    })
}

/// As many orders as one connection sees of a window of 5,000.
const WINDOW: usize = 5_000 / CONNECTIONS;

async fn work(mut connection: PgConnection, number: usize, commands: usize, ids: Ids) -> Result<u64, Error> {
    let partitions: Vec<i32> =
        (0..PARTITIONS).filter(|partition| partition % CONNECTIONS == number).map(as_i32).collect();
    let mut sequence = 0;
    let mut done = 0;
    while done < commands {
        let count = WINDOW.min((commands - done).div_ceil(STEPS));
        let orders: Vec<Uuid> = (0..count).map(|_| ids.fresh()).collect();
        for step in 0..STEPS {
            for batch in orders.chunks(BATCH) {
                commit(&mut connection, &partitions, batch, step, &mut sequence).await?;
                done += batch.len();
            }
        }
    }
    Ok(done as u64)
}

async fn commit(
    connection: &mut PgConnection,
    partitions: &[i32],
    orders: &[Uuid],
    step: usize,
    sequence: &mut i64,
) -> Result<(), Error> {
    let keys: Vec<String> = orders.iter().map(Uuid::to_string).collect();
    let bytes = |size: usize| vec![vec![b'.'; size]; orders.len()];
    if step == 0 {
        let _known: i64 = sqlx::query_scalar(LOOK_UP).bind(&keys).fetch_one(&mut *connection).await?;
    }
    let each = orders.len().div_ceil(partitions.len());
    let rows = vec![as_i32(each); partitions.len()];
    *sequence += i64::from(as_i32(each));
    let sql = format!("{FENCE}{}{STAGE}", if step == 0 { INSERT } else { UPDATE });
    let written: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(partitions)
        .bind(vec![i64::from(as_i32(each)); partitions.len()])
        .bind(&keys)
        .bind(vec![0_i32; orders.len()])
        .bind(bytes(STATE[step]))
        .bind(bytes(RING + CLAIM * (step + 1)))
        .bind(vec![*sequence; partitions.len()])
        .bind(partitions.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
        .bind(rows)
        .bind(vec![vec![b'.'; FRAME[step] * each]; partitions.len()])
        .fetch_one(&mut *connection)
        .await?;
    let due = 2 * partitions.len() + orders.len();
    if usize::try_from(written).is_ok_and(|written| written == due) {
        Ok(())
    } else {
        Err(Error::Wrong(format!("the ceiling wrote {written} rows of {due}")))
    }
}

fn as_i32(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        scenarios::stand_in::{Command, StandIn, StandInAdapter},
        work::Mix,
    };
    use bytes::Bytes;
    use holdfast_core::{
        Aggregate as _, Context, Decision, Timestamp,
        codec::{Adapter as _, EncodedEvent},
        dedup::{Answer, Claim, ClaimKey},
        envelope::EnvelopeOut,
        ring::Ring,
    };

    /// The commands of one order of the benchmark.
    fn order(seed: u64) -> (String, Vec<Command>) {
        let planned: Vec<_> = Mix { ids: Ids::V4, ..Mix::benchmark(1, seed) }.windows().flatten().collect();
        let decode = |record: &crate::work::Planned| match record.r#type.rsplit('.').next() {
            Some("CreateOrder") => Command::Create(prost::Message::decode(&record.value[..]).expect("sound")),
            Some("AddItem") => Command::Add(prost::Message::decode(&record.value[..]).expect("sound")),
            _ => Command::Place(prost::Message::decode(&record.value[..]).expect("sound")),
        };
        (planned[0].key.clone(), planned.iter().map(decode).collect())
    }

    /// A segment of as many events of one step as a batch has for one partition.
    #[test]
    fn rows_have_the_sizes_of_the_real_work() {
        let each = BATCH / (PARTITIONS / CONNECTIONS);
        let mut orders: Vec<_> = (0..each as u64).map(|seed| (order(seed), StandIn::default())).collect();
        let close = |is: usize, real: usize| assert!(is.abs_diff(real) * 10 <= real, "{is} bytes for {real}");
        let (mut ring, mut sizes) = (Ring::default(), Vec::new());
        for step in 0..STEPS {
            let mut segment = Vec::new();
            for ((key, commands), state) in &mut orders {
                let now = Timestamp::from_unix_ms(1_795_000_000_000);
                let context = Context { key, version: step as u64, now };
                let Ok(Decision::Done(effects)) = state.decide(&commands[step], &context) else { panic!("refused") };
                state.evolve(&effects.events[0]);
                let EncodedEvent { r#type, payload } = StandInAdapter.encode_event(&effects.events[0], &context);
                let envelope = EnvelopeOut {
                    id: Uuid::now_v7(),
                    source: "holdfast/orders/order",
                    r#type,
                    time: now,
                    subject: key,
                    sequence: Some(step as u64 + 1),
                    correlation: Some(key),
                    causation: Some(Uuid::new_v4()),
                    schema: None,
                    traceparent: None,
                    tracestate: None,
                };
                segment.extend([key.as_bytes(), &envelope.headers().to_bytes(), &payload].concat());
            }
            close(STATE[step], StandInAdapter.encode_state(&orders[0].1).len());
            sizes.push(lz4_flex::block::compress(&segment).len() / each);
            let answer = Answer::Applied { version: step as u64 + 1, reply: Bytes::new() };
            let key = ClaimKey { id: Uuid::new_v4(), scope: Uuid::nil() };
            let claim = Claim { key, body: Uuid::nil(), answer };
            ring = ring.push(&[claim], 32).ring;
            close(RING + CLAIM * (step + 1), ring.bytes().len());
        }
        for (is, real) in FRAME.into_iter().zip(&sizes) {
            assert!(is.abs_diff(*real) * 10 <= *real, "{FRAME:?} for {sizes:?}");
        }
    }
}
