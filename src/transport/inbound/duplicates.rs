//! Which forwarded requests of a connection were taken up: each is taken once.
//!
//! A network may double a message. Most questions may be answered twice, but two answers to one
//! forwarded request could contradict each other: the second is that it is certainly not done, say,
//! since this node became full in between. If the first answer is lost, the origin believes it.

/// How many of the latest ids are told apart. Ids grow by one with each question of a link, and come
/// out of order by what its threads send side by side: far fewer than may be outstanding, 20,000.
const WINDOW: u64 = 1 << 16;

/// The ids of the requests that were taken up, for the latest [`WINDOW`] ids; each older one counts as
/// taken.
pub(super) struct Duplicates {
    latest: u64,
    /// One bit for each id, at its remainder by [`WINDOW`].
    bits: Vec<u64>,
}

impl Duplicates {
    pub(super) fn new() -> Duplicates {
        Duplicates {
            latest: 0,
            bits: vec![0; WINDOW as usize / 64],
        }
    }

    /// Takes up the request with this id; false if it was taken up before, or is too old to tell.
    pub(super) fn take(&mut self, id: u64) -> bool {
        if id > self.latest {
            // These bits stood for the ids that leave the window.
            let first = (self.latest + 1).max(id.saturating_sub(WINDOW - 1));
            for entering in first..=id {
                let (word, bit) = place(entering);
                self.bits[word] &= !bit;
            }
            self.latest = id;
        }
        let (word, bit) = place(id);
        let taken = self.latest - id >= WINDOW || self.bits[word] & bit != 0;
        self.bits[word] |= bit;
        !taken
    }
}

/// The word that an id's bit is in, and the bit.
fn place(id: u64) -> (usize, u64) {
    let place = id % WINDOW;
    (place as usize / 64, 1 << (place % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_taken_once_in_whatever_order_they_come() {
        let mut taken = Duplicates::new();
        for id in [1, 2, 5, 3, 64, 63, 70_000, 69_999] {
            assert!(taken.take(id), "{id}");
            assert!(!taken.take(id), "{id} again");
        }
        assert!(taken.take(4464 + 1), "the oldest that is told apart");
    }

    #[test]
    fn a_request_that_is_older_than_the_window_counts_as_taken() {
        let mut taken = Duplicates::new();
        assert!(taken.take(10 * WINDOW));
        assert!(taken.take(9 * WINDOW + 1));
        assert!(!taken.take(9 * WINDOW));
        // It has the place of the one that left.
        assert!(taken.take(10 * WINDOW + 1));
        assert!(!taken.take(9 * WINDOW + 1));
        assert!(taken.take(u64::MAX) && !taken.take(10 * WINDOW + 2));
    }
}
