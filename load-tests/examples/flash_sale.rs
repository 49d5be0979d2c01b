//! A flash sale on a shop that runs: `cargo run --release -p holdfast-load-tests --example flash_sale BROKERS DATABASE_URL [commands a second]`

use holdfast_load_tests::{
    checkers::Target,
    scenarios::flash_sale::{Options, run},
};

#[tokio::main]
async fn main() {
    let arg = |n: usize| std::env::args().nth(n);
    let (Some(brokers), Some(url)) = (arg(1), arg(2)) else {
        eprintln!("flash_sale BROKERS DATABASE_URL [commands a second]");
        std::process::exit(2);
    };
    let options = Options::new(Target::new(brokers, &url));
    let rate = arg(3).and_then(|text| text.parse().ok()).unwrap_or(options.rate);
    let outcome = run(&Options { rate, ..options }).await.expect("measured");
    println!("{}\n{}", outcome.report, serde_json::to_string_pretty(&outcome).expect("a value"));
    println!("slowdown of p99: {:?}", outcome.slowdown());
}
