//! One server process: alive or not, its log, its end.
//!
//! Invariant: a `ServerProcess` that is dropped is dead and reaped. Built on `std::process`, not tokio's: a
//! stack is shared by tests that each bring a runtime of their own, and must not die with the one that
//! happened to start it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;
use crate::error::free_mib;
use crate::watchdog::{GatedCommand, LastSignal, Watchdog};

/// How often a condition is looked at while it is awaited.
pub(crate) const POLL: Duration = Duration::from_millis(25);

const TAIL_LINES: usize = 25;

/// What is to be known of a process besides its command.
#[derive(Debug)]
pub(crate) struct Spec {
    /// For messages.
    pub(crate) name: &'static str,
    /// Where its output goes; the previous log is kept beside it as `.1`.
    pub(crate) log: PathBuf,
    /// The port it is to listen on, for messages.
    pub(crate) port: Option<u16>,
    /// How the watchdog ends it.
    pub(crate) last_signal: LastSignal,
}

/// A child under guard.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    name: &'static str,
    child: Child,
    log: PathBuf,
    port: Option<u16>,
    watchdog: Arc<Watchdog>,
}

impl ServerProcess {
    /// Starts `command`.
    pub(crate) fn spawn(spec: Spec, mut command: GatedCommand, watchdog: &Arc<Watchdog>) -> Result<Self, Error> {
        let Spec { name, log, port, last_signal } = spec;
        if log.exists() {
            let previous = log.with_extension("log.1");
            fs::rename(&log, &previous).map_err(|source| Error::io("replace", &previous, source))?;
        }
        let out = File::create(&log).map_err(|source| Error::io("create", &log, source))?;
        let err = out.try_clone().map_err(|source| Error::io("share", &log, source))?;
        command.inner().stdout(out).stderr(err);
        let child = watchdog.spawn(command, last_signal)?;
        Ok(Self { name, child, log, port, watchdog: Arc::clone(watchdog) })
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server has written so far.
    pub(crate) fn log_text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// `Err(Exited)`, or the disk's fault, if the process has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.exited(status)),
            Err(source) => Err(Error::io("wait for", Path::new(self.name), source)),
        }
    }

    /// One round of waiting for the server to be ready; an error if it has ended, or if `patience` since
    /// `start` is spent.
    pub(crate) async fn keep_waiting(&mut self, start: Instant, patience: Duration) -> Result<(), Error> {
        self.check_alive()?;
        if start.elapsed() > patience {
            return Err(self.not_ready(patience));
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }

    /// Waits for a tool to end by itself, and well.
    pub(crate) async fn await_success(mut self, patience: Duration) -> Result<(), Error> {
        match self.await_exit(patience).await? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.exited(status)),
            None => Err(self.not_ready(patience)),
        }
    }

    /// Asks politely with `signal`, and after `patience` no longer.
    pub(crate) async fn stop(mut self, signal: Signal, patience: Duration) -> Result<(), Error> {
        self.signal(signal);
        if self.await_exit(patience).await?.is_none() {
            tracing::warn!(server = self.name, ?patience, "server did not stop in time; killing it");
        }
        Ok(())
    }

    async fn await_exit(&mut self, patience: Duration) -> Result<Option<ExitStatus>, Error> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(Some(status)),
                Ok(None) if Instant::now() > deadline => return Ok(None),
                Ok(None) => tokio::time::sleep(POLL).await,
                Err(source) => return Err(Error::io("wait for", Path::new(self.name), source)),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    fn not_ready(&self, patience: Duration) -> Error {
        Error::NotReady {
            server: self.name,
            seconds: patience.as_secs(),
            log: self.log.clone(),
            tail: tail(&self.log_text()),
        }
    }

    fn exited(&self, status: ExitStatus) -> Error {
        let text = self.log_text();
        let free_mib = free_mib(&self.log).unwrap_or(u64::MAX);
        if text.contains("No space left on device") || free_mib == 0 {
            return Error::DiskFull { path: self.log.clone(), free_mib };
        }
        if let Some(port) = self.port.filter(|_| text.contains("Address already in use")) {
            return Error::PortTaken { server: self.name, port };
        }
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        Error::Exited { server: self.name, status, log: self.log.clone(), tail: tail(&text) }
    }
}

impl Drop for ServerProcess {
    /// Kills the process and all its descendants, at once and without a word, and reaps it.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Frozen first, so that it starts no child that this list misses.
            self.signal(Signal::STOP);
            let family = descendants(self.child.id());
            self.signal(Signal::KILL);
            for pid in family {
                send(pid, Signal::KILL);
            }
        }
        self.child.wait().ok();
        self.watchdog.release(self.child.id());
    }
}

/// Sends a signal; a process that has ended is no error.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}

/// Children, grandchildren and so on, as the kernel lists them now.
fn descendants(root: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let parents: Vec<(u32, u32)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.split_off(1)
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state parent …`; the name may hold anything, a parenthesis included.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Ends a server of an earlier owner that lost even its watchdog: the pid noted in `pid_file`, if that
/// process still has `argument` on its command line.
pub(crate) async fn end_orphan(pid_file: &Path, argument: &Path) -> Result<(), Error> {
    let Ok(text) = fs::read_to_string(pid_file) else { return Ok(()) };
    if let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while has_argument(pid, argument) {
            if Instant::now() > deadline {
                send(pid, Signal::KILL);
            } else {
                send(pid, Signal::QUIT);
                send(pid, Signal::TERM);
            }
            tokio::time::sleep(POLL).await;
        }
    }
    match fs::remove_file(pid_file) {
        // The server itself may have removed it, on its way out.
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::io("remove", pid_file, source)),
        _ => Ok(()),
    }
}

fn has_argument(pid: u32, argument: &Path) -> bool {
    let argument = argument.as_os_str().as_bytes();
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == argument))
}

/// The last lines of a log.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
