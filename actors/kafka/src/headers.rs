//! Headers and records between librdkafka and the core, without loss: null values, repeated names, order and
//! any bytes are kept.
//!
//! Invariant: no foreign record can make this panic. A header name that isn't UTF-8 (which Kafka asks for) is
//! read with replacement characters, and one that holds a zero byte ends there, because librdkafka's
//! interface does. Deliberately absent: the meaning of headers ([`holdfast_core::envelope`]).

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use holdfast_core::{
    envelope::{HeaderName, Headers, Record, header},
    partition::PartitionId,
    time::Timestamp,
};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Header, OwnedHeaders},
};

use crate::native;

/// Above this size a value gets an allocation of its own, so that a small part kept for long does not hold
/// it.
const SHARED_BYTES_MAX: usize = 16 * 1024;

/// Headers for sending; `None` if there are none.
pub fn to_kafka(headers: &Headers) -> Option<OwnedHeaders> {
    if headers.0.is_empty() {
        return None;
    }
    let mut out = OwnedHeaders::new_with_capacity(headers.0.len());
    for (name, value) in &headers.0 {
        out = out.insert(Header { key: name, value: value.as_deref() });
    }
    Some(out)
}

/// The record that `message` is: one copy out of librdkafka's buffer, in one allocation unless the value is
/// large.
pub(crate) fn record(topic: &Arc<str>, partition: PartitionId, offset: u64, message: &BorrowedMessage<'_>) -> Record {
    let (key, value) = (message.key(), message.payload());
    let shared_value = value.filter(|value| value.len() <= SHARED_BYTES_MAX);
    let mut all = Vec::with_capacity(512 + key.map_or(0, <[u8]>::len) + shared_value.map_or(0, <[u8]>::len));
    all.extend_from_slice(key.unwrap_or_default());
    let key_end = all.len();
    all.extend_from_slice(shared_value.unwrap_or_default());
    let value_end = all.len();
    let mut spans: Vec<(HeaderName, Option<(usize, usize)>)> = Vec::with_capacity(12);
    native::each_header(message, |name, value| {
        let span = value.map(|value| {
            let start = all.len();
            all.extend_from_slice(value);
            (start, all.len())
        });
        let name = match header::known(name) {
            Some(known) => Cow::Borrowed(known),
            None => Cow::Owned(String::from_utf8_lossy(name).into_owned()),
        };
        spans.push((name, span));
    });
    let all = Bytes::from(all);
    Record {
        topic: Arc::clone(topic),
        partition,
        offset,
        timestamp: message.timestamp().to_millis().map(Timestamp::from_unix_ms),
        key: key.map(|_| all.slice(..key_end)),
        headers: Headers(
            spans.into_iter().map(|(name, span)| (name, span.map(|(start, end)| all.slice(start..end)))).collect(),
        ),
        value: value.map(|value| {
            if shared_value.is_some() { all.slice(key_end..value_end) } else { Bytes::copy_from_slice(value) }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::Headers as _;

    #[test]
    fn nulls_repeats_order_and_bytes_are_kept() {
        let headers = Headers(vec![
            ("a".into(), None),
            ("a".into(), Some(Bytes::new())),
            ("b".into(), Some(Bytes::from_static(&[0, 255, 0]))),
            ("a".into(), Some(Bytes::from_static(b"last"))),
            ("".into(), Some(Bytes::from_static(b"nameless"))),
        ]);
        let there = to_kafka(&headers).expect("not empty");
        let back =
            Headers(there.iter().map(|h| (h.key.to_owned().into(), h.value.map(Bytes::copy_from_slice))).collect());
        assert_eq!(back, headers);
        assert!(to_kafka(&Headers::default()).is_none());
    }
}
