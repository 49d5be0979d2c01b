//! The gauges of what waits: lag, outbox, mailbox, loops.
//!
//! They are set on a timer from what the log and the store say, so they are true also where nothing is read,
//! and zero for a partition that has left. Stalled loops are noted in the node's own row as well, for
//! `holdfast doctor`, which asks no node. Deliberately absent: counters, which are raised where something
//! happens.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use holdfast_core::{
    PartitionId, Timestamp,
    epoch::PartitionRow,
    port::{
        clock::Clock,
        log::Log,
        store::{Slice, Store},
    },
};

use crate::{
    admission::Budget,
    context::BoundedContext,
    growth::Homes,
    handles::Handles,
    progress::Board,
    telemetry::{self, size},
};

/// How often stalls are looked for. Together with [`crate::STUCK_AFTER`] it bounds how long one goes
/// unnoticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Lag and outbox are asked for at each such look, mailboxes, which cost a scan of the table, at each such
/// look.
const LAG_LOOKS: u64 = 5;
const MAIL_LOOKS: u64 = 15;

/// What one input's reader last saw.
#[derive(Clone, Copy)]
struct Seen {
    timestamp: Option<Timestamp>,
    /// Since when there has been lag, by the node's clock.
    behind_since: Option<Timestamp>,
}

/// What is shown, and what readers add to it.
#[derive(Default)]
pub(crate) struct Gauges {
    inputs: Mutex<HashMap<(Arc<str>, PartitionId), Seen>>,
}

/// Sets the gauges of one node.
pub(crate) struct Keeper {
    pub context: Arc<BoundedContext>,
    pub address: String,
    pub log: Arc<dyn Log>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub homes: Homes,
    pub handles: Handles,
    pub budget: Budget,
    pub board: Board,
    pub gauges: Arc<Gauges>,
}

impl Gauges {
    /// A reader has seen a record with this timestamp.
    pub fn read(&self, topic: &Arc<str>, partition: PartitionId, timestamp: Option<Timestamp>) {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = inputs.entry((topic.clone(), partition)).or_insert(Seen { timestamp: None, behind_since: None });
        seen.timestamp = timestamp.or(seen.timestamp);
    }

    /// Seconds that an input is behind, if it has `lag`.
    fn behind_seconds(&self, topic: &Arc<str>, partition: PartitionId, lag: u64, now: Timestamp) -> f64 {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = inputs.entry((topic.clone(), partition)).or_insert(Seen { timestamp: None, behind_since: None });
        if lag == 0 {
            seen.behind_since = None;
            return 0.0;
        }
        let behind_since = *seen.behind_since.get_or_insert(now);
        let since = seen.timestamp.unwrap_or(behind_since);
        Duration::from_millis(now.ms_since(since)).as_secs_f64()
    }

    fn forget(&self, partition: PartitionId) {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, of), _| *of != partition);
    }
}

