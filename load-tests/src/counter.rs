//! Counts the events that all contenders publish, in the same way for each: by Kafka's own client, in a
//! process of its own (`java/EventCounter.java`), which reads every event as soon as it is readable to those
//! who read committed ones only.
//!
//! Invariant: an event counts once it was read, at that time, and by the command that caused it. Deliberately
//! absent: judging what is in an event.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, BufReader},
    process::ChildStdout,
    task::JoinHandle,
};
use uuid::Uuid;

use crate::{
    java::Program,
    scenarios::{Error, PATIENCE, failed},
};

const PROGRAM: (&str, &str) = ("EventCounter", include_str!("../java/EventCounter.java"));
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of what the program writes for one event.
const WRITTEN: usize = 1 + 16 + 8;

/// An event that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The id of the command that caused it; zeros if it names none.
    pub cause: Uuid,
    /// When, µs since 1970.
    pub at_us: u64,
}

/// The events of one topic, in the order in which they were read.
#[derive(Debug, Default)]
struct Topic {
    /// The number of `events`, which is looked at often.
    count: AtomicU64,
    events: Mutex<Vec<Counted>>,
}

/// A counter that runs. Dropping it ends it.
pub struct Counter {
    program: Program,
    topics: Arc<Vec<Topic>>,
    reading: JoinHandle<()>,
}

impl Counter {
    /// Starts to read `topics` from their starts; they must exist.
    pub fn start(mut java: Command, dir: &Path, brokers: &str, topics: &[&str]) -> Result<Self, Error> {
        // It runs beside what is measured, and not for long.
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        let arguments: Vec<&str> = [brokers].into_iter().chain(topics.iter().copied()).collect();
        let (program, output) = Program::start(java, dir, PROGRAM, &arguments).map_err(failed("the counter"))?;
        let topics: Arc<Vec<Topic>> = Arc::new(topics.iter().map(|_| Topic::default()).collect());
        let reading = tokio::spawn(read(BufReader::with_capacity(1 << 16, output), Arc::clone(&topics)));
        Ok(Self { program, topics, reading })
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.program.pid()
    }

    /// How many events of the topic of that number were read.
    pub fn count(&self, topic: usize) -> u64 {
        self.topics[topic].count.load(Ordering::Acquire)
    }

    /// Those from `from` on.
    pub fn since(&self, topic: usize, from: u64) -> Vec<Counted> {
        let events = self.topics[topic].events.lock().unwrap_or_else(PoisonError::into_inner);
        events.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default().to_vec()
    }

    /// Waits until `until` events of the topic of that number were read, and returns how many were. `look`
    /// gets their number each time; the wait fails with it, or if none comes any more. `what` is waited for.
    pub async fn reached(
        &self,
        topic: usize,
        until: u64,
        what: &str,
        mut look: impl FnMut(u64) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let mut moved = (Instant::now(), self.count(topic));
        loop {
            let total = self.count(topic);
            look(total)?;
            if total >= until {
                return Ok(total);
            }
            if total > moved.1 {
                moved = (Instant::now(), total);
            }
            if moved.0.elapsed() > PATIENCE {
                self.check()?;
                let what = format!("{what}, which stands still at {total} of {until} events");
                return Err(Error::Timeout(PATIENCE, what));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Fails if it has ended by itself.
    pub fn check(&self) -> Result<(), Error> {
        if self.reading.is_finished() {
            return Err(Error::Wrong(format!("the counter has ended: {}", self.program.said())));
        }
        Ok(())
    }

    /// Ends it.
    pub async fn stop(self) -> Result<(), Error> {
        self.program.stop().await.map_err(failed("the counter"))?;
        self.reading.await.map_err(failed("reading the counter"))
    }
}

async fn read(mut from: BufReader<ChildStdout>, topics: Arc<Vec<Topic>>) {
    let mut written = [0; WRITTEN];
    while from.read_exact(&mut written).await.is_ok() {
        let (number, event) = counted(&written);
        if let Some(topic) = topics.get(number) {
            topic.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            topic.count.fetch_add(1, Ordering::Release);
        }
    }
}

fn counted(written: &[u8; WRITTEN]) -> (usize, Counted) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let cause = Uuid::from_u64_pair(number(&written[1..9]), number(&written[9..17]));
    (usize::from(written[0]), Counted { cause, at_us: number(&written[17..]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_read_as_the_program_writes_it() {
        let id = Uuid::now_v7();
        let mut written = [0; WRITTEN];
        written[0] = 3;
        written[1..17].copy_from_slice(id.as_bytes());
        written[17..].copy_from_slice(&1_795_000_000_000_123_u64.to_be_bytes());
        assert_eq!(counted(&written), (3, Counted { cause: id, at_us: 1_795_000_000_000_123 }));
    }
}
