//! The node that scenarios measure, in a process of its own: this program, by a scenario that no help names.
//!
//! Deliberately absent: gRPC, health and telemetry, which no such scenario asks for.

use std::process::Command;

use anyhow::Context as _;
use holdfast_load_tests::scenarios::apart::{self, Launch};
use holdfast_platform::{Config, Context};

use super::orders;
use crate::failure::Failure;

/// What stands where a scenario's name stands.
pub const VERB: &str = "node";

/// How this program is started as a node with this configuration.
pub fn launch(config: &Config) -> Result<Launch, Failure> {
    let program = std::env::current_exe().context("where this program is").map_err(Failure::Check)?;
    let set = [format!("lanes={}", config.lanes), format!("batch_max={}", config.batch_max)];
    Ok(Launch::new(move || {
        let mut command = Command::new(&program);
        for set in &set {
            command.args(["--set", set]);
        }
        command.args(["load", VERB]);
        command
    }))
}

/// Serves the real orders context until this process's input ends.
pub async fn serve(config: &Config) -> Result<u8, Failure> {
    let brokers = config.require_brokers()?.to_owned();
    let url = config.require_database_url(Context::Orders)?.expose().to_owned();
    let served = apart::serve(orders::context(), orders::node(config, "node"), brokers, url).await;
    served.context("the node").map_err(Failure::Check)?;
    Ok(0)
}
