//! Which partition a key belongs to.
//!
//! The home of a key is `murmur2(key) % count`, with the hash that Kafka's Java client uses, so that any
//! producer with the default Java partitioner (or librdkafka's `murmur2_random`) sends a record straight
//! home. Rows that belong to an aggregate store the 31-bit hash, so they are found again by `hash % count`
//! whatever the count becomes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a partition, from 0. The same number is used for every topic of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key's hash: murmur2 with the sign bit cleared, so 31 bits; it fits Postgres' `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(u32);

impl KeyHash {
    /// The hash of a record key.
    pub fn of(key: &[u8]) -> Self {
        Self(murmur2(key) & 0x7fff_ffff)
    }

    /// The key's home among `count` partitions. `count` is at least 1.
    pub fn home(self, count: u32) -> PartitionId {
        PartitionId(self.0 % count.max(1))
    }

    /// As Postgres stores it.
    pub fn as_i32(self) -> i32 {
        i32::try_from(self.0).expect("31 bits fit an i32")
    }

    /// From its stored form.
    pub const fn from_i32(stored: i32) -> Self {
        Self(stored.cast_unsigned() & 0x7fff_ffff)
    }

    /// The 31 bits.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Murmur2 as in `org.apache.kafka.common.utils.Utils.murmur2` (seed 0x9747b28c), after Austin Appleby's
/// `MurmurHash2`.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut h = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`, as signed 32-bit integers there.
    #[test]
    fn murmur2_agrees_with_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn multiplied_count_keeps_each_key_in_a_congruent_partition() {
        for n in 0..500_u32 {
            let hash = KeyHash::of(n.to_string().as_bytes());
            assert_eq!(hash.home(36).0 % 12, hash.home(12).0);
        }
    }
}
