//! A record as the log holds it, and the message that its headers and value spell.
//!
//! CloudEvents 1.0 in Kafka's binary mode: the attributes are headers (`ce_*`), the value is the body alone.
//! Every bad record has one outcome, named by [`Refused`]; nothing here panics on foreign bytes. Of a header
//! that comes more than once the last one counts, as in Kafka's `lastHeader`. Deliberately absent: decoding
//! the body, which is the domain's (see [`crate::codec`]), and where a message may come from
//! ([`crate::origin`]).

use std::{borrow::Cow, sync::Arc};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::{
    disposition::Refused,
    door,
    partition::{KeyHash, PartitionId},
    time::Timestamp,
};

/// Header names, as they appear on the wire.
pub mod header {
    /// Always `1.0`.
    pub const SPEC_VERSION: &str = "ce_specversion";
    /// A UUID.
    pub const ID: &str = "ce_id";
    /// Who made the message.
    pub const SOURCE: &str = "ce_source";
    /// The full protobuf message name.
    pub const TYPE: &str = "ce_type";
    /// RFC 3339.
    pub const TIME: &str = "ce_time";
    /// The aggregate id, equal to the record key.
    pub const SUBJECT: &str = "ce_subject";
    /// On events: the aggregate's version.
    pub const SEQUENCE: &str = "ce_sequence";
    /// The flow the message belongs to.
    pub const CORRELATION: &str = "ce_correlationid";
    /// The id of the message that caused this one.
    pub const CAUSATION: &str = "ce_causationid";
    /// Schema version of the body.
    pub const SCHEMA: &str = "ce_dataschema";
    /// `application/protobuf` or `application/json`.
    pub const CONTENT_TYPE: &str = "content-type";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace context.
    pub const TRACESTATE: &str = "tracestate";
    /// On messages that a context sends to itself: what shows that it did ([`crate::seal`]).
    pub const SEAL: &str = "ce_holdfastseal";

    /// The constant of this name, if it is one of the above: most headers are, and then a name needs no
    /// memory of its own.
    pub fn known(name: &[u8]) -> Option<&'static str> {
        const ALL: [&str; 14] = [
            SPEC_VERSION,
            ID,
            SOURCE,
            TYPE,
            TIME,
            SUBJECT,
            SEQUENCE,
            CORRELATION,
            CAUSATION,
            SCHEMA,
            CONTENT_TYPE,
            TRACEPARENT,
            TRACESTATE,
            SEAL,
        ];
        ALL.into_iter().find(|known| known.as_bytes() == name)
    }
}

/// A header's name; those in [`header`] are borrowed from there.
pub type HeaderName = Cow<'static, str>;

/// Record headers: names with optional values, in order, names may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(HeaderName, Option<Bytes>)>);

