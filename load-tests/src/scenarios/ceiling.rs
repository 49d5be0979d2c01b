//! The ceiling: the statements of a group commit in a bare loop, Postgres alone.
//!
//! No actors, no Kafka, no domain: what remains if everything above the database cost nothing. Two
//! connections, each with half of the partitions; for each batch one look-up (claims and states) and one
//! statement of chained CTEs (fence, states, claims, outbox), over the same tables, with rows of the sizes
//! that the benchmark's work has. Written apart from the runtime's statements. The orders of a window are
//! worked through step by step, as the real work is.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Error, failed};

/// The schema that it works in.
const SCHEMA: &str = "ceiling";
/// Commands in one commit.
pub const BATCH: usize = 512;
/// Connections.
pub const CONNECTIONS: usize = 2;
const PARTITIONS: usize = 12;
/// Steps of one order.
const STEPS: usize = 4;

/// Bytes of a stored order, by step; of an event's value and headers; of a claim's answer.
const STATE: [usize; STEPS] = [61, 76, 91, 111];
const VALUE: [usize; STEPS] = [94, 88, 88, 216];
const HEADERS: usize = 432;
const ANSWER: usize = 9;

const LOOK_UP: &str = "
select count(a.version) + (select count(*) from claims where id = any($2))
from unnest($1::text[]) as wanted(key) left join aggregates a on a.key = wanted.key and a.kind = 'order'";

/// A step of orders that are there is an update; the first is an insert.
const INSERT: &str = "
written as (
    insert into aggregates (kind, key, hash, version, schema, state)
    select 'order', key, hash, 1, 1, state from unnest($3::text[], $4::int[], $5::bytea[]) as u(key, hash, state)
    returning 1)";
const UPDATE: &str = "
written as (
    update aggregates a set version = a.version + 1, state = u.state
    from unnest($3::text[], $4::int[], $5::bytea[]) as u(key, hash, state)
    where a.key = u.key and a.kind = 'order' returning 1)";

const REST: &str = "
claimed as (
    insert into claims (id, scope, body, answer) select * from unnest($6::uuid[], $7::uuid[], $7::uuid[], $8::bytea[])),
staged as (
    insert into outbox (partition, target, sequence, id, topic, key, headers, value)
    select partition, partition, sequence, id, 'orders.events', key, headers, value
    from unnest($9::int[], $10::bigint[], $6::uuid[], $11::bytea[], $12::bytea[], $13::bytea[])
        as u(partition, sequence, id, key, headers, value))
select (select count(*) from fenced) + (select count(*) from written)";

const FENCE: &str = "
with fenced as (
    update partitions p set batch = p.batch + 1, outbox_head = p.outbox_head + f.rows
    from unnest($1::int[], $2::bigint[]) as f(partition, rows) where p.partition = f.partition returning 1),";

