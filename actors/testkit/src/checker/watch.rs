//! Looks on while the loop runs: what is right at the end may have been wrong on the way (I1).
//!
//! An offset stored before its batch was committed, or an event published before it was stored, leaves no
//! trace unless the process dies in between; so each is compared with the store at the moment it happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use holdfast_core::{Record, envelope::header, invariant::Invariant};
use uuid::Uuid;

use super::Violation;
use crate::{
    log::{MemoryLog, Observation},
    store::MemoryStore,
};

/// Violations seen on the way. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    seen: Arc<Mutex<Vec<Violation>>>,
}

impl Watch {
    /// Watches from now on. `outputs` are the topics that only this context's relays write to
    /// (`<context>.events`, `<context>.dlq`), `inputs` those whose offsets it stores.
    pub fn install(log: &MemoryLog, store: &MemoryStore, inputs: &[&str], outputs: &[&str]) -> Self {
        let watch = Self::default();
        let owned = |list: &[&str]| -> BTreeSet<String> { list.iter().map(|name| (*name).to_owned()).collect() };
        let (inputs, outputs) = (owned(inputs), owned(outputs));
        let (seen, store) = (Arc::clone(&watch.seen), store.clone());
        let versions: Mutex<BTreeMap<(Bytes, Bytes), u64>> = Mutex::default();
        log.observe(move |what| {
            if let Observation::Appended(record) = what
                && outputs.contains(&*record.topic)
                && let Some(detail) = overtakes(record, &mut versions.lock().unwrap_or_else(PoisonError::into_inner))
            {
                let violation = Violation { invariant: Invariant::Order, detail };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
            }
            let detail = match what {
                Observation::Appended(record) if outputs.contains(&*record.topic) => match row_id(record) {
                    Some(id) if store.staged(&id) => None,
                    _ => Some(format!("{}@{} was published before it was stored", record.topic, record.offset)),
                },
                Observation::OffsetStored { topic, partition, next } if inputs.contains(*topic) => {
                    let committed = store.partition(*partition).and_then(|row| row.next_offset(topic)).unwrap_or(0);
                    (committed < *next)
                        .then(|| format!("{topic}-{partition}: offset {next} was stored at {committed} committed"))
                }
                _ => None,
            };
            if let Some(detail) = detail {
                let violation = Violation { invariant: Invariant::Durable, detail };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
            }
        });
        watch
    }

    /// What was seen so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// I3: whether an event appears before the one before it, in whatever partition that one is to appear. A
/// topic's partitions are read apart, so this is seen only while it happens.
fn overtakes(record: &Record, versions: &mut BTreeMap<(Bytes, Bytes), u64>) -> Option<String> {
    let of = |name| record.headers.get(name).map(Bytes::copy_from_slice);
    let version: u64 = std::str::from_utf8(record.headers.get(header::SEQUENCE)?).ok()?.parse().ok()?;
    // A dead letter keeps its headers, and is no event.
    if record.headers.get("dlt-id").is_some() {
        return None;
    }
    let last = versions.entry((of(header::SOURCE)?, record.key.clone()?)).or_default();
    let expected = *last + 1;
    *last = version.max(*last);
    (version > expected).then(|| {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        format!("{}-{}: version {version} of {key} was published before {expected}", record.topic, record.partition)
    })
}

/// The id of the outbox row that a record was made from: a dead letter says it in a header of its own.
pub(super) fn row_id(record: &Record) -> Option<Uuid> {
    let text = record.headers.get("dlt-id").or_else(|| record.headers.get(holdfast_core::envelope::header::ID))?;
    Uuid::try_parse(std::str::from_utf8(text).ok()?).ok()
}
