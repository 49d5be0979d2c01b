-- Calls out of the system that an aggregate has decided on and that have no known outcome yet. Written with the state that intends them, removed with
-- the state that knows how they ended. The name is for ever: with the key it is what the other side recognises a repeat by.
create table effects (
    kind     text        collate "C" not null,
    key      text        collate "C" not null check (octet_length(key) <= 1024),
    name     text        collate "C" not null check (octet_length(name) <= 256),
    hash     int         not null,
    request  bytea       not null,                -- byte for byte what is sent, whatever build sends it
    since    timestamptz not null default now(),
    due      timestamptz not null,                -- while an attempt is made: when it counts as lost
    attempts int         not null default 1,      -- begun
    error    text        not null default '',     -- of the last one
    correlation text,
    traceparent text,
    primary key (key, kind, name)
) with (fillfactor = 80);
create index effects_due on effects (due);
