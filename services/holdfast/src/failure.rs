//! How a verb fails, and the exit code that says so.

use std::fmt;

/// A failed verb.
#[derive(Debug)]
pub enum Failure {
    /// A check failed: code 1.
    Check(anyhow::Error),
    /// Wrong usage or configuration: code 2.
    Usage(anyhow::Error),
    /// A dependency is unreachable: code 3.
    Unreachable(anyhow::Error),
    /// A signal came before the end: code 130.
    Stopped,
}

impl Failure {
    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Check(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Stopped => 130,
        }
    }

    /// A wrong usage.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    /// An unreachable dependency.
    pub fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self::Unreachable(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The whole chain on one line.
            Self::Check(error) | Self::Usage(error) | Self::Unreachable(error) => write!(f, "{error:#}"),
            Self::Stopped => f.write_str("stopped before the end"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Check(error)
    }
}

impl From<holdfast_platform::config::Error> for Failure {
    fn from(error: holdfast_platform::config::Error) -> Self {
        Self::usage(error)
    }
}

impl From<holdfast_stack::Error> for Failure {
    fn from(error: holdfast_stack::Error) -> Self {
        Self::unreachable(error)
    }
}
