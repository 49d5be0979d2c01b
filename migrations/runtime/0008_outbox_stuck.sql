-- Outbox records that a broker refuses for their own sake, and those of the same topic and key behind them (actors/core/src/stuck.rs). The relay
-- copies a row here and passes it with its cursor in one statement; a row goes when its release is acknowledged. Empty in normal running.
create table outbox_stuck (
    position  bigint generated always as identity primary key,  -- the order within a queue
    queue     uuid   not null,                                  -- a digest of the key; with the topic it names the queue
    hash      int    not null,                                  -- of the key: the home that releases it, whatever the count
    partition int    not null,
    sequence  bigint not null,
    target    int    not null,
    id        uuid   not null,
    topic     text   collate "C" not null,
    key       bytea,
    headers   bytea  not null,
    value     bytea,
    attempts  int    not null,                                  -- refusals; 0 if it only queues
    error     text   not null,
    since     timestamptz not null default now(),
    retried   timestamptz,                                      -- the last refusal after the first
    ordered   text   check (ordered in ('retry', 'discard')),   -- by an operator
    why       text   not null default ''
);
create index outbox_stuck_queue on outbox_stuck (topic, queue, position);

-- What operators did, for other operators.
create table outbox_stuck_orders (
    at       timestamptz not null default now(),
    who      text   not null,
    ordered  text   not null,
    why      text   not null,
    id       uuid   not null,
    topic    text   not null,
    sequence bigint not null,
    partition int   not null
);
create index outbox_stuck_orders_at on outbox_stuck_orders (at);
