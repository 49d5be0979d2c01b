//! The parts of the `holdfast` binary, as a library so that test binaries can put the same process together
//! with other ports.
//!
//! Deliberately absent: anything about orders or stock.

pub mod address;
pub mod admin;
pub mod cli;
pub mod compose;
pub mod contexts;
pub mod failure;
pub mod infrastructure;
mod loops;
pub mod operator;
pub mod people;
pub mod shelves;
pub mod simulated;
pub mod verbs;

/// Runs the verb that the command line names, to its end; returns the exit code.
///
/// Left out of the unit tests, which would compile every verb for it.
#[cfg(not(test))]
pub fn run() -> std::process::ExitCode {
    use std::process::ExitCode;

    use clap::{CommandFactory as _, FromArgMatches as _};

    // The allocator asks for huge pages, and the kernel clears each in one go while what touched it waits: a
    // twelfth of this process's time, and a third of its slowest answers.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        eprintln!("note: transparent huge pages stay on: {error}");
    }
    let matches = verbs::with_scenarios(cli::Arguments::command()).get_matches();
    let arguments = cli::Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the tokio runtime did not start: {error}");
            return ExitCode::from(1);
        }
    };
    let ended = runtime.block_on(verbs::run(arguments));
    // A client of Kafka may never come to its end while its broker is away: nobody waits for one.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
