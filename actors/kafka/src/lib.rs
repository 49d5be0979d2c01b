//! Kafka adapter of the Holdfast ports.
