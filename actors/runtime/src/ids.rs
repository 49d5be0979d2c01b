//! Maps and sets by aggregate and by claim, which each message of a batch goes through several times.
//!
//! Their hasher is foldhash, a few times as quick as the standard one for keys of some forty bytes. It is seeded at random for each process and map, as the
//! standard one is, but makes no cryptographic promise: outsiders choose keys, see no hash, and a map holds no more than a batch or the live
//! aggregates.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// A map by aggregate, claim or the like.
pub(crate) type IdMap<K, V> = HashMap<K, V, RandomState>;
/// A set of the same.
pub(crate) type IdSet<K> = HashSet<K, RandomState>;
