//! Orders that stand in the tables before a load comes, written by SQL (`copy`), as many as are wanted.
//!
//! Invariant: each row is one that the orders context could have written: its hash, its state, its last
//! claims, its row in the read model, and a later command finds all of it. Orders and their ids follow from a
//! seed. None of their events is in a topic; [`Stored::recall`] adds those of the orders that a load has
//! changed to the evidence, so that the checkers know the whole history of each. Deliberately absent: claims
//! of the load's own source; those that stand in a ring are another's.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use bytes::{BufMut as _, Bytes};
use holdfast_core::{
    dedup::{Answer, Claim, ClaimKey},
    partition::KeyHash,
    ring::Ring,
};
use holdfast_proto::{
    orders::v1::{OrderLineState, OrderState, OrderStatus},
    time::from_unix_ms,
};
use prost::Message as _;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

use super::{Error, apart::CONTEXT};
use crate::{
    checkers::{EventRecord, Evidence, News, OutboxRow},
    random::Random,
    work::{Ids, Mix, regular},
};

/// The version of a stored order: created, and two lines added.
pub const VERSION: i64 = 3;
/// The lines of each.
const LINES: [(u32, i64); 2] = [(0, 1), (1, 2)];
/// What one unit costs, everywhere.
const PRICE_MINOR: i64 = 1_999;
/// Rows are sent in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;

const AGGREGATES: &str = "copy aggregates (kind, key, hash, revision, version, schema, state, ring) \
                          from stdin with (format binary)";
const VIEW: &str = "copy orders_view (order_id, customer_id, status, created_at_ms) from stdin with (format binary)";
const HAS_VIEW: &str = "select to_regclass('orders_view') is not null";
const COUNT: &str = "select count(*) from aggregates where kind = 'order' and version = $1";

/// What a stored order is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A draft with two lines.
    Sound,
    /// Its state can't be read, so that every command to it fails.
    Unreadable,
}

/// The stored orders.
#[derive(Debug)]
pub struct Stored {
    mix: Mix,
    written: u32,
    /// Those that a load has commands for.
    picked: HashMap<Uuid, u32>,
}

impl Stored {
    /// None yet.
    pub fn new(seed: u64) -> Self {
        Self { mix: Mix { ids: Ids::V4, ..Mix::benchmark(0, seed) }, written: 0, picked: HashMap::new() }
    }

    /// How many there are.
    pub const fn count(&self) -> u32 {
        self.written
    }

    /// The id of the n-th order.
    fn order(&self, n: u32) -> Uuid {
        self.mix.order_id(n).0
    }

