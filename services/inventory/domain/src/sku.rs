//! The name of something that is kept in stock; also the name of the pool that counts it.

use std::{fmt, sync::Arc};

/// A well-formed sku: 1-64 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sku(Arc<str>);

/// The text is no sku.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sku is 1-64 characters of [A-Za-z0-9._-]")]
pub struct InvalidSku;

impl Sku {
    /// # Errors
    /// [`InvalidSku`] unless `text` is 1-64 characters of `[A-Za-z0-9._-]`.
    pub fn new(text: &str) -> Result<Self, InvalidSku> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidSku)
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_published_alphabet_and_length_make_a_sku() {
        for text in ["A", "sku-1", "a.b_c-9", &"x".repeat(64)] {
            assert_eq!(Sku::new(text).map(|sku| sku.to_string()), Ok(text.to_owned()));
        }
        for text in ["", " ", "a b", "ä", "a/b", "a\0", &"x".repeat(65)] {
            assert_eq!(Sku::new(text), Err(InvalidSku), "{text:?}");
        }
    }
}
