//! Reads one partition of one input topic into its lane, under the byte budget.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use holdfast_core::{
    PartitionId, Record,
    port::{
        clock::Clock,
        log::{Log, LogError},
        store::Store,
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Budget,
    backoff::Backoff,
    context::BoundedContext,
    gate::Gate,
    growth::{self, Homes},
    lane::size,
    mutant::Mutant,
    spans,
    telemetry::{self, Trace},
    work::Input,
};

/// What all fetch tasks of a node share.
#[derive(Clone)]
pub(crate) struct Fetcher {
    pub context: Arc<BoundedContext>,
    pub log: Arc<dyn Log>,
    pub clock: Arc<dyn Clock>,
    pub budget: Budget,
    pub trace: Trace,
    pub store: Arc<dyn Store>,
    pub homes: Homes,
    pub mutant: Option<Mutant>,
}

/// How often a topic that has no such partition, or a halted one, is looked at again.
const RETRY_EVERY: Duration = Duration::from_secs(10);

impl Fetcher {
    /// Reads from `from` on until told to stop. An offset that is not in the log halts this input with an error, and skips nothing.
    pub async fn run(
        self,
        topic: Arc<str>,
        partition: PartitionId,
        term: u64,
        from: Option<u64>,
        lane: mpsc::Sender<Input>,
        serving: Arc<AtomicBool>,
        stop: CancellationToken,
    ) {
        let gate = Gate::new(topic.clone(), partition, self.log.clone(), self.homes.clone(), serving, self.mutant);
        let reading = self.read(topic, partition, term, from, lane, gate);
        tokio::select! {
            () = stop.cancelled() => {}
            () = reading => {}
        }
    }

    async fn read(
        self,
        topic: Arc<str>,
        partition: PartitionId,
        term: u64,
        mut from: Option<u64>,
        lane: mpsc::Sender<Input>,
        mut gate: Gate,
    ) {
        let mut backoff = Backoff::infrastructure();
        loop {
            if !self.has_partition(&topic, partition).await {
                tokio::time::sleep(RETRY_EVERY).await;
                continue;
            }
            match self.stream(&topic, partition, term, &mut from, &lane, &mut gate, &mut backoff).await {
                None => return,
                Some(error @ LogError::OffsetOutOfRange { .. }) => {
                    tracing::error!(context = self.context.name(), %topic, partition = partition.0, %error,
                        "input halted: records may be lost; restore the topic or see the runbook for recovery");
                    tokio::time::sleep(RETRY_EVERY).await;
                }
                Some(error) => {
                    tracing::warn!(context = self.context.name(), %topic, partition = partition.0, %error, "reading failed; opening again");
                    backoff.wait().await;
                }
            }
        }
    }

    async fn has_partition(&self, topic: &str, partition: PartitionId) -> bool {
        match self.log.partition_count(topic).await {
            Ok(count) => partition.0 < count,
            Err(error) => {
                tracing::warn!(context = self.context.name(), topic, %error, "partition count unknown");
                false
            }
        }
    }

    /// Reads until an error (returned) or until the lane is gone (`None`).
    async fn stream(
        &self,
        topic: &Arc<str>,
        partition: PartitionId,
        term: u64,
        from: &mut Option<u64>,
        lane: &mpsc::Sender<Input>,
        gate: &mut Gate,
        backoff: &mut Backoff,
    ) -> Option<LogError> {
        let mut stream = match self.log.open(topic, partition, *from).await {
            Ok(stream) => stream,
            Err(error) => return Some(error),
        };
        let mut since_report = 0_u32;
        let mut end = None;
        loop {
            let record = match stream.next().await {
                Ok(record) => record,
                Err(error) => return Some(error),
            };
            backoff.reset();
            gate.pass(record.offset).await;
            self.note_mark(&record).await;
            *from = Some(record.offset + 1);
            since_report += 1;
            // Asked again only where the answer can matter: it is not free.
            if since_report >= 256 || end.is_none_or(|end| end <= record.offset + 1) {
                end = stream.end_offset();
            }
            let lag = end.map(|end| end.saturating_sub(record.offset + 1));
            if since_report >= 256 || lag == Some(0) {
                since_report = 0;
                self.report_lag(topic, partition, lag, record.timestamp);
            }
            let credit = self.budget.take(record.size_bytes()).await;
            let now = self.clock.now();
            let work = self.context.admit(record, now, &self.trace, Some(credit));
            // It ends with this turn, once the lane has room for the work.
            let _receive = spans::receive(self.context.name(), &work);
            if lane.send(Input { partition, term, work }).await.is_err() {
                return None;
            }
        }
    }

    /// Another context's relay has said that it is done with an older count. Noted before the record is consumed; again if it is read again.
    async fn note_mark(&self, record: &Record) {
        let Some(count) = growth::marked(record).filter(|_| record.topic != *self.context.commands_topic()) else {
            return;
        };
        let mut backoff = Backoff::infrastructure();
        while let Err(error) = self.store.note_mark(&record.topic, record.partition, count).await {
            tracing::warn!(context = self.context.name(), %error, "a mark of growth could not be noted; holding");
            backoff.wait().await;
        }
    }

    fn report_lag(
        &self,
        topic: &Arc<str>,
        partition: PartitionId,
        lag: Option<u64>,
        timestamp: Option<holdfast_core::Timestamp>,
    ) {
        let Some(lag) = lag else { return };
        let labels = [
            ("context", self.context.name().to_owned()),
            ("topic", topic.to_string()),
            ("partition", partition.to_string()),
        ];
        metrics::gauge!(telemetry::LAG_RECORDS, &labels).set(size(usize::try_from(lag).unwrap_or(usize::MAX)));
        let age_ms = match timestamp {
            Some(timestamp) if lag > 0 => (self.clock.now().unix_ms() - timestamp.unix_ms()).max(0),
            _ => 0,
        };
        metrics::gauge!(telemetry::LAG_SECONDS, &labels).set(size(usize::try_from(age_ms).unwrap_or(0)) / 1000.0);
        metrics::gauge!(telemetry::MEMORY_BYTES, "context" => self.context.name()).set(size(self.budget.used_bytes()));
    }
}
