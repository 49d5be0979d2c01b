//! The effective configuration for people and for `--json`.
//!
//! Invariant: a secret is masked before it gets here; nothing unmasked is ever in a [`Rendered`].
//!
//! Deliberately absent: layout; the verb prints.

use serde::Serialize;

use super::{
    keys::{Key, Shown},
    parse,
};

/// One key as `holdfast config` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rendered {
    /// Dotted name.
    pub key: &'static str,
    /// Effective value, masked; none if unset.
    pub value: Option<String>,
    /// `default`, `file <path>`, `environment` or `flag`.
    pub source: String,
    /// The variable that sets it.
    pub variable: String,
    /// One line.
    pub help: &'static str,
}

/// The value of a key, as it may be shown.
pub(super) fn shown(key: &Key, text: &str) -> String {
    match key.shown {
        Shown::Plain => text.to_owned(),
        Shown::Secret => parse::MASK.to_owned(),
        Shown::Url => parse::mask_url(text),
        Shown::Properties => {
            parse::properties(text).map_or_else(|_| parse::MASK.to_owned(), |properties| properties.to_string())
        }
    }
}