/// Runs it until about `commands` are committed; returns how many were, and how long that took.
pub fn run(url: &str, commands: u64) -> BoxFuture<'_, Result<(u64, Duration), Error>> {
    Box::pin(async move {
        holdfast_postgres::migrate(url, SCHEMA, None, &[]).await.map_err(failed("migrating"))?;
        let options: PgConnectOptions = url.parse()?;
        let options = options.application_name("ceiling").options([("search_path", SCHEMA)]);
        let mut first = options.connect().await?;
        sqlx::query("truncate aggregates, claims, outbox, partitions").execute(&mut first).await?;
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
            loops.spawn(work(connection, number, each));
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

async fn work(mut connection: PgConnection, number: usize, commands: usize) -> Result<u64, Error> {
    let insert = format!("{FENCE}{INSERT},{REST}");
    let update = format!("{FENCE}{UPDATE},{REST}");
    let partitions: Vec<i32> =
        (0..PARTITIONS).filter(|partition| partition % CONNECTIONS == number).map(as_i32).collect();
    let mut sequence = 0;
    let mut done = 0;
    while done < commands {
        let orders: Vec<Uuid> = (0..WINDOW.min((commands - done).div_ceil(STEPS))).map(|_| Uuid::now_v7()).collect();
        for step in 0..STEPS {
            for batch in orders.chunks(BATCH) {
                let sql = if step == 0 { &insert } else { &update };
                commit(&mut connection, sql, &partitions, batch, step, &mut sequence).await?;
                done += batch.len();
            }
        }
    }
    Ok(done as u64)
}

async fn commit(
    connection: &mut PgConnection,
    sql: &str,
    partitions: &[i32],
    orders: &[Uuid],
    step: usize,
    sequence: &mut i64,
) -> Result<(), Error> {
    let keys: Vec<String> = orders.iter().map(Uuid::to_string).collect();
    let ids: Vec<Uuid> = orders.iter().map(|_| Uuid::now_v7()).collect();
    let bytes = |size: usize| vec![vec![b'.'; size]; orders.len()];
    let _known: i64 = sqlx::query_scalar(LOOK_UP).bind(&keys).bind(&ids).fetch_one(&mut *connection).await?;
    let homes: Vec<i32> = partitions.iter().copied().cycle().take(orders.len()).collect();
    let sequences: Vec<i64> = (*sequence..).take(orders.len()).collect();
    *sequence += i64::try_from(orders.len()).unwrap_or(0);
    let written: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(partitions)
        .bind(vec![i64::try_from(orders.len() / partitions.len()).unwrap_or(0); partitions.len()])
        .bind(&keys)
        .bind(vec![0_i32; orders.len()])
        .bind(bytes(STATE[step]))
        .bind(&ids)
        .bind(&ids)
        .bind(bytes(ANSWER))
        .bind(homes)
        .bind(sequences)
        .bind(keys.iter().map(String::as_bytes).collect::<Vec<_>>())
        .bind(bytes(HEADERS))
        .bind(bytes(VALUE[step]))
        .fetch_one(&mut *connection)
        .await?;
    let due = partitions.len() + orders.len();
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
    use holdfast_core::{
        Aggregate as _, Context, Decision, Timestamp,
        codec::{Adapter as _, EncodedEvent},
        envelope::EnvelopeOut,
    };

    /// The commands of one order of the benchmark.
    fn order() -> (String, Vec<Command>) {
        let planned: Vec<_> = Mix::benchmark(1, 1).windows().flatten().collect();
        let decode = |record: &crate::work::Planned| match record.r#type.rsplit('.').next() {
            Some("CreateOrder") => Command::Create(prost::Message::decode(&record.value[..]).expect("sound")),
            Some("AddItem") => Command::Add(prost::Message::decode(&record.value[..]).expect("sound")),
            _ => Command::Place(prost::Message::decode(&record.value[..]).expect("sound")),
        };
        (planned[0].key.clone(), planned.iter().map(decode).collect())
    }

    #[test]
    fn the_rows_have_the_sizes_of_the_real_work() {
        let (key, commands) = order();
        let mut state = StandIn::default();
        let close = |is: usize, real: usize| assert!(is.abs_diff(real) * 10 <= real, "{is} bytes for {real}");
        assert_eq!(commands.len(), STEPS);
        for (step, command) in commands.iter().enumerate() {
            let now = Timestamp::from_unix_ms(1_795_000_000_000);
            let context = Context { key: &key, version: step as u64, now };
            let Ok(Decision::Done(effects)) = state.decide(command, &context) else { panic!("refused") };
            state.evolve(&effects.events[0]);
            let EncodedEvent { r#type, payload } = StandInAdapter.encode_event(&effects.events[0], &context);
            close(STATE[step], StandInAdapter.encode_state(&state).len());
            close(VALUE[step], payload.len());
            let id = Uuid::now_v7();
            let envelope = EnvelopeOut {
                id,
                source: "holdfast/orders/order",
                r#type,
                time: now,
                subject: &key,
                sequence: Some(1),
                correlation: Some(&key),
                causation: Some(id),
                schema: None,
                traceparent: None,
                tracestate: None,
            };
            close(HEADERS, envelope.headers().to_bytes().len());
        }
    }
}
