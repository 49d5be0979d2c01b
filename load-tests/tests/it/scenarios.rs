//! Scenarios run on the real stack, small: they find what they ask for, and no broken promise.
//!
//! The node that they measure is this test binary, started again for one test that does nothing otherwise.

use std::{process::Command, sync::Arc};

use holdfast_load_tests::{
    findings::Findings,
    scenarios::{
        apart::{self, Launch},
        catch_up, cold_start, data,
        holdfast::Contestant,
        hot_order,
        pipeline::Watcher,
        poison,
    },
};
use holdfast_runtime::Config;

fn launch() -> Launch {
    Launch::new(|| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "scenarios::node", "--nocapture"]);
        command
    })
}

fn watcher() -> Watcher {
    Arc::new(|_| {})
}

/// Not a test: what [`launch`] starts. Where nothing is said of servers, there is nothing to serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    let Ok(brokers) = std::env::var(apart::BROKERS) else { return };
    let url = std::env::var(apart::DATABASE_URL).unwrap();
    let config = Config { address: "node".into(), ..Config::default() };
    apart::serve(Contestant::stand_in(), config, brokers, url).await.unwrap();
}

/// All of these figures are there, and above 0.
fn assert_found(findings: &Findings, of: &str, names: &[&str]) {
    for name in names {
        let value = findings.value(of, name);
        assert!(value > 0.0, "{of}, {name}: {value}; {:?}", findings.figures);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_compares_sizes_and_keeps_every_promise() {
    let options = data::Options { launch: launch(), commands: 4_000, sizes: vec![500, 3_000] };
    let findings = data::run(options, watcher()).await.unwrap();
    assert_eq!(findings.breaches, Vec::<String>::new());
    for size in ["500 stored", "3000 stored"] {
        for work in ["existing", "new"] {
            let names = ["rate", "WAL, without full pages", "rows written", "transactions"];
            let names = names.map(|figure| format!("{figure}, {work} orders"));
            assert_found(&findings, size, &names.each_ref().map(String::as_str));
        }
    }
    assert_found(&findings, "3000 stored", &["WAL, without full pages, existing orders, of that of 500 stored"]);
    assert!(findings.plots.iter().all(|plot| plot.lines.iter().all(|line| line.points.len() == 2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_order_has_each_event_in_order() {
    let options = hot_order::Options { launch: launch(), commands: 4_000, rounds: 1 };
    let findings = hot_order::run(options, watcher()).await.unwrap();
    assert_eq!(findings.breaches, Vec::<String>::new());
    assert_found(&findings, "one hot order", &["rate", "WAL", "rate, of that of many orders"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_start_finds_its_few_orders_among_many() {
    let findings = cold_start::run(cold_start::Options::new(launch(), 20_000), watcher()).await.unwrap();
    assert_eq!(findings.breaches, Vec::<String>::new());
    let names = ["time to owning all partitions", "time to the first event", "rate, wave 2", "resident, after all"];
    assert_found(&findings, "node", &names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catch_up_stays_below_its_bound_and_says_when_not() {
    let options = catch_up::Options::new(launch(), 20_000);
    let findings = catch_up::run(options.clone(), watcher()).await.unwrap();
    assert_eq!(findings.breaches, Vec::<String>::new());
    assert_found(&findings, "node", &["rate", "resident, peak"]);
    let tight = catch_up::Options { resident_max: 1 << 20, records: 4_000, ..options };
    let findings = catch_up::run(tight, watcher()).await.unwrap();
    assert!(matches!(&findings.breaches[..], [one] if one.starts_with("I11 ")), "{:?}", findings.breaches);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_a_dead_letter_once_and_neighbours_are_done() {
    let options = poison::Options { launch: launch(), commands: 4_000, rounds: 1 };
    let findings = poison::run(options, watcher()).await.unwrap();
    assert_eq!(findings.breaches, Vec::<String>::new());
    let of = "with 1% bad";
    assert_found(&findings, of, &["rate", "rate, of that without"]);
    let failed = findings.value(of, "dead letters, POISON");
    assert!((failed - 20.0).abs() < 0.1, "{failed}");
    let others = ["UNDECODABLE", "UNKNOWN_TYPE", "INVALID"].map(|reason| format!("dead letters, {reason}"));
    assert_found(&findings, of, &others.each_ref().map(String::as_str));
}
