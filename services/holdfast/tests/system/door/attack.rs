//! An attack, and the outcome that the contracts name for each of its records.
//!
//! Deliberately absent: sending and waiting, which are the stand's.

use futures::future::BoxFuture;
use holdfast_load_tests::by_hand::{Place, Raw};
use libtest_mimic::Failed;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::stand::Stand;

/// The records of an attack, whose outcomes the stand waits for.
pub type Acted = Result<Vec<Sent>, Failed>;

/// What an attack does.
pub type Act = Box<dyn for<'a> Fn(&'a Stand) -> BoxFuture<'a, Acted> + Send + Sync>;

/// One trial: its name, and what it does to the stand.
pub struct Attack {
    pub name: String,
    pub act: Act,
}

/// The outcome of a record.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// A dead letter in the DLQ of each of these contexts, with one of these reasons.
    Dead { by: &'static [&'static str], reasons: &'static [&'static str] },
    /// No dead letter, and exactly this number of orders' events that name the record as their cause.
    Caused(usize),
}

/// A dead letter of orders, for one of these reasons.
pub const fn dead(reasons: &'static [&'static str]) -> Outcome {
    Outcome::Dead { by: &["orders"], reasons }
}

pub const UNDECODABLE: Outcome = dead(&["UNDECODABLE"]);
pub const UNKNOWN_TYPE: Outcome = dead(&["UNKNOWN_TYPE"]);
pub const INVALID: Outcome = dead(&["INVALID"]);
pub const TOO_LARGE: Outcome = dead(&["TOO_LARGE"]);
/// The contracts call a header that can't be read UNDECODABLE and a malformed id INVALID; a value may be
/// both.
pub const MALFORMED: Outcome = dead(&["UNDECODABLE", "INVALID"]);

/// A record to be sent, and its outcome.
pub struct Row {
    pub what: String,
    pub topic: &'static str,
    pub partition: Option<i32>,
    pub time_ms: Option<i64>,
    pub is_compressed: bool,
    pub raw: Raw,
    pub outcome: Outcome,
}

impl Row {
    /// To `orders.commands`, where its key belongs.
    pub fn new(what: impl Into<String>, raw: Raw, outcome: Outcome) -> Self {
        let what = what.into();
        Self { what, topic: "orders.commands", partition: None, time_ms: None, is_compressed: false, raw, outcome }
    }

    /// To another topic.
    pub fn to(self, topic: &'static str) -> Self {
        Self { topic, ..self }
    }

    /// Through the compressing producer.
    pub fn compressed(self) -> Self {
        Self { is_compressed: true, ..self }
    }
}

/// A record that was sent, and its place.
#[derive(Clone, Debug)]
pub struct Sent {
    pub what: String,
    pub topic: &'static str,
    pub place: Place,
    pub raw: Raw,
    pub outcome: Outcome,
}

/// An attack that sends records and does nothing else.
pub fn records(name: &str, rows: fn() -> Vec<Row>) -> Attack {
    attack(name, move |stand| Box::pin(async move { stand.send(rows()).await }))
}

/// An attack that does more than send records.
pub fn attack<F>(name: &str, act: F) -> Attack
where
    F: for<'a> Fn(&'a Stand) -> BoxFuture<'a, Acted> + Send + Sync + 'static,
{
    Attack { name: name.to_owned(), act: Box::new(act) }
}

/// Attacks from asynchronous functions, each under the name of its function.
macro_rules! acts {
    ($($act:ident),+ $(,)?) => {
        vec![$($crate::door::attack::attack(stringify!($act), |stand| Box::pin($act(stand)))),+]
    };
}
pub(super) use acts;

/// Attacks from functions that make records, each under the name of its function.
macro_rules! tables {
    ($($rows:ident),+ $(,)?) => {
        vec![$($crate::door::attack::records(stringify!($rows), $rows)),+]
    };
}
pub(super) use tables;

/// The code of a status and the reason in its details.
pub fn parts(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let info = details.error_info();
    let (domain, reason) = info.map(|info| (info.domain.clone(), info.reason.clone())).unwrap_or_default();
    (status.code(), domain, reason)
}

/// Checks that the call was refused with one of these codes and reasons in an `ErrorInfo` of domain
/// `holdfast`; the reason `*` stands for any.
pub fn refused<T>(what: &str, answer: Result<T, Status>, wanted: &[(Code, &str)]) -> Result<(), Failed> {
    let Err(status) = answer else { return Err(format!("{what}: accepted instead of {wanted:?}").into()) };
    let (code, domain, reason) = parts(&status);
    let is_wanted = wanted.iter().any(|(of, named)| *of == code && (*named == "*" || *named == reason));
    if is_wanted && domain == "holdfast" && !reason.is_empty() {
        return Ok(());
    }
    Err(format!("{what}: {code:?} `{reason}` of `{domain}` ({}) instead of {wanted:?}", status.message()).into())
}

/// Whether the client ended the call at the deadline that it sent. tonic's client keeps that deadline too,
/// and may be first.
pub fn is_given_up(status: &Status) -> bool {
    (status.code(), status.message()) == (Code::Cancelled, "Timeout expired")
}

/// All failures in one text.
pub fn all(found: impl IntoIterator<Item = Result<(), Failed>>) -> Result<(), Failed> {
    let failed: Vec<String> = found
        .into_iter()
        .filter_map(|found| found.err().map(|failed| failed.message().unwrap_or("failed").to_owned()))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}
