//! Limits log lines that others could cause many times in a second.

use std::time::Duration;

/// How long no other line of the same kind is logged.
const PAUSE: Duration = Duration::from_secs(10);

/// Lets one line of a kind through every ten seconds, and counts the others.
#[derive(Default)]
pub struct Throttle {
    last: Option<Duration>,
    held_back: u64,
}

impl Throttle {
    /// Returns none if the line must not be logged at this moment. Otherwise returns what to append to the
    /// line, which is the number of lines held back, if there were any. `now` is the time since a fixed
    /// moment, the same one in all calls.
    pub fn pass(&mut self, now: Duration) -> Option<String> {
        if self.last.is_some_and(|last| now < last + PAUSE) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(match std::mem::take(&mut self.held_back) {
            0 => String::new(),
            count => format!(" ({count} more of these were not logged)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_lines_one_in_ten_seconds_is_logged_and_the_others_are_counted() {
        let mut throttle = Throttle::default();
        let said: Vec<_> = (0..25)
            .filter_map(|second| throttle.pass(Duration::from_secs(second)))
            .collect();
        let others = " (9 more of these were not logged)";
        assert_eq!(said, ["", others, others]);
    }
}
