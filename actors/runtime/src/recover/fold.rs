//! From lost events to what is written for each aggregate. Pure, but for reading the states they follow.

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    time::Duration,
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, KeyHash, Message, TimerChange,
    batch::{Condition, EffectWrite, Entry, Intent, OutboxDraft, StateWrite, TimerWrite, ViewWrite, Writes},
    codec::{EncodedEffect, Outgoing},
    dedup::{ANSWER_LOST, ANY_BODY, Answer, Claim, Rejection},
    envelope::EnvelopeOut,
    pool::PoolChange,
    port::store::{self, StateRow, Wanted},
    ring::Ring,
    stuck::DISCARDED_TYPE,
};
use uuid::Uuid;

use super::{
    Error, Recovery, Summary,
    replay::{Mark, Replay, Replays, claim_of, home},
    tail::{Event, Tail, place},
};
use crate::kind::Refolded;

/// An aggregate with events that the database lacks.
pub(super) struct Lost {
    /// As it is stored.
    pub row: Option<StateRow>,
    /// What follows, by version, without a hole.
    pub events: BTreeMap<u64, Event>,
}

/// The answer to a command that was decided before the restore, without an event.
fn forgotten(version: u64) -> Answer {
    let rejection = Rejection {
        code: ANSWER_LOST.to_owned(),
        message: "this was decided, without effect, before the database was restored; the answer is lost".to_owned(),
    };
    Answer::Rejected { version, rejection }
}

/// The aggregates whose stored version is behind the topic. Takes the events out of `tail`.
pub(super) async fn lost(recovery: &Recovery, tail: &mut Tail) -> Result<BTreeMap<AggregateId, Lost>, Error> {
    let mut by_aggregate: BTreeMap<AggregateId, Vec<Event>> = BTreeMap::new();
    for event in tail.events.drain(..) {
        by_aggregate.entry(event.identity.aggregate.clone()).or_default().push(event);
    }
    let ids: Vec<AggregateId> = by_aggregate.keys().cloned().collect();
    let mut states: HashMap<AggregateId, StateRow> = HashMap::new();
    for chunk in ids.chunks(1024) {
        let wanted: Vec<Wanted> = chunk.iter().cloned().map(Wanted::state).collect();
        let found = store::states(recovery.ports.store.find(&wanted).await?)?;
        states.extend(chunk.iter().cloned().zip(found).filter_map(|(id, row)| Some((id, row?))));
    }
    let mut lost = BTreeMap::new();
    for (id, events) in by_aggregate {
        let row = states.remove(&id);
        let known = row.as_ref().map_or(0, |row| row.version);
        let mut following: BTreeMap<u64, Event> = BTreeMap::new();
        for event in events.into_iter().filter(|event| event.identity.version > known) {
            match following.entry(event.identity.version) {
                btree_map::Entry::Vacant(free) => _ = free.insert(event),
                // Published twice.
                btree_map::Entry::Occupied(first) if first.get().message.id == event.message.id => {}
                btree_map::Entry::Occupied(_) => {
                    let reason = format!("a second event at version {} of {id}", event.identity.version);
                    return Err(Error::Broken { place: place(&event.record), reason });
                }
            }
        }
        let hole = following.keys().zip(known + 1..).find(|(version, expected)| *version != expected);
        if let Some((version, expected)) = hole {
            let reason = format!("version {version} of {id}, but version {expected} is not in the topic");
            return Err(Error::Broken { place: place(&following[version].record), reason });
        }
        if !following.is_empty() {
            lost.insert(id, Lost { row, events: following });
        }
    }
    Ok(lost)
}

/// What is written for each.
pub(super) fn entries(
    recovery: &Recovery,
    lost: BTreeMap<AggregateId, Lost>,
    replays: &Replays,
    summary: &mut Summary,
) -> Result<Vec<Entry>, Error> {
    lost.into_iter()
        .map(|(id, lost)| {
            let replays = replays.get(&id).map_or(&[][..], Vec::as_slice);
            entry(recovery, id, lost, replays, summary)
        })
        .collect()
}

