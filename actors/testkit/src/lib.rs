//! In-memory ports and the conformance suites of the Holdfast runtime.
