//! Publishes outbox rows, partition by partition in sequence, and keeps the cursor.
//!
//! Upholds I3: a row goes out only after all rows before it in its partition have gone out. In normal running rows come straight from the
//! commit that wrote them; after a take-over, an error or a flood they are read from the store, from the cursor on. The cursor only
//! passes what the broker has acknowledged, so a crash repeats rows and never skips one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use holdfast_core::{
    PartitionId,
    batch::OutboxRow,
    epoch::Token,
    invariant::Invariant,
    port::{
        log::{Landed, PublishError, Publisher},
        store::{Cursor, Store},
    },
};
use tokio::sync::{mpsc, oneshot};

use crate::{backoff::Backoff, progress::Pulse, spans, telemetry::Trace};

pub(crate) enum RelayMessage {
    /// Rows of a commit, in order, and whether any message of it is traced.
    Rows { rows: Arc<[OutboxRow]>, traced: bool },
    /// A partition is owned: rows after `cursor` up to `head` are in the store.
    /// `known` is the end of what is known of the partition of the events topic.
    Own { partition: PartitionId, token: Token, cursor: u64, head: u64, published: Arc<AtomicU64>, known: Option<u64> },
    /// Rows up to `head` may be in the store without having come here; the token may be new.
    Reload { partition: PartitionId, token: Token, head: u64 },
    /// The partition is lost.
    Drop { partition: PartitionId },
    /// Answers once everything of the partition up to `head` is acknowledged and the cursor stored; then forgets it.
    Finish { partition: PartitionId, token: Token, head: u64, done: oneshot::Sender<()> },
}

struct Line {
    token: Token,
    /// Rows up to here were handed to the publisher.
    sent: u64,
    /// Rows up to here are in the store.
    head: u64,
    /// Rows up to here are acknowledged.
    published: Arc<AtomicU64>,
    /// The cursor as last stored here.
    stored: u64,
    /// Up to this offset everything of ours in this partition of the events topic is of rows that were committed.
    known: Option<u64>,
    /// The same as last stored here.
    known_stored: Option<u64>,
    finish: Option<oneshot::Sender<()>>,
}

impl Line {
    /// How far it is, if that is further than what is stored.
    fn moved(&self, partition: PartitionId) -> Option<Cursor> {
        let cursor = self.published.load(Ordering::Acquire);
        let has_moved = cursor > self.stored || self.known > self.known_stored;
        has_moved.then_some(Cursor { partition, token: self.token, cursor, published: self.known })
    }
}

/// The rows of one call, and how it ended.
type Published = (Arc<[OutboxRow]>, Result<Landed, PublishError>);

pub(crate) struct Relay {
    pub context: &'static str,
    pub store: Arc<dyn Store>,
    pub publisher: Arc<dyn Publisher>,
    pub trace: Trace,
    pub rows_max: usize,
    events_topic: Arc<str>,
    lines: BTreeMap<PartitionId, Line>,
    in_flight: FuturesOrdered<BoxFuture<'static, Published>>,
    rows_in_flight: usize,
    backoff: Backoff,
    pulse: Pulse,
}

const FLUSH_EVERY: Duration = Duration::from_millis(250);

impl Relay {
    pub fn new(
        context: &'static str,
        store: Arc<dyn Store>,
        publisher: Arc<dyn Publisher>,
        trace: Trace,
        rows_max: usize,
        pulse: Pulse,
    ) -> Self {
        Self {
            pulse,
            context,
            store,
            publisher,
            trace,
            rows_max,
            events_topic: format!("{context}.events").into(),
            lines: BTreeMap::new(),
            in_flight: FuturesOrdered::new(),
            rows_in_flight: 0,
            backoff: Backoff::infrastructure(),
        }
    }

