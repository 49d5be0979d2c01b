//! A hash map that never shows its order, so that a machine that gets the same inputs does the same.
//!
//! Invariant: whatever is walked is walked in the order of the keys. Deliberately absent: iterators of the
//! map itself.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
};

/// See the module.
#[derive(Clone)]
pub(crate) struct Table<K, V, S = RandomState>(HashMap<K, V, S>);

impl<K: Hash + Ord + fmt::Debug, V: fmt::Debug, S: BuildHasher> fmt::Debug for Table<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.sorted()).finish()
    }
}

impl<K, V, S: Default> Default for Table<K, V, S> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Copy + Hash + Ord, V, S: BuildHasher> Table<K, V, S> {
    /// Takes out all that is meant, in order.
    pub fn extract(&mut self, is_meant: impl Fn(&V) -> bool) -> Vec<(K, V)> {
        let mut gone: Vec<(K, V)> = self.0.extract_if(|_, value| is_meant(value)).collect();
        gone.sort_unstable_by_key(|(key, _)| *key);
        gone
    }
}

impl<K: Hash + Ord, V, S: BuildHasher> Table<K, V, S> {
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    pub fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        self.0.insert(key, value);
    }

    pub fn get_or_insert_with(&mut self, key: K, value: impl FnOnce(&K) -> V) -> &mut V {
        self.0.entry(key).or_insert_with_key(value)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one of the values is meant.
    pub fn any(&self, is_meant: impl Fn(&V) -> bool) -> bool {
        self.0.values().any(is_meant)
    }

    /// All of it, in order.
    pub fn sorted(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<(&K, &V)> = self.0.iter().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

/// A table by numbers that are counted up, which nobody outside chooses.
pub(crate) type Numbered<K, V> = Table<K, V, BuildHasherDefault<Spread>>;

/// See [`Numbered`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Knuth, The Art of Computer Programming 3, 6.4: multiplied by 2^64 over the golden ratio, neighbours
        // end up far apart.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}