impl Headers {
    /// The last value of `name`, as Kafka's `lastHeader` does.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref())
    }

    /// Bytes of all names and values.
    pub fn size_bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }

    /// Appends a header with a text value.
    pub fn push(&mut self, name: impl Into<HeaderName>, value: impl Into<String>) {
        self.0.push((name.into(), Some(Bytes::from(value.into()))));
    }

    /// The form in which they are stored: count, then length-prefixed names and values (little endian `u32`;
    /// a null value has length `u32::MAX`).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.stored_bytes());
        self.write_to(&mut out);
        out
    }

    /// The length of [`Self::to_bytes`].
    pub fn stored_bytes(&self) -> usize {
        4 + self.0.iter().map(|(name, value)| 8 + name.len() + value.as_ref().map_or(0, Bytes::len)).sum::<usize>()
    }

    /// Adds [`Self::to_bytes`] to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let length = |n: usize| u32::try_from(n).expect("the broker's message limit is far below 4 GiB").to_le_bytes();
        out.extend_from_slice(&length(self.0.len()));
        for (name, value) in &self.0 {
            out.extend_from_slice(&length(name.len()));
            out.extend_from_slice(name.as_bytes());
            match value {
                None => out.extend_from_slice(&u32::MAX.to_le_bytes()),
                Some(value) => {
                    out.extend_from_slice(&length(value.len()));
                    out.extend_from_slice(value);
                }
            }
        }
    }

    /// Reads [`Self::to_bytes`]; `None` if it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let number = |rest: &mut &[u8]| -> Option<u32> {
            let (head, tail) = rest.split_at_checked(4)?;
            *rest = tail;
            Some(u32::from_le_bytes(head.try_into().ok()?))
        };
        let count = number(&mut rest)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let (name, tail) = {
                let length = number(&mut rest)? as usize;
                rest.split_at_checked(length)?
            };
            rest = tail;
            let value = match number(&mut rest)? {
                u32::MAX => None,
                length => {
                    let (value, tail) = rest.split_at_checked(length as usize)?;
                    rest = tail;
                    Some(Bytes::copy_from_slice(value))
                }
            };
            let name = match header::known(name) {
                Some(known) => Cow::Borrowed(known),
                None => Cow::Owned(String::from_utf8(name.to_vec()).ok()?),
            };
            headers.push((name, value));
        }
        rest.is_empty().then_some(Self(headers))
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The topic it was read from.
    pub topic: Arc<str>,
    /// The partition it was read from.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: u64,
    /// The broker's or producer's timestamp, if there is one.
    pub timestamp: Option<Timestamp>,
    /// The key, if there is one.
    pub key: Option<Bytes>,
    /// The headers as they came.
    pub headers: Headers,
    /// The body; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl Record {
    /// What it costs to hold this record in memory, about.
    pub fn size_bytes(&self) -> usize {
        let headers = self
            .headers
            .0
            .iter()
            .map(|(name, value)| 48 + name.len() + value.as_ref().map_or(0, Bytes::len))
            .sum::<usize>();
        256 + headers + self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// The hash that decides the home of whatever this is; a record without a key hashes like an empty one.
    pub fn key_hash(&self) -> KeyHash {
        KeyHash::of(self.key.as_deref().unwrap_or_default())
    }
}

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// The protobuf message, plain.
    Protobuf,
    /// Its canonical proto3 JSON.
    Json,
}

impl ContentType {
    /// The media type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Protobuf => "application/protobuf",
            Self::Json => "application/json",
        }
    }

    /// From a media type; parameters such as a charset are ignored.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A message whose envelope is sound. Its body has not been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `ce_id`.
    pub id: Uuid,
    /// `ce_source`.
    pub source: Arc<str>,
    /// `ce_type`.
    pub r#type: Arc<str>,
    /// The aggregate's key.
    pub key: Arc<str>,
    /// How the body is encoded.
    pub content_type: ContentType,
    /// `ce_sequence`, on events.
    pub sequence: Option<u64>,
    /// `ce_correlationid`.
    pub correlation: Option<String>,
    /// `ce_causationid`.
    pub causation: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// `tracestate`.
    pub tracestate: Option<String>,
    /// The body.
    pub payload: Bytes,
}

impl Message {
    /// A message with a Protobuf body and nothing optional.
    pub fn new(
        id: Uuid,
        source: impl Into<Arc<str>>,
        r#type: impl Into<Arc<str>>,
        key: impl Into<Arc<str>>,
        payload: Bytes,
    ) -> Self {
        Self {
            id,
            source: source.into(),
            r#type: r#type.into(),
            key: key.into(),
            content_type: ContentType::Protobuf,
            sequence: None,
            correlation: None,
            causation: None,
            traceparent: None,
            tracestate: None,
            payload,
        }
    }

