//! The benchmark runs on the real stack, small, and its checkers find a sound run sound.

use std::{sync::Arc, time::Duration};

use holdfast_load_tests::scenarios::{
    holdfast::Contestant,
    pipeline::{Options, run},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_benchmark_command_has_one_event_each_contender_a_rate() {
    let options = Options {
        commands: 8_000,
        baseline_commands: 1_600,
        rates: (800, 100),
        latency_for: Duration::from_secs(2),
        ..Options::new(Contestant::stand_in)
    };
    let outcome = run(options, Arc::new(|_| {})).await.unwrap();
    assert!(outcome.report.is_clean(), "{}", outcome.report);
    // Warm-up, drain, live, latency.
    assert_eq!(outcome.report.commands, 2_000 + 8_000 + 8_000 + 1_600);
    assert_eq!(outcome.report.applied, outcome.report.commands);
    for rate in [outcome.holdfast.drain, outcome.holdfast.live, outcome.baseline.drain, outcome.ceiling] {
        assert!(rate.per_second > 0.0 && rate.commands > 0, "{rate:?}");
    }
    let latencies = [outcome.holdfast.latency.times, outcome.baseline.latency.times];
    assert!(latencies.iter().all(|times| times.count > 0 && times.p50_ms <= times.p99_ms), "{latencies:?}");
}
