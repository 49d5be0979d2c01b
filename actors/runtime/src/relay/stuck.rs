//! What a relay does with rows that the broker refuses for their own sake, and with what queues behind them.
//!
//! Upholds I3, I6 and I7: a refused row leaves its partition's order by one statement that also moves the
//! cursor, and `published` rises only after that; later rows of its topic and key follow it, in their turn,
//! once all before them are acknowledged; everything else goes on. The queues are read before anything of a
//! partition is sent: by a taker, and by a home whose keys come from other homes, whose cursors are past
//! their rows by then. A queue is released in order, each record once the one before it is acknowledged and
//! gone; a relay sends rows of its topic and key directly only after it has seen that none is left. So first
//! occurrences are in order even if two owners release the same queue. Deliberately absent: a row without a
//! key in the events topic (a mark of growth) never leaves the order; it holds its partition.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    batch::OutboxRow,
    port::store::{Slice, StoreError},
    stuck::{Order, Queue, Release, SetAside, Stuck, hash_of, placeholder},
};
use tokio::time::Instant;

use super::Relay;
use crate::telemetry;

/// More rows than this refused within [`REFUSALS_WITHIN`] are their topic's fault, which is held.
const REFUSALS_MAX: usize = 8;
const REFUSALS_WITHIN: Duration = Duration::from_mins(1);
/// How long a partition is held before the refused row is tried again.
const HELD: Duration = Duration::from_secs(5);
/// How often the queues are read while there are some, and while there are none: another partition's relay
/// may have set a record aside that is released from here.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(5);
/// Records read for release at a time: each may be as large as a topic takes.
const RELEASED_AT_ONCE: u32 = 4;

/// The stuck queues, as last read, and what is under way with them.
#[derive(Default)]
pub(super) struct Queues {
    known: BTreeMap<Queue, u64>,
    /// Being released.
    releasing: BTreeSet<i64>,
    /// Rows refused of late, by topic.
    refusals: BTreeMap<Arc<str>, VecDeque<(Instant, PartitionId, u64)>>,
    next_look: Option<Instant>,
}

impl Queues {
    /// Whether `row` belongs behind a stuck record.
    pub fn holds(&self, row: &OutboxRow) -> bool {
        !self.known.is_empty() && self.known.contains_key(&Queue::of(&row.draft))
    }

    /// Releases that were under way have no known end.
    pub fn abandon(&mut self) {
        self.releasing.clear();
    }

    /// Notes that `row` was refused; whether its topic is at fault, by the number of others.
    fn is_topic_at_fault(&mut self, row: &OutboxRow) -> bool {
        let now = Instant::now();
        let refusals = self.refusals.entry(row.draft.topic.clone()).or_default();
        refusals.retain(|(at, ..)| now.duration_since(*at) < REFUSALS_WITHIN);
        if refusals.iter().any(|(_, partition, sequence)| (*partition, *sequence) == (row.partition, row.sequence)) {
            return false;
        }
        if refusals.len() >= REFUSALS_MAX {
            return true;
        }
        refusals.push_back((now, row.partition, row.sequence));
        false
    }
}

/// `row`, which follows a stuck record of its topic and key.
pub(super) fn behind(row: &OutboxRow) -> SetAside {
    SetAside {
        sequence: row.sequence,
        queue: Queue::of(&row.draft),
        hash: hash_of(&row.draft),
        attempts: 0,
        error: "behind a stuck record of its topic and key".to_owned(),
    }
}

impl Relay {
    /// The broker refuses `row`, the next one of its partition, for its own sake.
    pub(super) fn refused(&mut self, row: &OutboxRow, error: String) {
        let is_mark = row.draft.key.is_none() && row.draft.topic == self.events_topic;
        let is_held = is_mark || self.stuck.is_topic_at_fault(row);
        let Some(line) = self.lines.get_mut(&row.partition) else { return };
        if is_held {
            line.held_until = Some(Instant::now() + HELD);
            tracing::error!(
                context = self.context,
                partition = row.partition.0,
                sequence = row.sequence,
                topic = %row.draft.topic,
                is_mark,
                error,
                "publishing of a partition was held: its topic refuses too many records, or a mark of growth"
            );
            return;
        }
        tracing::error!(
            context = self.context,
            partition = row.partition.0,
            sequence = row.sequence,
            topic = %row.draft.topic,
            id = %row.draft.id,
            error,
            "outbox record refused by the broker; set aside with all that follows of its topic and key (`holdfast outbox stuck list`)"
        );
        line.aside = vec![SetAside { attempts: 1, error, ..behind(row) }];
        if !self.rules.stores_stuck_before_cursor {
            line.published.store(row.sequence, Ordering::Release);
            line.sent = row.sequence;
            line.held_until = Some(Instant::now() + HELD);
        }
    }

