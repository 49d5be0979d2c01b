//! The parameters of a commit's statement: one array per column.
//!
//! In the order in which the text asks for them; each function adds those of one part. Deliberately absent:
//! the text.

use std::collections::HashSet;

use bytes::Bytes;
use holdfast_core::{
    AggregateId, Timestamp,
    batch::{MailboxWrite, OutboxDraft, StateWrite, Unfiled, ViewWrite},
    envelope::Record,
};
use sqlx::{
    Arguments as _, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgBindIterExt as _, PgTypeInfo},
    types::Json,
};

use super::{
    HAS_CLAIMS, HAS_DEAD_LETTERS, HAS_EFFECTS_SET, HAS_EFFECTS_UNSET, HAS_INSERTS, HAS_MAILBOX, HAS_OUTBOX, HAS_POOLS,
    HAS_SEGMENTS, HAS_TIMERS_PUT_OFF, HAS_TIMERS_SET, HAS_TIMERS_UNSET, HAS_UNBORN, HAS_UNFILED, HAS_UPDATES,
};
use crate::{
    days,
    rows::{Rows, ms},
};

/// Keys, ids, lengths and the like of a row, about.
const ROW_BYTES: usize = 192;
/// A view's row, about.
const VIEW_BYTES: usize = 512;

/// All parameters of the statement that has the parts of `mask`.
pub(super) fn arguments(rows: &Rows<'_>, mask: u32) -> Result<PgArguments, BoxDynError> {
    let has = |bit| mask & bit != 0;
    let mut to = PgArguments::default();
    to.reserve(48, size(rows));
    fences(&mut to, rows)?;
    if has(HAS_UPDATES) {
        names(&mut to, rows.updates.iter().map(|state| &state.id))?;
        to.add(rows.updates.iter().map(|state| state.expected.cast_signed()).bind_iter())?;
        state(&mut to, &rows.updates, rows.has_rings)?;
    }
    if has(HAS_INSERTS) {
        names(&mut to, rows.inserts.iter().map(|state| &state.id))?;
        to.add(rows.inserts.iter().map(|state| state.hash.as_i32()).bind_iter())?;
        state(&mut to, &rows.inserts, rows.has_rings)?;
    }
    if has(HAS_UNBORN) {
        names(&mut to, rows.unborn.iter().map(|state| &state.id))?;
        to.add(rows.unborn.iter().map(|state| state.revision.cast_signed()).bind_iter())?;
    }
    if has(HAS_OUTBOX) {
        outbox(&mut to, rows)?;
    }
    if has(HAS_SEGMENTS) {
        segments(&mut to, rows)?;
    }
    if has(HAS_CLAIMS) {
        claims(&mut to, rows)?;
    }
    if has(HAS_TIMERS_SET) {
        names(&mut to, rows.timers_set.iter().map(|(timer, _)| &timer.id))?;
        to.add(rows.timers_set.iter().map(|(timer, _)| timer.name.as_str()).bind_iter())?;
        to.add(rows.timers_set.iter().map(|(timer, _)| timer.hash.as_i32()).bind_iter())?;
        to.add(rows.timers_set.iter().map(|(_, ms)| *ms).bind_iter())?;
    }
    if has(HAS_TIMERS_UNSET) {
        names(&mut to, rows.timers_unset.iter().map(|timer| &timer.id))?;
        to.add(rows.timers_unset.iter().map(|timer| timer.name.as_str()).bind_iter())?;
        to.add(rows.timers_unset.iter().map(|timer| timer.serial).bind_iter())?;
    }
    if has(HAS_TIMERS_PUT_OFF) {
        names(&mut to, rows.timers_put_off.iter().map(|(timer, ..)| &timer.id))?;
        to.add(rows.timers_put_off.iter().map(|(timer, ..)| timer.name.as_str()).bind_iter())?;
        to.add(rows.timers_put_off.iter().map(|(_, serial, _)| *serial).bind_iter())?;
        to.add(rows.timers_put_off.iter().map(|(.., ms)| *ms).bind_iter())?;
    }
    if has(HAS_EFFECTS_SET) {
        names(&mut to, rows.effects_set.iter().map(|(effect, _)| &effect.id))?;
        to.add(rows.effects_set.iter().map(|(effect, _)| effect.name.as_str()).bind_iter())?;
        to.add(rows.effects_set.iter().map(|(effect, _)| effect.hash.as_i32()).bind_iter())?;
        to.add(rows.effects_set.iter().map(|(_, intent)| &intent.request[..]).bind_iter())?;
        to.add(rows.effects_set.iter().map(|(_, intent)| ms(intent.hold)).bind_iter())?;
        to.add(rows.effects_set.iter().map(|(_, intent)| intent.correlation.as_deref()).bind_iter())?;
        to.add(rows.effects_set.iter().map(|(_, intent)| intent.traceparent.as_deref()).bind_iter())?;
    }
    if has(HAS_EFFECTS_UNSET) {
        names(&mut to, rows.effects_unset.iter().map(|effect| &effect.id))?;
        to.add(rows.effects_unset.iter().map(|effect| effect.name.as_str()).bind_iter())?;
    }
    if has(HAS_MAILBOX) {
        mailbox(&mut to, &rows.mailbox)?;
    }
    if has(HAS_DEAD_LETTERS) {
        dead_letters(&mut to, rows)?;
    }
    if has(HAS_UNFILED) {
        unfiled(&mut to, &rows.unfiled)?;
    }
    if has(HAS_POOLS) {
        to.add(rows.pools.iter().map(|(name, ..)| *name).bind_iter())?;
        to.add(rows.pools.iter().map(|(_, total, _)| *total).bind_iter())?;
        to.add(rows.pools.iter().map(|(.., held)| *held).bind_iter())?;
    }
    for view in rows.views.iter().filter(|view| !view.is_empty()) {
        to.add(view_rows(view)?)?;
    }
    to.add(count(rows.fences.len()))?;
    for (bit, expected) in
        [(HAS_UPDATES, rows.updates.len()), (HAS_INSERTS, rows.inserts.len()), (HAS_POOLS, rows.pools.len())]
    {
        if has(bit) {
            to.add(count(expected))?;
        }
    }
    Ok(to)
}

