//! One run of scenarios: what each found or why it failed, when, on which machine, of which commit.
//!
//! Invariant: what [`Results::write`] wrote, [`Results::read`] reads back as it was. Numbers that are none
//! (JSON has no word for them) are dropped when they are added. Deliberately absent: the host's name and
//! absolute paths; they are taken out of the texts of failures and breaches.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use crate::findings::Findings;

/// The format of the JSON; another one is not read.
const FORMAT: u32 = 1;
/// The file in a run's directory that a later run is compared with.
const FILE: &str = "results.json";

/// Why earlier results can't be read, or these not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is in it.
    #[error("{} holds no results of `holdfast load`", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by another version.
    #[error("{} has format {found}, and only format {FORMAT} can be compared", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The format of this object.
    pub format: u32,
    /// When it began: `2026-11-30T19:05:12Z`.
    pub at: String,
    /// The commit that was built, if known; with `-dirty` if files differ from it.
    pub commit: Option<String>,
    /// `short` or `full`.
    pub form: String,
    /// Where it ran.
    pub machine: Machine,
    /// The scenarios, in the order in which they ran.
    pub scenarios: Vec<Entry>,
}

/// One scenario of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it found; only its name and its question if it failed.
    pub findings: Findings,
    /// Why it did not come to its end.
    pub failure: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Entry {
    /// Whether it came to its end, and every promise was kept.
    pub fn is_sound(&self) -> bool {
        self.failure.is_none() && self.findings.breaches.is_empty()
    }
}

impl Results {
    /// A run that begins now on this machine.
    pub fn begin(form: &str, commit: Option<String>) -> Self {
        let at = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        Self { format: FORMAT, at, commit, form: form.to_owned(), machine: Machine::this(), scenarios: Vec::new() }
    }

    /// Adds what a scenario came to.
    pub fn add(&mut self, mut entry: Entry) {
        let findings = &mut entry.findings;
        findings.figures.retain(|figure| figure.value.is_finite());
        for line in findings.plots.iter_mut().flat_map(|plot| &mut plot.lines) {
            line.points.retain(|(x, y)| x.is_finite() && y.is_finite());
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        for text in findings.breaches.iter_mut().chain(&mut entry.failure) {
            *text = without_places(text, host.trim());
        }
        self.scenarios.push(entry);
    }

    /// Whether every scenario is sound.
    pub fn is_sound(&self) -> bool {
        self.scenarios.iter().all(Entry::is_sound)
    }

    /// What the scenario of that name found, if it is in this run.
    pub fn findings(&self, scenario: &str) -> Option<&Findings> {
        self.scenarios.iter().map(|entry| &entry.findings).find(|findings| findings.scenario == scenario)
    }

    /// The run in a few words: when, of which commit, in which form.
    pub fn name(&self) -> String {
        let at = self.at.get(..16).unwrap_or(&self.at).replace('T', " ");
        let commit = self.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
        format!("{at} UTC{commit}, {} form", self.form)
    }

    /// Reads what an earlier run wrote.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        let read: Self =
            serde_json::from_slice(&text).map_err(|source| Error::Content { path: path.to_owned(), source })?;
        if read.format != FORMAT {
            return Err(Error::Format { path: path.to_owned(), found: read.format });
        }
        Ok(read)
    }

    /// Writes the JSON into `directory`, which is made if it is not there; returns its path.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, Error> {
        let path = directory.join(FILE);
        std::fs::create_dir_all(directory).map_err(|source| Error::File { path: directory.to_owned(), source })?;
        let json = serde_json::to_vec(self).map_err(|source| Error::Content { path: path.clone(), source })?;
        std::fs::write(&path, json).map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(path)
    }
}

/// `text` with the last parts of absolute paths alone, and without the host's name.
fn without_places(text: &str, host: &str) -> String {
    let is_apart = |c: char| c.is_whitespace() || "\"'`()[]<>,;=".contains(c);
    let shown = |word: &str| {
        let path = word.trim_end_matches(['.', ':']);
        let is_path = path.starts_with('/') && path.len() > 1;
        if is_path {
            format!("…/{}", word.rsplit('/').next().unwrap_or_default())
        } else if path == host && !host.is_empty() {
            word.replacen(host, "this-host", 1)
        } else {
            word.to_owned()
        }
    };
    let mut rest = String::new();
    for part in text.split_inclusive(is_apart) {
        let word = part.trim_end_matches(is_apart);
        rest.push_str(&shown(word));
        rest.push_str(&part[word.len()..]);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{Figure, Line, Plot};

    #[test]
    fn written_results_are_read_as_they_were() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut results = Results::begin("short", Some("abc".into()));
        let figures = [1.0 / 3.0, f64::NAN, f64::INFINITY].map(|value| Figure { value, ..Figure::default() }).to_vec();
        let lines = vec![Line { points: vec![(0.0, f64::NAN), (1.0, 0.1 + 0.2)], ..Line::default() }];
        let plots = vec![Plot { lines, ..Plot::default() }];
        let findings = Findings { scenario: "one".into(), figures, plots, ..Findings::default() };
        results.add(Entry { findings, ..Entry::default() });
        results.add(Entry { failure: Some("no".into()), ..Entry::default() });
        assert_eq!(
            results.findings("one").map(|one| (one.figures.len(), one.plots[0].lines[0].points.len())),
            Some((1, 1))
        );
        let path = results.write(&directory.path().join("new")).expect("written");
        assert_eq!(Results::read(&path).expect("read"), results);
        results.format = 7;
        let path = results.write(directory.path()).expect("written");
        assert!(matches!(Results::read(&path), Err(Error::Format { found: 7, .. })));
        std::fs::write(&path, "{}").expect("written");
        assert!(matches!(Results::read(&path), Err(Error::Content { .. })));
    }

    #[test]
    fn breach_and_failure_are_not_sound() {
        let mut results = Results::begin("full", None);
        results.add(Entry::default());
        assert!(results.is_sound());
        let breached = Findings { breaches: vec!["lost: 1".into()], ..Findings::default() };
        for entry in [
            Entry { findings: breached, ..Entry::default() },
            Entry { failure: Some("timeout".into()), ..Entry::default() },
        ] {
            let mut results = results.clone();
            results.add(entry);
            assert!(!results.is_sound());
        }
    }

    #[test]
    fn failures_name_neither_paths_nor_host() {
        let text = "starting (/home/me/x.jar): no 'broker-1' at /run/a/b.sock. broker-1, not broker-12; 3/4 of /";
        let shown = "starting (…/x.jar): no 'this-host' at …/b.sock. this-host, not broker-12; 3/4 of /";
        assert_eq!(without_places(text, "broker-1"), shown);
        assert_eq!(without_places("a b", ""), "a b");
    }
}
