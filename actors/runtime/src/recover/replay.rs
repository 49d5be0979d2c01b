//! What will be read again once consumers rewind, as far as it concerns aggregates that are folded back.
//!
//! By it the claims are rebuilt: an event names the message that caused it, and that message is still in its
//! topic, with its source and its body; or it waits in the restored mailbox. What is neither came by a call.

use std::collections::{BTreeSet, HashMap};

use holdfast_core::{
    AggregateId, Message, PartitionId, Record,
    dedup::{ClaimKey, body_digest},
    epoch::PartitionRow,
    port::store::MailLimit,
};
use uuid::Uuid;

use super::{
    Error, Recovery,
    tail::{Accept, each},
};

/// A message that will come again.
pub(super) struct Replay {
    pub id: Uuid,
    /// Its source and sequence, if it is an event that has one; else its claim and the digest of its body.
    pub mark: Mark,
    /// Its offset, if it lies in the commands topic, in its key's home: there, an aggregate's commands are
    /// decided in this order.
    pub order: Option<u64>,
}

pub(super) enum Mark {
    Claim(ClaimKey, Uuid),
    Sequence(String, u64),
}

/// Per aggregate what will come again, in order.
pub(super) type Replays = HashMap<AggregateId, Vec<Replay>>;

/// Reads what will come again for the aggregates in `lost`.
pub(super) async fn read(
    recovery: &Recovery,
    rows: &[PartitionRow],
    accepts: &[Accept],
    lost: &BTreeSet<AggregateId>,
) -> Result<Replays, Error> {
    let mut replays = Replays::new();
    if lost.is_empty() {
        return Ok(replays);
    }
    for topic in recovery.context.inputs() {
        let count = recovery.ports.log.partition_count(topic).await?;
        let accept = accepts.iter().find(|accept| !accept.events && accept.topic == *topic);
        for partition in (0..count).map(PartitionId) {
            let row = rows.iter().find(|row| row.partition == partition);
            let (start, end) = recovery.ports.log.bounds(topic, partition).await?;
            let accepted = accept.and_then(|accept| accept.places.iter().find(|(accepted, _)| *accepted == partition));
            let from = accepted
                .map(|(_, next)| *next)
                .or(row.and_then(|row| row.next_offset(topic)))
                .unwrap_or(start)
                .max(start);
            each(recovery, topic, partition, from, end, |record| {
                note(recovery, lost, &mut replays, &record, true);
                Ok(())
            })
            .await?;
        }
    }
    let waiting = recovery.ports.store.due_mail(&recovery.slice(), MailLimit::of(u32::MAX >> 1)).await?;
    for waiting in waiting {
        note(recovery, lost, &mut replays, &waiting.record, false);
    }
    Ok(replays)
}

/// Notes a record, unless it concerns nobody who is folded. One that can't be decoded is a dead letter again.
fn note(recovery: &Recovery, lost: &BTreeSet<AggregateId>, replays: &mut Replays, record: &Record, in_order: bool) {
    let Ok((aggregate, message, _)) = recovery.context.decode(record) else { return };
    if !lost.contains(&aggregate) {
        return;
    }
    let own = record.topic == *recovery.context.commands_topic();
    let at_home = record.key_hash().home(recovery.count) == record.partition;
    let replay = Replay {
        id: message.id,
        mark: mark(&aggregate, &message, own),
        order: (own && in_order && at_home).then_some(record.offset),
    };
    replays.entry(aggregate).or_default().push(replay);
}

fn mark(aggregate: &AggregateId, message: &Message, own: bool) -> Mark {
    match message.sequence {
        Some(sequence) if !own => Mark::Sequence(message.source.to_string(), sequence),
        _ => Mark::Claim(ClaimKey::of(aggregate, message), body_digest(message)),
    }
}

/// The claim of a message of which only its id and its sender's name are known.
pub(super) fn claim_of(aggregate: &AggregateId, id: Uuid, source: &str) -> ClaimKey {
    let message = Message {
        id,
        source: source.into(),
        r#type: "".into(),
        key: aggregate.key.clone(),
        content_type: holdfast_core::envelope::ContentType::Protobuf,
        sequence: None,
        correlation: None,
        causation: None,
        traceparent: None,
        tracestate: None,
        payload: bytes::Bytes::new(),
    };
    ClaimKey::of(aggregate, &message)
}

/// Where the partitions of one aggregate's events lie does not matter here.
pub(super) fn home(recovery: &Recovery, aggregate: &AggregateId) -> PartitionId {
    holdfast_core::KeyHash::of(aggregate.key.as_bytes()).home(recovery.count)
}