    /// All of them.
    pub fn orders(&self) -> impl Iterator<Item = Uuid> + '_ {
        (0..self.written).map(|n| self.order(n))
    }

    /// `count` of them, spread evenly over all, in any order. They are remembered as picked.
    pub fn pick(&mut self, count: u32, seed: u64) -> Vec<Uuid> {
        let (all, count) = (u64::from(self.written), u64::from(count.min(self.written)));
        let mut random = Random(seed);
        let mut picked = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        for place in 0..count {
            let (first, end) = (place * all / count, (place + 1) * all / count);
            let n = u32::try_from(first + random.below(end - first)).unwrap_or(u32::MAX);
            let order = self.order(n);
            self.picked.insert(order, n);
            picked.push(order);
        }
        random.shuffle(&mut picked);
        picked
    }

    /// Writes orders until there are `count`, and has Postgres look at them. The schema must exist.
    /// `progress` is called with the number of them now and then.
    pub async fn write(&mut self, url: &str, count: u32, progress: impl Fn(u32)) -> Result<(), Error> {
        let orders = self.written..count.max(self.written);
        self.write_as(url, orders, Condition::Sound, progress).await?;
        let mut connection = connect(url).await?;
        for table in ["vacuum (analyze) aggregates", "vacuum (analyze) partitions", "checkpoint"] {
            sqlx::query(table).execute(&mut connection).await?;
        }
        if sqlx::query_scalar(HAS_VIEW).fetch_one(&mut connection).await? {
            sqlx::query("vacuum (analyze) orders_view").execute(&mut connection).await?;
        }
        Ok(connection.close().await?)
    }

    /// Writes `count` further orders whose state can't be read, and returns their ids.
    pub async fn write_unreadable(&mut self, url: &str, count: u32) -> Result<Vec<Uuid>, Error> {
        let orders = self.written..self.written.saturating_add(count);
        self.write_as(url, orders.clone(), Condition::Unreadable, |_| {}).await?;
        Ok(orders.map(|n| self.order(n)).collect())
    }

    async fn write_as(
        &mut self,
        url: &str,
        orders: Range<u32>,
        condition: Condition,
        progress: impl Fn(u32),
    ) -> Result<(), Error> {
        let mut connection = connect(url).await?;
        let has_view: bool = sqlx::query_scalar(HAS_VIEW).fetch_one(&mut connection).await?;
        let end = orders.end;
        copy(&mut connection, AGGREGATES, orders.clone().map(|n| self.row(n, condition)), |done| {
            progress(orders.start + done);
        })
        .await?;
        if has_view {
            copy(&mut connection, VIEW, orders.map(|n| self.view_row(n)), |_| {}).await?;
        }
        connection.close().await?;
        self.written = self.written.max(end);
        Ok(())
    }

    /// A row of `aggregates`.
    fn row(&self, n: u32, condition: Condition) -> Vec<Bytes> {
        let (order, mut random) = self.mix.order_id(n);
        let key = order.to_string();
        let hash = KeyHash::of(key.as_bytes()).as_i32();
        let state = match condition {
            Condition::Sound => self.state(n).encode_to_vec().into(),
            Condition::Unreadable => Bytes::from_static(&[0xff; 40]),
        };
        vec![
            Bytes::from_static(b"order"),
            key.into_bytes().into(),
            int(hash),
            big(VERSION),
            big(VERSION),
            int(1),
            state,
            ring(&mut random).bytes().clone(),
        ]
    }

    /// A row of `orders_view`.
    fn view_row(&self, n: u32) -> Vec<Bytes> {
        vec![
            Bytes::copy_from_slice(self.order(n).as_bytes()),
            Bytes::copy_from_slice(regular(n).0.as_bytes()),
            Bytes::from_static(b"DRAFT"),
            big(self.created_at_ms()),
        ]
    }

    fn created_at_ms(&self) -> i64 {
        i64::try_from(self.mix.time_ms).unwrap_or(0)
    }

    fn state(&self, n: u32) -> OrderState {
        let at = Some(from_unix_ms(self.created_at_ms()));
        let line = |(sku, quantity)| OrderLineState { sku: Mix::sku(sku), quantity, unit_price_minor: PRICE_MINOR };
        OrderState {
            customer_id: regular(n).0.to_string(),
            currency: "EUR".into(),
            status: OrderStatus::Draft.into(),
            lines: LINES.map(line).to_vec(),
            created_at: at,
            updated_at: at,
            ..OrderState::default()
        }
    }

    /// Adds what the topics never had: the events that led to the picked orders as they were written, and
    /// their outbox rows.
    pub fn recall(&self, evidence: &mut Evidence) {
        let mut partitions: BTreeMap<Uuid, i32> = BTreeMap::new();
        for event in &evidence.orders.events {
            if let Some(order) = Uuid::try_parse(&event.key).ok().filter(|order| self.picked.contains_key(order)) {
                partitions.entry(order).or_insert(event.partition);
            }
        }
        for (order, partition) in partitions {
            let lines = LINES.map(|(sku, quantity)| News::Added((Mix::sku(sku), quantity)));
            for (sequence, news) in (1_u8..).zip([News::Created].into_iter().chain(lines)) {
                let id = Uuid::from_u128(order.as_u128() ^ u128::from(sequence) << 120);
                let offset = i64::from(sequence) - 1 - VERSION;
                evidence.orders.events.push(EventRecord {
                    partition,
                    offset,
                    time_ms: self.created_at_ms(),
                    key: order.to_string(),
                    id,
                    sequence: u64::from(sequence),
                    causation: None,
                    digest: 0,
                    news,
                });
                let (sequence, topic) = (i64::try_from(evidence.orders.outbox.len()).unwrap_or(0), String::new());
                evidence.orders.outbox.push(OutboxRow { partition, sequence: -1 - sequence, id, topic });
            }
        }
    }

    /// Says what is wrong, if other orders than those in `changed` have left the version in which they were
    /// written.
    pub async fn untouched(&self, url: &str, changed: usize) -> Result<Option<String>, Error> {
        let mut connection = connect(url).await?;
        let found: i64 = sqlx::query_scalar(COUNT).bind(VERSION).fetch_one(&mut connection).await?;
        connection.close().await?;
        let due = i64::from(self.written) - i64::try_from(changed).unwrap_or(i64::MAX);
        Ok((found != due).then(|| format!("I8: {found} stored orders are as they were written, {due} should be")))
    }

    /// How many of the picked orders have an event in a topic.
    pub fn changed(&self, evidence: &Evidence) -> usize {
        let keys = evidence.orders.events.iter().filter_map(|event| Uuid::try_parse(&event.key).ok());
        keys.filter(|order| self.picked.contains_key(order)).collect::<std::collections::HashSet<_>>().len()
    }
}

