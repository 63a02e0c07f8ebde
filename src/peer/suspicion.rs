//! When a silent peer is suspected: arithmetic, without a clock.
//!
//! The only evidence of failure is silence: a question has been outstanding for the read time-out
//! and no byte has come in that time. A refused or reset connection is none. A suspect is not
//! dead: the first byte from it clears the suspicion.
//!
//! A peer that was sent a large value has to read all of it before it can say a word, with others
//! perhaps before it: that is no silence. Taken for one, it would have the value sent once more, to
//! the next replica, and the more so the more there is to do.

use std::time::Duration;

use crate::bytes::LARGE;

/// How many bytes of large values a node takes in a millisecond, at the least.
const TAKEN_PER_MS: usize = 4 << 10;

/// What is known of a peer's silence. Times are since any fixed moment.
#[derive(Clone, Debug, Default)]
pub struct Suspicion {
    last_heard: Duration,
    suspect: bool,
}

/// The judgement at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// Look again after this time at the latest.
    Patience(Duration),
    /// Silent for as long as the read time-out.
    Silent,
}

/// How much longer than usual a peer may be silent that was sent values of these sizes.
pub fn time_to_take(sizes: impl Iterator<Item = usize>) -> Duration {
    let large: usize = sizes.filter(|size| *size > LARGE).sum();
    Duration::from_millis((large / TAKEN_PER_MS) as u64)
}

impl Suspicion {
    pub fn suspect(&self) -> bool {
        self.suspect
    }

    /// A byte came in; returns whether that cleared a suspicion.
    pub fn heard(&mut self, now: Duration) -> bool {
        self.last_heard = now;
        std::mem::replace(&mut self.suspect, false)
    }

    /// Whether a suspect has been silent for `patience` on a connection opened at that moment.
    pub fn hopeless(&self, now: Duration, opened: Duration, patience: Duration) -> bool {
        self.suspect && now.saturating_sub(opened.max(self.last_heard)) >= patience
    }

    /// Judges the silence; `oldest` is when the oldest question still outstanding was asked.
    pub fn judge(
        &mut self,
        now: Duration,
        oldest: Option<Duration>,
        time_out: Duration,
    ) -> Judgement {
        let Some(oldest) = oldest else {
            return Judgement::Patience(time_out);
        };
        let silent_since = oldest.max(self.last_heard);
        let silence = now.saturating_sub(silent_since);
        if silence < time_out {
            return Judgement::Patience(time_out - silence);
        }
        self.suspect = true;
        Judgement::Silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_peer_is_suspected_after_a_time_out_of_silence_with_a_question_outstanding() {
        // (now, oldest question, last byte heard) -> milliseconds of patience, 0 for silent
        let cases = [
            ((500, None, 0), 100),
            ((500, Some(500), 0), 100),
            ((540, Some(500), 0), 60),
            ((600, Some(500), 0), 0),
            ((600, Some(500), 550), 50),
            ((650, Some(500), 550), 0),
            ((450, Some(500), 0), 100),
        ];
        for ((now, oldest, heard), patience) in cases {
            let mut suspicion = Suspicion::default();
            suspicion.heard(ms(heard));
            let judgement = suspicion.judge(ms(now), oldest.map(ms), ms(100));
            let expected = match patience {
                0 => Judgement::Silent,
                patience => Judgement::Patience(ms(patience)),
            };
            assert_eq!(
                judgement, expected,
                "now {now}, oldest {oldest:?}, heard {heard}"
            );
            assert_eq!(suspicion.suspect(), patience == 0);
        }
    }

    #[test]
    fn large_values_take_time_and_many_small_ones_do_not() {
        let took = |sizes: &[usize]| time_to_take(sizes.iter().copied());
        assert_eq!(took(&[LARGE; 1000]), Duration::ZERO);
        assert_eq!(took(&[1 << 20, 0, 1 << 19]), ms(256 + 128));
    }

    #[test]
    fn a_connection_is_hopeless_once_a_suspect_has_been_silent_on_it_for_long() {
        let mut suspicion = Suspicion::default();
        suspicion.heard(ms(100));
        assert!(
            !suspicion.hopeless(ms(5_000), ms(0), ms(1_000)),
            "no suspect"
        );
        suspicion.judge(ms(200), Some(ms(100)), ms(100));
        assert!(!suspicion.hopeless(ms(1_099), ms(0), ms(1_000)));
        assert!(suspicion.hopeless(ms(1_100), ms(0), ms(1_000)));
        assert!(
            !suspicion.hopeless(ms(1_100), ms(101), ms(1_000)),
            "a newer connection"
        );
    }

    #[test]
    fn one_byte_clears_a_suspicion() {
        let mut suspicion = Suspicion::default();
        suspicion.judge(ms(100), Some(ms(0)), ms(100));
        assert!(suspicion.suspect());
        assert!(suspicion.heard(ms(101)));
        assert!(!suspicion.suspect() && !suspicion.heard(ms(102)));
    }
}
