//! Where things lie on this machine, and who may pass.
//!
//! Postgres refuses to run as root, so root lends it an unprivileged uid, and everything that Postgres opens
//! must be reachable for that uid: root's home usually is not.

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// "nobody" on Linux; owns nothing.
pub(crate) const UNPRIVILEGED_UID: u32 = 65534;

/// Whether Postgres has to run under [`UNPRIVILEGED_UID`].
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user's cache for binaries: `$XDG_CACHE_HOME/holdfast` or `~/.cache/holdfast`.
pub fn cache_dir() -> Result<PathBuf, Error> {
    below_home("the cache", "XDG_CACHE_HOME", ".cache")
}

/// The directory in which `holdfast dev` keeps its data unless another is given: `$XDG_DATA_HOME/holdfast` or
/// `~/.local/share/holdfast`; for root `/var/lib/holdfast`, because Postgres, which then runs unprivileged,
/// couldn't pass through root's home.
pub fn default_data_dir() -> Result<PathBuf, Error> {
    if is_root() {
        return Ok(PathBuf::from("/var/lib/holdfast"));
    }
    below_home("data", "XDG_DATA_HOME", ".local/share")
}

fn below_home(purpose: &'static str, variable: &'static str, below: &str) -> Result<PathBuf, Error> {
    // The XDG specification has relative paths ignored.
    let named = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named(variable)
        .or_else(|| named("HOME").map(|home| home.join(below)))
        .map(|base| base.join("holdfast"))
        .ok_or(Error::NoHome { purpose, variable })
}

/// The first directory on the way to `path` (itself included) that strangers can't pass through.
pub(crate) fn blocked_for_strangers(path: &Path) -> Option<PathBuf> {
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    let blocks =
        |dir: &&Path| fs::metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.permissions().mode() & 0o001 == 0);
    ancestors.into_iter().find(blocks).map(Path::to_owned)
}

/// Refuses a path that the unprivileged uid couldn't reach.
pub(crate) fn check_traversable(path: &Path) -> Result<(), Error> {
    match blocked_for_strangers(path) {
        Some(blocked) => Err(Error::NotTraversable { uid: UNPRIVILEGED_UID, blocked, path: path.to_owned() }),
        None => Ok(()),
    }
}

/// Refuses a directory that another user owns or may write to: what lies there is executed, perhaps as root.
pub(crate) fn check_trusted(path: &Path) -> Result<(), Error> {
    let meta = fs::symlink_metadata(path).map_err(|source| Error::io("look at", path, source))?;
    if meta.uid() == rustix::process::geteuid().as_raw() && meta.is_dir() && meta.permissions().mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(Error::Untrusted { path: path.to_owned(), owner: meta.uid() })
    }
}
