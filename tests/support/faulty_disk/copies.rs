//! What programs see of files and names, and what outlives a loss of power.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::Loss;

/// Disks write this many bytes whole or not at all.
const SECTOR: usize = 512;

/// The bytes of a file.
#[derive(Default)]
pub struct Content {
    pub cached: Vec<u8>,
    pub durable: Vec<u8>,
}

/// Which name means which file.
#[derive(Default)]
pub struct Names {
    pub cached: BTreeMap<String, usize>,
    pub durable: BTreeMap<String, usize>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
pub enum Change {
    Set(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

impl Change {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Change::Set(name, file) => drop(names.insert(name, file)),
            Change::Remove(name) => drop(names.remove(&name)),
            Change::Rename(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
        }
    }
}

impl Content {
    pub fn survives(&self, loss: Loss, rng: &mut Rng) -> Vec<u8> {
        let (cached, durable) = (&self.cached, &self.durable);
        let mut survived = durable.clone();
        if cached == durable || loss == Loss::Everything {
            return survived;
        }
        // A new length may have reached the disk, and the bytes before it not.
        if rng.bool() {
            survived.resize(cached.len(), 0);
        }
        let same = (0..cached.len())
            .take_while(|at| durable.get(*at) == cached.get(*at))
            .count();
        if loss == Loss::Torn {
            let cut = rng.usize(same..=cached.len());
            survived.resize(survived.len().max(cut), 0);
            survived[same..cut].copy_from_slice(&cached[same..cut]);
            return survived;
        }
        for (sector, bytes) in survived.chunks_mut(SECTOR).enumerate() {
            let from = (sector * SECTOR).min(cached.len());
            let to = (from + bytes.len()).min(cached.len());
            if rng.bool() {
                bytes[..to - from].copy_from_slice(&cached[from..to]);
            }
        }
        survived
    }
}

impl Names {
    pub fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.cached);
        self.unsynced.push(change);
    }

    pub fn sync(&mut self) {
        self.durable = self.cached.clone();
        self.unsynced.clear();
    }

    pub fn survive(&mut self, loss: Loss, rng: &mut Rng) {
        let first = rng.usize(0..=self.unsynced.len());
        for (place, change) in self.unsynced.drain(..).enumerate() {
            let survives = match loss {
                Loss::Everything => false,
                Loss::Torn => place < first,
                Loss::Holes => rng.bool(),
            };
            if survives {
                change.apply(&mut self.durable);
            }
        }
        self.cached = self.durable.clone();
    }
}