fn entry(
    recovery: &Recovery,
    id: AggregateId,
    lost: Lost,
    replays: &[Replay],
    summary: &mut Summary,
) -> Result<Entry, Error> {
    let kind = recovery.context.kind(id.kind).expect("an aggregate id is made from a kind");
    let messages = || lost.events.values().map(|event| &event.message);
    let folded = kind.refold(&id.key, lost.row.as_ref(), &mut messages(), recovery.ports.clock.now());
    let folded = folded.map_err(|(at, reason)| {
        let place = lost.events.values().nth(at).map_or_else(|| id.to_string(), |event| place(&event.record));
        Error::Unreadable { place, reason }
    })?;
    let discarded = lost.events.values().filter(|event| &*event.message.r#type == DISCARDED_TYPE);
    summary.discarded += discarded.count() as u64;
    let hash = KeyHash::of(id.key.as_bytes());
    let mut sources = lost.row.as_ref().map(|row| row.sources.clone()).unwrap_or_default();
    let claims = claims(recovery, &id, &lost, replays, &folded, &mut sources, summary);
    let timer = |change: TimerChange| {
        let (name, after) = match change {
            TimerChange::Set { name, after } => (name, Some(after)),
            TimerChange::Cancel { name } => (name, None),
        };
        (name, TimerWrite { id: id.clone(), hash, name: name.to_owned(), after, serial: None })
    };
    // A later change of the same timer wins.
    let timers: BTreeMap<&str, TimerWrite> = folded.timers.into_iter().map(timer).collect();
    // Effects that had ended are made once more; the called system recognises the repeat. A later change of
    // the same effect wins.
    let effect = |effect: EncodedEffect| {
        let intend = |request| Intent { request, hold: Duration::ZERO, correlation: None, traceparent: None };
        let intent = effect.request.map(intend);
        (effect.name.clone(), EffectWrite { id: id.clone(), hash, name: effect.name, intent })
    };
    let effects: BTreeMap<String, EffectWrite> = folded.effects.into_iter().map(effect).collect();
    // Those that were published are sent once more, under the same ids.
    let causes: Vec<&Event> = lost.events.values().collect();
    let commands = folded.commands.iter().map(|(at, id, command)| command_draft(recovery, causes[*at], *id, command));
    let commands: Vec<OutboxDraft> = commands.collect();
    let version = lost.events.keys().next_back().copied().unwrap_or_default();
    let wants = net(folded.pools);
    let partition = home(recovery, &id);
    let outbox = lost.events.into_values().map(draft).chain(commands).collect();
    let writes = Writes {
        state: Some(StateWrite {
            id: id.clone(),
            hash,
            expected: lost.row.as_ref().map_or(0, |row| row.version),
            revision: lost.row.as_ref().map_or(0, |row| row.revision),
            version,
            schema: folded.schema,
            bytes: folded.bytes,
            sources,
            ring: Ring::default(), // filled once it is known which claims are new
            spills: false,
        }),
        outbox,
        claims,
        timers: timers.into_values().collect(),
        effects: effects.into_values().collect(),
        view: folded.view.map(|row| ViewWrite { id, row }),
        ..Writes::default()
    };
    let condition = (!wants.is_empty()).then(|| Condition { wants, refused: Writes::default() });
    Ok(Entry { partition, condition, writes })
}

/// The record as it was published.
fn draft(event: Event) -> OutboxDraft {
    let Event { message, record, .. } = event;
    OutboxDraft {
        id: message.id,
        topic: record.topic,
        target: record.partition,
        key: record.key,
        headers: record.headers,
        value: record.value,
    }
}

/// A message that `cause` sends to another aggregate.
fn command_draft(recovery: &Recovery, cause: &Event, id: Uuid, command: &Outgoing) -> OutboxDraft {
    let causation = cause.message.id;
    let out = EnvelopeOut {
        correlation: cause.message.correlation.as_deref(),
        causation: Some(causation),
        ..EnvelopeOut::new(id, &cause.message.source, command.r#type, recovery.ports.clock.now(), &command.key)
    };
    let target = home(recovery, &AggregateId { kind: "", key: command.key.as_str().into() });
    let (topic, key) =
        (recovery.context.commands_topic().clone(), Some(Bytes::copy_from_slice(command.key.as_bytes())));
    let mut draft =
        OutboxDraft { id, topic, target, key, headers: out.headers(), value: Some(command.payload.clone()) };
    let sent =
        Message::new(id, cause.message.source.clone(), command.r#type, command.key.as_str(), command.payload.clone());
    recovery.emit.seal(&mut draft, &sent);
    draft
}

/// What all changes come to, pool by pool.
fn net(changes: Vec<PoolChange>) -> Vec<PoolChange> {
    let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for change in changes {
        let sum = sums.entry(change.pool).or_default();
        *sum = (sum.0.saturating_add(change.total), sum.1.saturating_add(change.held));
    }
    sums.retain(|_, sum| *sum != (0, 0));
    sums.into_iter().map(|(pool, (total, held))| PoolChange { pool, total, held }).collect()
}

/// The claims of the messages that caused these events, and of those decided before them without one.
fn claims(
    recovery: &Recovery,
    id: &AggregateId,
    lost: &Lost,
    replays: &[Replay],
    folded: &Refolded,
    sources: &mut BTreeMap<String, u64>,
    summary: &mut Summary,
) -> Vec<Claim> {
    // The version after the last event of each cause, and the reply at that version.
    let mut causes: HashMap<Uuid, (u64, &Bytes)> = HashMap::new();
    for ((version, event), reply) in lost.events.iter().zip(&folded.replies) {
        if let Some(cause) = event.message.causation.as_deref().and_then(|text| Uuid::try_parse(text).ok()) {
            causes.insert(cause, (*version, reply));
        }
    }
    let mut claims: BTreeMap<_, Claim> = BTreeMap::new();
    let mut last = None;
    for replay in replays {
        let Some((version, _)) = causes.get(&replay.id) else { continue };
        last = last.max(replay.order);
        match &replay.mark {
            Mark::Claim(key, body) => {
                let answer = Answer::Applied { version: *version, reply: Bytes::new() };
                claims.insert(*key, Claim { key: *key, body: *body, answer });
            }
            Mark::Sequence(source, sequence) => {
                let seen = sources.entry(source.clone()).or_default();
                *seen = (*seen).max(*sequence);
            }
        }
    }
    summary.claims_of_commands += claims.len() as u64;
    // An aggregate's commands are decided in the order of their partition: whatever lies before one that had
    // its event was decided too.
    let known = lost.row.as_ref().map_or(0, |row| row.version);
    for replay in replays.iter().filter(|replay| replay.order.is_some() && replay.order < last) {
        if let Mark::Claim(key, body) = &replay.mark
            && !causes.contains_key(&replay.id)
            && !claims.contains_key(key)
        {
            claims.insert(*key, Claim { key: *key, body: *body, answer: forgotten(known) });
            summary.decided_without_event += 1;
        }
    }
    let replayed: std::collections::HashSet<Uuid> = replays.iter().map(|replay| replay.id).collect();
    for (cause, (version, reply)) in causes.iter().filter(|(cause, _)| !replayed.contains(cause)) {
        for source in &recovery.settings.callers {
            let key = claim_of(id, *cause, source);
            let answer = Answer::Applied { version: *version, reply: (*reply).clone() };
            claims.insert(key, Claim { key, body: ANY_BODY, answer });
        }
        summary.claims_of_calls += 1;
    }
    let mut claims: Vec<Claim> = claims.into_values().collect();
    claims.sort_by_key(|claim| claim.answer.version());
    claims
}
