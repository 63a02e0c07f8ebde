//! An anti-replay window, as in [RFC 6479](https://www.rfc-editor.org/rfc/rfc6479): a forwarded request
//! that arrives twice is carried out once.
//!
//! The network may duplicate a message. Most questions may be answered twice, but two answers to one
//! forwarded request could contradict each other. For example, this node may become full in between, so
//! that the second answer says that the request was certainly not done. If the first answer is lost, the
//! sender believes the second.

/// How many of the latest ids are remembered one by one. Ids grow by one with each question of a link.
/// They arrive out of order only as far as the link's threads send side by side, which is far less than
/// the 20,000 questions that may be outstanding.
const WINDOW: u64 = 1 << 16;

/// Which of the latest [`WINDOW`] ids of a connection were accepted. All older ids count as accepted.
pub(super) struct ReplayWindow {
    latest: u64,
    /// One bit for each id in the window, at the id modulo [`WINDOW`].
    bits: Vec<u64>,
}

impl ReplayWindow {
    pub(super) fn new() -> ReplayWindow {
        ReplayWindow {
            latest: 0,
            bits: vec![0; WINDOW as usize / 64],
        }
    }

    /// Accepts an id. Returns false if it was accepted before, or is older than the window.
    pub(super) fn accept(&mut self, id: u64) -> bool {
        if id > self.latest {
            // The bits of the ids that enter the window belonged to those that leave it.
            let first = (self.latest + 1).max(id.saturating_sub(WINDOW - 1));
            for entering in first..=id {
                let (word, bit) = place(entering);
                self.bits[word] &= !bit;
            }
            self.latest = id;
        }
        let (word, bit) = place(id);
        let is_replayed = self.latest - id >= WINDOW || self.bits[word] & bit != 0;
        self.bits[word] |= bit;
        !is_replayed
    }
}

/// The word that contains an id's bit, and the bit.
fn place(id: u64) -> (usize, u64) {
    let place = id % WINDOW;
    (place as usize / 64, 1 << (place % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_accepted_once_in_whatever_order_they_come() {
        let mut window = ReplayWindow::new();
        for id in [1, 2, 5, 3, 64, 63, 70_000, 69_999] {
            assert!(window.accept(id), "{id}");
            assert!(!window.accept(id), "{id} again");
        }
        assert!(window.accept(4464 + 1), "the oldest id in the window");
    }

    #[test]
    fn an_id_older_than_the_window_is_not_accepted() {
        let mut window = ReplayWindow::new();
        assert!(window.accept(10 * WINDOW));
        assert!(window.accept(9 * WINDOW + 1));
        assert!(!window.accept(9 * WINDOW));
        // The next id takes the bit of the one that leaves.
        assert!(window.accept(10 * WINDOW + 1));
        assert!(!window.accept(9 * WINDOW + 1));
        assert!(window.accept(u64::MAX) && !window.accept(10 * WINDOW + 2));
    }
}
