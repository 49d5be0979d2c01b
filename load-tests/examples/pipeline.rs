//! The benchmark with the stand-in order: `cargo run --release -p holdfast-load-tests --example pipeline [commands] [baseline's commands]`

use std::sync::Arc;

use holdfast_load_tests::scenarios::{
    holdfast::Contestant,
    pipeline::{Options, Progress, run},
};

#[tokio::main]
async fn main() {
    let arg = |n: usize, or: u32| std::env::args().nth(n).and_then(|text| text.parse().ok()).unwrap_or(or);
    let options =
        Options { commands: arg(1, 200_000), baseline_commands: arg(2, 20_000), ..Options::new(Contestant::stand_in) };
    let progress = |Progress { phase, done, of }: Progress| {
        if done >= of {
            eprintln!("{phase}: {done}");
        }
    };
    let outcome = run(options, Arc::new(progress)).await.expect("measured");
    println!("{}\n{}\n{}", outcome.table(), outcome.report, outcome.json());
}
