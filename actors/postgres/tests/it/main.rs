//! [`holdfast_postgres::PgStore`] on a real Postgres: the port's conformance suite, and the laws that only a
//! database can break.

mod conformance;
mod data;
mod days;
mod fixture;
mod format;
mod load;
mod outbox;
mod outcomes;
mod schema;
mod survey;
mod upgrade;
