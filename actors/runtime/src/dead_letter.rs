//! Dead letters: an outbox row addressed to the context's DLQ topic, and an index row.
//!
//! Both are written by the transaction that consumes the offset, so a dead letter can't be lost; publishing it is the relay's ordinary
//! work. Key, value and headers are kept as they came (I7).

use holdfast_core::{
    AggregateId, Record, Timestamp,
    batch::{DeadLetter, OutboxDraft, Writes},
    disposition::DeadLetterReason,
};
use uuid::Uuid;

use crate::context::Emit;

/// What is known of a failure.
pub(crate) struct Cause<'a> {
    pub reason: DeadLetterReason,
    pub error: &'a str,
    pub attempts: u32,
    pub first_failed: Timestamp,
    pub last_failed: Timestamp,
}

/// Adds the rows of a dead letter to `writes`; the DLQ topic has at least `count` partitions.
pub(crate) fn write(
    writes: &mut Writes,
    emit: &Emit,
    count: u32,
    aggregate: Option<&AggregateId>,
    record: &Record,
    cause: &Cause<'_>,
) {
    let id = Uuid::now_v7();
    let mut headers = record.headers.clone();
    headers.push("dlt-id", id.to_string());
    headers.push("dlt-original-topic", &*record.topic);
    headers.push("dlt-original-partition", record.partition.to_string());
    headers.push("dlt-original-offset", record.offset.to_string());
    if let Some(timestamp) = record.timestamp {
        headers.push("dlt-original-timestamp", timestamp.unix_ms().to_string());
    }
    headers.push("dlt-consumer", &*emit.consumer);
    headers.push("dlt-reason", cause.reason.as_str());
    headers.push("dlt-error", cause.error);
    headers.push("dlt-attempts", cause.attempts.to_string());
    headers.push("dlt-first-failed-at", cause.first_failed.rfc3339());
    headers.push("dlt-last-failed-at", cause.last_failed.rfc3339());
    let hash = record.key_hash();
    writes.outbox.push(OutboxDraft {
        id,
        topic: emit.dlq_topic.clone(),
        target: hash.home(count),
        key: record.key.clone(),
        headers,
        value: record.value.clone(),
    });
    writes.dead_letters.push(DeadLetter {
        id,
        aggregate: aggregate.cloned(),
        hash,
        topic: record.topic.clone(),
        partition: record.partition,
        offset: record.offset,
        reason: cause.reason,
        error: cause.error.to_owned(),
        attempts: cause.attempts,
    });
}
