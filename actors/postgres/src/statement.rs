//! The one statement that writes a commit: a chain of CTEs, made of the parts that this batch needs.
//!
//! Upholds I4 and I3: the final select refuses the whole statement (an error, hence a rollback of everything
//! in it) unless every fence held and every version was as expected. So no insert needs to be joined to the
//! fence, the statement can be its own transaction, and it costs one round trip. Rows travel as one array per
//! column, never one statement per row. Deliberately absent: deciding what to write (see [`crate::rows`]) and
//! running it (see [`crate::commit`]).
//!
//! Each part is a text with `?` for its parameters and a function that adds them, side by side, in one order.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, Timestamp,
    batch::{MailboxWrite, OutboxDraft, StateWrite, Unfiled, ViewWrite},
    envelope::Record,
};
use sqlx::{
    Arguments as _, AssertSqlSafe, Encode, Postgres, SqlSafeStr as _, SqlStr, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgBindIterExt as _, PgTypeInfo},
    types::Json,
};

use crate::{
    config::View,
    days,
    rows::{Rows, ms},
};

/// A statement ready to run.
pub(crate) struct Statement {
    pub(crate) sql: SqlStr,
    pub(crate) arguments: PgArguments,
}

/// The fence: rows locked in partition order, so that commits over common partitions can't deadlock, then
/// advanced. The condition is checked on the row as it is once the lock is had.
const FENCE: &str = "
with locked as materialized (
    select p.partition, f.number, f.head, f.cursor, f.consumed
    from unnest(?::int[], ?::uuid[], ?::int[], ?::bigint[], ?::bigint[], ?::bigint[], ?::text[])
        as f(partition, token, generation, number, head, cursor, consumed)
    join partitions p
        on p.partition = f.partition and p.token = f.token and p.generation = f.generation and p.batch = f.number - 1
    order by p.partition for update of p),
fenced as (
    update partitions p set batch = l.number, outbox_head = l.head, consumed = p.consumed || l.consumed::jsonb,
        outbox_cursor = greatest(p.outbox_cursor, l.cursor)
    from locked l where p.partition = l.partition
    returning 1)";

/// New versions of states, where the stored version is the expected one.
const UPDATES: &str = ",
updated as (
    update aggregates a set version = u.version, schema = u.schema, state = u.state, sources = u.sources::jsonb
    from unnest(?::text[], ?::text[], ?::bigint[], ?::bigint[], ?::int[], ?::bytea[], ?::text[])
        as u(kind, key, expected, version, schema, state, sources)
    where a.key = u.key and a.kind = u.kind and a.version = u.expected
    returning 1)";

/// First versions. `do nothing` makes an existing row a missing count (a conflict), not a 23505 (which would
/// be the row's own fault).
const INSERTS: &str = ",
inserted as (
    insert into aggregates (kind, key, hash, version, schema, state, sources)
    select kind, key, hash, version, schema, state, sources::jsonb
    from unnest(?::text[], ?::text[], ?::int[], ?::bigint[], ?::int[], ?::bytea[], ?::text[])
        as u(kind, key, hash, version, schema, state, sources)
    on conflict do nothing
    returning 1)";

const OUTBOX: &str = ",
staged as (
    insert into outbox (partition, sequence, id, topic, target, key, headers, value)
    select * from unnest(?::int[], ?::bigint[], ?::uuid[], ?::text[], ?::int[], ?::bytea[], ?::bytea[], ?::bytea[]))";

/// `made` is the day inside the id (see [`crate::days`]): a claim is filed under today, under tomorrow if its
/// id says so, else under an early day.
const CLAIMS: &str = ",
claimed as (
    insert into claims (id, scope, body, answer, day)
    select id, scope, body, answer, case
        when date '1970-01-01' + made <= current_date + 1 then greatest(current_date, date '1970-01-01' + made)
        else early(current_date) end
    from unnest(?::uuid[], ?::uuid[], ?::uuid[], ?::bytea[], ?::int[]) as u(id, scope, body, answer, made))";

const TIMERS_SET: &str = ",
timed as (
    insert into timers (kind, key, name, hash, due)
    select kind, key, name, hash, now() + ms * interval '1 millisecond'
    from unnest(?::text[], ?::text[], ?::text[], ?::int[], ?::bigint[]) as u(kind, key, name, hash, ms)
    on conflict (key, kind, name) do update set due = excluded.due, serial = default)";

