//! Java programs of ours that run beside a measurement, each a process of its own, compiled when it is
//! started.
//!
//! Invariant: a program ends when its input does, and so never outlives this process. Deliberately absent:
//! restarting one.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a program may take to end once its input has.
const ENDING: Duration = Duration::from_secs(30);

/// A program that runs. Dropping it kills it.
pub(crate) struct Program {
    process: Child,
    input: ChildStdin,
    errors: PathBuf,
}

impl Program {
    /// Starts `source`, the text of a class called `name`. `java` has Kafka's classes on its path, and
    /// options of the virtual machine; `dir` is for what is needed on disk. What it writes is the caller's to
    /// read.
    pub(crate) fn start(
        java: std::process::Command,
        dir: &Path,
        (name, source): (&str, &str),
        arguments: &[&str],
    ) -> io::Result<(Self, ChildStdout)> {
        let (file, errors) = (dir.join(format!("{name}.java")), dir.join(format!("{name}.log")));
        std::fs::write(&file, source)?;
        let mut process = Command::from(java)
            .arg(&file)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&errors)?)
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok((Self { process, input, errors }, output))
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Returns when it has ended by itself, with what it said last.
    pub(crate) async fn ended(&mut self) -> io::Error {
        match self.process.wait().await {
            Ok(status) => io::Error::other(format!("{status}: {}", self.said())),
            Err(error) => error,
        }
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self) -> io::Result<()> {
        let Self { mut process, input, .. } = self;
        drop(input);
        let ended = tokio::time::timeout(ENDING, process.wait()).await;
        ended.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(drop)
    }

    /// The end of what it wrote beside its output.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
