//! One log, one store, one group, and nodes of the counter context over them.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Write as _,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, CallEnvelope, KeyHash, PartitionId, Record, Timestamp,
    envelope::{EnvelopeOut, Headers},
    invariant,
};
use holdfast_machine::Rules;
use holdfast_runtime::{BoundedContext, Config, Node, Ports, telemetry::NoTrace};
use holdfast_testkit::{MemoryGroup, MemoryLog, MemoryMembership, MemoryPublisher, MemoryStore, VirtualClock};
use uuid::Uuid;

use crate::counter::{Counter, CounterAdapter, Oracle};

pub const PARTITIONS: u32 = 4;
pub const TOPICS: [&str; 4] = ["counter.commands", "counter.events", "counter.dlq", "other.events"];

pub struct Cluster {
    pub log: MemoryLog,
    pub store: MemoryStore,
    pub group: MemoryGroup,
    pub oracle: Oracle,
    started: AtomicU32,
}

thread_local! {
    /// Whether all nodes of this test keep every rule. A test and its nodes share a thread.
    static IS_SOUND: Cell<bool> = const { Cell::new(true) };
}

/// A violated invariant fails the test: the loop that noticed it panics. Not where a rule is left out, for
/// that is what is to be noticed.
fn heed_invariants(rules: Rules) {
    IS_SOUND.set(IS_SOUND.get() && rules == Rules::SOUND);
    invariant::on_violation(|invariant, detail| assert!(!IS_SOUND.get(), "{invariant} is violated: {detail}"));
}

pub struct Member {
    pub node: Arc<Node>,
    pub log: MemoryLog,
    pub store: MemoryStore,
    pub publisher: MemoryPublisher,
    pub membership: MemoryMembership,
}

impl Cluster {
    pub fn new() -> Self {
        Self::with_partitions(PARTITIONS)
    }

    pub fn with_partitions(count: u32) -> Self {
        let log = MemoryLog::new();
        for topic in TOPICS {
            log.create_topic(topic, count);
        }
        Self {
            log,
            store: MemoryStore::new(),
            group: MemoryGroup::new(count),
            oracle: Oracle::default(),
            started: AtomicU32::default(),
        }
    }

    pub async fn start(&self) -> Member {
        self.start_with(|_| {}).await
    }

    pub async fn start_with(&self, change: impl FnOnce(&mut Config)) -> Member {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let mut config = Config { address: format!("memory-{number}"), ..Config::default() };
        change(&mut config);
        let store = self.store.node();
        self.start_on(store, config).await
    }

    /// Starts a node with a handle on the store that may be broken from the start.
    pub async fn start_on(&self, store: MemoryStore, config: Config) -> Member {
        heed_invariants(config.rules);
        let log = self.log.node();
        let publisher = MemoryPublisher::new(log.clone());
        let membership = self.group.join();
        let context = self.context();
        let ports = Ports {
            log: Arc::new(log.clone()),
            membership: Arc::new(membership.clone()),
            publishers: Arc::new(publisher.clone()),
            store: Arc::new(store.clone()),
            clock: Arc::new(VirtualClock::start()),
            trace: Arc::new(NoTrace),
        };
        let node = Node::start(context, config, ports).await.expect("starts");
        Member { node, log, store, publisher, membership }
    }

    /// What every node serves.
    pub fn context(&self) -> BoundedContext {
        BoundedContext::new("counter").with(CounterAdapter { oracle: self.oracle.clone() }).subscribe("other.events")
    }

