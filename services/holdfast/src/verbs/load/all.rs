//! `holdfast load all`: scenarios one after the other, and a page of what they found.
//!
//! Each runs in a process of its own, as it does when it is asked for alone: what one leaves in memory, its
//! telemetry, and its death are not the next one's. The page is written again after each, so what ends early
//! leaves a page. Deliberately absent: measuring, and printing; a child does both.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use holdfast_load_tests::report::{self, Entry, Results};

use super::list::Scenario;
use crate::{cli::Load, failure::Failure};

/// Runs `scenarios` and writes their page; 1 if one failed or found a promise broken. `again` are the
/// arguments of a process with the same configuration.
pub(super) async fn run(scenarios: &[&Scenario], load: &Load, again: &[OsString]) -> Result<u8, Failure> {
    let earlier = load.compare.iter().map(|path| Results::read(path)).collect::<Result<Vec<_>, _>>();
    let earlier = earlier.map_err(Failure::usage)?;
    let mut results = Results::begin(if load.short { "short" } else { "full" }, commit());
    let directory = load.out.clone().unwrap_or_else(|| {
        // A name that every file system takes.
        PathBuf::from("load-results").join(results.at.replace(':', "-"))
    });
    let mut page = report::write(&results, &earlier, &directory).map_err(Failure::usage)?;
    for scenario in scenarios {
        eprintln!("{}: {}", scenario.name, scenario.question);
        results.add(of_child(scenario, load, again).await?);
        page = report::write(&results, &earlier, &directory).map_err(|error| Failure::Check(error.into()))?;
    }
    if load.json {
        println!("{}", serde_json::json!(results));
    }
    for entry in &results.scenarios {
        let state = match (&entry.failure, entry.findings.breaches.len()) {
            (Some(failure), _) => format!("failed: {failure}"),
            (None, 0) => "every promise kept".to_owned(),
            (None, broken) => format!("{broken} promises broken"),
        };
        eprintln!("{}: {state}, after {:.0} s", entry.findings.scenario, entry.seconds);
    }
    eprintln!("the page: {}", page.display());
    Ok(u8::from(!results.is_sound()))
}

/// Runs a scenario in a process of its own.
async fn of_child(scenario: &Scenario, load: &Load, again: &[OsString]) -> Result<Entry, Failure> {
    let began = Instant::now();
    let directory = tempfile::tempdir().context("a directory for what a scenario found").map_err(Failure::Check)?;
    let path = directory.path().join("entry.json");
    let program = std::env::current_exe().context("the path of this program").map_err(Failure::Check)?;
    let mut child = tokio::process::Command::new(program);
    child.args(again).args(load.of_one(scenario.name, &path)).stdin(Stdio::null()).kill_on_drop(true);
    if load.json {
        // What this process prints is one object.
        child.stdout(Stdio::null());
    }
    let status = child.status().await.context("a process for a scenario").map_err(Failure::Check)?;
    let written = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let ended = || Entry {
        findings: scenario.nothing(),
        failure: Some(format!("its process ended without a result, with {status}")),
        seconds: began.elapsed().as_secs_f64(),
    };
    Ok(written.unwrap_or_else(ended))
}

/// Writes what a scenario found where its parent reads it.
pub(super) fn write(path: &Path, entry: &Entry) -> Result<(), Failure> {
    let mut results = Results::default();
    // Drops what JSON has no word for.
    results.add(entry.clone());
    let entry = results.scenarios.pop().unwrap_or_default();
    let written = std::fs::write(path, serde_json::json!(entry).to_string());
    written.context("writing what the scenario found").map_err(Failure::Check)
}

/// The commit of the work tree that this program was built in, with `-dirty` if files differ from it; none if
/// it lies elsewhere, or there is no git.
fn commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(program.parent()?).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // A program that was copied into another repository was not built of it.
    let root = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    let is_ours = root.join("load-tests/src/findings.rs").is_file() && program.starts_with(root.join("target"));
    is_ours.then(|| git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]))?
}
