//! Children never outlive their owner, not even one that was killed with SIGKILL.
//!
//! One small shell per stack holds the reading end of a pipe whose writing end only this process has. When
//! this process ends, in whatever way, the kernel closes the pipe, and the shell ends the processes that it
//! guards, removes a temporary data directory, and only then lets go of the data directory's lock (which it
//! inherited), so that a successor never meets a server that is still dying.
//!
//! A server is started through a gate: its process exists and is guarded before it may exec. There is no
//! moment in which a killed owner leaves something behind.
//!
//! Deliberately absent: `PR_SET_PDEATHSIG`. It fires when the *thread* that spawned dies, and worker threads
//! come and go.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::Error;

/// Reads `guard SIGNAL:PID`, `release PID`, `scratch DIR`, `leave`; end of input means that the owner is
/// gone.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
lives() {
  kill -s 0 -- "-$1" 2>/dev/null || return 1
  # Where nobody reaps orphans, a dead one stays as a zombie.
  read -r stat <"/proc/$1/stat" || return 1
  case ${stat##*)} in " Z "*) return 1 ;; esac
}
guarded=
scratch=
while read -r verb subject; do
  case $verb in
    guard) guarded="$guarded $subject" ;;
    release)
      kept=
      for entry in $guarded; do
        [ "${entry#*:}" = "$subject" ] || kept="$kept $entry"
      done
      guarded=$kept ;;
    scratch) scratch=$subject ;;
    leave) exit 0 ;;
  esac
done
for entry in $guarded; do
  kill -s "${entry%%:*}" -- "-${entry#*:}" 2>/dev/null
done
for entry in $guarded; do
  patience=100
  while lives "${entry#*:}" && [ "$patience" -gt 0 ]; do
    sleep 0.1
    patience=$((patience - 1))
  done
  kill -s KILL -- "-${entry#*:}" 2>/dev/null
done
[ -z "$scratch" ] || rm -rf -- "$scratch"
"#;

/// What the watchdog sends to a server whose owner died.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LastSignal {
    /// Nothing to save, one process.
    Kill,
    /// Postgres: its postmaster ends all backends at once (they are in process groups of their own) and then
    /// itself.
    Quit,
}

/// The owner's end of the watchdog.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Mutex<Child>,
    pipe: Mutex<Option<ChildStdin>>,
}

impl Watchdog {
    /// Starts the shell. It keeps `lock` open, and thereby locked, until the guarded processes are gone.
    pub(crate) fn start(lock: &File) -> Result<Self, Error> {
        let sh = Path::new("sh");
        let lock = lock.try_clone().map_err(|source| Error::io("share the lock with", sh, source))?;
        let mut shell = Command::new(sh)
            .args(["-c", SCRIPT, "holdfast-watchdog"])
            .stdin(Stdio::piped())
            .stdout(lock)
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(|source| Error::io("run", sh, source))?;
        let pipe = shell.stdin.take();
        Ok(Self { shell: Mutex::new(shell), pipe: Mutex::new(pipe) })
    }

    /// Has `dir` removed if the owner dies.
    pub(crate) fn scratch(&self, dir: &Path) -> Result<(), Error> {
        self.say(&format!("scratch {}", dir.display()))
    }

    /// Starts `command`'s program under guard, in a process group of its own.
    pub(crate) fn spawn(&self, gated: GatedCommand, last: LastSignal) -> Result<Child, Error> {
        let GatedCommand { program, mut command } = gated;
        let mut child = command
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| Error::io("run", Path::new(&program), source))?;
        let signal = match last {
            LastSignal::Kill => "KILL",
            LastSignal::Quit => "QUIT",
        };
        let opened = self.say(&format!("guard {signal}:{}", child.id())).and_then(|()| {
            let mut gate = child.stdin.take().ok_or(Error::WatchdogGone)?;
            gate.write_all(b"go\n").map_err(|source| Error::io("start", Path::new(&program), source))
        });
        if let Err(error) = opened {
            // The gate closes with its pipe: the program was never executed.
            drop(child.stdin.take());
            child.wait().map_err(|source| Error::io("wait for", Path::new(&program), source))?;
            return Err(error);
        }
        Ok(child)
    }

    /// Forgets a process that has been reaped.
    pub(crate) fn release(&self, pid: u32) {
        // A watchdog that is gone has nothing to forget.
        self.say(&format!("release {pid}")).ok();
    }

    fn say(&self, line: &str) -> Result<(), Error> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = pipe.as_mut().ok_or(Error::WatchdogGone)?;
        pipe.write_all(format!("{line}\n").as_bytes()).map_err(|_| Error::WatchdogGone)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.say("leave").ok();
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shell.lock().unwrap_or_else(PoisonError::into_inner).wait().ok();
    }
}

/// A command that waits at a gate until it may execute: `sh` reads one line, then becomes the program.
#[derive(Debug)]
pub(crate) struct GatedCommand {
    program: String,
    command: Command,
}

impl GatedCommand {
    /// `program` with no arguments yet.
    pub(crate) fn new(program: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", r#"read -r _ || exit 1; exec "$@" </dev/null"#, "holdfast-gate"]).arg(program);
        Self { program: program.display().to_string(), command }
    }

    /// Arguments, environment, user and output go here; standard input is the gate's.
    pub(crate) fn inner(&mut self) -> &mut Command {
        &mut self.command
    }
}