/// About the bytes of the parameters that usually dominate: a buffer that grows is copied, and each copy
/// touches fresh pages, which the kernel clears.
fn size(rows: &Rows<'_>) -> usize {
    let states = rows.updates.iter().chain(&rows.inserts);
    let states = states.map(|state| state.bytes.len() + state.ring.bytes().len() + ROW_BYTES);
    let value = |draft: &OutboxDraft| draft.value.as_ref().map_or(0, Bytes::len);
    let outbox = rows.outbox.iter().map(|row| value(&row.draft) + 2 * ROW_BYTES);
    let segments = rows.segments.iter().map(|segment| segment.data.len() + ROW_BYTES);
    let views = rows.views.iter().map(|view| view.len() * VIEW_BYTES);
    states.chain(outbox).chain(segments).chain(views).sum::<usize>() + (rows.claims.len() + 16) * ROW_BYTES
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn fences(to: &mut PgArguments, rows: &Rows<'_>) -> Result<(), BoxDynError> {
    let all = || rows.fences.iter().map(|row| row.fence);
    to.add(all().map(|fence| fence.partition.0.cast_signed()).bind_iter())?;
    to.add(all().map(|fence| fence.token.0).bind_iter())?;
    to.add(all().map(|fence| fence.generation.0.cast_signed()).bind_iter())?;
    to.add(all().map(|fence| fence.number.cast_signed()).bind_iter())?;
    to.add(rows.fences.iter().map(|row| row.head.cast_signed()).bind_iter())?;
    to.add(all().map(|fence| fence.cursor.unwrap_or(0).cast_signed()).bind_iter())?;
    let consumed: Vec<String> = all().map(|fence| object(&fence.consumed)).collect::<Result<_, _>>()?;
    to.add(consumed)?;
    Ok(())
}

/// A JSON object of numbers.
fn object<K: AsRef<str>>(pairs: &[(K, u64)]) -> Result<String, serde_json::Error> {
    let pairs = pairs.iter().map(|(name, number)| (name.as_ref().to_owned(), (*number).into()));
    serde_json::to_string(&serde_json::Value::Object(pairs.collect()))
}

/// Kind and key.
fn names<'a>(to: &mut PgArguments, ids: impl Iterator<Item = &'a AggregateId> + Clone) -> Result<(), BoxDynError> {
    to.add(ids.clone().map(|id| id.kind).bind_iter())?;
    to.add(ids.map(|id| &*id.key).bind_iter())
}

