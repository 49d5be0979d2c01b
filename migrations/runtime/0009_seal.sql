-- The context's seal: the key of the HMAC that the context puts on what it sends to itself, so that a record with its source can't be forged by
-- who may write its commands topic. One row, drawn once from the server's strong random source (gen_random_uuid), never changed: records
-- that lie sealed in the topic must stay valid. Who may read this schema may make seals, nobody else.
create table seal (
    one boolean primary key default true check (one),
    key bytea   not null check (octet_length(key) = 32)
);
insert into seal (key) values (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
