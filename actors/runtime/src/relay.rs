//! Publishes outbox rows, partition by partition in sequence, and keeps the cursor.
//!
//! Upholds I3: a row goes out only after all rows before it in its partition have gone out. In normal running
//! rows come straight from the commit that wrote them; after a take-over, an error or a flood they are read
//! from the store, from the cursor on. The cursor only passes what the broker has acknowledged, or what is
//! kept elsewhere by the statement that moves it ([`stuck`]), so a crash repeats rows and never skips one.
//! What is in flight is bounded in rows and in bytes (I11).

mod stuck;
#[cfg(test)]
mod tests;

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
        store::{Cursor, Store, StoreError},
    },
    size,
    stuck::SetAside,
};
use metrics::Histogram;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use holdfast_machine::Rules;

use crate::{
    backoff::Backoff,
    config::Config,
    progress::Pulse,
    spans,
    telemetry::{self, Trace},
};

/// What is said of a partition is said under an ownership, and void under another: what a lane has to say of
/// an ownership that has ended may come after the next has begun here.
pub(crate) enum RelayMessage {
    /// Rows of a commit, in order, and whether any message of it is traced.
    Rows { rows: Arc<[OutboxRow]>, traced: bool },
    /// A partition is owned: rows after `cursor` up to `head` are in the store. `known` is the end of what is
    /// known of the partition of the events topic. `home` says which keys are at home there.
    Own {
        partition: PartitionId,
        term: u64,
        token: Token,
        cursor: u64,
        head: u64,
        published: Arc<AtomicU64>,
        known: Option<u64>,
        home: Home,
    },
    /// Other keys are at home at the partition now, or those that are there are served from now on. Comes
    /// before any row of theirs.
    Home { partition: PartitionId, term: u64, home: Home },
    /// Rows up to `head` may be in the store without having come here; the token may be new.
    Reload { partition: PartitionId, term: u64, token: Token, head: u64 },
    /// The partition is lost.
    Drop { partition: PartitionId, term: u64 },
    /// Answers once everything of the partition up to `head` is acknowledged and the cursor stored; then
    /// forgets it.
    Finish { partition: PartitionId, term: u64, token: Token, head: u64, done: oneshot::Sender<()> },
}

/// Which keys are at home at a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// By this count.
    pub count: u32,
    /// Whether they are served: the cursors of their earlier homes are past all that was written there.
    pub serves: bool,
}

struct Line {
    term: u64,
    token: Token,
    home: Home,
    /// Rows up to here were handed to the publisher.
    sent: u64,
    /// Rows up to here are in the store.
    head: u64,
    /// Rows up to here are acknowledged, or set aside.
    published: Arc<AtomicU64>,
    /// The cursor as last stored here.
    stored: u64,
    /// Up to this offset everything of ours in this partition of the events topic is of rows that were
    /// committed.
    known: Option<u64>,
    /// The same as last stored here.
    known_stored: Option<u64>,
    finish: Option<oneshot::Sender<()>>,
    /// Nothing is sent before the stuck queues are read.
    must_look: bool,
    /// The rows after the published ones, which are being set aside. Nothing is sent meanwhile.
    aside: Vec<SetAside>,
    /// A row that is to be set aside once all before it are acknowledged.
    waits: Option<u64>,
    /// Nothing is sent until then: the topic is at fault.
    held_until: Option<Instant>,
}

impl Line {
    /// How far it is, if that is further than what is stored.
    fn moved(&self, partition: PartitionId) -> Option<Cursor> {
        let cursor = self.published.load(Ordering::Acquire);
        let has_moved = cursor > self.stored || self.known > self.known_stored;
        has_moved.then_some(Cursor { partition, token: self.token, cursor, published: self.known })
    }
}

/// One call of the publisher.
struct Sent {
    /// When it was made.
    at: Instant,
    rows: Arc<[OutboxRow]>,
    bytes: usize,
    /// The stuck record that it releases, with its home; none of a partition's order then.
    release: Option<(PartitionId, i64)>,
}

/// How a call ended.
type Published = (Sent, Result<Landed, PublishError>);

pub(crate) struct Relay {
    context: &'static str,
    store: Arc<dyn Store>,
    publisher: Arc<dyn Publisher>,
    trace: Trace,
    rows_max: usize,
    bytes_max: usize,
    rules: Rules,
    events_topic: Arc<str>,
    lines: BTreeMap<PartitionId, Line>,
    in_flight: FuturesOrdered<BoxFuture<'static, Published>>,
    rows_in_flight: usize,
    bytes_in_flight: usize,
    stuck: stuck::Queues,
    backoff: Backoff,
    pulse: Pulse,
    publication: Histogram,
}

const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Rows read from the store at a time.
const READ_ROWS: u32 = 1024;

fn bytes(rows: &[OutboxRow]) -> usize {
    rows.iter().map(|row| size::of_draft(&row.draft)).sum()
}

