//! `holdfast stack`: the embedded Kafka and Postgres alone.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use holdfast_platform::shutdown::Signals;
use holdfast_stack::{Stack, StackOptions};
use rustix::process::{Pid, Signal};

use crate::{cli, failure::Failure, simulated};

/// Runs one of the stack's verbs.
pub async fn run(verb: cli::Stack) -> Result<u8, Failure> {
    match verb {
        cli::Stack::Up { data_dir } => up(place(data_dir)?).await,
        cli::Stack::Down { data_dir } => down(&place(data_dir)?).await,
        cli::Stack::Status { data_dir, json } => Ok(status(&place(data_dir)?, json)),
        cli::Stack::Reset { data_dir } => {
            let dir = place(data_dir)?;
            reset(&dir)?;
            println!("{}: empty", dir.display());
            Ok(0)
        }
    }
}

fn place(data_dir: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match data_dir {
        Some(dir) => Ok(dir),
        None => Ok(holdfast_stack::default_data_dir()?),
    }
}

async fn up(dir: PathBuf) -> Result<u8, Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::Check(error.into()))?;
    let stack = Stack::start(StackOptions { data_dir: Some(dir.clone()), ..StackOptions::default() }).await?;
    let running = Running::note(&dir)?;
    println!("HOLDFAST_KAFKA_BROKERS={}", stack.brokers());
    println!("HOLDFAST_DATABASE_URL={}", stack.postgres_url("postgres"));
    eprintln!("Ctrl-C or `holdfast stack down` stops both; the data stays in {}", dir.display());
    signals.next().await;
    drop(running);
    stack.stop().await?;
    Ok(0)
}

async fn down(dir: &Path) -> Result<u8, Failure> {
    let Some(pid) = Running::pid(dir) else {
        println!("not running");
        return Ok(0);
    };
    rustix::process::kill_process(pid, Signal::TERM)
        .context("the running process can't be stopped")
        .map_err(Failure::Check)?;
    let gone = async {
        while Running::pid(dir).is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_mins(1), gone).await;
    gone.context("it did not stop within a minute").map_err(Failure::Check)?;
    println!("stopped");
    Ok(0)
}

fn status(dir: &Path, json: bool) -> u8 {
    let pid = Running::pid(dir).map(Pid::as_raw_nonzero);
    if json {
        println!("{}", serde_json::json!({ "running": pid.is_some(), "pid": pid, "data_dir": dir }));
    } else if let Some(pid) = pid {
        println!("running as process {pid}, data in {}", dir.display());
    } else {
        println!("not running, data in {}", dir.display());
    }
    u8::from(pid.is_none())
}

/// Deletes the data, unless something runs on it.
pub fn reset(dir: &Path) -> Result<(), Failure> {
    if let Some(pid) = Running::pid(dir) {
        let pid = pid.as_raw_nonzero();
        return Err(Failure::usage(anyhow::anyhow!(
            "process {pid} runs on {}; `holdfast stack down` stops it",
            dir.display()
        )));
    }
    // Only what a stack or `holdfast dev` has made is deleted, so that a mistyped directory is safe.
    let is_ours = dir.join("stack.json").exists() || simulated::books(dir).exists();
    match fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(_) if is_ours || fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none()) => {
            fs::remove_dir_all(dir)
                .with_context(|| format!("{} can't be deleted", dir.display()))
                .map_err(Failure::Check)
        }
        _ => Err(Failure::usage(anyhow::anyhow!(
            "{} does not look like a data directory of Holdfast; not deleted",
            dir.display()
        ))),
    }
}

/// A note in the data directory of which process runs on it; taken away on drop.
pub struct Running(PathBuf);

const NOTE: &str = "holdfast.pid";

impl Running {
    /// Leaves the note.
    pub fn note(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(NOTE);
        let pid = std::process::id().to_string();
        fs::write(&path, pid)
            .with_context(|| format!("{} can't be written", path.display()))
            .map_err(Failure::Check)?;
        Ok(Self(path))
    }

    /// The process that left a note, if it is alive.
    fn pid(dir: &Path) -> Option<Pid> {
        let text = fs::read_to_string(dir.join(NOTE)).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        rustix::process::test_kill_process(pid).is_ok().then_some(pid)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
