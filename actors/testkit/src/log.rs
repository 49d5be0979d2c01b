//! The log in memory: topics, partitions, records, retention, and streams that wait for more.
//!
//! Upholds what the [`Log`] contract says; partitions are chosen by murmur2 as a Java producer would.
//! Deliberately absent: any consumer group (see [`crate::group`]) and any reading back of stored offsets,
//! which are hints for people.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    Headers, KeyHash, PartitionId, Record, Timestamp,
    port::log::{Log, LogError, RecordStream},
};
use tokio::{sync::watch, time::Instant};

/// A handle on the log. Clones are the same client; [`Self::node`] makes another client, with faults of its
/// own.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    broker: Arc<Broker>,
    client: Arc<Client>,
}

/// What happened to the log, as its observer gets it.
#[derive(Debug)]
pub enum Observation<'a> {
    /// A record was appended.
    Appended(&'a Record),
    /// A client noted that it consumed everything below `next`.
    OffsetStored {
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: PartitionId,
        /// The offset of the next record.
        next: u64,
    },
}

type Observer = Arc<dyn Fn(&Observation<'_>) + Send + Sync>;

struct Broker {
    topics: Mutex<BTreeMap<String, Vec<Partition>>>,
    /// The largest record batch of topics that have such a limit.
    bytes_max: Mutex<BTreeMap<String, u64>>,
    /// How often each topic was created.
    creations: Mutex<BTreeMap<String, u64>>,
    stored: Mutex<BTreeMap<(String, PartitionId), u64>>,
    observers: Mutex<Vec<Observer>>,
    changes: watch::Sender<()>,
    started: Instant,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("topics", &self.topics).finish_non_exhaustive()
    }
}

/// Offsets may have gaps, as transaction markers and compaction leave them.
#[derive(Clone, Debug, Default)]
struct Partition {
    start: u64,
    end: u64,
    records: BTreeMap<u64, Record>,
}

