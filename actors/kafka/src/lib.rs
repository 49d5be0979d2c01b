//! Kafka adapter of the Holdfast ports: [`KafkaLog`] reads, [`KafkaMembership`] shares partitions out,
//! [`KafkaPublisher`] writes, and [`admin`] makes topics. The only crate under `actors/` that names rdkafka.
//!
//! # One consumer for membership, another for data
//!
//! The usual shape is one consumer that subscribes and, in its rebalance callback, splits off a queue for
//! each partition it gets. That shape has known ways to go wrong: a partition split a moment late leaks
//! records to the main queue and so reorders them, revoking races with fetching, a start offset needs a seek,
//! and a client that subscribes can't also read other topics by hand. Here the group consumer is used for
//! *membership only*: it subscribes, pauses whatever it is given, and its records, should there be any, are
//! thrown away. All data, the commands topic included, is read by a second consumer that is assigned by hand,
//! from offsets that Postgres holds. A partition's queue is split off *before* the partition is assigned, so
//! no record of it can reach the main queue. No seek, no committed offset, no reset policy takes part. The
//! price is one more TCP connection per broker.
//!
//! A record that does reach the data consumer's main queue is counted (`holdfast_kafka_stray_records_total`)
//! and repaired: its partition's stream is opened again at the offset it expects next.
//!
//! # What is deliberately absent
//!
//! Owning a partition (the group is no fence: [`holdfast_core::epoch`]), reading back committed offsets (they
//! are hints for lag tools), Kafka transactions, choosing a partition for a record (it is written in the
//! outbox row).

pub mod admin;
mod client;
mod config;
mod describe;
mod error;
pub mod headers;
mod hints;
mod limits;
mod log;
mod membership;
mod native;
mod publisher;
mod rebalance;
mod shared;
mod stream;
mod window;

pub use crate::{
    admin::KafkaAdmin,
    config::{Compression, GroupProtocol, KafkaConfig},
    error::ConfigError,
    log::KafkaLog,
    membership::KafkaMembership,
    publisher::{KafkaPublisher, KafkaPublishers},
};
