//! Waits until there is nothing left to wait for.
//!
//! One look is enough, because of its order: first each schema in one statement, then the ends of the topics.
//! If every topic's end, read last, is what a context had consumed before, nothing came in meanwhile; and
//! what the context made of it was published, for its cursors were at their heads. Calls out of the system
//! are waited for until their outcome is known; timers that are not due yet are not.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use serde::Serialize;
use sqlx::{PgConnection, Row as _};

use super::{
    Error, PartitionRow, Schema, Target,
    gather::{connect, inputs, partition},
};
use crate::kafka::Ends;

/// What is left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// Records not consumed, by topic.
    pub records: BTreeMap<String, i64>,
    /// Committed rows not published yet.
    pub unpublished: i64,
    /// Messages in durable mailboxes.
    pub waiting: i64,
    /// Calls out of the system whose outcome is not known.
    pub calls: i64,
    /// Schemas or topics that could not be looked at: their servers are away.
    pub away: Vec<String>,
}

impl Backlog {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.records.values().all(|left| *left == 0)
            && self.unpublished == 0
            && self.waiting == 0
            && self.calls == 0
            && self.away.is_empty()
    }

    /// Records not consumed.
    pub fn records_left(&self) -> i64 {
        self.records.values().sum()
    }

    /// Adds a context by its partition rows and the ends of a topic that it reads.
    fn unconsumed(&mut self, topic: &str, rows: &[PartitionRow], ends: &BTreeMap<i32, i64>) {
        let next = |partition: &i32| {
            let row = rows.iter().find(|row| row.partition == *partition);
            row.and_then(|row| row.consumed.get(topic)).copied().unwrap_or(0)
        };
        let left: i64 = ends.iter().map(|(partition, end)| (end - next(partition)).max(0)).sum();
        self.records.insert(topic.to_owned(), left);
    }
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (topic, left) in self.records.iter().filter(|(_, left)| **left > 0) {
            write!(f, "{left} records of {topic}, ")?;
        }
        write!(f, "{} rows to publish, {} messages in mailboxes", self.unpublished, self.waiting)?;
        if self.calls > 0 {
            write!(f, ", {} calls out of the system", self.calls)?;
        }
        self.away.iter().try_for_each(|away| write!(f, ", {away}"))
    }
}

/// How often to look.
const EVERY: Duration = Duration::from_millis(100);

/// Waits until every input is consumed, every outbox published and every mailbox empty; tells `progress` what
/// is left each time. Servers that are away are waited for. Returns how long it took; fails once `patience`
/// is over.
pub async fn settled(
    target: &Target,
    patience: Duration,
    mut progress: impl FnMut(&Backlog),
) -> Result<Duration, Error> {
    let began = Instant::now();
    let mut eyes = Eyes::default();
    loop {
        let backlog = eyes.look(target).await;
        progress(&backlog);
        let waited = began.elapsed();
        if backlog.is_empty() {
            return Ok(waited);
        }
        if waited > patience {
            return Err(Error::Restless { waited, backlog: Box::new(backlog) });
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What is left to do just now.
pub async fn backlog(target: &Target) -> Backlog {
    Eyes::default().look(target).await
}

/// Connections that are kept from look to look.
#[derive(Default)]
struct Eyes {
    schemas: BTreeMap<String, PgConnection>,
    ends: Option<Ends>,
}

impl Eyes {
    /// Boxed: a future is compiled where it is polled.
    fn look<'a>(&'a mut self, target: &'a Target) -> BoxFuture<'a, Backlog> {
        Box::pin(self.see(target))
    }

    async fn see(&mut self, target: &Target) -> Backlog {
        let mut backlog = Backlog::default();
        let mut rows = BTreeMap::new();
        for schema in target.schemas() {
            match self.partitions(schema, &mut backlog).await {
                Ok(found) => {
                    rows.insert(schema.name.clone(), found);
                }
                Err(error) => {
                    self.schemas.remove(&schema.name);
                    backlog.away.push(format!("schema {}: {error}", schema.name));
                }
            }
        }
        for (context, topics) in inputs(target) {
            let Some(rows) = rows.get(&context) else { continue };
            for topic in topics {
                if let Err(error) = self.ends(target, &topic, rows, &mut backlog).await {
                    self.ends = None;
                    backlog.away.push(format!("topic {topic}: {error}"));
                }
            }
        }
        backlog
    }

    /// One statement, so that rows and mailbox are of one moment.
    async fn partitions(&mut self, schema: &Schema, backlog: &mut Backlog) -> Result<Vec<PartitionRow>, Error> {
        if !self.schemas.contains_key(&schema.name) {
            self.schemas.insert(schema.name.clone(), connect(schema).await?);
        }
        let Some(at) = self.schemas.get_mut(&schema.name) else { return Ok(Vec::new()) };
        let sql = "select partition, outbox_head, outbox_cursor, consumed, (select count(*) from mailbox), \
                   (select count(*) from effects) from partitions";
        let found = sqlx::query(sql).fetch_all(at).await?;
        if let Some(first) = found.first() {
            backlog.waiting += first.try_get::<i64, _>(4)?;
            backlog.calls += first.try_get::<i64, _>(5)?;
        }
        let rows: Vec<PartitionRow> = found.iter().map(partition).collect::<Result<_, _>>()?;
        backlog.unpublished += rows.iter().map(|row| row.head - row.cursor).sum::<i64>();
        Ok(rows)
    }

    async fn ends(
        &mut self,
        target: &Target,
        topic: &str,
        rows: &[PartitionRow],
        backlog: &mut Backlog,
    ) -> Result<(), Error> {
        if self.ends.is_none() {
            self.ends = Some(Ends::new(&target.brokers)?);
        }
        let Some(ends) = &self.ends else { return Ok(()) };
        backlog.unconsumed(topic, rows, &ends.of(topic).await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(consumed: &[(&str, i64)], end: i64) -> Backlog {
        let consumed = consumed.iter().map(|(topic, next)| ((*topic).to_owned(), *next)).collect();
        let rows = [PartitionRow { partition: 3, consumed, ..PartitionRow::default() }];
        let mut backlog = Backlog::default();
        backlog.unconsumed("orders.commands", &rows, &BTreeMap::from([(3, end)]));
        backlog
    }

    #[test]
    fn a_topic_is_done_when_its_next_offset_is_its_end() {
        assert!(backlog(&[("orders.commands", 7)], 7).is_empty());
        assert_eq!(backlog(&[("orders.commands", 5)], 7).records_left(), 2);
    }

    #[test]
    fn a_partition_that_nobody_read_is_left_over_unless_it_is_empty() {
        assert_eq!(backlog(&[("inventory.events", 7)], 7).records_left(), 7);
        assert!(backlog(&[], 0).is_empty());
    }

    #[test]
    fn unpublished_waiting_unanswered_or_unseen_work_is_left_over() {
        assert!(!Backlog { unpublished: 1, ..Backlog::default() }.is_empty());
        assert!(!Backlog { waiting: 1, ..Backlog::default() }.is_empty());
        assert!(!Backlog { calls: 1, ..Backlog::default() }.is_empty());
        assert!(!Backlog { away: vec!["schema orders".into()], ..Backlog::default() }.is_empty());
    }
}
