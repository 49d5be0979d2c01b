//! What a build left in its schemas and topics, as files, and the way back into servers.
//!
//! A dump has for each schema the rows of its tables, by COPY, and for all topics their records with
//! headers; and which commands were sent, and what must become of them. Loaded, times are moved to the
//! day of loading, since tables are kept by days; timers alone stay where they were, and so are due. Each
//! partition's records get the offsets that they had. Deliberately absent: topic ids and beats, which are
//! the servers' and the nodes' own, and tables' definitions, which are the old migrations'.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    time::Duration,
};

use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use futures::TryStreamExt as _;
use holdfast_postgres::migrator;
use rdkafka::{
    Message as _,
    error::KafkaError,
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use crate::{
    checkers::{self, Schema, connect},
    kafka::{self, Ends},
    producer::{Ledger, Sent},
    work::{Expect, now_ms},
};

/// Why a dump could not be written or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The way to a schema.
    #[error(transparent)]
    Connect(#[from] checkers::Error),
    /// A record was refused.
    #[error("a record of a dump could not be sent")]
    Send(#[from] KafkaError),
    /// Postgres.
    #[error("postgres")]
    Postgres(#[from] sqlx::Error),
    /// The earlier build's migrations failed.
    #[error("an earlier build's migrations failed")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A file.
    #[error("a file of the dump")]
    File(#[from] io::Error),
    /// A file is not what this module writes.
    #[error("the dump can't be read: {0}")]
    Unreadable(String),
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// The runtime's last migration of the last build before formats.
const BEFORE_FORMATS: i64 = 10;

/// That of orders.
const ORDERS_VIEW: (i64, &str, &str) =
    (1, "orders_view", include_str!("../../../migrations/orders/0001_orders_view.sql"));

/// Its tables but for what is not the data's, with their columns.
const TABLES: &str = "
select relname::text, string_agg(quote_ident(attname), ', ' order by attnum)
from pg_class c join pg_attribute a on a.attrelid = c.oid and attnum > 0 and not attisdropped
where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') and not relispartition
    and relname not in ('_sqlx_migrations', 'nodes', 'topic_ids')
group by relname order by relname";

/// How a table's rows are put in, from the table `dumped`: $1 is the table, $2 the dump's time.
const MOVED: &str = "
select string_agg(case
        when atttypid = 'date'::regtype then format('%I + (current_date - %L::timestamptz::date)', attname, $2)
        when atttypid = 'timestamptz'::regtype and $1 <> 'timers'
            then format('%I + (now() - %L::timestamptz)', attname, $2)
        else quote_ident(attname) end, ', ' order by attnum)
from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped";

/// Numbers that the server gives go on behind those of the dump: $1 is the table.
const NUMBERED: &str = "
select format('select setval(%L, coalesce((select max(%I) from %I), 0) + 1, false)',
        pg_get_serial_sequence($1, attname), attname, $1)
from pg_attribute where attrelid = $1::regclass and attidentity <> ''";

/// One record of a topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    topic: String,
    partition: i32,
    offset: i64,
    time_ms: i64,
    #[serde(with = "hexed")]
    key: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
    #[serde(with = "hexed")]
    value: Option<Vec<u8>>,
}

/// Bytes as hexadecimal digits.
mod hexed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "serde passes the field")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(hex::encode).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        text.map(hex::decode).transpose().map_err(D::Error::custom)
    }
}

/// One line of the ledger.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum Noted {
    Command { id: Uuid, order: Uuid, expect: String, copies: u32, number: u64 },
    Bad { key: String, reason: String },
}