    pub async fn run(mut self, mut messages: mpsc::UnboundedReceiver<RelayMessage>) {
        let mut tick = tokio::time::interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_behind = |line: &Line| line.published.load(Ordering::Acquire) < line.head;
            if self.lines.values().any(is_behind) {
                self.pulse.waits("the broker")
            } else {
                self.pulse.idle()
            }
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                Some((rows, result)) = self.in_flight.next(), if !self.in_flight.is_empty() => self.acknowledged(&rows, result).await,
                _ = tick.tick() => self.store_cursors().await,
            }
            self.catch_up().await;
        }
    }

    fn take(&mut self, message: RelayMessage) {
        match message {
            RelayMessage::Rows { rows, traced } => self.rows(rows, traced),
            RelayMessage::Own { partition, token, cursor, head, published, known } => {
                published.store(cursor, Ordering::Release);
                let (stored, known_stored) = (cursor, None);
                let line = Line { token, sent: cursor, head, published, stored, known, known_stored, finish: None };
                self.lines.insert(partition, line);
            }
            RelayMessage::Reload { partition, token, head } => {
                if let Some(line) = self.lines.get_mut(&partition) {
                    (line.token, line.head) = (token, line.head.max(head));
                }
            }
            RelayMessage::Drop { partition } => {
                self.lines.remove(&partition);
            }
            RelayMessage::Finish { partition, token, head, done } => match self.lines.get_mut(&partition) {
                Some(line) => {
                    (line.token, line.head) = (token, line.head.max(head));
                    line.finish = Some(done);
                }
                None => drop(done),
            },
        }
    }

    /// Sends the rows of a commit on, unless their partition is behind: then they are read from the store when their turn comes.
    fn rows(&mut self, rows: Arc<[OutboxRow]>, traced: bool) {
        let is_free = self.rows_in_flight < self.rows_max;
        let mut all_in_turn = is_free;
        let mut turn: BTreeMap<PartitionId, u64> = BTreeMap::new();
        for row in rows.iter() {
            let Some(line) = self.lines.get_mut(&row.partition) else {
                all_in_turn = false;
                continue;
            };
            line.head = line.head.max(row.sequence);
            let sent = turn.entry(row.partition).or_insert(line.sent);
            all_in_turn &= row.sequence == *sent + 1;
            *sent = row.sequence;
        }
        if all_in_turn {
            self.send(rows, traced);
        } else if is_free {
            let in_turn: Vec<OutboxRow> = {
                let mut sent: BTreeMap<PartitionId, u64> =
                    self.lines.iter().map(|(id, line)| (*id, line.sent)).collect();
                let is_next = |row: &&OutboxRow| {
                    sent.get_mut(&row.partition).is_some_and(|sent| {
                        let is_next = row.sequence == *sent + 1;
                        *sent += u64::from(is_next);
                        is_next
                    })
                };
                rows.iter().filter(is_next).cloned().collect()
            };
            self.send(in_turn.into(), traced);
        }
    }

    fn send(&mut self, rows: Arc<[OutboxRow]>, traced: bool) {
        if rows.is_empty() {
            return;
        }
        for row in rows.iter() {
            if let Some(line) = self.lines.get_mut(&row.partition) {
                Invariant::Order.check(row.sequence == line.sent + 1, || {
                    format!("{}: row {} after {}", row.partition, row.sequence, line.sent)
                });
                line.sent = row.sequence;
            }
        }
        self.rows_in_flight += rows.len();
        let publisher = self.publisher.clone();
        let spans = if traced { spans::publish(self.context, &rows, &self.trace) } else { Vec::new() };
        // Polled once at least before any later one, so that rows are handed over in this order.
        self.in_flight.push_back(Box::pin(async move {
            let result = publisher.publish(rows.clone()).await;
            drop(spans);
            (rows, result)
        }));
    }

    async fn acknowledged(&mut self, rows: &Arc<[OutboxRow]>, result: Result<Landed, PublishError>) {
        self.rows_in_flight -= rows.len();
        match result {
            Ok(landed) => {
                self.backoff.reset();
                self.pulse.moved();
                // A home's events go to the partition of its own number, after all that it wrote before. Their end is noted with the rows' cursor,
                // and stored with it: below it lie only events of rows that were committed.
                for landing in landed.0.iter().filter(|landing| landing.topic == self.events_topic) {
                    if let Some(line) = self.lines.get_mut(&landing.partition) {
                        line.known = line.known.max(Some(landing.offset + 1));
                    }
                }
                for row in rows.iter() {
                    if let Some(line) = self.lines.get(&row.partition) {
                        line.published.fetch_max(row.sequence, Ordering::AcqRel);
                    }
                }
                self.finish().await;
            }
            Err(error) => {
                tracing::warn!(context = self.context, %error, "publishing failed; starting again at the first unacknowledged row");
                // Nothing sent after the failed rows may count: everything in flight is abandoned, and read again from the store.
                self.in_flight = FuturesOrdered::new();
                self.rows_in_flight = 0;
                self.publisher.reset().await;
                for line in self.lines.values_mut() {
                    line.sent = line.published.load(Ordering::Acquire);
                }
                self.backoff.wait().await;
            }
        }
    }

    /// Reads rows that did not come in turn.
    async fn catch_up(&mut self) {
        let behind: Vec<(PartitionId, u64)> =
            self.lines.iter().filter(|(_, line)| line.sent < line.head).map(|(id, line)| (*id, line.sent)).collect();
        for (partition, sent) in behind {
            if self.rows_in_flight >= self.rows_max {
                return;
            }
            match self.store.outbox(partition, sent, 1024).await {
                Ok(rows) => self.send(rows.into(), true),
                Err(error) => {
                    tracing::warn!(context = self.context, %error, "outbox rows could not be read; holding");
                    self.backoff.wait().await;
                    return;
                }
            }
        }
    }

    async fn store_cursors(&mut self) {
        let mut moved = Vec::new();
        for (partition, line) in &self.lines {
            moved.extend(line.moved(*partition));
        }
        if moved.is_empty() {
            return self.finish().await;
        }
        match self.store.advance(&moved).await {
            Ok(()) => {
                for cursor in moved {
                    if let Some(line) = self.lines.get_mut(&cursor.partition) {
                        (line.stored, line.known_stored) = (cursor.cursor, cursor.published);
                    }
                }
                self.finish().await;
            }
            Err(error) => tracing::warn!(context = self.context, %error, "cursors could not be stored; trying again"),
        }
    }

    /// Lets go of partitions whose end was asked for and reached.
    async fn finish(&mut self) {
        let ended = |line: &Line| line.finish.is_some() && line.published.load(Ordering::Acquire) >= line.head;
        let ids: Vec<PartitionId> = self.lines.iter().filter(|(_, line)| ended(line)).map(|(id, _)| *id).collect();
        for partition in ids {
            let Some(mut line) = self.lines.remove(&partition) else { continue };
            if let Some(moved) = line.moved(partition)
                && let Err(error) = self.store.advance(&[moved]).await
            {
                tracing::warn!(context = self.context, %error, "a cursor could not be stored; the next owner repeats some rows");
            }
            if let Some(done) = line.finish.take() {
                let _ = done.send(());
            }
        }
    }
}
