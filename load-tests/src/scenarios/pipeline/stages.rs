//! Where the latency of a command goes: the stages that Holdfast's node, which runs in this process, records
//! of its own accord.
//!
//! Invariant: what is read is what was recorded since the last reading. Deliberately absent: the other
//! metrics, and the stages of other designs, which have none.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use hdrhistogram::Histogram;
use holdfast_runtime::telemetry;
use metrics::{Counter, Gauge, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde::Serialize;

use crate::{
    findings::{ms_at, times},
    scenarios::Error,
};

/// Those that there are, in order.
const STAGES: [(&str, &str); 6] = [
    ("arrival", telemetry::ARRIVAL_SECONDS),
    ("queue", telemetry::QUEUE_SECONDS),
    ("look-up", telemetry::LOOK_UP_SECONDS),
    ("decision", telemetry::DECISION_SECONDS),
    ("commit", telemetry::COMMIT_SECONDS),
    ("publication", telemetry::PUBLICATION_SECONDS),
];

/// How long one of them took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// In half of all cases it was quicker, ms.
    pub p50_ms: f64,
    /// In 99 of 100.
    pub p99_ms: f64,
}

/// What nodes of this process record.
#[derive(Debug, Default)]
pub(super) struct Stages([Arc<Times>; 6]);

/// Times in µs.
#[derive(Debug)]
struct Times(Mutex<Histogram<u64>>);

impl Default for Times {
    fn default() -> Self {
        Self(Mutex::new(times()))
    }
}

impl Stages {
    /// Those of this process. Nodes that are started before it is asked for the first time are not in it.
    pub(super) fn of_process() -> Result<&'static Self, Error> {
        static INSTALLED: LazyLock<Option<&Stages>> = LazyLock::new(|| {
            let stages: &Stages = Box::leak(Box::default());
            metrics::set_global_recorder(stages).is_ok().then_some(stages)
        });
        INSTALLED.ok_or_else(|| Error::Wrong("another recorder of metrics is installed in this process".into()))
    }

    /// What was recorded since this was asked last.
    pub(super) fn take(&self) -> Vec<Stage> {
        let taken = STAGES.iter().zip(&self.0).map(|((name, _), times)| {
            let mut times = times.0.lock().unwrap_or_else(PoisonError::into_inner);
            let stage = Stage { name, p50_ms: ms_at(&times, 0.5), p99_ms: ms_at(&times, 0.99) };
            times.reset();
            stage
        });
        taken.collect()
    }
}

impl HistogramFn for Times {
    fn record(&self, seconds: f64) {
        // A time is not negative, and far below 2^64.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let us = (seconds * 1e6) as u64;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(us);
    }
}

impl Recorder for Stages {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        let at = STAGES.iter().position(|(_, name)| *name == key.name());
        at.map_or_else(metrics::Histogram::noop, |at| metrics::Histogram::from_arc(self.0[at].clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_hold_what_was_recorded_since_the_last_reading() {
        let stages = Stages::default();
        metrics::with_local_recorder(&stages, || {
            for ms in 1..=100 {
                metrics::histogram!(telemetry::COMMIT_SECONDS, "context" => "orders").record(f64::from(ms) / 1_000.0);
            }
            metrics::histogram!("holdfast_of_another_kind").record(1.0);
        });
        let of = |taken: &[Stage]| taken.iter().map(|stage| (stage.name, stage.p50_ms.round())).collect::<Vec<_>>();
        let taken = of(&stages.take());
        assert_eq!(taken[4], ("commit", 50.0));
        assert!(taken.iter().filter(|(_, ms)| *ms > 0.0).count() == 1 && taken.len() == 6, "{taken:?}");
        assert_eq!(of(&stages.take())[4], ("commit", 0.0));
    }
}