/// Writes what lies in these schemas and topics, and what was sent, into files in `dir`. Nothing may be
/// at work meanwhile.
pub async fn write(
    brokers: &str,
    schemas: &[Schema],
    topics: &[String],
    ledger: &Ledger,
    dir: &Path,
) -> Result<(), Error> {
    std::fs::create_dir_all(dir)?;
    for schema in schemas {
        let mut file = create(dir, &format!("{}.copy", schema.name))?;
        tables(schema, &mut file).await?;
        file.finish()?;
    }
    let mut file = create(dir, "topics.jsonl")?;
    for topic in topics {
        let name = topic.clone();
        let read = move |message: &rdkafka::message::BorrowedMessage<'_>| kept(&name, message);
        let mut all = kafka::read_each(brokers, topic, BTreeMap::new(), Duration::from_mins(1), read).await?;
        all.sort_unstable_by_key(|record| (record.partition, record.offset));
        for record in all {
            writeln!(file, "{}", serde_json::to_string(&record)?)?;
        }
    }
    file.finish()?;
    let mut file = create(dir, "sent.jsonl")?;
    let mut commands: Vec<_> = ledger.commands.iter().collect();
    commands.sort_unstable_by_key(|(_, sent)| sent.number);
    for (id, Sent { order, expect, copies, number, .. }) in commands {
        let expect = match expect {
            Expect::Event => "event".to_owned(),
            Expect::Rejection(code) => format!("rejection {code}"),
            Expect::Any => "any".to_owned(),
            Expect::Nothing => "nothing".to_owned(),
            Expect::Whatever => "whatever".to_owned(),
            Expect::DeadLetter(reason) => format!("dead letter {reason}"),
        };
        let noted = Noted::Command { id: *id, order: *order, expect, copies: *copies, number: *number };
        writeln!(file, "{}", serde_json::to_string(&noted)?)?;
    }
    let bad: BTreeMap<_, _> = ledger.bad.iter().collect();
    for (key, reason) in bad {
        let noted = Noted::Bad { key: key.clone(), reason: (*reason).to_owned() };
        writeln!(file, "{}", serde_json::to_string(&noted)?)?;
    }
    file.finish()?;
    Ok(())
}

fn create(dir: &Path, name: &str) -> Result<GzEncoder<File>, Error> {
    Ok(GzEncoder::new(File::create(dir.join(format!("{name}.gz")))?, Compression::best()))
}

fn open(dir: &Path, name: &str) -> Result<impl io::BufRead + use<>, Error> {
    let file = File::open(dir.join(format!("{name}.gz")))?;
    Ok(BufReader::new(GzDecoder::new(BufReader::new(file))))
}

async fn tables(schema: &Schema, file: &mut impl io::Write) -> Result<(), Error> {
    let mut connection = connect(schema).await?;
    let at: String = sqlx::query_scalar("select now()::text").fetch_one(&mut connection).await?;
    writeln!(file, "at {at}")?;
    let all: Vec<(String, String)> = sqlx::query_as(TABLES).fetch_all(&mut connection).await?;
    for (table, columns) in all {
        writeln!(file, "copy {table} ({columns})")?;
        let order = if columns.contains(',') { "1, 2" } else { "1" };
        let copy = format!("copy (select {columns} from {table} order by {order}) to stdout");
        let mut rows = connection.copy_out_raw(&copy).await?;
        while let Some(part) = rows.try_next().await? {
            file.write_all(&part)?;
        }
        writeln!(file, "\\.")?;
    }
    Ok(connection.close().await?)
}

