//! What a machine may lack, each in a sentence with the remedy: no Java, an old one, a full disk, a place
//! that can't be written to, a cache that strangers could have filled. Deliberately absent: the taken port
//! (`lifecycle.rs`) and the corrupt download (`artifacts.rs`).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use holdfast_stack::{Stack, StackOptions};

const DATA_DIR: &str = "HOLDFAST_STACK_TEST_DATA_DIR";

/// The process that the others start in an environment of their own; by itself it does nothing.
#[tokio::test]
async fn one_start() {
    let Ok(dir) = std::env::var(DATA_DIR) else { return };
    match Stack::start(StackOptions { data_dir: Some(dir.into()), ..StackOptions::default() }).await {
        Ok(stack) => {
            stack.stop().await.unwrap();
            println!("said: it started");
        }
        Err(error) => println!("said: {error}"),
    }
}

fn starter(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "one_start", "--nocapture"]).env(DATA_DIR, dir);
    command
}

/// What the started process says.
fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().find_map(|line| line.split_once("said: "));
    said.unwrap_or_else(|| panic!("{output:?}")).1.to_owned()
}

/// The same in a mount namespace of its own, in which `dir` is a file system of `options`; it goes with the
/// process.
fn mounted(dir: &Path, options: &str) -> Command {
    let own = starter(dir);
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let script = r#"mount -t tmpfs -o "$0" tmpfs "$1" && shift && exec "$@""#;
    command.args(["--mount", "sh", "-c", script, options]).arg(dir).arg(own.get_program()).args(own.get_args());
    command.env(DATA_DIR, dir);
    command
}

#[test]
fn without_java_it_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = starter(dir.path());
    command.env("JAVA_HOME", dir.path().join("nowhere"));
    let said = said(command);
    assert!(said.contains("Java wasn't found") && said.contains("apt-get install openjdk"), "{said}");
}

#[test]
fn an_old_java_is_named_with_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let java = dir.path().join("bin/java");
    fs::create_dir(dir.path().join("bin")).unwrap();
    fs::write(&java, "#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n").unwrap();
    fs::set_permissions(&java, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = starter(&dir.path().join("data"));
    command.env("JAVA_HOME", dir.path());
    let said = said(command);
    assert!(said.contains("is Java 11, Kafka needs 17 or newer") && said.contains("JAVA_HOME"), "{said}");
}

#[test]
fn a_full_disk_is_called_that_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let said = said(mounted(dir.path(), "size=4m,mode=755"));
    assert!(said.contains("is full") && said.contains("make room or choose another directory"), "{said}");
    assert!(said.contains(dir.path().to_str().unwrap()), "{said}");
}

#[test]
fn a_data_directory_that_cannot_be_written_to_is_named() {
    let dir = tempfile::tempdir().unwrap();
    // Root may write anywhere but here.
    let said = said(mounted(dir.path(), "ro,size=4g,mode=755"));
    assert!(said.contains("can't ") && said.contains("permissions allow it"), "{said}");
    assert!(said.contains(dir.path().to_str().unwrap()), "{said}");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let said = self::said(starter(&file.join("data")));
    assert!(said.contains("can't create") && said.contains(file.to_str().unwrap()), "{said}");
}

#[test]
fn without_a_home_it_says_which_variable_to_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = starter(dir.path());
    command.env_remove("HOME").env_remove("XDG_CACHE_HOME");
    let said = said(command);
    assert!(said.contains("neither XDG_CACHE_HOME nor HOME is set; set one of them"), "{said}");
}
