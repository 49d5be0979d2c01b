//! The one binary: serves contexts, runs the development stack and the demo, and holds the operator's verbs.
//!
//! Exit codes: 0 fine, 1 a check failed, 2 wrong usage or configuration, 3 a dependency is unreachable.

use std::process::ExitCode;

use clap::Parser as _;
use holdfast::{cli, verbs};

/// Messages are made on one thread and freed on another. That is where glibc's allocator is slow: it took nearly half of this process's
/// CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the tokio runtime did not start: {error}");
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(verbs::run(arguments)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
