//! Embedded Apache Kafka and PostgreSQL for tests, dev and demo.