/// Whatever is set, or one setting alone.
const TIMERS_UNSET: &str = ",
untimed as (
    delete from timers t using unnest(?::text[], ?::text[], ?::text[], ?::bigint[]) as u(kind, key, name, serial)
    where t.key = u.key and t.kind = u.kind and t.name = u.name and t.serial = coalesce(u.serial, t.serial))";

/// One setting, which stays the same one.
const TIMERS_PUT_OFF: &str = ",
retimed as (
    update timers t set due = now() + u.ms * interval '1 millisecond'
    from unnest(?::text[], ?::text[], ?::text[], ?::bigint[], ?::bigint[]) as u(kind, key, name, serial, ms)
    where t.key = u.key and t.kind = u.kind and t.name = u.name and t.serial = u.serial)";

/// An effect that is intended already stays as it is: its first attempt may be under way.
const EFFECTS_SET: &str = ",
intended as (
    insert into effects (kind, key, name, hash, request, due, correlation, traceparent)
    select kind, key, name, hash, request, now() + ms * interval '1 millisecond', correlation, traceparent
    from unnest(?::text[], ?::text[], ?::text[], ?::int[], ?::bytea[], ?::bigint[], ?::text[], ?::text[])
        as u(kind, key, name, hash, request, ms, correlation, traceparent)
    on conflict do nothing)";

const EFFECTS_UNSET: &str = ",
ended as (
    delete from effects e using unnest(?::text[], ?::text[], ?::text[]) as u(kind, key, name)
    where e.key = u.key and e.kind = u.kind and e.name = u.name)";

/// All changes of mailboxes. The parts of one statement don't see each other's rows, so each says whom it
/// leaves out: the next head is the first that is neither removed nor deferred here; a message put behind
/// nothing is a head and due.
const MAILBOX: &str = ",
gone as materialized (
    select m.position, m.kind, m.key from unnest(?::bigint[]) as g(position) join mailbox m on m.position = g.position),
removed as (delete from mailbox where position in (select position from gone)),
put_off as materialized (
    select * from unnest(?::bigint[], ?::text[], ?::int[], ?::bigint[], ?::text[])
        as d(position, reason, attempts, ms, error)),
deferred as (
    update mailbox m set reason = d.reason, attempts = d.attempts, error = d.error,
        due = now() + d.ms * interval '1 millisecond'
    from put_off d where m.position = d.position),
promoted as (
    update mailbox m set due = now()
    from (select distinct kind, key from gone) g cross join lateral (
        select position from mailbox q
        where q.key = g.key and q.kind = g.kind and not exists (select from gone where gone.position = q.position)
        order by position limit 1) h
    where m.position = h.position and (m.due is null or m.due > now())
        and not exists (select from put_off where put_off.position = m.position)),
