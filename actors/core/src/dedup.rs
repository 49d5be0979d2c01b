//! Recognising a message that was seen before (I2).
//!
//! A claim is kept for each command: who it was for, who sent it and under which id, a digest of its body,
//! and the answer it got. Same id and body: the first answer again. Same id, other body: a conflict. The last
//! claims of an aggregate stand in its own row ([`crate::ring`]), older ones in tables that are cut by day.
//! Uniqueness is look-up-then-insert under the owner's fence, so these need no unique index. Events with a
//! `ce_sequence` need no claim: it is compared with the last one applied from their source. One without is
//! claimed like a command.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{aggregate::AggregateId, envelope::Message};

/// What identifies a message at one aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimKey {
    /// The message's `ce_id`.
    pub id: Uuid,
    /// A digest of the aggregate and the `ce_source`.
    pub scope: Uuid,
}

impl ClaimKey {
    /// The key of `message` at `aggregate`.
    pub fn of(aggregate: &AggregateId, message: &Message) -> Self {
        let scope = digest(&[aggregate.kind.as_bytes(), aggregate.key.as_bytes(), message.source.as_bytes()]);
        Self { id: message.id, scope }
    }
}

/// What a message is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The key of its claim.
    pub key: ClaimKey,
    /// [`body_digest`].
    pub body: Uuid,
}

impl Fingerprint {
    /// The fingerprint of `message` at `aggregate`.
    pub fn of(aggregate: &AggregateId, message: &Message) -> Self {
        Self { key: ClaimKey::of(aggregate, message), body: body_digest(message) }
    }
}

/// A digest of what a message asks for: its type and its body, not its tracing headers.
pub fn body_digest(message: &Message) -> Uuid {
    digest(&[message.r#type.as_bytes(), message.content_type.as_str().as_bytes(), &message.payload])
}

/// The first 128 bits of SHA-256 over the parts, each preceded by its length.
pub(crate) fn digest(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    Uuid::from_bytes(half)
}

/// The answer to a command, as claims keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was applied.
    Applied {
        /// The aggregate's version afterwards.
        version: u64,
        /// The encoded reply, where a caller waited for one; empty otherwise.
        reply: Bytes,
    },
    /// It was rejected.
    Rejected {
        /// The aggregate's version at that time.
        version: u64,
        /// The rejection's name and text.
        rejection: Rejection,
    },
}

/// A business rejection in the form that travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// `UPPER_SNAKE_CASE`, stable.
    pub code: String,
    /// For a person; holds no personal data.
    pub message: String,
}

/// The code of the rejection that stands for an answer that is lost: what it was given to is decided all the
/// same, and is not decided again.
pub const ANSWER_LOST: &str = "ANSWER_LOST";

impl Rejection {
    /// The stored form: `code NUL message`.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.code.as_bytes(), &[0], self.message.as_bytes()].concat()
    }

    /// Reads the stored form; `None` if it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (code, message) = std::str::from_utf8(bytes).ok()?.split_once('\0')?;
        Some(Self { code: code.into(), message: message.into() })
    }
}

impl Answer {
    /// The version the answer speaks of.
    pub const fn version(&self) -> u64 {
        match self {
            Self::Applied { version, .. } | Self::Rejected { version, .. } => *version,
        }
    }

    /// The stored form: a tag, the version, then the reply or the rejection.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        match self {
            Self::Applied { version, reply } => {
                out.push(1);
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(reply);
            }
            Self::Rejected { version, rejection } => {
                out.push(2);
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&rejection.to_bytes());
            }
        }
        out
    }

    /// Reads the stored form; `None` if it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (version, rest) = rest.split_at_checked(8)?;
        let version = u64::from_le_bytes(version.try_into().ok()?);
        match tag {
            1 => Some(Self::Applied { version, reply: Bytes::copy_from_slice(rest) }),
            2 => Some(Self::Rejected { version, rejection: Rejection::from_bytes(rest)? }),
            _ => None,
        }
    }
}

/// The body of a claim that was rebuilt from its effect alone (`holdfast recover`): what the message asked
/// for is not known any more. It counts as the same as any other, so that a repeat gets the answer. The other
/// choice, a conflict, would turn every honest repeat away for the sake of the rare reuse of an id.
pub const ANY_BODY: Uuid = Uuid::nil();

/// A claim as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose.
    pub key: ClaimKey,
    /// [`body_digest`] of the first message, or [`ANY_BODY`]. Only the first 8 bytes of one that has been in
    /// a [`crate::ring::Ring`] are known, and the others are 0.
    pub body: Uuid,
    /// What it was answered.
    pub answer: Answer,
}

impl Claim {
    /// Whether a message with this digest repeats the one that was claimed.
    pub fn is_repeat(&self, body: Uuid) -> bool {
        let half = |digest: &Uuid| digest.as_u64_pair().0;
        half(&self.body) == half(&body) || self.body == ANY_BODY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_storage() {
        let rejection = Rejection { code: "EMPTY_ORDER".into(), message: "nothing to place".into() };
        for answer in [
            Answer::Applied { version: 7, reply: Bytes::from_static(b"\x00\x01") },
            Answer::Applied { version: 0, reply: Bytes::new() },
            Answer::Rejected { version: u64::MAX, rejection },
        ] {
            assert_eq!(Answer::from_bytes(&answer.to_bytes()), Some(answer));
        }
        for garbage in [&[][..], &[1, 2], &[9, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(Answer::from_bytes(garbage), None);
        }
    }

    #[test]
    fn parts_cannot_run_into_each_other() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }
}
