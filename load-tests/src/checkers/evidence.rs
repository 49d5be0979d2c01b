//! What a run left behind, as plain values: records of topics, rows of tables.
//!
//! Pure. The formats are the published ones (CloudEvents headers, protobuf bodies) and the tables'; each is
//! read here independently of the code that writes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use uuid::Uuid;

use super::{Account, News};
use crate::kafka::Seen;

/// Everything that is checked.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Of the orders context.
    pub orders: ContextEvidence,
    /// Of the inventory context, if it ran.
    pub inventory: Option<ContextEvidence>,
    /// Of the payments context, if it ran.
    pub payments: Option<ContextEvidence>,
    /// Of the fulfillment context, if it ran.
    pub fulfillment: Option<ContextEvidence>,
    /// Of the customers context, if it ran.
    pub customers: Option<ContextEvidence>,
    /// The payment provider's own books, if they could be had.
    pub provider: Option<Account>,
}

/// What one context left behind.
#[derive(Clone, Debug, Default)]
pub struct ContextEvidence {
    /// How many partitions it had in the beginning, if they have grown since.
    pub grown_from: Option<i32>,
    /// Its events topic.
    pub events: Vec<EventRecord>,
    /// The ids of records by which its relays said that partitions have grown.
    pub marks: BTreeSet<Uuid>,
    /// Records of its events topic that are no events: where, and why.
    pub unreadable: Vec<(String, String)>,
    /// The ids of records in its commands topic, where it sends some itself.
    pub command_ids: HashSet<Uuid>,
    /// Its dead-letter topic.
    pub dead: Vec<DeadRecord>,
    /// The ends of the topics it reads: topic, partition, offset after the last record.
    pub ends: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Its partition rows.
    pub partitions: Vec<PartitionRow>,
    /// Its aggregates.
    pub aggregates: Vec<AggregateRow>,
    /// Its claims.
    pub claims: Vec<ClaimRow>,
    /// Its outbox.
    pub outbox: Vec<OutboxRow>,
    /// Messages that wait: the aggregate's key, and why.
    pub mailbox: Vec<(String, String)>,
    /// Its shared quantities.
    pub pools: Vec<PoolRow>,
    /// Its read model: key and status; `None` if it has none.
    pub view: Option<BTreeMap<String, String>>,
}

/// A record of an events topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When it was written, ms since 1970.
    pub time_ms: i64,
    /// The aggregate.
    pub key: String,
    /// `ce_id`.
    pub id: Uuid,
    /// `ce_sequence`.
    pub sequence: u64,
    /// `ce_causationid`.
    pub causation: Option<Uuid>,
    /// Of type, body and cause.
    pub digest: u64,
    /// What it says.
    pub news: News,
}

impl EventRecord {
    /// Reads the envelope and the body of a record; says what is wrong with it if it is no event.
    pub fn read(seen: &Seen) -> Result<Self, String> {
        let uuid = |name: &str| Uuid::try_parse(seen.header(name)).map_err(|_| format!("{name} is no UUID"));
        let r#type = seen.header("ce_type");
        let causation = seen.header("ce_causationid");
        let mut digest = DefaultHasher::new();
        (r#type, &seen.value, causation).hash(&mut digest);
        if seen.header("ce_subject") != seen.key {
            return Err("ce_subject is not the key".into());
        }
        Ok(Self {
            partition: seen.partition,
            offset: seen.offset,
            time_ms: seen.time_ms,
            key: seen.key.clone(),
            id: uuid("ce_id")?,
            sequence: seen.header("ce_sequence").parse().map_err(|_| "ce_sequence is no number".to_owned())?,
            causation: Uuid::try_parse(causation).ok(),
            digest: digest.finish(),
            news: News::read(r#type, &seen.value).map_err(|error| format!("{type}: {error}"))?,
        })
    }

    /// Where it lies.
    pub fn place(&self) -> String {
        format!("partition {} offset {}", self.partition, self.offset)
    }
}

/// A record of a dead-letter topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadRecord {
    /// `dlt-id`: the same letter published again has the same.
    pub letter: String,
    /// The original key.
    pub key: String,
    /// The original `ce_id`, if it was one.
    pub id: Option<Uuid>,
    /// `dlt-reason`.
    pub reason: String,
}

impl DeadRecord {
    /// Reads one.
    pub fn read(seen: &Seen) -> Self {
        Self {
            letter: seen.header("dlt-id").to_owned(),
            key: seen.key.clone(),
            id: Uuid::try_parse(seen.header("ce_id")).ok(),
            reason: seen.header("dlt-reason").to_owned(),
        }
    }
}

/// A row of `partitions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionRow {
    /// Which.
    pub partition: i32,
    /// Outbox rows given out.
    pub head: i64,
    /// Outbox rows published.
    pub cursor: i64,
    /// Next offset by topic.
    pub consumed: BTreeMap<String, i64>,
}

/// A row of `aggregates`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggregateRow {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Number of its events.
    pub version: i64,
    /// Its stored state.
    pub state: Vec<u8>,
}

/// What a claim says the answer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Applied.
    Applied,
    /// Rejected, under this name.
    Rejected(String),
    /// It can't be read.
    Unreadable,
}

impl Answer {
    /// The stored form: a tag (1 applied, 2 rejected), eight bytes of version, then the reply or `code NUL
    /// message`.
    pub fn read(bytes: &[u8]) -> Self {
        match (bytes.first(), bytes.get(9..)) {
            (Some(1), Some(_)) => Self::Applied,
            (Some(2), Some(rest)) => Self::Rejected(code_of(rest)),
            _ => Self::Unreadable,
        }
    }
}

/// The code of a stored rejection: what stands before the first NUL.
pub fn code_of(rejection: &[u8]) -> String {
    let code = rejection.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(code).into_owned()
}

/// A claim, in a row of `claims` or in the ring of its aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRow {
    /// The message's `ce_id`.
    pub id: Uuid,
    /// Whose and from whom.
    pub scope: Uuid,
    /// What was answered.
    pub answer: Answer,
}

/// A record of `outbox`, whether it has a row of its own or is in a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxRow {
    /// The partition whose owner wrote it.
    pub partition: i32,
    /// Its number there.
    pub sequence: i64,
    /// The `ce_id` of an event, the `dlt-id` of a dead letter.
    pub id: Uuid,
    /// Where it goes.
    pub topic: String,
}

/// A row of `pools`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolRow {
    /// The sku.
    pub name: String,
    /// On hand.
    pub total: i64,
    /// Reserved.
    pub held: i64,
}