put as (
    insert into mailbox (kind, key, hash, reason, attempts, due, since, error,
        topic, partition, \"offset\", record_timestamp, record_key, headers, value)
    select kind, key, hash, reason, attempts,
        case when ms is not null then now() + ms * interval '1 millisecond'
            when first and not exists (select from mailbox q where q.key = u.key and q.kind = u.kind
                and not exists (select from gone where gone.position = q.position)) then now() end,
        timestamptz 'epoch' + since * interval '1 millisecond', error,
        topic, partition, \"offset\", record_timestamp, record_key, headers, value
    from unnest(?::text[], ?::text[], ?::int[], ?::text[], ?::int[], ?::bigint[], ?::bool[], ?::bigint[], ?::text[],
        ?::text[], ?::int[], ?::bigint[], ?::bigint[], ?::bytea[], ?::bytea[], ?::bytea[]) with ordinality
        as u(kind, key, hash, reason, attempts, ms, first, since, error,
            topic, partition, \"offset\", record_timestamp, record_key, headers, value, n)
    order by n)";

const DEAD_LETTERS: &str = ",
buried as (
    insert into dead_letters (id, kind, key, hash, topic, partition, \"offset\", reason, error, attempts)
    select * from unnest(?::uuid[], ?::text[], ?::text[], ?::int[], ?::text[], ?::int[], ?::bigint[], ?::text[], ?::text[],
        ?::int[]))";

/// Columns that accept whatever the others have refused.
const UNFILED: &str = ",
laid_aside as (
    insert into unfiled (id, error, topic, partition, \"offset\", record_timestamp, record_key, headers, value)
    select id, error, topic, partition, place::numeric, record_timestamp, record_key, headers, value
    from unnest(?::uuid[], ?::bytea[], ?::bytea[], ?::bigint[], ?::text[], ?::bigint[], ?::bytea[], ?::bytea[], ?::bytea[])
        as u(id, error, topic, partition, place, record_timestamp, record_key, headers, value))";

/// The rows were locked before, and those missing made.
const POOLS: &str = ",
pooled as (
    update pools p set total = u.total, held = u.held
    from unnest(?::text[], ?::bigint[], ?::bigint[]) as u(name, total, held) where p.name = u.name
    returning 1)";

/// `case` looks at one condition after the other, and a count makes its part run: so the fence is locked
/// before anything else is written.
const VERDICT: &str = "
select case when (select count(*) from fenced) <> ? then refuse_stale()";

const HAS_UPDATES: u32 = 1;
const HAS_INSERTS: u32 = 1 << 1;
const HAS_OUTBOX: u32 = 1 << 2;
const HAS_CLAIMS: u32 = 1 << 3;
const HAS_TIMERS_SET: u32 = 1 << 4;
const HAS_TIMERS_UNSET: u32 = 1 << 5;
const HAS_MAILBOX: u32 = 1 << 6;
const HAS_DEAD_LETTERS: u32 = 1 << 7;
const HAS_POOLS: u32 = 1 << 8;
const HAS_EFFECTS_SET: u32 = 1 << 9;
const HAS_EFFECTS_UNSET: u32 = 1 << 10;
const HAS_UNFILED: u32 = 1 << 11;
const HAS_TIMERS_PUT_OFF: u32 = 1 << 12;
const FIRST_VIEW: u32 = 13;

/// Keys, ids, lengths and the like of a row, about.
const ROW_BYTES: usize = 192;
/// A view's row, about.
const VIEW_BYTES: usize = 512;

/// Parts of the statement, in the order of their text and parameters.
fn parts(rows: &Rows<'_>) -> u32 {
    let mut mask = 0;
    for (bit, needed) in [
        (HAS_UPDATES, !rows.updates.is_empty()),
        (HAS_INSERTS, !rows.inserts.is_empty()),
        (HAS_OUTBOX, !rows.outbox.is_empty()),
        (HAS_CLAIMS, !rows.claims.is_empty()),
        (HAS_TIMERS_SET, !rows.timers_set.is_empty()),
        (HAS_TIMERS_UNSET, !rows.timers_unset.is_empty()),
        (HAS_TIMERS_PUT_OFF, !rows.timers_put_off.is_empty()),
        (HAS_EFFECTS_SET, !rows.effects_set.is_empty()),
        (HAS_EFFECTS_UNSET, !rows.effects_unset.is_empty()),
        (HAS_MAILBOX, !rows.mailbox.is_empty()),
        (HAS_DEAD_LETTERS, !rows.dead_letters.is_empty()),
        (HAS_UNFILED, !rows.unfiled.is_empty()),
        (HAS_POOLS, !rows.pools.is_empty()),
    ] {
        mask |= if needed { bit } else { 0 };
    }
    for (n, view) in (FIRST_VIEW..).zip(&rows.views) {
        mask |= u32::from(!view.is_empty()) << n;
    }
    mask
}

/// Makes statements, and remembers their texts.
pub(crate) struct Statements {
    views: Vec<View>,
    texts: Mutex<HashMap<u32, SqlStr>>,
}

impl Statements {
    /// At most 16 views.
    pub(crate) fn new(views: Vec<View>) -> Self {
        Self { views, texts: Mutex::default() }
    }

    pub(crate) fn views(&self) -> &[View] {
        &self.views
    }

    /// The statement that writes `rows`.
    pub(crate) fn make(&self, rows: &Rows<'_>) -> Result<Statement, BoxDynError> {
        let mask = parts(rows);
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = texts.entry(mask).or_insert_with(|| AssertSqlSafe(self.text(mask)).into_sql_str()).clone();
        drop(texts);
        Ok(Statement { sql, arguments: arguments(rows, mask)? })
    }

    fn text(&self, mask: u32) -> String {
        let mut text = Text::default();
        text.push(FENCE);
        for (bit, part) in [
            (HAS_UPDATES, UPDATES),
            (HAS_INSERTS, INSERTS),
            (HAS_OUTBOX, OUTBOX),
            (HAS_CLAIMS, CLAIMS),
            (HAS_TIMERS_SET, TIMERS_SET),
            (HAS_TIMERS_UNSET, TIMERS_UNSET),
            (HAS_TIMERS_PUT_OFF, TIMERS_PUT_OFF),
            (HAS_EFFECTS_SET, EFFECTS_SET),
            (HAS_EFFECTS_UNSET, EFFECTS_UNSET),
            (HAS_MAILBOX, MAILBOX),
            (HAS_DEAD_LETTERS, DEAD_LETTERS),
            (HAS_UNFILED, UNFILED),
            (HAS_POOLS, POOLS),
        ] {
            text.push(if mask & bit == 0 { "" } else { part });
        }
        for (n, view) in (FIRST_VIEW..).zip(&self.views) {
            if mask & 1 << n != 0 {
                text.push_view(&format!("view_{n}"), view.upsert);
            }
        }
        text.push(VERDICT);
        for (bit, counted) in [(HAS_UPDATES, "updated"), (HAS_INSERTS, "inserted"), (HAS_POOLS, "pooled")] {
            if mask & bit != 0 {
                text.push(&format!(" when (select count(*) from {counted}) <> ? then refuse_conflict()"));
            }
        }
        text.push(" else 0 end");
        text.sql
    }
}

/// A text whose parameters are numbered as they come.
#[derive(Default)]
struct Text {
    sql: String,
    parameters: u32,
}

impl Text {
    fn push(&mut self, part: &str) {
        for (n, piece) in part.split('?').enumerate() {
            if n > 0 {
                self.parameters += 1;
                let _ = write!(self.sql, "${}", self.parameters);
            }
            self.sql.push_str(piece);
        }
    }

    fn push_view(&mut self, name: &str, upsert: &str) {
        self.parameters += 1;
        let _ = write!(self.sql, ",\n{name} as ({})", upsert.replace("$1", &format!("${}", self.parameters)));
    }
}

fn arguments(rows: &Rows<'_>, mask: u32) -> Result<PgArguments, BoxDynError> {
    let has = |bit| mask & bit != 0;
    let mut to = PgArguments::default();
    to.reserve(48, size(rows));
    fences(&mut to, rows)?;
    if has(HAS_UPDATES) {
        names(&mut to, rows.updates.iter().map(|state| &state.id))?;
        to.add(rows.updates.iter().map(|state| state.expected.cast_signed()).bind_iter())?;
        state(&mut to, &rows.updates)?;
    }
    if has(HAS_INSERTS) {
        names(&mut to, rows.inserts.iter().map(|state| &state.id))?;
        to.add(rows.inserts.iter().map(|state| state.hash.as_i32()).bind_iter())?;
        state(&mut to, &rows.inserts)?;
    }
    if has(HAS_OUTBOX) {
        outbox(&mut to, rows)?;
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
    let states = rows.updates.iter().chain(&rows.inserts).map(|state| state.bytes.len() + ROW_BYTES);
    let value = |draft: &OutboxDraft| draft.value.as_ref().map_or(0, Bytes::len);
    let outbox = rows.outbox.iter().map(|row| value(&row.draft) + 2 * ROW_BYTES);
    let views = rows.views.iter().map(|view| view.len() * VIEW_BYTES);
    states.chain(outbox).chain(views).sum::<usize>() + (rows.claims.len() + 16) * ROW_BYTES
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

fn state(to: &mut PgArguments, states: &[&StateWrite]) -> Result<(), BoxDynError> {
    to.add(states.iter().map(|state| state.version.cast_signed()).bind_iter())?;
    to.add(states.iter().map(|state| state.schema.cast_signed()).bind_iter())?;
    to.add(states.iter().map(|state| &state.bytes[..]).bind_iter())?;
    let json = |state: &&StateWrite| {
        let some = !state.sources.is_empty();
        some.then(|| serde_json::to_string(&state.sources)).transpose()
    };
    let sources: Vec<Option<String>> = states.iter().map(json).collect::<Result<_, _>>()?;
    to.add(sources)
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
        let row = view.row.as_object().ok_or("a view's row is no JSON object")?;
        if row.is_empty() {
            json.push(b'}');
            continue;
        }
        let brace = json.len();
        serde_json::to_writer(&mut json, row)?;
        json[brace] = b',';
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
