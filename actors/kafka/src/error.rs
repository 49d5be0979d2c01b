//! What goes wrong, in the ports' words.
//!
//! Deliberately absent: a type of our own for run-time errors; the ports' [`LogError`] says all that a caller
//! can act on.

use holdfast_core::port::log::LogError;
use rdkafka::error::KafkaError;

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A property that safety rests on was set.
    #[error("Kafka property {property} can't be set: {reason}")]
    Refused {
        /// The property.
        property: String,
        /// Why not.
        reason: &'static str,
    },
    /// A value of our own is missing or out of range.
    #[error("{0}")]
    Invalid(String),
    /// librdkafka does not know the property or does not take the value.
    #[error("Kafka property {property} = {value:?}: {detail}")]
    Property {
        /// The property.
        property: String,
        /// The value.
        value: String,
        /// librdkafka's words.
        detail: String,
    },
    /// The client could not be made.
    #[error("Kafka client")]
    Client(#[source] KafkaError),
}

impl From<KafkaError> for ConfigError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, detail, property, value) => {
                let secret = ["password", "secret", "key", "token"].iter().any(|word| property.contains(word));
                let value = if secret { "(hidden)".to_owned() } else { value };
                Self::Property { property, value, detail }
            }
            error => Self::Client(error),
        }
    }
}

impl From<ConfigError> for LogError {
    fn from(error: ConfigError) -> Self {
        Self::Fatal(match error {
            ConfigError::Client(source) => format!("{source}"),
            error => error.to_string(),
        })
    }
}

/// For calls where any failure is the broker's or the network's, and passes.
pub(crate) fn unavailable(what: &str, error: &KafkaError) -> LogError {
    LogError::Unavailable(format!("{what}: {error}"))
}

/// What an error on a partition's queue asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The offset isn't in the log.
    OutOfRange,
    /// The topic or partition may be gone: look, and open again if it is there.
    Unknown,
    /// The data could not be read this time: open again at the same offset.
    Reopen,
    /// The data could not be decompressed: perhaps this time, perhaps ever.
    Compression,
    /// librdkafka goes on by itself.
    Passing,
    /// The client is done for.
    Fatal,
}

/// Sorts an error that a partition's queue gave.
pub(crate) fn trouble(error: &KafkaError) -> Trouble {
    use rdkafka::types::RDKafkaErrorCode as Code;
    match error {
        KafkaError::MessageConsumptionFatal(_) => Trouble::Fatal,
        KafkaError::MessageConsumption(code) => match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => Trouble::OutOfRange,
            Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopicId => {
                Trouble::Unknown
            }
            Code::Fatal => Trouble::Fatal,
            Code::BadCompression => Trouble::Compression,
            Code::BadMessage
            | Code::NotImplemented
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::MessageSizeTooLarge => Trouble::Reopen,
            _ => Trouble::Passing,
        },
        _ => Trouble::Passing,
    }
}
