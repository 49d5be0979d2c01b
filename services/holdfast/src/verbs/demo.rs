//! `holdfast demo`.

use holdfast_platform::Config;

use crate::{cli::Demo, failure::Failure};

/// Not yet.
pub async fn run(_config: Config, _demo: Demo) -> Result<u8, Failure> {
    Ok(0)
}
