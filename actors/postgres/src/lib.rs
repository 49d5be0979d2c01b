//! Postgres adapter of the Holdfast ports.
