-- The format that a schema is written in, and the outbox in segments.
--
-- Format 1: a row of the outbox for each record. Format 2: a row for the records of one partition and commit (several if
-- they are large), framed and compressed (actors/postgres/src/segment.rs). Builds from here on read both, and write what the schema's format is. A
-- schema that nobody has served yet is of format 2 at once; others are brought to it by `holdfast migrate --finish`, once
-- no node of an earlier build is needed any more.

-- In the order in which a commit locks them, as in 0006_retention.sql.
lock table partitions, nodes, outbox in access exclusive mode;

-- Each partition's row has it: a build that can't write it must not take the partition. The default is the schema's.
alter table partitions add column format int not null default 1;
do $$
begin
    if not exists (select from partitions) then
        alter table partitions alter column format set default 2;
    end if;
end $$;

-- A build says in each of its sessions what it can write. One that says nothing is older than formats are.
create function refuse_format() returns trigger language plpgsql as $$
declare
    most int := coalesce(nullif(current_setting('holdfast.format', true), ''), '1')::int;
begin
    if new.format > most then
        raise exception 'the schema % is written in format %, and this build writes format % at most: run a newer build',
            tg_table_schema, new.format, most using errcode = 'HF003';
    end if;
    return new;
end $$;
create trigger refuse_format before update of token on partitions for each row
    when (new.token is not null and new.token is distinct from old.token) execute function refuse_format();

-- What the build of each node can write. An earlier build's beat leaves it as it is, and has another run.
alter table nodes add column format int not null default 1, add column format_run uuid;

-- A segment has its records in `value`, the id of the first of them, the sequence of the last, and no topic, target, key
-- or headers. `bytes` are those of keys, headers and values. A row without `records` is one record, as before.
alter table outbox
    add column records int,
    add column bytes int,
    alter column target drop not null,
    alter column topic drop not null,
    alter column headers drop not null,
    alter column value set storage external; -- a segment is compressed already

-- As in 0006_retention.sql, and a segment stays in its row if the row fits in a page.
create or replace function open_range(parent text, child text, low date, high date) returns boolean language plpgsql as $$
declare
    known text := format('%I.%I', current_schema(), child);
begin
    if to_regclass(known) is not null then
        return false;
    end if;
    execute format('lock table only %I in share update exclusive mode', parent);
    if to_regclass(known) is not null then
        return false;
    end if;
    execute format('create table %I (like %I including all)', child, parent)
        || case parent when 'outbox' then ' with (toast_tuple_target = 8160)' else '' end;
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, child, low, high);
    return true;
end $$;