fn kept(topic: &str, message: &rdkafka::message::BorrowedMessage<'_>) -> Kept {
    let text = |value: Option<&[u8]>| hex::encode(value.unwrap_or_default());
    let headers = message.headers().map(|all| all.iter().map(|one| (one.key.to_owned(), text(one.value))).collect());
    Kept {
        topic: topic.to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        time_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

/// A dump that was read.
#[derive(Debug)]
pub struct Dump {
    records: Vec<Kept>,
    /// What was sent, and what must become of it.
    pub ledger: Ledger,
}

impl Dump {
    /// Reads the records and the ledger of the dump in `dir`.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let mut records: Vec<Kept> = Vec::new();
        for line in open(dir, "topics.jsonl")?.lines() {
            records.push(serde_json::from_str(&line?)?);
        }
        let mut ledger = Ledger::default();
        for line in open(dir, "sent.jsonl")?.lines() {
            match serde_json::from_str(&line?)? {
                Noted::Bad { key, reason } => {
                    ledger.bad.insert(key, forever(&reason));
                }
                Noted::Command { id, order, expect, copies, number } => {
                    let expect = expected(&expect)?;
                    let sent = Sent { order, expect, copies, after: Duration::ZERO, number };
                    ledger.commands.insert(id, sent);
                }
            }
        }
        ledger.records = records.iter().filter(|record| record.topic == "orders.commands").count() as u64;
        Ok(Self { records, ledger })
    }

    /// Makes a schema as the earlier build's migrations made it, with the rows of the dump in `dir`, but for
    /// those of tables `without` which it is to be.
    pub async fn load_schema(schema: &Schema, dir: &Path, without: &[&str]) -> Result<(), Error> {
        let mut connection = connect(schema).await?;
        let create = format!("create schema {}", schema.name);
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await?;
        let own = if schema.name == "orders" { &[ORDERS_VIEW][..] } else { &[] };
        migrator(BEFORE_FORMATS, own).run_direct(None, &mut connection, false).await?;
        let mut transaction = connection.begin().await?;
        load_rows(&mut transaction, dir, &schema.name, without).await?;
        transaction.commit().await?;
        Ok(connection.close().await?)
    }

    /// Sends all records of the dump to where they were; the topics must be there, and empty.
    pub async fn load_topics(&self, brokers: &str) -> Result<(), Error> {
        let Some(last) = self.records.iter().map(|record| record.time_ms).max() else { return Ok(()) };
        let later = now_ms().cast_signed() - last;
        send(brokers, self.records.clone(), later).await?;
        let mut ends: HashMap<(&str, i32), i64> = HashMap::new();
        for record in &self.records {
            ends.insert((&record.topic, record.partition), record.offset + 1);
        }
        let found = Ends::new(brokers)?;
        for ((topic, partition), end) in ends {
            if found.of(topic).await?.get(&partition) != Some(&end) {
                return Err(Error::Unreadable(format!("the records of {topic}-{partition} do not end at {end}")));
            }
        }
        Ok(())
    }

    /// Sends every command of the ledger again, as it was first sent, and notes it. Returns how many.
    pub async fn send_again(&mut self, brokers: &str) -> Result<usize, Error> {
        let mut again = HashMap::new();
        for record in self.records.iter().filter(|record| record.topic == "orders.commands") {
            let id = record.headers.iter().find(|(name, _)| name == "ce_id").map(|(_, id)| id);
            let id = id.and_then(|id| hex::decode(id).ok()).and_then(|id| Uuid::try_parse_ascii(&id).ok());
            // Bad records have no id to be known by: a second one is a second dead letter.
            let is_bad = record
                .key
                .as_ref()
                .is_none_or(|key| std::str::from_utf8(key).is_ok_and(|key| self.ledger.bad.contains_key(key)));
            if let Some(id) = id.filter(|id| !is_bad && self.ledger.commands.contains_key(id)) {
                again.entry(id).or_insert_with(|| record.clone());
            }
        }
        for sent in again.keys() {
            if let Some(sent) = self.ledger.commands.get_mut(sent) {
                sent.copies += 1;
                self.ledger.records += 1;
            }
        }
        let mut records: Vec<Kept> = again.into_values().collect();
        records.sort_unstable_by_key(|record| (record.partition, record.offset));
        let count = records.len();
        let later = records.iter().map(|record| record.time_ms).max().map_or(0, |last| now_ms().cast_signed() - last);
        send(brokers, records, later).await?;
        Ok(count)
    }
}

/// The ledger's reasons are names of the program's text.
fn forever(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn expected(text: &str) -> Result<Expect, Error> {
    Ok(match text {
        "event" => Expect::Event,
        "any" => Expect::Any,
        "nothing" => Expect::Nothing,
        "whatever" => Expect::Whatever,
        other => match (other.strip_prefix("rejection "), other.strip_prefix("dead letter ")) {
            (Some(code), _) => Expect::Rejection(forever(code)),
            (_, Some(reason)) => Expect::DeadLetter(forever(reason)),
            _ => return Err(Error::Unreadable(format!("no such expectation: {other}"))),
        },
    })
}

async fn load_rows(connection: &mut PgConnection, dir: &Path, schema: &str, without: &[&str]) -> Result<(), Error> {
    let mut lines = open(dir, &format!("{schema}.copy"))?.lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let at = first.strip_prefix("at ").ok_or_else(|| Error::Unreadable(format!("no time: {first}")))?;
    while let Some(head) = lines.next().transpose()? {
        let named = head.strip_prefix("copy ").and_then(|rest| rest.split_once(" (")).map(|(table, _)| table);
        let table = named.ok_or_else(|| Error::Unreadable(format!("no table: {head}")))?.to_owned();
        let columns = head.split_once(" (").map_or("", |(_, rest)| rest.trim_end_matches(')')).to_owned();
        let mut rows = Vec::new();
        loop {
            let line = lines.next().transpose()?.ok_or_else(|| Error::Unreadable(format!("{table} has no end")))?;
            if line == "\\." {
                break;
            }
            rows.extend_from_slice(line.as_bytes());
            rows.push(b'\n');
        }
        if without.contains(&table.as_str()) {
            continue;
        }
        run(
            connection,
            format!("create temp table dumped on commit drop as select {columns} from {table} where false"),
        )
        .await?;
        let mut copy = connection.copy_in_raw("copy pg_temp.dumped from stdin").await?;
        copy.send(rows).await?;
        copy.finish().await?;
        if matches!(table.as_str(), "outbox" | "claims") {
            let days = format!(
                "select open_day('{table}', day + (current_date - '{at}'::timestamptz::date))
                from (select distinct day from dumped where day <= current_date) d"
            );
            run(connection, days).await?;
        }
        let moved: String = sqlx::query_scalar(MOVED).bind(&table).bind(at).fetch_one(&mut *connection).await?;
        run(connection, format!("delete from {table}")).await?;
        run(
            connection,
            format!("insert into {table} ({columns}) overriding system value select {moved} from pg_temp.dumped"),
        )
        .await?;
        let numbered: Vec<String> = sqlx::query_scalar(NUMBERED).bind(&table).fetch_all(&mut *connection).await?;
        for statement in numbered {
            run(connection, statement).await?;
        }
        run(connection, "drop table pg_temp.dumped".to_owned()).await?;
    }
    Ok(())
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Sends records to their partitions, in their order, with timestamps that much later.
async fn send(brokers: &str, records: Vec<Kept>, later_ms: i64) -> Result<(), Error> {
    let producer: BaseProducer = kafka::producer(brokers, "holdfast-dump").create()?;
    let sending = tokio::task::spawn_blocking(move || {
        for Kept { topic, partition, time_ms, key, headers, value, .. } in &records {
            let mut all = OwnedHeaders::new_with_capacity(headers.len());
            for (name, value) in headers {
                let bytes = hex::decode(value).map_err(|error| Error::Unreadable(error.to_string()))?;
                all = all.insert(Header { key: name, value: Some(&bytes) });
            }
            let mut record: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(topic).partition(*partition).timestamp(time_ms + later_ms).headers(all);
            record.key = key.as_deref();
            record.payload = value.as_deref();
            kafka::hand_over(&producer, record)?;
            producer.poll(Duration::ZERO);
        }
        Ok(producer.flush(Duration::from_mins(1))?)
    });
    sending.await.map_err(kafka::Error::from)?
}
