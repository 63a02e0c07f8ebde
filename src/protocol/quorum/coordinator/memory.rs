//! What a coordinator remembers of its keys: the state that it got chosen last.
//!
//! Two generations of entries are kept. When the young one is full it becomes the old one, and the old
//! one is forgotten.

use std::collections::HashMap;

use crate::bytes::Key;
use crate::protocol::Accepted;
use crate::testing::rules::{self, Rule};

/// How many keys a generation holds at most.
const GENERATION: usize = 4096;
/// How many bytes of keys and values a generation holds before it is full.
const GENERATION_BYTES: usize = 16 << 20;

/// Per key the last state that this coordinator got chosen, for the keys that were written last. It
/// lets the next write skip the prepare.
///
/// An entry is taken out as soon as a proposal for its key starts, and only a chosen state is put in.
/// So a proposal that fails in any way leaves nothing behind.
#[derive(Default)]
pub struct Memory {
    young: HashMap<Key, Accepted>,
    /// How many bytes the keys and values in `young` have.
    young_bytes: usize,
    old: HashMap<Key, Accepted>,
}

impl Memory {
    /// Takes out what was chosen last for this key, if that is remembered.
    pub fn take(&mut self, key: &Key) -> Option<Accepted> {
        if !rules::holds(Rule::MemoryDropped) {
            return self.young.get(key).or(self.old.get(key)).cloned();
        }
        let young = self.young.remove(key);
        if let Some(chosen) = &young {
            self.young_bytes -= size(key, chosen);
        }
        let old = self.old.remove(key);
        young.or(old)
    }

    /// Remembers what was chosen just now.
    pub fn put(&mut self, key: Key, chosen: Accepted) {
        if self.young.len() >= GENERATION || self.young_bytes >= GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += size(&key, &chosen);
        if let Some(before) = self.young.insert(key.clone(), chosen) {
            self.young_bytes -= size(&key, &before);
        }
    }
}

fn size(key: &Key, chosen: &Accepted) -> usize {
    key.len() + chosen.state.value.as_ref().map_or(0, |value| value.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bytes::MAX_VALUE;
    use crate::protocol::{Ballot, State};

    fn chosen() -> Accepted {
        Accepted {
            ballot: Ballot::ZERO,
            state: Arc::new(State::default()),
        }
    }

    #[test]
    fn a_memory_is_used_once() {
        let mut memory = Memory::default();
        memory.put("k".into(), chosen());
        assert_eq!(memory.take(&"k".into()), Some(chosen()));
        assert_eq!(memory.take(&"k".into()), None);
    }

    #[test]
    fn the_keys_that_were_written_last_are_remembered_and_no_more_than_two_generations() {
        let mut memory = Memory::default();
        for key in 0..3 * GENERATION {
            memory.put(key.to_string().into(), chosen());
        }
        assert!(memory.young.len() + memory.old.len() <= 2 * GENERATION);
        let newest = (3 * GENERATION - 1).to_string();
        assert!(memory.take(&newest.into()).is_some());
        assert!(memory.take(&"0".into()).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded_in_bytes_too() {
        let mut memory = Memory::default();
        let state = State {
            value: Some(vec![0; MAX_VALUE].as_slice().into()),
            ..State::default()
        };
        let large = Accepted {
            state: Arc::new(state),
            ..chosen()
        };
        for key in 0..100 {
            memory.put(key.to_string().into(), large.clone());
            memory.put("again".into(), large.clone());
        }
        let count = memory.young.len() + memory.old.len();
        assert!(count > 2 && count * MAX_VALUE <= 2 * (GENERATION_BYTES + MAX_VALUE));
        let own = memory.young.iter().map(|(key, own)| size(key, own));
        assert_eq!(memory.young_bytes, own.sum::<usize>());
    }
}
