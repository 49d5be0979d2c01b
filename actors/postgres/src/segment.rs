//! A segment of the outbox: records of one partition and commit, framed and compressed, in one row.
//!
//! Upholds I3 and I7: what is read is what was written, all of it and in order, or nothing; a segment that is
//! cut off anywhere is an error. Records of a segment follow one another, so the row has the sequence of the
//! last one and a frame has none. Deliberately absent: the row, and what is published of it.
//!
//! The stored form: its version (1), the bytes of all frames (`u32`), then the frames as one block of LZ4
//! (the block format, <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>). A frame: the id (16
//! bytes), the target (`u32`), then topic, key, headers and value, each behind its length (`u32`, all ones
//! for a null). Numbers are little endian.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use holdfast_core::{
    Headers, PartitionId,
    batch::{OutboxDraft, OutboxRow},
};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use uuid::Uuid;

/// Frames of one segment hold so much, or one record.
const RAW_MAX: usize = 1 << 20;
const VERSION: u8 = 1;
/// Version and length.
const HEADER: usize = 5;
/// The id and the target of a frame, and four lengths.
const FRAME: usize = 16 + 4 + 4 * 4;
/// LZ4 makes at most so much of a byte.
const RATIO_MAX: usize = 255;

/// A segment that can't be read: a damaged row, or one of a newer build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("outbox segment {last} of partition {partition} can't be read: {reason}")]
pub(crate) struct BadSegment {
    /// Whose.
    pub(crate) partition: PartitionId,
    /// The sequence of its last record.
    pub(crate) last: u64,
    /// Why.
    pub(crate) reason: &'static str,
}

/// A segment, as its row has it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) partition: PartitionId,
    /// The sequence of its last record.
    pub(crate) last: u64,
    /// The id of its first record.
    pub(crate) id: Uuid,
    pub(crate) records: u32,
    /// Of keys, headers and values.
    pub(crate) bytes: usize,
    /// The stored form.
    pub(crate) data: Vec<u8>,
}

/// Frames that are being gathered.
struct Open {
    first: u64,
    id: Uuid,
    records: u32,
    bytes: usize,
    raw: Vec<u8>,
}

/// What compressing needs beside the frames, used for all segments of a commit.
#[derive(Default)]
struct Press {
    table: CompressTable,
    block: Vec<u8>,
}

impl Press {
    fn close(&mut self, partition: PartitionId, open: Open) -> Segment {
        let Open { first, id, records, bytes, raw } = open;
        let most = get_maximum_output_size(raw.len());
        if self.block.len() < most {
            self.block.resize(most, 0);
        }
        let packed = compress_into_with_table(&raw, &mut self.block, &mut self.table)
            .expect("the block has room for what can't be compressed");
        let data = [&[VERSION][..], &length(raw.len()), &self.block[..packed]].concat();
        Segment { partition, last: first + u64::from(records) - 1, id, records, bytes, data }
    }
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).expect("the broker's message limit is far below 4 GiB").to_le_bytes()
}

/// The segments of a commit's rows, which of each partition are in order.
pub(crate) fn cut(rows: &[OutboxRow]) -> Vec<Segment> {
    let (mut open, mut segments, mut press) = (HashMap::<PartitionId, Open>::new(), Vec::new(), Press::default());
    for row in rows {
        let (partition, bytes) = (row.partition, bytes(&row.draft));
        let frame = FRAME + row.draft.topic.len() + bytes;
        if let Some(known) = open.get(&partition)
            && (known.raw.len() + frame > RAW_MAX || known.first + u64::from(known.records) != row.sequence)
        {
            segments.extend(open.remove(&partition).map(|full| press.close(partition, full)));
        }
        let begin = || Open { first: row.sequence, id: row.draft.id, records: 0, bytes: 0, raw: Vec::new() };
        let open = open.entry(partition).or_insert_with(begin);
        open.records += 1;
        open.bytes += bytes;
        write(&row.draft, &mut open.raw);
    }
    segments.extend(open.into_iter().map(|(partition, open)| press.close(partition, open)));
    segments
}

/// The bytes of a record's key, headers and value.
pub(crate) fn bytes(draft: &OutboxDraft) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    length(&draft.key) + draft.headers.stored_bytes() + length(&draft.value)
}

fn write(draft: &OutboxDraft, raw: &mut Vec<u8>) {
    raw.extend_from_slice(draft.id.as_bytes());
    raw.extend_from_slice(&draft.target.0.to_le_bytes());
    raw.extend_from_slice(&length(draft.topic.len()));
    raw.extend_from_slice(draft.topic.as_bytes());
    optional(draft.key.as_deref(), raw);
    raw.extend_from_slice(&length(draft.headers.stored_bytes()));
    draft.headers.write_to(raw);
    optional(draft.value.as_deref(), raw);
}

