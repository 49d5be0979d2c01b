//! Dead letters: an outbox row addressed to the context's DLQ topic, and an index row.
//!
//! Both are written by the transaction that consumes the offset, so a dead letter can't be lost; publishing
//! it is the relay's ordinary work. Key, value and headers are kept as they came (I7), as far as the topic
//! takes them: a record that came compressed may be larger than any topic takes. One that doesn't fit is cut,
//! its value first, then its largest headers, its key last, and says so, with a digest of the whole; the
//! original stays where it was read for as long as that topic keeps it. Deliberately absent: the body of a
//! record in a log line.

use std::fmt::Write as _;

use bytes::Bytes;
use holdfast_core::{
    AggregateId, Record, Timestamp,
    batch::{DeadLetter, OutboxDraft, Writes},
    disposition::DeadLetterReason,
    size,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::emit::Emit;

/// Errors are cut here: a handler's text may hold all that it was given.
const ERROR_BYTES_MAX: usize = 2048;
/// What the header that tells of a cut takes at most.
const CUT_BYTES_MAX: usize = 512;
/// What is left of a key that is larger than its topic takes.
const KEY_BYTES_LEFT: usize = 1024;
/// The header that says what was left out.
pub(crate) const CUT: &str = "dlt-cut";

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
    let (id, hash) = (Uuid::now_v7(), record.key_hash());
    let error = &cause.error[..cause.error.floor_char_boundary(ERROR_BYTES_MAX)];
    let mut draft = OutboxDraft {
        id,
        topic: emit.dlq_topic.clone(),
        target: hash.home(count),
        key: record.key.clone(),
        headers: record.headers.clone(),
        value: record.value.clone(),
    };
    describe(&mut draft, emit, record, cause, error);
    let described = draft.headers.0.len() - record.headers.0.len();
    cut(&mut draft, described, emit.limits.dead_letter_max());
    writes.outbox.push(draft);
    writes.dead_letters.push(DeadLetter {
        id,
        aggregate: aggregate.cloned(),
        hash,
        topic: record.topic.clone(),
        partition: record.partition,
        offset: record.offset,
        reason: cause.reason,
        error: error.to_owned(),
        attempts: cause.attempts,
    });
}

/// Adds the headers that say where the record came from and what is wrong with it: ours, and those that other
/// tools read.
fn describe(draft: &mut OutboxDraft, emit: &Emit, record: &Record, cause: &Cause<'_>, error: &str) {
    let id = draft.id;
    let headers = &mut draft.headers;
    let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
    headers.push("dlt-id", id.to_string());
    headers.push("dlt-original-topic", &*record.topic);
    headers.push("dlt-original-partition", &*partition);
    headers.push("dlt-original-offset", &*offset);
    if let Some(timestamp) = record.timestamp {
        headers.push("dlt-original-timestamp", timestamp.unix_ms().to_string());
    }
    headers.push("dlt-consumer", &*emit.consumer);
    headers.push("dlt-reason", cause.reason.as_str());
    headers.push("dlt-error", error);
    headers.push("dlt-attempts", cause.attempts.to_string());
    headers.push("dlt-first-failed-at", cause.first_failed.rfc3339());
    headers.push("dlt-last-failed-at", cause.last_failed.rfc3339());
    // KIP-1191.
    headers.push("__dlq.errors.topic", &*record.topic);
    headers.push("__dlq.errors.partition", partition);
    headers.push("__dlq.errors.offset", offset);
    headers.push("__dlq.errors.group", &*emit.consumer);
    headers.push("__dlq.errors.message", error);
    headers.push("__dlq.errors.delivery.count", cause.attempts.to_string());
    // Spring writes its numbers big-endian.
    headers.push("kafka_dlt-original-topic", &*record.topic);
    let mut number =
        |name: &'static str, bytes: &[u8]| headers.0.push((name.into(), Some(Bytes::copy_from_slice(bytes))));
    number("kafka_dlt-original-partition", &record.partition.0.to_be_bytes());
    number("kafka_dlt-original-offset", &record.offset.to_be_bytes());
}

