//! What is wrong, in words, and what helps.
//!
//! Each check is one pure function over [`Facts`]; [`gather()`] asks Kafka and Postgres for those.
//! Deliberately absent: anything that another look would not find again, and the nodes themselves: what is
//! wrong shows in what they leave behind.

mod facts;
mod growth;
mod kafka;
mod payments;
mod postgres;

use std::fmt;

use holdfast_platform::Context;
use serde::Serialize;

pub use facts::{Brokers, ContextFacts, Facts, Stored, gather};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Perhaps as meant; look at it.
    Hint,
    /// Wrong.
    Wrong,
    /// Something that everything rests on does not answer.
    Unreachable,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hint => "hint",
            Self::Wrong => "wrong",
            Self::Unreachable => "unreachable",
        })
    }
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What is so, with names and numbers.
    pub what: String,
    /// What a person can do.
    pub remedy: String,
}

impl Finding {
    fn new(level: Level, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level, what: what.into(), remedy: remedy.into() }
    }

    fn wrong(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Level::Wrong, what, remedy)
    }

    fn hint(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Level::Hint, what, remedy)
    }
}

/// A check by its name.
pub type Check = (&'static str, fn(&Facts) -> Vec<Finding>);

/// All of them, in the order in which a person would look.
pub const CHECKS: [Check; 23] = [
    ("brokers answer", kafka::brokers_answer),
    ("databases answer", postgres::databases_answer),
    ("schemas are current", postgres::schemas_are_current),
    ("topics exist", kafka::topics_exist),
    ("a context's topics have equal partitions", kafka::topics_have_equal_partitions),
    ("inputs have equal partitions", kafka::inputs_have_equal_partitions),
    ("topics keep records long enough", kafka::topics_keep_records),
    ("copies outlive a broker", kafka::copies_outlive_a_broker),
    ("large records fit", kafka::large_records_fit),
    ("group settings fit the brokers", kafka::group_settings_fit),
    ("failures are retried", kafka::failures_are_retried),
    ("no context is halted", growth::no_context_is_halted),
    ("partitions have owners", postgres::partitions_have_owners),
    ("owners can be called", postgres::owners_can_be_called),
    ("offsets are in the log", postgres::offsets_are_in_the_log),
    ("growth comes to its end", growth::growth_comes_to_its_end),
    ("every loop moves", postgres::every_loop_moves),
    ("outboxes drain", postgres::outboxes_drain),
    ("topics take what is published", postgres::topics_take_what_is_published),
    ("every record is filed", postgres::every_record_is_filed),
    ("records lie at home, and none waits for long", postgres::nothing_waits_for_long),
    ("the provider agrees with payments", payments::the_provider_agrees),
    ("clocks agree", kafka::clocks_agree),
];

/// Runs every check; findings by check, in their order.
pub fn examine(facts: &Facts) -> Vec<(&'static str, Vec<Finding>)> {
    CHECKS.iter().map(|(name, check)| (*name, check(facts))).collect()
}

/// `1, 2 and 5`.
fn list(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// The contexts whose tables could be read.
fn stored(facts: &Facts) -> impl Iterator<Item = (Context, &ContextFacts, &Stored)> {
    facts.contexts.iter().filter_map(|context| Some((context.context, context, context.stored.as_ref().ok()?)))
}
