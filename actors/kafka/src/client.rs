//! What every client does alike: logging through `tracing`, and blocking calls under a deadline.

use std::time::Duration;

use holdfast_core::port::log::LogError;
use rdkafka::config::RDKafkaLogLevel;
use tokio::sync::oneshot;

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

/// Runs a call that blocks on the network, on a thread of its own that is waited for until `deadline` and no
/// longer. librdkafka has timeouts, but not for everything: a commit waits for the coordinator, and the last
/// handle of a client, which the call may hold, for the client's end. (A tokio runtime that ends waits for
/// each thread that it has lent to a call, so that one such call keeps it for ever.)
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    deadline: Duration,
    call: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let (answer, answered) = oneshot::channel();
    let run = move || _ = answer.send(call());
    if let Err(error) = std::thread::Builder::new().name("kafka-call".to_owned()).spawn(run) {
        return Err(LogError::Unavailable(format!("{what}: no thread: {error}")));
    }
    match tokio::time::timeout(deadline, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(LogError::Fatal(format!("{what}: the call panicked"))),
        Err(_) => Err(LogError::Unavailable(format!("{what}: no answer within {deadline:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn call_that_hangs_holds_up_no_runtime() {
        let (release, released) = mpsc::channel::<()>();
        let (done, ended) = mpsc::channel();
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
            let hang = move || Ok(released.recv().is_ok());
            let answer = runtime.block_on(blocking("a test", Duration::from_millis(10), hang));
            drop(runtime);
            done.send(answer).expect("heard");
        });
        let answer = ended.recv_timeout(Duration::from_secs(20)).expect("the runtime ends though the call has not");
        assert!(matches!(&answer, Err(LogError::Unavailable(text)) if text.contains("a test")), "{answer:?}");
        drop(release);
        ending.join().expect("no panic");
    }
}
