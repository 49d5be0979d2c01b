//! A reader of topics that stays at their ends, so that waiting for a record costs no new connection.
//!
//! Invariant: the records of a partition are kept in order, from its start. Deliberately absent: a bound; a
//! tail lives as long as one test.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    by_hand::{Place, Raw},
    kafka::{self, Error},
};

/// A record and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lying {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition and offset.
    pub place: Place,
    /// Its bytes.
    pub raw: Raw,
}

/// The records read so far, shared with the reading thread.
struct Shared {
    seen: Mutex<Vec<Lying>>,
    failed: Mutex<Option<String>>,
    stop: AtomicBool,
}

/// The reader.
pub struct Tail {
    shared: Arc<Shared>,
    count: watch::Receiver<usize>,
    reading: Option<JoinHandle<()>>,
}

impl Tail {
    /// Begins at the start of each of `topics`, whose partitions are those of now.
    pub async fn open(brokers: &str, topics: &[&str]) -> Result<Self, Error> {
        let (brokers, topics) = (brokers.to_owned(), topics.iter().map(|topic| Arc::from(*topic)).collect::<Vec<_>>());
        let assigned = tokio::task::spawn_blocking(move || assigned(&brokers, &topics).map(|it| (it, topics)));
        let (consumer, topics) = assigned.await??;
        let shared =
            Arc::new(Shared { seen: Mutex::default(), failed: Mutex::default(), stop: AtomicBool::new(false) });
        let (counted, count) = watch::channel(0);
        let reading = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || read(&consumer, &topics, &shared, &counted)
        });
        Ok(Self { shared, count, reading: Some(reading) })
    }

    /// Records read so far.
    pub fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// Whether nothing was read so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The result of `look` on the records from number `from` on.
    pub fn look<T>(&self, from: usize, look: impl FnOnce(&[Lying]) -> T) -> T {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        look(seen.get(from..).unwrap_or_default())
    }

    /// Waits until `find` finds something among the records from number `from` on.
    pub async fn until<T>(
        &self,
        from: usize,
        patience: Duration,
        mut find: impl FnMut(&[Lying]) -> Option<T>,
    ) -> Result<T, Error> {
        let give_up = Instant::now() + patience;
        let mut count = self.count.clone();
        loop {
            count.mark_unchanged();
            if let Some(found) = self.look(from, &mut find) {
                return Ok(found);
            }
            if !matches!(timeout_at(give_up, count.changed()).await, Ok(Ok(()))) {
                let failed = self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let why = failed.map(|failed| format!(" (last error: {failed})")).unwrap_or_default();
                return Err(Error::Timeout(patience, format!("waiting for a record{why}")));
            }
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(reading) = self.reading.take() {
            // It looks at the flag ten times a second. Its panic was seen as the end of its channel.
            let _ = reading.join();
        }
    }
}

fn assigned(brokers: &str, topics: &[Arc<str>]) -> Result<BaseConsumer, Error> {
    let consumer = kafka::reader(brokers)?;
    let mut assignment = TopicPartitionList::new();
    for topic in topics {
        for partition in kafka::partitions(&consumer, topic)? {
            let added = assignment.add_partition_offset(topic, partition, Offset::Offset(0));
            added.map_err(kafka::failed("assignment"))?;
        }
    }
    consumer.assign(&assignment).map_err(kafka::failed("assignment"))?;
    Ok(consumer)
}

fn read(consumer: &BaseConsumer, topics: &[Arc<str>], shared: &Shared, counted: &watch::Sender<usize>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let lying = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Ok(message)) => topics.iter().find(|topic| &***topic == message.topic()).map(|topic| Lying {
                topic: Arc::clone(topic),
                place: Place { partition: message.partition(), offset: message.offset() },
                raw: Raw::of(&message),
            }),
            // The client recovers; if it does not, a wait that fails names this error.
            Some(Err(error)) => {
                *shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                continue;
            }
        };
        let Some(lying) = lying else { continue };
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(lying);
        let count = seen.len();
        drop(seen);
        counted.send_replace(count);
    }
}
