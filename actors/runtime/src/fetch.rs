//! Reads one partition of one input topic into its lane, under the byte budget.
//!
//! Upholds I7 at the input: an offset that the log no longer has, or a topic that was deleted and made again,
//! halts the input with an error that names it, and skips nothing. An input that falls silent though its log
//! goes on (lost wake-ups were seen) is opened again.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use holdfast_core::{
    Headers, PartitionId, Record,
    disposition::{DeadLetterReason, Refused},
    port::{
        clock::Clock,
        log::{Log, LogError},
        store::Store,
    },
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use holdfast_machine::Rules;

use crate::{
    admission::Budget,
    backoff::Backoff,
    context::BoundedContext,
    dead_letter,
    gate::Gate,
    gauges::Gauges,
    growth::{self, Homes},
    history::{History, MARKS_BELIEVED, OFFSETS_RUNBOOK},
    progress::{Board, Doing, Pulse},
    spans,
    telemetry::{self, Trace},
    work::{Input, RefusedRecord, Work},
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
    pub rules: Rules,
    pub history: Arc<History>,
    pub stall_after: Duration,
    pub board: Board,
    pub gauges: Arc<Gauges>,
}

/// What a reader waits for, as [`crate::progress`] shows it.
const BROKER: &str = "the broker";
const LANE: &str = "its lane";
const DATABASE: &str = "the database";
const OLDER: &str = "partitions with older records";
const OPERATOR: &str = "an operator: the input is halted";

/// How often a topic that has no such partition, or a halted one, is looked at again, if nothing is heard of
/// it meanwhile.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// A silent input is asked this often whether it has passed something that is no record.
const LOOK_FOR_GAPS: Duration = Duration::from_secs(1);
/// A silent input is opened again at most this seldom, if that never helps: its last offsets may hold no
/// records.
const STALL_MAX: Duration = Duration::from_mins(1);

/// Why a stream ended.
enum Ended {
    /// The log said so.
    Failed(LogError),
    /// It delivered nothing though there is something.
    Stalled,
    /// The topic is another one.
    Recreated,
    /// The lane is gone.
    Closed,
}

