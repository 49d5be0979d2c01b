//! The servers' binaries: resolved by Maven, checked against pinned hashes, cached per user.
//!
//! Invariant: nothing is executed that isn't on the list in `artifacts.sha256`, and a cache entry is either
//! complete or absent: it is made beside its place and renamed into it, under a lock between processes.
//!
//! Deliberately absent: addresses. Maven's own settings say where artifacts come from.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::process::tail;
use crate::{Error, java, places, unpack};

const POM: &str = include_str!("../pom.xml");
const HASHES: &str = include_str!("../artifacts.sha256");
const POSTGRES_JAR: &str = "embedded-postgres-binaries-linux-";

/// Binaries that are ready to run.
#[derive(Debug)]
pub(crate) struct Artifacts {
    /// A Java of sufficient age.
    pub(crate) java: PathBuf,
    /// Kafka's class path, the listed jars and no others.
    pub(crate) class_path: String,
    /// Holds `bin/postgres` and `bin/initdb`, where the uid that Postgres runs under can reach them.
    pub(crate) postgres_home: PathBuf,
}

/// Checks the cache, filling it if need be; once per process.
pub(crate) async fn prepare() -> Result<&'static Artifacts, Error> {
    static READY: OnceCell<Artifacts> = OnceCell::const_new();
    READY
        .get_or_try_init(|| async {
            let prepared = tokio::task::spawn_blocking(|| prepare_in(&places::cache_dir()?.join("stack"))).await;
            prepared
                .unwrap_or_else(|panicked| Err(Error::io("prepare", Path::new("binaries"), io::Error::other(panicked))))
        })
        .await
}

fn prepare_in(base: &Path) -> Result<Artifacts, Error> {
    let arch = postgres_arch()?;
    let java = java::find()?;
    fs::create_dir_all(base).map_err(|source| Error::io("create", base, source))?;
    let _only_one = lock(base)?;
    let digest = &hex(&Sha256::digest([POM, HASHES].concat()))[..12];
    let jars = base.join(format!("jars-{digest}"));
    let pinned = pinned(arch);
    ensure_jars(&jars, &pinned, arch)?;
    let postgres_home = ensure_postgres(base, &jars, digest, &pinned)?;

    let listed: Vec<String> = pinned
        .iter()
        .filter(|(_, file)| !file.starts_with(POSTGRES_JAR))
        .map(|(_, file)| jars.join(file).display().to_string())
        .collect();
    Ok(Artifacts { java, class_path: listed.join(":"), postgres_home })
}

fn postgres_arch() -> Result<&'static str, Error> {
    use std::env::consts::{ARCH, OS};
    match (OS, ARCH) {
        ("linux", "x86_64") => Ok("amd64"),
        ("linux", "aarch64") => Ok("arm64v8"),
        (os, arch) => Err(Error::Platform { os, arch }),
    }
}

/// The lines of `artifacts.sha256` that concern this machine: hash and file name.
fn pinned(arch: &str) -> Vec<(&'static str, &'static str)> {
    let ours = format!("{POSTGRES_JAR}{arch}-");
    HASHES
        .lines()
        .filter_map(|line| line.split_once("  "))
        .filter(|(_, file)| !file.starts_with(POSTGRES_JAR) || file.starts_with(&ours))
        .collect()
}

fn lock(base: &Path) -> Result<File, Error> {
    let path = base.join("lock");
    let file = File::create(&path).map_err(|source| Error::io("create", &path, source))?;
    file.lock().map_err(|source| Error::io("lock", &path, source))?;
    Ok(file)
}

fn ensure_jars(jars: &Path, pinned: &[(&str, &str)], arch: &str) -> Result<(), Error> {
    if jars.exists() {
        match verify(jars, pinned) {
            Ok(()) => return Ok(()),
            Err(error) => tracing::warn!(%error, "the cached binaries are damaged; downloading them again"),
        }
        fs::remove_dir_all(jars).map_err(|source| Error::io("remove", jars, source))?;
    }
    // Under the lock, so whatever bears this name was left by a killed process.
    let fresh = jars.with_extension("tmp");
    let mut last = Ok(());
    for _ in 0..2 {
        remove_if_present(&fresh)?;
        fs::create_dir_all(&fresh).map_err(|source| Error::io("create", &fresh, source))?;
        download(&fresh, arch)?;
        last = verify(&fresh, pinned);
        if last.is_ok() {
            return fs::rename(&fresh, jars).map_err(|source| Error::io("rename", &fresh, source));
        }
    }
    remove_if_present(&fresh)?;
    last
}