fn state(to: &mut PgArguments, states: &[&StateWrite], has_rings: bool) -> Result<(), BoxDynError> {
    to.add(states.iter().map(|state| state.revision.cast_signed()).bind_iter())?;
    to.add(states.iter().map(|state| state.version.cast_signed()).bind_iter())?;
    let is_changed = |state: &StateWrite| state.expected == 0 || state.version > state.expected;
    to.add(states.iter().map(|state| is_changed(state).then_some(state.schema.cast_signed())).bind_iter())?;
    to.add(states.iter().map(|state| is_changed(state).then_some(&state.bytes[..])).bind_iter())?;
    let json = |state: &&StateWrite| {
        let some = !state.sources.is_empty();
        some.then(|| serde_json::to_string(&state.sources)).transpose()
    };
    let sources: Vec<Option<String>> = states.iter().map(json).collect::<Result<_, _>>()?;
    to.add(sources)?;
    to.add(states.iter().map(|state| has_rings.then_some(&state.ring.bytes()[..])).bind_iter())?;
    to.add(states.iter().map(|state| has_rings && state.spills).bind_iter())
}

fn outbox(to: &mut PgArguments, rows: &Rows<'_>) -> Result<(), BoxDynError> {
    let all = || rows.outbox.iter().map(|row| &row.draft);
    to.add(rows.outbox.iter().map(|row| row.partition.0.cast_signed()).bind_iter())?;
    to.add(rows.outbox.iter().map(|row| row.sequence.cast_signed()).bind_iter())?;
    to.add(all().map(|draft| draft.id).bind_iter())?;
    to.add(all().map(|draft| &*draft.topic).bind_iter())?;
    to.add(all().map(|draft| draft.target.0.cast_signed()).bind_iter())?;
    to.add(all().map(|draft| draft.key.as_deref()).bind_iter())?;
    to.add(all().map(|draft| draft.headers.to_bytes()).bind_iter())?;
    to.add(all().map(|draft| draft.value.as_deref()).bind_iter())
}

fn segments(to: &mut PgArguments, rows: &Rows<'_>) -> Result<(), BoxDynError> {
    let all = || rows.segments.iter();
    to.add(all().map(|segment| segment.partition.0.cast_signed()).bind_iter())?;
    to.add(all().map(|segment| segment.last.cast_signed()).bind_iter())?;
    to.add(all().map(|segment| segment.id).bind_iter())?;
    to.add(all().map(|segment| segment.records.cast_signed()).bind_iter())?;
    to.add(all().map(|segment| i32::try_from(segment.bytes).unwrap_or(i32::MAX)).bind_iter())?;
    to.add(all().map(|segment| &segment.data[..]).bind_iter())
}

fn claims(to: &mut PgArguments, rows: &Rows<'_>) -> Result<(), BoxDynError> {
    to.add(rows.claims.iter().map(|claim| claim.key.id).bind_iter())?;
    to.add(rows.claims.iter().map(|claim| claim.key.scope).bind_iter())?;
    to.add(rows.claims.iter().map(|claim| claim.body).bind_iter())?;
    to.add(rows.claims.iter().map(|claim| claim.answer.to_bytes()).bind_iter())?;
    to.add(rows.claims.iter().map(|claim| days::made_on(&claim.key.id).unwrap_or(0)).bind_iter())
}

fn dead_letters(to: &mut PgArguments, rows: &Rows<'_>) -> Result<(), BoxDynError> {
    let all = || rows.dead_letters.iter();
    let id = |id: &Option<AggregateId>| id.clone();
    let ids: Vec<Option<AggregateId>> = all().map(|letter| id(&letter.aggregate)).collect();
    to.add(all().map(|letter| letter.id).bind_iter())?;
    to.add(ids.iter().map(|id| id.as_ref().map(|id| id.kind)).bind_iter())?;
    to.add(ids.iter().map(|id| id.as_ref().map(|id| &*id.key)).bind_iter())?;
    to.add(all().map(|letter| letter.hash.as_i32()).bind_iter())?;
    to.add(all().map(|letter| &*letter.topic).bind_iter())?;
    to.add(all().map(|letter| letter.partition.0.cast_signed()).bind_iter())?;
    to.add(all().map(|letter| letter.offset.cast_signed()).bind_iter())?;
    to.add(all().map(|letter| letter.reason.as_str()).bind_iter())?;
    to.add(all().map(|letter| letter.error.as_str()).bind_iter())?;
    to.add(all().map(|letter| letter.attempts.cast_signed()).bind_iter())
}

fn unfiled(to: &mut PgArguments, rows: &[&Unfiled]) -> Result<(), BoxDynError> {
    let all = || rows.iter().map(|row| &row.record);
    to.add(rows.iter().map(|row| row.id).bind_iter())?;
    to.add(rows.iter().map(|row| row.error.as_bytes()).bind_iter())?;
    to.add(all().map(|record| record.topic.as_bytes()).bind_iter())?;
    to.add(all().map(|record| i64::from(record.partition.0)).bind_iter())?;
    let offsets: Vec<String> = all().map(|record| record.offset.to_string()).collect();
    to.add(offsets)?;
    to.add(all().map(|record| record.timestamp.map(Timestamp::unix_ms)).bind_iter())?;
    to.add(all().map(|record| record.key.as_deref()).bind_iter())?;
    to.add(all().map(|record| record.headers.to_bytes()).bind_iter())?;
    to.add(all().map(|record| record.value.as_deref()).bind_iter())
}

