//! The process that is killed: `holdfast serve all`, with one rule broken if so asked.
//!
//! It reads its configuration from the environment, as in production, and prints where it listens as its
//! first line.

use std::io::Write as _;

use holdfast::{
    compose::{Listeners, Wrap},
    failure::Failure,
    infrastructure::{Infrastructure, ORDERING},
    verbs::serve::Process,
};
use holdfast_platform::{Config, config::Sources};

/// Serves, with ports as `wrap` makes them, until it is killed or asked to stop.
pub fn run(wrap: Wrap) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        let config = Config::load(&Sources::from_process())?;
        let at = Infrastructure::configured(&config)?;
        let listeners = Listeners::ephemeral().await?;
        let process = Process::begin(&config, &ORDERING)?.wrapping(wrap);
        let served = process.run(&config, &at, &ORDERING, listeners, async |app| {
            let mut out = std::io::stdout();
            writeln!(out, "{}", app.grpc).map_err(anyhow::Error::from)?;
            out.flush().map_err(anyhow::Error::from)?;
            std::future::pending::<Result<(), Failure>>().await
        });
        Ok(served.await?.0)
    })
}
