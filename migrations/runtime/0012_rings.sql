-- The last claims of an aggregate stand in its own row.
--
-- Format 3: what the ring (actors/core/src/ring.rs) pushes out goes to the tables of days, and only an aggregate of which
-- something was pushed out is looked for there. Up to format 2 every claim is in these tables, and no row has a ring. A
-- schema that nobody has served yet is of format 3 at once; others are brought to it by `holdfast migrate --finish`.

-- In the order in which a commit locks them.
lock table partitions, aggregates in access exclusive mode;

-- An aggregate that has only refused has a row of version 0, with the default state and no view: it exists for nobody.
alter table aggregates
    add column revision bigint not null default 0, -- how often it was written; two rejections keep the version
    add column ring bytea,                         -- null: written by builds that kept none
    add column spilled date;                       -- claims of it may stand in tables up to this day; null if none was pushed out

-- What the tables of claims hold.
create table claims_kept (
    since    date not null, -- tables of earlier days are gone
    unringed date           -- up to this day they may hold claims of aggregates without a ring, or without a row; null if none
);
insert into claims_kept (since, unringed) values ('-infinity', null);

do $$
begin
    if exists (select from partitions) then
        update claims_kept set unringed = 'infinity';
    else
        alter table partitions alter column format set default 3;
    end if;
end $$;

-- Rows of version 0 as they were written, to be deleted once the claims of that day are: there may be any number of them,
-- one for each key that a command names.
create table unborn (
    kind     text   collate "C" not null,
    key      text   collate "C" not null,
    revision bigint not null,
    day      date   not null default current_date
);
create index unborn_day on unborn (day, revision);
