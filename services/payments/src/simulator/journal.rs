//! The simulator's books on disk: one file, to which entries are appended.
//!
//! Each entry is a line: its number from 0, the first 16 hex digits of the SHA-256 of number and body, and
//! its body as JSON. Invariant: an entry that [`Journal::durable`] has waited for is on the disk, and is read
//! back by every later [`open`]. What follows the last line's end was never waited for: the torn tail of a
//! write that a crash cut off, which is taken away. Anything else that does not read as an entry is an error:
//! books with a hole are worse than none. Deliberately absent: what entries mean, and compaction, since a
//! simulator's books are small.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::mpsc,
};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// The file in its directory.
pub const FILE: &str = "journal";

/// The books can't be read back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or its directory can't be used.
    #[error("the provider's books in {path} can't be used: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process writes to it.
    #[error("the provider's books in {path} are in use by another process; stop that one first", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A line is no entry.
    #[error(
        "line {line} of the provider's books in {path} can't be read: {reason}; restore the file, or start over with `--reset`",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// The books could not be written: what was not waited for may be lost, so nothing is answered any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the provider's books can't be written")]
pub(super) struct Failed;

/// How far the file is on the disk: entries, or `None` once a write has failed.
type Durable = Option<u64>;

/// The open file. Entries are written by a thread of its own, as many at a time as there are.
#[derive(Debug)]
pub(super) struct Journal {
    next: u64,
    writer: mpsc::Sender<(u64, String)>,
    durable: watch::Receiver<Durable>,
}

/// Opens the books in `dir`, which is made if it is not there; the bodies of its entries, in order.
///
/// # Errors
/// If they can't be read, or not be trusted.
pub(super) fn open(dir: &Path) -> Result<(Journal, Vec<String>), Error> {
    let path = dir.join(FILE);
    let io = |error| Error::Io { path: path.clone(), error };
    fs::create_dir_all(dir).map_err(io)?;
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(Error::InUse { path }),
        Err(fs::TryLockError::Error(error)) => return Err(io(error)),
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let entries =
        read(&bytes[..whole]).map_err(|(line, reason)| Error::Damaged { path: path.clone(), line, reason })?;
    if whole < bytes.len() {
        tracing::warn!(path = %path.display(), bytes = bytes.len() - whole, "a torn tail of the provider's books was cut off");
        file.set_len(u64::try_from(whole).unwrap_or(u64::MAX)).map_err(io)?;
    }
    file.sync_all().map_err(io)?;
    // The file's name is in its directory, and the directory's in the one above.
    for dir in [Some(dir), dir.parent()].into_iter().flatten().filter(|dir| !dir.as_os_str().is_empty()) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
    }
    let next = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    let (writer, lines) = mpsc::channel();
    let (done, durable) = watch::channel(Some(next));
    std::thread::Builder::new()
        .name("provider-books".to_owned())
        .spawn(move || write(&mut file, &lines, &done))
        .map_err(io)?;
    Ok((Journal { next, writer, durable }, entries))
}

impl Journal {
    /// Appends an entry; how many there are with it.
    pub(super) fn append(&mut self, body: &str) -> u64 {
        let line = format!("{} {} {body}\n", self.next, digest(self.next, body));
        self.next += 1;
        // A writer that is gone has said that it failed.
        let _ = self.writer.send((self.next, line));
        self.next
    }

    /// Waits for entries to be on the disk.
    pub(super) fn durable(&self) -> Waiting {
        Waiting { entries: self.next, durable: self.durable.clone() }
    }
}

/// Entries that have to be on the disk before something is said.
#[derive(Debug)]
pub(super) struct Waiting {
    entries: u64,
    durable: watch::Receiver<Durable>,
}

impl Waiting {
    /// Returns once they are.
    pub(super) async fn done(mut self) -> Result<(), Failed> {
        let entries = self.entries;
        let reached = self.durable.wait_for(|durable| durable.is_none_or(|durable| durable >= entries)).await;
        match reached.map(|durable| *durable) {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err(Failed),
        }
    }
}

/// Writes what comes until nobody can send any more, or a write fails.
fn write(file: &mut File, lines: &mpsc::Receiver<(u64, String)>, done: &watch::Sender<Durable>) {
    while let Ok((mut entries, mut text)) = lines.recv() {
        while let Ok((more, line)) = lines.try_recv() {
            entries = more;
            text.push_str(&line);
        }
        if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
            tracing::error!(%error, "the provider's books could not be written; it answers nothing from now on");
            done.send_replace(None);
            return;
        }
        done.send_replace(Some(entries));
    }
}