    /// Sends nothing of a partition for a while.
    pub(super) fn hold(&mut self, partition: PartitionId) {
        if let Some(line) = self.lines.get_mut(&partition) {
            line.held_until = Some(Instant::now() + HELD);
        }
    }

    /// Stores the rows of a partition that are to be set aside; only then they count as published. `false` if
    /// they have to wait.
    pub(super) async fn store_aside(&mut self, partition: PartitionId) -> Result<bool, StoreError> {
        let Some(line) = self.lines.get(&partition) else { return Ok(false) };
        let done = self.store.set_aside(partition, line.token, &line.aside).await.inspect_err(|error| {
            tracing::error!(context = self.context, partition = partition.0, %error, "refused records could not be set aside; holding");
        })?;
        let Some(line) = self.lines.get_mut(&partition) else { return Ok(false) };
        if !done {
            // Another token is in force: this lane's next one comes with a message, or the partition is lost.
            line.held_until = Some(Instant::now() + super::FLUSH_EVERY);
            return Ok(false);
        }
        let aside = std::mem::take(&mut line.aside);
        if let Some(last) = aside.last() {
            line.published.fetch_max(last.sequence, Ordering::AcqRel);
            line.sent = line.sent.max(last.sequence);
        }
        for row in aside {
            *self.stuck.known.entry(row.queue).or_default() += 1;
        }
        self.finish().await;
        Ok(true)
    }

    /// Reads the stuck queues. Whether that was possible.
    pub(super) async fn look(&mut self) -> bool {
        match self.store.stuck().await {
            Ok(known) => {
                let records = known.values().sum::<u64>();
                metrics::gauge!(telemetry::OUTBOX_STUCK, "context" => self.context)
                    .set(telemetry::size(usize::try_from(records).unwrap_or(usize::MAX)));
                self.stuck.known = known;
                self.lines.values_mut().for_each(|line| line.must_look = false);
                true
            }
            Err(error) => {
                tracing::warn!(context = self.context, %error, "stuck outbox records could not be read; holding");
                false
            }
        }
    }

    /// Sends stuck records that may go, one of each queue.
    pub(super) async fn release_stuck(&mut self) {
        let now = Instant::now();
        if self.lines.is_empty() || self.stuck.next_look.is_some_and(|at| at > now) || !self.look().await {
            return;
        }
        let pause = if self.stuck.known.is_empty() { IDLE_LOOK_EVERY } else { LOOK_EVERY };
        self.stuck.next_look = Some(now + pause);
        let serving = || self.lines.iter().filter(|(_, line)| line.home.serves);
        let count = serving().map(|(_, line)| line.home.count).max().unwrap_or(1);
        let partitions = serving().filter(|(_, line)| line.home.count == count).map(|(id, _)| *id).collect();
        if self.stuck.known.is_empty() {
            return;
        }
        match self.store.released(&Slice { partitions, count }, RELEASED_AT_ONCE).await {
            Ok(released) => {
                for stuck in released {
                    self.release(stuck, count).await;
                }
            }
            Err(error) => tracing::warn!(context = self.context, %error, "stuck outbox records could not be read"),
        }
    }

    async fn release(&mut self, stuck: Stuck, count: u32) {
        let home = stuck.hash.home(count);
        if !self.stuck.releasing.insert(stuck.position) {
            return;
        }
        let draft = match &stuck.order {
            Some(Order::Discard(why)) => placeholder(&stuck.row.draft, why),
            Some(Order::Retry) | None => Some(stuck.row.draft),
        };
        match draft {
            // To where its key is at home now: a relay that has moved on addresses nothing by an older count.
            Some(mut draft) => {
                draft.target = home;
                let row = OutboxRow { draft, ..stuck.row };
                self.call(Arc::from([row]), Some((home, stuck.position)), true);
            }
            None => self.released(home, stuck.position).await,
        }
    }

    /// A stuck record, or what takes its place, is out.
    pub(super) async fn released(&mut self, home: PartitionId, position: i64) {
        tracing::info!(context = self.context, partition = home.0, position, "stuck outbox record released");
        self.end_release(home, position, &Release::Done).await;
    }

    pub(super) async fn refused_again(&mut self, home: PartitionId, position: i64, error: String) {
        tracing::error!(
            context = self.context,
            partition = home.0,
            position,
            error,
            "stuck outbox record refused again"
        );
        self.end_release(home, position, &Release::Refused(error)).await;
    }

    /// Where that can't be stored, the record is sent once more.
    async fn end_release(&mut self, home: PartitionId, position: i64, end: &Release) {
        self.stuck.releasing.remove(&position);
        self.stuck.next_look = None;
        let Some(line) = self.lines.get(&home) else { return };
        match self.store.end_release(home, line.token, position, end).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(context = self.context, partition = home.0, "the end of a release was fenced"),
            Err(error) => {
                tracing::warn!(context = self.context, partition = home.0, %error, "the end of a release could not be stored");
            }
        }
    }
}
