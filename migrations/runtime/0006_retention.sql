-- Days that open and go while commits and look-ups run (see actors/postgres/src/maintain.rs and days.rs).
--
-- A default partition stands in the way of both: attaching a day locks it exclusively, which every look-up
-- that can't prune it waits for, and `detach partition … concurrently` is refused beside one. So there is
-- none: days are opened ahead, and a commit that finds none opens it.

-- In the order in which a commit locks them, so that commits of running nodes are waited for and can't
-- deadlock.
lock table outbox, claims in access exclusive mode;
alter table outbox detach partition outbox_default;
alter table claims detach partition claims_default;

-- Gives the days from `low` to before `high` a table. Its lock on the parent is the one that attaching takes
-- anyway: it lets reads and inserts through, and one opener after the other. Nothing else that is locked here
-- is known to anybody before the transaction ends.
create function open_range(parent text, child text, low date, high date) returns boolean language plpgsql as $$
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
    execute format('create table %I (like %I including all)', child, parent);
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, child, low, high);
    return true;
end $$;

create or replace function open_day(parent text, opened date) returns boolean language sql as
    $$ select open_range(parent, parent || '_' || to_char(opened, 'YYYYMMDD'), opened, opened + 1) $$;

-- Where a claim is filed whose id says a day further ahead than tomorrow: after every day that an id can say
-- (the last one is 3,257,812 days after 1970-01-01), and told apart by the day of filing, so that it goes
-- with its time.
create function early(filed date) returns date language sql immutable as
    $$ select filed + 3300000 $$;

-- The table of such claims, for a month at a time: look-ups open all of them.
create function open_early(filed date) returns boolean language sql as $$
    select open_range('claims', 'claims_early_' || to_char(filed, 'YYYYMM'),
        early(date_trunc('month', filed::timestamp)::date),
        early((date_trunc('month', filed::timestamp) + interval '1 month')::date))
$$;

select open_day(parent, current_date + ahead) from unnest(array ['outbox', 'claims']) as parent, generate_series(0, 2) as ahead;
select open_early(current_date), open_early(current_date + 2);

-- What the default partitions hold. A claim may be filed late, never early.
select open_day('outbox', day) from (select distinct day from outbox_default) d;
insert into outbox (partition, target, sequence, id, day, topic, key, headers, value)
select partition, target, sequence, id, day, topic, key, headers, value from outbox_default;
drop table outbox_default;
insert into claims (id, scope, body, day, answer) select id, scope, body, early(current_date), answer from claims_default;
drop table claims_default;

-- Nodes of an earlier build file such claims here, under infinity, while a roll-out lasts; maintenance files
-- them again.
create table claims_default partition of claims for values from ('infinity') to (maxvalue);
