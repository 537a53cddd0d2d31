//! A map with a limit on its entries, whatever the network sends.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use crate::time::Time;

/// A map of at most `MOST` entries. New keys are ignored when it is full.
#[derive(Debug)]
pub(crate) struct Capped<K, V, const MOST: usize>(BTreeMap<K, V>);

impl<K: Ord, V, const MOST: usize> Capped<K, V, MOST> {
    /// The value of a key, created if it is missing; `None` if there is no room for it.
    pub fn entry_or(&mut self, key: K, new: impl FnOnce() -> V) -> Option<&mut V> {
        let has_room = self.0.len() < MOST || self.0.contains_key(&key);
        has_room.then(|| self.0.entry(key).or_insert_with(new))
    }

    pub fn entry(&mut self, key: K) -> Option<&mut V>
    where
        V: Default,
    {
        self.entry_or(key, V::default)
    }

    /// Stores a value, unless there is no room for it.
    pub fn insert(&mut self, key: K, value: V) {
        if self.0.len() < MOST || self.0.contains_key(&key) {
            self.0.insert(key, value);
        }
    }

    /// Drops the older half when it is full.
    pub fn make_room(&mut self, last: impl Fn(&V) -> Time) {
        if self.0.len() < MOST {
            return;
        }
        let mut times: Vec<Time> = self.0.values().map(&last).collect();
        let middle = *times.select_nth_unstable(MOST / 2).1;
        self.0.retain(|_, value| last(value) > middle);
    }
}

impl<K: Ord, const MOST: usize> Capped<K, Time, MOST> {
    /// Keeps the latest time of each key.
    pub fn record(&mut self, key: K, at: Time) {
        if let Some(latest) = self.entry(key) {
            *latest = at.max(*latest);
        }
    }
}

impl<K, V, const MOST: usize> Default for Capped<K, V, MOST> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K, V, const MOST: usize> Deref for Capped<K, V, MOST> {
    type Target = BTreeMap<K, V>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K, V, const MOST: usize> DerefMut for Capped<K, V, MOST> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_drops_its_older_half() {
        let mut map: Capped<u64, Time, 4> = Capped::default();
        let mut keys = |more: &[u64]| {
            more.iter().for_each(|key| map.record(*key, Time(100 - key)));
            map.make_room(|at| *at);
            map.keys().copied().collect::<Vec<_>>()
        };
        assert_eq!(keys(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(keys(&[4]), [1]);
        assert_eq!(keys(&[9]), [1, 9]);
    }
}
