//! Everything that can go wrong before or while the stack runs, each with what to do about it.
//!
//! Invariant: no message leaves the reader without a next step. Deliberately absent: retryability; callers
//! that start a stack have nobody to retry for.

use std::io;
use std::path::{Path, PathBuf};

/// A failure to bring up, steer or tear down the embedded servers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No `java` on the path and no `JAVA_HOME`.
    #[error(
        "Java wasn't found; install Java 17 or newer (Debian/Ubuntu: apt-get install openjdk-17-jre-headless), \
         or point JAVA_HOME at one"
    )]
    JavaMissing,
    /// A `java` that is too old for the broker, or whose version can't be read.
    #[error("`{java}` is Java {found}, Kafka needs 17 or newer; install one or point JAVA_HOME at it")]
    JavaTooOld {
        /// The program that was asked.
        java: String,
        /// What it said.
        found: String,
    },
    /// No `mvn` on the path, and the binaries aren't cached yet.
    #[error(
        "Maven (`mvn`) wasn't found and the servers' binaries aren't in {cache} yet; install it \
         (Debian/Ubuntu: apt-get install maven)"
    )]
    MavenMissing {
        /// Where the binaries would have been.
        cache: PathBuf,
    },
    /// Maven couldn't resolve the pinned artifacts.
    #[error(
        "Maven couldn't bring the servers' binaries; check the network and Maven's settings (mirror, proxy), then run \
         this again. Maven said:\n{tail}"
    )]
    MavenFailed {
        /// The end of Maven's output.
        tail: String,
    },
    /// A downloaded file isn't the pinned one, and a second download didn't help.
    #[error(
        "{file} has SHA-256 {found}, but {expected} is pinned; it was downloaded twice. Delete this file from Maven's \
         local repository (by default ~/.m2/repository) or have the mirror corrected, then run this again"
    )]
    Corrupt {
        /// Name of the file.
        file: String,
        /// The pinned hash, in hex.
        expected: String,
        /// The hash it has, or "no file".
        found: String,
    },
    /// An archive that passed its checksum couldn't be unpacked.
    #[error("{file} can't be unpacked ({reason}); delete {cache} and run this again")]
    Unpack {
        /// The archive.
        file: PathBuf,
        /// What the decoder said.
        reason: String,
        /// The directory to delete.
        cache: PathBuf,
    },
    /// There are no binaries for this machine.
    #[error(
        "no embedded servers for {os}/{arch}: only Linux on x86_64 and aarch64; set HOLDFAST_KAFKA_BROKERS and \
         HOLDFAST_DATABASE_URL to use servers of your own"
    )]
    Platform {
        /// Operating system.
        os: &'static str,
        /// Processor architecture.
        arch: &'static str,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("no directory for {purpose}: neither {variable} nor HOME is set; set one of them")]
    NoHome {
        /// What the directory is for.
        purpose: &'static str,
        /// The variable that would name it.
        variable: &'static str,
    },
    /// As root, Postgres runs under another uid, which can't reach this path.
    #[error(
        "PostgreSQL refuses to run as root, so it runs as uid {uid}, which can't pass through {blocked} to reach \
         {path}; choose a data directory elsewhere (for example under /var/lib), or set TMPDIR if this is a temporary one"
    )]
    NotTraversable {
        /// The unprivileged uid.
        uid: u32,
        /// The directory that blocks.
        blocked: PathBuf,
        /// What lies beyond it.
        path: PathBuf,
    },
    /// Another user owns, or may write to, a directory that we would execute from.
    #[error("{path} belongs to uid {owner} or others may write to it; remove it and run this again")]
    Untrusted {
        /// The suspicious directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Another live process uses the data directory.
    #[error("{dir} is in use by process {pid}; stop that one first, or choose another data directory")]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// Who holds it; 0 if unknown.
        pid: u32,
    },
    /// The data directory's state file isn't ours or is damaged.
    #[error("{path} can't be read as a stack's state: {reason}; reset the data directory (its data will be lost)")]
    State {
        /// The state file.
        path: PathBuf,
        /// The parser's word.
        reason: String,
    },
    /// A port that was asked for, or that must not change, is taken.
    #[error(
        "port {port} on 127.0.0.1, meant for {server}, is taken; free it (`ss -ltnp` shows by whom) or choose another"
    )]
    PortTaken {
        /// Which server.
        server: &'static str,
        /// The port.
        port: u16,
    },
    /// No room on the disk.
    #[error("the disk that holds {path} is full ({free_mib} MiB free); make room or choose another directory")]
    DiskFull {
        /// A path on that disk.
        path: PathBuf,
        /// What is left, in MiB.
        free_mib: u64,
    },
    /// A server ended by itself.
    #[error("{server} ended ({status}); the whole log is {log}, its end:\n{tail}")]
    Exited {
        /// Which server or tool.
        server: &'static str,
        /// Exit code or signal.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A server runs but doesn't answer.
    #[error(
        "{server} wasn't ready after {seconds} s; if the machine is only slow, run this again. The whole log is {log}, \
         its end:\n{tail}"
    )]
    NotReady {
        /// Which server.
        server: &'static str,
        /// How long was waited.
        seconds: u64,
        /// Its log file.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The process that guards the children is gone.
    #[error(
        "the stack's watchdog process ended, so no server is started that could outlive this process; start the stack again"
    )]
    WatchdogGone,
    /// Anything else the operating system refused.
    #[error("can't {action} {path}; check that it exists and that permissions allow it")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// An `io::Error` with its circumstances; a full disk gets its own variant.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::DiskFull { path: path.to_owned(), free_mib: free_mib(path).unwrap_or(0) };
        }
        Self::Io { action, path: path.to_owned(), source }
    }
}

/// MiB that this user may still write on the disk that holds `path`.
pub(crate) fn free_mib(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize) / (1024 * 1024))
}
