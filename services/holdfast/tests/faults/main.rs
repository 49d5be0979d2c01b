//! Breaks three nodes, the ways between them and their servers, by a seeded plan, and then accounts for every
//! command and every answer.
//!
//! `faults` runs a short round of everything as a test, and shows that a build without its lease check is
//! found out, and one whose new partitions wait for nothing; that money and stock add up when each of five
//! contexts is killed in turn; and what ten kills leave ([`kill`]). `faults run`, `faults failover`, `faults
//! grow`, `faults life` and `faults roll` are the long ones, called by `deploy/dev.sh faults`. This binary is
//! its own victim: `faults victim <sabotage>` serves.

mod failover;
mod growth;
mod kill;
mod life;
mod linear;
mod nemesis;
mod roll;
mod sabotage;
mod scenario;
mod victim;
mod world;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::{growth::Growth, life::Life, roll::Roll, sabotage::Sabotage, scenario::Run};

/// The long scenarios.
#[derive(Debug, Parser)]
#[command(name = "faults")]
enum Verb {
    /// Load, calls and every fault, over and over, until all is sent; then an account.
    Run {
        /// Steps and load follow from it; any, if not given.
        #[arg(long)]
        seed: Option<u64>,
        /// Commands sent through Kafka.
        #[arg(long, default_value_t = 100_000)]
        commands: u32,
        /// Commands a second.
        #[arg(long, default_value_t = 400)]
        rate: u32,
        /// Operations by gRPC, at least.
        #[arg(long, default_value_t = 20_000)]
        operations: usize,
        /// Seconds that a paused process sleeps.
        #[arg(long, default_value_t = 30)]
        pause: u64,
        /// Where the history and the nodes' logs go; a new directory among temporary ones, if not given.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Partitions grow from 12 to 24 and 48 under load from three producers; then an account, and how long
    /// orders waited.
    Grow {
        /// The load follows from it; any, if not given.
        #[arg(long)]
        seed: Option<u64>,
        /// Commands a second of each producer.
        #[arg(long, default_value_t = 500)]
        rate: u32,
        /// Orders of each producer.
        #[arg(long, default_value_t = 500)]
        orders: u32,
        /// Age of the Java client's metadata, s.
        #[arg(long, default_value_t = 60)]
        stale: u64,
        /// Before the first growth, between the two, and in the end, s.
        #[arg(long, default_value_t = 20)]
        calm: u64,
        /// How much later the first node hears of the database, and that of it, ms.
        #[arg(long, default_value_t = 0)]
        slow: u64,
        /// Where the history and the nodes' logs go; a new directory among temporary ones, if not given.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// The complete life of orders, with every context in a process of its own, which are killed in turn, and
    /// a provider that fails; then the books.
    Life {
        /// The load and the provider's failures follow from it; any, if not given.
        #[arg(long)]
        seed: Option<u64>,
        /// How many orders.
        #[arg(long, default_value_t = 5_000)]
        orders: u32,
        /// Commands to orders a second.
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// How many of 1,000 requests to the provider fail.
        #[arg(long, default_value_t = 200)]
        faults: u32,
        /// Where the processes' logs go; a new directory among temporary ones, if not given.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Nodes of an earlier build are replaced by this one's, back and again, under load; then the format is
    /// raised, and the earlier build must be refused; then an account.
    Roll {
        /// The commit of the earlier build; it is built under the target directory.
        #[arg(long, default_value = "27c3d67")]
        old: String,
        /// Commands a second.
        #[arg(long, default_value_t = 300)]
        rate: u32,
        /// New orders, at least.
        #[arg(long, default_value_t = 5_000)]
        orders: u32,
        /// The load follows from it; any, if not given.
        #[arg(long)]
        seed: Option<u64>,
        /// Raise the format before the way back: the trial must fail.
        #[arg(long)]
        finish_early: bool,
        /// Only let the earlier build work, and write what it leaves into this directory, for the tests.
        #[arg(long)]
        dump: Option<PathBuf>,
        /// Where the history and the nodes' logs go; a new directory among temporary ones, if not given.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// How long orders go unanswered when their owner is killed, and when it leaves in good order.
    Failover {
        /// Times of each.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// The group's session timeout, s; not below 6.
        #[arg(long, default_value_t = 10)]
        session: u64,
        /// The lease, s.
        #[arg(long, default_value_t = 5)]
        lease: u64,
    },
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("victim") => serve(arguments.next().as_deref().unwrap_or("none")),
        Some("run" | "failover" | "grow" | "life" | "roll") => said(long(Verb::parse())),
        _ => tests(),
    }
}

fn tests() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each has a machine's worth of servers.
    arguments.test_threads = Some(1);
    let mut trials = kill::trials();
    trials.extend([
        Trial::test("a_stale_read_is_refused_and_an_overlapping_one_is_not", || {
            linear::laws::a_stale_read_is_refused_and_an_overlapping_one_is_not()
        }),
        Trial::test("a_lost_or_doubled_command_is_refused", linear::laws::a_lost_or_doubled_command_is_refused),
        Trial::test("what_is_unknown_may_happen_late_or_never_but_not_twice", || {
            linear::laws::what_is_unknown_may_happen_late_or_never_but_not_twice()
        }),
        Trial::test("a_window_starts_where_the_one_before_it_ended", || {
            linear::laws::a_window_starts_where_the_one_before_it_ended()
        }),
        Trial::test("every_fault_leaves_one_effect_a_command_and_true_answers", || {
            run(async {
                let dir = directory(None)?;
                let done = scenario::survives(Run::short(any_seed()?, dir.clone())).await;
                cleared(done, dir)
            })
        }),
        Trial::test("a_lease_alone_keeps_a_node_that_slept_from_answering", || {
            run(async {
                let dir = directory(None)?;
                let done = scenario::a_lease_is_enough(Run::short(any_seed()?, dir.clone())).await;
                cleared(done, dir)
            })
        }),
        Trial::test("a_build_without_its_lease_check_is_found_out", || {
            run(async {
                let dir = directory(None)?;
                let done = scenario::no_lease_check_is_found_out(Run::short(any_seed()?, dir.clone())).await;
                cleared(done, dir)
            })
        }),
        Trial::test("partitions_that_grow_twice_lose_double_and_reorder_nothing", || {
            run(async {
                let dir = directory(None)?;
                let done = growth::keeps_order(Growth::short(any_seed()?, dir.clone())).await;
                cleared(done, dir)
            })
        }),
        Trial::test("a_build_whose_new_partitions_wait_for_nothing_is_found_out", || {
            run(async {
                let dir = directory(None)?;
                let done = growth::no_wait_is_found_out(Growth::uneven(any_seed()?, dir.clone())).await;
                cleared(done, dir)
            })
        }),
        Trial::test("what_an_earlier_build_left_has_no_second_effect", || {
            run(async {
                let dir = directory(None)?;
                let done = roll::has_no_second_effect(any_seed()?, dir.clone()).await;
                cleared(done, dir)
            })
        }),
        Trial::test("a_build_that_ignores_the_tables_of_claims_is_found_out", || {
            run(async {
                let dir = directory(None)?;
                let done = roll::lost_claims_are_found_out(dir.clone()).await;
                cleared(done, dir)
            })
        }),
        Trial::test("money_and_stock_add_up_through_kills_and_provider_faults", || {
            run(async {
                let dir = directory(None)?;
                let done = life::balances(Life::short(any_seed()?, dir.clone())).await;
                cleared(done, dir)
            })
        }),
        Trial::test("a_provider_that_charges_twice_is_found_out", || {
            run(async {
                let dir = directory(None)?;
                let done = life::a_second_charge_is_found_out(Life::forgetful(any_seed()?, dir.clone())).await;
                cleared(done, dir)
            })
        }),
    ]);
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn long(verb: Verb) -> Result<(), Failed> {
    run(async {
        match verb {
            Verb::Run { seed, commands, rate, operations, pause, dir } => {
                let seed = seed.map_or_else(any_seed, Ok)?;
                let short = Run::short(seed, directory(dir)?);
                let (pause, partition) = (Duration::from_secs(pause), Duration::from_secs(10));
                scenario::survives(Run { commands, rate, operations, pause, partition, ..short }).await
            }
            Verb::Grow { seed, rate, orders, stale, calm, slow, dir } => {
                let seed = seed.map_or_else(any_seed, Ok)?;
                let short = Growth::short(seed, directory(dir)?);
                let (stale, calm) = (Duration::from_secs(stale), Duration::from_secs(calm));
                let slow = Duration::from_millis(slow);
                growth::keeps_order(Growth { rate, orders, calm, stale, slow, ..short }).await
            }
            Verb::Life { seed, orders, rate, faults, dir } => {
                let seed = seed.map_or_else(any_seed, Ok)?;
                let short = Life::short(seed, directory(dir)?);
                life::balances(Life { orders, rate, faults, ..short }).await
            }
            Verb::Roll { old, rate, orders, seed, finish_early, dump, dir } => {
                let (seed, dir) = (seed.map_or_else(any_seed, Ok)?, directory(dir)?);
                if let Some(to) = dump {
                    return roll::leave(&old, seed, dir, &to).await;
                }
                roll::keeps_promises(Roll { old, rate, orders, seed, finish_early, dir }).await
            }
            Verb::Failover { rounds, session, lease } => {
                let (session, lease) = (Duration::from_secs(session), Duration::from_secs(lease));
                let dir = directory(None)?;
                cleared(failover::measure(rounds, session, lease, dir.clone()).await, dir)
            }
        }
    })
}

/// One that was not used before, most likely. `HOLDFAST_FAULTS_SEED` repeats one.
fn any_seed() -> Result<u64, Failed> {
    match std::env::var("HOLDFAST_FAULTS_SEED") {
        Ok(seed) => Ok(seed.parse()?),
        Err(_) => Ok(u64::from(std::time::UNIX_EPOCH.elapsed()?.subsec_nanos())),
    }
}

fn directory(wanted: Option<PathBuf>) -> Result<PathBuf, Failed> {
    match wanted {
        Some(dir) => {
            std::fs::create_dir_all(&dir)?;
            Ok(dir)
        }
        None => Ok(tempfile::Builder::new().prefix("holdfast-faults-").tempdir()?.keep()),
    }
}

/// A history that nobody will ask for goes; one of a failure stays, and is named.
fn cleared(done: Result<(), Failed>, dir: PathBuf) -> Result<(), Failed> {
    match done {
        Ok(()) => Ok(std::fs::remove_dir_all(dir)?),
        Err(failed) => {
            eprintln!("history and logs are kept in {}", dir.display());
            Err(failed)
        }
    }
}

fn serve(sabotage: &str) -> ExitCode {
    let wrap = Sabotage::named(sabotage)
        .map(Sabotage::wrap)
        .or_else(|| kill::Sabotage::named(sabotage).map(kill::Sabotage::wrap));
    let Some(wrap) = wrap else {
        eprintln!("no such sabotage: {sabotage}");
        return ExitCode::from(2);
    };
    match victim::run(wrap) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("victim: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn said(done: Result<(), Failed>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("FAILED: {}", failed.message().unwrap_or("no reason given"));
            ExitCode::FAILURE
        }
    }
}

fn run(test: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(test)
}
