//! The failure detector: when a silent peer is suspected. This is arithmetic, without a clock.
//!
//! The only evidence of failure is silence: a question has been outstanding for the read time-out,
//! and no byte has come in that time. A refused or reset connection is no evidence. A suspect is not
//! dead: the first byte from it clears the suspicion.
//!
//! Silence must measure the process and the link, never the disk: a vote may wait for a slow disk. So a
//! peer that leaves a question unanswered also gets a ping, which it answers without the disk. Any byte
//! is a sign of life. Silence proves nothing without a ping, or before there was time to answer it.
//!
//! A peer that was sent large values gets more time, because it has to receive all of them before it can
//! answer. Otherwise a busy peer would be suspected, the values would be sent once more to the next
//! replica, and all would have even more to do.

use std::time::Duration;

use crate::bytes::LARGE;

/// How many bytes of large values a node receives in a millisecond at least.
const TAKEN_PER_MS: usize = 4 << 10;
/// How often the silence is judged in each time-out at least. A peer that has been silent from one look
/// to the next gets a ping.
pub const LOOKS: u32 = 4;
/// A peer has the time-out divided by this to answer a ping at least.
const ANSWER_PART: u32 = 2;

/// What is known of a peer's silence. All times are since one fixed moment.
#[derive(Clone, Debug, Default)]
pub struct Suspicion {
    last_heard: Duration,
    /// When the peer got its last ping.
    last_pinged: Option<Duration>,
    suspect: bool,
}

/// The judgement at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// It proves nothing yet: judge again after this time at the latest.
    Patience(Duration),
    /// The same, and send the peer a ping.
    Ping(Duration),
    /// The peer was silent for the read time-out.
    Silent,
}

/// How much longer a peer may be silent that was sent values of these lengths, in bytes.
pub fn time_to_take(sizes: impl Iterator<Item = usize>) -> Duration {
    let large: usize = sizes.filter(|size| *size > LARGE).sum();
    Duration::from_millis((large / TAKEN_PER_MS) as u64)
}

impl Suspicion {
    /// Whether the peer is suspected.
    pub fn suspect(&self) -> bool {
        self.suspect
    }

    /// Notes that a byte came in. Returns whether that cleared a suspicion.
    pub fn heard(&mut self, now: Duration) -> bool {
        self.last_heard = now;
        std::mem::replace(&mut self.suspect, false)
    }

    /// Whether the peer is a suspect that has been silent for `patience` on a connection that was opened
    /// at this moment.
    pub fn hopeless(&self, now: Duration, opened: Duration, patience: Duration) -> bool {
        self.suspect && now.saturating_sub(opened.max(self.last_heard)) >= patience
    }

    /// Notes that the peer gets a ping.
    pub fn pinged(&mut self, now: Duration) {
        self.last_pinged = Some(now);
    }

    /// Whether the peer got no ping for so long. If so, notes that it gets one now.
    pub fn ping_if_due(&mut self, now: Duration, after: Duration) -> bool {
        let due = self.last_pinged.is_none_or(|at| now >= at + after);
        if due {
            self.pinged(now);
        }
        due
    }

    /// Judges the silence. `oldest` is when the oldest outstanding question was asked.
    pub fn judge(
        &mut self,
        now: Duration,
        oldest: Option<Duration>,
        time_out: Duration,
    ) -> Judgement {
        let next_look = time_out / LOOKS;
        let Some(oldest) = oldest else {
            return Judgement::Patience(next_look);
        };
        let silent_since = oldest.max(self.last_heard);
        let silence = now.saturating_sub(silent_since);
        let pinged = self.last_pinged.filter(|at| *at >= silent_since);
        let Some(pinged) = pinged else {
            if silence < next_look {
                return Judgement::Patience(next_look - silence);
            }
            self.pinged(now);
            return Judgement::Ping(next_look);
        };
        let judged_at = (silent_since + time_out).max(pinged + time_out / ANSWER_PART);
        if now < judged_at {
            return Judgement::Patience(next_look.min(judged_at - now));
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
        // (now, oldest question, last ping, last byte heard) -> the judgement
        let (patience, ping) = (
            |millis| Judgement::Patience(ms(millis)),
            Judgement::Ping(ms(25)),
        );
        let cases = [
            ((500, None, None, 0), patience(25)),
            ((500, Some(500), None, 0), patience(25)),
            ((510, Some(500), None, 0), patience(15)),
            ((525, Some(500), None, 0), ping),
            ((540, Some(500), Some(525), 0), patience(25)),
            ((599, Some(500), Some(525), 0), patience(1)),
            ((600, Some(500), Some(525), 0), Judgement::Silent),
            // A byte came, such as the answer to the ping, so the silence begins anew.
            ((600, Some(500), Some(525), 550), ping),
            ((640, Some(500), Some(575), 550), patience(10)),
            ((650, Some(500), Some(575), 550), Judgement::Silent),
            // The ping belongs to an earlier silence.
            ((610, Some(600), Some(520), 550), patience(15)),
            ((450, Some(500), None, 0), patience(25)),
        ];
        for ((now, oldest, pinged, heard), expected) in cases {
            let mut suspicion = Suspicion::default();
            suspicion.heard(ms(heard));
            if let Some(pinged) = pinged {
                suspicion.pinged(ms(pinged));
            }
            let judgement = suspicion.judge(ms(now), oldest.map(ms), ms(100));
            assert_eq!(
                judgement, expected,
                "now {now}, oldest {oldest:?}, pinged {pinged:?}, heard {heard}"
            );
            assert_eq!(suspicion.suspect(), expected == Judgement::Silent);
        }
    }

    /// This process itself may have been paused, so that it judges the silence late.
    #[test]
    fn a_peer_has_time_to_answer_the_ping_however_late_that_was_sent() {
        let mut suspicion = Suspicion::default();
        let mut judge = |now| suspicion.judge(ms(now), Some(ms(0)), ms(100));
        assert_eq!(judge(1_000), Judgement::Ping(ms(25)));
        assert_eq!(judge(1_049), Judgement::Patience(ms(1)));
        assert_eq!(judge(1_050), Judgement::Silent);
    }

    #[test]
    fn a_peer_that_answers_pings_is_never_suspected_however_long_a_question_waits() {
        let mut suspicion = Suspicion::default();
        let mut pings = 0;
        for now in (0..10_000).step_by(25) {
            match suspicion.judge(ms(now), Some(ms(0)), ms(100)) {
                Judgement::Silent => panic!("suspected after {now} ms"),
                Judgement::Ping(_) => {
                    pings += 1;
                    suspicion.heard(ms(now + 20));
                }
                Judgement::Patience(_) => {}
            }
        }
        assert!(pings > 100, "{pings}");
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
        suspicion.pinged(ms(125));
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
        suspicion.pinged(ms(25));
        suspicion.judge(ms(100), Some(ms(0)), ms(100));
        assert!(suspicion.suspect());
        assert!(suspicion.heard(ms(101)));
        assert!(!suspicion.suspect() && !suspicion.heard(ms(102)));
    }
}
