-- What tells one setting of a timer from the next of the same name: a firing is of one setting, and removes
-- or puts off that one alone.
alter table timers add column serial bigint generated always as identity;
