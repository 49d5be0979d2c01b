//! PostgreSQL 18 on loopback, with fsync on.
//!
//! "Ready" means that `postmaster.pid`, which only our own postmaster writes, says so, and that the port asks
//! for a password when greeted. As root the server runs under an unprivileged uid, because it refuses to run
//! as root.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::artifacts::Artifacts;
use crate::data_dir::{DataDir, State};
use crate::places::{UNPRIVILEGED_UID, is_root};
use crate::process::{ServerProcess, Spec, end_orphan};
use crate::server::{Server, Slot};
use crate::watchdog::{GatedCommand, LastSignal, Watchdog};
use crate::{Error, StackOptions};

pub(crate) const SUPERUSER: &str = "holdfast";
/// Generous: crash recovery replays up to `max_wal_size`.
const READY_PATIENCE: Duration = Duration::from_mins(2);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Fit for 2 cores that it shares with a broker and with us; durability stays as in production.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "max_connections=200",
    "log_line_prefix=%m [%p] %d ",
];

/// Where one Postgres lives.
#[derive(Debug)]
pub(crate) struct Home {
    root: PathBuf,
    artifacts: &'static Artifacts,
    pub(crate) port: u16,
    pub(crate) password: String,
}

impl Home {
    /// A Postgres below `root`, which nothing else may use.
    pub(crate) fn new(root: &Path, artifacts: &'static Artifacts, port: u16, password: &str) -> Self {
        Self { root: root.to_owned(), artifacts, port, password: password.to_owned() }
    }

    fn data(&self) -> PathBuf {
        self.root.join("postgres")
    }

    fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    /// Ends a server that an owner left behind whose watchdog was killed as well, and removes what a killed
    /// postmaster left: its pid may meanwhile belong to another process.
    pub(crate) async fn end_orphan(&self) -> Result<(), Error> {
        end_orphan(&self.pid_file(), &self.data()).await
    }

    /// Makes the cluster, once in the directory's life. A cluster that vanishes with the stack isn't synced
    /// to disk yet.
    pub(crate) async fn init(&self, scratch: bool, watchdog: &Arc<Watchdog>) -> Result<(), Error> {
        if self.data().exists() {
            return Ok(());
        }
        let fresh = self.root.join("postgres.tmp");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(|source| Error::io("remove", &fresh, source))?;
        }
        DirBuilder::new().mode(0o700).create(&fresh).map_err(|source| Error::io("create", &fresh, source))?;
        let secret = self.root.join("postgres.secret");
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&secret)
            .and_then(|mut file| file.write_all(self.password.as_bytes()))
            .map_err(|source| Error::io("write", &secret, source))?;
        if is_root() {
            for path in [&fresh, &secret] {
                chown(path, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID))
                    .map_err(|source| Error::io("give away", path, source))?;
            }
        }
        let mut initdb = self.program("initdb", &fresh);
        initdb
            .inner()
            .arg("--pgdata")
            .arg(&fresh)
            .arg("--pwfile")
            .arg(&secret)
            .args(["--username", SUPERUSER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"])
            .args(["--no-instructions", if scratch { "--no-sync" } else { "--data-checksums" }]);
        let spec =
            Spec { name: "initdb", log: self.root.join("initdb.log"), port: None, last_signal: LastSignal::Kill };
        let tool = ServerProcess::spawn(spec, initdb, watchdog)?;
        let made = tool.await_success(READY_PATIENCE).await;
        fs::remove_file(&secret).map_err(|source| Error::io("remove", &secret, source))?;
        made?;
        fs::rename(&fresh, self.data()).map_err(|source| Error::io("rename", &fresh, source))
    }

    /// `program` from the pinned binaries, under a uid that it accepts, with nothing of our environment.
    fn program(&self, program: &str, directory: &Path) -> GatedCommand {
        let mut command = GatedCommand::new(&self.artifacts.postgres_home.join("bin").join(program));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.inner().env_clear().env("PATH", path).env("LC_ALL", "C").env("TZ", "UTC").current_dir(directory);
        if is_root() {
            command.inner().uid(UNPRIVILEGED_UID).gid(UNPRIVILEGED_UID);
        }
        command
    }

    /// Line 1 of `postmaster.pid` is the postmaster's pid, line 8 its status.
    fn says_ready(&self, pid: u32) -> bool {
        let text = fs::read_to_string(self.pid_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
    }

    /// Whether the server asks for authentication when greeted.
    async fn answers(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            // Protocol 3.0, then pairs of names and values, then a zero.
            let body = format!("\0\x03\0\0user\0{SUPERUSER}\0database\0postgres\0\0");
            let length = u32::try_from(body.len() + 4).unwrap_or_default();
            stream.write_all(&[&length.to_be_bytes(), body.as_bytes()].concat()).await?;
            let mut kind = [0];
            stream.read_exact(&mut kind).await?;
            std::io::Result::Ok(kind == *b"R")
        };
        matches!(timeout(PROBE_PATIENCE, ask).await, Ok(Ok(true)))
    }
}

impl Server for Home {
    const NAME: &'static str = "PostgreSQL";

    fn ports(&mut self) -> Vec<&mut u16> {
        vec![&mut self.port]
    }

    async fn start(&self, watchdog: &Arc<Watchdog>) -> Result<ServerProcess, Error> {
        self.end_orphan().await?;
        let mut postgres = self.program("postgres", &self.data());
        postgres.inner().arg("-D").arg(self.data()).arg("-c").arg(format!("port={}", self.port));
        for setting in SETTINGS {
            postgres.inner().args(["-c", setting]);
        }
        let spec = Spec {
            name: Self::NAME,
            log: self.root.join("postgres.log"),
            port: Some(self.port),
            last_signal: LastSignal::Quit,
        };
        let mut process = ServerProcess::spawn(spec, postgres, watchdog)?;
        let begun = Instant::now();
        while !(self.says_ready(process.pid()) && self.answers().await) {
            process.keep_waiting(begun, READY_PATIENCE).await?;
        }
        process.check_alive()?;
        Ok(process)
    }

    /// "Fast": sessions are ended, then a checkpoint is written.
    async fn stop(&self, process: ServerProcess) -> Result<(), Error> {
        process.stop(Signal::INT, STOP_PATIENCE).await
    }
}

/// Postgres's first start in this stack, if it is wanted.
pub(crate) async fn launch(
    options: &StackOptions,
    artifacts: &'static Artifacts,
    dir: &DataDir,
    state: &State,
    watchdog: &Arc<Watchdog>,
) -> Result<Option<Slot<Home>>, Error> {
    if !options.postgres {
        return Ok(None);
    }
    let port = options.postgres_port.unwrap_or(state.postgres_port);
    let home = Home::new(dir.path(), artifacts, port, &state.postgres_password);
    // First, so that the remembered ports are free.
    home.end_orphan().await?;
    home.init(dir.is_scratch(), watchdog).await?;
    Slot::launch(home, options.postgres_port.is_some(), watchdog).await.map(Some)
}
