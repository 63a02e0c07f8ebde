//! Hash tables that never move much at a time.
//!
//! A hash table that grows moves all that it holds, and everybody waits for it. So here are many
//! small ones: with a million keys one that grows moves some 4000.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::bytes::Key;

const TABLES: usize = 256;

/// Values by their keys.
#[derive(Clone)]
pub struct Tables<V> {
    tables: Vec<HashMap<Key, V>>,
    /// Tells which table a key is in.
    hasher: RandomState,
}

impl<V> Default for Tables<V> {
    fn default() -> Tables<V> {
        Tables {
            tables: (0..TABLES).map(|_| HashMap::new()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl<V> Tables<V> {
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.tables[self.place(key)].get(key)
    }

    /// The value of a key, which is made if there is none.
    pub fn get_or_insert_with(&mut self, key: &Key, make: impl FnOnce() -> V) -> &mut V {
        let place = self.place(key);
        let entry = self.tables[place].entry(key.clone());
        entry.or_insert_with(make)
    }

    pub fn remove(&mut self, key: &Key) -> Option<V> {
        let place = self.place(key);
        let table = &mut self.tables[place];
        let removed = table.remove(key)?;
        if table.len() < table.capacity() / 4 {
            table.shrink_to(2 * table.len());
        }
        Some(removed)
    }

    fn place(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize % TABLES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        number.to_string().into()
    }

    #[test]
    fn values_are_found_until_they_are_removed() {
        let mut tables = Tables::default();
        for number in 0..1000 {
            *tables.get_or_insert_with(&key(number), || 0) += number;
        }
        *tables.get_or_insert_with(&key(7), || 0) += 1;
        assert_eq!(tables.get(&key(7)), Some(&8));
        assert_eq!(tables.remove(&key(7)), Some(8));
        assert_eq!((tables.remove(&key(7)), tables.get(&key(7))), (None, None));
        assert_eq!(tables.get(&key(999)), Some(&999));
    }

    #[test]
    fn room_is_given_back() {
        let mut tables = Tables::default();
        let capacity =
            |tables: &Tables<usize>| -> usize { tables.tables.iter().map(HashMap::capacity).sum() };
        let keys = 100 * TABLES;
        for number in 0..keys {
            tables.get_or_insert_with(&key(number), || number);
        }
        assert!(capacity(&tables) >= keys);
        for number in 0..keys {
            tables.remove(&key(number));
        }
        assert!(capacity(&tables) <= 8 * TABLES, "{}", capacity(&tables));
    }
}
