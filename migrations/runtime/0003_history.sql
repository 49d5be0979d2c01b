-- What tells a database that was restored from an older backup, and a topic that was deleted and made again, from those that were
-- there before. See runbooks history-lost and offsets-out-of-range.

-- Why nobody may own this partition, until an operator has spoken: the reason's name, a colon, and what was seen.
alter table partitions add column halted text;

-- The mark (Kafka's topic id) under which each topic was first seen here. Another one is another topic, whatever its offsets.
create table topic_ids (
    topic text        collate "C" primary key,
    mark  text        collate "C" not null,
    noted timestamptz not null default now()
);
