//! The build of an earlier commit, made from this repository.
//!
//! Commits are exported and built under the target directory, each once. Deliberately absent: fetching a
//! commit that the repository lacks.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use libtest_mimic::Failed;
use tokio::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The program of this tree.
pub fn new() -> PathBuf {
    env!("CARGO_BIN_EXE_holdfast").into()
}

/// The program of `commit`; minutes, the first time.
pub async fn old(commit: &str) -> Result<PathBuf, Failed> {
    let id = full(commit).await?;
    let target = new().ancestors().nth(2).ok_or("the program is in no target directory")?.to_owned();
    let tree = target.join("roll").join(&id);
    if !tree.join("Cargo.toml").exists() {
        export(&id, &tree).await?;
    }
    eprintln!("the old build is {id}, in {}", tree.display());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--locked", "--package", "holdfast"]).current_dir(&tree);
    // What `cargo test` says of itself to the test is not about that tree.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_BIN_") || name.starts_with("CARGO_MANIFEST") {
            build.env_remove(name);
        }
    }
    build.env("CARGO_TARGET_DIR", tree.join("target")).stdin(Stdio::null()).kill_on_drop(true);
    let status = build.status().await?;
    if status.success() {
        Ok(tree.join("target/release/holdfast"))
    } else {
        Err(format!("cargo build in {}: {status}", tree.display()).into())
    }
}

async fn full(commit: &str) -> Result<String, Failed> {
    let revision = format!("{commit}^{{commit}}");
    let parsed = git().args(["rev-parse", "--verify", "--quiet", &revision]).output().await?;
    if parsed.status.success() {
        return Ok(String::from_utf8_lossy(&parsed.stdout).trim().to_owned());
    }
    let more = "fetch its history (`git fetch --unshallow`), or name another with --old";
    Err(format!("commit {commit} is not in this repository: {more}").into())
}

/// All of it or nothing: the tree is moved to its place when it is complete.
async fn export(id: &str, tree: &Path) -> Result<(), Failed> {
    let parent = tree.parent().ok_or("no place for the tree")?;
    std::fs::create_dir_all(parent)?;
    let part = tempfile::Builder::new().prefix("export-").tempdir_in(parent)?;
    let archive = part.path().join("tree.tar");
    let exported = git().arg("archive").arg(format!("--output={}", archive.display())).arg(id).status().await?;
    let inside = part.path().join("tree");
    std::fs::create_dir(&inside)?;
    let unpacked = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&inside).status().await?;
    if !exported.success() || !unpacked.success() {
        return Err(format!("git archive {id}: {exported}; tar: {unpacked}").into());
    }
    Ok(std::fs::rename(inside, tree)?)
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.args(["-C", ROOT]).stdin(Stdio::null()).kill_on_drop(true);
    git
}
