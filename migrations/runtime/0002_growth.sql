-- Partition counts that grow while everything runs (see actors/core/src/growth.rs). A handful of rows, hardly ever written.

-- Each count that an input topic was known to have. The first opens no transition; each further one is in transition until it has ended.
create table topic_counts (
    topic   text        not null,
    count   int         not null check (count > 0),
    noticed timestamptz not null default now(),
    is_first boolean    not null,
    ends    bigint[],                              -- to be consumed up to, once nobody sends by the older count
    ended   boolean     not null,
    primary key (topic, count)
);

-- The smallest count by which another context's relay still addresses rows of this topic, once it has said so.
create table topic_marks (
    topic     text not null,
    partition int  not null,
    count     int  not null,
    primary key (topic, partition)
);

-- The counts that have been in force, and which partition left the one before with which outbox head.
create table generations (
    generation int  primary key,
    count      int  not null check (count > 0),
    since      timestamptz not null default now()
);
create table acknowledgements (
    partition   int    not null,
    generation  int    not null,
    outbox_head bigint not null,
    primary key (partition, generation)
);

-- A schema from before this migration is in its first generation.
insert into generations (generation, count)
select 1, count(*) from partitions having count(*) > 0;
insert into acknowledgements (partition, generation, outbox_head)
select partition, 1, 0 from partitions;