fn optional(bytes: Option<&[u8]>, raw: &mut Vec<u8>) {
    let Some(bytes) = bytes else { return raw.extend_from_slice(&u32::MAX.to_le_bytes()) };
    raw.extend_from_slice(&length(bytes.len()));
    raw.extend_from_slice(bytes);
}

/// The names of topics that were read: a backlog is mostly of one.
#[derive(Default)]
pub(crate) struct Topics(HashMap<String, Arc<str>>);

impl Topics {
    pub(crate) fn shared(&mut self, topic: &str) -> Arc<str> {
        if let Some(known) = self.0.get(topic) {
            return Arc::clone(known);
        }
        let new: Arc<str> = topic.into();
        self.0.insert(topic.to_owned(), Arc::clone(&new));
        new
    }
}

/// The records of a segment of `partition` that ends at the sequence `last`, in order.
///
/// # Errors
/// [`BadSegment`] if `data` is not exactly `records` records.
pub(crate) fn read(
    partition: PartitionId,
    last: u64,
    records: u32,
    data: &[u8],
    topics: &mut Topics,
) -> Result<Vec<OutboxRow>, BadSegment> {
    let bad = |reason| BadSegment { partition, last, reason };
    let first = (last + 1).checked_sub(u64::from(records)).ok_or_else(|| bad("it begins before the first sequence"))?;
    let raw = unpack(data).map_err(bad)?;
    let mut frames = Frames(&raw);
    let rows = (first..=last).map(|sequence| {
        let draft = frames.next(topics)?;
        Some(OutboxRow { partition, sequence, draft })
    });
    let rows = rows.collect::<Option<Vec<_>>>().ok_or_else(|| bad("a frame is cut off, or is none"))?;
    if frames.0.is_empty() { Ok(rows) } else { Err(bad("more follows its last record")) }
}

/// The frames of a stored segment.
fn unpack(data: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (header, packed) = data.split_at_checked(HEADER).ok_or("its header is cut off")?;
    let (version, raw) = header.split_at(1);
    if version != [VERSION] {
        return Err("its version is unknown; was it written by a newer build?");
    }
    let raw = u32::from_le_bytes(raw.try_into().map_err(|_| "its header is cut off")?) as usize;
    if raw > packed.len().saturating_mul(RATIO_MAX) {
        return Err("no block of this size holds as much");
    }
    let mut frames = vec![0; raw];
    match decompress_into(packed, &mut frames) {
        Ok(size) if size == raw => Ok(frames),
        Ok(_) => Err("its block is cut off"),
        Err(_) => Err("its block is damaged"),
    }
}

/// Frames that are left to read. What is read of them is copied: a record that is kept must not keep the
/// whole segment.
struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    /// `None` if the frame is cut off, or is none.
    fn next(&mut self, topics: &mut Topics) -> Option<OutboxDraft> {
        let id = Uuid::from_slice(self.take(16)?).ok()?;
        let target = PartitionId(self.number()?);
        let topic = topics.shared(std::str::from_utf8(self.field()?.0?).ok()?);
        let key = self.field()?.copied();
        let headers = Headers::from_bytes(self.field()?.0?)?;
        let value = self.field()?.copied();
        Some(OutboxDraft { id, topic, target, key, headers, value })
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().map(u32::from_le_bytes).ok()
    }

    fn field(&mut self) -> Option<Field<'a>> {
        match self.number()? {
            u32::MAX => Some(Field(None)),
            length => self.take(length as usize).map(|bytes| Field(Some(bytes))),
        }
    }
}

/// What is behind its length, if it is no null.
struct Field<'a>(Option<&'a [u8]>);

