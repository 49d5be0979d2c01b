//! A stretch of a partition's log, from one offset to another, read once.
//!
//! Invariant: its end is reached only past everything that lies before it; offsets that hold no records
//! (transaction markers, what aborted transactions wrote) are passed, also at the end. An outage is waited
//! out for as long as [`Stretch`]'s patience. Deliberately absent: any meaning of the records.

use std::{ops::Range, sync::Arc, time::Duration};

use holdfast_core::{
    PartitionId, Record,
    port::log::{Log, LogError, RecordStream},
};
use tokio::time::{Instant, timeout};

/// How often it is looked whether something was passed that is no record.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) struct Stretch {
    topic: Arc<str>,
    partition: PartitionId,
    /// `None` if there is nothing to read.
    stream: Option<Box<dyn RecordStream>>,
    next: u64,
    end: u64,
    patience: Duration,
}

impl Stretch {
    /// Opens it. Reading fails where nothing comes and nothing is passed for `patience`.
    pub async fn open(
        log: &dyn Log,
        topic: &Arc<str>,
        partition: PartitionId,
        offsets: Range<u64>,
        patience: Duration,
    ) -> Result<Self, LogError> {
        let stream =
            if offsets.is_empty() { None } else { Some(log.open(topic, partition, Some(offsets.start)).await?) };
        Ok(Self { topic: topic.clone(), partition, stream, next: offsets.start, end: offsets.end, patience })
    }

    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Record>, LogError> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let (mut since, mut away) = (Instant::now(), String::new());
        while self.next < self.end {
            match timeout(LOOK, stream.next()).await {
                Ok(Ok(record)) => {
                    self.next = record.offset + 1;
                    if record.offset < self.end {
                        return Ok(Some(record));
                    }
                }
                Ok(Err(LogError::Unavailable(error))) => away = format!("; {error}"),
                // Nothing of ours: what a relay sends can be read.
                Ok(Err(error @ LogError::Unreadable { offset, .. })) => {
                    tracing::warn!(%error, "a record was passed over");
                    (self.next, since) = (offset + 1, Instant::now());
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    if let Some(passed) = stream.position().filter(|position| *position > self.next) {
                        (self.next, since) = (passed, Instant::now());
                    }
                }
            }
            if self.next < self.end && since.elapsed() >= self.patience {
                let (topic, partition) = (&self.topic, self.partition);
                return Err(LogError::Unavailable(format!(
                    "{topic}-{partition}: nothing came between offset {} and {}{away}",
                    self.next, self.end
                )));
            }
        }
        Ok(None)
    }
}
