//! The directory that a stack lives in: one owner at a time, and what has to survive a restart besides the
//! data.
//!
//! Invariant: only the servers of the process that holds a [`DataDir`] touch it. The lock is released by the
//! kernel when its last holder closes it: the owner, or, if the owner was killed, its watchdog, once the
//! servers are gone.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use uuid::Uuid;

use crate::error::free_mib;
use crate::places::{check_traversable, is_root};
use crate::process::POLL;
use crate::{Error, ports};

/// A fresh cluster takes about 50 MiB; below this a start would fail half way.
const FREE_MIB_MIN: u64 = 200;
/// The watchdog of a killed owner takes at most 10 s; see its script.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(20);

/// What survives a restart of the stack.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) kafka_port: u16,
    pub(crate) controller_port: u16,
    pub(crate) postgres_port: u16,
    pub(crate) postgres_password: String,
    pub(crate) cluster_id: String,
}

impl State {
    fn fresh() -> Self {
        // Kafka's ids are 16 bytes in URL-safe base64. Hex digits are letters of that alphabet, and a final
        // `A` leaves no stray bits.
        let hex = Uuid::new_v4().simple().to_string();
        Self {
            kafka_port: ports::choose(),
            controller_port: ports::choose(),
            postgres_port: ports::choose(),
            postgres_password: Uuid::new_v4().simple().to_string(),
            cluster_id: format!("{}A", &hex[..21]),
        }
    }
}

/// A locked data directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    lock: File,
    /// Present if the directory is to vanish with the stack.
    scratch: Option<TempDir>,
}

impl DataDir {
    /// Opens `given`, creating it if need be, or makes a temporary directory.
    pub(crate) async fn open(given: Option<&Path>) -> Result<Self, Error> {
        let (root, scratch) = if let Some(root) = given {
            if is_root() {
                // Before anything is created where it would be of no use.
                let root = std::path::absolute(root).map_err(|source| Error::io("resolve", root, source))?;
                check_traversable(root.parent().unwrap_or(&root))?;
            }
            fs::create_dir_all(root).map_err(|source| Error::io("create", root, source))?;
            (fs::canonicalize(root).map_err(|source| Error::io("resolve", root, source))?, None)
        } else {
            let temp = std::env::temp_dir();
            let scratch = tempfile::Builder::new()
                .prefix("holdfast-stack-")
                .tempdir()
                .map_err(|source| Error::io("create a directory in", &temp, source))?;
            (scratch.path().to_owned(), Some(scratch))
        };
        if is_root() {
            // Others may pass through, to what is theirs, but not look around.
            fs::set_permissions(&root, Permissions::from_mode(0o711))
                .map_err(|source| Error::io("set permissions of", &root, source))?;
            check_traversable(&root)?;
        }
        match free_mib(&root) {
            Some(free_mib) if free_mib < FREE_MIB_MIN => return Err(Error::DiskFull { path: root, free_mib }),
            _ => {}
        }
        let lock = lock(&root).await?;
        Ok(Self { root, lock, scratch })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// The lock, for the watchdog to hold as well.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// Whether the directory vanishes with the stack.
    pub(crate) fn is_scratch(&self) -> bool {
        self.scratch.is_some()
    }

    /// What an earlier stack left, or fresh ports and secrets.
    pub(crate) fn load_state(&self) -> Result<State, Error> {
        let path = self.state_path();
        if !path.exists() {
            return Ok(State::fresh());
        }
        let text = fs::read_to_string(&path).map_err(|source| Error::io("read", &path, source))?;
        serde_json::from_str(&text).map_err(|error| Error::State { path, reason: error.to_string() })
    }

    /// Replaces the state, atomically; it holds a password, so only the owner may read it.
    pub(crate) fn save_state(&self, state: &State) -> Result<(), Error> {
        let path = self.state_path();
        let fresh = path.with_extension("tmp");
        let text = serde_json::to_string_pretty(state)
            .map_err(|error| Error::State { path: path.clone(), reason: error.to_string() })?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|source| Error::io("write", &path, source))
    }

    fn state_path(&self) -> PathBuf {
        self.root.join("stack.json")
    }
}

async fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("lock");
    let fail = |action| move |source| Error::io(action, &path, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(root.join("lock"))
        .map_err(fail.clone()("open"))?;
    let deadline = Instant::now() + HANDOVER_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(source)) => return Err(fail("lock")(source)),
            Err(TryLockError::WouldBlock) => {
                let owner = owner(&mut file);
                if Instant::now() > deadline || owner.is_some_and(is_alive) {
                    return Err(Error::InUse { dir: root.to_owned(), pid: owner.unwrap_or_default() });
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", process::id()))
        .map_err(fail("write"))?;
    Ok(file)
}

fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_alive(pid: u32) -> bool {
    // A zombie has a directory as well, but no longer a command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}
