//! Records that a broker refuses for their own sake, and the queues behind them.
//!
//! Upholds I3 and I7 where a record can't be published: it is kept, the later records of its topic and key
//! queue behind it in the order of their sequence, and everything else of its partition goes on. Deliberately
//! absent: which record is refused (the publisher finds it) and when it is released (an operator says so).

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    batch::{OutboxDraft, OutboxRow},
    dedup::digest,
    envelope::header,
    partition::KeyHash,
    time::Timestamp,
};

/// The type of the record that takes the place of a discarded event.
pub const DISCARDED_TYPE: &str = "holdfast.runtime.v1.EventDiscarded";
/// The field numbers of `EventDiscarded`, each with wire type 2.
const DISCARDED_EVENT_TYPE: u8 = 0x0a;
const DISCARDED_WHY: u8 = 0x12;
/// Texts are cut here: the placeholder must fit where the event did not, and a length is one byte.
const TEXT_BYTES_MAX: usize = 120;

/// A queue of stuck records: those of one topic and key. A record without a key is a queue of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Queue {
    /// The topic.
    pub topic: Arc<str>,
    /// A digest of the key: keys are as large as their producers made them.
    pub digest: Uuid,
}

impl Queue {
    /// The queue in which `draft` belongs.
    pub fn of(draft: &OutboxDraft) -> Self {
        let digest = draft.key.as_deref().map_or(draft.id, |key| digest(&[b"stuck", key]));
        Self { topic: Arc::clone(&draft.topic), digest }
    }
}

/// The hash by which a stuck record is found again, whatever the count by then.
pub fn hash_of(draft: &OutboxDraft) -> KeyHash {
    KeyHash::of(draft.key.as_deref().unwrap_or_default())
}

/// An outbox row that leaves its partition's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its sequence.
    pub sequence: u64,
    /// Its queue.
    pub queue: Queue,
    /// See [`hash_of`].
    pub hash: KeyHash,
    /// How often the broker has refused it: 0 if it only queues behind another.
    pub attempts: u32,
    /// The last refusal, for a person.
    pub error: String,
}

/// What an operator wants done with a stuck record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Publish it.
    Retry,
    /// Do without it, for this reason.
    Discard(String),
}

/// A stuck record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The order within its queue.
    pub position: i64,
    /// The record, with the partition and sequence that it had.
    pub row: OutboxRow,
    /// See [`hash_of`].
    pub hash: KeyHash,
    /// How often the broker has refused it.
    pub attempts: u32,
    /// The last refusal.
    pub error: String,
    /// When it was set aside, by the database's clock.
    pub since: Timestamp,
    /// What an operator has said.
    pub order: Option<Order>,
}

/// How a stuck record's release ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// It, or what takes its place, is acknowledged, or nothing takes its place: the row goes.
    Done,
    /// The broker has refused it again, with this error.
    Refused(String),
}

/// What is published in place of the discarded `event`: the same id and sequence, so that a history has no
/// hole. `None` if it is no event (it has no sequence): nothing is missed then.
pub fn placeholder(event: &OutboxDraft, why: &str) -> Option<OutboxDraft> {
    event.headers.get(header::SEQUENCE)?;
    let mut headers = event.headers.clone();
    let kind = event.headers.get(header::TYPE).unwrap_or_default().to_vec();
    let kept = [
        header::SPEC_VERSION,
        header::ID,
        header::SOURCE,
        header::TIME,
        header::SUBJECT,
        header::SEQUENCE,
        header::CORRELATION,
        header::CAUSATION,
        header::TRACEPARENT,
    ];
    headers.0.retain(|(name, _)| kept.iter().any(|kept| kept == name));
    headers.push(header::TYPE, DISCARDED_TYPE);
    headers.push(header::CONTENT_TYPE, "application/protobuf");
    let mut value = Vec::new();
    for (tag, text) in [(DISCARDED_EVENT_TYPE, &kind[..]), (DISCARDED_WHY, why.as_bytes())] {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        value.extend([tag, u8::try_from(text.len()).expect("below 128")]);
        value.extend_from_slice(text.as_bytes());
    }
    Some(OutboxDraft { headers, value: Some(Bytes::from(value)), ..event.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{envelope::Headers, partition::PartitionId};

    fn draft(key: Option<&'static str>, sequence: Option<&str>) -> OutboxDraft {
        let mut headers = Headers::default();
        headers.push(header::ID, "the id");
        headers.push(header::TYPE, "holdfast.orders.v1.OrderPlaced");
        headers.push("x-large", "x".repeat(5000));
        if let Some(sequence) = sequence {
            headers.push(header::SEQUENCE, sequence);
        }
        OutboxDraft {
            id: Uuid::now_v7(),
            topic: "orders.events".into(),
            target: PartitionId(3),
            key: key.map(Bytes::from),
            headers,
            value: Some(Bytes::from(vec![0; 5000])),
        }
    }

    #[test]
    fn placeholder_keeps_id_and_sequence() {
        let event = draft(Some("a"), Some("7"));
        let placed = placeholder(&event, &"é".repeat(100)).expect("an event");
        let get = |name| placed.headers.get(name);
        assert_eq!((get(header::ID), get(header::SEQUENCE)), (Some(&b"the id"[..]), Some(&b"7"[..])));
        assert_eq!((get(header::TYPE), get("x-large")), (Some(DISCARDED_TYPE.as_bytes()), None));
        let value = placed.value.expect("a value");
        assert_eq!(&value[..2], [DISCARDED_EVENT_TYPE, 30]);
        assert_eq!(&value[2..32], b"holdfast.orders.v1.OrderPlaced");
        assert_eq!((&value[32..34], value.len()), (&[DISCARDED_WHY, 120][..], 154));
        assert_eq!((placed.id, placed.key, placed.target), (event.id, event.key, event.target));
        assert_eq!(placeholder(&draft(Some("a"), None), "why"), None);
    }

    #[test]
    fn keyless_records_queue_behind_nothing() {
        assert_eq!(Queue::of(&draft(Some("a"), None)), Queue::of(&draft(Some("a"), Some("1"))));
        assert_ne!(Queue::of(&draft(Some("a"), None)), Queue::of(&draft(Some("b"), None)));
        assert_ne!(Queue::of(&draft(None, None)), Queue::of(&draft(None, None)));
    }
}
