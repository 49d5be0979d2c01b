//! `holdfast load life`: orders that live their whole life, through all five contexts.
//!
//! The same orders, people, faults and account as `holdfast demo`, and other words for the result.
//! Deliberately absent: a run of its own.

use holdfast_load_tests::findings::Findings;
use holdfast_platform::Config;

use crate::{
    cli::{Demo, Load},
    failure::Failure,
    verbs::demo,
};

/// What it asks.
pub(super) const QUESTION: &str = "How many messages a second do five contexts exchange in one process while orders live their whole \
                        life, and what does each cost? Cards are declined, stock sells out, the provider fails.";

/// About as many commands to orders as one order gets that lives its whole life.
const COMMANDS_PER_LIFE: u32 = 5;

/// Lets orders live.
pub(super) async fn run(config: Config, load: Load) -> Result<Findings, Failure> {
    let demo = Demo { orders: load.commands() / COMMANDS_PER_LIFE, rate: None, partitions: None, json: true };
    let (_, outcome) = Box::pin(demo::play(config, &demo)).await?;
    Ok(outcome.ok_or(Failure::Stopped)?.findings(QUESTION))
}
