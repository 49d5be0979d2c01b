//! The benchmark runs on the real stack, small, and finds each command's one event, in every contender.

use std::{sync::Arc, time::Duration};

use holdfast_load_tests::{
    rivals::streams::Settings,
    scenarios::{
        holdfast::Contestant,
        pipeline::{Options, Tally, run},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_has_one_event_from_every_contender() {
    let options = Options {
        rounds: 1,
        commands: 8_000,
        baseline_commands: 1_600,
        rates: vec![400, 800],
        baseline_rate: 100,
        latency_for: Duration::from_secs(2),
        streams: vec![Settings::TRIED[0]],
        ..Options::new(Contestant::stand_in)
    };
    let outcome = run(options, Arc::new(|_| {})).await.unwrap();
    assert!(outcome.report.is_clean(), "{}", outcome.report);
    // Cold, warm, live, warming up, latency.
    let commands = 3 * 8_000 + 2_000 + 2 * (400 + 800);
    assert_eq!(outcome.report.commands, commands + 2 * 8_000, "and the trial");
    assert_eq!(outcome.report.applied, outcome.report.commands);
    let names: Vec<&str> = outcome.contenders.iter().map(|contender| contender.name).collect();
    assert_eq!(names, ["holdfast", "Kafka Streams, exactly once", "one transaction per command", "echo"]);
    for contender in &outcome.contenders {
        let [turn] = &contender.turns[..] else { panic!("one round: {contender:?}") };
        let sent = if turn.latencies.len() == 1 { 3 * 1_600 + 400 + 200 } else { commands };
        assert_eq!(turn.tally, Tally { commands: sent, ..Tally::default() }, "{}", contender.name);
        for rate in [turn.cold, turn.warm, turn.live] {
            assert!(rate.per_second > 0.0 && rate.commands > 0, "{}: {rate:?}", contender.name);
        }
        let is_sound = |count: u64, p50: f64, p99: f64| count > 0 && p50 > 0.0 && p50 <= p99;
        assert!(
            turn.latencies.iter().all(|latency| is_sound(latency.count, latency.p50_ms, latency.p99_ms)),
            "{turn:?}"
        );
    }
    // What Postgres counts. The rival's transaction holds one command, and it polls besides.
    let [ours, _, theirs, _] = [0, 1, 2, 3].map(|at| outcome.contenders[at].turns[0].database);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert!(theirs.transactions > 1.0 && theirs.rows > 3.0, "{theirs:?}");
    // Per command, whatever the machine's speed: 1.02 rows, 608 bytes of WAL and 0.69 stored orders read,
    // with 0.013 transactions. A row of the outbox for each event makes that 1.98 rows and 1,146 bytes; a
    // look-up of orders that are in memory reads 1.28. The number of commits depends on how much comes at
    // once, so its bound is wide.
    assert!(ours.rows < 1.3, "a row more for some commands: {ours:?}");
    assert!(ours.wal_bytes < 850.0, "more WAL for a command: {ours:?}");
    assert!(ours.aggregates_read < 0.9, "orders are read that are in memory, or more than once: {ours:?}");
    assert!(ours.transactions < 0.1, "more round trips for a command: {ours:?}");
    assert!(outcome.ceiling[0].per_second > 0.0);
}
