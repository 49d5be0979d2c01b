//! Records made and read by hand, byte for byte: for what no well-behaved producer sends.
//!
//! Deliberately absent: speed, and any idea of what a good record looks like.

use std::time::Duration;

use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use crate::kafka::{self, Error};

/// A record's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl Raw {
    /// The text of a header; empty if there is none, or none that is text.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header == name).and_then(|(_, value)| value.as_deref());
        found.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }

    /// Replaces a header, or takes it away.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<&str>) -> Self {
        self.headers.retain(|(header, _)| header != name);
        if let Some(value) = value {
            self.headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
        }
        self
    }

    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            key: message.key().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            value: message.payload().map(<[u8]>::to_vec),
        }
    }
}

/// Sends records one after the other, each acknowledged before the next; where each lies.
pub async fn send(brokers: &str, topic: &str, records: &[Raw]) -> Result<Vec<Place>, Error> {
    send_to(brokers, topic, None, records).await
}

/// The same, to the given partition whatever the keys say.
pub async fn send_astray(brokers: &str, topic: &str, partition: i32, records: &[Raw]) -> Result<Vec<Place>, Error> {
    send_to(brokers, topic, Some(partition), records).await
}

/// The same, compressed: a broker measures them so, and takes what is larger than its topics' limits.
pub async fn send_compressed(brokers: &str, topic: &str, records: &[Raw]) -> Result<Vec<Place>, Error> {
    send_by(&Hand::new(brokers, "zstd")?, topic, None, records).await
}

async fn send_to(brokers: &str, topic: &str, partition: Option<i32>, records: &[Raw]) -> Result<Vec<Place>, Error> {
    send_by(&Hand::new(brokers, "none")?, topic, partition, records).await
}

async fn send_by(hand: &Hand, topic: &str, partition: Option<i32>, records: &[Raw]) -> Result<Vec<Place>, Error> {
    let mut places = Vec::with_capacity(records.len());
    for record in records {
        places.push(hand.put(topic, partition, None, record).await?);
    }
    Ok(places)
}

/// A producer with a codec of its own and no limit on the size of a record; the broker measures what arrives.
pub struct Hand {
    producer: FutureProducer,
}

impl Hand {
    /// A producer that compresses by `codec`, as librdkafka names it.
    pub fn new(brokers: &str, codec: &str) -> Result<Self, Error> {
        let mut config = kafka::client(brokers, "holdfast-by-hand");
        config
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "0")
            .set("compression.type", codec)
            .set("message.max.bytes", "1000000000");
        Ok(Self { producer: config.create().map_err(kafka::failed("producer"))? })
    }

    /// Sends one record to `partition`, or else to its key's home, with this timestamp or else the current
    /// time.
    pub async fn put(
        &self,
        topic: &str,
        partition: Option<i32>,
        time_ms: Option<i64>,
        record: &Raw,
    ) -> Result<Place, Error> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut wanted: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers);
        wanted.key = record.key.as_deref();
        wanted.payload = record.value.as_deref();
        wanted.partition = partition;
        wanted.timestamp = time_ms;
        let sent = self.producer.send(wanted, Duration::from_secs(30)).await;
        let delivery = sent.map_err(|(error, _)| kafka::failed("sending by hand")(error))?;
        Ok(Place { partition: delivery.partition, offset: delivery.offset })
    }
}

/// Everything in `topic` as it is now.
pub async fn read(brokers: &str, topic: &str) -> Result<Vec<(Place, Raw)>, Error> {
    let read = |message: &BorrowedMessage<'_>| {
        (Place { partition: message.partition(), offset: message.offset() }, Raw::of(message))
    };
    kafka::read_each(brokers, topic, std::collections::BTreeMap::new(), Duration::from_mins(1), read).await
}
