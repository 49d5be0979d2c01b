//! The `metrics` facade's recorder, rendered for Prometheus.
//!
//! Invariant: a histogram has buckets (seconds from 0.5 ms to 60 s; `_bytes` and `_records` have their own),
//! never quantiles, so that instances can be added up. Names and labels are the recording code's duty:
//! `holdfast_*`, base units, and never an aggregate id.
//!
//! Deliberately absent: a listener; `/metrics` is on the operations port.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Upper bounds for durations, seconds.
pub const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds for sizes, bytes.
pub const BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 8_388_608.0];

/// Upper bounds for counts, such as commands in a batch.
pub const RECORDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// How often recorded samples are folded into buckets, so that memory stays bounded even if nobody scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why there is no recorder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exporter refused its settings, or a recorder is installed already.
    #[error("cannot install the metrics recorder")]
    Install(#[source] BuildError),
    /// Another recorder is installed already.
    #[error("a metrics recorder is installed already")]
    Taken,
}

/// What was recorded, ready to be rendered; clones share it.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Installs the process's recorder. Once per process.
    pub fn install() -> Result<Self, Error> {
        let (metrics, recorder) = Self::detached()?;
        metrics::set_global_recorder(recorder).map_err(|_| Error::Taken)?;
        metrics.process.describe();
        Ok(metrics)
    }

    /// A recorder that is not installed, for tests (`metrics::with_local_recorder`).
    pub fn detached() -> Result<(Self, PrometheusRecorder), Error> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), BYTES)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_records".to_owned()), RECORDS))
            .and_then(|builder| builder.set_buckets(SECONDS))
            .map_err(Error::Install)?
            .build_recorder();
        let metrics = Self { handle: recorder.handle(), process: metrics_process::Collector::default() };
        Ok((metrics, recorder))
    }

    /// The text of `/metrics`, `process_*` included.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Folds samples for ever; to be spawned.
    pub async fn upkeep(self) {
        let mut tick = tokio::time::interval(UPKEEP_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.handle.run_upkeep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets_in_the_unit_of_their_name() {
        let (metrics, recorder) = Metrics::detached().unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("holdfast_commit_duration_seconds", "context" => "orders").record(0.003);
            metrics::histogram!("holdfast_batch_records").record(100.0);
            metrics::counter!("holdfast_commands_total").increment(2);
        });
        let text = metrics.handle.render();
        for line in [
            "holdfast_commit_duration_seconds_bucket{context=\"orders\",le=\"0.005\"} 1",
            "holdfast_commit_duration_seconds_bucket{context=\"orders\",le=\"0.0025\"} 0",
            "holdfast_batch_records_bucket{le=\"128\"} 1",
            "holdfast_commands_total 2",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert!(!text.contains("quantile"));
    }
}