/// Three claims, as three commands of one source leave them.
fn ring(random: &mut Random) -> Ring {
    let mut id = || Uuid::from_u64_pair(random.next(), random.next());
    let scope = id();
    let claims: Vec<Claim> = (1..=VERSION.unsigned_abs())
        .map(|version| Claim {
            key: ClaimKey { id: id(), scope },
            body: id(),
            answer: Answer::Applied { version, reply: Bytes::new() },
        })
        .collect();
    Ring::default().push(&claims, Ring::CLAIMS_MAX).ring
}

fn int(number: i32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn big(number: i64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

async fn connect(url: &str) -> Result<PgConnection, Error> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.application_name("seed").options([("search_path", CONTEXT)]).connect().await?)
}

/// Copies rows in, in Postgres' binary form.
async fn copy(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: impl Iterator<Item = Vec<Bytes>>,
    progress: impl Fn(u32),
) -> Result<(), Error> {
    let mut into = connection.copy_in_raw(statement).await?;
    let mut piece = Vec::with_capacity(PIECE_BYTES + 4_096);
    piece.put_slice(b"PGCOPY\n\xff\r\n\0");
    piece.put_slice(&[0; 8]);
    for (done, row) in (1..).zip(rows) {
        piece.put_i16(i16::try_from(row.len()).unwrap_or(i16::MAX));
        for field in row {
            piece.put_i32(i32::try_from(field.len()).unwrap_or(i32::MAX));
            piece.put_slice(&field);
        }
        if piece.len() >= PIECE_BYTES {
            into.send(&piece[..]).await?;
            piece.clear();
            progress(done);
        }
    }
    piece.put_i16(-1);
    into.send(&piece[..]).await?;
    into.finish().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn picked_orders_are_distinct_and_spread_over_all() {
        let mut stored = Stored { written: 100_000, ..Stored::new(7) };
        let picked = stored.pick(1_000, 1);
        assert_eq!(picked.iter().collect::<HashSet<_>>().len(), 1_000);
        let numbers: HashSet<u32> = picked.iter().map(|order| stored.picked[order] / 100).collect();
        assert_eq!(numbers.len(), 1_000, "one of each hundred");
        assert!(picked.windows(2).any(|pair| stored.picked[&pair[0]] > stored.picked[&pair[1]]), "in any order");
        let again = Stored { written: 100_000, mix: stored.mix.clone(), picked: HashMap::new() }.pick(1_000, 1);
        assert_eq!(picked, again);
    }

    #[test]
    fn stored_state_has_the_lines_of_its_recalled_history() {
        let stored = Stored::new(7);
        let state = stored.state(3);
        let lines: Vec<(String, i64)> = state.lines.into_iter().map(|line| (line.sku, line.quantity)).collect();
        assert_eq!(lines, [("sku-0".to_owned(), 1), ("sku-1".to_owned(), 2)]);
        assert_eq!(ring(&mut Random(1)).claims().len(), 3);
    }
}