    /// Reads the envelope of `record`.
    pub fn decode(record: &Record) -> Result<Self, Refused> {
        let payload = record.value.clone().unwrap_or_default();
        door::body(payload.len())?;
        door::headers(record.headers.size_bytes())?;
        let headers = Named::of(&record.headers)?;
        if headers.required(header::SPEC_VERSION)? != "1.0" {
            return Err(Refused::undecodable("header ce_specversion is not 1.0"));
        }
        door::time(header::TIME, headers.required(header::TIME)?)?;
        let id = headers.required(header::ID)?;
        let source = headers.required(header::SOURCE)?;
        let r#type = headers.required(header::TYPE)?;
        let content_type = headers.required(header::CONTENT_TYPE)?;
        let content_type = ContentType::parse(content_type).ok_or_else(|| {
            Refused::undecodable("header content-type is neither application/protobuf nor application/json")
        })?;
        if record.value.is_none() {
            return Err(Refused::undecodable("no value: a command or event needs a body, even an empty one"));
        }
        let id = Uuid::try_parse(id).map_err(|_| Refused::invalid(header::ID, "header ce_id is not a UUID"))?;
        let key = record
            .key
            .as_deref()
            .ok_or_else(|| Refused::invalid("key", "the record has no key; it must be the aggregate id"))?;
        let key = std::str::from_utf8(key).map_err(|_| Refused::invalid("key", "the record key is not UTF-8 text"))?;
        door::key(key)?;
        if headers.get(header::SUBJECT).is_some_and(|subject| subject != key) {
            return Err(Refused::invalid(header::SUBJECT, "the record key and header ce_subject differ"));
        }
        let sequence = headers.get(header::SEQUENCE).map(sequence).transpose()?;
        let owned = |name: &str| headers.get(name).map(str::to_owned);
        Ok(Self {
            id,
            source: source.into(),
            r#type: r#type.into(),
            key: key.into(),
            content_type,
            sequence,
            correlation: owned(header::CORRELATION),
            causation: owned(header::CAUSATION),
            traceparent: owned(header::TRACEPARENT),
            tracestate: owned(header::TRACESTATE),
            payload,
        })
    }
}

/// Versions count from 1 and are stored as 64 bits with a sign.
fn sequence(text: &str) -> Result<u64, Refused> {
    let number = text.parse::<u64>().ok().filter(|number| (1..=i64::MAX.unsigned_abs()).contains(number));
    let error = "header ce_sequence is not a whole number from 1 to 9223372036854775807; leave it out if there is none";
    number.ok_or_else(|| Refused::invalid(header::SEQUENCE, error))
}

/// The headers this module reads, as text, looked up in one pass.
struct Named<'a> {
    values: [Option<&'a str>; NAMES.len()],
}

const NAMES: [&str; 14] = [
    header::SPEC_VERSION,
    header::ID,
    header::SOURCE,
    header::TYPE,
    header::TIME,
    header::SUBJECT,
    header::SEQUENCE,
    header::CORRELATION,
    header::CAUSATION,
    header::SCHEMA,
    header::CONTENT_TYPE,
    header::TRACEPARENT,
    header::TRACESTATE,
    header::SEAL,
];

impl<'a> Named<'a> {
    fn of(headers: &'a Headers) -> Result<Self, Refused> {
        let mut last = [None; NAMES.len()];
        for (name, value) in &headers.0 {
            if let Some(at) = NAMES.iter().position(|known| known == name) {
                last[at] = value.as_deref();
            }
        }
        let mut values = [None; NAMES.len()];
        for ((value, name), last) in values.iter_mut().zip(NAMES).zip(last) {
            *value = last.map(|bytes| door::header(name, bytes)).transpose()?;
        }
        Ok(Self { values })
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        NAMES.iter().position(|known| *known == name).and_then(|at| self.values[at])
    }

    fn required(&self, name: &str) -> Result<&'a str, Refused> {
        match self.get(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(Refused::undecodable(format!("header {name} is missing"))),
        }
    }
}

