//! The history of a run: one JSON object a line, in the order in which things were noted.
//!
//! Each line has `at_us`, microseconds of this process's monotonic clock since the run began, and `kind`; the
//! rest is the kind's own. Written through at once for what happens seldom (faults), so that a run that is
//! killed leaves what it did. Deliberately absent: reading it back.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

/// A history that is being written.
#[derive(Debug)]
pub struct Diary {
    began: Instant,
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    at_us: u64,
    kind: &'a str,
    #[serde(flatten)]
    what: &'a T,
}

impl Diary {
    /// Begins a new one at `path`; time counts from here.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let file = Mutex::new(BufWriter::new(File::create(path)?));
        Ok(Self { began: Instant::now(), path: path.to_owned(), file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Time since the run began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes something that happens often; it is on disk by [`Diary::flush`], or with the next
    /// [`Diary::mark`].
    pub fn note(&self, kind: &str, what: &impl Serialize) {
        self.write(kind, what, false);
    }

    /// Notes something that must be on disk whatever happens next.
    pub fn mark(&self, kind: &str, what: &impl Serialize) {
        self.write(kind, what, true);
    }

    /// Everything noted is on disk from here on.
    pub fn flush(&self) -> io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }

    fn write(&self, kind: &str, what: &impl Serialize, is_urgent: bool) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that lines are in the order of their times.
        let at_us = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        let written = serde_json::to_writer(&mut *file, &Line { at_us, kind, what })
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| if is_urgent { file.flush() } else { Ok(()) });
        if let Err(error) = written {
            tracing::warn!(%error, kind, "the history could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_and_what_and_marks_are_on_disk_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let diary = Diary::begin(&dir.path().join("history.jsonl")).unwrap();
        diary.note("call", &serde_json::json!({ "node": 1 }));
        diary.mark("fault", &serde_json::json!({ "fault": "KILL" }));
        let text = std::fs::read_to_string(diary.path()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["kind"], &lines[0]["node"]), (&"call".into(), &1.into()));
        assert_eq!((&lines[1]["kind"], &lines[1]["fault"]), (&"fault".into(), &"KILL".into()));
        assert!(lines[0]["at_us"].as_u64() <= lines[1]["at_us"].as_u64());
    }
}