impl Relay {
    pub fn new(
        context: &'static str,
        store: Arc<dyn Store>,
        publisher: Arc<dyn Publisher>,
        trace: Trace,
        config: &Config,
        pulse: Pulse,
    ) -> Self {
        Self {
            pulse,
            context,
            store,
            publisher,
            trace,
            rows_max: config.relay_rows_max,
            bytes_max: config.relay_bytes_max,
            rules: config.rules,
            events_topic: format!("{context}.events").into(),
            lines: BTreeMap::new(),
            in_flight: FuturesOrdered::new(),
            rows_in_flight: 0,
            bytes_in_flight: 0,
            stuck: stuck::Queues::default(),
            backoff: Backoff::infrastructure(),
            publication: metrics::histogram!(telemetry::PUBLICATION_SECONDS, "context" => context),
        }
    }

    pub async fn run(mut self, mut messages: mpsc::UnboundedReceiver<RelayMessage>) {
        let mut tick = tokio::time::interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_behind = |line: &Line| line.published.load(Ordering::Acquire) < line.head;
            if self.lines.values().any(is_behind) {
                self.pulse.waits("the broker");
            } else {
                self.pulse.idle();
            }
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                Some((sent, result)) = self.in_flight.next(), if !self.in_flight.is_empty() => self.ended(sent, result).await,
                _ = tick.tick() => {
                    self.store_cursors().await;
                    self.release_stuck().await;
                }
            }
            self.catch_up().await;
        }
    }

    fn take(&mut self, message: RelayMessage) {
        match message {
            RelayMessage::Rows { rows, traced } => self.rows(rows, traced),
            RelayMessage::Own { partition, term, token, cursor, head, published, known, home } => {
                published.store(cursor, Ordering::Release);
                let line = Line {
                    term,
                    token,
                    home,
                    sent: cursor,
                    head,
                    published,
                    stored: cursor,
                    known,
                    known_stored: None,
                    finish: None,
                    must_look: self.rules.reads_stuck_before_sending,
                    aside: Vec::new(),
                    waits: None,
                    held_until: None,
                };
                self.lines.insert(partition, line);
            }
            RelayMessage::Home { partition, term, home } => {
                let must_look = self.rules.reads_stuck_before_sending;
                if let Some(line) = self.line(partition, term) {
                    (line.home, line.must_look) = (home, must_look);
                }
            }
            RelayMessage::Reload { partition, term, token, head } => {
                if let Some(line) = self.line(partition, term) {
                    (line.token, line.head) = (token, line.head.max(head));
                }
            }
            RelayMessage::Drop { partition, term } => {
                if self.line(partition, term).is_some() {
                    self.lines.remove(&partition);
                }
            }
            RelayMessage::Finish { partition, term, token, head, done } => match self.line(partition, term) {
                Some(line) => {
                    (line.token, line.head) = (token, line.head.max(head));
                    line.finish = Some(done);
                }
                None => drop(done),
            },
        }
    }

    /// The line of a partition, if it is of this ownership.
    fn line(&mut self, partition: PartitionId, term: u64) -> Option<&mut Line> {
        self.lines.get_mut(&partition).filter(|line| line.term == term)
    }

    /// Whether `bytes` more may be sent beside what is in flight.
    fn has_room(&self, bytes: usize) -> bool {
        self.rows_in_flight < self.rows_max && self.bytes_in_flight + bytes <= self.bytes_max
    }

    /// Sends the rows of a commit on, unless their partition is behind: then they are read from the store
    /// when their turn comes.
    fn rows(&mut self, rows: Arc<[OutboxRow]>, traced: bool) {
        let is_free = self.has_room(bytes(&rows));
        let mut all_in_turn = is_free;
        let mut turn: BTreeMap<PartitionId, u64> = BTreeMap::new();
        for row in rows.iter() {
            let is_stuck = self.stuck.holds(row);
            let Some(line) = self.lines.get_mut(&row.partition) else {
                all_in_turn = false;
                continue;
            };
            line.head = line.head.max(row.sequence);
            let sent = turn.entry(row.partition).or_insert(line.sent);
            all_in_turn &= row.sequence == *sent + 1 && !line.must_look && !is_stuck;
            *sent = row.sequence;
        }
        if all_in_turn {
            self.send(rows, traced);
        } else if is_free {
            let in_turn: Vec<OutboxRow> = {
                let open = self.lines.iter().filter(|(_, line)| !line.must_look);
                let mut sent: BTreeMap<PartitionId, u64> = open.map(|(id, line)| (*id, line.sent)).collect();
                let is_next = |row: &&OutboxRow| {
                    sent.get_mut(&row.partition).is_some_and(|sent| {
                        let is_next = row.sequence == *sent + 1 && !self.stuck.holds(row);
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
        self.call(rows, None, traced);
    }

    /// Hands `rows` to the publisher.
    fn call(&mut self, rows: Arc<[OutboxRow]>, release: Option<(PartitionId, i64)>, traced: bool) {
        let sent = Sent { at: Instant::now(), bytes: bytes(&rows), rows: rows.clone(), release };
        self.rows_in_flight += rows.len();
        self.bytes_in_flight += sent.bytes;
        let publisher = self.publisher.clone();
        let spans = if traced { spans::publish(self.context, &rows, &self.trace) } else { Vec::new() };
        // Polled once at least before any later one, so that rows are handed over in this order.
        self.in_flight.push_back(Box::pin(async move {
            let result = publisher.publish(rows).await;
            drop(spans);
            (sent, result)
        }));
    }

    async fn ended(&mut self, sent: Sent, result: Result<Landed, PublishError>) {
        self.rows_in_flight -= sent.rows.len();
        self.bytes_in_flight -= sent.bytes;
        match result {
            Ok(landed) => {
                self.backoff.reset();
                self.pulse.moved();
                self.publication.record(sent.at.elapsed());
                self.landed(&landed);
                match sent.release {
                    Some((home, position)) => self.released(home, position).await,
                    None => self.acknowledged(&sent.rows),
                }
                self.finish().await;
            }
            Err(PublishError::Stopped(error)) => {
                tracing::warn!(context = self.context, %error, "publishing failed; starting again at the first unacknowledged row");
                self.start_again().await;
                self.backoff.wait().await;
            }
            Err(PublishError::Refused { partition, sequence, error }) => {
                if let Some((home, position)) = sent.release {
                    self.start_again().await;
                    return self.refused_again(home, position, error).await;
                }
                let culprit = sent.rows.iter().position(|row| (row.partition, row.sequence) == (partition, sequence));
                // All before it are acknowledged: it was sent alone.
                self.acknowledged(&sent.rows[..culprit.unwrap_or_default()]);
                self.start_again().await;
                if let Some(culprit) = culprit {
                    self.refused(&sent.rows[culprit], error);
                }
            }
        }
    }

    /// A home's events go to the partition of its own number, after all that it wrote before. Their end is
    /// noted with the rows' cursor, and stored with it: below it lie only events of rows that were committed.
    fn landed(&mut self, landed: &Landed) {
        for landing in landed.0.iter().filter(|landing| landing.topic == self.events_topic) {
            if let Some(line) = self.lines.get_mut(&landing.partition) {
                line.known = line.known.max(Some(landing.offset + 1));
            }
        }
    }

    fn acknowledged(&self, rows: &[OutboxRow]) {
        for row in rows {
            if let Some(line) = self.lines.get(&row.partition) {
                line.published.fetch_max(row.sequence, Ordering::AcqRel);
            }
        }
    }

    /// Nothing sent after failed rows may count: everything in flight is abandoned, and read again from the
    /// store.
    async fn start_again(&mut self) {
        self.in_flight = FuturesOrdered::new();
        (self.rows_in_flight, self.bytes_in_flight) = (0, 0);
        self.stuck.abandon();
        self.publisher.reset().await;
        for line in self.lines.values_mut() {
            (line.sent, line.waits) = (line.published.load(Ordering::Acquire), None);
        }
    }

    /// Reads rows that did not come in turn.
    async fn catch_up(&mut self) {
        if self.lines.values().any(|line| line.must_look) && !self.look().await {
            return self.backoff.wait().await;
        }
        let now = Instant::now();
        let is_behind = |line: &Line| line.sent < line.head && line.held_until.is_none_or(|until| until <= now);
        let behind: Vec<PartitionId> =
            self.lines.iter().filter(|(_, line)| is_behind(line)).map(|(id, _)| *id).collect();
        for partition in behind {
            match self.go_on(partition).await {
                Ok(()) => {}
                Err(StoreError::Unavailable(_)) => return self.backoff.wait().await,
                // Something of this partition alone is not as it must be.
                Err(StoreError::Broken(_) | StoreError::Data { .. }) => self.hold(partition),
            }
        }
    }

    /// Sends the next rows of a partition, or sets them aside. Fails if the store does.
    async fn go_on(&mut self, partition: PartitionId) -> Result<(), StoreError> {
        loop {
            if self.lines.get(&partition).is_some_and(|line| !line.aside.is_empty()) {
                if self.store_aside(partition).await? {
                    continue;
                }
                return Ok(());
            }
            let has_room = self.has_room(1);
            let Some(line) = self.lines.get_mut(&partition) else { return Ok(()) };
            let published = line.published.load(Ordering::Acquire);
            if line.waits.is_some_and(|row| published + 1 < row) || line.sent >= line.head || !has_room {
                return Ok(());
            }
            line.waits = None;
            let sent = line.sent;
            let free = self.bytes_max.saturating_sub(self.bytes_in_flight);
            let mut rows = self.read(partition, sent, free).await?;
            let stuck = rows.iter().take_while(|row| self.stuck.holds(row)).count();
            let Some(line) = self.lines.get_mut(&partition) else { return Ok(()) };
            if stuck == 0 {
                rows.truncate(rows.iter().take_while(|row| !self.stuck.holds(row)).count());
                self.send(rows.into(), true);
                return Ok(());
            }
            if published < sent {
                line.waits = Some(sent + 1);
                return Ok(());
            }
            line.aside = rows[..stuck].iter().map(stuck::behind).collect();
        }
    }

    async fn read(
        &mut self,
        partition: PartitionId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let rows = self.store.outbox(partition, after, READ_ROWS, bytes_max).await;
        rows.inspect_err(
            |error| tracing::warn!(context = self.context, %error, "outbox rows could not be read; holding"),
        )
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
