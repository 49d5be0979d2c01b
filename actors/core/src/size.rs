//! How large a record is to a broker.
//!
//! Kafka compares `max.message.bytes` with a whole record batch. The bound here is the batch that holds one
//! record alone, uncompressed (record format 2): no broker measures more. Invariant: a message causes nothing
//! that its topic doesn't take; the check is made before the commit, with this bound (design, "What may
//! enter"). Deliberately absent: what a topic takes, which the log says.

use crate::{batch::OutboxDraft, envelope::Headers};

/// What a topic takes until its own limit is known: Kafka's default.
pub const TOPIC_BYTES_DEFAULT: usize = 1_048_588;
/// The largest batch that a producer of ours sends, whatever the topic takes: dead letters of 8 MiB commands
/// with their headers.
pub const CLIENT_BYTES_MAX: usize = 9 * 1024 * 1024;
/// The header of a record batch.
const BATCH_HEADER: usize = 61;
/// A record's attributes, and the longest deltas of timestamp and offset.
const RECORD_HEADER: usize = 1 + 10 + 5;

/// Bytes of the zigzag varint that spells the length `n`.
const fn length(n: usize) -> usize {
    let mut rest = (n as u64) << 1;
    let mut bytes = 1;
    while rest >= 0x80 {
        rest >>= 7;
        bytes += 1;
    }
    bytes
}

/// A field and its length; one that is absent has the length -1.
fn field(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| length(value.len()) + value.len())
}

/// The headers of a record.
pub fn of_headers(headers: &Headers) -> usize {
    let each = headers.0.iter().map(|(name, value)| field(Some(name.as_bytes())) + field(value.as_deref()));
    length(headers.0.len()) + each.sum::<usize>()
}

/// The batch that holds this record alone, uncompressed: an upper bound.
pub fn of_record(key: Option<&[u8]>, headers: &Headers, value: Option<&[u8]>) -> usize {
    let record = RECORD_HEADER + field(key) + field(value) + of_headers(headers);
    BATCH_HEADER + length(record) + record
}

/// The same of a record to publish.
pub fn of_draft(draft: &OutboxDraft) -> usize {
    of_record(draft.key.as_deref(), &draft.headers, draft.value.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_zigzag_varints() {
        for (n, bytes) in [(0, 1), (63, 1), (64, 2), (8191, 2), (8192, 3), (1 << 20, 4), (1 << 27, 5)] {
            assert_eq!(length(n), bytes, "{n}");
        }
    }

    /// Counted by hand from the record format: 61, a length of 2, and
    /// 16 + (1 + 3) + (2 + 100) + 1 + (1 + 4) + (1 + 2).
    #[test]
    fn every_part_of_a_record_counts() {
        let mut headers = Headers::default();
        headers.push("name", "ab");
        assert_eq!(of_record(Some(b"key"), &headers, Some(&[0; 100])), 61 + 2 + 16 + 4 + 102 + 1 + 5 + 3);
        assert_eq!(of_record(None, &Headers::default(), None), 61 + 1 + 16 + 1 + 1 + 1);
    }
}
