//! Dots and vector clocks: the names of writes, and which of them a state has absorbed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::protocol::ring::NodeId;

/// The name of one client's write. The origin mints it once, and every attempt inside the cluster
/// carries it unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Dot {
    pub origin: NodeId,
    /// Starts at 1 and grows with every write of this origin, restarts included.
    pub sequence: u64,
}

/// For each origin the highest sequence number of its writes that a state has absorbed.
///
/// A key's version. Since an origin has at most one write of a key in flight and numbers them
/// upwards, the highest number stands for all before it (Fidge 1988, Mattern 1989).
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VectorClock(
    /// Ascending by origin, without zeros.
    Vec<(NodeId, u64)>,
);

impl VectorClock {
    /// The highest sequence number of `origin`, 0 if it never wrote.
    pub fn get(&self, origin: NodeId) -> u64 {
        match self.0.binary_search_by_key(&origin, |entry| entry.0) {
            Ok(place) => self.0[place].1,
            Err(_) => 0,
        }
    }

    /// Sets the entry of the dot's origin to its sequence number.
    pub fn set(&mut self, dot: Dot) {
        match self.0.binary_search_by_key(&dot.origin, |entry| entry.0) {
            Ok(place) => self.0[place].1 = dot.sequence,
            Err(place) => self.0.insert(place, (dot.origin, dot.sequence)),
        }
    }

    /// Forgets the entry of `origin`.
    pub fn remove(&mut self, origin: NodeId) {
        self.0.retain(|entry| entry.0 != origin);
    }

    /// Raises each entry to that of `other`, where that is higher.
    pub fn merge(&mut self, other: &VectorClock) {
        for &(origin, sequence) in &other.0 {
            if sequence > self.get(origin) {
                self.set(Dot { origin, sequence });
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many origins have an entry.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no entry of `other` is higher than the entry here.
    pub fn dominates(&self, other: &VectorClock) -> bool {
        other
            .0
            .iter()
            .all(|&(origin, sequence)| self.get(origin) >= sequence)
    }
}

impl fmt::Display for VectorClock {
    /// `5554:12,5556:3`, in the order of the ids; `-` for the empty clock.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (place, (origin, sequence)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{origin}:{sequence}")?;
        }
        Ok(())
    }
}

/// The text is not a version such as `5554:12,5556:3`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAVersion;

impl FromStr for VectorClock {
    type Err = NotAVersion;

    /// Reads a clock as `Display` prints it, with each origin once and numbers from 1. The empty clock
    /// is no version.
    fn from_str(text: &str) -> Result<VectorClock, NotAVersion> {
        let mut clock = VectorClock::default();
        for entry in text.split(',') {
            let (origin, sequence) = entry.split_once(':').ok_or(NotAVersion)?;
            let origin = origin.parse().map_err(|_| NotAVersion)?;
            let sequence = sequence.parse().map_err(|_| NotAVersion)?;
            if sequence == 0 || clock.get(origin) != 0 {
                return Err(NotAVersion);
            }
            clock.set(Dot { origin, sequence });
        }
        Ok(clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(text: &str) -> VectorClock {
        text.parse().unwrap()
    }

    #[test]
    fn a_version_is_printed_in_id_order_and_read_back() {
        assert_eq!(clock("5556:3,5554:12").to_string(), "5554:12,5556:3");
        assert_eq!(VectorClock::default().to_string(), "-");
        for wrong in [
            "",
            "-",
            "5554",
            "5554:",
            "5554:x",
            "5554:0",
            "5554:1,5554:2",
            "1:1,",
        ] {
            assert_eq!(wrong.parse::<VectorClock>(), Err(NotAVersion), "{wrong:?}");
        }
    }

    #[test]
    fn one_clock_dominates_another_when_it_has_absorbed_all_of_it() {
        assert!(clock("1:2,2:1").dominates(&clock("1:2")));
        assert!(clock("1:2").dominates(&clock("1:2")));
        assert!(!clock("1:2").dominates(&clock("1:2,2:1")));
        assert!(!clock("1:2").dominates(&clock("2:1")));
        assert!(clock("1:2").dominates(&VectorClock::default()));
    }

    #[test]
    fn setting_and_removing_an_entry_keeps_the_others() {
        let mut all = clock("1:2,3:4");
        all.set(Dot {
            origin: NodeId(2),
            sequence: 9,
        });
        all.set(Dot {
            origin: NodeId(1),
            sequence: 3,
        });
        assert_eq!(all, clock("1:3,2:9,3:4"));
        all.remove(NodeId(2));
        assert_eq!(all, clock("1:3,3:4"));
    }
}
