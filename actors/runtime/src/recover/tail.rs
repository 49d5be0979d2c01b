//! What the topics hold beyond what the database knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{Message, PartitionId, Record, epoch::PartitionRow, port::log::LogError};
use uuid::Uuid;

use super::{Error, Recovery};
use crate::{
    history::{EventIdentity, identify},
    stretch::Stretch,
};

/// A record that does not come for so long will not.
const PATIENCE: Duration = Duration::from_secs(30);

/// A topic to be taken as it is now.
pub(super) struct Accept {
    pub topic: Arc<str>,
    /// Its new mark, if it was made again.
    pub mark: Option<String>,
    /// Where reading goes on.
    pub places: Vec<(PartitionId, u64)>,
    /// Whether it is our own events topic.
    pub events: bool,
}

/// An event of this context in its topic.
pub(super) struct Event {
    pub identity: EventIdentity,
    pub message: Message,
    pub record: Record,
}

/// The events beyond what each row knows, and where the topic ended.
#[derive(Default)]
pub(super) struct Tail {
    pub events: Vec<Event>,
    pub ends: BTreeMap<PartitionId, u64>,
    /// The ids of all of them.
    pub ids: BTreeSet<Uuid>,
}

/// How much of a partition's outbox is known to be published.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    /// All of it.
    pub all: bool,
    /// Up to this sequence.
    pub cursor: u64,
    /// Rows behind it.
    pub behind: u64,
}

/// What is wrong with the topics: as it is to be accepted, and in words.
pub(super) async fn topics(recovery: &Recovery, rows: &[PartitionRow]) -> Result<(Vec<Accept>, Vec<String>), Error> {
    let (log, store) = (&recovery.ports.log, &recovery.ports.store);
    let noted = store.incarnations(&[]).await?;
    let (mut accepts, mut words) = (Vec::new(), Vec::new());
    let inputs = recovery.context.inputs().iter().map(|topic| (topic, false));
    for (topic, events) in inputs.chain([(&recovery.emit.events_topic, true)]) {
        let mark = match log.incarnation(topic).await {
            Ok(mark) => mark,
            Err(LogError::NoSuchTopic(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let made_again = mark.filter(|mark| noted.get(&**topic).is_some_and(|noted| noted != mark));
        let count = match log.partition_count(topic).await {
            Ok(count) => count,
            Err(LogError::NoSuchTopic(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut places = Vec::new();
        for row in rows.iter().filter(|row| row.partition.0 < count) {
            let at = if events { row.published } else { row.next_offset(topic) };
            let (start, end) = log.bounds(topic, row.partition).await?;
            let (partition, lost) = (row.partition, at.is_some_and(|at| at > end || (at < start && !events)));
            if made_again.is_some() && at.is_some() {
                places.push((partition, start));
            } else if lost {
                let at = at.unwrap_or_default();
                places.push((partition, start));
                words.push(format!("{topic}-{partition}: offset {at} is not in the log, which holds {start} to {end}"));
            }
        }
        if made_again.is_some() {
            words.push(format!("topic {topic} was deleted and made again"));
        }
        if made_again.is_some() || !places.is_empty() {
            accepts.push(Accept { topic: topic.clone(), mark: made_again, places, events });
        }
    }
    Ok((accepts, words))
}

/// Reads what lies in the events topic beyond what each row knows.
pub(super) async fn read(recovery: &Recovery, rows: &[PartitionRow], accepts: &[Accept]) -> Result<Tail, Error> {
    let topic = &recovery.emit.events_topic;
    let mut tail = Tail::default();
    let count = recovery.ports.log.partition_count(topic).await?;
    let accept = accepts.iter().find(|accept| accept.events);
    // Also partitions that the backup knows nothing of: the topic may have grown since.
    for partition in (0..count).map(PartitionId) {
        let row = rows.iter().find(|row| row.partition == partition);
        let (start, end) = recovery.ports.log.bounds(topic, partition).await?;
        let accepted = accept.and_then(|accept| accept.places.iter().find(|(accepted, _)| *accepted == partition));
        // The topic is read from its start where no row has noted an offset of it: the versions of the events
        // show which of them the database lacks.
        let from = accepted.map(|(_, next)| *next).or(row.and_then(|row| row.published)).unwrap_or(start).max(start);
        tail.ends.insert(partition, end);
        let events = &mut tail.events;
        each(recovery, topic, partition, from, end, |record| {
            let Some(identity) = identify(&recovery.context, &recovery.emit, &record) else { return Ok(()) };
            let message = Message::decode(&record)
                .map_err(|refused| Error::Unreadable { place: place(&record), reason: refused.to_string() })?;
            events.push(Event { identity, message, record });
            Ok(())
        })
        .await?;
    }
    tail.ids = tail.events.iter().map(|event| event.message.id).collect();
    Ok(tail)
}

/// Per partition the end of the events topic, and how much of its outbox was published: each row is either
/// found in the tail, or may have to go out (again).
pub(super) async fn ends(
    recovery: &Recovery,
    rows: &[PartitionRow],
    tail: &Tail,
) -> Result<BTreeMap<PartitionId, (Option<u64>, Published)>, Error> {
    let mut ends = BTreeMap::new();
    for row in rows {
        let mut done = Published {
            all: true,
            cursor: row.outbox_cursor,
            behind: row.outbox_head.saturating_sub(row.outbox_cursor),
        };
        'rows: while done.cursor < row.outbox_head {
            let staged = recovery.ports.store.outbox(row.partition, done.cursor, 1024, 16 * 1024 * 1024).await?;
            done.all &= !staged.is_empty();
            if staged.is_empty() {
                break;
            }
            // A node that still runs may have written more since the rows were read.
            for staged in staged.into_iter().filter(|staged| staged.sequence <= row.outbox_head) {
                if !tail.ids.contains(&staged.draft.id) {
                    done.all = false;
                    break 'rows;
                }
                (done.cursor, done.behind) = (staged.sequence, row.outbox_head - staged.sequence);
            }
        }
        ends.insert(row.partition, (tail.ends.get(&row.partition).copied(), done));
    }
    Ok(ends)
}

/// Reads one partition from `from` to `end`.
pub(super) async fn each(
    recovery: &Recovery,
    topic: &Arc<str>,
    partition: PartitionId,
    from: u64,
    end: u64,
    mut take: impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let log = &*recovery.ports.log;
    let mut stretch = Stretch::open(log, topic, partition, from..end, PATIENCE).await?;
    while let Some(record) = stretch.next().await? {
        take(record)?;
    }
    Ok(())
}

/// Where a record lies.
pub(super) fn place(record: &Record) -> String {
    format!("{}-{} offset {}", record.topic, record.partition, record.offset)
}