/// Builds the headers of an event or command that this system sends.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeOut<'a> {
    /// `ce_id`.
    pub id: Uuid,
    /// `ce_source`.
    pub source: &'a str,
    /// `ce_type`.
    pub r#type: &'a str,
    /// `ce_time`.
    pub time: Timestamp,
    /// `ce_subject`.
    pub subject: &'a str,
    /// `ce_sequence`.
    pub sequence: Option<u64>,
    /// `ce_correlationid`.
    pub correlation: Option<&'a str>,
    /// `ce_causationid`.
    pub causation: Option<Uuid>,
    /// `ce_dataschema`.
    pub schema: Option<u32>,
    /// `traceparent`.
    pub traceparent: Option<&'a str>,
    /// `tracestate`.
    pub tracestate: Option<&'a str>,
}

impl<'a> EnvelopeOut<'a> {
    /// What no envelope lacks; everything optional is absent.
    pub fn new(id: Uuid, source: &'a str, r#type: &'a str, time: Timestamp, subject: &'a str) -> Self {
        Self {
            id,
            source,
            r#type,
            time,
            subject,
            sequence: None,
            correlation: None,
            causation: None,
            schema: None,
            traceparent: None,
            tracestate: None,
        }
    }

    /// The headers, values cut from one allocation.
    pub fn headers(&self) -> Headers {
        let time = self.time.rfc3339();
        let id = self.id.to_string();
        let sequence = self.sequence.map(|n| n.to_string());
        let causation = self.causation.map(|id| id.to_string());
        let schema = self.schema.map(|n| n.to_string());
        let parts = [
            (header::SPEC_VERSION, Some("1.0")),
            (header::ID, Some(id.as_str())),
            (header::SOURCE, Some(self.source)),
            (header::TYPE, Some(self.r#type)),
            (header::TIME, Some(time.as_str())),
            (header::SUBJECT, Some(self.subject)),
            (header::CONTENT_TYPE, Some(ContentType::Protobuf.as_str())),
            (header::SEQUENCE, sequence.as_deref()),
            (header::CORRELATION, self.correlation),
            (header::CAUSATION, causation.as_deref()),
            (header::SCHEMA, schema.as_deref()),
            (header::TRACEPARENT, self.traceparent),
            (header::TRACESTATE, self.tracestate),
        ];
        let mut all = BytesMut::with_capacity(parts.iter().filter_map(|(_, value)| *value).map(str::len).sum());
        let mut headers = Vec::with_capacity(parts.len());
        for (name, value) in parts {
            if let Some(value) = value {
                all.extend_from_slice(value.as_bytes());
                headers.push((Cow::Borrowed(name), Some(all.split().freeze())));
            }
        }
        Headers(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disposition::DeadLetterReason;
    use proptest::prelude::*;

    fn sound() -> Record {
        let key = "0190b0a4-0000-7000-8000-000000000001";
        let headers = EnvelopeOut {
            id: Uuid::nil(),
            source: "test",
            r#type: "t.v1.T",
            time: Timestamp::from_unix_ms(0),
            subject: key,
            sequence: Some(3),
            correlation: Some("flow"),
            causation: None,
            schema: None,
            traceparent: None,
            tracestate: None,
        }
        .headers();
        Record {
            topic: "t.commands".into(),
            partition: PartitionId(0),
            offset: 0,
            timestamp: None,
            key: Some(Bytes::from_static(key.as_bytes())),
            headers,
            value: Some(Bytes::new()),
        }
    }

    #[test]
    fn what_we_send_we_can_read() {
        let message = Message::decode(&sound()).expect("sound");
        assert_eq!((message.sequence, message.correlation.as_deref()), (Some(3), Some("flow")));
    }

    #[test]
    fn each_required_header_is_missed_by_name() {
        for name in [header::SPEC_VERSION, header::ID, header::SOURCE, header::TYPE, header::TIME, header::CONTENT_TYPE]
        {
            let mut record = sound();
            record.headers.0.retain(|(key, _)| key != name);
            let refused = Message::decode(&record).expect_err(name);
            assert_eq!(refused.reason, DeadLetterReason::Undecodable);
            assert!(refused.error.contains(name), "{refused}");
        }
    }

    #[test]
    fn bad_values_are_classified() {
        let with = |name: &'static str, value: &str| {
            let mut record = sound();
            record.headers.push(name, value);
            Message::decode(&record).expect_err(name).reason
        };
        assert_eq!(with(header::CONTENT_TYPE, "text/plain"), DeadLetterReason::Undecodable);
        assert_eq!(with(header::SPEC_VERSION, "0.3"), DeadLetterReason::Undecodable);
        assert_eq!(with(header::ID, "seven"), DeadLetterReason::Invalid);
        assert_eq!(with(header::SUBJECT, "another"), DeadLetterReason::Invalid);
        for sequence in ["-1", "0", "", "1.0", "9223372036854775808", "99999999999999999999"] {
            assert_eq!(with(header::SEQUENCE, sequence), DeadLetterReason::Invalid, "{sequence}");
        }
        assert_eq!(with(header::TIME, "yesterday"), DeadLetterReason::Invalid);
        assert_eq!(with(header::CORRELATION, "a\0b"), DeadLetterReason::Invalid);
        assert_eq!(with(header::CORRELATION, &"a".repeat(1025)), DeadLetterReason::TooLarge);
        assert_eq!(with("x-large", &"a".repeat(64 * 1024)), DeadLetterReason::TooLarge);
        let large = Record { value: Some(Bytes::from(vec![0; door::BODY_BYTES_MAX + 1])), ..sound() };
        assert_eq!(Message::decode(&large).expect_err("large").reason, DeadLetterReason::TooLarge);
        let keyless = Record { key: None, ..sound() };
        assert_eq!(Message::decode(&keyless).expect_err("no key").reason, DeadLetterReason::Invalid);
        for key in ["", "\0x", "a\nb"] {
            let record = Record { key: Some(Bytes::from(key)), ..sound() };
            assert_eq!(Message::decode(&record).expect_err(key).reason, DeadLetterReason::Invalid);
        }
        let tombstone = Record { value: None, ..sound() };
        assert_eq!(Message::decode(&tombstone).expect_err("tombstone").reason, DeadLetterReason::Undecodable);
    }

    #[test]
    fn last_header_of_a_name_counts() {
        let mut record = sound();
        record.headers.0.insert(0, (header::SOURCE.into(), Some(Bytes::from_static(b"\xff"))));
        record.headers.push(header::SOURCE, "last");
        assert_eq!(Message::decode(&record).map(|message| message.source), Ok("last".into()));
        record.headers.0.push((header::SOURCE.into(), None));
        let refused = Message::decode(&record).expect_err("its last value is null");
        assert_eq!((refused.reason, &*refused.error), (DeadLetterReason::Undecodable, "header ce_source is missing"));
    }

    #[test]
    fn times_long_ago_and_far_ahead_are_accepted() {
        for time in ["1970-01-01T00:00:00Z", "2300-01-01T00:00:00Z"] {
            let mut record = sound();
            record.headers.push(header::TIME, time);
            assert!(Message::decode(&record).is_ok(), "{time}");
        }
    }

    proptest! {
        #[test]
        fn headers_survive_storage(list in proptest::collection::vec((".{0,9}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9))), 0..6)) {
            let headers = Headers(list.into_iter().map(|(name, value)| (name.into(), value.map(Bytes::from))).collect());
            prop_assert_eq!(Headers::from_bytes(&headers.to_bytes()), Some(headers));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Headers::from_bytes(&bytes);
            let mut record = sound();
            record.headers.0.push((header::SOURCE.into(), Some(Bytes::from(bytes.clone()))));
            record.key = Some(Bytes::from(bytes));
            let _ = Message::decode(&record);
        }
    }
}
