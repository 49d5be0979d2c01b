//! The one binary: serves contexts, runs the development stack and the demo, and holds the operator's verbs.
//!
//! Exit codes: 0 fine, 1 a check failed, 2 wrong usage or configuration, 3 a dependency is unreachable,
//! 130 stopped by a signal.
//! Deliberately absent: everything but the allocator. A future is compiled where it is polled, so a binary
//! that polled the verbs would compile the whole program once more.

use std::process::ExitCode;

/// Messages are made on one thread and freed on another. That is where glibc's allocator is slow: it took
/// nearly half of this process's CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    holdfast::run()
}
