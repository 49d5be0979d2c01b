//! One map from what Postgres or the connection says to what the ports say.
//!
//! Upholds the rule "classify before counting attempts". SQLSTATE classes 22 and 23 are a row's fault, and so
//! is 54 (a limit of the server: an index row, a number of columns): a batch that is refused for one is split
//! until its culprit stands alone. 57014 (a statement ended for its time) and silence before COMMIT are
//! `Slow`: they split a batch too, but are never held against a message alone, since a slow server can't be
//! distinguished from a slow message. Everything else that may pass is an outage. Deliberately absent:
//! retrying.

use holdfast_core::port::store::{CommitError, StoreError};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// A commit that found a fence lost; raised by `refuse_stale()`.
pub(crate) const STALE: &str = "HF001";
/// A commit that found another version than expected; raised by `refuse_conflict()`.
pub(crate) const CONFLICT: &str = "HF002";

/// A statement that the server ended for the time it took.
const STATEMENT_ENDED: &str = "57014";

/// What the server said, if it was the server.
fn server(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
}

/// Whether the session ended with this error: it was never answered, or the server said goodbye.
pub(crate) fn ended(error: &sqlx::Error) -> bool {
    server(error).is_none_or(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// The error's SQLSTATE, if the server gave one.
pub(crate) fn code(error: &sqlx::Error) -> Option<&str> {
    server(error).map(PgDatabaseError::code)
}

/// Whether no table takes rows of this day. Postgres says so by the code of a violated check, but names none.
pub(crate) fn is_day_missing(error: &sqlx::Error) -> bool {
    server(error).is_some_and(|error| {
        error.code() == "23514" && error.constraint().is_none() && matches!(error.table(), Some("outbox" | "claims"))
    })
}

/// What is wrong, for a person.
pub(crate) fn text(error: &sqlx::Error) -> String {
    match server(error) {
        Some(server) => format!("{} ({})", server.message(), server.code()),
        None => error.to_string(),
    }
}

/// An error outside a commit.
pub(crate) fn store(error: &sqlx::Error) -> StoreError {
    use sqlx::Error;
    if let Some(server) = server(error).filter(|server| server.code().starts_with("22")) {
        return StoreError::Data { sqlstate: server.code().to_owned(), message: server.message().to_owned() };
    }
    let text = text(error);
    let broken = match server(error) {
        _ if is_day_missing(error) => false,
        // 08 connection, 25 read-only (a standby after failover), 28 logins (passwords get rotated), 40
        // deadlock, 53 resources, 55 lock not to be had, 57 shutdown or timeout, 58 its disk.
        Some(server) => !matches!(server.code().get(..2), Some("08" | "25" | "28" | "40" | "53" | "55" | "57" | "58")),
        None => matches!(
            error,
            Error::ColumnDecode { .. }
                | Error::Decode(_)
                | Error::Encode(_)
                | Error::ColumnNotFound(_)
                | Error::ColumnIndexOutOfBounds { .. }
                | Error::TypeNotFound { .. }
                | Error::Configuration(_)
        ),
    };
    if broken { StoreError::Broken(text) } else { StoreError::Unavailable(text) }
}

/// An error of a statement within a commit, `decisive` if that statement commits too (it is COMMIT, or stands
/// alone).
///
/// A plain ERROR always means that nothing was written: Postgres reports none after the point of no return. A
/// lost connection or a FATAL tells nothing, if the server may have been committing.
pub(crate) fn commit(error: &sqlx::Error, decisive: bool) -> CommitError {
    if ended(error) {
        let text = text(error);
        // An argument that can't be encoded has not left this process.
        if matches!(error, sqlx::Error::Encode(_)) {
            return unencodable(&text);
        }
        return if decisive { CommitError::Unknown(text) } else { CommitError::Unavailable(text) };
    }
    match server(error) {
        Some(server) if server.code() == CONFLICT => CommitError::Conflict,
        // The fault of no row: see `maintain`.
        _ if is_day_missing(error) => CommitError::Unavailable(text(error)),
        Some(server) if server.code() == STATEMENT_ENDED => CommitError::Slow(text(error)),
        Some(server) if matches!(server.code().get(..2), Some("22" | "23" | "54")) => {
            CommitError::Data { sqlstate: server.code().to_owned(), message: server.message().to_owned() }
        }
        _ => CommitError::Unavailable(text(error)),
    }
}

/// A batch that can't be put into one message.
pub(crate) fn unencodable(error: &dyn std::fmt::Display) -> CommitError {
    CommitError::Data { sqlstate: "54000".into(), message: format!("the batch can't be encoded: {error}") }
}

/// A number that Postgres' `bigint` can't hold.
pub(crate) fn too_large(what: &str, value: u64) -> CommitError {
    CommitError::Data { sqlstate: "22003".into(), message: format!("{what} {value} is out of range for type bigint") }
}

/// A stored value that is not what we store.
pub(crate) fn decoded<T, E: std::error::Error + Send + Sync + 'static>(value: Result<T, E>) -> Result<T, sqlx::Error> {
    value.map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
