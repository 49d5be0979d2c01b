//! Kills the process again and again under load, and then accounts for every command.
//!
//! Upholds I1–I4, I7, I8 and I10 across crashes and pauses of two nodes on a real Kafka and a real Postgres, and I9: each
//! build that is broken on purpose must be found out. This binary is its own victim: `kill victim <sabotage>` serves.

mod chaos;
mod sabotage;
mod victim;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::sabotage::Sabotage;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("victim") {
        return serve(arguments.next().as_deref().unwrap_or("none"));
    }
    let mut arguments = Arguments::from_args();
    // Each has a machine's worth of servers.
    arguments.test_threads = Some(1);
    let mut trials =
        vec![Trial::test("ten_kills_leave_every_command_with_exactly_one_effect", || run(chaos::survives()))];
    for how in Sabotage::BROKEN {
        trials.push(Trial::test(format!("a_build_with_{how}_is_found_out"), move || run(chaos::is_found_out(how))));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn serve(sabotage: &str) -> ExitCode {
    let Some(how) = Sabotage::named(sabotage) else {
        eprintln!("no such sabotage: {sabotage}");
        return ExitCode::from(2);
    };
    match victim::run(how.wrap()) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("victim: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn run(test: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(test)
}