#[derive(Debug, Default)]
struct Client {
    unavailable: Mutex<bool>,
    /// Open streams, and whether each is stranded.
    open: Mutex<BTreeMap<(String, PartitionId), Arc<AtomicBool>>>,
    /// Streams opened so far.
    opened: AtomicUsize,
    /// How many records panic when they are read: a bug in the adapter.
    read_panics: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryLog {
    /// A log without topics. Record timestamps start at 2026-01-01 and follow tokio's time.
    pub fn new() -> Self {
        let broker = Broker {
            topics: Mutex::default(),
            bytes_max: Mutex::default(),
            creations: Mutex::default(),
            stored: Mutex::default(),
            observers: Mutex::default(),
            changes: watch::Sender::new(()),
            started: Instant::now(),
        };
        Self { broker: Arc::new(broker), client: Arc::default() }
    }

    /// The same log as another node's client sees it.
    #[must_use]
    pub fn node(&self) -> Self {
        Self { broker: Arc::clone(&self.broker), client: Arc::default() }
    }

    /// Creates `topic`, or grows it to `partitions`.
    pub fn create_topic(&self, topic: &str, partitions: u32) {
        let mut topics = lock(&self.broker.topics);
        let list = topics.entry(topic.to_owned()).or_default();
        list.resize(list.len().max(partitions as usize), Partition::default());
        drop(topics);
        self.broker.changes.send_replace(());
    }

    /// Sets the largest record batch that publishers may append to `topic`. What a test appends itself is not
    /// measured: a compressed batch passes.
    pub fn set_bytes_max(&self, topic: &str, bytes: u64) {
        lock(&self.broker.bytes_max).insert(topic.to_owned(), bytes);
    }

    /// What [`Self::set_bytes_max`] set.
    pub(crate) fn takes(&self, topic: &str) -> Option<u64> {
        lock(&self.broker.bytes_max).get(topic).copied()
    }

    /// Appends a record to `partition`, or where murmur2 of the key says; returns where it is.
    pub fn append(
        &self,
        topic: &str,
        partition: Option<PartitionId>,
        key: Option<Bytes>,
        headers: Headers,
        value: Option<Bytes>,
    ) -> Result<(PartitionId, u64), LogError> {
        let record = {
            let mut topics = lock(&self.broker.topics);
            let partitions = topics.get_mut(topic).ok_or_else(|| LogError::NoSuchTopic(topic.to_owned()))?;
            let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
            let partition = partition.unwrap_or_else(|| KeyHash::of(key.as_deref().unwrap_or_default()).home(count));
            let list = partitions
                .get_mut(partition.0 as usize)
                .ok_or_else(|| LogError::Fatal(format!("{topic} has no partition {partition}")))?;
            let elapsed = self.broker.started.elapsed();
            let timestamp = Some(Timestamp::from_unix_ms(1_767_225_600_000).plus(elapsed));
            let offset = list.end;
            let record = Record { topic: topic.into(), partition, offset, timestamp, key, headers, value };
            list.records.insert(offset, record.clone());
            list.end += 1;
            record
        };
        self.observed(&Observation::Appended(&record));
        self.broker.changes.send_replace(());
        Ok((record.partition, record.offset))
    }

    /// Leaves a gap of `n` offsets, as transaction markers do.
    pub fn skip_offsets(&self, topic: &str, partition: PartitionId, n: u64) {
        self.change(topic, partition, |list| list.end += n);
    }

    /// Deletes what is below `before`, as retention does.
    pub fn delete_before(&self, topic: &str, partition: PartitionId, before: u64) {
        self.change(topic, partition, |list| {
            list.start = list.start.max(before.min(list.end));
            list.records = list.records.split_off(&list.start);
        });
    }

    /// Strands this client's open stream of a partition: it delivers nothing any more, as after a lost
    /// wake-up. One that is opened later is sound. Whether there was one.
    pub fn strand(&self, topic: &str, partition: PartitionId) -> bool {
        let stranded = lock(&self.client.open).get(&(topic.to_owned(), partition)).cloned();
        stranded.inspect(|stranded| stranded.store(true, Ordering::SeqCst)).is_some()
    }

    /// How many streams this client has opened so far.
    pub fn opened(&self) -> usize {
        self.client.opened.load(Ordering::SeqCst)
    }

    /// Empties `topic`, as if it had been deleted and created again.
    pub fn recreate_topic(&self, topic: &str) {
        *lock(&self.broker.creations).entry(topic.to_owned()).or_default() += 1;
        if let Some(partitions) = lock(&self.broker.topics).get_mut(topic) {
            partitions.fill(Partition::default());
        }
        self.broker.changes.send_replace(());
    }

    fn change(&self, topic: &str, partition: PartitionId, change: impl FnOnce(&mut Partition)) {
        if let Some(list) =
            lock(&self.broker.topics).get_mut(topic).and_then(|partitions| partitions.get_mut(partition.0 as usize))
        {
            change(list);
        }
        self.broker.changes.send_replace(());
    }

    /// Cuts this client off from the log, or joins it again.
    pub fn set_unavailable(&self, unavailable: bool) {
        *lock(&self.client.unavailable) = unavailable;
        self.broker.changes.send_replace(());
    }

    /// Panics in place of the next `n` records that this client reads: a bug in the adapter.
    pub fn panic_on_reads(&self, n: usize) {
        self.client.read_panics.store(n, Ordering::SeqCst);
    }

    /// Calls `observer` on everything that happens from now on. It must not call back into the log.
    pub fn observe(&self, observer: impl Fn(&Observation<'_>) + Send + Sync + 'static) {
        lock(&self.broker.observers).push(Arc::new(observer));
    }

    fn observed(&self, what: &Observation<'_>) {
        let observers = lock(&self.broker.observers).clone();
        for observer in observers {
            observer(what);
        }
    }

    /// The names of all topics.
    pub fn topics(&self) -> Vec<String> {
        lock(&self.broker.topics).keys().cloned().collect()
    }

    /// The number of partitions of `topic`, 0 if there is none.
    pub fn partitions(&self, topic: &str) -> u32 {
        lock(&self.broker.topics).get(topic).map_or(0, |list| u32::try_from(list.len()).unwrap_or(u32::MAX))
    }

    /// The records of one partition, in order.
    pub fn records(&self, topic: &str, partition: PartitionId) -> Vec<Record> {
        let read = |list: &Partition| list.records.values().cloned().collect();
        self.read(topic, partition, read).unwrap_or_default()
    }

    /// The records of all partitions, one partition after the other.
    pub fn all_records(&self, topic: &str) -> Vec<Record> {
        (0..self.partitions(topic)).flat_map(|partition| self.records(topic, PartitionId(partition))).collect()
    }

    /// The first offset that is still there, and the offset after the last.
    pub fn bounds(&self, topic: &str, partition: PartitionId) -> Option<(u64, u64)> {
        self.read(topic, partition, |list| (list.start, list.end))
    }

    /// What was last stored for lag tools.
    pub fn stored_offset(&self, topic: &str, partition: PartitionId) -> Option<u64> {
        lock(&self.broker.stored).get(&(topic.to_owned(), partition)).copied()
    }

    fn read<T>(&self, topic: &str, partition: PartitionId, read: impl FnOnce(&Partition) -> T) -> Option<T> {
        lock(&self.broker.topics).get(topic)?.get(partition.0 as usize).map(read)
    }

    fn reach(&self) -> Result<(), LogError> {
        if *lock(&self.client.unavailable) {
            return Err(LogError::Unavailable("switched off by the test".into()));
        }
        Ok(())
    }

    /// Waits until this client can reach the log.
    pub(crate) async fn reachable(&self) {
        let mut changes = self.broker.changes.subscribe();
        while self.reach().is_err() {
            // The sender lives in the broker that `self` holds.
            let _ = changes.changed().await;
        }
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn partition_count(&self, topic: &str) -> Result<u32, LogError> {
        self.reach()?;
        match self.partitions(topic) {
            0 => Err(LogError::NoSuchTopic(topic.to_owned())),
            count => Ok(count),
        }
    }

    async fn ends(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<u64>, LogError> {
        self.reach()?;
        let end = |partition: &PartitionId| self.bounds(topic, *partition).map(|(_, end)| end);
        let unknown = || LogError::Unavailable(format!("{topic} has no such partition yet"));
        partitions.iter().map(|partition| end(partition).ok_or_else(unknown)).collect()
    }

    async fn open(
        &self,
        topic: &str,
        partition: PartitionId,
        from: Option<u64>,
    ) -> Result<Box<dyn RecordStream>, LogError> {
        self.reach()?;
        let (start, _) =
            MemoryLog::bounds(self, topic, partition).ok_or_else(|| LogError::NoSuchTopic(topic.to_owned()))?;
        let stranded = match lock(&self.client.open).entry((topic.to_owned(), partition)) {
            Entry::Occupied(_) => return Err(LogError::Fatal(format!("{topic}-{partition} is open already"))),
            Entry::Vacant(free) => Arc::clone(free.insert(Arc::default())),
        };
        self.client.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Stream {
            log: self.clone(),
            topic: topic.to_owned(),
            partition,
            position: from.unwrap_or(start),
            dead: false,
            is_reported: false,
            stranded,
            changes: self.broker.changes.subscribe(),
        }))
    }

    async fn bounds(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64), LogError> {
        self.reach()?;
        MemoryLog::bounds(self, topic, partition).ok_or_else(|| LogError::NoSuchTopic(topic.to_owned()))
    }

    async fn incarnation(&self, topic: &str) -> Result<Option<String>, LogError> {
        self.partition_count(topic).await?;
        Ok(Some(lock(&self.broker.creations).get(topic).copied().unwrap_or_default().to_string()))
    }

    async fn bytes_max(&self, topic: &str) -> Result<Option<u64>, LogError> {
        self.partition_count(topic).await?;
        Ok(lock(&self.broker.bytes_max).get(topic).copied())
    }

    fn store_offset(&self, topic: &str, partition: PartitionId, next: u64) {
        if self.reach().is_ok() {
            lock(&self.broker.stored).insert((topic.to_owned(), partition), next);
            self.observed(&Observation::OffsetStored { topic, partition, next });
        }
    }
}

struct Stream {
    log: MemoryLog,
    topic: String,
    partition: PartitionId,
    position: u64,
    dead: bool,
    /// Whether this outage was reported; one report an outage, so that a caller that asks again at once does
    /// not spin.
    is_reported: bool,
    stranded: Arc<AtomicBool>,
    changes: watch::Receiver<()>,
}

impl Stream {
    fn fetch(&self) -> Result<Option<Record>, LogError> {
        let out_of_range = || LogError::OffsetOutOfRange {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.position,
        };
        let fetched = self.log.read(&self.topic, self.partition, |list| {
            if !(list.start..=list.end).contains(&self.position) {
                return Err(out_of_range());
            }
            Ok(list.records.range(self.position..).next().map(|(_, record)| record.clone()))
        });
        fetched.unwrap_or_else(|| Err(LogError::NoSuchTopic(self.topic.clone())))
    }
}

#[async_trait]
impl RecordStream for Stream {
    async fn next(&mut self) -> Result<Record, LogError> {
        // Always being ready must not starve the other tasks of a single thread.
        tokio::task::consume_budget().await;
        if self.dead {
            return Err(LogError::Fatal(format!("the stream of {}-{} is dead", self.topic, self.partition)));
        }
        loop {
            self.changes.mark_unchanged();
            if self.stranded.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            match self.log.reach() {
                Err(error) if !self.is_reported => {
                    self.is_reported = true;
                    return Err(error);
                }
                Err(_) => {}
                Ok(()) => {
                    self.is_reported = false;
                    match self.fetch() {
                        Ok(Some(record)) => {
                            let fewer = |left: usize| left.checked_sub(1);
                            let panics = &self.log.client.read_panics;
                            let is_over = panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_err();
                            assert!(is_over, "a read panics, as the test asked");
                            self.position = record.offset + 1;
                            return Ok(record);
                        }
                        Ok(None) => {}
                        Err(error) => {
                            self.dead = true;
                            return Err(error);
                        }
                    }
                }
            }
            // The sender lives in the broker that `self.log` holds.
            let _ = self.changes.changed().await;
        }
    }

    fn position(&self) -> Option<u64> {
        if self.dead || self.stranded.load(Ordering::SeqCst) || self.log.reach().is_err() {
            return Some(self.position);
        }
        let passed = |list: &Partition| {
            if list.start > self.position {
                return self.position;
            }
            list.records.range(self.position..).next().map_or(list.end, |(offset, _)| *offset)
        };
        self.log.read(&self.topic, self.partition, passed).map(|passed| passed.max(self.position))
    }

    fn end_offset(&self) -> Option<u64> {
        self.log.reach().ok()?;
        MemoryLog::bounds(&self.log, &self.topic, self.partition).map(|(_, end)| end)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        lock(&self.log.client.open).remove(&(std::mem::take(&mut self.topic), self.partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const K: Option<Bytes> = Some(Bytes::from_static(b"k"));
    const V: Option<Bytes> = Some(Bytes::from_static(b"v"));

    #[tokio::test(start_paused = true)]
    async fn stream_reports_an_outage_once_and_loses_nothing() {
        let log = MemoryLog::new();
        log.create_topic("t", 1);
        let (node, p) = (log.node(), PartitionId(0));
        let mut stream = node.open("t", p, None).await.unwrap();
        node.set_unavailable(true);
        log.append("t", None, K, Headers::default(), V).unwrap();
        assert!(matches!(stream.next().await, Err(LogError::Unavailable(_))));
        assert!(timeout(Duration::from_secs(1), stream.next()).await.is_err(), "waits until it is over");
        assert!(node.partition_count("t").await.is_err() && stream.end_offset().is_none());
        node.set_unavailable(false);
        assert_eq!(stream.next().await.unwrap().value, V);
    }

    #[tokio::test]
    async fn gaps_are_passed_and_a_second_stream_of_one_client_is_refused() {
        let log = MemoryLog::new();
        log.create_topic("t", 3);
        let p = KeyHash::of(b"k").home(3);
        log.append("t", None, K, Headers::default(), V).unwrap();
        log.skip_offsets("t", p, 2);
        assert_eq!(log.append("t", None, K, Headers::default(), V).unwrap(), (p, 3));
        let mut stream = log.open("t", p, Some(1)).await.unwrap();
        assert!(log.open("t", p, None).await.is_err() && log.node().open("t", p, None).await.is_ok());
        assert_eq!(stream.next().await.unwrap().offset, 3);
        drop(stream);
        assert!(log.open("t", p, None).await.is_ok());
    }
}