impl Keeper {
    /// Runs until the node stops.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut shown, mut noted) = (BTreeSet::new(), String::new());
        for look in 0_u64.. {
            tick.tick().await;
            // Each of them may wait for something that is away, and the stalls must be shown meanwhile.
            let others = async {
                if look.is_multiple_of(LAG_LOOKS) {
                    self.show_waiting(&mut shown, look.is_multiple_of(MAIL_LOOKS)).await;
                }
                self.note_stalled(&mut noted).await;
            };
            tokio::pin!(others);
            loop {
                self.show_stalled();
                tokio::select! {
                    () = &mut others => break,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        }
    }

    fn show_stalled(&self) {
        for (class, since) in self.board.by_class() {
            let labels = [("context", self.context.name()), ("loop", class)];
            let seconds = since.min(Duration::from_hours(24)).as_secs_f64();
            metrics::gauge!(telemetry::LOOP_STALLED_SECONDS, &labels).set(seconds);
        }
    }

    /// Notes stalled loops, for as long as there are any, and once more when there are none.
    async fn note_stalled(&self, noted: &mut String) {
        let stalled: Vec<String> = self.board.stalled().iter().take(8).map(ToString::to_string).collect();
        let stalled = stalled.join("; ");
        if !(stalled.is_empty() && noted.is_empty())
            && let Ok(()) = self.store.note_stalled(&self.address, &stalled).await
        {
            *noted = stalled;
        }
    }

    async fn show_waiting(&self, shown: &mut BTreeSet<PartitionId>, with_mail: bool) {
        metrics::gauge!(telemetry::MEMORY_BYTES, "context" => self.context.name()).set(size(self.budget.used_bytes()));
        let owned: BTreeSet<PartitionId> =
            self.handles.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for left in std::mem::replace(shown, owned.clone()).difference(&owned) {
            self.clear(*left);
        }
        if owned.is_empty() {
            return;
        }
        match self.store.partitions().await {
            Ok(rows) => {
                let rows: BTreeMap<PartitionId, PartitionRow> = rows
                    .into_iter()
                    .filter(|row| owned.contains(&row.partition))
                    .map(|row| (row.partition, row))
                    .collect();
                for row in rows.values() {
                    self.outbox(row.partition, row.outbox_head.saturating_sub(row.outbox_cursor));
                }
                for topic in self.context.inputs() {
                    self.show_lag(topic, &rows).await;
                }
            }
            Err(error) => tracing::debug!(context = self.context.name(), %error, "gauges keep their values"),
        }
        if with_mail {
            self.show_mail(&owned).await;
        }
    }

    async fn show_lag(&self, topic: &Arc<str>, rows: &BTreeMap<PartitionId, PartitionRow>) {
        let count = self.homes.now().topic_count(topic);
        let partitions: Vec<PartitionId> = rows.keys().copied().filter(|partition| partition.0 < count).collect();
        let Ok(ends) = self.log.ends(topic, &partitions).await else { return };
        let now = self.clock.now();
        for (partition, end) in partitions.into_iter().zip(ends) {
            // What was never consumed begins where the log does.
            let next = match rows[&partition].next_offset(topic) {
                Some(next) => next,
                None => match self.log.bounds(topic, partition).await {
                    Ok((start, _)) => start,
                    Err(_) => continue,
                },
            };
            let lag = end.saturating_sub(next);
            self.lag(topic, partition, lag, self.gauges.behind_seconds(topic, partition, lag, now));
        }
    }

    async fn show_mail(&self, owned: &BTreeSet<PartitionId>) {
        let slice = Slice { partitions: owned.iter().copied().collect(), count: self.homes.count() };
        if let Ok(waiting) = self.store.mail_waiting(&slice).await {
            for partition in owned {
                self.mail(*partition, waiting.get(partition).copied().unwrap_or(0));
            }
        }
    }

    /// The partition has left: nothing of it waits here.
    fn clear(&self, partition: PartitionId) {
        self.outbox(partition, 0);
        self.mail(partition, 0);
        for topic in self.context.inputs() {
            self.lag(topic, partition, 0, 0.0);
        }
        self.gauges.forget(partition);
    }

    fn lag(&self, topic: &Arc<str>, partition: PartitionId, records: u64, seconds: f64) {
        let labels = [
            ("context", self.context.name().to_owned()),
            ("topic", topic.to_string()),
            ("partition", partition.to_string()),
        ];
        metrics::gauge!(telemetry::LAG_RECORDS, &labels).set(number(records));
        metrics::gauge!(telemetry::LAG_SECONDS, &labels).set(seconds);
    }

    fn outbox(&self, partition: PartitionId, rows: u64) {
        let labels = [("context", self.context.name().to_owned()), ("partition", partition.to_string())];
        metrics::gauge!(telemetry::OUTBOX_PENDING, &labels).set(number(rows));
    }

    fn mail(&self, partition: PartitionId, messages: u64) {
        let labels = [("context", self.context.name().to_owned()), ("partition", partition.to_string())];
        metrics::gauge!(telemetry::MAILBOX_WAITING, &labels).set(number(messages));
    }
}

fn number(n: u64) -> f64 {
    size(usize::try_from(n).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_at_an_extreme_shows_some_lag() {
        let (gauges, topic, partition) = (Gauges::default(), Arc::from("t.commands"), PartitionId(0));
        let now = Timestamp::from_unix_ms(1_800_000_000_000);
        for (timestamp, is_behind) in [(i64::MIN, true), (0, true), (i64::MAX, false)] {
            gauges.read(&topic, partition, Some(Timestamp::from_unix_ms(timestamp)));
            assert_eq!(gauges.behind_seconds(&topic, partition, 1, now) > 0.0, is_behind, "{timestamp}");
        }
    }
}
