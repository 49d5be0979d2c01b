//! What the group hands to this member, noted in librdkafka's callbacks.
//!
//! Callbacks run in whichever thread polls and hold up the group while they run, so they only note the
//! change, pause what came and acknowledge; nothing waits in them. Their default in rust-rdkafka ignores the
//! errors of the incremental calls; here a failed call is seen, and the assignment that counts is what
//! librdkafka says it is afterwards. Deliberately absent: waiting for partitions to be released before they
//! are given up. Fences decide who may commit, and a partition that is not released yet costs its next owner
//! one lease, not correctness.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use holdfast_core::partition::PartitionId;
use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use tokio::sync::watch;

use crate::{client::log_line, config::GroupProtocol};

/// After this time the first heartbeat is taken for answered.
const HEARTBEAT_ANSWERED_MS: i64 = 1_000;

/// What the group says now. Outlives the consumers that tell it.
#[derive(Debug)]
pub(crate) struct Standing {
    topic: String,
    assignment: watch::Sender<BTreeSet<PartitionId>>,
    /// Counted up whenever the group changed anything: what was confirmed under another number says nothing.
    changes: AtomicU64,
    joined: AtomicBool,
}

impl Standing {
    pub(crate) fn new(topic: String) -> Self {
        Self { topic, assignment: watch::Sender::default(), changes: AtomicU64::new(0), joined: AtomicBool::new(false) }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn watch(&self) -> watch::Receiver<BTreeSet<PartitionId>> {
        self.assignment.subscribe()
    }

    pub(crate) fn holds(&self, partition: PartitionId) -> bool {
        self.assignment.borrow().contains(&partition)
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(crate) fn joined(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }

    /// The consumer is gone or about to be replaced: nothing is assigned.
    pub(crate) fn clear(&self) {
        self.joined.store(false, Ordering::Release);
        self.set(BTreeSet::new());
    }

    fn set(&self, now: BTreeSet<PartitionId>) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.assignment.send_if_modified(|held| {
            let changed = *held != now;
            *held = now;
            changed
        });
    }

    /// Reads the assignment from librdkafka, which knows what the callbacks' calls really did.
    fn read(&self, consumer: &BaseConsumer<MemberContext>) {
        match consumer.assignment() {
            Ok(list) => self.set(self.partitions(&list)),
            Err(error) => tracing::error!(%error, "the group's assignment could not be read"),
        }
    }

    fn partitions(&self, list: &TopicPartitionList) -> BTreeSet<PartitionId> {
        let ours = list.elements_for_topic(&self.topic);
        ours.iter().filter_map(|element| u32::try_from(element.partition()).ok().map(PartitionId)).collect()
    }
}

/// The callbacks of one group consumer.
pub(crate) struct MemberContext {
    pub(crate) standing: std::sync::Arc<Standing>,
    pub(crate) protocol: GroupProtocol,
    /// Set when the consumer is abandoned: what it still says is not heard.
    pub(crate) abandoned: AtomicBool,
    /// Whether it is outside the group, by the last statistics: not joined yet, or left.
    pub(crate) outside: AtomicBool,
}

impl MemberContext {
    fn heard(&self) -> bool {
        !self.abandoned.load(Ordering::Acquire)
    }
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        // By the consumer protocol, a member that is given nothing sees no rebalance callback and keeps its
        // join state. It sends its first heartbeat, which joins, as soon as its coordinator is up; a refusal
        // is a fatal error.
        let is_outside = statistics.cgrp.as_ref().is_some_and(|group| group.join_state == "init");
        self.outside.store(is_outside, Ordering::Release);
        let joined = statistics.cgrp.is_some_and(|group| {
            let settled = self.protocol == GroupProtocol::Consumer && group.stateage > HEARTBEAT_ANSWERED_MS;
            group.state == "up" && (group.join_state == "steady" || settled)
        });
        if joined && self.heard() {
            self.standing.joined.store(true, Ordering::Release);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka group member");
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let lost = consumer.assignment_lost();
        if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if let Err(error) = accept(consumer, list, cooperative) {
                tracing::error!(%error, "an assignment was not taken");
            }
            if self.heard() {
                self.standing.joined.store(true, Ordering::Release);
            }
        } else {
            let given_up = if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() };
            if let Err(error) = given_up {
                tracing::error!(%error, "a revocation was not taken");
            }
            if lost && self.heard() {
                self.standing.joined.store(false, Ordering::Release);
            }
        }
        if self.heard() {
            self.standing.read(consumer);
            tracing::info!(
                topic = self.standing.topic,
                ?kind,
                lost,
                partitions = list.count(),
                held = self.standing.assignment.borrow().len(),
                "the group moved partitions"
            );
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "hint offsets were not committed");
        }
    }
}

/// Takes what the group gives, without reading from it: from the end, so that no committed offset is looked
/// up, and paused.
fn accept(consumer: &BaseConsumer<MemberContext>, list: &mut TopicPartitionList, cooperative: bool) -> KafkaResult<()> {
    list.set_all_offsets(Offset::End)?;
    if cooperative {
        consumer.incremental_assign(list)?;
    } else {
        consumer.assign(list)?;
    }
    if list.count() == 0 {
        return Ok(());
    }
    // Records that come in spite of a failed pause are discarded by the thread that polls.
    consumer.pause(list)
}
