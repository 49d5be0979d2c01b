//! Laws of the context's seal.

use super::{StoreHarness, registered};

/// Drawn once, the same for every node and at every time, and no key that could be guessed.
pub async fn seal_is_the_same_for_every_node(harness: &dyn StoreHarness) {
    let (one, other) = (registered(harness, 1).await, harness.connect().await);
    let seal = one.seal().await.expect("there");
    assert_eq!(other.seal().await.expect("there"), seal);
    assert_eq!(one.seal().await.expect("there"), seal);
    let call = holdfast_core::CallEnvelope::new(uuid::Uuid::nil(), "t", "k", bytes::Bytes::new());
    assert!(!holdfast_core::seal::Seal::new([0; 32]).is_forward(&call, &seal.of_forward(&call)), "a key of zeros");
}