impl Fetcher {
    /// The reader goes on from `from` until `stop` is cancelled or the lane is gone. An offset that is not in
    /// the log halts this input with an error, and skips nothing.
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
        let gate = Gate::new(topic.clone(), partition, self.log.clone(), self.homes.clone(), serving, self.rules);
        let pulse = self.board.add("reader", format!("{topic}-{partition}"));
        let reading = self.read(topic, partition, term, from, lane, gate, pulse);
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
        pulse: Pulse,
    ) {
        let mut backoff = Backoff::infrastructure();
        let mut stall_after = self.stall_after;
        loop {
            pulse.waits(BROKER);
            if !self.has_partition(&topic, partition).await {
                pulse.idle(); // a partition that is not there has no records
                self.until_grown(&topic, partition, &mut backoff).await;
                continue;
            }
            // Offsets say nothing of a topic that is not the one they were taken from.
            if let Err(error) = self.history.compare_marks(MARKS_BELIEVED).await {
                tracing::warn!(context = self.context.name(), %topic, partition = partition.0, %error, "reading waits");
                backoff.wait().await;
                continue;
            }
            if let Some(detail) = self.history.recreated(&topic) {
                pulse.waits(OPERATOR);
                self.halted(&topic, partition, from, &detail).await;
                continue;
            }
            let before = from;
            let streaming =
                self.stream(&topic, partition, term, &mut from, &lane, &mut gate, &mut backoff, stall_after, &pulse);
            match streaming.await {
                Ended::Closed => return,
                Ended::Failed(error @ LogError::OffsetOutOfRange { .. }) => {
                    pulse.waits(OPERATOR);
                    self.halted(&topic, partition, from, &error.to_string()).await;
                }
                Ended::Failed(error) => {
                    tracing::warn!(context = self.context.name(), %topic, partition = partition.0, %error, "reading failed; opening again");
                    pulse.waits(BROKER);
                    backoff.wait().await;
                }
                Ended::Recreated => {}
                Ended::Stalled => {
                    pulse.waits(BROKER);
                    let labels = [("context", self.context.name().to_owned()), ("topic", topic.to_string())];
                    metrics::counter!(telemetry::INPUT_REOPENED_TOTAL, &labels).increment(1);
                    tracing::warn!(context = self.context.name(), %topic, partition = partition.0, offset = from,
                        "nothing came for a while though the log goes on; opening again");
                    stall_after = if from == before { (stall_after * 2).min(STALL_MAX) } else { self.stall_after };
                }
            }
        }
    }

    /// A dead letter without key, headers and body: they stay where they are, for as long as the topic keeps
    /// them (I7).
    fn unreadable(&self, topic: &Arc<str>, partition: PartitionId, offset: u64, error: &LogError) -> Work {
        let mut headers = Headers::default();
        headers.push(dead_letter::CUT, "all of it: it can't be read");
        let topic = topic.clone();
        let record = Record { topic, partition, offset, timestamp: None, key: None, headers, value: None };
        let refused = Refused { reason: DeadLetterReason::TooLarge, error: error.to_string(), field: None };
        let now = self.clock.now();
        Work::Refused(Box::new(RefusedRecord { record, refused, now, mail: None, credit: None }))
    }

    /// Logs what is wrong with an input, and waits. The end of a halt is not awaited here: `holdfast recover`
    /// takes the partitions, and the owner that takes them back starts new readers.
    async fn halted(&self, topic: &Arc<str>, partition: PartitionId, from: Option<u64>, detail: &str) {
        tracing::error!(context = self.context.name(), %topic, partition = partition.0, offset = from, detail, runbook = OFFSETS_RUNBOOK,
            "input halted: records are lost; nothing is skipped, and nothing of this input goes on until an operator has spoken");
        let _gauge = HaltGauge::begin(self.context.name(), topic, partition);
        tokio::time::sleep(RETRY_EVERY).await;
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

    /// Waits until the topic may have the partition: a home has more of them than some of its inputs while
    /// these grow one after the other.
    async fn until_grown(&self, topic: &str, partition: PartitionId, backoff: &mut Backoff) {
        let mut homes = self.homes.clone();
        let is_noticed = |homes: &Homes| homes.now().topic_count(topic) > partition.0;
        if is_noticed(&homes) {
            return backoff.wait().await; // the broker that was asked has not heard of it yet
        }
        let noticed = async {
            while !is_noticed(&homes) {
                homes.changed().await;
            }
        };
        let _ = tokio::time::timeout(RETRY_EVERY, noticed).await;
    }

    /// Reads until it ends.
    #[expect(clippy::too_many_arguments, reason = "what the loop around it keeps from stream to stream")]
    async fn stream(
        &self,
        topic: &Arc<str>,
        partition: PartitionId,
        term: u64,
        from: &mut Option<u64>,
        lane: &mpsc::Sender<Input>,
        gate: &mut Gate,
        backoff: &mut Backoff,
        stall_after: Duration,
        pulse: &Pulse,
    ) -> Ended {
        let mut stream = match self.log.open(topic, partition, *from).await {
            Ok(stream) => stream,
            Err(error) => return Ended::Failed(error),
        };
        let recreated = self.history.until_recreated(topic);
        tokio::pin!(recreated);
        pulse.idle();
        let arrival = metrics::histogram!(telemetry::ARRIVAL_SECONDS, "context" => self.context.name());
        let mut since_end = 0_u32;
        let (mut end, mut silent) = (None, Duration::ZERO);
        let look_after = LOOK_FOR_GAPS.min(stall_after);
        // One timer for all records, since setting one for each is not free.
        let (look, mut has_delivered) = (tokio::time::sleep(look_after), false);
        tokio::pin!(look);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut recreated => return Ended::Recreated,
                next = stream.next() => Some(next),
                () = &mut look => None,
            };
            has_delivered |= next.is_some();
            let record = match next {
                Some(Ok(record)) => record,
                // The same stream goes on: it knows the batch, and asks for it once more at most for each of
                // its offsets.
                Some(Err(error @ LogError::Unreadable { offset, .. })) => {
                    if !gate.is_open(offset) {
                        pulse.waits(OLDER);
                    }
                    gate.pass(offset).await;
                    let work = self.unreadable(topic, partition, offset, &error);
                    pulse.waits(LANE);
                    if lane.send(Input { partition, term, work }).await.is_err() {
                        return Ended::Closed;
                    }
                    *from = Some(offset + 1);
                    silent = Duration::ZERO;
                    pulse.moved_on_to(doing_after(offset, end));
                    continue;
                }
                Some(Err(error)) => return Ended::Failed(error),
                None => {
                    look.as_mut().reset(Instant::now() + look_after);
                    if std::mem::take(&mut has_delivered) {
                        continue;
                    }
                    silent += look_after;
                    let mut passed = stream.position();
                    if silent >= stall_after {
                        silent = Duration::ZERO;
                        match self.log.bounds(topic, partition).await {
                            // The brokers were asked, since a stream that fell silent knows no better.
                            Ok((start, end)) if passed.or(*from).unwrap_or(start) < end => return Ended::Stalled,
                            Ok((_, end)) => passed = passed.or(Some(end)),
                            Err(_) => {}
                        }
                    }
                    if let Some(position) = passed.filter(|position| *position > from.unwrap_or(0)) {
                        tracing::info!(context = self.context.name(), %topic, partition = partition.0, from = from.unwrap_or(0), to = position,
                            "offsets that hold no records are passed");
                        let work = Work::Ignored { topic: topic.clone(), offset: position - 1 };
                        pulse.waits(LANE);
                        if lane.send(Input { partition, term, work }).await.is_err() {
                            return Ended::Closed;
                        }
                        *from = Some(position);
                        pulse.moved_on_to(Doing::Idle);
                    }
                    continue;
                }
            };
            silent = Duration::ZERO;
            backoff.reset();
            let offset = record.offset;
            if !gate.is_open(offset) {
                pulse.waits(OLDER);
            }
            gate.pass(offset).await;
            self.note_mark(&record, pulse).await;
            since_end += 1;
            // Asked again only where the answer can matter: it is not free.
            if since_end >= 256 || end.is_none_or(|end| end <= offset + 1) {
                end = stream.end_offset();
                since_end = 0;
                self.gauges.read(topic, partition, record.timestamp);
            }
            let credit = if let Some(credit) = self.budget.try_take(record.size_bytes()) {
                credit
            } else {
                pulse.waits(LANE);
                self.budget.take(record.size_bytes()).await
            };
            tokio::task::coop::consume_budget().await; // nothing else here need wait
            let now = self.clock.now();
            if let Some(appended) = record.timestamp {
                arrival.record(Duration::from_millis(now.ms_since(appended)));
            }
            pulse.step("decoding");
            let work = self.context.admit(record, now, &self.trace, Some(credit));
            // It ends with this turn, once the lane has room for the work.
            let _receive = spans::receive(self.context.name(), &work);
            match lane.try_send(Input { partition, term, work }) {
                Ok(()) => {}
                Err(TrySendError::Full(input)) => {
                    pulse.waits(LANE);
                    if lane.send(input).await.is_err() {
                        return Ended::Closed;
                    }
                }
                Err(TrySendError::Closed(_)) => return Ended::Closed,
            }
            *from = Some(offset + 1);
            pulse.moved_on_to(doing_after(offset, end));
        }
    }

    /// Another context's relay has said that it is done with an older count. Noted before the record is
    /// consumed; again if it is read again.
    async fn note_mark(&self, record: &Record, pulse: &Pulse) {
        let Some(count) = growth::marked(record).filter(|_| record.topic != *self.context.commands_topic()) else {
            return;
        };
        let mut backoff = Backoff::infrastructure();
        while let Err(error) = self.store.note_mark(&record.topic, record.partition, count).await {
            tracing::warn!(context = self.context.name(), %error, "a mark of growth could not be noted; holding");
            pulse.waits(DATABASE);
            backoff.wait().await;
        }
    }
}

/// What a reader does once it has handed on `offset` of an input that ends at `end`, as far as is known.
fn doing_after(offset: u64, end: Option<u64>) -> Doing {
    if end.is_some_and(|end| end > offset + 1) { Doing::Waits(BROKER) } else { Doing::Idle }
}

/// Shows an input as halted for as long as it lives.
struct HaltGauge(metrics::Gauge);

impl HaltGauge {
    fn begin(context: &'static str, topic: &Arc<str>, partition: PartitionId) -> Self {
        let labels =
            [("context", context.to_owned()), ("topic", topic.to_string()), ("partition", partition.to_string())];
        let gauge = metrics::gauge!(telemetry::INPUT_HALTED, &labels);
        gauge.set(1.0);
        Self(gauge)
    }
}

impl Drop for HaltGauge {
    fn drop(&mut self) {
        self.0.set(0.0);
    }
}
