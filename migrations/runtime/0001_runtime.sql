-- The runtime's tables. Each context's schema holds its own copy; search_path says which.
-- Insert-only tables are cut by day and dropped by day (no vacuum debt); the others are small, or updated in place (HOT).

-- One row per partition: ownership, progress of input and output. Every commit updates it, so pages are left mostly empty for
-- HOT versions, and nothing but the primary key is indexed.
create table partitions (
    partition     int     primary key check (partition >= 0),
    epoch         bigint  not null default 0,
    token         uuid,
    address       text    not null default '',
    generation    int     not null default 1,
    released      boolean not null default true,    -- nobody's lease to wait out yet
    batch         bigint  not null default 0,
    outbox_head   bigint  not null default 0,
    outbox_cursor bigint  not null default 0,
    consumed      jsonb   not null default '{}',   -- {topic: offset of the next record}
    published     bigint                           -- the events topic's published offset
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The state of each aggregate. The key leads the primary key: it alone tells rows apart, so one comparison a step is enough, and
-- time-ordered keys (UUIDv7) are inserted at the index's right edge. The bound on the key refuses it as data (23514); without
-- it a longer one would fail as "index row size exceeds maximum" (54000), which nobody would take for the row's fault.
create table aggregates (
    kind    text   collate "C" not null,
    key     text   collate "C" not null check (octet_length(key) <= 1024),
    hash    int    not null,
    version bigint not null,
    schema  int    not null,
    state   bytea  not null,
    sources jsonb,                                 -- {event source: last ce_sequence applied}; null when empty
    primary key (key, kind)
) with (fillfactor = 80);

-- Records to publish. Sequence order is commit order: the partition's one owner numbers them.
create table outbox (
    partition int    not null,
    target    int    not null,
    sequence  bigint not null,
    id        uuid   not null,
    day       date   not null default current_date,
    topic     text   not null,
    key       bytea,
    headers   bytea  not null,
    value     bytea
) partition by range (day);
create index outbox_sequence on outbox (partition, sequence);
create table outbox_default partition of outbox default;

-- Answers by message. Unique by look-up-then-insert under the fence. The id alone is indexed: equal ids under different scopes are few,
-- and half the index is half the pages dirtied. A row's day is never before the day written inside its id (where that is a
-- UUIDv7), so a look-up can leave out all earlier days.
create table claims (
    id     uuid  not null,
    scope  uuid  not null,
    body   uuid  not null,
    day    date  not null default current_date,
    answer bytea not null
) partition by range (day);
create index claims_id on claims (id);
create table claims_default partition of claims default;

create table timers (
    kind text        collate "C" not null,
    key  text        collate "C" not null check (octet_length(key) <= 1024),
    name text        collate "C" not null check (octet_length(name) <= 256),
    hash int         not null,
    due  timestamptz not null,
    primary key (key, kind, name)
) with (fillfactor = 80);
create index timers_due on timers (due);

-- The durable mailbox. Only the head of an aggregate's queue has a due time. Positions are in commit order within an aggregate, because
-- its one owner writes them.
create table mailbox (
    position         bigint generated always as identity primary key,
    kind             text   collate "C" not null,
    key              text   collate "C" not null check (octet_length(key) <= 1024),
    hash             int    not null,
    reason           text   not null,
    attempts         int    not null,
    due              timestamptz,                  -- null: behind its head
    since            timestamptz not null,
    error            text   not null,
    topic            text   not null,
    partition        int    not null,
    "offset"         bigint not null,
    record_timestamp bigint,                       -- ms; a producer may have written anything
    record_key       bytea,
    headers          bytea  not null,
    value            bytea
);
create index mailbox_due on mailbox (due) where due is not null;
create index mailbox_order on mailbox (key, kind, position);

-- Shared quantities. The check is the last line of I2: whatever a bug grants, stock is not oversold.
create table pools (
    name  text   collate "C" primary key check (octet_length(name) <= 1024),
    total bigint not null,
    held  bigint not null,
    check (0 <= held and held <= total)
) with (fillfactor = 50);

-- The index of dead letters; the records themselves went through the outbox to the DLQ topic.
create table dead_letters (
    id        uuid   primary key,
    kind      text   collate "C",
    key       text   collate "C" check (octet_length(key) <= 1024),
    hash      int    not null,
    topic     text   not null,
    partition int    not null,
    "offset"  bigint not null,
    reason    text   not null,
    error     text   not null,
    attempts  int    not null,
    at        timestamptz not null default now()
);
create index dead_letters_aggregate on dead_letters (key, kind) where key is not null;
create index dead_letters_at on dead_letters (at);

-- How a commit refuses itself from within its one statement; the adapter knows these two codes.
create function refuse_stale() returns int language plpgsql as
    $$ begin raise exception 'fence lost' using errcode = 'HF001'; end $$;
create function refuse_conflict() returns int language plpgsql as
    $$ begin raise exception 'version conflict' using errcode = 'HF002'; end $$;

-- Gives a day its own table, and moves there what had to go to the default one. The table is filled first and attached then, because
-- `create table ... partition of` would lock out all readers. The lock on the default keeps rows of that day from slipping in between.
create function open_day(parent text, opened date) returns boolean language plpgsql as $$
declare
    child text := parent || '_' || to_char(opened, 'YYYYMMDD');
begin
    if to_regclass(format('%I.%I', current_schema(), child)) is not null then
        return false;
    end if;
    execute format('lock table %I in access exclusive mode', parent || '_default');
    execute format('create table %I (like %I including all)', child, parent);
    execute format('with moved as (delete from %I where day = $1 returning *) insert into %I select * from moved',
                   parent || '_default', child) using opened;
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, child, opened, opened + 1);
    return true;
end $$;

select open_day(parent, current_date + ahead)
from unnest(array ['outbox', 'claims']) as parent, generate_series(0, 1) as ahead;
