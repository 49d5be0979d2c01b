//! What every client does alike: logging through `tracing`, and blocking calls under a deadline.

use std::time::Duration;

use holdfast_core::port::log::LogError;
use rdkafka::config::RDKafkaLogLevel;

/// One of librdkafka's log lines.
pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{line}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{line}"),
    }
}

/// Runs a call that blocks on the network where it may block. librdkafka has its own timeout; ours is the
/// backstop for one that does not keep it.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    deadline: Duration,
    call: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::time::timeout(deadline, tokio::task::spawn_blocking(call)).await {
        Ok(Ok(result)) => result,
        Ok(Err(join)) => Err(LogError::Fatal(format!("{what}: {join}"))),
        Err(_) => Err(LogError::Unavailable(format!("{what}: no answer within {deadline:?}"))),
    }
}
