//! What a coordinator remembers of its keys: the state that it got chosen last.

use std::collections::HashMap;

use crate::bytes::Key;
use crate::register::Accepted;
use crate::rules::{self, Rule};

/// How many keys one generation holds; two are kept.
const GENERATION: usize = 16_384;

/// Per key the last state that this coordinator got chosen, for as many keys as were written
/// last. It lets the next write skip the prepare.
///
/// An entry is taken out as soon as a proposal for its key starts, and only a chosen state is
/// put in: so whatever goes wrong with the proposal, nothing is remembered.
#[derive(Default)]
pub struct Memory {
    young: HashMap<Key, Accepted>,
    old: HashMap<Key, Accepted>,
}

impl Memory {
    pub fn take(&mut self, key: &Key) -> Option<Accepted> {
        if !rules::holds(Rule::MemoryDropped) {
            return self.young.get(key).or(self.old.get(key)).cloned();
        }
        let young = self.young.remove(key);
        let old = self.old.remove(key);
        young.or(old)
    }

    pub fn put(&mut self, key: Key, chosen: Accepted) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, chosen);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::register::{Ballot, State};

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
}
