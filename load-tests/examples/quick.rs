//! A first number: how fast one node drains a topic. `cargo run --release -p holdfast-load-tests --example quick [orders] [lanes] [batch]`

#![allow(clippy::cast_precision_loss)]

use std::time::{Duration, Instant};

use holdfast_load_tests::{
    kafka::{self, Ends},
    producer::{self, Options},
    scenarios::holdfast::{Contestant, Serving},
    work::Mix,
};
use holdfast_runtime::Config;
use holdfast_stack::{Stack, StackOptions};

/// What the product's binary uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
    rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn children(pid: u32) -> f64 {
    let mut sum = cpu(pid);
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
        if rest.split_whitespace().nth(1) == Some(&pid.to_string()) {
            sum += cpu(child);
        }
    }
    sum
}

#[tokio::main]
async fn main() {
    let arg = |n: usize, or: usize| std::env::args().nth(n).and_then(|text| text.parse().ok()).unwrap_or(or);
    let (orders, lanes, batch) = (arg(1, 50_000), arg(2, 2), arg(3, 512));
    let stack = Stack::start(StackOptions::default()).await.expect("stack");
    let brokers = stack.brokers().to_owned();
    let url = stack.postgres_url("postgres");
    kafka::create_topics(&brokers, &["orders.commands", "orders.events", "orders.dlq"], 12).await.expect("topics");
    let mut mix = Mix::benchmark(u32::try_from(orders).expect("few"), 1);
    let config = Config { address: "bench".into(), lanes, batch_items_max: batch, ..Config::default() };
    let serving = Serving::start(Contestant::stand_in(), config, &brokers, &url, "orders").await.expect("node");
    serving.ready(Duration::from_secs(30)).await.expect("ready");
    serving.stop().await;
    let ends = Ends::new(&brokers).expect("ends");
    let mut target = 0;
    let config = Config { address: "bench".into(), lanes, batch_items_max: batch, ..Config::default() };
    for round in 0..2 {
        mix.seed += 1;
        let ledger = producer::produce(&brokers, &mix, Options::to("orders.commands"), |_| {}).await.expect("produced");
        println!("round {round}: produced {} in {:?}", ledger.records, ledger.elapsed);
        let before = target;
        target += ledger.records;
        let pids = [std::process::id(), stack.kafka_pid().await.expect("kafka")];
        let pg = stack.postgres_pid().await.expect("postgres");
        let used = || [cpu(pids[0]), cpu(pids[1]), children(pg)];
        let cpu_before = used();
        let serving =
            Serving::start(Contestant::stand_in(), config.clone(), &brokers, &url, "orders").await.expect("node");
        let start = Instant::now();
        let mut first = None;
        loop {
            let total = ends.total("orders.events").await.expect("ends");
            if total > before && first.is_none() {
                first = Some((Instant::now(), total - before));
                println!("first events after {:?}: {}", start.elapsed(), total - before);
            }
            if total >= target {
                break;
            }
            assert!(start.elapsed() < Duration::from_mins(3), "stuck at {total} of {target}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (began, skipped) = first.expect("began");
        let took = began.elapsed().as_secs_f64();
        let count = (target - before - skipped) as f64;
        let after = used();
        println!("{count} in {took:.2}s: {:.0}/s", count / took);
        for (name, n) in [("holdfast", 0), ("kafka", 1), ("postgres", 2)] {
            println!(
                "  {name}: {:.2} CPU s, {:.1} µs a command",
                after[n] - cpu_before[n],
                (after[n] - cpu_before[n]) * 1e6 / (target - before) as f64
            );
        }
        serving.stop().await;
    }
    stack.stop().await.expect("stop");
}
