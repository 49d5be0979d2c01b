//! What each failure does next.
//!
//! Classify before counting attempts: an outage of ours must never turn into dead letters (see the table
//! "When things go wrong" in the design). Business rejections are answers and don't appear here.

use std::fmt;

/// Why a message ended as a dead letter. The names are the values of the `dlt-reason` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadLetterReason {
    /// Required headers missing or garbled, wrong content type, a body that does not parse.
    Undecodable,
    /// Nobody here handles this `ce_type`.
    UnknownType,
    /// It parses, but a value is not allowed.
    Invalid,
    /// Over the size limit.
    TooLarge,
    /// The handler failed on it through the whole retry budget.
    Poison,
}

impl DeadLetterReason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Undecodable, Self::UnknownType, Self::Invalid, Self::TooLarge, Self::Poison];

    /// The name on the wire and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "UNDECODABLE",
            Self::UnknownType => "UNKNOWN_TYPE",
            Self::Invalid => "INVALID",
            Self::TooLarge => "TOO_LARGE",
            Self::Poison => "POISON",
        }
    }
}

impl fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a message waits in the durable mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitReason {
    /// Its home is another partition, whose owner applies it at once.
    Transferred,
    /// The actor failed on it (or on one before it); the budget is not spent.
    Retrying,
    /// A look-up in another context failed.
    Downstream,
}

impl WaitReason {
    /// The name in storage and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transferred => "transferred",
            Self::Retrying => "retrying",
            Self::Downstream => "downstream",
        }
    }

    /// From the name in storage.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "transferred" => Some(Self::Transferred),
            "retrying" => Some(Self::Retrying),
            "downstream" => Some(Self::Downstream),
            _ => None,
        }
    }
}

/// A message that is refused before any aggregate sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {error}")]
pub struct Refused {
    /// The class.
    pub reason: DeadLetterReason,
    /// What is wrong and what would be right, for a person. Holds no value of the payload.
    pub error: String,
    /// The field at fault, if one is.
    pub field: Option<String>,
}

impl Refused {
    /// An INVALID value of `field`.
    pub fn invalid(field: impl Into<String>, error: impl Into<String>) -> Self {
        Self { reason: DeadLetterReason::Invalid, error: error.into(), field: Some(field.into()) }
    }

    /// Something that doesn't parse.
    pub fn undecodable(error: impl Into<String>) -> Self {
        Self { reason: DeadLetterReason::Undecodable, error: error.into(), field: None }
    }

    /// A type nobody handles. Which, the dead letter's own header says: this text goes to logs, and nothing a
    /// caller sent may.
    pub fn unknown_type() -> Self {
        Self { reason: DeadLetterReason::UnknownType, error: "no handler for this ce_type".to_owned(), field: None }
    }
}
