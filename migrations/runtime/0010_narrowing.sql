-- Records whose dead letter or mailbox row was refused, as raw bytes: no column refuses what a stranger may send. A row is an alarm, and waits for a
-- person (`holdfast doctor`).
create table unfiled (
    id               uuid        primary key,
    error            bytea       not null,         -- UTF-8, as the server gave it
    topic            bytea       not null,         -- UTF-8
    partition        bigint      not null,
    "offset"         numeric     not null,
    record_timestamp bigint,
    record_key       bytea,
    headers          bytea       not null,         -- as in `outbox`
    value            bytea,
    at               timestamptz not null default now()
);

-- How often a due timer was put off because this build could not fire it.
alter table timers add column misses int not null default 0;

-- Which loops of a node make no progress though they have work, as the node itself says it, for people. Empty while none is.
alter table nodes add column stalled text not null default '', add column stalled_at timestamptz;