    /// Sends a command through the log; returns its id.
    pub fn send(&self, key: &str, r#type: &str, body: &str) -> Uuid {
        let id = Uuid::now_v7();
        self.send_as(id, key, r#type, body);
        id
    }

    pub fn send_as(&self, id: Uuid, key: &str, r#type: &str, body: &str) {
        let headers = headers(id, key, r#type, "producer", None);
        self.append("counter.commands", key, headers, body);
    }

    /// Sends another context's event.
    pub fn send_event(&self, key: &str, r#type: &str, sequence: u64, body: &str) {
        let headers = headers(Uuid::now_v7(), key, r#type, "other", Some(sequence));
        self.append("other.events", key, headers, body);
    }

    pub fn append(&self, topic: &str, key: &str, headers: Headers, body: &str) {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(body.to_owned()));
        self.log.append(topic, None, Some(key), headers, Some(value)).expect("topic exists");
    }

    /// Grows one topic; the group follows the commands topic.
    pub fn grow(&self, topic: &str, to: u32) {
        self.log.create_topic(topic, to);
        if topic == "counter.commands" {
            self.group.set_count(to);
        }
    }

    pub fn sum(&self, key: &str) -> Option<i64> {
        let row = self.store.state(&id(key)).filter(|row| row.version > 0)?;
        Some(std::str::from_utf8(&row.bytes).expect("text").parse().expect("number"))
    }

    pub fn version(&self, key: &str) -> u64 {
        self.store.state(&id(key)).map_or(0, |row| row.version)
    }

    /// Events per key, in the order of the topic, first occurrences only.
    pub fn events(&self) -> BTreeMap<String, Vec<(u64, String)>> {
        let mut events: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        // A mark of growth has no key and is no event.
        for record in self.log.all_records("counter.events").into_iter().filter(|record| record.key.is_some()) {
            let sequence = text(&record, "ce_sequence").parse().expect("number");
            let list = events.entry(utf8(record.key.as_deref())).or_default();
            if list.iter().all(|(seen, _)| *seen < sequence) {
                list.push((sequence, utf8(record.value.as_deref())));
            }
        }
        events
    }

    /// Checks I2, I3, I7, I8 and I10 once everything has come to rest: what was sent is accounted for, the
    /// topic holds every version once and in order, the store is the fold of the topic.
    pub async fn assert_converged(&self) {
        eventually("outbox drained and input consumed", || self.is_at_rest()).await;
        let contents = self.store.contents();
        assert_eq!(contents.breaches, Vec::<String>::new());
        assert!(contents.claims.values().all(|claims| claims.len() == 1), "a claim was written twice (I2)");
        for (key, events) in self.events() {
            let versions: Vec<u64> = events.iter().map(|(version, _)| *version).collect();
            let expected: Vec<u64> = (1..=self.version(&key)).collect();
            assert_eq!(versions, expected, "{key}: versions in the topic (I3)");
            let fold: i64 = events.iter().map(|(_, body)| body.parse::<i64>().expect("number")).sum();
            assert_eq!(self.sum(&key), Some(fold), "{key}: the store is the fold of the topic (I8)");
        }
    }

    pub fn is_at_rest(&self) -> bool {
        self.unrest().is_empty()
    }

    /// What is still to be done, in words.
    pub fn unrest(&self) -> String {
        let contents = self.store.contents();
        let mut left = String::new();
        for (partition, row) in contents.partitions.iter().filter(|(_, row)| row.outbox_cursor != row.outbox_head) {
            let _ = write!(left, "outbox {partition}: {} of {}; ", row.outbox_cursor, row.outbox_head);
        }
        for topic in ["counter.commands", "other.events"] {
            for partition in (0..self.log.partitions(topic)).map(PartitionId) {
                let (_, end) = self.log.bounds(topic, partition).expect("exists");
                let next = contents.partitions.get(&partition).map(|row| row.next_offset(topic).unwrap_or(0));
                if next != Some(end) {
                    let _ = write!(left, "{topic}-{partition}: {next:?} of {end}; ");
                }
            }
        }
        if !contents.effects.is_empty() {
            let _ = write!(left, "{} effects without an end; ", contents.effects.len());
        }
        if !contents.mailbox.is_empty() {
            let _ = write!(left, "{} in mailboxes; ", contents.mailbox.len());
        }
        left
    }

    pub fn dead_letters(&self) -> Vec<Record> {
        self.log.all_records("counter.dlq")
    }
}

pub fn id(key: &str) -> AggregateId {
    AggregateId { kind: <Counter as holdfast_core::Aggregate>::KIND, key: key.into() }
}

pub fn home(key: &str) -> PartitionId {
    KeyHash::of(key.as_bytes()).home(PARTITIONS)
}

pub fn headers(id: Uuid, key: &str, r#type: &str, source: &str, sequence: Option<u64>) -> Headers {
    EnvelopeOut { sequence, ..EnvelopeOut::new(id, source, r#type, Timestamp::from_unix_ms(0), key) }.headers()
}

pub fn call(key: &str, r#type: &str, body: &str) -> CallEnvelope {
    CallEnvelope::new(Uuid::now_v7(), r#type, key, Bytes::from(body.to_owned()))
}

pub fn text(record: &Record, header: &str) -> String {
    utf8(record.headers.get(header))
}

fn utf8(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).expect("text")
}

/// Waits, in (paused) time, until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, wait).await;
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(2), future)
        .await
        .unwrap_or_else(|_| panic!("not within two minutes: {what}"))
}