fn mailbox(to: &mut PgArguments, changes: &[&MailboxWrite]) -> Result<(), BoxDynError> {
    let removes = || {
        changes.iter().filter_map(|change| match change {
            MailboxWrite::Remove { position } => Some(*position),
            _ => None,
        })
    };
    to.add(removes().bind_iter())?;
    let defers = || {
        changes.iter().filter_map(|change| match change {
            MailboxWrite::Defer { position, reason, attempts, after, error } => {
                Some((*position, reason.as_str(), attempts.cast_signed(), ms(*after), error.as_str()))
            }
            _ => None,
        })
    };
    to.add(defers().map(|(position, ..)| position).bind_iter())?;
    to.add(defers().map(|(_, reason, ..)| reason).bind_iter())?;
    to.add(defers().map(|(_, _, attempts, ..)| attempts).bind_iter())?;
    to.add(defers().map(|(.., ms, _)| ms).bind_iter())?;
    to.add(defers().map(|(.., error)| error).bind_iter())?;
    puts(to, changes)
}

fn puts(to: &mut PgArguments, changes: &[&MailboxWrite]) -> Result<(), BoxDynError> {
    struct Put<'a> {
        id: &'a AggregateId,
        hash: i32,
        reason: &'static str,
        attempts: i32,
        ms: Option<i64>,
        first: bool,
        since: i64,
        error: &'a str,
        record: &'a Record,
    }
    let mut seen = HashSet::new();
    let put = |change| match change {
        &MailboxWrite::Put { ref id, hash, reason, attempts, after, since, ref error, ref record } => Some(Put {
            id,
            hash: hash.as_i32(),
            reason: reason.as_str(),
            attempts: attempts.cast_signed(),
            ms: after.map(ms),
            first: seen.insert(id),
            since: since.unix_ms(),
            error,
            record,
        }),
        _ => None,
    };
    let puts: Vec<Put<'_>> = changes.iter().copied().filter_map(put).collect();
    names(to, puts.iter().map(|put| put.id))?;
    to.add(puts.iter().map(|put| put.hash).bind_iter())?;
    to.add(puts.iter().map(|put| put.reason).bind_iter())?;
    to.add(puts.iter().map(|put| put.attempts).bind_iter())?;
    to.add(puts.iter().map(|put| put.ms).bind_iter())?;
    to.add(puts.iter().map(|put| put.first).bind_iter())?;
    to.add(puts.iter().map(|put| put.since).bind_iter())?;
    to.add(puts.iter().map(|put| put.error).bind_iter())?;
    let all = || puts.iter().map(|put| put.record);
    to.add(all().map(|record| &*record.topic).bind_iter())?;
    to.add(all().map(|record| record.partition.0.cast_signed()).bind_iter())?;
    to.add(all().map(|record| record.offset.cast_signed()).bind_iter())?;
    to.add(all().map(|record| record.timestamp.map(Timestamp::unix_ms)).bind_iter())?;
    to.add(all().map(|record| record.key.as_deref()).bind_iter())?;
    to.add(all().map(|record| record.headers.to_bytes()).bind_iter())?;
    to.add(all().map(|record| record.value.as_ref().map(Bytes::as_ref)).bind_iter())
}

/// The rows of a view as one array, the aggregate's key added to each as `_key`.
fn view_rows(rows: &[&ViewWrite]) -> Result<RawJson, BoxDynError> {
    let mut json = Vec::with_capacity(rows.len() * VIEW_BYTES + 2);
    json.push(b'[');
    for (n, view) in rows.iter().enumerate() {
        json.extend_from_slice(if n == 0 { b"{\"_key\":" } else { b",{\"_key\":" });
        serde_json::to_writer(&mut json, &*view.id.key)?;
        let rest = view.row.text().strip_prefix(b"{").ok_or("a view's row is no JSON object")?;
        if rest != b"}" {
            json.push(b',');
        }
        json.extend_from_slice(rest);
    }
    json.push(b']');
    Ok(RawJson(json))
}

/// JSON text, sent as jsonb without parsing it again here.
struct RawJson(Vec<u8>);

impl Type<Postgres> for RawJson {
    fn type_info() -> PgTypeInfo {
        <Json<()> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for RawJson {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // The version of jsonb's binary form; text follows.
        buffer.push(1);
        buffer.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }
}
