//! A map in the order of its keys whose look-ups do not pay for the order.
//!
//! Values are found by the hash of their key, and the keys lie beside them in order. The hash
//! tables are many and small: one that grows moves all that it holds, and everybody waits for it.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;

use crate::bytes::Key;

/// With a million keys a table that grows moves some 4000.
const TABLES: usize = 256;

/// Values by their keys.
#[derive(Clone)]
pub struct Index<V> {
    tables: Vec<HashMap<Key, V>>,
    /// Tells which table a key is in.
    hasher: RandomState,
    order: BTreeSet<Key>,
}

impl<V> Default for Index<V> {
    fn default() -> Index<V> {
        Index {
            tables: (0..TABLES).map(|_| HashMap::new()).collect(),
            hasher: RandomState::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<V> Index<V> {
    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn get(&self, key: &Key) -> Option<&V> {
        self.tables[self.table(key)].get(key)
    }

    /// The value of a key, which is made if there is none.
    pub fn get_or_insert_with(&mut self, key: &Key, make: impl FnOnce() -> V) -> &mut V {
        let table = self.table(key);
        let order = &mut self.order;
        self.tables[table].entry(key.clone()).or_insert_with(|| {
            order.insert(key.clone());
            make()
        })
    }

    pub fn remove(&mut self, key: &Key) -> Option<V> {
        let table = self.table(key);
        let table = &mut self.tables[table];
        let removed = table.remove(key)?;
        if table.len() < table.capacity() / 4 {
            table.shrink_to(2 * table.len());
        }
        self.order.remove(key);
        Some(removed)
    }

    /// Keys and values after a key, ascending by key; all without one.
    pub fn after(&self, key: Option<&Key>) -> impl Iterator<Item = (&Key, &V)> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.order.range::<Key, _>((start, Bound::Unbounded));
        keys.filter_map(|key| Some((key, self.get(key)?)))
    }

    fn table(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize % TABLES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        format!("{number:04}").into()
    }

    #[test]
    fn keys_are_found_and_walked_in_order_until_they_are_removed() {
        let mut index = Index::default();
        for number in (0..1000).rev() {
            *index.get_or_insert_with(&key(number), || 0) += number;
        }
        *index.get_or_insert_with(&key(7), || 0) += 1;
        assert_eq!((index.len(), index.get(&key(7))), (1000, Some(&8)));
        assert_eq!(index.remove(&key(998)), Some(998));
        assert_eq!(
            (index.remove(&key(998)), index.get(&key(998))),
            (None, None)
        );
        let after: Vec<_> = index.after(Some(&key(996))).collect();
        assert_eq!(after, [(&key(997), &997), (&key(999), &999)]);
        assert_eq!((index.len(), index.after(None).count()), (999, 999));
    }
}
