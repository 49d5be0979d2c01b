//! Gets PostgreSQL out of its jar: a zip that holds a tar, compressed with xz.
//!
//! Invariant: a tree that [`is_intact`] has every file at its full length. The list of lengths is written
//! last, so an unfinished tree never passes. Content is not hashed again: the jar was.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lzma_rust2::XzReader;

const LENGTHS: &str = "lengths";

/// Unpacks the archive in `jar` into the empty directory `into`, readable for everybody.
pub(crate) fn postgres(jar: &Path, into: &Path) -> io::Result<()> {
    let mut zip = zip::ZipArchive::new(BufReader::new(File::open(jar)?)).map_err(io::Error::other)?;
    let name = zip.file_names().flatten().find(|name| name.ends_with(".txz")).map(std::borrow::Cow::into_owned);
    let name = name.ok_or_else(|| io::Error::other("the jar holds no .txz"))?;
    let archive = zip.by_name(&name).map_err(io::Error::other)?;
    let mut tar = tar::Archive::new(XzReader::new(BufReader::new(archive), true));
    tar.set_preserve_ownerships(false);
    tar.unpack(into)?;
    let mut lengths = String::new();
    open_and_list(into, into, &mut lengths)?;
    let list = into.join(LENGTHS);
    fs::write(&list, lengths)?;
    fs::set_permissions(&list, Permissions::from_mode(0o644))
}

/// Whether every file that was unpacked is still there, in its full length.
pub(crate) fn is_intact(home: &Path) -> bool {
    fs::read_to_string(home.join(LENGTHS)).is_ok_and(|lengths| {
        !lengths.is_empty()
            && lengths.lines().all(|line| {
                line.split_once(' ').is_some_and(|(length, path)| {
                    fs::metadata(home.join(path)).is_ok_and(|meta| meta.len().to_string() == length)
                })
            })
    })
}

/// Lists the files' lengths, and lets everybody read them whatever our umask is: Postgres may run under
/// another uid.
fn open_and_list(dir: &Path, home: &Path, lengths: &mut String) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            open_and_list(&path, home, lengths)?;
            continue;
        }
        let meta = fs::metadata(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(meta.permissions().mode() & 0o111 | 0o644))?;
        if let Ok(inside) = path.strip_prefix(home) {
            writeln!(lengths, "{} {}", meta.len(), inside.display()).map_err(io::Error::other)?;
        }
    }
    Ok(())
}
