//! What a scenario found, and how it is printed.
//!
//! Deliberately absent: finding it.

use holdfast_load_tests::findings::Findings;

/// What a scenario found, and how it is printed.
pub(super) struct Found {
    /// For the page, and for all that follows.
    pub(super) findings: Findings,
    /// What `--json` prints.
    pub(super) json: String,
    /// What is printed without it; a table of the findings if none.
    pub(super) table: Option<String>,
}

impl From<Findings> for Found {
    fn from(findings: Findings) -> Self {
        Self { json: serde_json::json!(findings).to_string(), findings, table: None }
    }
}
