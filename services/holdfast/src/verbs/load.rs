//! `holdfast load`.

use holdfast_platform::Config;

use crate::{cli::Load, failure::Failure};

/// Not yet.
pub async fn run(_config: Config, _load: Load) -> Result<u8, Failure> {
    Ok(0)
}
