//! The one statement that writes a commit: a chain of CTEs, made of the parts that this batch needs.
//!
//! Upholds I4 and I3: the final select refuses the whole statement (an error, hence a rollback of everything
//! in it) unless every fence held and every version was as expected. So no insert needs to be joined to the
//! fence, the statement can be its own transaction, and it costs one round trip. Rows travel as one array per
//! column, never one statement per row. Deliberately absent: deciding what to write (see [`crate::rows`]) and
//! running it (see [`crate::commit`]).
//!
//! Each part is a text with `?` for its parameters, which [`parameters`] adds in the same order.

mod parameters;

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr, error::BoxDynError, postgres::PgArguments};

use crate::{config::View, rows::Rows};

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

/// New versions of states, where the stored version and revision are the expected ones. A claim that is
/// pushed out is filed for at most a month (see [`CLAIMS`]). A ring that is null is that of an earlier
/// format, whose claims are all in the tables; a state that is null is unchanged, and what lies apart (TOAST)
/// is not written again.
const UPDATES: &str = ",
updated as (
    update aggregates a set version = u.version, revision = a.revision + 1,
        schema = coalesce(u.schema, a.schema), state = coalesce(u.state, a.state),
        sources = u.sources::jsonb, ring = coalesce(u.ring, a.ring), spilled = greatest(a.spilled,
            case when u.spills then current_date + 31 end,
            case when u.ring is not null and a.ring is null then (select unringed from claims_kept) end)
    from unnest(?::text[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::int[], ?::bytea[], ?::text[], ?::bytea[], ?::bool[])
        as u(kind, key, expected, revision, version, schema, state, sources, ring, spills)
    where a.key = u.key and a.kind = u.kind and a.version = u.expected and a.revision = u.revision
    returning 1)";

/// First versions, and rows of version 0. Another row that exists is a missing count (a conflict), not a
/// 23505 (which would be the row's own fault).
const INSERTS: &str = ",
inserted as (
    insert into aggregates as a (kind, key, hash, revision, version, schema, state, sources, ring, spilled)
    select kind, key, hash, revision + 1, version, schema, state, sources::jsonb, ring, case when ring is not null then
        greatest((select unringed from claims_kept), case when spills then current_date + 31 end) end
    from unnest(?::text[], ?::text[], ?::int[], ?::bigint[], ?::bigint[], ?::int[], ?::bytea[], ?::text[], ?::bytea[], ?::bool[])
        as u(kind, key, hash, revision, version, schema, state, sources, ring, spills)
    on conflict (key, kind) do update set version = excluded.version, revision = excluded.revision,
        schema = excluded.schema, state = excluded.state, sources = excluded.sources,
        ring = coalesce(excluded.ring, a.ring), spilled = greatest(a.spilled, excluded.spilled)
    where a.version = 0 and a.revision = excluded.revision - 1
    returning 1)";

const UNBORN: &str = ",
refused as (
    insert into unborn (kind, key, revision)
    select kind, key, revision + 1 from unnest(?::text[], ?::text[], ?::bigint[]) as u(kind, key, revision))";

const OUTBOX: &str = ",
staged as (
    insert into outbox (partition, sequence, id, topic, target, key, headers, value)
    select * from unnest(?::int[], ?::bigint[], ?::uuid[], ?::text[], ?::int[], ?::bytea[], ?::bytea[], ?::bytea[]))";

/// The same records, of each partition in a row, or in several that are large.
const SEGMENTS: &str = ",
staged as (
    insert into outbox (partition, sequence, id, records, bytes, value)
    select * from unnest(?::int[], ?::bigint[], ?::uuid[], ?::int[], ?::int[], ?::bytea[]))";

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
const HAS_SEGMENTS: u32 = 1 << 13;
const HAS_UNBORN: u32 = 1 << 14;
const FIRST_VIEW: u32 = 15;

/// Parts of the statement, in the order of their text and parameters.
fn parts(rows: &Rows<'_>) -> u32 {
    let mut mask = 0;
    for (bit, needed) in [
        (HAS_UPDATES, !rows.updates.is_empty()),
        (HAS_INSERTS, !rows.inserts.is_empty()),
        (HAS_UNBORN, !rows.unborn.is_empty()),
        (HAS_OUTBOX, !rows.outbox.is_empty()),
        (HAS_SEGMENTS, !rows.segments.is_empty()),
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
        Ok(Statement { sql, arguments: parameters::arguments(rows, mask)? })
    }

    fn text(&self, mask: u32) -> String {
        let mut text = Text::default();
        text.push(FENCE);
        for (bit, part) in [
            (HAS_UPDATES, UPDATES),
            (HAS_INSERTS, INSERTS),
            (HAS_UNBORN, UNBORN),
            (HAS_OUTBOX, OUTBOX),
            (HAS_SEGMENTS, SEGMENTS),
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