impl Field<'_> {
    fn copied(&self) -> Option<Bytes> {
        self.0.map(Bytes::copy_from_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(partition: u32, sequence: u64, value: Option<Bytes>) -> OutboxRow {
        let mut headers = Headers::default();
        headers.push("ce_id", format!("id-{sequence}"));
        headers.0.push(("null".into(), None));
        let draft = OutboxDraft {
            id: Uuid::from_u128(u128::from(sequence)),
            topic: if sequence.is_multiple_of(2) { "t.events" } else { "t.dlq" }.into(),
            target: PartitionId(partition + 7),
            key: (!sequence.is_multiple_of(3)).then(|| Bytes::from(format!("key-{sequence}"))),
            headers: if sequence.is_multiple_of(5) { Headers::default() } else { headers },
            value,
        };
        OutboxRow { partition: PartitionId(partition), sequence, draft }
    }

    fn rows(partition: u32, sequences: std::ops::RangeInclusive<u64>) -> Vec<OutboxRow> {
        let value =
            |n: u64| (!n.is_multiple_of(4)).then(|| Bytes::from(vec![b'v'; usize::try_from(n * 7).expect("small")]));
        sequences.map(|n| row(partition, n, value(n))).collect()
    }

    fn read_all(segments: &[Segment], partition: u32) -> Vec<OutboxRow> {
        let mine = segments.iter().filter(|segment| segment.partition == PartitionId(partition));
        mine.flat_map(|of| read(of.partition, of.last, of.records, &of.data, &mut Topics::default()).expect("sound"))
            .collect()
    }

    #[test]
    fn records_of_each_partition_come_back_in_order() {
        let (first, second) = (rows(0, 1..=20), rows(3, 100..=109));
        let mut mixed = first.clone();
        second.iter().enumerate().for_each(|(n, row)| mixed.insert(2 * n, row.clone()));
        let segments = cut(&mixed);
        assert_eq!(segments.len(), 2);
        assert_eq!((read_all(&segments, 0), read_all(&segments, 3)), (first, second));
        let of = segments.iter().find(|segment| segment.partition == PartitionId(3)).expect("there");
        assert_eq!((of.id, of.last, of.records), (Uuid::from_u128(100), 109, 10));
        assert!(cut(&[]).is_empty());
    }

    #[test]
    fn large_commit_has_several_and_each_follows_the_last() {
        let noise =
            |n: u64| Bytes::from((0..400_000).map(|at: u64| ((at * at * n) >> 7).to_le_bytes()[0]).collect::<Vec<_>>());
        let all: Vec<OutboxRow> = (1..=5)
            .map(|n| row(0, n, Some(noise(n))))
            .chain([row(0, 6, Some(Bytes::from(vec![1; 3 << 20])))])
            .collect();
        let segments = cut(&all);
        assert_eq!(
            segments.iter().map(|of| (of.last, of.records)).collect::<Vec<_>>(),
            [(2, 2), (4, 2), (5, 1), (6, 1)]
        );
        assert_eq!(read_all(&segments, 0), all);
        // A gap ends one too: a frame has no sequence.
        let gap: Vec<OutboxRow> = rows(0, 1..=2).into_iter().chain(rows(0, 5..=6)).collect();
        let segments = cut(&gap);
        assert_eq!((segments.len(), read_all(&segments, 0)), (2, gap));
    }

    #[test]
    fn bytes_are_those_of_keys_headers_and_values() {
        let all = rows(0, 1..=9);
        let each = all.iter().map(|OutboxRow { draft, .. }| {
            let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
            length(&draft.key) + draft.headers.to_bytes().len() + length(&draft.value)
        });
        assert_eq!(cut(&all)[0].bytes, each.sum::<usize>());
    }

    /// A record is never lost or half there without an error.
    #[test]
    fn segment_cut_at_any_byte_is_an_error() {
        let all = rows(0, 1..=12);
        let Segment { partition, last, records, data, .. } = cut(&all).remove(0);
        for at in 0..data.len() {
            assert!(
                read(partition, last, records, &data[..at], &mut Topics::default()).is_err(),
                "cut at {at} of {}",
                data.len()
            );
        }
        let longer = [&data[..], &[0]].concat();
        assert!(read(partition, last, records, &longer, &mut Topics::default()).is_err(), "more than its block");
        for wrong in [records - 1, records + 1] {
            assert!(read(partition, last, wrong, &data, &mut Topics::default()).is_err(), "{wrong} records");
        }
        assert_eq!(read(partition, last, records, &data, &mut Topics::default()), Ok(all));
    }

    #[test]
    fn damage_is_never_a_panic_nor_a_large_allocation() {
        let Segment { partition, last, records, data, .. } = cut(&rows(0, 1..=12)).remove(0);
        for at in 0..data.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = data.clone();
                damaged[at] ^= flip;
                if let Ok(rows) = read(partition, last, records, &damaged, &mut Topics::default()) {
                    assert_eq!(rows.len(), records as usize);
                }
            }
        }
        let mut bomb = data;
        bomb[1..HEADER].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = read(partition, last, records, &bomb, &mut Topics::default()).expect_err("too large");
        assert_eq!(error.reason, "no block of this size holds as much");
        assert!(read(partition, 3, 5, &bomb, &mut Topics::default()).is_err(), "it would begin before 1");
    }
}
