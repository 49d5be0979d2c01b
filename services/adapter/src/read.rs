//! How a read is asked for and how it was made, between the wire's words and the router's.
//!
//! Deliberately absent: reading.

use std::time::SystemTime;

use holdfast_platform::errors::Problem;
use holdfast_proto::{
    read::v1::{Consistency as Wire, ReadInfo},
    time,
};
use holdfast_runtime::Consistency;
use tonic::Status;

/// What was asked for; STRONG unless said.
///
/// # Errors
/// `INVALID_ARGUMENT` for a number that is no consistency.
pub fn consistency(wire: i32) -> Result<Consistency, Status> {
    match Wire::try_from(wire) {
        Ok(Wire::Unspecified | Wire::Strong) => Ok(Consistency::Strong),
        Ok(Wire::Local) => Ok(Consistency::Local),
        Err(_) => Err(Problem::invalid("INVALID", "consistency is neither STRONG nor LOCAL")
            .field("consistency", "is neither CONSISTENCY_STRONG nor CONSISTENCY_LOCAL")
            .into_status()),
    }
}

/// Says how an answer was read, now.
pub fn info(version: u64, strong: bool) -> ReadInfo {
    let consistency = if strong { Wire::Strong } else { Wire::Local };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    ReadInfo { version, consistency: consistency.into(), as_of: Some(time::from_unix_ms(now_ms)) }
}
