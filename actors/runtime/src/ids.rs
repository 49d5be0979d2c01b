//! Maps by aggregate and by claim, which each message of a batch goes through several times.
//!
//! Their hasher is foldhash, a few times as quick as the standard one for keys of some forty bytes. Its seeds
//! come from addresses, the time and stack pointers, not from the system's randomness, and it does not claim
//! to resist an attacker who tries keys and watches. That is accepted: keys are bounded and mostly UUIDs,
//! what a lookup takes is buried under the commit that follows it, and a map holds at most a batch, or the
//! live aggregates, which are at most `live_max`.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// A map by aggregate, claim or the like.
pub(crate) type IdMap<K, V> = HashMap<K, V, RandomState>;