/// The bodies of whole lines; or which line is wrong, and why.
fn read(bytes: &[u8]) -> Result<Vec<String>, (usize, String)> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate();
    lines.map(|(at, line)| entry(at, line).map_err(|reason| (at + 1, reason.to_owned()))).collect()
}

fn entry(at: usize, line: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "it is no text")?.trim_end_matches('\n');
    let mut parts = text.splitn(3, ' ');
    let (Some(number), Some(sum), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("it is no entry");
    };
    let expected = u64::try_from(at).unwrap_or(u64::MAX);
    if number.parse() != Ok(expected) {
        return Err("its number is not the next one");
    }
    if sum != digest(expected, body) {
        return Err("its checksum is wrong");
    }
    Ok(body.to_owned())
}

fn digest(number: u64, body: &str) -> String {
    let digest = Sha256::digest(format!("{number} {body}"));
    hex::encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own; it is deleted at the end.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("holdfast-books-{}", uuid::Uuid::new_v4())))
        }

        fn file(&self) -> PathBuf {
            self.0.join(FILE)
        }

        /// Writes three entries.
        async fn filled() -> Self {
            let place = Self::new();
            let (mut journal, entries) = open(&place.0).unwrap();
            assert_eq!(entries, Vec::<String>::new());
            for body in ["one", "two words", "three"] {
                journal.append(body);
            }
            journal.durable().done().await.unwrap();
            place
        }

        fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
            let mut bytes = fs::read(self.file()).unwrap();
            change(&mut bytes);
            fs::write(self.file(), bytes).unwrap();
        }

        /// Opens once the writer of an earlier journal has let go of the file.
        fn open(&self) -> Result<(Journal, Vec<String>), Error> {
            loop {
                match open(&self.0) {
                    Err(Error::InUse { .. }) => std::thread::yield_now(),
                    opened => return opened,
                }
            }
        }

        fn entries(&self) -> Result<Vec<String>, Error> {
            self.open().map(|(_, entries)| entries)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn durable_entries_are_read_back_in_order() {
        let place = Place::filled().await;
        assert_eq!(place.entries().unwrap(), ["one", "two words", "three"]);
        let (mut journal, _) = place.open().unwrap();
        assert_eq!(journal.append("four"), 4);
        journal.durable().done().await.unwrap();
        drop(journal);
        assert_eq!(place.entries().unwrap(), ["one", "two words", "three", "four"]);
    }

    #[tokio::test]
    async fn torn_tail_is_cut_off_wherever_it_was_torn() {
        let whole = fs::read(Place::filled().await.file()).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for length in last..whole.len() {
            let place = Place::filled().await;
            place.change(|bytes| bytes.truncate(length));
            assert_eq!(place.entries().unwrap(), ["one", "two words"], "{length} bytes");
            assert_eq!(fs::read(place.file()).unwrap(), whole[..last], "the tail is gone");
            let (mut journal, _) = place.open().unwrap();
            journal.append("again");
            journal.durable().done().await.unwrap();
            drop(journal);
            assert_eq!(place.entries().unwrap(), ["one", "two words", "again"]);
        }
        let place = Place::filled().await;
        place.change(|bytes| bytes.extend([0; 100]));
        assert_eq!(place.entries().unwrap().len(), 3, "a file that grew before its bytes were written");
    }

    #[tokio::test]
    async fn damaged_line_is_refused_and_the_file_is_left_alone() {
        let length = fs::read(Place::filled().await.file()).unwrap().len();
        // The last byte is the end of the last line: without it the tail is torn.
        for at in 0..length - 1 {
            let place = Place::filled().await;
            place.change(|bytes| bytes[at] ^= 1);
            let before = fs::read(place.file()).unwrap();
            let damaged = place.entries();
            assert!(matches!(damaged, Err(Error::Damaged { .. })), "byte {at}: {damaged:?}");
            assert_eq!(fs::read(place.file()).unwrap(), before);
        }
        let place = Place::filled().await;
        place.change(|bytes| drop(bytes.drain(..=bytes.iter().position(|byte| *byte == b'\n').unwrap())));
        let error = place.entries().unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("number") && error.contains("--reset"), "{error}");
    }

    #[tokio::test]
    async fn second_writer_is_refused_while_the_first_one_lives() {
        let place = Place::filled().await;
        let first = place.open().unwrap();
        assert!(matches!(open(&place.0), Err(Error::InUse { .. })));
        drop(first);
        assert_eq!(place.entries().unwrap().len(), 3);
    }
}
