//! How late a replica's votes are: arithmetic, without a clock.
//!
//! A coordinator waits for as many votes as decide, and those of the other replicas are spare: they
//! may come later. A replica whose disk or network is slow belongs to these others, or each
//! request would take as long as it does.

use std::time::Duration;

use super::coordinating::RIDE_FOR;

/// Lateness is counted in steps of this, about what a spare vote takes: one that is waited for
/// no longer is in time.
const STEP: Duration = RIDE_FOR;
/// How long a late vote counts.
const REMEMBERED: Duration = Duration::from_secs(1);

/// What is known of one replica's votes. Times are since any fixed moment.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the oldest vote that is waited for was asked for, as far as known.
    waiting_since: Option<Duration>,
    /// How late the last late vote was, and when it came.
    last_late: Option<(u64, Duration)>,
}

impl Pace {
    /// A vote is asked for, and waited for.
    pub fn asked(&mut self, now: Duration) {
        self.waiting_since.get_or_insert(now);
    }

    /// The vote that was asked for at `asked` is there, or given up.
    pub fn answered(&mut self, asked: Duration, now: Duration) {
        self.waiting_since = self.waiting_since.filter(|&since| since < asked);
        if late(asked, now) > 0 {
            self.last_late = Some((late(asked, now), now));
        }
    }

    /// There was no vote: an abstention, however quick, is of less use than any late vote.
    pub fn missed(&mut self, now: Duration) {
        self.last_late = Some((u64::MAX, now));
    }

    /// In how many steps a vote is late now, or one was lately; 0 for a replica that is in time.
    pub fn lateness(&self, now: Duration) -> u64 {
        let remembered = self.last_late.filter(|(_, at)| now < *at + REMEMBERED);
        let waiting = self.waiting_since.map_or(0, |since| late(since, now));
        waiting.max(remembered.map_or(0, |(late, _)| late))
    }
}

fn late(asked: Duration, now: Duration) -> u64 {
    now.saturating_sub(asked).as_millis() as u64 / STEP.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(steps: u32) -> Duration {
        STEP * steps
    }

    #[test]
    fn a_replica_is_late_while_a_vote_is_and_for_a_second_after_it() {
        let mut pace = Pace::default();
        assert_eq!(pace.lateness(steps(500)), 0, "asked nothing");
        pace.asked(steps(500));
        pace.answered(steps(500), steps(501) - Duration::from_millis(1));
        assert_eq!(pace.lateness(steps(501)), 0, "in time");

        pace.asked(steps(600));
        assert_eq!(pace.lateness(steps(601)), 1, "not there");
        assert_eq!(pace.lateness(steps(603)), 3);
        pace.answered(steps(600), steps(604));
        let forgotten = steps(604) + REMEMBERED;
        assert_eq!(pace.lateness(forgotten - steps(1)), 4, "was late");
        assert_eq!(pace.lateness(forgotten), 0);
    }

    #[test]
    fn a_replica_that_abstains_is_later_than_any_that_votes() {
        let mut pace = Pace::default();
        pace.asked(steps(1));
        pace.answered(steps(1), steps(1));
        pace.missed(steps(1));
        assert_eq!(pace.lateness(steps(1)), u64::MAX);
        assert_eq!(pace.lateness(steps(1) + REMEMBERED), 0);
    }

    #[test]
    fn quick_votes_do_not_hide_that_one_hangs() {
        let mut pace = Pace::default();
        pace.asked(steps(1));
        pace.asked(steps(2));
        pace.answered(steps(2), steps(2));
        assert_eq!(pace.lateness(steps(5)), 4);
        pace.answered(steps(1), steps(6));
        assert_eq!(pace.lateness(steps(6) + REMEMBERED), 0, "it came");
    }
}
