//! What can be wrong with a configuration.
//!
//! Invariant: the text alone is enough to mend it: which key, in the spelling of where it was given; which
//! value, with secrets masked; from which source; what is allowed. Every one of them is exit code
//! [`EXIT_CODE`].
//!
//! Deliberately absent: recovery. A process does not start on half a configuration.

use std::{fmt, path::PathBuf};

/// What the process exits with.
pub const EXIT_CODE: u8 = 2;

/// Where a value came from; later ones win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// The TOML file.
    File(PathBuf),
    /// An environment variable.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing has this name.
    #[error("unknown configuration key `{key}` ({origin}){}", hint(.nearest.as_deref()))]
    UnknownKey {
        /// As it was written.
        key: String,
        /// Where.
        origin: Source,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// The value does not fit its key.
    #[error("bad value `{value}` for `{key}` ({origin}): allowed is {allowed}")]
    BadValue {
        /// In the spelling of its source.
        key: String,
        /// Masked where it could hold a secret.
        value: String,
        /// Where it was given.
        origin: Source,
        /// What would be right.
        allowed: String,
    },
    /// A key that this verb can't do without.
    #[error("`{key}` is not set: {needed_for} (set {variable}, {flag}, or `{key}` in the configuration file)")]
    Missing {
        /// Dotted name.
        key: &'static str,
        /// Its variable.
        variable: String,
        /// Its flag.
        flag: String,
        /// Why it is needed.
        needed_for: String,
    },
    /// The file can't be read.
    #[error("cannot read the configuration file {} (named by {named_by}): {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// `--config` or `HOLDFAST_CONFIG`.
        named_by: &'static str,
        /// The system's words.
        why: std::io::Error,
    },
    /// The file is no TOML.
    #[error("the configuration file {} is not valid TOML: {why}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        why: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(|| "; `holdfast config` lists them all".to_owned(), |name| format!("; did you mean `{name}`?"))
}
