//! The store of the Holdfast runtime on Postgres: group commit, outbox, claims, timers, mailbox, shared
//! quantities.
//!
//! The only crate under `actors/` that names sqlx. [`migrate`] prepares a context's schema, [`PgStore`] is
//! the port [`holdfast_core::port::store::Store`], [`PgStore::maintain`] keeps its day tables, [`query`] asks
//! read models.
//!
//! How it upholds the invariants, in one place each: fences and grants in `commit`, the text of a commit in
//! `statement`, records to publish in `segment` and `unpublished`, ownership in `ownership`, what the
//! server's words mean in `error` and `notice`, connections in `connections`. Deliberately absent: sqlx's
//! macros (no database at build time), its pool (see `connections`), retries, any domain.

mod commit;
mod config;
mod connections;
mod days;
mod error;
mod format;
mod growth;
mod history;
mod maintain;
mod migrate;
mod notice;
pub mod outbox;
mod ownership;
pub mod query;
mod questions;
mod read;
mod rows;
mod segment;
mod statement;
mod store;
mod stuck;
pub mod survey;
mod unpublished;

pub use config::{Config, View};
pub use format::FORMAT;
pub use maintain::{Maintained, Postponed, Retention, STEP_TIMEOUT};
pub use migrate::{MigrateError, Role, finish, migrate, migrator};
pub use query::Query;
pub use store::PgStore;
