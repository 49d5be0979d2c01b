//! `holdfast load life`: orders that live their whole life, through all five contexts.
//!
//! The same orders, people, faults and account as `holdfast demo`, and other words for the result.
//! Deliberately absent: a run of its own.

use holdfast_load_tests::findings::Findings;
use holdfast_platform::Config;

use crate::{cli::Demo, failure::Failure, verbs::demo};

const QUESTION: &str = "How many messages a second do five contexts exchange in one process while orders live their whole \
                        life, and what does each cost? Cards are declined, stock sells out, the provider fails.";

/// Lets so many orders live; `None` if a signal came before the end.
pub async fn run(config: Config, orders: u32) -> Result<Option<Findings>, Failure> {
    let demo = Demo { orders, rate: None, partitions: None, json: true };
    let (_, outcome) = Box::pin(demo::play(config, &demo)).await?;
    Ok(outcome.map(|outcome| outcome.findings(QUESTION)))
}