/// Makes `draft`, whose last `described` headers are ours, fit in `max` bytes.
fn cut(draft: &mut OutboxDraft, described: usize, max: usize) {
    let whole = size::of_draft(draft);
    if whole <= max {
        return;
    }
    let room = max.saturating_sub(CUT_BYTES_MAX);
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let mut said = format!(
        "value={} headers={} key={}",
        length(&draft.value),
        size::of_headers(&draft.headers),
        length(&draft.key)
    );
    let mut digest = Sha256::new();
    digest.update(draft.key.as_deref().unwrap_or_default());
    digest.update(draft.value.as_deref().unwrap_or_default());
    let before = draft.key.as_ref().map_or(0, Bytes::len) + length(&draft.value) + size::of_headers(&draft.headers);
    let over = |draft: &OutboxDraft| size::of_draft(draft).saturating_sub(room);
    if let Some(value) = &mut draft.value {
        let left = value.len().saturating_sub(whole.saturating_sub(room));
        // A copy: the whole is not to be held for its beginning.
        *value = Bytes::copy_from_slice(&value[..left]);
    }
    let foreign = draft.headers.0.len() - described;
    let mut largest: Vec<(usize, usize)> = draft.headers.0[..foreign]
        .iter()
        .enumerate()
        .map(|(at, (name, value))| (name.len() + length(value), at))
        .collect();
    largest.sort_unstable_by(|a, b| b.cmp(a));
    let mut dropped = std::collections::BTreeSet::new();
    let mut excess = over(draft);
    for (bytes, at) in largest {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(bytes);
        dropped.insert(at);
    }
    if !dropped.is_empty() {
        let mut at = 0..;
        draft.headers.0.retain(|_| !at.next().is_some_and(|at| dropped.contains(&at)));
    }
    if over(draft) > 0
        && let Some(key) = &mut draft.key
    {
        *key = Bytes::copy_from_slice(&key[..key.len().min(KEY_BYTES_LEFT)]);
    }
    let after = draft.key.as_ref().map_or(0, Bytes::len) + length(&draft.value) + size::of_headers(&draft.headers);
    let _ = write!(said, " headers-left-out={}", dropped.len());
    draft.headers.push(CUT, format!("left-out={} sha256={} {said}", before - after, hex(&digest.finalize())));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::{Headers, PartitionId};

    const MAX: usize = 100_000;

    fn draft(key: usize, header: usize, value: usize) -> OutboxDraft {
        let mut headers = Headers::default();
        headers.push("ce_id", "the id");
        headers.push("x-large", "x".repeat(header));
        headers.push("ce_type", "t");
        headers.push("dlt-id", "ours");
        let bytes = |n| Some(Bytes::from(vec![7; n]));
        let topic = "t.dlq".into();
        OutboxDraft { id: Uuid::nil(), topic, target: PartitionId(0), key: bytes(key), headers, value: bytes(value) }
    }

    fn lengths(draft: &OutboxDraft) -> (usize, usize) {
        (draft.key.as_ref().map_or(0, Bytes::len), draft.value.as_ref().map_or(0, Bytes::len))
    }

    #[test]
    fn what_fits_is_not_cut() {
        let mut whole = draft(36, 10, 90_000);
        cut(&mut whole, 1, MAX);
        assert_eq!(whole, draft(36, 10, 90_000));
    }

    #[test]
    fn value_is_cut_first_then_headers_then_key() {
        for (key, header, value) in
            [(36, 10, 12_000_000), (36, 1_000_000, 10), (36, 1_000_000, 1_000_000), (1_000_000, 9, 9)]
        {
            let mut cut_one = draft(key, header, value);
            cut(&mut cut_one, 1, MAX);
            assert!(size::of_draft(&cut_one) <= MAX, "{}", size::of_draft(&cut_one));
            assert_eq!(cut_one.headers.get("dlt-id"), Some(&b"ours"[..]));
            assert_eq!(cut_one.headers.get("ce_id").is_some(), key < 1000);
            assert_eq!(cut_one.headers.get("x-large").is_some(), header < 1000 && key < 1000);
            let said = String::from_utf8(cut_one.headers.get(CUT).expect("it says so").to_vec()).expect("text");
            assert!(said.starts_with("left-out=") && said.contains(&format!("value={value} ")), "{said}");
            assert!(said.len() < CUT_BYTES_MAX);
            if header < 1000 && key < 1000 {
                // As much is kept as fits.
                assert!(lengths(&cut_one).1 > MAX - 2000, "{:?}", lengths(&cut_one));
            }
        }
    }
}
