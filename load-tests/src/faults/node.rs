//! A node: a process that is started, killed, paused, woken and asked to leave.
//!
//! Invariant: a node never outlives the process that started it, not even if that process was killed with
//! SIGKILL and not even while the node is paused: a small shell per node waits on a pipe of which only this
//! process holds the other end, and kills the node when that closes. (`PR_SET_PDEATHSIG` fires when the
//! *thread* that spawned dies, and threads come and go.) Deliberately absent: what the node serves.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How often an end is looked for.
const POLL: Duration = Duration::from_millis(10);
/// How long a node may take to say where it listens.
const START: Duration = Duration::from_mins(1);

/// Why a node could not be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system.
    #[error("node {name}: {what}")]
    Os {
        /// Which node.
        name: String,
        /// While doing what.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its first line is no address: it did not start.
    #[error("node {name} said {said:?} instead of its address; its log has the cause: {log:?}")]
    NoAddress {
        /// Which node.
        name: String,
        /// Its first line.
        said: String,
        /// Its log, if it has one of its own.
        log: Option<PathBuf>,
    },
    /// It did not end by itself.
    #[error("node {name} did not end within {patience:?}")]
    Stays {
        /// Which node.
        name: String,
        /// How long was waited.
        patience: Duration,
    },
}

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// For messages.
    pub name: String,
    /// The program; it prints the address of its gRPC port as its first line.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
    /// Where its standard error goes, behind what is there; `None` is where ours goes.
    pub log: Option<PathBuf>,
}

/// A running, or paused, node. Dropping it kills it.
#[derive(Debug)]
pub struct Node {
    name: String,
    process: Child,
    pid: Pid,
    guard: Child,
    grpc: SocketAddr,
    /// Kept, so that the node may go on printing.
    out: BufReader<ChildStdout>,
}

