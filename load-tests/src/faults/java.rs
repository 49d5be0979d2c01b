//! Sends load by Kafka's own client, in a process of its own.
//!
//! Upholds what [`crate::producer`] does: what is in the ledger was acknowledged, and of one key one after
//! the other. Needs a Java with its compiler (a JDK): the program (`load-tests/java`) is compiled when it is
//! started. Deliberately absent: a choice of partitioner; that client has one.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    producer::{self, Ledger, Options},
    work::{Planned, now_ms},
};

const PROGRAM: &str = include_str!("../../java/AwaitingProducer.java");

/// Sends these records at the pace of `options`, one of a key after the other. `java` has Kafka's classes on
/// its path; `dir` is for what it needs on disk.
pub async fn produce(
    java: Command,
    dir: &Path,
    brokers: &str,
    records: Vec<Planned>,
    options: Options,
) -> io::Result<Ledger> {
    let (brokers, program) = (brokers.to_owned(), dir.join("AwaitingProducer.java"));
    std::fs::write(&program, PROGRAM)?;
    let sending = tokio::task::spawn_blocking(move || send_all(java, &program, &brokers, &records, &options));
    sending.await.map_err(io::Error::other)?
}

fn send_all(
    mut java: Command,
    program: &Path,
    brokers: &str,
    records: &[Planned],
    options: &Options,
) -> io::Result<Ledger> {
    let mut ledger = Ledger::default();
    let mut process = java
        .arg(program)
        .args([brokers, &options.topic, &options.rate.max(1).to_string()])
        .arg(options.metadata_max_age.as_millis().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let time = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
    let lines: String = records.iter().map(|record| line(record, &time)).collect();
    let mut input = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    // It reads at its pace; if it ends early, its errors say why.
    let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = process.wait_with_output()?;
    let written = writing.join().map_err(|_| io::Error::other("the writing thread panicked"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("Kafka's own client: {}: {said}", output.status)));
    }
    written?;
    let times: Vec<u64> = String::from_utf8_lossy(&output.stdout).lines().filter_map(|at| at.parse().ok()).collect();
    if times.len() != records.len() {
        return Err(io::Error::other(format!("{} records, {} times of sending", records.len(), times.len())));
    }
    for (record, at) in records.iter().zip(times) {
        ledger.note_at(record, Duration::from_millis(at.saturating_sub(ledger.started_ms)));
    }
    ledger.elapsed = Duration::from_millis(now_ms().saturating_sub(ledger.started_ms));
    Ok(ledger)
}

fn line(record: &Planned, time: &str) -> String {
    let mut line = format!("{}\t", record.key);
    for byte in &record.value {
        let _ = write!(line, "{byte:02x}");
    }
    for (name, value) in producer::headers_of(record, time) {
        let _ = write!(line, "\t{name}\t{value}");
    }
    line.push('\n');
    line
}