fn download(into: &Path, arch: &str) -> Result<(), Error> {
    tracing::info!("fetching Apache Kafka and PostgreSQL through Maven (about 70 MB, once)");
    let pom = into.join("pom.xml");
    fs::write(&pom, POM).map_err(|source| Error::io("write", &pom, source))?;
    let output = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(&pom)
        .arg(format!("-Dpostgres.arch={arch}"))
        .arg(format!("-Djars={}", into.display()))
        .arg("dependency:copy-dependencies")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| match source.kind() {
            ErrorKind::NotFound => {
                Error::MavenMissing { cache: into.parent().map_or_else(PathBuf::new, Path::to_owned) }
            }
            _ => Error::io("run", Path::new("mvn"), source),
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::MavenFailed { tail: tail(&String::from_utf8_lossy(&said)) })
}

fn verify(dir: &Path, pinned: &[(&str, &str)]) -> Result<(), Error> {
    for (expected, name) in pinned {
        let found = match File::open(dir.join(name)) {
            Ok(mut file) => {
                let mut hasher = Sha256::new();
                io::copy(&mut file, &mut hasher).map_err(|source| Error::io("read", &dir.join(name), source))?;
                hex(&hasher.finalize())
            }
            Err(missing) if missing.kind() == ErrorKind::NotFound => "no file".to_owned(),
            Err(source) => return Err(Error::io("open", &dir.join(name), source)),
        };
        if found != *expected {
            return Err(Error::Corrupt { file: (*name).to_owned(), expected: (*expected).to_owned(), found });
        }
    }
    Ok(())
}

/// Unpacks Postgres once: into the cache, or, if root's cache is closed to the uid that Postgres runs under,
/// into a directory of root's under the system's temporary one.
fn ensure_postgres(base: &Path, jars: &Path, digest: &str, pinned: &[(&str, &str)]) -> Result<PathBuf, Error> {
    let for_strangers = places::is_root() && places::blocked_for_strangers(base).is_some();
    let shelf = if for_strangers { std::env::temp_dir() } else { base.to_owned() };
    let home = shelf.join(format!("holdfast-postgres-{digest}"));
    if for_strangers {
        places::check_traversable(&shelf)?;
    }
    if fs::symlink_metadata(&home).is_ok() {
        places::check_trusted(&home)?;
        if unpack::is_intact(&home) {
            return Ok(home);
        }
        tracing::warn!(path = %home.display(), "the unpacked PostgreSQL is damaged; unpacking it again");
        fs::remove_dir_all(&home).map_err(|source| Error::io("remove", &home, source))?;
    }
    let jar = pinned.iter().find(|(_, file)| file.starts_with(POSTGRES_JAR)).map(|(_, file)| jars.join(file));
    let jar = jar.ok_or(Error::Platform { os: std::env::consts::OS, arch: std::env::consts::ARCH })?;
    let fresh = tempfile::Builder::new()
        .prefix("holdfast-postgres-tmp-")
        .tempdir_in(&shelf)
        .map_err(|source| Error::io("create a directory in", &shelf, source))?;
    unpack::postgres(&jar, fresh.path()).map_err(|reason| Error::Unpack {
        file: jar,
        reason: reason.to_string(),
        cache: base.to_owned(),
    })?;
    fs::rename(fresh.path(), &home).map_err(|source| Error::io("rename to", &home, source))?;
    Ok(home)
}

fn remove_if_present(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", dir, error)),
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_has_one_postgres_and_the_same_kafka() {
        for arch in ["amd64", "arm64v8"] {
            let pinned = pinned(arch);
            assert_eq!(pinned.iter().filter(|(_, file)| file.starts_with(POSTGRES_JAR)).count(), 1, "{arch}");
            assert!(pinned.iter().any(|(_, file)| file.starts_with("kafka_2.13-")), "{arch}");
            assert!(pinned.iter().all(|(hash, _)| hash.len() == 64), "{arch}");
        }
        assert_eq!(pinned("amd64").len(), pinned("arm64v8").len());
    }

    #[test]
    fn damaged_and_missing_files_are_named_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.jar"), "something else").unwrap();
        let expected = hex(&Sha256::digest("something"));
        for name in ["a.jar", "b.jar"] {
            let error = verify(dir.path(), &[(expected.as_str(), name)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(&expected) && error.contains("Delete this file"), "{error}");
        }
        fs::write(dir.path().join("b.jar"), "something").unwrap();
        verify(dir.path(), &[(expected.as_str(), "b.jar")]).unwrap();
    }
}