impl Drop for Node {
    fn drop(&mut self) {
        // The guard first: once the node is reaped its number may be another's.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        // A paused process dies of SIGKILL as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// Starts it and waits until it has said where it listens.
    pub async fn start(launch: Launch) -> Result<Self, Error> {
        let name = launch.name.clone();
        let started = tokio::task::spawn_blocking(move || Self::start_blocking(launch)).await;
        started.map_err(|error| Error::Os { name, what: "start", source: io::Error::other(error) })?
    }

    fn start_blocking(launch: Launch) -> Result<Self, Error> {
        let Launch { name, program, arguments, environment, log } = launch;
        let failed = |what| {
            let name = name.clone();
            move |source| Error::Os { name, what, source }
        };
        let errors = match &log {
            Some(log) => appending(log).map_err(failed("open the log"))?.into(),
            None => Stdio::inherit(),
        };
        let mut process = Command::new(program)
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(failed("start"))?;
        let guard = guard(process.id());
        let (Ok(guard), Some(out)) = (guard, process.stdout.take()) else {
            let _ = process.kill();
            let _ = process.wait();
            return Err(failed("guard")(io::ErrorKind::Other.into()));
        };
        let pid = Pid::from_child(&process);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut node = Self { name, process, pid, guard, grpc: nowhere, out: BufReader::new(out) };
        let said = node.first_line();
        node.grpc =
            said.trim().parse().map_err(|_| Error::NoAddress { name: node.name.clone(), said: said.clone(), log })?;
        Ok(node)
    }

    /// What it prints first; nothing if it ends before.
    fn first_line(&mut self) -> String {
        // One that says nothing for so long is killed, which ends the reading.
        let (done, waiting) = std::sync::mpsc::channel::<()>();
        let pid = self.pid;
        let watch = std::thread::spawn(move || {
            if waiting.recv_timeout(START) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let mut line = String::new();
        let _ = self.out.read_line(&mut line);
        drop(done);
        let _ = watch.join();
        line
    }

    /// For messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its gRPC is.
    pub const fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// SIGSTOP: it does nothing more, and its connections stay.
    pub fn pause(&self) -> Result<(), Error> {
        self.send(Signal::STOP)
    }

    /// SIGCONT: it goes on, in the middle of whatever it did.
    pub fn wake(&self) -> Result<(), Error> {
        self.send(Signal::CONT)
    }

    /// SIGTERM: it is asked to leave in good order.
    pub fn ask_to_leave(&self) -> Result<(), Error> {
        self.send(Signal::TERM)
    }

    fn send(&self, signal: Signal) -> Result<(), Error> {
        let failed = |source: rustix::io::Errno| Error::Os {
            name: self.name.clone(),
            what: "send a signal",
            source: source.into(),
        };
        kill_process(self.pid, signal).map_err(failed)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Asks it to leave and waits until it has. One that doesn't is killed, and that is an error.
    pub async fn leave(mut self, patience: Duration) -> Result<ExitStatus, Error> {
        self.ask_to_leave()?;
        let give_up = Instant::now() + patience;
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < give_up => tokio::time::sleep(POLL).await,
                Ok(None) => return Err(Error::Stays { name: self.name.clone(), patience }),
                Err(source) => return Err(Error::Os { name: self.name.clone(), what: "wait", source }),
            }
        }
    }
}

fn appending(log: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(log)
}

/// Kills `pid` when this process is gone.
fn guard(pid: u32) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", r#"trap '' HUP INT TERM; read -r _; kill -s KILL "$1" 2>/dev/null"#, "holdfast-guard"])
        .arg(pid.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(dir: &Path, script: &str) -> Launch {
        Launch {
            name: "1".to_owned(),
            program: "sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: vec![("GREETING".to_owned(), "hello".to_owned())],
            log: Some(dir.join("node-1.log")),
        }
    }

    fn state(node: &Node) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.process.id())).unwrap_or_default();
        stat.rsplit(") ").next().unwrap_or_default().chars().take(1).collect()
    }

    async fn becomes(node: &Node, wanted: &[&str]) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while !wanted.contains(&state(node).as_str()) {
            assert!(Instant::now() < give_up, "{} instead of {wanted:?}", state(node));
            tokio::time::sleep(POLL).await;
        }
    }

    #[tokio::test]
    async fn a_node_says_where_it_is_pauses_wakes_and_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"echo "$GREETING" >&2; trap 'exit 7' TERM; echo 127.0.0.1:4711; while :; do sleep 0.01; done"#;
        let node = Node::start(launch(dir.path(), script)).await.unwrap();
        assert_eq!(node.grpc(), "127.0.0.1:4711".parse().unwrap());
        node.pause().unwrap();
        becomes(&node, &["T"]).await;
        node.wake().unwrap();
        becomes(&node, &["S", "R"]).await;
        assert_eq!(node.leave(Duration::from_secs(30)).await.unwrap().code(), Some(7));
        assert_eq!(std::fs::read_to_string(dir.path().join("node-1.log")).unwrap(), "hello\n");
    }

    #[tokio::test]
    async fn node_that_fails_to_start_or_leave_is_an_error_naming_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = Node::start(launch(dir.path(), "echo no idea")).await.unwrap_err().to_string();
        assert!(error.contains("node 1") && error.contains("no idea") && error.contains("node-1.log"), "{error}");
        let deaf = "trap '' TERM; echo 127.0.0.1:1; while :; do sleep 0.01; done";
        let node = Node::start(launch(dir.path(), deaf)).await.unwrap();
        let error = node.leave(Duration::from_millis(50)).await.unwrap_err().to_string();
        assert!(error.contains("did not end"), "{error}");
    }

    #[tokio::test]
    async fn a_paused_node_dies_with_whoever_started_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::start(launch(dir.path(), "echo 127.0.0.1:1; exec sleep 1000")).await.unwrap();
        node.pause().unwrap();
        becomes(&node, &["T"]).await;
        // What the kernel does when the owner is gone: the pipe closes.
        drop(node.guard.stdin.take());
        becomes(&node, &["Z"]).await;
    }
}
