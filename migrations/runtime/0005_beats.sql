-- What each node said last, to be known to live: once a second, and before each first lease. A taker that has seen the last owner say nothing for
-- a lease need not wait one out. No pair (run, beat) is ever said twice. `at` is for people, and for sweeping; no rule reads it.
create table nodes (
    address text        primary key,
    run     uuid        not null,
    beat    bigint      not null,
    at      timestamptz not null default now()
) with (fillfactor = 50);

-- The epoch whose owner has begun to serve: with the row's own epoch, nobody else can hold a lease. Who raises the epoch need not touch it.
alter table partitions add column begun bigint not null default -1;
